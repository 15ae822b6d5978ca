"""Training of the captioner.

train           from settings to checkpoint folder
trainer         Lightning's trainer, and by what the best epoch is chosen
settings        checks of the settings against each other and against the encoder
tokenizer       a BPE tokenizer learned from the captions
start           a checkpoint folder that training goes on from
language_model  GPT-2: a trained one, or one from scratch
images          cached features of the images, or their pixels
text_features   text features that stand for those of images, for training on captions alone
batches         which captions make a batch: order, length, the share of each device
data            captions and images as tensors
module          the LightningModule: loss, validation CIDEr
self_critical   training by the score of captions that the captioner writes
tuning          which weights are trained: full, frozen, LoRA
pair_prior      prior on pairs of words, for the loss
turned_sentences  a loss on sentences turned round
optimization    AdamW and its schedule
averaging       moving average of the weights
best_epoch      keeps the checkpoint of the best epoch; ends a training that gets no better
resuming        last checkpoint of a run, its settings, and the check before it is resumed
record          what is recorded of a training, in its checkpoints and in training.json
curves          CSV tables of losses and scores
"""
