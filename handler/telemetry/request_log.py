"""One line of JSON in the worker's log for each request; `request_log` in `model-config.yaml`.

    id        the request's `X-Request-Id`, which the gateway sends; else TorchServe's own id
    status    of the reply
    code      of its error; null if it has none
    pictures  how many were captioned or refused
    codes     error code -> pictures of it, in a request of several
    seconds   of the whole batch, by step: decode, encode, generate, explain
    batch     requests and pictures of the batch
    trace     the id of its trace; only if the request carries one

`log4j2.xml` gives these lines a file of their own, `request_log.log`. No field of a request and no
caption is logged.
"""

from __future__ import annotations

import collections
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from handler.request_result import RequestResult
from handler.requests.fields import header
from handler.telemetry.phases import Phases

logger = logging.getLogger(__name__)

#: Header that names a request.
ID_HEADER = "X-Request-Id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: The id of a trace in `traceparent`.
_TRACE = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def request_id(headers: Mapping[str, Any], own: str | None) -> str:
    """What names a request in the log.

    Args:
        headers: HTTP headers.
        own: The id that TorchServe gave it.
    """
    given = header(headers, ID_HEADER)
    return given if _ID.fullmatch(given) else own or ""


def write(
    results: Sequence[RequestResult],
    headers: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    phases: Phases,
) -> None:
    """Write the lines of a batch.

    Args:
        results: What became of each request.
        headers: HTTP headers of each.
        ids: What names each.
        phases: The steps of the batch.
    """
    seconds = {phase.name: round(phase.seconds, 4) for phase in phases.found}
    batch = {"requests": len(results), "pictures": sum(len(each.images) for each in results)}
    for result, own, name in zip(results, headers, ids, strict=True):
        codes = collections.Counter(each.failure.code for each in result.images if each.failure)
        line: dict[str, Any] = {
            "id": name,
            "status": result.failure.status if result.failure else 200,
            "code": result.failure.code if result.failure else None,
            "pictures": len(result.images),
            "codes": dict(codes),
            "seconds": seconds,
            "batch": batch,
        }
        if trace := _TRACE.fullmatch(header(own, "traceparent")):
            line["trace"] = trace[1]
        logger.info(json.dumps(line))
