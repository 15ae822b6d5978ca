"""The errors of this package."""

from __future__ import annotations


class DatabaseRefused(ValueError):
    """A database that cannot be used as it is; the message is one line for the operator."""


class OpinionRefused(ValueError):
    """A feedback that is not taken.

    Attributes:
        code: For programs, such as `unknown_request`.
    """

    def __init__(self, code: str, message: str) -> None:
        """Build the error from its code and a message for the person."""
        super().__init__(message)
        self.code = code
