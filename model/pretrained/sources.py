"""What others published and where it is: captioners, their CLIPs, and GPT-2's tokenizer.

One table for `python -m model.pretrained.published NAME` (`CAPTIONERS`), and one of OpenAI's CLIPs
by the width of their features (`CLIPS`), for weights files that come without a name.

The captioners are the authors' own (arXiv 2111.09734). They published them on Google Drive; these
are the copies on the Hugging Face hub. The SHA-256 of those copies is in no public source that was
found. It is recorded at the first download and compared at each later one.
"""

from __future__ import annotations

import dataclasses

#: Preprocessing of OpenAI's CLIPs (arXiv 2103.00020): mean and deviation of R, G, B in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face hub.

    Attributes:
        repo: The repository, OWNER/NAME.
        name: The file's path in it.
        sha256: What the file must have, in hex; None where it is not known beforehand.
        revision: A branch, a tag or a commit; None for the newest commit.
    """

    repo: str
    name: str
    sha256: str | None = None
    revision: str | None = None


@dataclasses.dataclass(frozen=True)
class PublishedClip:
    """A CLIP on the hub.

    Attributes:
        repo: Its repository.
        image_size: Side of the square image that it takes, in pixels.
        as_wide: OpenAI's other CLIPs with features of the same width.
    """

    repo: str
    image_size: int
    as_wide: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PublishedCaptioner:
    """A captioner that is published without its encoder and tokenizer, and where all three are.

    Attributes:
        weights: Its mapper and GPT-2.
        clip: The files of its encoder that are needed, of one repository.
        tokenizer: GPT-2's `tokenizer.json`.
    """

    weights: HubFile
    clip: tuple[HubFile, ...]
    tokenizer: HubFile

    @property
    def files(self) -> tuple[HubFile, ...]:
        """All of them."""
        return (self.weights, *self.clip, self.tokenizer)


#: The CLIP that a published captioner was trained on, by the width of its features.
CLIPS = {
    512: PublishedClip(
        "openai/clip-vit-base-patch32", image_size=224, as_wide=("ViT-B/16", "RN101")
    ),
    640: PublishedClip("timm/resnet50x4_clip.openai", image_size=288),
}

# The two SHA-256 below are quoted, with these names, by several independent public repositories.
_VIT_B_32 = (
    HubFile(CLIPS[512].repo, "config.json"),
    HubFile(CLIPS[512].repo, "preprocessor_config.json"),
    HubFile(
        CLIPS[512].repo,
        "pytorch_model.bin",  # 605 MB; the repository has no model.safetensors
        "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    ),
)
_GPT2_TOKENIZER = HubFile(
    "openai-community/gpt2",
    "tokenizer.json",
    "8414cab924d8b9b33013f0d221c5862f365ee9be39c5c2bfae8a5a9e970478a6",
)

#: The captioners that can be had by name.
CAPTIONERS = {
    "coco": PublishedCaptioner(
        HubFile("akhaliq/CLIP-prefix-captioning-COCO-weights", "coco_weights.pt"),
        _VIT_B_32,
        _GPT2_TOKENIZER,
    ),
    "conceptual": PublishedCaptioner(
        HubFile("akhaliq/CLIP-prefix-captioning-conceptual-weights", "conceptual_weights.pt"),
        _VIT_B_32,
        _GPT2_TOKENIZER,
    ),
}
