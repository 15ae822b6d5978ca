"""What a case works with: it starts servers and clients, and keeps what they did."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from loadtests.chaos.clients import Clients
from loadtests.chaos.serving import Serving


@dataclasses.dataclass
class Stage:
    """The place where one case runs.

    Attributes:
        folder: Of the case; servers keep their logs in it.
        archive: The captioner that is served.
        pictures: What the clients send.
        clients: Those that were started last; None before.
        marks: When the fault began and ended, by `time.monotonic`, and what to call it.
    """

    folder: Path
    archive: Path
    pictures: Sequence[bytes]
    clients: Clients | None = None
    marks: list[tuple[float, str]] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def serving(
        self, environment: Mapping[str, str] | None = None, archive: Path | None = None
    ) -> Iterator[Serving]:
        """TorchServe and gateway, running until the `with` block ends.

        Args:
            environment: Variables of both, such as `GATEWAY_DEADLINE_SECONDS`.
            archive: Another captioner than that of the stage.

        Raises:
            ServeError: One of them does not start.
        """
        serving = Serving(self.folder / "server", archive or self.archive, environment or {})
        serving.start()
        try:
            yield serving
        finally:
            serving.stop()

    @contextlib.contextmanager
    def sending(
        self, serving: Serving, options: Mapping[str, int] | None = None
    ) -> Iterator[Clients]:
        """Clients that send pictures until the `with` block ends.

        Args:
            serving: Whose gateway they ask.
            options: Of every request.
        """
        self.clients = Clients(serving.address, self.pictures, options)
        with self.clients:
            yield self.clients

    def mark(self, what: str) -> None:
        """Keep that something is done to the servers now, for the plot."""
        self.marks.append((time.monotonic(), what))
