"""The benchmarks of training: the original's loss is ours without its padding, and the tables."""

from __future__ import annotations

import pytest
import torch

from benchmarks.original_training import caption_loss, padded
from benchmarks.train import captioner
from benchmarks.training_figures import quality_table, train_table
from model.network.captioner import IGNORED


@torch.no_grad()
def test_the_originals_loss_is_ours_but_for_its_padding():
    model = captioner(True).eval()
    features = torch.randn(3, model.config.feature_width)
    labels = torch.randint(1, 300, (3, 7))
    labels[1, 4:] = IGNORED
    ours = model(features, labels)
    assert caption_loss(model, features, padded(labels, 12)).item() == pytest.approx(
        ours.item(), rel=1e-5
    )
    # Token 0 is left out of its loss, wherever it stands.
    labels[0, 3] = 0
    theirs = caption_loss(model, features, padded(labels, 12))
    assert theirs.item() != pytest.approx(model(features, labels).item(), rel=1e-6)


def test_tables_show_ratios_and_spreads():
    rows = [
        {"tuning": "full", "system": name, "seconds": seconds, "peak_mb": 10}
        for name, seconds in (("the original's loop", 8.0), ("ours", 2.0), ("products", 1.0))
    ]
    frozen = [{**row, "tuning": "frozen"} for row in rows]
    shown = train_table({"tokens": 180.0, "measured": [*frozen, *rows]})
    assert "| full | ours | 2.00 | 90 | 4.0 | 50% | 10 MB |" in shown
    figures = {"CLIPScore": 1.0, "precision": 0.5, "recall": 0.5, "hallucination_rate": 0.1}
    measured = [
        {"recipe": "ours", "seed": seed, "test": {"CIDEr": value, **figures}}
        for seed, value in ((1, 2.0), (2, 3.0), (3, 2.5))
    ]
    assert "| ours | 2.50 (2.00 to 3.00) | 1.00" in quality_table({"measured": measured}, "test")
