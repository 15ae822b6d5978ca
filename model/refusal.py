"""The error whose message is for the user: what was wrong, the value, the limit, what to do."""


class Refusal(ValueError):
    """An input of the user cannot be used; the message is shown as it is, without a traceback."""
