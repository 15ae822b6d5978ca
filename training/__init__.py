"""From a caption data set to an archive: prepare, features, train, evaluate, export, archive."""

import model  # noqa: F401 - goes before transformers: see `model.pretrained.torchvision_operators`
