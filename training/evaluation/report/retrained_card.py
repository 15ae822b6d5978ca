"""What a training writes into a model card: a marked block, around which the user's words stay.

A new training replaces the block. It takes out the figures of earlier evaluations, because they are
of the weights that it replaces. All else in the card stays, such as a licence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from model.config import MapperConfig
from model.refusal import Refusal
from training.evaluation.report.marked_block import replaced_block

_BEGIN, _END = "<!-- training -->", "<!-- /training -->"
#: The section of an evaluation, as `training.evaluation.report.model_card` marks it.
_EVALUATION = re.compile(r"<!-- evaluation on (.+?) -->\n.*?\n<!-- /evaluation on \1 -->\n*", re.S)
#: The table of a card that was written before the block had marks.
_UNMARKED = re.compile(r"## Data and training\n\n(\|.*(\n|$))+")


def read_card(file: Path) -> ModelCard | None:
    """The model card in a file; None if there is no file.

    Raises:
        Refusal: Its metadata cannot be read.
    """
    return parse_card(file.read_text(encoding="utf-8"), file) if file.exists() else None


def parse_card(text: str, file: Path) -> ModelCard:
    """A model card.

    Args:
        text: The card, with or without metadata.
        file: Its file, for messages.

    Raises:
        Refusal: Its metadata cannot be read.
    """
    try:
        # The library warns of a card without metadata, so it gets an empty block.
        return ModelCard(text if text.startswith("---") else f"---\n\n---\n{text}")
    except (ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise Refusal(
            f"the metadata of {file}, between its first two lines of dashes, cannot be read: "
            f"{reason}; mend or delete the file and run the command again"
        ) from None


def retrained(card: ModelCard, mapper: MapperConfig, record: Mapping[str, Any]) -> str:
    """A card after another training of its captioner.

    Args:
        card: The card before; its metadata is changed in place.
        mapper: The new captioner's mapper.
        record: What the new captioner was trained on, and how.

    Returns:
        The new card.
    """
    metadata: Any = card.data
    metadata.eval_results = None
    text, block = _EVALUATION.sub("", card.text), training_block(mapper, record)
    replaced = replaced_block(text, _BEGIN, _content(mapper, record), _END)
    if replaced is None:
        replaced, count = _UNMARKED.subn(lambda _: f"{block}\n", text, count=1)
        if not count:
            replaced = f"{text.rstrip()}\n\n{block}\n"
    card.text = replaced
    return str(card)


def training_block(mapper: MapperConfig, record: Mapping[str, Any] | None) -> str:
    """The block with its marks.

    Args:
        mapper: The captioner's mapper.
        record: What it was trained on, and how; None if that is not known.
    """
    return f"{_BEGIN}\n{_content(mapper, record)}\n{_END}"


def _content(mapper: MapperConfig, record: Mapping[str, Any] | None) -> str:
    parts = f"The mapper's kind is {mapper.kind}; its prefix has {mapper.prefix_length} vectors."
    if record is None:
        return parts
    rows = [
        f"| {key.replace('_', ' ')} | {value:,} |"
        if isinstance(value, int)
        else f"| {key.replace('_', ' ')} | {value} |"
        for key, value in record.items()
    ]
    table = "\n".join(["| | |", "|---|---|", *rows])
    return f"## Data and training\n\n{parts}\n\n{table}"
