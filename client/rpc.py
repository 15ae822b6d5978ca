"""Sends a picture to TorchServe over gRPC."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from client import stubs
from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.results import CaptionResult, read_reply, server_error

#: Bytes of a reply at most; requests are bounded by the server.
MAX_REPLY = 16 << 20


class GrpcTransport:
    """A channel to one server; safe to use from several threads.

    Args:
        target: Where the server listens, such as `127.0.0.1:7070`.
        model: Name of the model there.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, target: str, model: str, timeout: float) -> None:
        """Open nothing yet: the channel connects with the first request."""
        self._messages, services = stubs.load()
        self.address = f"grpc://{target}"
        self._model = model
        self._timeout = timeout
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_receive_message_length", MAX_REPLY),
                ("grpc.enable_http_proxy", 0),  # as over REST: the address is the server's own
            ],
        )
        self._service = services.InferenceAPIsServiceStub(self._channel)

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture.

        Raises:
            CaptionError: The server refused, or nobody answered.
        """
        fields = {"data": picture, **{name: value.encode() for name, value in options.items()}}
        request = self._messages.PredictionsRequest(model_name=self._model, input=fields)
        try:
            reply = self._service.Predictions(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._error(error, len(picture)) from None
        return read_reply(200, reply.prediction)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _error(self, error: grpc.RpcError, size: int) -> CaptionError:
        """TorchServe puts most failures under INTERNAL; their text tells them apart."""
        status, details = error.code(), error.details() or ""
        if status is grpc.StatusCode.UNAVAILABLE:
            return ServerUnreachable(self.address, details.split("\n")[0][:120])
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerTimeout(self.address, self._timeout)
        if status in (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED):
            return CaptionError(
                413, "request_too_large", f"the server cut off a picture of {size} bytes: {details}"
            )
        if status is grpc.StatusCode.PERMISSION_DENIED:
            return CaptionError(403, "forbidden", details)
        return server_error(500, "", details.split("\n")[0])
