"""The command line of `python -m client`: flags of its own, and options of the server.

A flag that is not listed by `--help` is an option of the server. So the client need not be changed
when a server has a new option.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from client.base import GRPC_ADDRESS, JOBS, MANAGEMENT_ADDRESS, REST_ADDRESS, TIMEOUT

#: Environment variable of the token, where no file is given.
TOKEN = "CLIPCAP_TOKEN"
#: Seconds that a picture waits for a server that is overloaded or started again.
PATIENCE = 120.0
#: Most pictures that may be sent at a time.
MAX_JOBS = 64


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Args:
        arguments: Its words.

    Returns:
        The flags by their names, without dashes. `address` is never None. `header` and `option` are
        mappings of names to values, and `option` has the flags that are not the client's own.

    Raises:
        SystemExit: The command line is wrong (2), or asks for help (0).
    """
    parser, flags = _parser()
    words, options = _split_options(parser, flags, arguments)
    given = parser.parse_args(words)
    for extra in given.option:
        name, equals, value = extra.partition("=")
        if not equals:
            _usage_error(parser, f"--option takes NAME=VALUE, not {extra!r}")
        options[name] = value
    headers = {}
    for extra in given.header:
        name, equals, value = extra.partition("=")
        if not equals:  # it is not shown: it may be a secret
            _usage_error(parser, "--header takes NAME=VALUE; there is one without =")
        headers[name] = value
    given.option, given.header = options, headers
    if not given.options and not given.files:
        _usage_error(parser, "no FILE is given; for the server's options use --options")
    if given.overwrite and not (given.text or given.csv or given.jsonl):
        _usage_error(parser, "--overwrite needs --text, --csv or --jsonl")
    given.address = given.address or (GRPC_ADDRESS if given.grpc else REST_ADDRESS)
    if given.grpc and not given.address.startswith(("grpc://", "grpcs://")):
        _usage_error(parser, f"--grpc needs an address grpc://HOST:PORT, not {given.address!r}")
    return given


def _parser() -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser of the client's own flags, and their names."""
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description="Captions picture files with a running captioner. Any other flag with a value "
        "is an option of the server, such as --num-beams 5; see --options.",
        allow_abbrev=False,  # a shortened flag would be taken for an option of the server
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="a picture file, or a folder of them"
    )
    flags = [
        parser.add_argument("--recursive", action="store_true", help="read sub-folders too"),
        parser.add_argument(
            "--text", action="store_true", help="write photo.txt beside photo.jpg, unless it exists"
        ),
        parser.add_argument(
            "--csv", type=Path, metavar="FILE", help="write captions and failures to a CSV file"
        ),
        parser.add_argument(
            "--jsonl", type=Path, metavar="FILE", help="write replies and failures as JSON lines"
        ),
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="caption all files anew: text files are replaced, and what the files of --csv and "
            "--jsonl hold is removed first",
        ),
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
            metavar="URL",
            help="the management of TorchServe, where --options asks (the gateway at --address, or "
            f"else {MANAGEMENT_ADDRESS})",
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
            "--patience",
            type=_seconds,
            default=PATIENCE,
            metavar="SECONDS",
            help="how long a picture waits for a server that has answered before and is overloaded "
            f"or away ({PATIENCE:g})",
        ),
        parser.add_argument(
            "--jobs",
            type=_jobs,
            default=JOBS,
            metavar="N",
            help=f"pictures sent at a time ({JOBS})",
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
