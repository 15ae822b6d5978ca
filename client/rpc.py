"""Sends a picture to TorchServe over gRPC."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from client import stubs
from client.access import Access
from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.results import CaptionResult, read_reply, server_error

#: Most bytes of a reply; the server limits the size of requests.
MAX_REPLY = 16 << 20
#: Milliseconds without an attempt to connect after the first one failed: below the pauses of
#: `CaptionClient`, whose requests would fail meanwhile.
RECONNECT_MS = 100


class GrpcTransport:
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
        self._messages, services = stubs.load()
        self.address = f"{'grpcs' if tls else 'grpc'}://{target}"
        self._model = model
        self._timeout = timeout
        self._metadata = list(access.headers.items())
        options = [
            ("grpc.max_receive_message_length", MAX_REPLY),
            ("grpc.enable_http_proxy", 0),  # as over REST: the address is the server's own
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
        ]
        if tls:
            credentials = grpc.ssl_channel_credentials(access.root_certificates())
            self._channel = grpc.secure_channel(target, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        self._service = services.InferenceAPIsServiceStub(self._channel)

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture.

        Raises:
            CaptionError: The server refused, or did not answer.
        """
        fields = {"data": picture, **{name: value.encode() for name, value in options.items()}}
        request = self._messages.PredictionsRequest(model_name=self._model, input=fields)
        try:
            reply = self._service.Predictions(
                request, timeout=self._timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise self._error(error, len(picture)) from None
        return read_reply(200, reply.prediction)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _error(self, error: grpc.RpcError, size: int) -> CaptionError:
        """The error for gRPC's own; TorchServe's INTERNAL has many causes, told by its text."""
        status, details = error.code(), error.details() or ""
        if status is grpc.StatusCode.UNAVAILABLE:
            return ServerUnreachable(self.address, details.split("\n")[0][:200])
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
