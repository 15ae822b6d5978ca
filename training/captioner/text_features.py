"""Training on captions without images: a caption's own text feature stands for the image's.

Nukrai, Mokady, Globerson: "Text-Only Training for Image Captioning using Noise-Injected CLIP"
(CapDec, arXiv 2211.00575). CLIP puts an image and its captions close to each other on the unit
sphere, but not at the same place. So Gaussian noise is added to each text feature while the
captioner learns to write that text again: it then also understands the features around it, and
those of images are among them. Pictures are not read; the finished captioner is given them.
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from model.pretrained.hugging_face import load_clip
from training.data.dataset import CaptionDataset
from training.encoding.text_encoder import TextEncoder

#: Captions that the text tower reads at a time.
CAPTIONS_TOGETHER = 256


@torch.inference_mode()
def text_features(dataset: CaptionDataset, split: str, name: str) -> np.ndarray:
    """CLIP's text feature of every caption of a split.

    They are computed at each start of a training and kept in a temporary file: 2 kB a caption for
    ViT-B/32.

    Args:
        dataset: The data set; its pictures are not read.
        split: Name of the split.
        name: Hugging Face name or folder of a CLIP with both towers.

    Returns:
        Normalised, float32 [M, D]; the captions of an image one after another, images in the order
        of the split.

    Raises:
        Refusal: There is no CLIP with a text tower of this name.
    """
    clip = load_clip(name, CLIPModel).train(False)
    encoder = TextEncoder(clip, AutoTokenizer.from_pretrained(name))
    texts = [text for i in dataset.ids(split) for text in dataset.captions[i]]
    with tempfile.TemporaryFile() as file:
        for start in range(0, len(texts), CAPTIONS_TOGETHER):
            part = texts[start : start + CAPTIONS_TOGETHER]
            encoder.features(part).numpy().tofile(file)
        return np.memmap(file, np.float32, "r+").reshape(len(texts), -1)


def noisy(features: Tensor, noise: float) -> Tensor:
    """Features moved at random on the unit sphere.

    Args:
        features: [U, D].
        noise: Standard deviation of the Gaussian noise in each dimension, before the result is
            normalised. CapDec takes 0.13 (a variance of 0.016) where D is 640.

    Returns:
        Normalised, [U, D].
    """
    normal = F.normalize(features, dim=-1)
    return F.normalize(normal + noise * torch.randn_like(normal), dim=-1)


def first_rows(dataset: CaptionDataset, split: str) -> np.ndarray:
    """Row in `text_features` of the first caption of each image of a split, int64 [N]."""
    counts = [len(dataset.captions[i]) for i in dataset.ids(split)]
    return np.cumsum([0, *counts[:-1]])
