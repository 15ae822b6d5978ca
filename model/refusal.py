"""The one error that is written for a person: what was wrong, the value, the limit, what to do."""


class Refusal(ValueError):
    """Something the user gave cannot be used; the message is complete and readable as it is."""
