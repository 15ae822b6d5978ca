"""Contrastive training of CLIP: the Lightning module, its data, and the losses beside it."""
