"""Sends a picture to TorchServe over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from client import stubs
from client.access import Access
from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.feedback import Feedback, no_feedback
from client.results import CaptionResult, read_reply, server_error

#: Most bytes of a reply; the server limits the size of requests.
MAX_REPLY = 16 << 20
#: Milliseconds without an attempt to connect after the first one failed: below the pauses of
#: `client.retries`, whose requests would fail meanwhile.
RECONNECT_MS = 100


class _Grpc:
    """What both transports share: the stubs, the channel's settings, and what errors mean."""

    def __init__(
        self, target: str, model: str, timeout: float, access: Access, *, tls: bool
    ) -> None:
        self._messages, self._services = stubs.load()
        self.address = f"{'grpcs' if tls else 'grpc'}://{target}"
        self._target = target
        self._model = model
        self._timeout = timeout
        self._metadata = list(access.headers.items())
        self._options = [
            ("grpc.max_receive_message_length", MAX_REPLY),
            ("grpc.enable_http_proxy", 0),  # as over REST: the address is the server's own
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
        ]
        self._credentials = (
            grpc.ssl_channel_credentials(access.root_certificates()) if tls else None
        )

    def _open(self, library: Any) -> Any:
        """A channel of `grpc` or of `grpc.aio`."""
        if self._credentials is None:
            return library.insecure_channel(self._target, options=self._options)
        return library.secure_channel(self._target, self._credentials, options=self._options)

    def _request(self, picture: bytes, options: Mapping[str, str]) -> Any:
        fields = {"data": picture, **{name: value.encode() for name, value in options.items()}}
        return self._messages.PredictionsRequest(model_name=self._model, input=fields)

    def _error(self, error: grpc.RpcError, size: int) -> CaptionError:
        """The error for gRPC's own; TorchServe's INTERNAL has many causes, told by its text."""
        status, details = error.code(), error.details() or ""
        if status is grpc.StatusCode.UNAVAILABLE:
            # Of a connection that breaks the text is another one, such as "Socket closed".
            unsent = "failed to connect" in details.lower() or "DNS" in details
            return ServerUnreachable(self.address, details.split("\n")[0][:200], unsent=unsent)
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerTimeout(self.address, self._timeout)
        # The server resets the stream of a request that is over its size limit. Without a reset
        # the call was cancelled on this side, such as by `close` in another thread.
        reset = status is grpc.StatusCode.CANCELLED and "RST_STREAM" in details
        if reset or status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return CaptionError(
                413, "request_too_large", f"the server cut off a picture of {size} bytes: {details}"
            )
        if status is grpc.StatusCode.CANCELLED:
            return CaptionError(
                0, "cancelled", f"the request to {self.address} was cancelled: {details}"
            )
        if status is grpc.StatusCode.PERMISSION_DENIED:
            return CaptionError(403, "forbidden", details)
        return server_error(500, "", details.split("\n")[0])


class GrpcTransport(_Grpc):
    """A channel to one server; safe to use from several threads.

    Args:
        target: Where the server listens, such as `127.0.0.1:7070`.
        model: Name of the model there.
        timeout: Seconds to wait for an answer.
        access: Headers to send, as metadata, and certificates to trust.
        tls: Whether the server speaks TLS.
    """

    def __init__(
        self, target: str, model: str, timeout: float, access: Access, *, tls: bool
    ) -> None:
        """Open nothing yet: the channel connects with the first request.

        Raises:
            RuntimeError: The stubs are missing, or do not fit the installed packages.
        """
        super().__init__(target, model, timeout, access, tls=tls)
        self._channel = self._open(grpc)
        self._service = self._services.InferenceAPIsServiceStub(self._channel)

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture.

        Raises:
            CaptionError: The server refused, or did not answer.
        """
        try:
            reply = self._service.Predictions(
                self._request(picture, options), timeout=self._timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise self._error(error, len(picture)) from None
        return read_reply(200, reply.prediction)

    def give_feedback(self, fields: Mapping[str, str], picture: bytes | None) -> Feedback:
        """Raises `CaptionError`: feedback is for gateways, which speak HTTP."""
        raise no_feedback(self.address)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcTransport(_Grpc):
    """The same for asyncio; its arguments are those of `GrpcTransport`."""

    _channel: Any = None

    async def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture.

        Raises:
            CaptionError: The server refused, or did not answer.
        """
        if self._channel is None:  # a channel belongs to the event loop that runs
            self._channel = self._open(grpc.aio)
            self._service = self._services.InferenceAPIsServiceStub(self._channel)
        try:
            reply = await self._service.Predictions(
                self._request(picture, options), timeout=self._timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise self._error(error, len(picture)) from None
        return read_reply(200, reply.prediction)

    async def give_feedback(self, fields: Mapping[str, str], picture: bytes | None) -> Feedback:
        """Raises `CaptionError`: feedback is for gateways, which speak HTTP."""
        raise no_feedback(self.address)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
