"""Captions picture files from the command line.

    python -m client photo.jpg holiday/*.png
    python -m client --grpc --num-beams 5 --num-captions=3 --json photo.jpg
    python -m client --options
    python -m client --address http://127.0.0.1:8000 photo.jpg     # through the gateway

A flag that is not listed by `--help` is an option of the server, such as `--num-beams 5`;
`--options` asks the server for them. Captions are printed to standard output in the order of the
files, one line each; progress and errors go to standard error. The exit status is 1 if any file
failed, and 2 if the command line is wrong.

A token for a gateway comes from a file (`--token-file`) or from the environment variable
CLIPCAP_TOKEN: the command line is visible to other users of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from client.access import Access
from client.arguments import TOKEN, parse_arguments
from client.caption_client import CaptionClient
from client.errors import CaptionError
from client.options import option_texts
from client.results import CaptionResult

Outcome = CaptionResult | CaptionError | OSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Caption the files named on the command line, or print the server's options.

    Args:
        arguments: The words of the command line; by default those of this process.

    Returns:
        The exit status: 0, or 1 if any file failed.

    Raises:
        SystemExit: The command line is wrong (2), or asks for help (0).
    """
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            token = _token(given.token_file)
            access = Access.of(given.header, token, given.ca_file)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        if given.options:
            return _print_options(given, access)
        try:
            texts = option_texts(given.option)
            client = CaptionClient(
                given.address,
                model=given.model,
                timeout=given.timeout,
                headers=given.header,
                token=token,
                ca_file=given.ca_file,
            )
        except (ValueError, RuntimeError) as error:  # option or address; gRPC stubs
            print(f"error: {error}", file=sys.stderr)
            return 1
        failed = 0
        with client:
            for file, outcome in _caption_all(client, given.files, texts, given.jobs):
                failed += not isinstance(outcome, CaptionResult)
                _report(file, outcome, as_json=given.json)
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


def _token(file: Path | None) -> str | None:
    """The token of a file, or else of the environment; None if there is neither."""
    if file is not None:
        return file.read_text(errors="replace").strip()
    return os.environ.get(TOKEN) or None


def _print_options(given: argparse.Namespace, access: Access) -> int:
    """Print the options that a server has; returns the exit status."""
    from client.description import describe, describe_behind_gateway

    try:
        if given.management is None:
            found = describe_behind_gateway(given.address, given.model, given.timeout, access)
        else:
            found = describe(given.management, given.model, given.timeout, access)
    except CaptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options = found["options"]
    if given.json:
        print(json.dumps(options))
        return 0
    table = Table("option", "type", "from", "to", "default", "meaning", box=SIMPLE_HEAD)
    for name, option in options.items():
        flag = f"--{name.replace('_', '-')}"
        cells = [_cell(option.get(key)) for key in ("type", "from", "to", "default", "help")]
        table.add_row(flag, *cells)
    Console().print(table)
    return 0


def _cell(value: Any) -> str:
    words = {"int": "whole number", "float": "number", "str": "text", None: ""}
    return f"{value:g}" if isinstance(value, float) else words.get(value, str(value))


def _caption_all(
    client: CaptionClient, files: Sequence[Path], options: dict[str, str], jobs: int
) -> Iterator[tuple[Path, Outcome]]:
    """Caption files in parallel; yields the outcomes in the order of the files."""

    def caption_file(file: Path) -> Outcome:
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
            redirect_stdout=sys.stdout.isatty(),  # not where captions go to a file
        ) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        task = progress.add_task("captioning", total=len(files))
        for file, outcome in zip(files, pool.map(caption_file, files), strict=True):
            progress.advance(task)
            yield file, outcome


def _report(file: Path, outcome: Outcome, *, as_json: bool) -> None:
    """Print what became of a file: a line for each caption, or one for the error."""
    if isinstance(outcome, CaptionResult):
        if as_json:
            print(json.dumps({"file": str(file), **outcome.to_dict()}), flush=True)
            return
        for caption in outcome.captions:
            print(f"{file}: {caption.caption}  ({caption.confidence:.2f})", flush=True)
        for warning in outcome.warnings:
            print(f"{file}: warning: {warning}", file=sys.stderr, flush=True)
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
