"""GPT-2's tokenizer as a captioner carries it: one `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from model.refusal import Refusal


def load_tokenizer(file: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        Refusal: The file is missing or damaged.
    """
    if not file.exists():
        raise Refusal(f"{file} is missing; a captioner cannot write without its tokenizer")
    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    # The tokenizers library raises `Exception` itself for everything that it cannot read.
    except Exception as error:
        raise Refusal(f"{file} is no tokenizer: {error}") from error
