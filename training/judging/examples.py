"""Captions that a captioner wrote, with the decoder's states and how right each is.

Axes: n captions, T tokens, E width of the decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.refusal import Refusal
from training.config import Quality
from training.data.dataset import CaptionDataset
from training.evaluation.captioning import decode_pixels
from training.judging.targets import Target, Targets

#: Pictures that are captioned together; the captions by chance depend on it.
PICTURES = 64
#: Captions that are read together, since each token has a logit for every word.
_CAPTIONS = 32


@dataclasses.dataclass
class Examples:
    """Captions; rows of the same picture stand together.

    Attributes:
        states: float16 [n, T, E], the state that each token was chosen from, 0 behind the end.
        log_probs: float32 [n, T], of the tokens, in nats, 0 behind the end.
        lengths: int64 [n].
        right: float32 [n], how right a caption is, from 0 to 1.
        wrong: float32 [n, T], 1 where a token belongs to a false statement, or else 0.
        marked: bool [n], whether `wrong` is known.
        picture: int64 [n], number of the picture, from 0.
        best: bool [n], the best caption of a picture by the captioner's own defaults.
    """

    states: Tensor
    log_probs: Tensor
    lengths: Tensor
    right: Tensor
    wrong: Tensor
    marked: Tensor
    picture: Tensor
    best: Tensor

    def rows(self, chosen: Tensor) -> Examples:
        """Some captions, cut to the longest of them."""
        longest = int(self.lengths[chosen].max()) if len(chosen) else 0
        parts = {each.name: getattr(self, each.name)[chosen] for each in dataclasses.fields(self)}
        for name in ("states", "log_probs", "wrong"):
            parts[name] = parts[name][:, :longest]
        return Examples(**parts)


def write_examples(
    checkpoint: Checkpoint,
    artifact: Artifact,
    dataset: CaptionDataset,
    image_ids: Sequence[int],
    targets: Targets,
    settings: Quality,
) -> Examples:
    """Caption pictures by the captioner's own defaults, and by chance, and judge the captions.

    Those by chance are wrong more often. So the head sees more wrong ones, and other ones.

    Args:
        checkpoint: The captioner.
        artifact: The same as it is served.
        dataset: Has the pictures.
        image_ids: Which of them.
        targets: Says how right a caption is.
        settings: See `training.config.Quality`.

    Raises:
        Refusal: A picture cannot be read.
    """
    files = [dataset.files[i] for i in image_ids]
    decoded = decode_pixels(artifact.preprocessing, files, settings)
    bar = track(decoded, "captioning pictures", len(image_ids), console=Console(stderr=True))
    parts: list[Examples] = []
    for first, pixels in _batches(bar, PICTURES):
        features = artifact.encode(pixels).clone()  # not an inference tensor
        for options in _searches(artifact.defaults, settings, first):
            tokens, lengths, _, _ = artifact.search(features, options)
            tokens, lengths = tokens.clone(), lengths.clone()
            states, log_probs = _read(checkpoint.captioner, features, tokens)
            ids = image_ids[first : first + len(pixels)]
            judged = _judge(checkpoint, artifact, tokens, lengths, ids, targets)
            count = tokens.shape[1]
            best = torch.zeros(lengths.shape, dtype=torch.bool)
            best[:, 0] = options.temperature == artifact.defaults.temperature
            picture = torch.arange(first, first + len(pixels)).repeat_interleave(count)
            parts.append(
                Examples(states, log_probs, lengths.flatten(), *judged, picture, best.flatten())
            )
    return _joined(parts)


def _batches(decoded: Iterable[Tensor | str], size: int) -> Iterator[tuple[int, Tensor]]:
    """Batches of pixels, each with the number of its first picture."""
    waiting: list[Tensor] = []
    first = 0
    for pixels in decoded:
        if isinstance(pixels, str):
            raise Refusal(f"{pixels}; mend the data set, or leave the picture out")
        waiting.append(pixels)
        if len(waiting) == size:
            yield first, torch.stack(waiting)
            first += size
            waiting = []
    if waiting:
        yield first, torch.stack(waiting)


def _searches(defaults: GenerationOptions, settings: Quality, seed: int) -> list[GenerationOptions]:
    """The captioner's own search with all of its beams, and draws of all words it finds likely."""
    own = defaults.updated({"num_captions": max(defaults.num_beams, defaults.num_captions)})
    if not settings.draws or defaults.temperature > 0:
        return [own]
    drawn = {"num_beams": 1, "num_captions": settings.draws, "temperature": 1.0, "seed": seed}
    return [own, defaults.updated(drawn)]


