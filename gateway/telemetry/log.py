"""The log of the gateway: plain lines, or a JSON object for each (`GATEWAY_JSON_LOG=true`).

A line has `time`, `level` and `message`. That of a request has these fields in place of the
message:

    id             the client's `X-Request-Id` or a new one; reply and handler's log have it too
    method, route  the route as the gateway declares it, without what a client puts into it
    status         499 for a client that left before its answer
    seconds        from the head of the request to the end of its answer
    pictures       how many it holds; 0 if it was answered before they were read
    bytes          of its body
    caller         the name of its key; null without keys
    model_version  of the captioner; null if none was asked
    abandoned      whether the client left
    trace          the id of its trace; only with traces

No header, query, address or picture is logged.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys

#: Attribute of a log record that holds the fields of a request.
FIELDS = "request"


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        found = {"time": time.isoformat(timespec="milliseconds"), "level": record.levelname}
        fields = getattr(record, FIELDS, None)
        found |= {"message": record.getMessage()} if fields is None else fields
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


def start(*, as_json: bool) -> None:
    """Write the log to standard output from now on.

    Args:
        as_json: Whether each line is a JSON object.
    """
    handler = logging.StreamHandler(sys.stdout)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the description is asked for with it
