"""Captions the files and folders of a command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import Any

from rich.console import Console

from client.caption_client import CaptionClient
from client.command import report
from client.command.folder import Pictures, extensions_of
from client.command.line_files import LineFile
from client.command.progress import Shown
from client.command.record_formats import Csv, JsonLines
from client.command.run import Interruption, Output, Run
from client.command.text_files import TextFiles
from client.errors import CaptionError, UnreadableFolder
from client.options import check_options, option_texts


def caption_files(client: CaptionClient, given: argparse.Namespace) -> int:
    """Caption files and write what was asked for.

    Args:
        client: Of the server.
        given: The command line, as `parse_arguments` returns it.

    Returns:
        The exit status: 0; 1 if any picture failed or there is none; 128 and the signal's number
        if one ended the run.

    Raises:
        CaptionError: The server would refuse an option.
        ValueError: An option cannot be sent.
        OutputError: A file cannot hold the answers.
    """
    texts = option_texts(given.option)
    many = _writes_files(given) or any(map(os.path.isdir, given.files))
    description = _description(client) if many else {}
    if "options" in description:
        check_options(description, texts)
    formats = description.get("formats")
    extensions = extensions_of(formats if isinstance(formats, list) else None)
    pictures = Pictures(given.files, extensions, recursive=given.recursive)
    counted = Pictures(given.files, extensions, recursive=given.recursive)
    console = Console(stderr=True)
    begin = time.monotonic()
    with contextlib.ExitStack() as opened:
        outputs = _outputs(given, opened)
        run = Run(client, texts, outputs, given.jobs, _reporter(given))
        with (
            Interruption(run.stop) as interruption,
            Shown(
                console,
                counted,
                lambda: run.tally.skipped,
                hidden=not many and len(given.files) == 1,
            ) as progress,
        ):
            for _ in run.caption(pictures):
                progress.advance()
    for folder, error in pictures.unreadable:
        failure = UnreadableFolder(error)
        run.tally.fail(folder, failure)
        report.print_problems(folder, failure)
    if many:
        run.tally.print_failures(console)
        for line in report.closing_lines(run, pictures, time.monotonic() - begin):
            print(line, file=sys.stderr)
    if interruption.signal is not None:
        if outputs:
            print("interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + interruption.signal
    if not run.tally.captioned + run.tally.skipped + run.tally.failed:
        print(f"error: there is no picture in {given.files[0]}", file=sys.stderr)
        return 1
    return 1 if run.tally.failed else 0


def _writes_files(given: argparse.Namespace) -> bool:
    return bool(given.text or given.csv or given.jsonl)


def _description(client: CaptionClient) -> dict[str, Any]:
    """The server's description; empty if it has none, or if nothing says where it is."""
    try:
        return client.description()
    except CaptionError:
        return {}


def _outputs(given: argparse.Namespace, opened: contextlib.ExitStack) -> list[Output]:
    outputs: list[Output] = []
    for path, form in ((given.jsonl, JsonLines()), (given.csv, Csv())):
        if path is not None:
            file = LineFile(path, form, fresh=given.overwrite)
            opened.callback(file.close)
            outputs.append(file)
            if file.torn:
                print(f"{path}: an unfinished record at its end was taken off", file=sys.stderr)
    if given.text:
        outputs.append(TextFiles(overwrite=given.overwrite))
    return outputs


def _reporter(given: argparse.Namespace) -> report.Reporter:
    if given.json:
        return report.print_json
    if given.csv or given.jsonl:
        return report.print_nothing  # the file has the failures too
    return report.print_problems if given.text else report.print_captions
