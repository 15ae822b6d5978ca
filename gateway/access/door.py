"""What every request passes first: its id, its key, limits on its body; and headers of every reply.

When a client leaves, what is done for its request is given up.

It stands around the whole application, so that the errors of the web framework get an id, security
headers, a line in the log and a count too. The log holds no header, no query and no body.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.answers import new_request_id
from gateway.access.bodies import Bodies
from gateway.access.callers import CALLER, CAPTIONER_HEADER, Caller
from gateway.access.keys import Key, find_key
from gateway.access.leaving import serve_unless_left
from gateway.errors import GatewayError, error_response
from gateway.measures import Measures
from gateway.settings import Settings
from gateway.telemetry.log import FIELDS
from gateway.telemetry.record import ID_HEADER, RECORD, Record
from gateway.telemetry.tracing import Tracing

logger = logging.getLogger("gateway.requests")

#: Nothing from elsewhere: the page needs only its own files and the pictures that it shows.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
#: Paths that need no key: whether the server works, and its documentation.
OPEN_PATHS = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json")
#: What the log and the counters have for a request whose client left; nothing is sent.
ABANDONED = 499
#: Ids that a client may give its requests.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: Where feedback is sent, which needs no captioner.
FEEDBACK_PATH = "/feedback"


class Door:
    """Wraps an application.

    Args:
        app: The application.
        settings: Limits of a body.
        measures: Counts requests.
        keys: Hash -> whom it is for, of the keys of which a request must carry one; empty for no
            keys.
        open_paths: Paths that need no key, beside `OPEN_PATHS`.
        overload: Name of a client -> why it cannot send a picture now, or None.
        bodies: The bodies of requests that are in memory.
        tracing: Takes the spans of requests; None for no traces.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        measures: Measures,
        keys: Mapping[str, Key],
        open_paths: frozenset[str],
        overload: Callable[[str], GatewayError | None],
        bodies: Bodies,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._bodies = bodies
        self._measures = measures
        self._keys = keys
        self._open_paths = open_paths.union(OPEN_PATHS)
        self._overload = overload
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.monotonic(), 500
        headers = Headers(scope=scope)
        key = find_key(headers, self._keys) if self._keys else None
        given = headers.get(ID_HEADER, "")
        chosen = REQUEST_ID.fullmatch(given) is not None
        record = Record(given if chosen else new_request_id(), tracing=self._tracing)
        RECORD.set(record)
        wanted = headers.get(CAPTIONER_HEADER, "")
        caller = self._caller(scope, key, record.id, chosen)
        caller = dataclasses.replace(caller, wanted=wanted)
        CALLER.set(caller)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found = MutableHeaders(scope=message)
                found[ID_HEADER] = record.id
                if caller.answered_by:
                    found[CAPTIONER_HEADER] = ", ".join(sorted(caller.answered_by))
                for name, value in SECURITY_HEADERS.items():
                    found.setdefault(name, value)
                found.setdefault("Cache-Control", "no-store")
            await send(message)

        with contextlib.ExitStack() as stack:
            span = None
            if self._tracing:
                traceparent = headers.get("traceparent", "")
                span = stack.enter_context(self._tracing.request(traceparent, record.id))
            try:
                if error := self._refusal(scope, headers, key):
                    await error_response(scope["path"], error)(scope, receive, send_with_headers)
                else:
                    with self._bodies.limited(receive) as limited:
                        if not await serve_unless_left(
                            self._app, scope, limited, send_with_headers
                        ):
                            status = ABANDONED
                            self._measures.abandoned.inc()
            finally:
                seconds = time.monotonic() - begin
                # The path as the application declares it: one that a client made up would make the
                # number of counters grow without end.
                route = getattr(scope.get("route"), "path", "other")
                self._measures.requests.labels(route, str(status)).inc()
                self._measures.seconds.labels(route).observe(seconds)
                method = scope["method"]
                fields = {
                    "id": record.id,
                    "method": method,
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 4),
                    "pictures": record.pictures,
                    "bytes": record.bytes,
                    "caller": key.name if key else None,
                    "model_version": record.model_version or None,
                    "abandoned": status == ABANDONED,
                }
                if self._tracing and span:
                    self._tracing.answered(span, fields)
                    fields["trace"] = self._tracing.id_of(span)
                logger.info(
                    *("%s %s %s %d %.4f s", record.id, method, route, status, seconds),
                    extra={FIELDS: fields},
                )

    def _caller(self, scope: Scope, key: Key | None, request_id: str, chosen: bool) -> Caller:
        """Who asks: the owner of a key, or an address."""
        settings = self._settings
        deadline = asyncio.get_running_loop().time() + settings.deadline_seconds
        if key is not None:
            rate = settings.rate if key.rate is None else key.rate
            name = key.name
        else:
            name, _ = scope.get("client") or ("an unknown address", 0)
            rate = settings.rate
        return Caller(name, deadline, rate, settings.deadline_seconds, request_id, chosen)

    def _refusal(self, scope: Scope, headers: Headers, key: Key | None) -> GatewayError | None:
        """Why a request is answered without reading it, or None."""
        needs_key = self._keys and scope["path"] not in self._open_paths
        if needs_key and key is None:
            return GatewayError(
                401,
                "key_needed",
                "this server needs a key; send it as the header Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if headers.get("content-encoding", "identity").lower() != "identity":
            return GatewayError(
                415, "encoding", "the body has a Content-Encoding; send it without compression"
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._settings.max_body_bytes:
            return self._bodies.too_large(f"{length[:30]} bytes")
        has_pictures = scope["method"] in ("POST", "PUT") and scope["path"] != FEEDBACK_PATH
        if has_pictures:
            # To read a request costs more than to refuse it, when there is no time for either.
            return self._overload(CALLER.get().name)
        return None
