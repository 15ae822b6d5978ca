"""What can go wrong between a picture and its caption, the same for REST and gRPC."""

from __future__ import annotations


class CaptionError(Exception):
    """The server refused a request, or could not answer it.

    Attributes:
        status: HTTP status (400, 413, 415, 422, 503, 504, ...), over gRPC too; 0 if there was no
            answer.
        code: For programs, such as `image_undecodable`.
        message: A sentence for people.
        retry_after_seconds: When the server takes the request, if it said so.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_seconds: float | None = None
    ) -> None:
        """Build an error from what the server said."""
        super().__init__(f"{message} ({status} {code})" if status else f"{message} ({code})")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def may_be_sent_again(self) -> bool:
        """Whether the server did not begin with the request, and may take it later.

        That is so where it is overloaded, or names a time: `Retry-After`.
        """
        overloaded = self.status == 503 and self.code == "overloaded"
        return overloaded or (self.status in (429, 503) and self.retry_after_seconds is not None)

    @property
    def may_have_begun(self) -> bool:
        """Whether the answer was lost, or came too late, for a reason that may have passed.

        Such a request is sent again once only: it may be what made the server fail.
        """
        return self.code == "connection_lost" or self.status == 504


class ServerUnreachable(CaptionError):
    """No server answered: nothing listens there, or the connection broke. `status` is 0.

    Attributes:
        refused: Whether nothing listens there, so that nothing was sent.
        unsent: Whether no connection was made for any reason, such as a network that is down.
    """

    def __init__(self, address: str, reason: str, *, unsent: bool = False) -> None:
        """Build an error from the address that was tried and why it failed."""
        super().__init__(
            0, "unreachable", f"no captioner answers at {address}: {reason}; start it: make serve"
        )
        self.refused = "connection refused" in reason.lower()
        self.unsent = unsent or self.refused

    @property
    def may_be_sent_again(self) -> bool:
        """Whether the connection was refused: a server that is started again soon listens."""
        return self.refused

    @property
    def may_have_begun(self) -> bool:
        """Whether a connection was made, and then broke."""
        return not self.unsent


class ServerTimeout(CaptionError):
    """The server did not answer within the client's own time limit. `status` is 0."""

    def __init__(self, address: str, seconds: float) -> None:
        """Build an error from the address and the limit in seconds."""
        super().__init__(
            0, "timeout", f"the captioner at {address} gave no answer within {seconds:g} s"
        )


class UnreadableFile(CaptionError):
    """A picture file could not be read; nothing was sent. `status` is 0."""

    def __init__(self, error: OSError) -> None:
        """Build an error from the system's own."""
        super().__init__(0, "unreadable_file", error.strerror or str(error))


class UnreadableFolder(CaptionError):
    """A folder could not be read, so its pictures are not known. `status` is 0."""

    def __init__(self, error: OSError) -> None:
        """Build an error from the system's own."""
        super().__init__(0, "unreadable_folder", error.strerror or str(error))
