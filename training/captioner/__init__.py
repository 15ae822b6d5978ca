"""Training of the captioner.

train           from settings to checkpoint folder
settings        checks of the settings against each other and against the encoder
tokenizer       a BPE tokenizer learned from the captions
language_model  GPT-2: a trained one, or one from scratch
images          cached features of the images, or their pixels
text_features   text features that stand for those of images, for training on captions alone
batches         which captions make a batch: order, length, the share of each device
data            captions and images as tensors
module          the LightningModule: loss, validation CIDEr; more losses are in objectives/
tuning          which weights are trained: full, frozen, LoRA
optimization    AdamW and its schedule
averaging       moving average of the weights

How a run begins, is recorded and goes on after an interruption is in run/.
"""
