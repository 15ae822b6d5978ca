"""What a published captioner lacks: its image encoder, GPT-2's tokenizer, and a model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from model.checkpoint import Checkpoint
from model.config import CaptionerConfig
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.pretrained.encoder_folder import load_encoder
from model.pretrained.hub import file_sha256
from model.pretrained.hugging_face import load_gpt2_tokenizer
from model.pretrained.sources import CLIPS
from model.refusal import Refusal

#: What a caption ends with, and how GPT-2's tokenizer must write the end token.
FULL_STOP = "."


def complete(
    captioner: ClipCap,
    file: Path,
    clip: str | None,
    gpt2_tokenizer: str,
    origins: tuple[str, str, str] | None = None,
    end_token: str | None = None,
    assumed: Sequence[str] = (),
) -> Checkpoint:
    """A checkpoint from a captioner that was published without encoder and tokenizer.

    Args:
        captioner: From `model.pretrained.published.read_published`; the encoder is put into it.
        file: Where it was read from, for the model card and for messages.
        clip: The encoder it was trained on, as name or folder (see
            `model.pretrained.encoder_folder`); None takes the one of `sources.CLIPS` with features
            of the same width.
        gpt2_tokenizer: GPT-2's tokenizer, as Hugging Face name or folder.
        origins: Where weights, encoder and tokenizer came from, as Markdown for the model card;
            None writes the file with its SHA-256 and the two names.
        end_token: Token that ends a caption, as the tokenizer writes it; None for the full stop.
        assumed: What was assumed, for the model card (see `assumptions`).

    Raises:
        Refusal: The encoder or the tokenizer cannot be had, or does not fit the captioner.
    """
    width = captioner.config.feature_width
    clip = clip or _clip_name(width, file)
    encoder, preprocessing = load_encoder(clip, "--clip")
    (found,) = encoder.shape("pooled")
    if found != width:
        raise Refusal(
            f"{file} takes features {width} wide, but those of {clip!r} are {found} wide; give the "
            "encoder it was trained on with --clip"
        )
    tokenizer = load_gpt2_tokenizer(gpt2_tokenizer, "--gpt2-tokenizer")
    vocabulary, known = captioner.gpt2.config.vocab_size, tokenizer.get_vocab_size()
    end = captioner.config.end_token_id
    if known != vocabulary or (end_token is None and tokenizer.decode([end]) != FULL_STOP):
        raise Refusal(
            f"the tokenizer of {gpt2_tokenizer!r} has {known} tokens and writes token {end} as "
            f"{tokenizer.decode([end])!r}; {file} needs {vocabulary} and {FULL_STOP!r}: give "
            "GPT-2's own with --gpt2-tokenizer"
        )
    if end_token is not None:
        end = _token_id(end_token, tokenizer, gpt2_tokenizer)
    captioner.clip = encoder
    # Not the folder it was read from, which other machines do not have; the card says its origin.
    sizes = {key: value for key, value in encoder.config.items() if key != "_name_or_path"}
    captioner.config = dataclasses.replace(
        captioner.config,
        clip=sizes,
        gpt2={**captioner.config.gpt2, "bos_token_id": end, "eos_token_id": end},
        preprocessing=preprocessing,
        end_token_id=end,
        end_token_is_text=tokenizer.decode([end]) != "",  # it is empty for a special token
    )
    room = captioner.gpt2.config.n_positions - captioner.config.mapper.prefix_length
    generation = GenerationOptions(num_beams=5, max_tokens=min(32, room))
    if origins is None:
        weights = f"`{file.name}`, SHA-256 `{file_sha256(file)}`"
        origins = (weights, f"`{clip}`", f"`{gpt2_tokenizer}`")
    card = _card(file, captioner.config, origins, end_token or FULL_STOP, assumed)
    return Checkpoint(captioner.eval(), tokenizer, generation, card=card)


def assumptions(
    config: CaptionerConfig, clip: str | None, normalize: bool | None, end_token: str | None
) -> list[str]:
    """What is assumed of a captioner, because neither its weights file nor its user says it.

    Args:
        config: Of the captioner as `weights_file.read_published` gives it.
        clip: The encoder that was given; None if it follows from the width of the features.
        normalize: Whether features are divided by their norm, if that was given.
        end_token: The end token that was given; None for the full stop.

    Returns:
        Sentences, each with the option that says otherwise if there is one.
    """
    found, kind = [], config.mapper.kind
    if normalize is None:
        does, other = ("is", "no-") if config.normalize_feature else ("is not", "")
        found.append(
            f"the feature {does} divided by its norm, as the authors did with the {kind} mapper; "
            f"for a captioner that was trained otherwise give --{other}normalize"
        )
    if clip is None and (known := CLIPS.get(config.feature_width)):
        others = " and ".join(known.as_wide)
        also = f" ({others} too)" if others else ""
        found.append(
            f"the encoder is {known.repo}, whose features are {config.feature_width} wide{also}; "
            "for another one give --clip"
        )
    if end_token is None:
        found.append(
            f"a caption ends at the token {FULL_STOP!r}, as the authors' captions do; for another "
            "one give --end-token"
        )
    heads = f"GPT-2 has {config.gpt2['n_head']} heads"
    if kind == "transformer":
        heads += f" and the mapper {config.mapper.heads}"
    found.append(f"{heads}, as in those that were published; there is no option for other numbers")
    return found


def _token_id(text: str, tokenizer: Tokenizer, name: str) -> int:
    """Id of the token that is written like this.

    Raises:
        Refusal: The tokenizer writes it with several tokens, or with none.
    """
    token = tokenizer.token_to_id(text)
    if token is not None:
        return int(token)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) != 1:
        raise Refusal(
            f"--end-token is {text!r}, which the tokenizer of {name!r} writes with {len(ids)} "
            f"tokens; give one token, such as {FULL_STOP!r} or '<|endoftext|>'"
        )
    return int(ids[0])


def _clip_name(width: int, file: Path) -> str:
    """The name on the hub of the CLIP whose features have this width."""
    if width in CLIPS:
        return CLIPS[width].repo
    raise Refusal(
        f"{file} was trained on features {width} wide, and no CLIP of that width is known here; "
        "give the encoder with --clip, or take a captioner of ViT-B/32 (512 wide) or RN50x4 (640)"
    )


def _card(
    file: Path,
    config: CaptionerConfig,
    origins: tuple[str, str, str],
    end_token: str,
    assumed: Sequence[str],
) -> str:
    """The model card: what the checkpoint was put together from, and what was assumed."""
    mapper = f"{config.mapper.kind} mapper with a prefix of {config.mapper.prefix_length}"
    weights, clip, tokenizer = origins
    norm = "is" if config.normalize_feature else "is not"
    end = "the full stop" if end_token == FULL_STOP else f"the token `{end_token}`"
    guesses = "\n".join(f"- {each[0].upper()}{each[1:]}." for each in assumed)
    if guesses:
        guesses = (
            "## Assumed at the conversion\n\nThe weights file does not say this. If it is wrong, "
            f"the captions are bad without an error.\n\n{guesses}\n\n"
        )
    return f"""\
# Image captioner from `{file.name}`

A ClipCap captioner (Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning",
[arXiv 2111.09734](https://arxiv.org/abs/2111.09734)), converted by
`python -m model.pretrained.published`.

| part | from |
|---|---|
| {mapper}, and GPT-2 | {weights} |
| image encoder and preprocessing | {clip} |
| tokenizer | {tokenizer} |

A caption ends at {end}. The image feature {norm} divided by its norm.

{guesses}With `DIR` standing for this folder:

```sh
make serve CHECKPOINT=DIR
curl -T photo.jpg http://127.0.0.1:8080/predictions/clipcap
```
"""
