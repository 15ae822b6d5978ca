"""Contrastive training of CLIP.

train             from settings to a Hugging Face folder
settings          checks of the settings against each other
captioned_pixels  pictures, captions and boxes in batches
module            the LightningModule: contrastive, caption and region loss
regions           boxes with names, and the region loss
repainting        things in other colours
retrieval         recall between images and captions
"""
