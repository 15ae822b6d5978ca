"""What is known of the request that is served now, for its line in the log and its trace.

The door makes a record for each request, and the code that serves it fills it in.
"""

from __future__ import annotations

import contextlib
import dataclasses
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.telemetry.tracing import Tracing

#: Header of a request's id: of clients, of replies, and of requests to TorchServe.
ID_HEADER = "X-Request-Id"


@dataclasses.dataclass
class Record:
    """One request.

    Attributes:
        id: The client's own id, or a new one.
        pictures: How many it holds, once that is known.
        bytes: Bytes of its body that have come.
        model_version: Of the captioner that answered; empty until one has.
        tracing: Takes its spans; None if there are no traces.
    """

    id: str
    pictures: int = 0
    bytes: int = 0
    model_version: str = ""
    tracing: Tracing | None = None


#: The request that is served now. What the gateway does by itself has none.
RECORD: ContextVar[Record | None] = ContextVar("record", default=None)


def span(name: str) -> contextlib.AbstractContextManager[object]:
    """A part of the request that is served now, as a span of its trace; nothing without traces.

    Args:
        name: What is done in the `with` block.
    """
    record = RECORD.get()
    if record is None or record.tracing is None:
        return contextlib.nullcontext()
    return record.tracing.part(name)


def outgoing_headers() -> dict[str, str]:
    """Headers that tell TorchServe's handler the id and the trace of the request."""
    record = RECORD.get()
    if record is None:
        return {}
    headers = {ID_HEADER: record.id}
    if record.tracing is not None:
        headers |= record.tracing.headers()
    return headers
