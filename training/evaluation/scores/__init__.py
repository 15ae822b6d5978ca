"""The scores of captions.

scoring         BLEU, METEOR, ROUGE-L, CIDEr, SPICE
clip_score      CLIPScore and RefCLIPScore
chair           CHAIR: mentions of objects that are not in the picture
objects         objects in captions, by their names and synonyms
domains         a test set in parts, and their overall figures
cider_reward    CIDEr-D of single captions, as a reward of training
words           captions of any language into words
checks          checks of statements that a data set brings with it
forced_choice   which of a true and a false caption is the more likely one
right           when a caption counts as right by its references alone
reliability     how far a score tells right captions from wrong ones
"""
