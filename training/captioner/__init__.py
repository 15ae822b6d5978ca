"""Training of the captioner.

train           from settings to checkpoint folder
settings        checks of the settings against each other and against the encoder
tokenizer       a BPE tokenizer learned from the captions
language_model  GPT-2: a trained one, or one from scratch
images          cached features of the images, or their pixels
data            captions and images in batches
module          the LightningModule: loss, validation CIDEr
tuning          which weights are trained: full, frozen, LoRA
pair_prior      prior on pairs of words, for the loss
turned_sentences  a loss on sentences turned round
optimization    AdamW and its schedule
best_epoch      keeps the checkpoint of the best epoch
resuming        settings in the checkpoints of a run, and the check before it is resumed
record          what is recorded of a training, in its checkpoints and in training.json
curves          CSV tables of losses and scores
"""
