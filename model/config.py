"""The frozen config that travels with a captioner's weights as `config.json`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from model.image.preprocessing import Preprocessing
from model.refusal import Refusal

#: Layers of a model at most: each is built before it is known whether the weights have it.
MAX_LAYERS = 1000
#: What of an image a mapper may read: one feature, or one for each patch.
FEATURE_KINDS = ("pooled", "patches")


@dataclasses.dataclass(frozen=True)
class MapperConfig:
    """Which mapper, and its sizes.

    Attributes:
        kind: `mlp`, `transformer`, `linear` or `patch`.
        prefix_length: K, GPT-2 embeddings that the image becomes; for `patch` the number of the
            encoder's patches.
        clip_length: Vectors made from the feature inside the transformer mapper.
        layers: Layers of the transformer mapper.
        heads: Attention heads of the transformer mapper.
    """

    kind: str = "mlp"
    prefix_length: int = 10
    clip_length: int = 10
    layers: int = 8
    heads: int = 8

    @property
    def feature_kind(self) -> str:
        """Which of `FEATURE_KINDS` the mapper reads."""
        return "patches" if self.kind == "patch" else "pooled"


@dataclasses.dataclass(frozen=True)
class CaptionerConfig:
    """Everything needed to rebuild a captioner around its weights.

    Attributes:
        clip: What `model.network.encoder.build_encoder` makes the encoder of: Hugging Face's
            `CLIPVisionConfig` or `SiglipVisionConfig` as a dictionary, or the sizes of open_clip's
            ResNet; None for a captioner that was published without its encoder and takes features
            only.
        gpt2: Hugging Face `GPT2Config` as a dictionary.
        mapper: The mapper between the two.
        preprocessing: How an image becomes the pixels that `clip` expects.
        feature_width: D, the width of the feature that the mapper takes; of one patch for the
            mapper `patch`.
        normalize_feature: Divide the feature by its L2 norm before the mapper.
        end_token_id: The token after which a caption is over.
        end_token_is_text: The end token is part of the caption (a full stop), not a mark.
    """

    clip: dict[str, Any] | None
    gpt2: dict[str, Any]
    mapper: MapperConfig
    preprocessing: Preprocessing
    feature_width: int
    normalize_feature: bool
    end_token_id: int
    end_token_is_text: bool = False

    def save(self, file: Path) -> None:
        """Write the config as JSON."""
        fields = {"model_type": "clipcap", **dataclasses.asdict(self)}
        file.write_text(json.dumps(fields, indent=2) + "\n")

    @classmethod
    def load(cls, file: Path) -> CaptionerConfig:
        """Read what `save` wrote; refuse missing and unknown fields."""
        try:
            fields = json.loads(file.read_text())
        except FileNotFoundError:
            raise Refusal(f"{file} is missing; give a captioner's checkpoint folder") from None
        except ValueError as error:
            raise Refusal(f"{file} is not JSON: {error}") from None
        kind = fields.pop("model_type", None) if isinstance(fields, dict) else None
        if kind != "clipcap":
            raise Refusal(f"{file} has model_type {kind!r}; a captioner's says 'clipcap'")
        try:
            fields["mapper"] = MapperConfig(**fields["mapper"])
            fields["preprocessing"] = Preprocessing(**fields["preprocessing"])
            config = cls(**fields)
            sizes = {**(config.clip or {}), **config.gpt2, **vars(config.mapper)}
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(f"{file} does not fit this version: {error}") from None
        for name, value in sizes.items():
            if name.endswith(("layer", "layers")) and isinstance(value, int) and value > MAX_LAYERS:
                raise Refusal(f"{file}: {name} is {value}; the limit is {MAX_LAYERS}")
        return config
