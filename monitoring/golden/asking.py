"""Asks a server about the golden pictures, and compares its replies with what is expected."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from client import CaptionClient, CaptionError, CaptionResult
from client.agreement import word_f1
from monitoring.golden.reference import Feature, Golden, Limits, Reference, mean_feature

#: Statuses that say nothing of the captioner: nothing answered, a key is missing, the server is
#: overloaded or starting.
NOT_ASKED = frozenset({0, 401, 403, 404, 408, 429, 502, 503, 504})


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one picture.

    Attributes:
        file: The picture file.
        seconds: How long the reply took.
        problem: What differs, or why there is no caption; empty if all is as expected.
        asked: Whether the captioner was reached. If not, nothing is known of it.
        equal: Whether the caption is the expected one.
        similarity: Word F1 of the two captions, from 0 to 1; 0 without a caption.
        log_prob: Nats a token by which the log-probability differs; None if the captions do.
        cosine: Of the angle between the features; None if there are not two.
        model: Name and version of the model that answered; None without a caption.
    """

    file: Path
    seconds: float
    problem: str = ""
    asked: bool = True
    equal: bool = False
    similarity: float = 0.0
    log_prob: float | None = None
    cosine: float | None = None
    model: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round found.

    Attributes:
        answers: One for each picture, in their order.
    """

    answers: Sequence[Answer]

    @property
    def asked(self) -> list[Answer]:
        """Those of which the captioner was reached."""
        return [each for each in self.answers if each.asked]

    @property
    def wrong(self) -> list[Answer]:
        """Those that are not as expected."""
        return [each for each in self.asked if each.problem]

    @property
    def status(self) -> int:
        """0 if all is as expected, 1 if a picture is not, 2 if one could not be asked."""
        if self.wrong:
            return 1
        return 0 if len(self.asked) == len(self.answers) else 2


def ask_all(client: CaptionClient, reference: Reference) -> Round:
    """Ask about every picture, one after the other.

    Args:
        client: Of the server.
        reference: What is expected.

    Raises:
        OSError: A picture file cannot be read.
    """
    return Round([_ask(client, each, reference.limits) for each in reference.pictures])


def feature_of(result: CaptionResult) -> Feature | None:
    """The mean feature of a reply that was asked for `features=base64`; None if it has none.

    Raises:
        ValueError: It is not as long as its shape says.
    """
    if result.features is None:
        return None
    values = np.frombuffer(base64.b64decode(result.features["data"]), "<f4")
    return mean_feature(values.reshape(result.features["shape"]))


def _ask(client: CaptionClient, golden: Golden, limits: Limits) -> Answer:
    options = {} if golden.feature is None else {"features": "base64"}
    begin = time.monotonic()
    try:
        result = client.caption(golden.file, **options)
        feature = feature_of(result)
    except CaptionError as error:
        asked = error.status not in NOT_ASKED
        return Answer(golden.file, time.monotonic() - begin, str(error), asked)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"the feature in the reply cannot be read: {error!r}"
        return Answer(golden.file, time.monotonic() - begin, problem)
    return compare(golden, limits, result, feature, time.monotonic() - begin)


def compare(
    golden: Golden, limits: Limits, result: CaptionResult, feature: Feature | None, seconds: float
) -> Answer:
    """Compare a reply with what is expected.

    Args:
        golden: The picture.
        limits: How far the reply may be from it.
        result: The reply.
        feature: The mean feature of the reply; None if there is none.
        seconds: How long it took.
    """
    best = result.captions[0]
    problems = []
    log_prob = cosine = None
    if best.caption == golden.caption:
        log_prob = abs(best.log_prob - golden.log_prob) / golden.tokens
        if not log_prob <= limits.log_prob:
            problems.append(
                f"its log-probability differs by {log_prob:.4f} nats a token; the limit is "
                f"{limits.log_prob:g}"
            )
    else:
        problems.append(f"the caption is {best.caption!r}, expected {golden.caption!r}")
    if golden.feature is not None and feature is not None:
        cosine = _cosine(golden.feature, feature)
        if not cosine >= limits.cosine:
            problems.append(
                f"the cosine of its feature is {cosine:.6f}; the limit is {limits.cosine:g}"
            )
    return Answer(
        golden.file,
        seconds,
        "; ".join(problems),
        equal=best.caption == golden.caption,
        similarity=word_f1(best.caption, golden.caption),
        log_prob=log_prob,
        cosine=cosine,
        model=(result.model, result.version),
    )


def _cosine(one: Feature, other: Feature) -> float:
    """The cosine of an angle; 0 for features of different width, which are of two encoders."""
    if one.shape != other.shape:
        return 0.0
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0
