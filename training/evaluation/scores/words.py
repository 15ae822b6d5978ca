r"""Separates captions of any language into words, by the properties of Unicode's characters.

Python's `\w` has no marks, so it cuts words of Hindi, Thai and Arabic at their vowel signs. And it
takes a whole sentence for one word in scripts that write no space between words. CIDEr of such
words is near 0 for every caption. Here a mark belongs to its letter, and text of those scripts is
separated into characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import regex

#: Scripts that write no space between words.
_UNSPACED = "".join(
    rf"\p{{Script={script}}}"
    for script in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
)
#: Letters, marks, digits, the underscore, and the two joiners of Persian and Hindi.
_IN_WORD = r"\p{L}\p{M}\p{N}_\u200c\u200d"
#: \X is a character with all its marks. \u30fc lengthens a vowel of Japanese.
_WORD = regex.compile(
    rf"(?=[[{_IN_WORD}]&&[{_UNSPACED}\u30fc]])\X|[[{_IN_WORD}]--[{_UNSPACED}\u30fc]]+", regex.V1
)
_LETTER = regex.compile(r"\p{L}")
_LATIN = regex.compile(r"[\p{Script=Latin}&&\p{L}]", regex.V1)


def words(caption: str) -> list[str]:
    r"""The words of a caption in lower case, without punctuation.

    Of plain English these are the words that `\w+` finds.
    """
    return _WORD.findall(unicodedata.normalize("NFC", caption.lower()))


def mostly_latin(captions: Iterable[str]) -> bool:
    """Whether at least half of the letters are Latin ones; also if there are no letters."""
    letters = latin = 0
    for caption in captions:
        letters += len(_LETTER.findall(caption))
        latin += len(_LATIN.findall(caption))
    return 2 * latin >= letters
