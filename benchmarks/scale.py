"""Bulk captioning on Ray beside the same captioner in one process, and its memory over a long run.

    python -m benchmarks.scale rates --artifact build/artifact --pictures data/scenes/images
    python -m benchmarks.scale memory --artifact build/artifact --pictures photos --rows 1000000

`rates` repeats rounds of three in turn, so that whatever else the machine does falls on all of
them: this process alone, which decodes and captions with all threads; the job with one worker of as
many threads; and the job with one and two workers of one thread. A job's steady rate counts from
its first block, when processes have started and the captioner is loaded, to its last one.

`memory` captions a table of so many rows, which name the same few files again and again, and reads
the memory of all processes of the job every few seconds (Linux): `slope_mb` is what a million more
rows would add, from the second half of the run.

Both print a table and write `benchmarks/results/KIND/scale-rates.json` or `scale-memory.json`, the
latter with a plot beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import (
    ROOT,
    command_line,
    options_parser,
    resident,
    results_folder,
    write_results,
)
from benchmarks.pages import table
from handler.caption_settings import cores
from handler.requests.caption_request import Extras
from model.image.decode import MAX_PIXELS
from model.programs.load import load_artifact
from scale import cluster
from scale.command_line import BLOCK_ROWS, IMAGES_PER_PASS
from scale.inputs.entry import Entry
from scale.inputs.listing import Listing
from scale.inputs.parquet_rows import Columns
from scale.inputs.reading import PictureReader
from scale.output.store import Store
from scale.plan import ListedInput
from scale.stages.blocks import DecodedBlock
from scale.stages.captioning import Captioner
from scale.stages.decoding import decode_block

SECONDS_APART = 2.0


def repeated(pictures: str, count: int) -> list[Entry]:
    """So many pictures with ids of their own, from the files of a folder again and again."""
    files = list(Listing([pictures], Columns()))
    cycled = itertools.islice(itertools.cycle(files), count)
    return [Entry(f"{n}", each.place) for n, each in enumerate(cycled)]


def alone(
    captioner: Captioner, threads: int, entries: list[Entry], block_rows: int
) -> dict[str, float]:
    """Pictures a second in this process: the model alone, and with decoding."""
    from handler.parallel_passes import ParallelPasses

    passes, preprocessing = ParallelPasses(threads), captioner.artifact.preprocessing
    decoding = captioning = 0.0
    with PictureReader(Columns()) as reader:
        for start in range(0, len(entries), block_rows):
            begin = time.perf_counter()
            block = entries[start : start + block_rows]
            shares = [block[part::threads] for part in range(threads)]
            decoded = passes.map(
                lambda share: decode_block(0, share, reader, preprocessing, MAX_PIXELS), shares
            )
            middle = time.perf_counter()
            for share in decoded:
                captioner.caption(DecodedBlock.of_row(share.to_row(), preprocessing.size))
            decoding += middle - begin
            captioning += time.perf_counter() - middle
    count = len(entries)
    return {"model": count / captioning, "with_decoding": count / (decoding + captioning)}


def job(work: Any, sizes: Any, blocks: int, block_rows: int) -> dict[str, float]:
    """Pictures a second of a job: in its steady state, and with its start."""
    from scale.pipeline import run_blocks

    begin, times = time.perf_counter(), []
    for _ in run_blocks(work, sizes, range(blocks)):
        times.append(time.perf_counter())
    steady = (blocks - 1) * block_rows / (times[-1] - times[0])
    return {"steady": steady, "total": blocks * block_rows / (times[-1] - begin)}


def rates(given: argparse.Namespace) -> None:
    """Measure, print and write the rates."""
    artifact, threads = load_artifact(given.artifact), cores()
    entries = repeated(given.pictures, given.blocks * given.block_rows)
    captioner = Captioner(artifact, artifact.defaults, Extras(), threads, IMAGES_PER_PASS)
    found: dict[str, list[float]] = {}

    def note(name: str, values: dict[str, float]) -> None:
        for kind, value in values.items():
            found.setdefault(f"{name} {kind}", []).append(value)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clipcap-"))
        store = Store(folder)
        stack.enter_context(ListedInput(entries)).write_plan(store, given.block_rows)
        size = 3 * artifact.preprocessing.size**2 * given.block_rows
        memory = cluster.store_bytes(size, given.artifact)
        # As this process, with which it is compared.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own name
        stack.enter_context(cluster.connected(None, memory))
        from scale.pipeline import Sizes, Work

        work = Work(
            folder, given.artifact, artifact.preprocessing, artifact.defaults, Extras(), Columns(),
            MAX_PIXELS, "benchmark",
        )  # fmt: skip
        all_threads = Sizes(1, threads, max(1, threads // 2), IMAGES_PER_PASS)
        one = Sizes(1, 1, 1, IMAGES_PER_PASS)
        two = Sizes(2, 1, 1, IMAGES_PER_PASS)
        for number in range(given.rounds):
            note("alone", alone(captioner, threads, entries, given.block_rows))
            note("job", job(work, all_threads, given.blocks, given.block_rows))
            note("1 worker", job(work, one, given.blocks, given.block_rows))
            note("2 workers", job(work, two, given.blocks, given.block_rows))
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    ratios = {
        "job / alone with decoding": _ratio(found["job steady"], found["alone with_decoding"]),
        "job / model alone": _ratio(found["job steady"], found["alone model"]),
        "2 workers / 1 worker": _ratio(found["2 workers steady"], found["1 worker steady"]),
    }
    best = {name: max(values) for name, values in found.items()}
    results = {"pictures": len(entries), "best": best, "all": found, "ratios": ratios}
    write_results(results_folder() / "scale-rates.json", command_line("benchmarks.scale"), results)
    print(table({"": "{name}", "pictures/s": "{rate:.1f}"},
                [{"name": name, "rate": rate} for name, rate in best.items()]))  # fmt: skip
    print(table({"ratio": "{name}", "median of the rounds": "{ratio:.3f}"},
                [{"name": name, "ratio": ratio} for name, ratio in ratios.items()]))  # fmt: skip


def _ratio(first: list[float], second: list[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def memory(given: argparse.Namespace) -> None:
    """Measure, print, plot and write the memory of a long run."""
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="clipcap-") as folder:
        source, out = Path(folder) / "rows.parquet", Path(folder) / "out"
        _write_rows(source, given.pictures, given.rows)
        words = [sys.executable, "-m", "scale.caption", source, "--out", out, "--num-beams", "1",
                 "--max-tokens", "1", "--artifact", given.artifact, "--block-rows",
                 str(given.block_rows)]  # fmt: skip
        begin = time.perf_counter()
        with (Path(folder) / "log").open("w+") as log:
            run = subprocess.Popen([*map(str, words)], cwd=ROOT, stdout=log, stderr=log)
            while run.poll() is None:
                if sample := _memory_of(run.pid):
                    done = _written(out, given.block_rows)
                    seconds = time.perf_counter() - begin
                    samples.append({"seconds": seconds, "rows": done, **sample})
                time.sleep(SECONDS_APART)
            log.seek(0)
            print(log.read(), file=sys.stderr)
        if run.returncode:
            raise SystemExit("error: the job failed")
    working = [each for each in samples if each["rows"]]
    half = working[len(working) // 2 :]
    slopes = {name: _slope(half, name) for name in ("driver", "workers", "ray")}
    peaks = {name: max(each[name] for each in working) for name in slopes}
    results = {"rows": given.rows, "peak_mb": peaks, "slope_mb": slopes, "samples": samples}
    file = results_folder() / "scale-memory.json"
    write_results(file, command_line("benchmarks.scale"), results)
    _plot(samples, file.with_suffix(".png"))
    lines = [{"name": name, "peak": peaks[name], "slope": slopes[name]} for name in slopes]
    columns = {"processes": "{name}", "peak, MB": "{peak:.0f}",
               "MB for a million more rows": "{slope:.0f}"}  # fmt: skip
    print(table(columns, lines))


def _write_rows(file: Path, pictures: str, count: int) -> None:
    """A table of so many rows with ids of their own, which name the same few files."""
    places = [each.place for each in Listing([pictures], Columns())]
    schema = pa.schema([("id", pa.string()), ("path", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, count, 65_536):
            numbers = range(start, min(start + 65_536, count))
            columns = [[str(n) for n in numbers], [places[n % len(places)] for n in numbers]]
            writer.write_table(pa.table(columns, schema))


def _written(out: Path, block_rows: int) -> int:
    """Rows that are written, from the names of the files."""
    from scale.plan import PART_BLOCKS

    parts = len(list(out.glob("part-*.parquet")))
    blocks = len(list(out.glob("_blocks/[0-9]*.parquet")))
    return (parts * PART_BLOCKS + blocks) * block_rows


def _memory_of(driver: int) -> dict[str, float]:
    """Anonymous memory in MB of the driver, of Ray's own processes and of the two stages."""
    found = {"driver": 0.0, "workers": 0.0, "ray": 0.0}
    with contextlib.suppress(psutil.NoSuchProcess, OSError, KeyError):
        found["driver"] = resident(driver)["anonymous"]
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, OSError, KeyError):
                kind = "workers" if "MapWorker" in " ".join(process.cmdline()) else "ray"
                found[kind] += resident(process.pid)["anonymous"]
    return found if found["workers"] else {}


