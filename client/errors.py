"""What can go wrong between a picture and its caption, the same for REST and gRPC."""

from __future__ import annotations


class CaptionError(Exception):
    """The server refused a request, or could not answer it.

    Attributes:
        status: HTTP status (400, 413, 415, 422, 503, 504, ...), over gRPC too; 0 if there was no
            answer.
        code: For programs, such as `image_undecodable`.
        message: A sentence for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        """Build an error from what the server said."""
        super().__init__(f"{message} ({status} {code})" if status else f"{message} ({code})")
        self.status = status
        self.code = code
        self.message = message


class ServerUnreachable(CaptionError):
    """No server answered: nothing listens there, or the connection broke. `status` is 0."""

    def __init__(self, address: str, reason: str) -> None:
        """Build an error from the address that was tried and why it failed."""
        super().__init__(
            0, "unreachable", f"no captioner answers at {address}: {reason}; start it: make serve"
        )


class ServerTimeout(CaptionError):
    """The server did not answer within the client's own time limit. `status` is 0."""

    def __init__(self, address: str, seconds: float) -> None:
        """Build an error from the address and the limit in seconds."""
        super().__init__(
            0, "timeout", f"the captioner at {address} gave no answer within {seconds:g} s"
        )
