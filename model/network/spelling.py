"""What each token adds to the text of a caption, for captions of a limited number of characters.

The tables are made from the tokenizer once. In a search, adding up two numbers of a table then
tells whether a token still fits, and a third table where the caption can be cut between words.

TorchScript compiles `Spelling`: it keeps to the part of Python that TorchScript accepts.

Axes: R captions, t tokens so far, V vocabulary.
"""

from __future__ import annotations

import unicodedata

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from model.tokenizer import decode

#: The last character of a sentence, of scripts with blanks between words and of those without.
_SENTENCE_ENDS = ".!?…。！？｡।؟"
#: Beginnings of the names of characters that are written without blanks between words.
_WITHOUT_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")
#: Characters within a word that are no letters.
_IN_WORDS = "'’-"


class Spelling(nn.Module):
    """Characters, beginnings of words and ends of sentences of the tokens.

    Args:
        first: Characters of each token at the start of a text, int64 [V].
        later: Characters that each token adds behind others, int64 [V].
        begins_word: Whether what stands before each token is a whole word, bool [V].
        ends_sentence: Whether a sentence may end with each token, bool [V].
    """

    def __init__(
        self, first: Tensor, later: Tensor, begins_word: Tensor, ends_sentence: Tensor
    ) -> None:
        super().__init__()
        for name, table in (
            ("first", first),
            ("later", later),
            ("begins_word", begins_word),
            ("ends_sentence", ends_sentence),
        ):
            self.register_buffer(name, table)

    def characters(self, tokens: Tensor, at_start: bool) -> Tensor:
        """Characters that each of these tokens adds, int64 in the shape of `tokens`."""
        table = self.first if at_start else self.later
        return table[tokens]  # type: ignore[index]

    def kept(self, tokens: Tensor, following: Tensor) -> Tensor:
        """How many tokens of a caption stay where the next one does not fit.

        Whole sentences stay if one has ended, else whole words, and all tokens if there is not one
        whole word.

        Args:
            tokens: int64 [R, t].
            following: The tokens that do not fit, int64 [R].

        Returns:
            int64 [R], from 0 to t.
        """
        if tokens.shape[1] == 0:
            return torch.zeros_like(following)
        behind = torch.cat([tokens[:, 1:], following.unsqueeze(1)], 1)  # the token behind each one
        place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)  # [t], tokens up to it
        word = self.begins_word[behind]  # type: ignore[index]
        sentence = word & self.ends_sentence[tokens]  # type: ignore[index]
        words = (place * word).amax(1)
        sentences = (place * sentence).amax(1)
        whole = torch.where(sentences > 0, sentences, words)
        return torch.where(whole > 0, whole, torch.full_like(whole, tokens.shape[1]))


def spelling_of(
    tokenizer: Tokenizer, vocabulary: int, end_token_id: int, end_token_is_text: bool
) -> Spelling:
    """The tables of a tokenizer.

    Special tokens add nothing, as they are left out of captions. Takes a second for 100,000 tokens.

    Args:
        tokenizer: Of bytes, as GPT-2's, or any other whose `decode` tells what a token adds.
        vocabulary: V of the language model, which may be larger than the tokenizer's.
        end_token_id: The token that ends a caption.
        end_token_is_text: Whether it is part of the caption's text, as a full stop is.
    """
    added = tokenizer.get_added_tokens_decoder()
    silent = {id_ for id_, token in added.items() if token.special} - {end_token_id}
    if not end_token_is_text:
        silent.add(end_token_id)
    pieces = [
        (id_, piece)
        for id_ in range(vocabulary)
        if id_ not in silent and (piece := tokenizer.id_to_token(id_)) is not None
    ]
    first, later = torch.zeros(2, vocabulary, dtype=torch.int64).unbind()
    begins, ends = torch.zeros(2, vocabulary, dtype=torch.bool).unbind()
    if type(tokenizer.decoder).__name__ == "ByteLevel":
        values = {character: value for value, character in _byte_characters().items()}
        for id_, piece in pieces:
            data = piece.encode() if id_ in added else bytes(values[each] for each in piece)
            _describe(id_, data, data, first, later, begins, ends)
    else:
        # Behind other tokens, as a decoder may put a blank between two: behind a word it does, and
        # between two Chinese characters `decode` takes it out. The same token tells both.
        for id_, _ in pieces:
            own = decode(tokenizer, [id_])
            behind = decode(tokenizer, [id_, id_]).removeprefix(own)
            _describe(id_, own.encode(), behind.encode(), first, later, begins, ends)
    return Spelling(first, later, begins, ends)


def _describe(
    id_: int,
    alone: bytes,
    behind: bytes,
    first: Tensor,
    later: Tensor,
    begins: Tensor,
    ends: Tensor,
) -> None:
    """Enter a token into the tables: its bytes at the start of a text, and behind another token."""
    # A character counts with its first byte, as a token may hold a part of it.
    first[id_] = sum(byte & 0xC0 != 0x80 for byte in alone.lstrip())
    later[id_] = sum(byte & 0xC0 != 0x80 for byte in behind)
    text = behind.decode(errors="replace")
    begins[id_] = bool(text) and (text[0] != "\ufffd") and _stands_apart(text[0])
    ends[id_] = text.rstrip().endswith(tuple(_SENTENCE_ENDS))


def _stands_apart(character: str) -> bool:
    """Whether what stands before this character is a whole word."""
    if unicodedata.name(character, "").startswith(_WITHOUT_BLANKS):
        return True
    return not (character.isalnum() or unicodedata.combining(character) or character in _IN_WORDS)


def _byte_characters() -> dict[int, str]:
    """The character that stands for each byte in a byte-level tokenizer (Radford et al., GPT-2).

    Printable characters of Latin-1 stand for themselves, the other bytes for those from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + number) for number, byte in enumerate(others)
    }
