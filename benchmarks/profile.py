"""Where the time of training, features and serving goes, operator by operator.

`python -m benchmarks.profile` runs each of them for some seconds under torch's profiler and writes
into `reports/profile/`:

    NAME.txt             the parts of the run, and its ten dearest operators
    NAME.trace.json.gz   every call on a time line; chrome://tracing or ui.perfetto.dev opens it

`training` trains the default captioner on drawn scenes, `features` encodes their pictures, and
`serving` captions a batch as a worker of TorchServe does, with the artifact of the captioner that
ships. `docs/profiling.md` says what was found.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytorch_lightning as pl
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.machine import ROOT, command_line, options_parser, processor, served_precision
from benchmarks.pages import table
from handler.caption_batch import caption_images
from handler.caption_settings import cores
from handler.parallel_passes import ParallelPasses
from handler.request_result import ImageResult
from model.artifact import Artifact
from model.export import export_torchscript
from model.image.decode import OpenedImage, load_image
from model.image.preprocessing import to_pixels
from model.refusal import Refusal
from training.captioner.data import TokenizedCaptions
from training.captioner.module import CaptionerModule
from training.captioner.train import train
from training.command import command
from training.config import Config, load_config
from training.data.dataset import CaptionDataset
from training.encoding import encode_dataset
from training.encoding.encoder import Encoder
from training.prepare import prepare

OUT = ROOT / "reports" / "profile"
SHIPPED = ROOT / "training" / "pretrained" / "scenes-captioner"
NAMES = ("training", "features", "serving")
#: Pictures that are drawn; 80% are trained on.
PICTURES = 400
#: Optimiser steps before the profile, and in it.
WARM_UP, STEPS = 3, 8
#: Pictures of a batch of the worker, and batches in the profile.
BATCH, BATCHES = 8, 4
DEAREST = 10


class ProfileSteps(pl.Callback):
    """Profiles some optimiser steps of a training, and stops it."""

    def __init__(self, profiler: profile) -> None:
        self.profiler = profiler
        self.seconds = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin after the steps that warm up."""
        if trainer.global_step == WARM_UP:
            self.profiler.start()
            self.seconds = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End, and stop the training."""
        if trainer.global_step == WARM_UP + STEPS:
            self.seconds = time.perf_counter() - self.seconds
            self.profiler.stop()
            trainer.should_stop = True


def ranged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, as a part of the profile with this name."""

    @functools.wraps(function)
    def inside(*arguments: Any, **more: Any) -> Any:
        with record_function(name):
            return function(*arguments, **more)

    return inside


def profile_training(config: Config, profiler: profile) -> tuple[float, int]:
    """Train; returns seconds of the profile, and captions in it."""
    steps = ProfileSteps(profiler)
    with (
        part(CaptionerModule, "training_step", "forward and loss"),
        part(TokenizedCaptions, "__getitem__", "make a batch"),
        part(pl.strategies.Strategy, "backward", "backward"),
    ):
        train(config, [steps])
    return steps.seconds, STEPS * config.train.batch_size


def profile_features(config: Config, profiler: profile) -> tuple[float, int]:
    """Encode all pictures; returns seconds of the profile, and pictures in it."""
    pictures = len(CaptionDataset.load(config.features.data).files)
    begin = time.perf_counter()
    with (
        profiler,
        part(OpenedImage, "decode", "decode a picture"),
        part(encode_dataset, "to_pixels", "resize and normalise"),
        part(Encoder, "encode", "encode a batch"),
    ):
        encode_dataset.encode_dataset(config.features)
    return time.perf_counter() - begin, pictures


def profile_serving(config: Config, folder: Path, profiler: profile) -> tuple[float, int]:
    """Caption batches as a worker does; returns seconds of the profile, and pictures in it."""
    artifact_folder = folder / "artifact"
    export_torchscript(SHIPPED, artifact_folder, served_precision())
    artifact = Artifact.load(artifact_folder)
    dataset = CaptionDataset.load(config.train.data)
    files = [dataset.files[i].read_bytes() for i in list(dataset.ids("train"))[:BATCH]]
    passes = ParallelPasses(1)  # the profiler sees one thread

    def caption() -> None:
        with record_function("decode"):
            pixels = [
                to_pixels(
                    load_image(data, side=artifact.preprocessing.size), artifact.preprocessing
                )
                for data in files
            ]
        images = [ImageResult(each, artifact.defaults) for each in pixels]
        caption_images(artifact, images, BATCH, time.monotonic() + 60, passes)
        assert all(image.captions for image in images)

    with (
        part(Artifact, "encode", "encode"),
        part(Artifact, "search", "search"),
    ):
        for _ in range(2):
            caption()
        begin = time.perf_counter()
        with profiler:
            for _ in range(BATCHES):
                caption()
        return time.perf_counter() - begin, BATCH * BATCHES


