"""What a captioner says about usual pictures: `reference.jsonl` in the checkpoint folder.

`training.ood` writes it of validation pictures, and `monitoring.drift` compares with it what a
server captured. The first line is about the whole file, each other line about one picture.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.refusal import Refusal

REFERENCE = "reference.jsonl"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class ReferenceRow:
    """One usual picture.

    Attributes:
        caption: Its best caption, by the captioner's own defaults.
        confidence: exp of the mean log-probability of the caption's tokens.
        quality: How likely the caption is right; None from a captioner without a quality head.
        ood_score: See `model.ood`.
        ood_p_value: The same.
        feature: float32 [D], the mean of its patches if it has patches.
    """

    caption: str
    confidence: float
    quality: float | None
    ood_score: float
    ood_p_value: float
    feature: Tensor


@dataclasses.dataclass(frozen=True)
class Reference:
    """Usual pictures of one captioner.

    Attributes:
        weights_sha256: Digest of its weights.
        data: The data set.
        rows: The pictures.
    """

    weights_sha256: str
    data: str
    rows: list[ReferenceRow]

    def save(self, folder: Path) -> None:
        """Write the file into a checkpoint folder, in place of an older one."""
        aside = folder / f"{REFERENCE}.partial"
        with aside.open("w", encoding="utf-8") as file:
            head = {"format": FORMAT, "weights_sha256": self.weights_sha256, "data": self.data}
            file.writelines(f"{json.dumps(each)}\n" for each in [head, *map(_fields, self.rows)])
        aside.replace(folder / REFERENCE)

    @classmethod
    def load(cls, file: Path) -> Reference:
        """Read the file.

        Raises:
            Refusal: It is missing, damaged, or of another version.
        """
        advice = "python -m training.ood --checkpoint DIR writes it"
        try:
            with file.open(encoding="utf-8") as lines:
                head = json.loads(next(lines, "null"))
                if not isinstance(head, dict) or head.get("format") != FORMAT:
                    raise Refusal(f"{file} does not begin with format {FORMAT}; {advice}")
                rows = list(_rows(lines))
                return cls(str(head["weights_sha256"]), str(head["data"]), rows)
        except OSError as error:
            raise Refusal(f"{file} cannot be read: {error.strerror}; {advice}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(f"{file} is damaged: {error}; {advice}") from None


def _fields(row: ReferenceRow) -> dict[str, Any]:
    fields = {each.name: getattr(row, each.name) for each in dataclasses.fields(row)}
    for name in ("confidence", "quality", "ood_score", "ood_p_value"):
        fields[name] = None if fields[name] is None else round(fields[name], 5)
    half = row.feature.to(torch.float16).contiguous().numpy().astype("<f2")
    return {**fields, "feature": base64.b64encode(half.tobytes()).decode()}


def _rows(lines: Iterable[str]) -> Iterable[ReferenceRow]:
    for line in lines:
        fields = json.loads(line)
        half = bytearray(base64.b64decode(fields.pop("feature")))
        yield ReferenceRow(**fields, feature=torch.frombuffer(half, dtype=torch.float16).float())
