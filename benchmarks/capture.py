"""What capturing costs the replies of the handler.

`python -m benchmarks.capture [--batches 60]` runs the handler in this process on batches of eight
drawn scenes, in turns with capturing and without, so that both have the same share of the machine.
Files are written all the time, far more often than by default. It prints and writes the median time
of a batch of both, and their ratio, into `benchmarks/results/drift/capture.json`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from benchmarks.drawn_scenes import draw
from benchmarks.figures import measured, write_figures
from benchmarks.machine import RESULTS, ROOT, command_line, options_parser, write_results
from handler import caption_handler
from handler.caption_handler import CaptionHandler
from model.export import export_torchscript
from model.refusal import Refusal
from training.command import command

#: Pictures of a batch, and rows of a file: a file is written with every fourth batch.
PICTURES, ROWS = 8, 32
SEED = 20261203


def context_of(folder: Path, capture: Mapping[str, Any]) -> Context:
    """TorchServe's context around an artifact folder."""
    config = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    config["handler"]["capture"] = dict(capture)
    metrics = MetricsCacheYamlImpl(str(ROOT / "handler" / "metrics.yaml"))
    metrics.initialize_cache()
    manifest = {"model": {"modelVersion": "1.0"}}
    context = Context("clipcap", str(folder), manifest, 8, None, "0.12.0", True, metrics, config)
    context.request_processor = [RequestProcessor({"Host": "x"}) for _ in range(PICTURES)]
    return context


def measure(checkpoint: Path, work: Path, batches: int) -> dict[str, Any]:
    """Median seconds of a batch with and without capturing, in turns."""
    threads = torch.get_num_threads()
    export_torchscript(checkpoint, work / "artifact")
    scenes = draw(work / "scenes", SEED, test=PICTURES)
    rows = [{"body": scenes.files[i].read_bytes()} for i in scenes.ids("test")]
    captures = work / "captures"
    context = context_of(work / "artifact", {"folder": str(captures), "rows_a_file": ROWS})
    caption_handler._check_origin = lambda _: None  # here the packages are not the archive's
    handler = CaptionHandler()
    handler.initialize(context)
    torch.set_num_threads(threads)
    capture = handler.capture
    assert capture is not None
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * batches + 4):
        on = turn % 2 == 0
        handler.capture = capture if on else None
        begin = time.perf_counter()
        handler.handle(rows, context)
        if turn >= 4:  # the first ones are slower
            times[on].append(time.perf_counter() - begin)
    capture.close()
    files = list(captures.glob("capture-*.parquet"))
    size = sum(file.stat().st_size for file in files)
    medians = {on: statistics.median(own) for on, own in times.items()}
    written = PICTURES * (batches + 2)
    return {
        "batches": batches,
        "pictures_a_batch": PICTURES,
        "rows_a_file": ROWS,
        "ms_with": round(1000 * medians[True], 2),
        "ms_without": round(1000 * medians[False], 2),
        "ratio": round(medians[True] / medians[False], 3),
        "ratio_of_fastest_tenth": round(_fast(times[True]) / _fast(times[False]), 3),
        "files": len(files),
        "bytes_a_row": round(size / written),
    }


def _fast(times: list[float]) -> float:
    """Mean of the fastest tenth: what other programs take is not in it."""
    return statistics.mean(sorted(times)[: max(1, len(times) // 10)])


def report(written: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    return (
        f"{measured(written)} Batches of {written['pictures_a_batch']} took "
        f"{written['ms_with']:.1f} ms (the median of {written['batches']}) with a file for every "
        f"{written['rows_a_file']} rows, and {written['ms_without']:.1f} ms without capturing: "
        f"{written['ratio']:.3f} times as long."
    )


def main() -> None:
    """Measure, write the results and print them."""
    parser = options_parser(__doc__)
    parser.add_argument("--batches", type=int, default=60, help="of each kind")
    shipped = ROOT / "training" / "pretrained" / "scenes-captioner"
    parser.add_argument("--checkpoint", type=Path, default=shipped)
    parser.add_argument("--out", type=Path, default=RESULTS / "drift", help="folder of the results")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page that gets the figures")
    options = parser.parse_args()
    if options.batches < 1:
        raise Refusal(f"--batches is {options.batches}; it must be 1 or more")
    with tempfile.TemporaryDirectory() as work:
        found = measure(options.checkpoint, Path(work), options.batches)
    written = write_results(options.out / "capture.json", command_line("benchmarks.capture"), found)
    print(report(written))
    if options.page:
        write_figures(options.page, "benchmarks.capture", report(written))


if __name__ == "__main__":
    command(main)
