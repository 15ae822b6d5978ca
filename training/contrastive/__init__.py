"""Contrastive training of CLIP.

train             from settings to a Hugging Face folder
settings          checks of the settings against each other
precision         what it is trained in
captioned_pixels  pictures, captions and boxes in batches
module            the LightningModule: contrastive, caption and region loss
regions           boxes with names, and the region loss
neighbours        where the next thing is, for the region loss
repainting        things in other colours
retrieval         recall between images and captions
"""
