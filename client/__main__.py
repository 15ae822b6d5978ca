"""Captions picture files from the command line.

    python -m client photo.jpg holiday/*.png
    python -m client --grpc --num-beams 5 --num-captions=3 --json photo.jpg
    python -m client --options

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
import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from client.access import Access
from client.caption_client import (
    GRPC_ADDRESS,
    REST_ADDRESS,
    TIMEOUT,
    CaptionClient,
    option_texts,
)
from client.errors import CaptionError
from client.results import CaptionResult

MANAGEMENT_ADDRESS = "http://127.0.0.1:8081"
#: Environment variable of the token, where no file is given.
TOKEN = "CLIPCAP_TOKEN"
#: Most pictures that may be sent at a time.
MAX_JOBS = 64

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
    parser, flags = _parser()
    words, options = _split_options(parser, flags, sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_args(words)
    for extra in given.option:
        name, equals, value = extra.partition("=")
        if not equals:
            _usage_error(parser, f"--option takes NAME=VALUE, not {extra!r}")
        options[name] = value
    headers = {}
    for extra in given.header:
        name, equals, value = extra.partition("=")
        if not equals:
            _usage_error(parser, "--header takes NAME=VALUE; there is one without =")
        headers[name] = value
    try:
        try:
            token = _token(given.token_file)
            access = Access.of(headers, token, given.ca_file)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        if given.options:
            return _print_options(given.management, given.model, given.timeout, given.json, access)
        if not given.files:
            _usage_error(parser, "no FILE is given; for the server's options use --options")
        address = given.address or (GRPC_ADDRESS if given.grpc else REST_ADDRESS)
        if given.grpc and not address.startswith(("grpc://", "grpcs://")):
            _usage_error(parser, f"--grpc needs an address grpc://HOST:PORT, not {address!r}")
        try:
            texts = option_texts(options)
            client = CaptionClient(
                address,
                model=given.model,
                timeout=given.timeout,
                headers=headers,
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


def _parser() -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser of the client's own flags, and their names."""
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description="Captions picture files with a running captioner. Any other flag with a value "
        "is an option of the server, such as --num-beams 5; see --options.",
        allow_abbrev=False,  # a shortened flag would be taken for an option of the server
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    flags = [
        parser.add_argument("--grpc", action="store_true", help=f"use gRPC, at {GRPC_ADDRESS}"),
        parser.add_argument(
            "--address",
            metavar="URL",
            help=f"http://HOST:PORT or grpc://HOST:PORT, with TLS https or grpcs ({REST_ADDRESS})",
        ),
        parser.add_argument(
            "--header",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a header to send with every request",
        ),
        parser.add_argument(
            "--token-file",
            type=Path,
            metavar="FILE",
            help=f"a file with a token to send as Authorization: Bearer (else ${TOKEN})",
        ),
        parser.add_argument(
            "--ca-file",
            type=Path,
            metavar="FILE",
            help="certificates (PEM) of the authorities to trust",
        ),
        parser.add_argument("--json", action="store_true", help="print JSON, an object a line"),
        parser.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an option of the server whose name is also a flag of this command",
        ),
        parser.add_argument(
            "--options", action="store_true", help="print the options that the server has"
        ),
        parser.add_argument(
            "--management",
            default=MANAGEMENT_ADDRESS,
            metavar="URL",
            help=f"where --options asks ({MANAGEMENT_ADDRESS})",
        ),
        parser.add_argument("--model", default="clipcap", help="name of the model on the server"),
        parser.add_argument(
            "--timeout",
            type=_seconds,
            default=TIMEOUT,
            metavar="SECONDS",
            help=f"how long to wait for a caption ({TIMEOUT:g})",
        ),
        parser.add_argument(
            "--jobs", type=_jobs, default=8, metavar="N", help="pictures sent at a time (8)"
        ),
    ]
    return parser, {"--help", *(name for flag in flags for name in flag.option_strings)}


def _split_options(
    parser: argparse.ArgumentParser, flags: set[str], words: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Divide the command line into the words for the parser and the options of the server."""
    client_words: list[str] = []
    options: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        if word == "--":  # only files follow
            return [*client_words, word, *remaining], options
        flag, equals, value = word.partition("=")
        if not word.startswith("--") or flag in flags:
            client_words.append(word)
            continue
        if not equals:
            value = next(remaining, "--")
        if value.startswith("--"):
            _usage_error(parser, f"{flag} needs a value: {flag} VALUE; see --options and --help")
        options[flag.removeprefix("--").replace("-", "_")] = value
    return client_words, options


def _usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """End with one line, where `parser.error` would print the usage too."""
    parser.exit(2, f"error: {message}\n")


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_JOBS}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _token(file: Path | None) -> str | None:
    """The token of a file, or else of the environment; None if there is neither."""
    if file is not None:
        return file.read_text(errors="replace").strip()
    return os.environ.get(TOKEN) or None


def _print_options(
    management: str, model: str, timeout: float, as_json: bool, access: Access
) -> int:
    """Print the options that a server has; returns the exit status."""
    from client.description import describe

    try:
        options = describe(management, model, timeout, access)["options"]
    except CaptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if as_json:
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
    words = {"int": "whole number", "float": "number", None: ""}
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
