"""Encode every image of a data set once.

`python -m training.features` writes a feature file (see `training.feature_file`): of each image
one pooled feature, or with `features.kind=patches` one of each patch, for the patch mapper. Patches
are large: ViT-B/32's of an image are 49 x 768 numbers, 150 kB, where the pooled feature has 2 kB.
Images are decoded in worker processes and encoded in batches. A broken image stops the command with
a list of all broken files; `features.on_broken=skip` leaves them out and says how many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from model.encoder import ImageEncoder
from model.encoder_folder import load_encoder
from model.image import to_pixels
from model.refusal import Refusal
from training.command import arguments, command
from training.config import Features, load_config
from training.dataset import CaptionDataset
from training.decoding import decode_files
from training.feature_file import EncoderIdentity, FeatureWriter, writing_features

#: Broken files named in the error; the rest are counted.
NAMED = 20


class Encoder:
    """An image encoder with its preprocessing and identity.

    Args:
        name: Name or folder of an encoder (see `model.encoder_folder`).
        kind: `pooled` for one feature of an image, `patches` for one of each patch.
    """

    def __init__(self, name: str, kind: str = "pooled") -> None:
        model, self.preprocessing = load_encoder(name)
        self.model = model.eval()
        self.identity = EncoderIdentity(
            name=name,
            sha256=vision_sha256(self.model),
            shape=self.model.shape(kind),
            preprocessing=self.preprocessing,
            kind=kind,
        )

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Features [B, *shape] of normalised pixels [B, 3, S, S]."""
        return self.model.encode(pixels, self.identity.kind)


def vision_sha256(model: ImageEncoder) -> str:
    """SHA-256 over names and values of the image tower's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def encode_dataset(settings: Features) -> int:
    """Write the feature file of a data set.

    Returns:
        How many broken images were skipped.

    Raises:
        Refusal: Broken images, when they are not to be skipped, or all are.
    """
    if settings.on_broken not in ("stop", "skip"):
        raise Refusal(f"features.on_broken is {settings.on_broken!r}; it must be stop or skip")
    dataset = CaptionDataset.load(settings.data)
    encoder = Encoder(settings.clip, settings.kind)
    ids = sorted(dataset.files)
    files = [dataset.files[i] for i in ids]
    convert = partial(to_pixels, preprocessing=encoder.preprocessing)
    decoded = decode_files(files, convert, settings.max_pixels, settings.workers)
    with writing_features(settings.out, encoder.identity, len(ids)) as writer:
        named = track(decoded, "encoding", len(ids), console=Console(stderr=True))
        broken = _encode(encoder, zip(ids, named, strict=True), writer, settings)
        if len(broken) == len(ids):
            raise Refusal(f"none of the {len(ids)} images of {settings.data} can be read")
    return len(broken)


def _encode(
    encoder: Encoder,
    decoded: Iterable[tuple[int, Tensor | str]],
    writer: FeatureWriter,
    settings: Features,
) -> list[str]:
    """Encode in batches; what was wrong with each broken image."""
    broken: list[str] = []
    waiting: list[tuple[int, Tensor]] = []

    def flush() -> None:
        if waiting:
            pixels = torch.stack([pixels for _, pixels in waiting])
            writer.add([image_id for image_id, _ in waiting], encoder.encode(pixels).numpy())
            waiting.clear()

    for image_id, pixels in decoded:
        if isinstance(pixels, str):
            broken.append(pixels)
        elif settings.on_broken == "skip" or not broken:  # else only the list is of use
            waiting.append((image_id, pixels))
            if len(waiting) == settings.batch_size:
                flush()
    if broken and settings.on_broken == "stop":
        more = f"\n  … and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise Refusal(
            f"{len(broken)} of {len(writer.rows)} images are broken; mend or remove them, "
            "or leave them out with features.on_broken=skip:\n  "
            + "\n  ".join(broken[:NAMED])
            + more
        )
    flush()
    return broken


def main() -> None:
    """Encode the data set of the settings."""
    settings = load_config(arguments(__doc__).parse_args().overrides).features
    skipped = encode_dataset(settings)
    if skipped:
        print(f"left out {skipped} broken images")


if __name__ == "__main__":
    command(main)
