"""Evaluation of a captioner.

evaluate        from settings to reports
captioning      captions of a split, as a server would write them
on_device       the captioner as a server runs it, or on another device
scoring         BLEU, METEOR, ROUGE-L, CIDEr, SPICE
cider_reward    CIDEr-D of single captions, as a reward of training
words           captions of any language into words
checks          checks of statements that a data set brings with it
forced_choice   which of a true and a false caption is the more likely one
precision_gate  how much narrower weights may change the captions
right           when a caption counts as right by its references alone
reliability     how far a score tells right captions from wrong ones
kept_chart      the chart of how many captions are right, of those kept by their quality
report          page, table and chart
model_card      the model card of the checkpoint
retrained_card  what a training writes into the model card
marked_block    a block between two marks of a text
"""
