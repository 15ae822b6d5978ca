"""Image encoders: pixels in, features out, one for the whole image or one for each of its patches.

Each is a module of another library behind one interface, `ImageEncoder`:

    CLIP's vision transformer   Hugging Face, arXiv 2103.00020
    SigLIP and SigLIP 2         Hugging Face, arXiv 2303.15343 and 2502.14786
    CLIP's ResNet               open_clip, arXiv 2103.00020 section 2.4 (the extra `openclip`)

Axes: B batch, D width of the pooled feature, P patches, W width of a patch, S image side.
"""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor, nn
from transformers import (
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from model.config import FEATURE_KINDS
from model.refusal import Refusal

#: Number of class tokens before the patches in CLIP's vision transformer.
CLASS_TOKENS = 1
#: CLIP's ResNet halves the image's side five times before its attention pool.
RESNET_STRIDE = 32
#: Width of one head of that pool.
RESNET_HEAD_WIDTH = 64


class ImageEncoder(nn.Module, abc.ABC):
    """The interface of all encoders.

    Args:
        config: Its sizes, as written to JSON; `build_encoder` builds the same module from them.
        image_size: S, the side of the images that it takes, in pixels.
        pooled_width: D, the width of the feature of a whole image.
        grid: Number of patches along one side; P is its square.
        patch_width: W, the width of the feature of one patch.
    """

    def __init__(
        self,
        config: dict[str, Any],
        image_size: int,
        pooled_width: int,
        grid: int,
        patch_width: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.shapes = {"pooled": (pooled_width,), "patches": (grid * grid, patch_width)}

    @abc.abstractmethod
    def pooled(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels, float32 [B, 3, S, S], to features, float32 [B, D]."""

    @abc.abstractmethod
    def patches(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels, float32 [B, 3, S, S], to patches, float32 [B, P, W], by rows."""

    def encode(self, pixels: Tensor, kind: str) -> Tensor:
        """Map normalised pixels, float32 [B, 3, S, S], to features of a kind of `FEATURE_KINDS`.

        Returns:
            float32 [B, D] for `pooled`, [B, P, W] for `patches`.
        """
        return self.pooled(pixels) if kind == "pooled" else self.patches(pixels)

    def shape(self, kind: str) -> tuple[int, ...]:
        """Shape of the feature of one image: (D,) for `pooled`, (P, W) for `patches`.

        Raises:
            Refusal: Another kind.
        """
        if kind not in FEATURE_KINDS:
            raise Refusal(f"features.kind is {kind!r}; it must be {' or '.join(FEATURE_KINDS)}")
        return self.shapes[kind]


class ClipEncoder(ImageEncoder):
    """CLIP's vision transformer with its projection.

    Args:
        tower: Hugging Face's module, whose parameters keep their names.
    """

    def __init__(self, tower: CLIPVisionModelWithProjection) -> None:
        sizes: Any = tower.config
        grid = sizes.image_size // sizes.patch_size
        super().__init__(
            sizes.to_dict(), sizes.image_size, sizes.projection_dim, grid, sizes.hidden_size
        )
        self.vision_model = tower.vision_model
        self.visual_projection = tower.visual_projection

    def pooled(self, pixels: Tensor) -> Tensor:
        """The projected feature [B, D], which CLIP compares with text features."""
        return pooled_and_patches(self, pixels)[0]

    def patches(self, pixels: Tensor) -> Tensor:
        """The inputs of the last layer without the class token, [B, P, W]."""
        return pooled_and_patches(self, pixels)[1]


def pooled_and_patches(clip: CLIPModel | ClipEncoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Map normalised pixels to features and patches in one pass.

    The patches are the inputs of the last layer (as in LLaVA, arXiv 2304.08485, section 4.1). The
    feature is computed from them. The last layer's outputs at the patches are used for nothing, so
    CLIP's training does not shape them.

    Args:
        clip: The encoder, or a whole CLIP.
        pixels: float32 [B, 3, S, S].

    Returns:
        Features [B, D] and patches [B, P, W].
    """
    output = clip.vision_model(pixel_values=pixels, output_hidden_states=True)
    patches = output.hidden_states[-2][:, CLASS_TOKENS:]
    return clip.visual_projection(output.pooler_output), patches


class SiglipEncoder(ImageEncoder):
    """SigLIP's vision transformer: attention pools the patches, there is no class token.

    Args:
        tower: Hugging Face's module, whose parameters keep their names.

    Raises:
        Refusal: It has no pooling head.
    """

    def __init__(self, tower: SiglipVisionModel) -> None:
        sizes: Any = tower.config
        if not getattr(sizes, "vision_use_head", True):
            raise Refusal(
                "this SigLIP has no pooling head (vision_use_head is false); take one that has"
            )
        grid = sizes.image_size // sizes.patch_size
        super().__init__(
            sizes.to_dict(), sizes.image_size, sizes.hidden_size, grid, sizes.hidden_size
        )
        self.vision_model = tower

    def pooled(self, pixels: Tensor) -> Tensor:
        """The pooled feature [B, D], which SigLIP compares with text features."""
        return self.vision_model(pixel_values=pixels).pooler_output

    def patches(self, pixels: Tensor) -> Tensor:
        """The inputs of the last layer, [B, P, W]."""
        return self.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]


class ResNetEncoder(ImageEncoder):
    """CLIP's modified ResNet, such as RN50x4, computed by open_clip.

    Args:
        config: `image_size`, `width`, `layers` (blocks of the four stages) and `embed_dim` (D).

    Raises:
        Refusal: open_clip is not installed.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        try:
            from open_clip.modified_resnet import ModifiedResNet
        except ImportError as error:
            reason = str(error).splitlines()[0]
            raise Refusal(
                f"CLIP's ResNet needs open_clip, which cannot be imported ({reason}); install it: "
                "pip install -e '.[openclip]'"
            ) from error
        width = config["width"] * 32  # outputs of the last stage
        side = config["image_size"]
        super().__init__(config, side, config["embed_dim"], side // RESNET_STRIDE, width)
        self.visual = ModifiedResNet(
            layers=config["layers"],
            output_dim=config["embed_dim"],
            heads=width // RESNET_HEAD_WIDTH,
            image_size=side,
            width=config["width"],
        )

    def pooled(self, pixels: Tensor) -> Tensor:
        """The output of the attention pool, [B, D]."""
        return self.visual(pixels)

    def patches(self, pixels: Tensor) -> Tensor:
        """The output of the last stage, before the attention pool (9 x 9 for RN50x4), [B, P, W]."""
        hidden = self.visual.stem(pixels)
        for stage in (
            self.visual.layer1,
            self.visual.layer2,
            self.visual.layer3,
            self.visual.layer4,
        ):
            hidden = stage(hidden)  # [B, channels, side, side]
        return hidden.flatten(2).transpose(1, 2)


def build_encoder(config: dict[str, Any]) -> ImageEncoder:
    """An encoder of these sizes with random weights.

    Args:
        config: As in `ImageEncoder.config`; without `model_type` it is CLIP's.

    Raises:
        Refusal: An unknown `model_type`, a SigLIP without its pooling head, or a ResNet where
            open_clip is not installed.
    """
    kind = config.get("model_type", "clip_vision_model")
    if kind == "clip_vision_model":
        return ClipEncoder(CLIPVisionModelWithProjection(CLIPVisionConfig(**config)))
    if kind == "siglip_vision_model":
        return SiglipEncoder(SiglipVisionModel(SiglipVisionConfig(**config)))
    if kind == "open_clip_resnet":
        return ResNetEncoder(config)
    raise Refusal(
        f"the encoder's model_type is {kind!r}; it must be clip_vision_model, siglip_vision_model "
        "or open_clip_resnet"
    )
