"""A search for better settings: trials of the captioner's training that Optuna suggests.

space   the settings that are varied, from Hydra's words for sweeps; their check
study   the trials: suggested, run, ended early, stored, gone on with after a kill
report  table, plot, and the line to type for the best settings
"""
