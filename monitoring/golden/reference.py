"""The golden pictures, what they must give, and how far a reply may be from that.

A reference is a folder of picture files with `expected.json` beside them. Of the image's feature
only the mean over its patches is kept, as float16, so that a picture needs half a kilobyte.

Two floating point formats of one captioner do not give equal numbers. The limits that a new
reference gets lie between that and the smallest mistake that was tried, on the captioner that ships
(drawn scenes, 2026-11-30):

| | nats a token | 1 - cosine |
|---|---|---|
| bf16 beside fp32 | 0.0012 | 0.000005 |
| resized with Lanczos, not bicubic | 0.0023 | 0.00012 |
| resized with a bilinear filter | 0.04 | 0.00055 |
| blue and red exchanged | 0.10 | 0.39 |
"""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.refusal import Refusal

#: The file of a reference, in the folder of its pictures.
EXPECTED = "expected.json"
#: Version of its layout.
FORMAT = 1

Feature = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far a reply may be from what is expected; a caption must be equal.

    Attributes:
        log_prob: Most nats a token by which the log-probability may differ.
        cosine: Smallest cosine of the angle between the two features.
    """

    log_prob: float = 0.02
    cosine: float = 0.99997

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            Refusal: One is out of range.
        """
        if not self.log_prob > 0:
            raise Refusal(f"the limit log_prob is {self.log_prob}; it must be above 0 nats")
        if not -1 <= self.cosine <= 1:
            raise Refusal(f"the limit cosine is {self.cosine}; it must be from -1 to 1")


@dataclasses.dataclass(frozen=True)
class Golden:
    """A picture and what it must give.

    Attributes:
        file: The picture file.
        caption: Its caption.
        log_prob: The log-probability of the caption's tokens, summed, in nats.
        tokens: How many tokens these are.
        feature: float32 [D], the mean over the patches of the image's feature; None if the
            captioner was recorded through a server that gives none.
    """

    file: Path
    caption: str
    log_prob: float
    tokens: int
    feature: Feature | None


@dataclasses.dataclass(frozen=True)
class Reference:
    """The pictures of a folder, for one captioner.

    Attributes:
        version: The version of the model that they were recorded from.
        source: Where they were recorded from, for people.
        limits: How far a reply may be from them.
        pictures: At least one.
    """

    version: str
    source: str
    limits: Limits
    pictures: tuple[Golden, ...]

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """Read the reference of a folder.

        Raises:
            Refusal: There is none, it is damaged, or a picture is missing.
        """
        file = folder / EXPECTED
        try:
            found = json.loads(file.read_text())
            if found["format"] != FORMAT:
                raise Refusal(
                    f"{file} has format {found['format']!r}; this version reads {FORMAT}; record "
                    "it again"
                )
            pictures = tuple(
                Golden(
                    folder / str(name),
                    str(fields["caption"]),
                    float(fields["log_prob"]),
                    int(fields["tokens"]),
                    _decode(fields.get("feature")),
                )
                for name, fields in found["pictures"].items()
            )
            reference = cls(
                str(found["version"]), str(found["source"]), Limits(**found["limits"]), pictures
            )
        except FileNotFoundError:
            raise Refusal(
                f"{file} is missing; record it from a captioner that is trusted: "
                f"python -m monitoring.canary --record --folder {folder}"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refusal(f"{file} cannot be read: {error!r}; record it again") from None
        if not pictures:
            raise Refusal(f"{file} names no picture; record it again")
        for each in pictures:
            if not each.file.is_file():
                raise Refusal(f"{each.file} is missing, and {file} names it; record it again")
            if each.tokens < 1:
                raise Refusal(f"{file}: {each.file.name} has {each.tokens} tokens; record it again")
        return reference

    def save(self, folder: Path) -> None:
        """Write `expected.json`, so that it is never half of one."""
        whole: dict[str, Any] = {
            "format": FORMAT,
            "version": self.version,
            "source": self.source,
            "limits": dataclasses.asdict(self.limits),
            "pictures": {
                each.file.name: {
                    "caption": each.caption,
                    "log_prob": round(each.log_prob, 6),
                    "tokens": each.tokens,
                    **({} if each.feature is None else {"feature": _encode(each.feature)}),
                }
                for each in self.pictures
            },
        }
        new = folder / f"{EXPECTED}.new"
        new.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        new.replace(folder / EXPECTED)


def mean_feature(values: npt.ArrayLike) -> Feature:
    """The mean over patches of a feature [D] or [P, D]; float32 [D]."""
    found = np.asarray(values, np.float32)
    return found.reshape(-1, found.shape[-1]).mean(0)


def _encode(feature: Feature) -> str:
    return base64.b64encode(feature.astype("<f2").tobytes()).decode()


def _decode(text: str | None) -> Feature | None:
    if text is None:
        return None
    return np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