@torch.no_grad()
def _read(captioner: ClipCap, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """States float16 [n, T, E] before each token [B, M, T], and log-probabilities [n, T]."""
    prefixes = captioner.prefix(features).repeat_interleave(tokens.shape[1], 0)
    gpt2 = captioner.gpt2.transformer
    states, log_probs = [], []
    for prefix, ids in zip(
        prefixes.split(_CAPTIONS), tokens.flatten(0, 1).split(_CAPTIONS), strict=True
    ):
        both = torch.cat([prefix, gpt2.wte(ids[:, :-1])], 1)
        read = gpt2(inputs_embeds=both, use_cache=False).last_hidden_state
        read = read[:, prefix.shape[1] - 1 :]  # [_, T, E]
        all_log_probs = captioner.gpt2.lm_head(read).log_softmax(-1)
        states.append(read.half())
        log_probs.append(all_log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1))
    return torch.cat(states), torch.cat(log_probs)


def _judge(
    checkpoint: Checkpoint,
    artifact: Artifact,
    tokens: Tensor,
    lengths: Tensor,
    image_ids: Sequence[int],
    targets: Targets,
) -> tuple[Tensor, Tensor, Tensor]:
    """How right captions [B, M, T] are: `right` [n], `wrong` [n, T] and `marked` [n]."""
    right: list[float] = []
    wrong: list[list[float]] = []
    marked: list[bool] = []
    end = checkpoint.captioner.config.end_token_id
    for image_id, captions, sizes in zip(image_ids, tokens.tolist(), lengths.tolist(), strict=True):
        for row, length in zip(captions, sizes, strict=True):
            ids = row[:length]
            text = artifact.text(ids)
            target = targets(image_id, text, ids[-1] == end)
            labels = _labels(checkpoint.tokenizer, text, ids, target)
            right.append(target.right)
            marked.append(labels is not None)
            wrong.append((labels or []) + [0.0] * (len(row) - len(labels or [])))
    return torch.tensor(right), torch.tensor(wrong), torch.tensor(marked)


def _labels(
    tokenizer: Tokenizer, text: str, ids: Sequence[int], target: Target
) -> list[float] | None:
    """1 for each token of a false statement, 0 for the others; None where it is not known."""
    if target.wrong is None:
        return None
    encoded = tokenizer.encode(text, add_special_tokens=False)
    if encoded.ids != list(ids[: len(encoded.ids)]):
        return None  # the text would be cut into other tokens than the captioner wrote
    labels = [
        float(any(begin < last and first < end for first, last in target.wrong))
        for begin, end in encoded.offsets
    ]
    return labels + [0.0] * (len(ids) - len(labels))


def _joined(parts: Sequence[Examples]) -> Examples:
    """All captions in one, in the order of the pictures."""
    longest = max(part.states.shape[1] for part in parts)
    fields: dict[str, Tensor] = {}
    for name in (each.name for each in dataclasses.fields(Examples)):
        tensors = [getattr(part, name) for part in parts]
        if name in ("states", "log_probs", "wrong"):
            widened = []
            for tensor in tensors:
                wide = tensor.new_zeros([len(tensor), longest, *tensor.shape[2:]])
                wide[:, : tensor.shape[1]] = tensor
                widened.append(wide)
            tensors = widened
        fields[name] = torch.cat(tensors)
    order = fields["picture"].argsort(stable=True)
    return Examples(**{name: value[order] for name, value in fields.items()})
