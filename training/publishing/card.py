"""The model card of a captioner on the hub: that of its folder, with what the hub wants to know.

Added to the metadata are `library_name`, `base_model` and, from the command line, `license`. The
lines on how to use it name the repository in place of a folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from model.checkpoint import CARD, Checkpoint
from model.pretrained.checkpoint_name import HubName, hub_name
from model.refusal import Refusal
from training.evaluation.report.marked_block import replaced_block
from training.evaluation.report.retrained_card import parse_card

LIBRARY = "clipcap"
#: Where the hub has the models that transformers knows by one word.
_ONE_WORD = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
_BEGIN, _END = "<!-- use -->", "<!-- /use -->"
#: The section of a card that was never published, as the evaluation writes it.
_FOR_A_FOLDER = re.compile(
    r"## How to use it\n\nWith `DIR` standing for this folder:\n\n```.*?```\n", re.S
)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def published_card(
    folder: Path, checkpoint: Checkpoint, name: HubName, license_id: str | None
) -> str:
    """The card as it is published.

    Args:
        folder: The checkpoint folder.
        checkpoint: What was loaded from it.
        name: Where it is published.
        license_id: The hub's identifier of a licence; None for that of the card.

    Raises:
        Refusal: There is no card, it has no figures or no licence, or the identifier is none.
    """
    if checkpoint.card is None:
        raise Refusal(f"{folder} has no {CARD}; python -m training.evaluate writes it")
    card = parse_card(checkpoint.card, folder / CARD)
    data: Any = card.data
    if not data.eval_results:
        raise Refusal(f"{folder / CARD} has no figures; python -m training.evaluate writes them")
    data.license = license_id or data.license
    if data.license is None:
        raise Refusal(
            f"{folder / CARD} names no licence, so nobody would know what they may do with the "
            "captioner; give one that its data and base models allow, such as --license mit, or "
            "--license other (https://huggingface.co/docs/hub/repositories-licenses)"
        )
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        raise Refusal(
            f"--license is {license_id!r}; it must be an identifier in small letters, such as mit "
            "or apache-2.0 (https://huggingface.co/docs/hub/repositories-licenses)"
        )
    data.library_name = data.library_name or LIBRARY
    data.base_model = data.base_model or base_models(checkpoint.training) or None
    use = (
        f"## How to use it\n\n```sh\nmake serve CHECKPOINT={name}\n"
        "curl -T photo.jpg http://127.0.0.1:8080/predictions/clipcap\n```"
    )
    text = replaced_block(card.text, _BEGIN, use, _END)
    if text is None:
        block = f"{_BEGIN}\n{use}\n{_END}\n"
        text, count = _FOR_A_FOLDER.subn(lambda _: block, card.text, count=1)
        if not count:
            text = f"{text.rstrip()}\n\n{block}"
    card.text = text
    return str(card)


def base_models(record: dict[str, Any] | None) -> list[str]:
    """The models on the hub that a captioner was made of, from the record of its training.

    Args:
        record: Content of `training.json`, or None. Folders of this machine in it are left out.
    """
    found: list[str] = []
    for key in ("encoder", "language_model", "started_from"):
        given = str((record or {}).get(key, ""))
        name = hub_name(given)
        if given in _ONE_WORD and not Path(given).exists():
            found.append(_ONE_WORD[given])
        elif name is not None:
            found.append(name.repo)
    return list(dict.fromkeys(found))
