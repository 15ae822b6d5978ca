"""GPT-2's tokenizer as a captioner carries it: one `tokenizer.json`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from model.refusal import Refusal

#: A blank between two characters of a script that is written without blanks.
_WITHOUT = r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]"
_BLANK = re.compile(rf"(?<={_WITHOUT}) (?={_WITHOUT})")


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of token ids, special tokens left out, with single blanks.

    A tokenizer of word pieces puts a blank before every Chinese character; they are taken out.
    """
    text = " ".join(tokenizer.decode(list(ids)).split())
    return _BLANK.sub("", text) if type(tokenizer.decoder).__name__ == "WordPiece" else text


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
