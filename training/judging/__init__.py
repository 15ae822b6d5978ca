"""Learns the quality head of a captioner (see `model.network.quality`).

- targets.py says how right a caption is: by the truth about its picture, or by its references.
- examples.py has the captioner write captions, and keeps the decoder's states.
- learning.py fits the head to some of the pictures and calibrates it on others.
- learn.py is all of it, from settings to the files in the checkpoint folder.
"""
