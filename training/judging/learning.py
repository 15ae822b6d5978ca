"""Fits a quality head to captions, and calibrates it on captions of other pictures.

Axes: n captions, T tokens.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from model.network.quality import QualityHead, logit
from training.config import Quality
from training.evaluation.scores.reliability import auroc, calibration_error
from training.evaluation.scores.right import RIGHT
from training.judging.examples import Examples

#: Weight of the loss of tokens, whose mean is far smaller than that of captions.
TOKEN_WEIGHT = 10.0
#: Captions in one pass where nothing is learned.
_PASS = 1024


class Parts(NamedTuple):
    """Rows of the captions of three sets of pictures, which have no picture in common."""

    learned: Tensor
    calibrated: Tensor
    measured: Tensor


def split_pictures(examples: Examples, held_out: float, seed: int) -> Parts:
    """Which captions the head learns, is calibrated on, and is measured on.

    Args:
        examples: The captions.
        held_out: Share of the pictures that it does not learn; half of them calibrate it.
        seed: Decides which.
    """
    count = int(examples.picture.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    half = max(1, round(count * held_out / 2))
    rows = [
        torch.isin(examples.picture, chosen).nonzero()[:, 0]
        for chosen in (order[2 * half :], order[:half], order[half : 2 * half])
    ]
    return Parts(*rows)


def learn_head(examples: Examples, parts: Parts, settings: Quality) -> QualityHead:
    """A head that was fitted to the captions of `parts.learned`; not calibrated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = QualityHead(examples.states.shape[2], settings.width, settings.dropout)
        torch.nn.init.constant_(head.out.bias, -3.0)  # few tokens are wrong
        optimiser = torch.optim.AdamW(
            head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        batches = -(-len(parts.learned) // settings.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.learning_rate, total_steps=settings.epochs * batches
        )
        epochs = range(settings.epochs)
        for _ in track(epochs, "learning quality", console=Console(stderr=True)):
            shuffled = parts.learned[torch.randperm(len(parts.learned))]
            for rows in shuffled.split(settings.batch_size):
                optimiser.zero_grad()
                caption_loss(head, examples.rows(rows)).backward()
                optimiser.step()
                schedule.step()
    return head.eval()


def caption_loss(head: QualityHead, batch: Examples) -> Tensor:
    """Cross-entropy of captions being right, and of their tokens being wrong where that is known.

    Captions of any data set have the first. The second says which words are wrong, so that fewer
    captions are needed.
    """
    logits = head.token_logits(batch.states.float(), batch.log_probs, batch.lengths)  # [n, T]
    loss = F.binary_cross_entropy_with_logits(
        logit(head.log_prob(logits, batch.lengths)), batch.right
    )
    known = head.within(logits.shape[1], batch.lengths) & batch.marked.unsqueeze(-1)
    if bool(known.any()):
        tokens = F.binary_cross_entropy_with_logits(logits[known], batch.wrong[known])
        loss = loss + TOKEN_WEIGHT * tokens
    return loss


@torch.no_grad()
def odds(head: QualityHead, examples: Examples, rows: Tensor) -> Tensor:
    """Logits [n] of captions being right, before the calibration."""
    found = []
    for part in rows.split(_PASS):
        batch = examples.rows(part)
        logits = head.token_logits(batch.states.float(), batch.log_probs, batch.lengths)
        found.append(logit(head.log_prob(logits, batch.lengths)))
    return torch.cat(found) if found else torch.zeros(0)


def calibrated(head: QualityHead, examples: Examples, rows: Tensor) -> QualityHead:
    """The head with the line slope * logit + offset that fits these captions best.

    It minimises the cross-entropy. A small weight on the distance to slope 1 and offset 0 keeps it
    there where there are few captions, or none that is wrong.
    """
    logits, right = odds(head, examples, rows).double(), examples.right[rows].double()
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    start = line.detach().clone()
    optimiser = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(
            line[0] * logits + line[1], right, reduction="sum"
        )
        loss = loss + ((line - start) ** 2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    fitted = copy.deepcopy(head)
    slope, offset = line.detach().float()
    fitted.slope.copy_(slope.clamp(min=0.05))  # a higher logit is never a lower quality
    fitted.offset.copy_(offset)
    return fitted


def figures(head: QualityHead, examples: Examples, rows: Tensor) -> dict[str, Any]:
    """How well a calibrated head does on captions: their number, the share right, AUROC and ECE."""
    raw = odds(head, examples, rows)
    quality = torch.sigmoid(head.slope * raw + head.offset).tolist()
    before, right = torch.sigmoid(raw).tolist(), examples.right[rows].tolist()
    ranked = auroc(quality, [each >= RIGHT for each in right])
    return {
        "captions": len(rows),
        "right": round(sum(right) / max(1, len(right)), 4),
        "AUROC": None if ranked is None else round(ranked, 4),
        "ECE_before_calibration": round(calibration_error(before, right), 4),
        "ECE": round(calibration_error(quality, right), 4),
    }
