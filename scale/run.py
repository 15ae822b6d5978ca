"""A run of a job: lists the input, captions the blocks that are not written yet, and sums up."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from handler.replies.extras import check_extras, read_extras
from model.artifact import Artifact
from model.options import GenerationOptions
from model.programs.load import load_artifact
from model.refusal import Refusal
from scale import cluster
from scale.first_blocks import checked
from scale.inputs.listing import Listing
from scale.inputs.parquet_rows import Columns
from scale.job import JOB, Job, begin_or_continue
from scale.output.assembly import Assembly
from scale.output.parts import part_file
from scale.output.rows import Counts
from scale.output.store import Store
from scale.plan import ListedInput
from scale.report import Shown, print_summary

#: The file that says what became of a job.
MANIFEST = "_manifest.json"


@dataclasses.dataclass(frozen=True)
class Captioning:
    """How pictures are captioned.

    Attributes:
        artifact: The captioner.
        options: Of its captions.
    """

    artifact: Artifact
    options: GenerationOptions

    @classmethod
    def of(cls, given: argparse.Namespace) -> Captioning:
        """What a command line asks for.

        Raises:
            Refusal: The artifact is damaged, or it cannot take the options.
        """
        artifact = load_artifact(given.artifact)
        options = artifact.defaults.updated(given.options)
        artifact.check(options)
        extras = read_extras(dict.fromkeys(given.extras, True))
        check_extras(extras, artifact.ood_score is not None)
        return cls(artifact, options)

    @property
    def sha256(self) -> str:
        """Of the captioner: that of its file, or of those of all its programs."""
        info = self.artifact.info
        if "sha256" in info:
            return str(info["sha256"])
        return hashlib.sha256(json.dumps(info["programs"], sort_keys=True).encode()).hexdigest()

    @property
    def version(self) -> str:
        """Of the captioner, for the rows: the first characters of its SHA-256."""
        return self.sha256[:12]


def run(given: argparse.Namespace) -> None:
    """Begin or continue a job, and complete it.

    Args:
        given: The command line.

    Raises:
        Refusal: The input, the output or the captioner cannot be used.
    """
    begin = time.monotonic()
    captioning, store = Captioning.of(given), Store(given.out)
    console = Console(stderr=True)
    with _locked(store):
        listing = Listing(given.inputs, Columns(given.image_column, given.id_column))
        with ListedInput(listing, given.limit) as listed:
            wanted = _job(given, captioning, listed)
            job, continued = begin_or_continue(store, listed, wanted)
        for fault in listing.faults:
            print(f"warning: {fault}", file=sys.stderr)
        assembly = Assembly(store, job.plan)
        before = assembly.rows
        if continued and before:
            _say(console, f"{before:,} of {job.rows:,} pictures have their rows from before")
        try:
            if before < job.rows:
                _caption(given, job, captioning, store, assembly, console)
        finally:
            assembly.close()
        parts = assembly.complete()
        _close(store, job, parts, listing, before, time.monotonic() - begin)


def _job(given: argparse.Namespace, captioning: Captioning, listed: ListedInput) -> Job:
    return Job(
        inputs=list(given.inputs),
        rows=listed.rows,
        repeated=listed.repeated,
        fingerprint=listed.fingerprint,
        block_rows=given.block_rows,
        captioner=captioning.sha256,
        options={
            **captioning.options.to_dict(),
            **given.extras,
            "max_pixels": given.max_pixels,
        },
        features={"features": given.features, "unit_features": given.unit_features},
        columns={"picture": given.image_column, "id": given.id_column},
        limit=given.limit,
    )


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Refuse a second run into the same local folder at a time."""
    if not store.is_local:  # there, every file has one content whoever writes it
        yield
        return
    Path(store.root).mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.path("_lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Refusal(f"another run writes into {store.address}; wait until it ends") from None
    try:
        yield
    finally:
        lock.release()


def _caption(
    given: argparse.Namespace,
    job: Job,
    captioning: Captioning,
    store: Store,
    assembly: Assembly,
    console: Console,
) -> None:
    """Caption what remains, on Ray."""
    preprocessing = captioning.artifact.preprocessing
    block_bytes = 3 * preprocessing.size**2 * min(job.block_rows, job.rows)
    memory = cluster.store_bytes(block_bytes, given.artifact)
    with cluster.connected(given.address, memory, verbose=given.verbose) as ray:
        from scale.pipeline import Work, chosen_sizes, run_blocks

        if given.address and store.is_local:
            cluster.check_nodes(ray, store.address, JOB, store.read(JOB))
        sizes = chosen_sizes(
            cluster.processors_of_nodes(ray),
            given.workers,
            given.threads,
            given.decoders,
            given.images_per_pass,
            given.gpus_per_worker,
            cluster.gpus_of_nodes(ray),
        )
        extras: dict[str, Any] = dict.fromkeys(given.extras, True)
        if given.features:
            extras |= {"features": "base64", "unit_features": given.unit_features}
        work = Work(
            store.address,
            given.artifact,
            preprocessing,
            captioning.options,
            read_extras(extras),
            job.parquet_columns(),
            given.max_pixels,
            captioning.version,
        )
        _say(
            console,
            f"{job.rows - assembly.rows:,} pictures; {sizes.workers} workers of {sizes.threads} "
            f"threads, {sizes.decoders} decoders",
        )
        with Shown(job.rows, assembly.rows, console) as shown:
            written = run_blocks(work, sizes, assembly.remaining())
            for block, counts in checked(store, written, is_first=not assembly.rows):
                if assembly.add(block):
                    shown.advance(counts)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _close(
    store: Store,
    job: Job,
    parts: dict[int, Counts],
    listing: Listing,
    before: int,
    seconds: float,
) -> None:
    """Write the manifest and print the table."""
    total = sum(parts.values(), Counts())
    captioned = total.rows - total.errors.total()
    manifest = {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": total.rows,
        "captioned": captioned,
        "errors": dict(total.errors.most_common()),
        "repeated": job.repeated,
        "passed_over": dict(listing.passed_over),
        "faults": listing.faults,
        "job": dataclasses.asdict(job),
        "parts": [
            {"file": part_file(part), "rows": counts.rows, "errors": dict(counts.errors)}
            for part, counts in parts.items()
        ],
    }
    store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    lines = [("captioned", captioned), *total.errors.most_common()]
    if job.repeated:
        lines.append(("left out: the same picture came before", job.repeated))
    lines += [(f"passed over: {what}", count) for what, count in listing.passed_over.items()]
    now = total.rows - before
    took = f"{now:,} in this run, {seconds:.1f} s, {now / max(seconds, 1e-3):.1f}/s"
    print_summary(lines, f"{store.address}: {total.rows:,} rows; {took}")
