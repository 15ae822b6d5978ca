"""Published image encoders and GPT-2s by name, each exported at its real size with random weights.

`python -m benchmarks.encoder_names [--only NAME ...]` does for every name of
`benchmarks.encoder_shapes` what a user does with its folder: it loads the encoder, saves a
captioner of it, exports that by the function of `training.export`, which compares the export with
Hugging Face's modules, and captions `docs/sample.jpg` with the exported file. For every name of
`benchmarks.gpt2_names` it trains a step first. A name that would take more than `--memory` GB is
not tried, and the table says so.

The results go into `benchmarks/results/encoders.json`, a row a name; a name that is tried again
replaces its row. `--out` (docs/encoders.md) gets the tables of all rows between its marks.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import GPT2Config

from benchmarks.encoder_shapes import NAMES, Named, save_encoder
from benchmarks.figures import check_marks, write_figures
from benchmarks.gpt2_names import GPT2S, NamedGpt2, train_gpt2
from benchmarks.machine import RESULTS, ROOT, OwnProcess, options_parser, resident, write_results
from benchmarks.pages import table
from benchmarks.real_size import byte_pair_tokenizer
from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.image.decode import load_image
from model.image.preprocessing import to_pixels
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.pretrained.encoder_folder import load_encoder
from model.refusal import Refusal
from training.command import command
from training.config import Export
from training.exporting.export import export

PAGE = ROOT / "docs" / "encoders.md"
SAMPLE = ROOT / "docs" / "sample.jpg"
#: An export takes three to five times the weights in float32 (more patches, more), beside torch
#: and transformers.
COPIES, BASE_GB = 4.0, 0.7
#: The GPT-2 of the captioners has six layers, as distilgpt2 has them; the captions are short.
GPT2, TOKENS = {"n_layer": 6}, 12
#: Weights of that GPT-2 and of a mapper.
OTHER_WEIGHTS = 115e6


def try_encoder(named: Named, work: Path) -> dict[str, Any]:
    """Load, save, export and caption with an encoder of random weights.

    Args:
        named: Which one.
        work: An empty folder; it is filled with up to three times the size of the weights.

    Returns:
        `parameters` of the image tower in millions, `feature` width, `patches`, `export_seconds`,
        `artifact_mb`, `caption_seconds`, `peak_gb` of memory.
    """
    save_encoder(named, work / "encoder")
    encoder, preprocessing = load_encoder(str(work / "encoder"))
    gpt2 = GPT2Config(**GPT2)
    end = gpt2.vocab_size - 1
    config = CaptionerConfig(
        clip=encoder.config,
        gpt2={**gpt2.to_dict(), "bos_token_id": end, "eos_token_id": end},
        mapper=MapperConfig(kind="mlp", prefix_length=10),
        preprocessing=preprocessing,
        feature_width=encoder.shape("pooled")[0],
        normalize_feature=True,
        end_token_id=end,
    )
    row = {
        "parameters": round(sum(each.numel() for each in encoder.parameters()) / 1e6, 1),
        "feature": encoder.shape("pooled")[0],
        "patches": encoder.shape("patches")[0],
    }
    captioner = ClipCap(config).eval()
    captioner.clip = encoder.eval()
    options = GenerationOptions(num_beams=2, max_tokens=TOKENS, min_tokens=TOKENS)
    tokenizer = byte_pair_tokenizer(gpt2.vocab_size)
    Checkpoint(captioner, tokenizer, options).save(work / "checkpoint")
    del captioner, encoder
    return {**row, **try_export(work)}


def try_gpt2(named: NamedGpt2, work: Path) -> dict[str, Any]:
    """Train a captioner of a GPT-2 of random weights for one step, export it, caption with it.

    Args:
        named: Which one.
        work: An empty folder; it is filled with up to seven times the size of the weights.

    Returns:
        As `try_encoder`, but `parameters` are those of GPT-2, and there are no features.
    """
    train_gpt2(named, work, TOKENS)
    gpt2 = Checkpoint.load(work / "checkpoint").captioner.gpt2
    parameters = round(sum(each.numel() for each in gpt2.parameters()) / 1e6, 1)
    del gpt2
    return {"parameters": parameters, **try_export(work)}


def try_export(work: Path) -> dict[str, Any]:
    """Export the checkpoint of a folder, and caption with the artifact.

    Raises:
        Refusal: The export differs from the checkpoint.
    """
    begin = time.perf_counter()
    export(Export(str(work / "checkpoint"), str(work / "artifact"), "fp32", "torchscript", None))
    exported = time.perf_counter() - begin
    artifact = Artifact.load(work / "artifact")
    begin = time.perf_counter()
    pixels = to_pixels(load_image(SAMPLE.read_bytes()), artifact.preprocessing)[None]
    caption = artifact.caption(artifact.encode(pixels), artifact.defaults)[0][0]
    # The text of random tokens may be blank.
    if caption.tokens != TOKENS or not math.isfinite(caption.log_prob):
        raise Refusal(f"the artifact wrote {caption.tokens} tokens instead of {TOKENS}")
    return {
        "export_seconds": round(exported, 1),
        "artifact_mb": round((work / "artifact" / "captioner.pt").stat().st_size / 1e6),
        "caption_seconds": round(time.perf_counter() - begin, 2),
        "peak_gb": round(resident(os.getpid())["peak"] / 1e3, 1),
    }


def why_not(named: Named | NamedGpt2, memory: float) -> str | None:
    """Why a name is not tried on this machine, or None.

    Args:
        named: The encoder or GPT-2.
        memory: GB that it may take.
    """
    needed = needed_gb(named) if isinstance(named, Named) else named.needed_gb
    if needed > memory:
        return f"not tried: takes about {needed:.0f} GB"
    open_clip = isinstance(named, Named) and named.kind == "open_clip"
    if open_clip and importlib.util.find_spec("open_clip") is None:
        return "not tried: needs the extra `openclip`"
    return None


def needed_gb(named: Named) -> float:
    """About the memory that `try_encoder` takes, in GB."""
    if named.kind == "open_clip":
        width = named.sizes[0]
        weights = 40e6 * (width / 64) ** 2 * sum(named.sizes[1:]) / 16
    else:
        width, layers, _, inner = named.sizes
        weights = layers * (4 * width**2 + 2 * width * inner) + 3 * named.patch**2 * width
    return BASE_GB + COPIES * 4 * (weights + OTHER_WEIGHTS) / 1e9


def tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Both tables in Markdown."""
    columns = {"encoder": "`{name}`", "parameters": "{parameters}", "picture": "{image}"}
    columns |= {"feature": "{feature}", "patches": "{patches}", "artifact": "{artifact_mb}"}
    columns |= {"export": "{export}", "caption": "{caption}", "memory": "{memory}"}
    rows = [
        {"name": named.name, "image": f"{named.image} px", **_cells(results.get(named.name, {}))}
        for named in NAMES
    ]
    more = {"GPT-2": "`{name}`", "layers x width": "{sizes}", "trained": "{tuning}"}
    more |= {key: columns[key] for key in ("parameters", "artifact", "export", "caption", "memory")}
    others = [
        {
            "name": named.name,
            "sizes": f"{named.layers} x {named.width}",
            "tuning": named.tuning,
            **_cells(results.get(named.name, {})),
        }
        for named in GPT2S
    ]
    return f"{table(columns, rows)}\n\n{table(more, others)}"


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a row; of a name that was not tried, why not."""
    names = ("parameters", "feature", "patches", "artifact_mb", "export", "caption", "memory")
    if "peak_gb" not in row:
        return {**dict.fromkeys(names, ""), "parameters": row.get("not_tried", "not tried")}
    return {
        "parameters": f"{row['parameters']:.0f} M",
        "feature": str(row.get("feature", "")),
        "patches": str(row.get("patches", "")),
        "artifact_mb": f"{row['artifact_mb']:,} MB",
        "export": f"{row['export_seconds']:.0f} s",
        "caption": f"{row['caption_seconds']:.1f} s",
        "memory": f"{row['peak_gb']:.1f} GB",
    }


def measure(named: Named | NamedGpt2, memory: float) -> dict[str, Any]:
    """Try one name in a process and a folder of its own, or say why it is not tried."""
    if reason := why_not(named, memory):
        return {"not_tried": reason}
    print(f"{named.name} ...", flush=True)
    with tempfile.TemporaryDirectory() as folder, OwnProcess(int) as process:
        work = Path(folder)
        task = (
            partial(try_encoder, named, work)
            if isinstance(named, Named)
            else partial(try_gpt2, named, work)
        )
        seconds, row = process.timed(task)
    print(f"{named.name}: {row} in {seconds:.0f} s", flush=True)
    return dict(row)


def main() -> None:
    """Try the names; write the results and the page."""
    parser = options_parser(__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names, or parts of names")
    parser.add_argument("--memory", type=float, default=6.0, help="GB that a name may take")
    parser.add_argument("--results", type=Path, default=RESULTS / "encoders.json")
    parser.add_argument("--out", type=Path, default=PAGE, help="page with the two marks")
    options = parser.parse_args()
    check_marks(options.out, "benchmarks.encoder_names")
    chosen = [
        named
        for named in (*NAMES, *GPT2S)
        if any(part in named.name for part in options.only or [""])
    ]
    if not chosen:
        raise Refusal(f"--only {' '.join(options.only)} is part of no name; see {options.out}")
    kept = json.loads(options.results.read_text()) if options.results.exists() else {}
    rows = kept.get("names", {})
    for named in chosen:
        rows[named.name] = measure(named, options.memory)
        write_results(options.results, "python -m benchmarks.encoder_names", {"names": rows})
        write_figures(options.out, "benchmarks.encoder_names", tables(rows))


if __name__ == "__main__":
    command(main)
