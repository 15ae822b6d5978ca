"""The image encoder that makes the features of a data set."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from model.network.encoder import ImageEncoder
from model.pretrained.encoder_folder import load_encoder
from training.encoding.feature_file import EncoderIdentity


class Encoder:
    """An image encoder with its preprocessing and identity.

    Args:
        name: Name or folder of an encoder (see `model.pretrained.encoder_folder`).
        kind: `pooled` for one feature of an image, `patches` for one of each patch.

    Attributes:
        model: The network, in evaluation mode.
        preprocessing: How images become its pixels.
        identity: What a feature file records of it.
        device: Where it computes; the CPU at first.

    Raises:
        Refusal: There is no such encoder.
    """

    def __init__(self, name: str, kind: str = "pooled") -> None:
        model, self.preprocessing = load_encoder(name)
        self.model = model.eval()
        self.device = torch.device("cpu")
        self.identity = EncoderIdentity(
            name=name,
            sha256=vision_sha256(self.model),
            shape=self.model.shape(kind),
            preprocessing=self.preprocessing,
            kind=kind,
        )

    def to(self, device: torch.device) -> Encoder:
        """The same encoder, which computes on this device from now on."""
        self.model.to(device)
        self.device = device
        return self

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Features of a batch of images.

        Args:
            pixels: Normalised, float32 [B, 3, S, S], on the CPU.

        Returns:
            float32 [B, *shape] on the CPU, where shape is that of `identity`.
        """
        # Not as serving runs it, although that is faster: with several threads its packed products
        # differ in the last digit from run to run, and a feature file is the same bytes each time.
        return self.model.encode(pixels.to(self.device), self.identity.kind).cpu()


def vision_sha256(model: ImageEncoder) -> str:
    """SHA-256, in hex, of the names and values of the weights of an image encoder."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