@contextlib.contextmanager
def part(owner: Any, attribute: str, name: str) -> Iterator[None]:
    """Calls of this function in the block are a part of the profile."""
    function = getattr(owner, attribute)
    with mock.patch.object(owner, attribute, ranged(name, function)):
        yield


def report(name: str, profiler: profile, seconds: float, items: int, threads: int) -> str:
    """The text of a profile: what ran, its parts, and its dearest operators.

    Args:
        name: One of `NAMES`.
        profiler: After the profile.
        seconds: That it took, the profiler's own work included.
        items: Captions or pictures in it.
        threads: Of torch.
    """
    events = profiler.key_averages()
    parts = [each for each in events if each.is_user_annotation]
    operators = [each for each in events if not each.is_user_annotation]
    total = sum(map(_own_seconds, operators))
    operators.sort(key=_own_seconds, reverse=True)
    shown = {"operator": "`{operator}`", "calls": "{calls}", "own time": "{own:.3f} s"}
    shown["share"] = "{share:.1%}"
    rows = [
        {"operator": each.key, "calls": each.count, "own": _own_seconds(each),
         "share": _own_seconds(each) / total}
        for each in operators[:DEAREST]
    ]  # fmt: skip
    inside = [
        {"part": each.key, "calls": each.count, "time": each.cpu_time_total / 1e6,
         "share": each.cpu_time_total / 1e6 / seconds}
        for each in sorted(parts, key=lambda each: -each.cpu_time_total)
    ]  # fmt: skip
    columns = {"part": "{part}", "calls": "{calls}", "time": "{time:.3f} s", "share": "{share:.1%}"}
    words = [
        f"{name}: {items} {'captions' if name == 'training' else 'pictures'} in {seconds:.2f} s, "
        f"{items / seconds:.0f} a second under the profiler",
        f"{processor()}, {threads} of {cores()} cores, torch {torch.__version__}, "
        f"`{command_line('benchmarks.profile')}`",
        table(columns, inside),
        f"Operators, {total:.2f} s together:",
        table(shown, rows),
    ]
    return "\n\n".join(words) + "\n"


def _own_seconds(event: Any) -> float:
    """Time in an operator itself, without the operators that it calls; on a GPU its time there."""
    return (event.self_device_time_total or event.self_cpu_time_total) / 1e6


def settings(folder: Path) -> Config:
    """The default captioner on scenes drawn for this, with its parts below `folder`."""
    return load_config(
        [
            *(f"scenes.count={PICTURES}", f"scenes.out={folder / 'scenes'}"),
            *(f"features.data={folder / 'scenes'}", f"features.out={folder / 'features'}"),
            "features.workers=0",  # the profiler sees this process
            *(f"train.data={folder / 'scenes'}", f"train.features={folder / 'features'}"),
            *(f"train.{name}={folder / name}" for name in ("out", "work", "curves")),
            "train.trainer.accelerator=auto",
        ]
    )


def main() -> None:
    """Profile what is named, else all; print the tables."""
    parser = options_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of traces and tables")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        raise Refusal(f"there is no profile {unknown[0]!r}; name one of {', '.join(NAMES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)
    with tempfile.TemporaryDirectory() as temporary:
        config = settings(Path(temporary))
        prepare(config)
        runs = {
            "features": functools.partial(profile_features, config),
            "serving": functools.partial(profile_serving, config, Path(temporary)),
            # Last, since it leaves torch's deterministic algorithms on, which serving has off.
            "training": functools.partial(profile_training, config),
        }
        if "features" not in (options.names or NAMES) and "training" in options.names:
            encode_dataset.encode_dataset(config.features)
        for name, run in runs.items():
            if name not in (options.names or NAMES):
                continue
            profiler = profile(activities=kinds)
            threads = torch.get_num_threads()
            seconds, items = run(profiler)
            profiler.export_chrome_trace(str(options.out / f"{name}.trace.json.gz"))
            text = report(name, profiler, seconds, items, threads)
            (options.out / f"{name}.txt").write_text(text)
            print(text)


if __name__ == "__main__":
    command(main)
