"""A run of the command: it captions files, writes the answers, and can be ended at any time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol

from client.caption_client import CaptionClient
from client.command.record_formats import Outcome
from client.command.tally import Tally
from client.errors import CaptionError, ServerUnreachable, UnreadableFile
from client.in_order import in_order

#: Codes and statuses of errors that every other picture would get as well.
_OF_EVERY_PICTURE = ("unknown_option", "bad_option")
_STATUS_OF_EVERY_PICTURE = (401, 403, 404)


class Output(Protocol):
    """Where answers go."""

    def has(self, picture: Path) -> bool:
        """Whether an answer is there from before."""

    def write(self, picture: Path, outcome: Outcome) -> None:
        """Add an outcome; raises `CaptionError` for this picture, `OutputError` for all."""

    def close(self) -> None:
        """Finish; may raise `OutputError`."""


class Run:
    """Captions files and passes each outcome on.

    Args:
        client: Of the server.
        options: Of the server, as text.
        outputs: A picture that all of them have is not sent.
        jobs: Pictures sent at a time.
        report: Called with every outcome, for people to see it.

    Attributes:
        tally: What became of the pictures.
        ended_by: The error that every other picture would get too, so that the run ended; or None.
    """

    def __init__(
        self,
        client: CaptionClient,
        options: Mapping[str, str],
        outputs: Sequence[Output],
        jobs: int,
        report: Callable[[Path, Outcome], None],
    ) -> None:
        self._client, self._options, self._outputs = client, options, outputs
        self._jobs, self._report = jobs, report
        self._stopped = False
        self.tally = Tally()
        self.ended_by: CaptionError | None = None

    def caption(self, files: Iterable[Path]) -> Iterator[None]:
        """Caption files in their order; yields after each.

        Raises:
            OutputError: An output cannot hold more answers.
        """
        begun = in_order(self._outcome, self._unanswered(files), self._jobs)
        with contextlib.closing(begun) as outcomes:
            for file, outcome in outcomes:
                if outcome is None or self._is_for_next_run(outcome):
                    continue
                if isinstance(outcome, CaptionError) and _is_of_every_picture(outcome):
                    self.ended_by = outcome
                    self.tally.fail(file, outcome)
                    self._report(file, outcome)
                    self.stop()
                    return
                self._keep(file, outcome)
                yield

    def stop(self) -> None:
        """Begin with no more pictures. Those that were sent are waited for."""
        self._stopped = True
        self._client.give_up()

    def _unanswered(self, files: Iterable[Path]) -> Iterator[Path]:
        for file in files:
            if self._stopped:
                return
            if self._outputs and all(output.has(file) for output in self._outputs):
                self.tally.skipped += 1
            else:
                yield file

    def _outcome(self, file: Path) -> Outcome | None:
        """Called in several threads; None if the run was ended before."""
        if self._stopped:
            return None
        try:
            return self._client.caption(file, **self._options)
        except CaptionError as error:
            return error
        except OSError as error:
            return UnreadableFile(error)

    def _is_for_next_run(self, outcome: Outcome) -> bool:
        """Whether a picture failed that would have been sent again, had the run not been ended."""
        return self._stopped and isinstance(outcome, CaptionError)

    def _keep(self, file: Path, outcome: Outcome) -> None:
        failure = outcome if isinstance(outcome, CaptionError) else None
        self._report(file, outcome)
        for output in self._outputs:
            try:
                if not output.has(file):
                    output.write(file, outcome)
            except CaptionError as error:  # of this picture's text file
                failure = error
                self._report(file, error)
        if failure is None:
            self.tally.captioned += 1
        else:
            self.tally.fail(file, failure)


def _is_of_every_picture(error: CaptionError) -> bool:
    """Whether no other picture would fare better: no server, no right to ask it, a wrong option."""
    if isinstance(error, ServerUnreachable):
        return error.unsent
    return error.status in _STATUS_OF_EVERY_PICTURE or error.code in _OF_EVERY_PICTURE


class Interruption:
    """Ctrl-C and SIGTERM end a run within this context; a second one ends the process at once.

    Args:
        stop: Called at the first one.

    Attributes:
        signal: The number of the signal that came, or None.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Take over the signals."""
        for each in (signal.SIGINT, signal.SIGTERM):
            self._before[each] = signal.signal(each, self._come)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give them back."""
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _come(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the progress has hidden the cursor
                sys.stderr.flush()
            os._exit(128 + number)  # every answer that came is written already
        self.signal = number
        self._stop()
