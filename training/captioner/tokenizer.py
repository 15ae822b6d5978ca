"""A byte-level BPE tokenizer for captions: GPT-2's kind, with a vocabulary learned from them."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model.refusal import Refusal

#: Marks the end of a caption, as in GPT-2 and CLIP.
END = "<|endoftext|>"
#: Marks the start of a text for CLIP's text tower.
START = "<|startoftext|>"


def train_tokenizer(
    captions: Iterable[str], vocabulary: int, special: tuple[str, ...] = (END,)
) -> Tokenizer:
    """Learn a tokenizer from captions; special tokens get the first ids.

    Args:
        captions: Texts to learn from, streamed.
        vocabulary: Tokens at most; fewer when the captions need fewer.
        special: Special tokens, in the order of their ids.
    """
    tokenizer = Tokenizer(models.BPE())
    # A leading space makes the first word of a caption the same token as elsewhere.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def end_token(tokenizer: Tokenizer) -> int:
    """Id of `END`.

    Raises:
        Refusal: The tokenizer has no such token.
    """
    token = tokenizer.token_to_id(END)
    if token is None:
        raise Refusal(f"the tokenizer has no token {END}; a captioner needs it to end a caption")
    return token
