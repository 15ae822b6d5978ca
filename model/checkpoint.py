"""The checkpoint folder of a captioner, with the file names that Hugging Face uses.

    config.json              sizes, preprocessing, end token (`model.config`)
    model.safetensors        weights: clip.*, mapper.*, gpt2.*
    tokenizer.json           GPT-2's tokenizer
    generation_config.json   the options of captions unless a request gives others
    drafts.safetensors       optional: n-grams of the training captions (`model.network.drafts`)
    training_features.json   optional: statistics of the features it was trained on
    training.json            optional: what it was trained on, and how
    quality.safetensors      optional: the quality head (`model.quality_file`), and quality.json
    ood.safetensors          optional: how to tell unusual images (`model.ood_file`), and ood.json
    reference.jsonl          optional: what it says about usual pictures (`model.reference_file`)
    seen_images.safetensors  optional: digests of the images it was trained on
    README.md                optional: model card
    evaluation.json          optional: figures of its last evaluation (`training.evaluate`)

Loading is strict: every file must fit the others. It needs no network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from model.config import CaptionerConfig
from model.network.captioner import ClipCap
from model.network.drafts import WIDTH
from model.ood_file import OOD, Ood, load_ood, save_ood
from model.options import DRAW, OPTIONS, GenerationOptions
from model.quality_file import HEAD, Quality, load_quality, save_quality
from model.refusal import Refusal
from model.tokenizer import load_tokenizer
from model.whole_folder import whole_folder

WEIGHTS = "model.safetensors"
CARD = "README.md"
DRAFTS = "drafts.safetensors"
#: Figures of its last evaluation, in a checkpoint folder (see `training.evaluate`).
EVALUATION = "evaluation.json"
#: GPT-2's output layer is its token embedding and is stored once.
_TIED = "gpt2.lm_head.weight"


@dataclasses.dataclass
class Checkpoint:
    """The content of a checkpoint folder.

    Attributes:
        captioner: The model, in evaluation mode.
        tokenizer: GPT-2's tokenizer.
        generation: The options of captions unless a request gives others.
        training_features: `mean` and `std` of each dimension of the training features (over images,
            and over patches where there are patches) and the `count` of images; or None.
        card: Model card in Markdown; or None.
        training: By name, what it was trained on and how, for the model card; or None.
        quality: The head that says how likely a caption is right; None for captions without.
        ood: How far features are from those of the training images; None where nobody knows.
        drafts: `keys`, `following` and `shares` of `model.network.drafts.Drafts`; or None.
    """

    captioner: ClipCap
    tokenizer: Tokenizer
    generation: GenerationOptions
    training_features: dict[str, Any] | None = None
    card: str | None = None
    training: dict[str, Any] | None = None
    quality: Quality | None = None
    drafts: dict[str, Tensor] | None = None
    ood: Ood | None = None

    def save(self, folder: str | Path) -> None:
        """Write the folder; it replaces an older one when it is complete.

        Raises:
            Refusal: The folder holds something else, or another process is writing it.
        """
        with whole_folder(folder, WEIGHTS, EVALUATION) as partial:
            self.captioner.config.save(partial / "config.json")
            weights = {
                k: v.contiguous() for k, v in self.captioner.state_dict().items() if k != _TIED
            }
            save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
            self.tokenizer.save(str(partial / "tokenizer.json"))
            options = self.generation.to_dict()
            generation = {OPTIONS[name].hugging_face: value for name, value in options.items()}
            for name in ("prompt", "max_characters"):  # not Hugging Face's
                if not generation[name]:
                    del generation[name]
            generation["do_sample"] = self.generation.temperature > 0
            if not generation["do_sample"]:
                for name in ("temperature", *DRAW):  # Hugging Face warns of them
                    del generation[OPTIONS[name].hugging_face]
            generation["eos_token_id"] = self.captioner.config.end_token_id
            _write_json(generation, partial / "generation_config.json")
            if self.training_features is not None:
                _write_json(self.training_features, partial / "training_features.json")
            if self.training is not None:
                _write_json(self.training, partial / "training.json")
            if self.quality is not None:
                save_quality(partial, self.quality, weights_sha256(partial))
            if self.ood is not None:
                save_ood(partial, self.ood, weights_sha256(partial))
            if self.drafts is not None:
                save_file(self.drafts, partial / DRAFTS)
            if self.card is not None:
                (partial / CARD).write_text(self.card, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, learned: Collection[str] = ("quality", "ood")) -> Checkpoint:
        """Read a folder.

        Args:
            folder: The folder.
            learned: Which of the things that are learned after the weights to read, if they are
                there: the quality head, the out-of-distribution score.

        Raises:
            Refusal: A file is missing, damaged, or does not fit the others.
        """
        folder = Path(folder)
        captioner = ClipCap(CaptionerConfig.load(folder / "config.json"))
        vocabulary = captioner.gpt2.config.vocab_size
        _check_sizes(captioner, vocabulary, folder)
        _load_weights(captioner, folder / WEIGHTS)
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        if tokenizer.get_vocab_size() > vocabulary:
            raise Refusal(
                f"{folder / 'tokenizer.json'} has {tokenizer.get_vocab_size()} tokens, but the "
                f"model only {vocabulary}; take the tokenizer it was trained with"
            )
        generation = GenerationOptions()
        if (file := folder / "generation_config.json").exists():
            given = _read_json(file)
            if not given.get("do_sample"):  # Hugging Face then does not read these either
                unread = {OPTIONS[name].hugging_face for name in ("temperature", *DRAW)}
                given = {name: value for name, value in given.items() if name not in unread}
            values = {name: given.get(option.hugging_face) for name, option in OPTIONS.items()}
            present = {name: value for name, value in values.items() if value is not None}
            try:
                generation = generation.updated(present)
            except Refusal as error:
                raise Refusal(f"{file}: {error}") from None
        positions = captioner.gpt2.config.n_positions
        prefix_length = captioner.config.mapper.prefix_length
        if prefix_length + generation.max_tokens > positions:
            raise Refusal(
                f"{folder} writes up to {generation.max_tokens} tokens behind a prefix of "
                f"{prefix_length}, but its GPT-2 has {positions} positions; lower max_new_tokens "
                "in generation_config.json"
            )
        features, record = folder / "training_features.json", folder / "training.json"
        statistics = _read_json(features) if features.exists() else None
        training = _read_json(record) if record.exists() else None
        card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).exists() else None
        head, ood = None, None
        if "quality" in learned and (folder / HEAD).exists():
            width = captioner.gpt2.config.n_embd
            head = load_quality(folder, width, weights_sha256(folder))
        if "ood" in learned and (folder / OOD).exists():
            ood = load_ood(folder, captioner.config.feature_width, weights_sha256(folder))
        drafts = _read_drafts(folder / DRAFTS, vocabulary)
        return cls(
            captioner.eval(), tokenizer, generation, statistics, card, training, head, drafts, ood
        )


def read_evaluation(folder: str | Path) -> dict[str, Any] | None:
    """The figures of a checkpoint's last evaluation.

    Returns:
        None where there is no evaluation, or where it was made with other weights.

    Raises:
        Refusal: The file is damaged.
    """
    file = Path(folder) / EVALUATION
    if not file.exists():
        return None
    figures = _read_json(file, "evaluate again")
    return figures if figures.get("weights_sha256") == weights_sha256(folder) else None


def weights_sha256(folder: str | Path) -> str:
    """SHA-256 of a checkpoint's weights file, which identifies the captioner."""
    with (Path(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sizes(captioner: ClipCap, vocabulary: int, folder: Path) -> None:
    """Refuse a config whose parts contradict each other."""
    file, config, encoder = folder / "config.json", captioner.config, captioner.clip
    if not 0 <= config.end_token_id < vocabulary:
        raise Refusal(
            f"{file}: end_token_id is {config.end_token_id}; GPT-2 has {vocabulary} tokens"
        )
    if encoder is None:
        return
    shape = encoder.shape(config.mapper.feature_kind)
    if config.feature_width != shape[-1]:
        raise Refusal(
            f"{file}: feature_width is {config.feature_width}, but the encoder's features are "
            f"{shape[-1]} wide"
        )
    if config.mapper.kind == "patch" and config.mapper.prefix_length != shape[0]:
        raise Refusal(
            f"{file}: mapper.prefix_length is {config.mapper.prefix_length}, but the encoder has "
            f"{shape[0]} patches, and the patch mapper makes a vector of each"
        )
    if config.preprocessing.size != encoder.image_size:
        raise Refusal(
            f"{file}: preprocessing makes {config.preprocessing.size} pixels, the encoder takes "
            f"{encoder.image_size} (image_size)"
        )


def _load_weights(captioner: ClipCap, file: Path) -> None:
    """Load the weights; the file must hold exactly the tensors of the model."""
    try:
        weights = load_file(file)
    except FileNotFoundError:
        raise Refusal(f"{file} is missing; give a captioner's checkpoint folder") from None
    except SafetensorError as error:
        raise Refusal(f"{file} is damaged: {error}; take a fresh copy") from None
    expected = {k: v.shape for k, v in captioner.state_dict().items() if k != _TIED}
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise Refusal(
            f"{file} does not fit config.json: {len(missing)} tensors missing "
            f"(first {missing[:1]}), {len(unknown)} unknown (first {unknown[:1]})"
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise Refusal(
                f"{file}: {name} is {list(weights[name].shape)}, config.json asks for {list(shape)}"
            )
    captioner.load_state_dict(weights, strict=False)
    captioner.gpt2.tie_weights()


def _read_drafts(file: Path, vocabulary: int) -> dict[str, Tensor] | None:
    """The n-grams of a checkpoint; None if it has none."""
    if not file.exists():
        return None
    advice = "take a fresh copy, or remove the file: it only makes single captions faster"
    try:
        drafts = load_file(file)
    except SafetensorError as error:
        raise Refusal(f"{file} is damaged: {error}; {advice}") from None
    rows = len(drafts["keys"]) if "keys" in drafts else 0
    shapes = {"keys": (rows,), "following": (rows, WIDTH), "shares": (rows, WIDTH)}
    if not rows or {name: tuple(tensor.shape) for name, tensor in drafts.items()} != shapes:
        raise Refusal(f"{file} does not hold {', '.join(shapes)} of the same contexts; {advice}")
    if drafts["following"].max() >= vocabulary:
        raise Refusal(
            f"{file} has the token {drafts['following'].max()}, but the model only {vocabulary}; "
            f"{advice}"
        )
    return drafts


def _read_json(
    file: Path, advice: str = "take the file from where the folder came from"
) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text())
    except ValueError as error:
        raise Refusal(f"{file} is not JSON: {error}; {advice}") from None
    if not isinstance(fields, dict):
        raise Refusal(f"{file} holds no values by name, but a {type(fields).__name__}; {advice}")
    return fields


def _write_json(content: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")