def _slope(samples: list[dict[str, float]], name: str) -> float:
    """MB for a million rows, by least squares."""
    rows = np.array([each["rows"] for each in samples]) / 1e6
    return float(np.polyfit(rows, [each[name] for each in samples], 1)[0])


def _plot(samples: list[dict[str, float]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name in ("driver", "workers", "ray"):
        axes.plot([each["rows"] for each in samples], [each[name] for each in samples], label=name)
    axes.set_xlabel("rows written")
    axes.set_ylabel("anonymous memory, MB")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(file, dpi=120, bbox_inches="tight")


def main() -> None:
    """Measure what the command line asks for."""
    parser = options_parser(__doc__)
    parser.add_argument("what", choices=["rates", "memory"])
    parser.add_argument("--artifact", type=Path, required=True, help="an exported captioner")
    parser.add_argument("--pictures", required=True, help="a folder of pictures")
    parser.add_argument("--rounds", type=int, default=3, help="of rates")
    parser.add_argument("--blocks", type=int, default=8, help="of a round of rates")
    parser.add_argument("--block-rows", type=int, default=BLOCK_ROWS, help="pictures of a block")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of memory")
    given = parser.parse_args()
    (rates if given.what == "rates" else memory)(given)


if __name__ == "__main__":
    main()
