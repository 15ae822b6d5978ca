"""What an evaluation leaves to look at.

folder          the files of a report
page            page of pictures, and table for the terminal
scores_chart    the chart of the scores
kept_chart      the chart of how many captions are right, of those kept by their quality
model_card      the model card of the checkpoint
retrained_card  what a training writes into the model card
marked_block    a block between two marks of a text
"""
