"""What a request may ask for beside captions.

That is the image's feature, how unusual the image is, and a time limit of its own. `features`,
`unit_features`, `ood` and `timeout_ms` stand where options stand: as fields of a form or of a gRPC
message, as members of the JSON document, or in its `options` or `parameters`. As those of
explanations, they are taken out before options are read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from handler.requests.caption_request import FEATURE_FORMATS, Extras
from handler.requests.explanation import read_boolean
from model.options import BadOption

#: Names in a request.
FIELDS = ("features", "unit_features", "ood", "timeout_ms")
#: Longest time limit of a request, in milliseconds.
LONGEST_TIMEOUT = 600_000


def extras_limits() -> dict[str, dict[str, Any]]:
    """The fields and their values, for the description of the captioner."""
    return {
        "features": {
            "default": False,
            "choices": [False, True, *FEATURE_FORMATS],
            "help": "the image's CLIP feature in the reply, float32, as a list or base64",
        },
        "unit_features": {
            "default": False,
            "choices": [False, True],
            "help": "divide each feature by its L2 norm",
        },
        "ood": {
            "default": False,
            "choices": [False, True],
            "help": "how unusual the image is: its score, and the share of validation images that "
            "are at least as unusual",
        },
        "timeout_ms": {
            "default": None,
            "from": 1,
            "to": LONGEST_TIMEOUT,
            "help": "milliseconds after which the reply is of no use; the answer is 504 then",
        },
    }


def read_extras(fields: Mapping[str, Any]) -> Extras:
    """Read the fields of `FIELDS`; without any, nothing is asked for.

    Args:
        fields: Names to values: JSON, or text that spells it.

    Raises:
        BadOption: A value that it cannot take.
    """
    features = fields.get("features", False)
    if features not in FEATURE_FORMATS:
        try:
            features = FEATURE_FORMATS[0] if read_boolean("features", features) else None
        except BadOption:
            formats = ", ".join(FEATURE_FORMATS)
            raise BadOption("features", features, f"true, false, or one of {formats}") from None
    unit = read_boolean("unit_features", fields.get("unit_features", False))
    if unit and features is None:
        raise BadOption("unit_features", True, "left out where features is not true")
    ood = read_boolean("ood", fields.get("ood", False))
    timeout = fields.get("timeout_ms")
    if timeout is None:
        return Extras(features, unit, ood=ood)
    if isinstance(timeout, str) and timeout.strip().isdecimal() and len(timeout) < 20:
        timeout = int(timeout)
    if type(timeout) is not int or not 1 <= timeout <= LONGEST_TIMEOUT:
        limits = f"a whole number of milliseconds from 1 to {LONGEST_TIMEOUT}"
        raise BadOption("timeout_ms", timeout, limits)
    return Extras(features, unit, timeout / 1000, ood)


def check_extras(extras: Extras, has_ood: bool) -> None:
    """Refuse what this captioner cannot say, although others could.

    Args:
        extras: What a request asks for.
        has_ood: Whether the captioner knows what its training images looked like.

    Raises:
        BadOption: It asks for `ood`, and the captioner has no such score.
    """
    if extras.ood and not has_ood:
        raise BadOption(
            "ood",
            True,
            "left out here: this captioner does not know what its training images looked like; "
            "python -m training.ood learns it, before the export",
        )


def feature_fields(features: Tensor, extras: Extras) -> dict[str, Any]:
    """The features of one image for its reply.

    Args:
        features: [D], or [P, D] of a captioner that reads patches.
        extras: How they are asked for.

    Returns:
        `shape`, and `data`: numbers in lists as nested as the shape, or base64 text.
    """
    features = features.to(torch.float32)
    if extras.unit_features:
        features = F.normalize(features, dim=-1)
    data: Any = features.tolist()
    if extras.features == "base64":
        little_endian = features.contiguous().numpy().astype("<f4").tobytes()
        data = base64.b64encode(little_endian).decode()
    return {"shape": list(features.shape), "data": data}
