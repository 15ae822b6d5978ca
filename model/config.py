"""The frozen config of a captioner: `config.json`, stored beside its weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from model.image.preprocessing import Preprocessing
from model.refusal import Refusal

#: Most layers of a model. Layers are built before the weights are read, so a wrong number in a
#: config would otherwise take all memory.
MAX_LAYERS = 1000
#: What a mapper reads of an image: one feature, or one for each patch.
FEATURE_KINDS = ("pooled", "patches")


@dataclasses.dataclass(frozen=True)
class MapperConfig:
    """The kind of mapper, and its sizes.

    Attributes:
        kind: `mlp`, `transformer`, `linear` or `patch`.
        prefix_length: K, the number of GPT-2 embeddings in the prefix; for `patch` the number of
            the encoder's patches.
        clip_length: C, the number of vectors made from the feature in the transformer mapper.
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
        """The member of `FEATURE_KINDS` that the mapper reads."""
        return "patches" if self.kind == "patch" else "pooled"


@dataclasses.dataclass(frozen=True)
class CaptionerConfig:
    """Everything that is needed to build a captioner for its weights.

    Attributes:
        clip: The argument of `model.network.encoder.build_encoder`: Hugging Face's
            `CLIPVisionConfig` or `SiglipVisionConfig` as a dictionary, or the sizes of open_clip's
            ResNet. None for a captioner that was published without its encoder and takes features
            only.
        gpt2: Hugging Face's `GPT2Config` as a dictionary.
        mapper: The mapper between the two.
        preprocessing: How an image becomes the pixels that `clip` takes.
        feature_width: D, the width of the feature that the mapper reads; that of one patch for the
            mapper `patch`.
        normalize_feature: Divide the feature by its L2 norm before the mapper.
        end_token_id: The token that ends a caption.
        end_token_is_text: The end token is part of the caption's text, such as a full stop.
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
        """Read what `save` wrote.

        Args:
            file: A `config.json`.

        Raises:
            Refusal: The file is missing, is not JSON, is not a captioner's, has missing, unknown or
                wrong fields, or more layers than `MAX_LAYERS`.
        """
        try:
            fields = json.loads(file.read_text())
        except FileNotFoundError:
            raise Refusal(f"{file} is missing; give a captioner's checkpoint folder") from None
        except ValueError as error:
            raise Refusal(f"{file} is not JSON: {error}") from None
        kind = fields.pop("model_type", None) if isinstance(fields, dict) else None
        if kind != "clipcap":
            raise Refusal(f"{file} has model_type {kind!r}; a captioner's is 'clipcap'")
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
