"""Publishing a captioner on the Hugging Face hub; `training.publish` is the command.

publish   checks the folder, sends it in one commit, and checks what arrived
card      the model card on the hub: licence, base models, and how to use it
"""
