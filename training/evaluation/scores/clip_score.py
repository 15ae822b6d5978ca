"""CLIPScore and RefCLIPScore: how well captions fit their pictures, and references, by a CLIP.

Hessel, Holtzman, Forbes, Le Bras, Choi: "CLIPScore: A Reference-free Evaluation Metric for Image
Captioning" (arXiv 2104.08718, section 3). With c the caption, v the picture and R the references:

    CLIPScore(c, v)       = 2.5 max(cos(c, v), 0)
    RefCLIPScore(c, R, v) = harmonic mean of CLIPScore(c, v) and max(cos(c, r), 0) of the r in R
                            that is closest to c

Every text is read after the paper's prompt. The paper's CLIP is ViT-B/32; figures of different
CLIPs cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from model.network.encoder import pooled_and_patches
from model.pretrained.hugging_face import load_clip
from model.pretrained.preprocessor_config import read_preprocessing
from model.refusal import Refusal
from training.config import Evaluate
from training.data.dataset import CaptionDataset
from training.encoding.text_encoder import TextEncoder
from training.evaluation.captioning import decode_pixels

#: w of the paper, and what stands before every text.
WEIGHT, PROMPT = 2.5, "A photo depicts "


def clip_score(images: Tensor, captions: Tensor) -> Tensor:
    """CLIPScore of captions.

    Args:
        images: Normalised features of the pictures, [N, D].
        captions: Normalised features of their captions, [N, D].

    Returns:
        From 0 to 2.5, [N].
    """
    return WEIGHT * (images * captions).sum(-1).clamp(min=0)


def ref_clip_score(clip_scores: Tensor, closest: Tensor) -> Tensor:
    """RefCLIPScore of captions.

    Args:
        clip_scores: Their CLIPScore, [N].
        closest: The largest cosine of each caption with one of its references, [N].

    Returns:
        The harmonic mean of both, which is 0 if either is 0 or negative; [N].
    """
    closest = closest.clamp(min=0)
    both = clip_scores + closest
    return torch.where(both > 0, 2 * clip_scores * closest / both.clamp(min=1e-12), 0.0)


class ClipScorer:
    """Scores captions of one data set by one CLIP, in float32.

    Args:
        dataset: The data set.
        settings: `clip` is the Hugging Face name or folder of a CLIP with both towers.
        device: Where the CLIP computes.

    Attributes:
        scores: Image id -> CLIPScore and RefCLIPScore of its caption.

    Raises:
        Refusal: There is no such CLIP.
    """

    def __init__(self, dataset: CaptionDataset, settings: Evaluate, device: torch.device) -> None:
        assert settings.clip is not None
        self.clip = load_clip(settings.clip, CLIPModel, "evaluate.clip").train(False).to(device)
        self.preprocessing = read_preprocessing(settings.clip)
        self.texts = TextEncoder(self.clip, AutoTokenizer.from_pretrained(settings.clip))
        self.dataset = dataset
        self.settings = settings
        self.scores: dict[int, tuple[float, float]] = {}
        self._long: dict[int, tuple[int, int]] = {}

    def figures(self, generated: Mapping[int, str]) -> dict[str, float]:
        """Mean scores of captions; a picture that was scored before is not read again.

        Args:
            generated: Image id -> caption, the same at every call.

        Raises:
            Refusal: A picture cannot be read.
        """
        missing = [i for i in generated if i not in self.scores]
        files = [self.dataset.files[i] for i in missing]
        decoded = decode_pixels(self.preprocessing, files, self.settings)
        batch: list[Tensor] = []
        for number, pixels in enumerate(decoded, start=1):
            if isinstance(pixels, str):
                raise Refusal(f"{pixels}; mend the data set, a score of part of it would mislead")
            batch.append(pixels)
            if len(batch) == self.settings.batch_size or number == len(missing):
                self._score(missing[number - len(batch) : number], torch.stack(batch), generated)
                batch.clear()
        found = torch.tensor([self.scores[i] for i in generated], dtype=torch.float64)
        return {"CLIPScore": float(found[:, 0].mean()), "RefCLIPScore": float(found[:, 1].mean())}

    def note(self, generated: Mapping[int, str]) -> str:
        """A line on the CLIP that was used, and on texts that were cut."""
        captions, references = (sum(self._long[i][n] for i in generated) for n in (0, 1))
        return (
            f"CLIPScore and RefCLIPScore by {self.settings.clip}, after the prompt {PROMPT!r}; of "
            f"{len(generated)} captions {captions}, and of their references {references}, were "
            f"longer than its {self.texts.positions} tokens and were cut."
        )

    @torch.inference_mode()
    def _score(self, ids: Sequence[int], pixels: Tensor, generated: Mapping[int, str]) -> None:
        """Score the captions of a batch of pictures, float32 [B, 3, S, S]."""
        features = pooled_and_patches(self.clip, pixels.to(self.clip.device))[0].cpu()
        images = F.normalize(features, dim=-1)
        own = [PROMPT + generated[i] for i in ids]
        others = [[PROMPT + text for text in self.dataset.captions[i]] for i in ids]
        captions = self.texts.features(own)
        references = self.texts.features([text for texts in others for text in texts])
        parts = references.split([len(texts) for texts in others])
        closest = torch.stack([(p @ c).max() for p, c in zip(parts, captions, strict=True)])
        plain = clip_score(images, captions)
        both = ref_clip_score(plain, closest)
        for i, text, texts, *scores in zip(
            ids, own, others, plain.tolist(), both.tolist(), strict=True
        ):
            self.scores[i] = (scores[0], scores[1])
            self._long[i] = (self.texts.count_cut([text]), self.texts.count_cut(texts))
