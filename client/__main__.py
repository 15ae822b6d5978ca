"""Captions picture files and folders from the command line.

    python -m client photo.jpg holiday/*.png
    python -m client holiday --recursive --text --csv captions.csv
    python -m client --grpc --num-beams 5 --num-captions=3 --json photo.jpg
    python -m client --options
    python -m client --address http://127.0.0.1:8000 photo.jpg     # through the gateway

A flag that is not listed by `--help` is an option of the server, such as `--num-beams 5`;
`--options` asks the server for them. Captions are printed to standard output in the order of the
files, one line each, unless `--text`, `--csv` or `--jsonl` write them to files; progress and errors
go to standard error. With such a file a run continues the one before: pictures that have an answer
are skipped. The exit status is 1 if any file failed, 2 if the command line is wrong, and 130 or 143
if Ctrl-C or SIGTERM ended the run.

A token for a gateway comes from a file (`--token-file`) or from the environment variable
CLIPCAP_TOKEN: the command line is visible to other users of the machine.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from client.access import Access
from client.base import management_of
from client.caption_client import CaptionClient
from client.command.arguments import TOKEN, parse_arguments
from client.command.caption import caption_files
from client.command.line_files import OutputError
from client.command.option_table import print_options
from client.errors import CaptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Caption the files named on the command line, or print the server's options.

    Args:
        arguments: The words of the command line; by default those of this process.

    Returns:
        The exit status: 0, 1 if any file failed, or 128 and the number of the signal that ended it.

    Raises:
        SystemExit: The command line is wrong (2), or asks for help (0).
    """
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be no text
            stream.reconfigure(errors="backslashreplace")
    try:
        token = _token(given.token_file)
        if given.options:
            _print_options(given, token)
            return 0
        with CaptionClient(
            given.address,
            model=given.model,
            timeout=given.timeout,
            patience=given.patience,
            headers=given.header,
            token=token,
            ca_file=given.ca_file,
            management=given.management,
        ) as client:
            return caption_files(client, given)
    except BrokenPipeError:  # nobody reads standard output any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaptionError, OutputError, ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _token(file: Path | None) -> str | None:
    """The token of a file, or else of the environment; None if there is neither."""
    if file is not None:
        return file.read_text(errors="replace").strip()
    return os.environ.get(TOKEN) or None


def _print_options(given: argparse.Namespace, token: str | None) -> None:
    from client.description import read_description

    access = Access.of(given.header, token, given.ca_file)
    management = given.management or management_of(given.address)
    found = read_description(given.address, management, given.model, given.timeout, access)
    print_options(found["options"], as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
