"""What the captioner learns by, beside the likelihood of captions.

pair_prior        prior on pairs of words, for the loss
turned_sentences  a loss on sentences turned round
self_critical     training by the score of captions that the captioner writes
"""
