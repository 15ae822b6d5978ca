"""Learns the out-of-distribution score of a captioner (see `model.ood`).

- fitting.py finds groups of features, their covariance, and the scores of other images.
- learn.py is all of it, from settings to the files in the checkpoint folder.
"""
