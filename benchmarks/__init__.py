"""Measurements, side by side and in one run; and checks at real sizes."""

import model  # noqa: F401 - goes before transformers: see `model.pretrained.torchvision_operators`
