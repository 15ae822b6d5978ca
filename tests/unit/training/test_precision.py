"""What a training computes in on processors with and without bfloat16."""

from __future__ import annotations

import pytest
import torch

from training.precision import training_precision


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2": True}, "32-true"),
        ({"avx512": True}, "32-true"),  # oneDNN would convert every product
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    features: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert training_precision("auto") == expected
    assert training_precision("bf16-mixed") == "bf16-mixed"
    assert training_precision("32-true") == "32-true"
