"""Golden pictures: a new TorchServe must caption them as its artifact does without TorchServe.

The reference is made by `training.try_artifact`, in a process of its own and with the code of this
repository. The export has compared the artifact with its checkpoint before. So a difference shows
that the archive holds another model, or decodes or prepares pictures in another way.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from client import CaptionClient, CaptionError
from deploy.errors import ServeError
from deploy.modules import output_of_module
from deploy.properties import ROOT
from deploy.torchserve import TorchServe

#: Drawn scenes. Each of them could be decoded or prepared wrongly in its own way: an ordinary JPEG,
#: a JPEG that EXIF turns, a transparent PNG with a palette, a grey WebP, and a large JPEG, which is
#: decoded at a part of its size. None of them is square.
PICTURES = (ROOT / "docs" / "sample.jpg", *sorted((ROOT / "deploy" / "golden").iterdir()))
#: Largest difference of a caption's log-probability, in nats a token. The same code in another
#: process differs by less than 0.00001. Another filter of the resizing, the smallest mistake that
#: was tried, changes 0.004 or more for one of the pictures.
TOLERANCE = 0.001
#: Seconds within which a picture must be captioned: the deadline in `handler/model-config.yaml`.
SECONDS = 60.0


def reference(artifact: Path) -> list[dict[str, Any]]:
    """The captions that an exported captioner gives the golden pictures.

    Args:
        artifact: Its folder.

    Returns:
        For each of `PICTURES` its `caption`, `log_prob` and `tokens`.

    Raises:
        ServeError: The artifact cannot be used.
    """
    output = output_of_module(
        "captioning the golden pictures without TorchServe",
        "training.try_artifact",
        artifact,
        *PICTURES,
    )
    return [json.loads(line) for line in output.splitlines()]


def compare(server: TorchServe, expected: list[dict[str, Any]]) -> None:
    """Caption the golden pictures over REST, and refuse captions other than those expected.

    Args:
        server: A TorchServe that is ready.
        expected: As `reference` returned it.

    Raises:
        ServeError: A caption differs, or a picture is not captioned in time.
    """
    with CaptionClient(server.rest, model=server.model, timeout=SECONDS, retries=0) as client:
        for picture, wanted in zip(PICTURES, expected, strict=True):
            shown = os.path.relpath(picture, ROOT)
            try:
                got = client.caption(picture).captions[0]
            except CaptionError as error:
                raise ServeError(f"the new TorchServe does not caption {shown}: {error}") from None
            change = abs(got.log_prob - wanted["log_prob"]) / wanted["tokens"]
            if got.caption != wanted["caption"] or not change <= TOLERANCE:
                raise ServeError(
                    f"the new TorchServe captions {shown} otherwise than its artifact does: "
                    f"{got.caption!r} ({got.log_prob:.4f} nats), expected {wanted['caption']!r} "
                    f"({wanted['log_prob']:.4f}); the limit is {TOLERANCE} nats a token"
                )
