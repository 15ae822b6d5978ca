"""What a published captioner lacks: its image encoder, GPT-2's tokenizer, and a model card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

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
    if known != vocabulary or tokenizer.decode([end]) != FULL_STOP:
        raise Refusal(
            f"the tokenizer of {gpt2_tokenizer!r} has {known} tokens and writes token {end} as "
            f"{tokenizer.decode([end])!r}; {file} needs {vocabulary} and {FULL_STOP!r}: give "
            "GPT-2's own with --gpt2-tokenizer"
        )
    captioner.clip = encoder
    # Not the folder it was read from, which other machines do not have; the card says its origin.
    sizes = {key: value for key, value in encoder.config.items() if key != "_name_or_path"}
    captioner.config = dataclasses.replace(
        captioner.config, clip=sizes, preprocessing=preprocessing
    )
    room = captioner.gpt2.config.n_positions - captioner.config.mapper.prefix_length
    generation = GenerationOptions(num_beams=5, max_tokens=min(32, room))
    if origins is None:
        weights = f"`{file.name}`, SHA-256 `{file_sha256(file)}`"
        origins = (weights, f"`{clip}`", f"`{gpt2_tokenizer}`")
    card = _card(file, captioner.config, origins)
    return Checkpoint(captioner.eval(), tokenizer, generation, card=card)


def _clip_name(width: int, file: Path) -> str:
    """The name on the hub of the CLIP whose features have this width."""
    if width in CLIPS:
        return CLIPS[width].repo
    raise Refusal(
        f"{file} was trained on features {width} wide, and no CLIP of that width is known here; "
        "give the encoder with --clip, or take a captioner of ViT-B/32 (512 wide) or RN50x4 (640)"
    )


def _card(file: Path, config: CaptionerConfig, origins: tuple[str, str, str]) -> str:
    """The model card: what the checkpoint was put together from."""
    mapper = f"{config.mapper.kind} mapper with a prefix of {config.mapper.prefix_length}"
    weights, clip, tokenizer = origins
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

Captions end at the full stop: it was trained without an end token.

With `DIR` standing for this folder:

```sh
make serve CHECKPOINT=DIR
curl -T photo.jpg http://127.0.0.1:8080/predictions/clipcap
```
"""
