"""The language model that training starts from: a trained GPT-2, or one from scratch."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from model.pretrained.hugging_face import load_gpt2_tokenizer, only_local
from model.refusal import Refusal
from training.captioner.tokenizer import END, train_tokenizer
from training.config import Train
from training.data.dataset import CaptionDataset

#: Positions of a GPT-2 from scratch. With the patch mapper its long prefix adds its own length.
POSITIONS = 128


def language_model(
    settings: Train, dataset: CaptionDataset
) -> tuple[Tokenizer, GPT2LMHeadModel | dict[str, Any]]:
    """The tokenizer, and a trained GPT-2 or the config of one from scratch.

    Raises:
        Refusal: There is no GPT-2 at `train.gpt2.base`, or its tokenizer does not fit.
    """
    sizes, mapper = settings.gpt2, settings.mapper
    if sizes.base is not None:
        tokenizer = load_gpt2_tokenizer(sizes.base)
        try:
            gpt2 = GPT2LMHeadModel.from_pretrained(
                sizes.base, dtype="float32", local_files_only=only_local(sizes.base)
            )
        except (OSError, ValueError) as error:
            raise Refusal(
                f"no GPT-2 at {sizes.base!r}: {str(error).strip().splitlines()[0]} Give a folder "
                "made by save_pretrained, or a Hugging Face name with the network up."
            ) from error
        size = tokenizer.get_vocab_size()
        if size > gpt2.config.vocab_size:
            raise Refusal(
                f"{sizes.base!r} has no tokenizer that fits: it has {size} tokens, its GPT-2 "
                f"{gpt2.config.vocab_size}; give a folder with both from one model"
            )
        return tokenizer, gpt2
    texts = (text for i in dataset.ids("train") for text in dataset.captions[i])
    tokenizer = train_tokenizer(texts, sizes.vocabulary)
    end = tokenizer.token_to_id(END)
    return tokenizer, {
        "vocab_size": tokenizer.get_vocab_size(),
        "n_positions": POSITIONS + (mapper.prefix_length if mapper.kind == "patch" else 0),
        "n_embd": sizes.width,
        "n_layer": sizes.layers,
        "n_head": sizes.heads,
        "resid_pdrop": sizes.dropout,
        "embd_pdrop": sizes.dropout,
        "attn_pdrop": sizes.dropout,
        "bos_token_id": end,
        "eos_token_id": end,
    }
