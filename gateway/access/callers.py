"""Who asks, until when, and how often it may: what the gateway knows of a request's client.

The door sets the caller of each request for all code that serves it, so that an interface of
another program need not pass it on.
"""

from __future__ import annotations

import asyncio
import dataclasses
from contextvars import ContextVar

from gateway.errors import GatewayError

#: Clients whose buckets are kept before those that are full again are forgotten.
MANY = 10_000


@dataclasses.dataclass(frozen=True)
class Caller:
    """The client of a request.

    Attributes:
        name: The name of its key; its address if no keys are asked for.
        deadline: When its answer is due, on the clock of the event loop.
        rate: Pictures a second that it may send in the long run; 0 for no limit.
        seconds: From when it came to `deadline`.
        request_id: Of the request.
        chose_id: Whether the client gave this id itself.
        wanted: The captioner that the request names, `stable` or `candidate`; empty for any.
        answered_by: The captioners that have answered, of these two; filled in by what asks them.
    """

    name: str
    deadline: float
    rate: float = 0.0
    seconds: float = 0.0
    request_id: str = ""
    chose_id: bool = False
    wanted: str = ""
    answered_by: set[str] = dataclasses.field(default_factory=set, compare=False)


#: Header of requests that name one of two captioners, and of replies: which one it was.
CAPTIONER_HEADER = "X-Captioner"
#: The client of the request that is served now.
CALLER: ContextVar[Caller] = ContextVar("caller")


class Rates:
    """A token bucket for each client: so many tokens flow in a second, up to `burst`.

    A request takes a token for each picture. It passes if there is one token, even if it needs
    more: the bucket then has less than none, and the next request waits longer. So no request is
    too large to pass.

    Args:
        burst: Tokens of a full bucket.
        things: What they are for, in messages.
    """

    def __init__(self, burst: float, things: str = "pictures") -> None:
        self._burst = burst
        self._things = things
        # Client -> its tokens, when they were counted, and how many flow in a second.
        self._buckets: dict[str, tuple[float, float, float]] = {}

    def take(self, caller: Caller, count: int) -> None:
        """Take the tokens of a request.

        Args:
            caller: The client; its `rate` tokens flow in a second, or any number if it is 0.
            count: Tokens to take.

        Raises:
            GatewayError: The client has not one.
        """
        if not caller.rate:
            return
        now = asyncio.get_running_loop().time()
        if len(self._buckets) >= MANY:
            self._forget(now)
        tokens, since, _ = self._buckets.get(caller.name, (self._burst, now, 0.0))
        tokens = min(self._burst, tokens + caller.rate * (now - since))
        if tokens < 1:
            raise GatewayError(
                429,
                "too_many_requests",
                f"{caller.name} may send {caller.rate:g} {self._things} a second; send the request "
                "again later",
                (1 - tokens) / caller.rate,
            )
        self._buckets[caller.name] = (tokens - count, now, caller.rate)

    def _forget(self, now: float) -> None:
        self._buckets = {
            name: (tokens, since, rate)
            for name, (tokens, since, rate) in self._buckets.items()
            if tokens + rate * (now - since) < self._burst
        }
