"""The words of a caption, and the tokens that each of them is written with.

A tokenizer cuts text where its training found it useful: one word may be several tokens, and one
character of many bytes too. Here tokens are joined to the words that a reader knows. Languages that
put no spaces between words, such as Chinese, Japanese and Thai, have no such words without a
dictionary; there the smallest run of whole tokens and whole characters stands for a word.
"""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Callable, Sequence

#: First and last character of scripts that are written without spaces between words.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # Chinese radicals, Japanese kana, Bopomofo
    (0x31A0, 0x31FF),  # Bopomofo and kana extensions
    (0x3400, 0x9FFF),  # Chinese characters
    (0xF900, 0xFAFF),  # compatibility characters
    (0xFF66, 0xFF9F),  # halfwidth kana
    (0x1B000, 0x1B16F),  # kana supplements
    (0x20000, 0x3FFFF),  # rare Chinese characters
)
#: Unicode categories of punctuation, symbols, separators and control characters.
_NO_LETTERS = "PSZC"


@dataclasses.dataclass(frozen=True)
class CaptionWord:
    """One word of a caption.

    Attributes:
        text: The word, without the punctuation around it where that has tokens of its own.
        begin: Its first character in the caption.
        end: The character behind its last one: `caption[begin:end]` is `text`.
        tokens: The places of its tokens in the caption's ids, in order.
    """

    text: str
    begin: int
    end: int
    tokens: tuple[int, ...]


def caption_words(
    ids: Sequence[int], text_of: Callable[[Sequence[int]], str]
) -> tuple[CaptionWord, ...]:
    """The words of a caption, in their order.

    Args:
        ids: The token ids of the caption, without an end token that is no part of its text.
        text_of: Turns the first tokens of the caption into text, as the caption itself was made.

    Returns:
        Words that share no token. What is punctuation alone is no word.
    """
    text = text_of(ids)
    if not text:
        return ()
    spans = _token_spans(ids, text_of, text)
    starts = _word_starts(text, spans)
    words = []
    for begin, end in zip(starts, [*starts[1:], len(text)], strict=True):
        own = [place for place, (first, _) in enumerate(spans) if begin <= first < end]
        word = _trimmed(text, [(place, spans[place]) for place in own])
        if word is not None:
            words.append(word)
    return tuple(words)


def _token_spans(
    ids: Sequence[int], text_of: Callable[[Sequence[int]], str], text: str
) -> list[tuple[int, int]]:
    """First character of each token, and the one behind its last.

    A token that holds only a part of a character has the whole character as its span. The space
    before a word belongs to the token that follows it.
    """
    spans, end = [], 0
    for count in range(1, len(ids) + 1):
        shown = text_of(ids[:count])
        reached = max(end, len(os.path.commonprefix([shown, text])))
        # Half a character at the end is shown as U+FFFD, which the whole text does not have there.
        touched = reached + (len(shown) > reached)
        spans.append((end, min(max(touched, end + 1), len(text))))
        end = reached
    return spans


def _word_starts(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The characters at which words begin; the space before a word is part of it here."""
    starts = {begin for begin, _ in spans}
    inside = {place for begin, end in spans for place in range(begin + 1, end)}
    return [
        place
        for place in range(len(text))
        if place == 0 or (place in starts and place not in inside and _may_begin(text, place))
    ]


def _may_begin(text: str, place: int) -> bool:
    """Whether a word may begin at this character, by the scripts on both sides of it."""
    before, here = text[place - 1], text[place]
    if here.isspace() or before.isspace():
        return True
    if unicodedata.category(here).startswith("M"):  # a mark on the character before it
        return False
    return _is_unspaced(before) or _is_unspaced(here)


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)


def _trimmed(text: str, tokens: list[tuple[int, tuple[int, int]]]) -> CaptionWord | None:
    """A word without blanks, and without whole tokens of punctuation around it; None if all are."""

    def is_bare(token: tuple[int, tuple[int, int]]) -> bool:
        begin, end = token[1]
        return all(unicodedata.category(each)[0] in _NO_LETTERS for each in text[begin:end])

    while tokens and is_bare(tokens[0]):
        tokens = tokens[1:]
    while tokens and is_bare(tokens[-1]):
        tokens = tokens[:-1]
    if not tokens:
        return None
    begin = min(first for _, (first, _) in tokens)
    end = max(last for _, (_, last) in tokens)
    shown = text[begin:end]
    begin += len(shown) - len(shown.lstrip())
    end -= len(shown) - len(shown.rstrip())
    return CaptionWord(text[begin:end], begin, end, tuple(place for place, _ in tokens))
