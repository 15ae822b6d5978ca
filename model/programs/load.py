"""Loads a folder of programs as an artifact, or either kind of artifact.

The programs are graphs of torch's own operators, so this needs torch only, and the search, which is
the Python code of `model.network.search`. The linear layers are packed for this processor now, not
when exporting.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from model.artifact import Artifact, load_ood, read_info
from model.layers.int8_linear import Int8Linear
from model.layers.memory import release_free_memory
from model.layers.output_layer import NarrowOutputLayer, OutputLayer
from model.layers.precision import onednn_available, unsupported_reason
from model.network.drafts import Drafts
from model.network.quality import QualityHead
from model.network.search import Search
from model.network.served import ServedCaptioner
from model.network.spelling import Spelling
from model.programs.modules import ProgramDecoder, ProgramHead
from model.programs.packing import linear_of, pack_program
from model.refusal import Refusal
from model.tokenizer import load_tokenizer

#: The fields of `captioner.json` that are read here, beside those of every artifact.
_REQUIRED = {"programs", "decoder", "normalize_feature", "vocabulary"}
#: Precision -> type of the decoder's cache.
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
#: Programs that every captioner has.
_PARTS = ("encoder.pt2", "mapper.pt2", "decoder.pt2", "output.pt2", "tables.pt")


def load_artifact(folder: str | Path) -> Artifact:
    """The captioner of an artifact folder, whether it was exported to TorchScript or as programs.

    Raises:
        Refusal: A file is missing or damaged, or they are not of one export.
    """
    is_programs = (Path(folder) / "programs").is_dir()
    return load_programs(folder) if is_programs else Artifact.load(folder)


@torch.no_grad()
def load_programs(folder: str | Path) -> Artifact:
    """Read a folder that `model.programs.export` wrote.

    Raises:
        Refusal: A file is missing or damaged, they are not of one export, or this processor does
            not support the precision.
    """
    folder = Path(folder)
    for name in ("captioner.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise Refusal(f"{folder / name} is missing; export the captioner again")
    info = read_info(folder / "captioner.json", _REQUIRED)
    if info["precision"] not in _DTYPES:
        raise Refusal(
            f"{folder} says that it was exported in {info['precision']}, which programs cannot "
            "hold; export it with export.precision=fp32"
        )
    if reason := unsupported_reason(info["precision"]):
        raise Refusal(
            f"{folder} was exported in {info['precision']}: {reason}; export it with "
            "export.precision=fp32"
        )
    programs = folder / "programs"
    _check(programs, info["programs"])
    tables = torch.load(programs / "tables.pt", weights_only=True)
    drafts = None
    if tables["drafts"] is not None:
        drafts = Drafts(**tables["drafts"], vocabulary=info["vocabulary"])
    quality = None
    if tables["quality"] is not None:
        inner, inputs = tables["quality"]["first.weight"].shape
        quality = QualityHead((inputs - 1) // 2, inner).eval()
        quality.load_state_dict(tables["quality"])
    decoder: Any = _decoder(programs, info)
    spelling = Spelling(**tables["spelling"])
    search = Search(decoder, info["end_token_id"], spelling, drafts, quality)
    encoder, mapper = _program(programs / "encoder.pt2"), _program(programs / "mapper.pt2")
    if onednn_available():
        pack_program(encoder)
        pack_program(mapper)
    module = ServedCaptioner(encoder, mapper, search, info["normalize_feature"])
    release_free_memory()
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    return Artifact(module, info, tokenizer, ood_score=load_ood(folder, info))


def _check(programs: Path, expected: dict[str, str]) -> None:
    """Refuse files that are not those of the export."""
    for name in sorted({*_PARTS, *expected}):
        if not (programs / name).is_file():
            raise Refusal(f"{programs / name} is missing; export the captioner again")
        with (programs / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != (known := expected.get(name, "")):
            raise Refusal(
                f"{programs / name} is not the file captioner.json was written for (SHA-256 "
                f"{digest[:12]}…, expected {known[:12]}…); export it again"
            )


def _decoder(programs: Path, info: dict[str, Any]) -> ProgramDecoder:
    """The decoder with its output layer, packed where this processor can."""
    reading, logits = _program(programs / "decoder.pt2"), _program(programs / "output.pt2")
    (node,) = (each for each in logits.graph.nodes if each.target is torch.ops.aten.linear.default)
    linear = linear_of(logits, node)
    wte = nn.Embedding.from_pretrained(linear.weight.detach())
    output: nn.Module
    if info["precision"] == "fp32":
        output = OutputLayer(wte)
        output.head = ProgramHead(logits)  # type: ignore[assignment]
    else:
        head = Int8Linear(linear)
        head.weight = torch.empty([0], dtype=torch.int8)
        output = NarrowOutputLayer(head, wte)
    if onednn_available():
        pack_program(reading)
        if info["precision"] == "fp32":
            pack_program(logits)
    dtype = _DTYPES[info["precision"]]
    return ProgramDecoder(reading, wte, output, **info["decoder"], dtype=dtype)


def _program(file: Path) -> GraphModule:
    """A program as a module that can be called, without checks of what the search gives it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = torch.export.load(file).module(check_guards=False)
    for node in list(module.graph.nodes):  # each costs an operator's call
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.recompile()
    return module
