"""Measurements, side by side and in one run; and checks at real sizes."""

import model.pretrained  # noqa: F401 - prepares the import of transformers
