"""Evaluation of a captioner.

evaluate        from settings to reports
score_results   the same for a file of anybody's captions
results_file    captions in COCO's form
captioning      captions of a split, as a server would write them
on_device       the captioner as a server runs it, or on another device
measures        all that captions are measured by
scoring         BLEU, METEOR, ROUGE-L, CIDEr, SPICE
clip_score      CLIPScore and RefCLIPScore
chair           CHAIR: mentions of objects that are not in the picture
objects         objects in captions, by their names and synonyms
domains         a test set in parts, and their overall figures
cider_reward    CIDEr-D of single captions, as a reward of training
words           captions of any language into words
checks          checks of statements that a data set brings with it
forced_choice   which of a true and a false caption is the more likely one
precision_gate  how much narrower weights may change the captions
right           when a caption counts as right by its references alone
reliability     how far a score tells right captions from wrong ones
kept_chart      the chart of how many captions are right, of those kept by their quality
report          page and table
scores_chart    the chart of the scores
report_folder   the files of a report
model_card      the model card of the checkpoint
retrained_card  what a training writes into the model card
marked_block    a block between two marks of a text
"""
