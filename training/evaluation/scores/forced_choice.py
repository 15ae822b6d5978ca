"""Which of two captions a captioner finds more likely, where one is true and the other false.

What a captioner writes shows what it dares to state. This shows what it knows: a captioner that
never says "left of" may or may not be able to tell it from "right of" (as in the tests of
compositionality of Thrush et al.: "Winoground", arXiv 2204.03162).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.artifact import Artifact

#: Captions whose log-probabilities are computed at a time.
TOGETHER = 256


def log_probabilities(artifact: Artifact, features: Tensor, captions: Sequence[str]) -> Tensor:
    """Log-probability of each caption with its end token, float32 [N], in nats.

    Args:
        artifact: The captioner.
        features: Of the picture of each caption, [N, D] or [N, P, D].
        captions: N texts; one of more tokens than the captioner can write is cut.
    """
    end, room = artifact.info["end_token_id"], int(artifact.upper_limit("max_tokens"))
    found = []
    for start in range(0, len(captions), TOGETHER):
        part = list(captions[start : start + TOGETHER])
        encoded = artifact.tokenizer.encode_batch(part, add_special_tokens=False)
        rows = [torch.tensor([*one.ids, end][:room]) for one in encoded]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(row) for row in rows])
        scores = artifact.score(features[start : start + TOGETHER], tokens)  # [n, T]
        own = torch.arange(tokens.shape[1]) < lengths[:, None]
        found.append(scores.masked_fill(~own, 0.0).sum(1))
    return torch.cat(found) if found else torch.zeros(0)


def choices(
    artifact: Artifact, features: Tensor, pairs: Sequence[tuple[int, str, str]]
) -> list[bool]:
    """Whether the first caption of each pair is the more likely one.

    Args:
        artifact: The captioner.
        features: Of the pictures, [B, D] or [B, P, D].
        pairs: Row of the picture, and two captions of it.
    """
    rows = torch.tensor([row for row, _, _ in pairs for _ in range(2)], dtype=torch.long)
    texts = [text for _, first, second in pairs for text in (first, second)]
    scores = log_probabilities(artifact, features[rows], texts).view(-1, 2)
    return (scores[:, 0] > scores[:, 1]).tolist()
