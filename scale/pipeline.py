"""The job as a Ray Data pipeline: blocks -> decoded blocks -> written blocks.

Both stages are pools of actors of their own. Ray Data holds back the first one when its results
wait for the second. The driver sees a small row for each block that was written.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from handler.requests.caption_request import Extras
from model.image.preprocessing import Preprocessing
from model.options import GenerationOptions
from model.refusal import Refusal
from scale.inputs.parquet_rows import Columns
from scale.output.rows import Counts
from scale.plan import PART_BLOCKS
from scale.stages.captioning import CaptionStage, read_files
from scale.stages.deaths import Deaths
from scale.stages.decoding import DecodeStage

#: Neighbouring blocks that one call of the first stage decodes.
RUN_BLOCKS = 4
#: The part of a processor that Ray reserves for a decoder, and for each thread of a worker. Both
#: stages together take at most half of all processors. So they never wait for each other, and the
#: other half of a cluster has room for the processes of nodes that went away: Ray repeats work on
#: the process that had it, and would wait for ever for room to start that again.
RESERVED = 0.25
#: Seconds without any progress after which the job ends with an error.
STUCK = 3600
#: Most threads of a worker, where the machine decides.
MANY_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many processes of each stage there are.

    Attributes:
        workers: Processes that caption.
        threads: Threads of torch in each of them.
        decoders: Processes that read and decode.
        images_per_pass: Most images in one pass.
        gpus: The part of a GPU that each worker has; 0 where it runs on processors.
    """

    workers: int
    threads: int
    decoders: int
    images_per_pass: int
    gpus: float = 0.0


@dataclasses.dataclass(frozen=True)
class Work:
    """What the stages need.

    Attributes:
        output: Address of the output, for every node.
        artifact: Folder of the captioner, on the driver's machine.
        preprocessing: What its encoder expects.
        options: How to caption.
        extras: Whether features are wanted.
        columns: Of Parquet inputs.
        max_pixels: Most pixels at which a picture is decoded.
        version: Of the captioner.
    """

    output: str
    artifact: Path
    preprocessing: Preprocessing
    options: GenerationOptions
    extras: Extras
    columns: Columns
    max_pixels: int
    version: str


def chosen_sizes(
    processors: list[int],
    workers: int | None,
    threads: int | None,
    decoders: int | None,
    images_per_pass: int,
    gpus: float = 0.0,
    gpus_of_nodes: Sequence[float] = (),
) -> Sizes:
    """The sizes that were given, or those that fit the machines.

    Args:
        processors: Of each node.
        workers: As given; None for as many as have processors.
        threads: As given; None for all processors of the smallest node, at most `MANY_THREADS`,
            or one beside a GPU.
        decoders: As given; None for one for two processors.
        images_per_pass: As given.
        gpus: As given.
        gpus_of_nodes: Number of GPUs of each node.

    Raises:
        Refusal: They are more than the processors or GPUs can take.
    """
    largest, total = max(processors), sum(processors)
    if gpus:
        room = sum(int(count / gpus) for count in gpus_of_nodes)
        workers = workers or room
        if workers > room or not room:
            raise Refusal(
                f"--gpus-per-worker is {gpus:g}; the {sum(gpus_of_nodes):g} GPUs have room for "
                f"{room} workers, and {max(1, workers)} are wanted"
            )
        threads = threads or 1
    threads = threads or min([MANY_THREADS, *processors])
    if threads > largest:
        raise Refusal(f"--threads is {threads}; the largest node has {largest} processors")
    fitting = sum(count // threads for count in processors)
    workers = workers or fitting
    decoders = decoders or max(1, total // 2)
    if workers > fitting:
        raise Refusal(
            f"--workers is {workers}; the {total} processors have room for {fitting} workers of "
            f"{threads} threads each; give fewer --workers or --threads"
        )
    if decoders > total:
        raise Refusal(f"--decoders is {decoders}; it must be at most the {total} processors")
    return Sizes(workers, threads, decoders, images_per_pass, gpus)


def runs_of(blocks: Iterable[int]) -> Iterator[list[int]]:
    """Neighbouring blocks of one part, for a call of the first stage each."""
    for _, group in itertools.groupby(blocks, lambda block: block // PART_BLOCKS):
        while run := list(itertools.islice(group, RUN_BLOCKS)):
            yield run


def run_blocks(work: Work, sizes: Sizes, blocks: Iterable[int]) -> Iterator[tuple[int, Counts]]:
    """Caption and write blocks on the Ray cluster that this process is connected to.

    Args:
        work: What the stages need.
        sizes: Of the stages.
        blocks: Numbers of those that are to be written, rising.

    Yields:
        Each block that was written, in the order in which that happens, and its counts.
    """
    runs = [{"blocks": run} for run in runs_of(blocks)]
    if not runs:
        return
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # each row is passed on when it is made
    context.execution_no_progress_timeout_s = STUCK
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    deaths = ray.remote(Deaths).options(num_cpus=0, scheduling_strategy=here).remote()
    artifact = ray.put(read_files(work.artifact))
    decode: dict[str, Any] = {
        "output": work.output,
        "preprocessing": work.preprocessing,
        "columns": work.columns,
        "max_pixels": work.max_pixels,
        "deaths": deaths,
    }
    caption: dict[str, Any] = {
        "output": work.output,
        "artifact": artifact,
        "options": work.options,
        "extras": work.extras,
        "threads": sizes.threads,
        "images_per_pass": sizes.images_per_pass,
        "version": work.version,
        "deaths": deaths,
        "device": "cuda:0" if sizes.gpus else "cpu",  # Ray shows each process its own GPU only
    }
    rows = (
        ray.data.from_items(runs, override_num_blocks=len(runs))
        .map_batches(
            DecodeStage,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_kwargs=decode,
            num_cpus=RESERVED,
            compute=_pool(sizes.decoders),
        )
        .map_batches(
            CaptionStage,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_kwargs=caption,
            num_cpus=RESERVED * sizes.threads,
            num_gpus=sizes.gpus or None,
            compute=_pool(sizes.workers),
        )
    )
    for row in rows.iter_rows():
        yield row["block"], Counts.of(row["rows"], row["codes"])


def _pool(size: int) -> ActorPoolStrategy:
    """Actors of a stage: as many as wanted, and the job goes on while one of them is left."""
    return ActorPoolStrategy(min_size=1, max_size=size, initial_size=size)
