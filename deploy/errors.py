"""The error of this folder."""


class ServeError(Exception):
    """The captioner cannot be served; the message says why and what to do."""
