"""A byte-level BPE tokenizer for captions: GPT-2's kind, with a vocabulary learned from them."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model.refusal import Refusal

#: Marks the end of a caption, as in GPT-2 and CLIP.
END = "<|endoftext|>"
#: Names of the end token: GPT-2's, that of BERT's tokenizer, which Chinese and some German GPT-2s
#: have, and those of others.
ENDS = (END, "[SEP]", "</s>", "<eos>")
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


def end_token(tokenizer: Tokenizer, wanted: str | None = None) -> int:
    """Id of the token that ends a caption.

    Args:
        tokenizer: Of GPT-2, or of another language model with GPT-2's network.
        wanted: The token, as the tokenizer writes it; None takes the first of `ENDS` that it has.

    Raises:
        Refusal: The tokenizer has no such token.
    """
    for name in ENDS if wanted is None else (wanted,):
        if (token := tokenizer.token_to_id(name)) is not None:
            return token
    missing = wanted or f"none of {', '.join(ENDS)}"
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    raise Refusal(
        f"the tokenizer has {'no token ' if wanted else ''}{missing}; a captioner needs one to "
        "end a caption: name it with train.gpt2.end_token (special tokens here: "
        f"{', '.join(added[:12]) or 'none'})"
    )
