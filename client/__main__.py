"""Captions picture files from the command line.

    python -m client photo.jpg holiday/*.png
    python -m client --grpc --num-beams 5 --num-captions 3 --json photo.jpg

Captions go to standard output in the order of the files, one line each; progress and errors go to
standard error. The exit status is 1 if any file failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client.caption_client import GRPC_ADDRESS, REST_ADDRESS, TIMEOUT, CaptionClient
from client.errors import CaptionError
from client.results import CaptionResult

#: Options of the server that have a flag of their own; `--option` takes any other.
OPTIONS = {
    "num_beams": "width of the beam search",
    "num_captions": "captions for each picture",
    "max_tokens": "tokens in a caption at most",
    "min_tokens": "tokens in a caption at least",
    "length_penalty": "above 1 favours long captions, below 1 short ones",
}

Outcome = CaptionResult | CaptionError | OSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Caption the files named on the command line.

    Returns:
        The exit status: 0, or 1 if any file failed.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    options: dict[str, str] = {
        name: value for name in OPTIONS if (value := getattr(given, name)) is not None
    }
    for extra in given.option:
        name, equals, value = extra.partition("=")
        if not equals:
            parser.error(f"--option takes NAME=VALUE, not {extra!r}")
        options[name] = value
    address = given.address or (GRPC_ADDRESS if given.grpc else REST_ADDRESS)
    if given.grpc and not address.startswith("grpc://"):
        parser.error(f"--grpc needs an address grpc://HOST:PORT, not {address!r}")
    failed = 0
    try:
        with CaptionClient(address, model=given.model, timeout=given.timeout) as client:
            for file, outcome in _caption_all(client, given.files, options, given.jobs):
                failed += not isinstance(outcome, CaptionResult)
                _report(file, outcome, as_json=given.json)
    except (ValueError, RuntimeError) as error:  # a wrong address; stubs not generated
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client", description="Captions picture files with a running captioner."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--grpc", action="store_true", help=f"use gRPC, at {GRPC_ADDRESS}")
    parser.add_argument(
        "--address", metavar="URL", help=f"http://HOST:PORT or grpc://HOST:PORT ({REST_ADDRESS})"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line, not plain text")
    for name, meaning in OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="N", help=meaning)
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="any other option"
    )
    parser.add_argument("--model", default="clipcap", help="name of the model on the server")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, help=f"seconds for a caption ({TIMEOUT:g})"
    )
    parser.add_argument("--jobs", type=_jobs, default=8, help="pictures under way at a time (8)")
    return parser


def _jobs(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError(f"{number} is not from 1 to 64")
    return number


def _caption_all(
    client: CaptionClient, files: Sequence[Path], options: dict[str, str], jobs: int
) -> Iterator[tuple[Path, Outcome]]:
    """Outcomes in the order of the files, as soon as each and all before it are there."""

    def one(file: Path) -> Outcome:
        try:
            return client.caption(file, **options)
        except (CaptionError, OSError) as error:
            return error

    columns = (
        TextColumn("captioning"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    shown = console.is_terminal and len(files) > 1
    with (
        Progress(
            *columns,
            console=console,
            transient=True,
            disable=not shown,
            redirect_stdout=sys.stdout.isatty(),  # captions piped to a file stay out of the bar
        ) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        task = progress.add_task("captioning", total=len(files))
        for file, outcome in zip(files, pool.map(one, files), strict=True):
            progress.advance(task)
            yield file, outcome


def _report(file: Path, outcome: Outcome, *, as_json: bool) -> None:
    """One line (or one line a caption) for a file."""
    if isinstance(outcome, CaptionResult):
        if as_json:
            print(json.dumps({"file": str(file), **outcome.to_dict()}), flush=True)
            return
        for caption in outcome.captions:
            print(f"{file}: {caption.caption}  ({caption.confidence:.2f})", flush=True)
        return
    if isinstance(outcome, CaptionError):
        error = {"status": outcome.status, "code": outcome.code, "message": outcome.message}
    else:
        reason = outcome.strerror or str(outcome)
        error = {"status": 0, "code": "unreadable_file", "message": reason}
    if as_json:
        print(json.dumps({"file": str(file), "error": error}), flush=True)
    else:
        print(f"{file}: {error['message']} ({error['code']})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
