"""Contrastive training of CLIP.

train             from settings to a Hugging Face folder
settings          checks of the settings against each other
from_scratch      a CLIP with random weights, and the captioner of the caption loss
captioned_pixels  pictures, captions and boxes
batches           which pictures make a batch, for each rank and epoch
module            the LightningModule: contrastive, caption and region loss, and the anchor
loss              the contrastive loss over all ranks, with hard negatives
ranks             the features of all ranks, and means over them
anchor            the frozen base, whose features the tuned ones stay close to
regions           boxes with names, and the region loss
neighbours        where the next thing is, for the region loss
repainting        things in other colours
augmentation      zoom, colours a little, blur
retrieval         recall between images and captions
model_folder      the folder that is written, with its README
"""
