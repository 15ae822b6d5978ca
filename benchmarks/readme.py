"""Writes the measured figures of the pages in docs/.

`python -m benchmarks.readme` measures nothing. It reads what is kept in `benchmarks/results` and
writes the figures between the marks of

    docs/quality.md        scores (`benchmarks.heldout`)
    docs/performance.md    throughput (`benchmarks.serve`), the load test and memory of training
                           (`benchmarks.memory`)
    docs/speed.md          ours beside other systems (`benchmarks.decode`), one image at a time
                           (`benchmarks.drafts`), options (`benchmarks.options`), and the
                           format without TorchScript (`benchmarks.programs`)
    docs/serving-speed.md  what TorchServe costs (`benchmarks.serve`), and what the gateway in front
                           of it does (`benchmarks.gateway`)
    docs/training-cost.md  training beside the original's (`benchmarks.train`,
                           `benchmarks.features`, `benchmarks.quality`)
    docs/explanations.md   whether explanations point at the right place
                           (`benchmarks.explanations`)

Before, it takes over what was made on this machine by `make train` (the gates of the precisions in
`reports/metrics.json`, sample captions for `docs/scenes.png`) and by `make loadtest`
(`reports/loadtest/torchserve/summary.json`); what was not made here stays as it is kept.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from benchmarks.drafts import drafts_section
from benchmarks.explanations import explanations_section
from benchmarks.figures import write_figures
from benchmarks.gateway_figures import gateway_section
from benchmarks.machine import KINDS, RESULTS, ROOT, options_parser, results_folder, write_results
from benchmarks.options import options_section
from benchmarks.pages import Results, serving_figures, speed_figures, table
from benchmarks.programs import programs_section
from benchmarks.training_figures import training_section
from model.refusal import Refusal
from training.command import command

QUALITY, PERFORMANCE = ROOT / "docs" / "quality.md", ROOT / "docs" / "performance.md"
SPEED = ROOT / "docs" / "speed.md"
EXPLANATIONS = ROOT / "docs" / "explanations.md"
SERVING, TRAINING = ROOT / "docs" / "serving-speed.md", ROOT / "docs" / "training-cost.md"
#: Images shown, and how many of the test split are passed over between two.
SHOWN, STRIDE = 4, 37


def take_over() -> None:
    """Keep what the pipeline and the load test left on this machine."""
    metrics = ROOT / "reports" / "metrics.json"
    if metrics.is_file() and (gates := json.loads(metrics.read_text()).get("precisions")):
        kept = {"precisions": gates}
        write_results(results_folder() / "gate.json", "python -m training.evaluate", kept)
    summary = ROOT / "reports" / "loadtest" / "torchserve" / "summary.json"
    if summary.is_file():
        load = json.loads(summary.read_text())
        parts = (dict, list)  # figures of stages, kinds and clients are not shown
        kept = {n: value for n, value in load["figures"].items() if not isinstance(value, parts)}
        kept["users"] = load["users"]
        size = (ROOT / "model_store" / "clipcap.mar").stat().st_size
        kept["archive_mb"] = round(size / 1e6, 1)
        write_results(RESULTS / "load.json", "make loadtest", kept)


def read_results() -> Results:
    """The results of every kind of processor, the fastest first.

    Raises:
        Refusal: There are none of a benchmark that the pages show.
    """
    folders = {each.name for each in RESULTS.iterdir() if each.is_dir()}
    found = {
        kind: {file.stem: json.loads(file.read_text()) for file in (RESULTS / kind).glob("*.json")}
        for kind in [*(kind for kind in KINDS if kind in folders), *sorted(folders - {*KINDS})]
    }
    for name in ("decode", "serve"):
        if not any(name in files for files in found.values()):
            raise Refusal(f"{RESULTS} has no KIND/{name}.json; run python -m benchmarks.{name}")
    return found


def quality_figures(scenes: Mapping[str, Any]) -> str:
    """What stands between the marks of `docs/quality.md`, from what `benchmarks.heldout` kept."""
    scores = {
        "CIDEr": "{CIDEr:.2f}",
        "… of one human caption against the other four": "{human_CIDEr:.2f}",
        "… of ours against four captions": "{CIDEr_fewer_references:.2f}",
        "BLEU-4": "{BLEU_4:.2f}",
        "METEOR": "{METEOR:.2f}",
        "things and colours: precision / recall": "{precision:.1%} / {recall:.1%}",
        "sizes: precision / recall": "{size_precision:.1%} / {size_recall:.1%}",
        "relations: precision / recall": "{relation_precision:.1%} / {relation_recall:.1%}",
        "weather: precision / recall": "{weather_precision:.1%} / {weather_recall:.1%}",
        "the true one of two relations preferred": "{choice:.1%}",
        "captions with nothing false in them": "{faultless:.1%}",
        "different sentence moulds in 1,000 captions": "{moulds:.1%}",
    }
    # A captioner that has not learned its quality has no such figures.
    if all("quality_AUROC" in own for own in scenes["splits"].values()):
        scores |= {
            "a right caption has the higher `quality` than a wrong one": "{quality_AUROC:.1%}",
            "… the higher `confidence`": "{confidence_AUROC:.1%}",
        }
    rows = [
        {"name": name, **{split: cell.format_map(own) for split, own in scenes["splits"].items()}}
        for name, cell in scores.items()
    ]
    columns = {"default captioner": "{name}", "test": "{test}"}
    columns["unseen combinations"] = "{compositional}"
    lines = [
        table(columns, rows, "---"),
        "",
        "Precision: of what the captions state, how much is in the picture. Recall: of what is in "
        "the picture, how much they state. Preferred: of a reference and the same with its "
        "relation turned round (left / right, in front / behind, above / below), the captioner "
        "finds the true one more likely. Mould: a caption without the things, colours, counts, "
        "sizes, relations, places, times and weathers that it states.",
        f"Measured with `{scenes['command']}` on scenes of seed {scenes['seed']}, "
        f"{_where(scenes)}.",
    ]
    return "\n".join(lines)


def performance_figures(
    load: Mapping[str, Any], memory: Mapping[str, Any], served: Mapping[str, Any]
) -> str:
    """What stands between the marks of `docs/performance.md`.

    Args:
        load: `load.json`, of `make loadtest`.
        memory: `memory.json`, of `benchmarks.memory`.
        served: Kind of processor -> `serve.json`.
    """
    throughput = {
        "TorchServe over REST": "{where}",
        "precision": "{precision}",
        "images/s": "{speed[images_per_second][REST]:.1f}",
        "one image": "{speed[alone_ms][REST]:.0f} ms",
    }
    servers = [{**each, "where": _where(each)} for each in served.values()]
    least, most = memory["runs"][0], memory["runs"][-1]
    lines = [
        "Throughput at the published sizes (ViT-B/32, GPT-2 124M; 5 beams, 20 tokens a caption), "
        "with `python -m benchmarks.serve`:",
        "",
        table(throughput, servers, "---"),
        "",
        f"The default captioner (archive of {load['archive_mb']} MB) under `{load['command']}`, "
        f"with {load['users']} clients, bad requests mixed in: {load['requests_per_second']:.0f} "
        f"requests/s, median {load['median_ms']:.0f} ms, p95 {load['p95_ms']:.0f} ms, "
        f"{load['wrong_replies']} wrong replies ({_where(load)}).",
        "",
        f"Training on {most['captions']:,} captions ({most['caption_mb']:.0f} MB of text) takes "
        f"{most['peak_mb']:.0f} MB of memory at its peak, on {least['captions']:,} captions "
        f"{least['peak_mb']:.0f} MB. With the same number of training batches, the larger set "
        f"takes {most['cpu_seconds'] - least['cpu_seconds']:.0f} s more on one core "
        f"(`{memory['command']}`, {_where(memory)}).",
    ]
    return "\n".join(lines)


def _where(results: Mapping[str, Any]) -> str:
    """Machine and date of some results."""
    return f"{results['cores']} cores, {results['processor']}, {results['date']}"


def draw_sample(file: Path) -> None:
    """A row of test images with the captions that the captioner gave them."""
    lines = (ROOT / "reports" / "captions.jsonl").read_text().splitlines()
    captions = [row for row in map(json.loads, lines) if row["split"] == "test"]
    chosen = captions[STRIDE :: STRIDE * 2][:SHOWN]
    coco = json.loads((ROOT / "data" / "scenes" / "captions.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    figure = Figure(figsize=(3.1 * SHOWN, 4.1), layout="constrained", dpi=110)
    for axes, row in zip(figure.subplots(1, SHOWN), chosen, strict=True):
        picture = Image.open(ROOT / "data" / "scenes" / "images" / names[row["image_id"]])
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        axes.imshow(picture.convert("RGB").crop((left, top, left + side, top + side)))
        axes.set_xlabel(textwrap.fill(row["caption"], 38), fontsize=10, linespacing=1.4)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.savefig(file, facecolor="white")


def pages() -> dict[Path, str]:
    """Page -> what stands between its marks, from what is kept."""
    measured = read_results()
    decoded = {kind: files for kind, files in measured.items() if "decode" in files}
    served = {kind: files["serve"] for kind, files in measured.items() if "serve" in files}
    gateways = {kind: files["gateway"] for kind, files in measured.items() if "gateway" in files}
    serving = [serving_figures(served), *([gateway_section(gateways)] if gateways else [])]
    scenes, load, memory = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("scenes", "load", "memory")
    )
    quality = RESULTS / "quality.json"
    kept = json.loads(quality.read_text()) if quality.is_file() else None
    explanations = json.loads((RESULTS / "explanations.json").read_text())
    return {
        QUALITY: quality_figures(scenes),
        PERFORMANCE: performance_figures(load, memory, served),
        EXPLANATIONS: explanations_section(explanations),
        SPEED: "\n\n".join([speed_figures(decoded), *_of_one_and_of_options(measured)]),
        SERVING: "\n\n".join(serving),
        TRAINING: training_section(measured, kept),
    }


def _of_one_and_of_options(measured: Results) -> list[str]:
    """The sections on one image, on options and on formats, as far as they were measured."""
    sections = []
    known = {"drafts": drafts_section, "options": options_section, "programs": programs_section}
    for name, section in known.items():
        if kept := {kind: files[name] for kind, files in measured.items() if name in files}:
            sections.append(section(kept))
    return sections


def main() -> None:
    """Take over what is new, and write the pages."""
    options_parser(__doc__).parse_args()
    take_over()
    for page, figures in pages().items():
        write_figures(page, "benchmarks.readme", figures)
    if (ROOT / "reports" / "captions.jsonl").is_file():
        draw_sample(ROOT / "docs" / "scenes.png")


if __name__ == "__main__":
    command(main)
