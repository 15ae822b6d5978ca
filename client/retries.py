"""When a request is sent again, and after which pause; the same for every client and transport."""

from __future__ import annotations

import random
import threading
import time

from client.errors import CaptionError, ServerUnreachable

#: Seconds before a request is sent again, where the server names none; doubled each time ...
FIRST_PAUSE = 0.25
#: ... up to this.
LONGEST_PAUSE = 15.0


class Retries:
    """The rule of one client, shared by all its requests.

    Args:
        count: How often a request is sent again at most.
        patience: Seconds for which a request is sent again beyond `count`, while a server that has
            answered before is overloaded, or away.
        longest_wait: Seconds; a server that asks for a longer pause is not asked again.

    Attributes:
        answered: Whether the server has answered any request.
        given_up: Set where requests that wait shall fail at once.
    """

    def __init__(self, count: int, patience: float, longest_wait: float) -> None:
        self.count, self.patience, self.longest_wait = count, patience, longest_wait
        self.answered = False
        self.given_up = threading.Event()

    def begin(self) -> Attempts:
        """The attempts of one request."""
        return Attempts(self)


class Attempts:
    """How often one request was sent, and since when."""

    def __init__(self, rule: Retries) -> None:
        self._rule = rule
        self._begin = time.monotonic()
        self._failed = 0
        self._lost = 0

    def pause(self, error: CaptionError) -> float:
        """Seconds to wait before the request is sent again.

        Args:
            error: Why the last attempt failed.

        Raises:
            CaptionError: The same error, if the request is not to be sent again.
        """
        rule = self._rule
        rule.answered = rule.answered or error.status != 0
        wanted = error.retry_after_seconds or 0.0
        own = min(FIRST_PAUSE * 2**self._failed, LONGEST_PAUSE) * random.uniform(0.5, 1.5)
        pause = max(own, wanted)
        self._failed += 1
        if error.may_have_begun:
            self._lost += 1
            again = self._lost == 1 and self._failed <= rule.count
        else:
            again = error.may_be_sent_again and self._failed <= rule.count
            away = isinstance(error, ServerUnreachable) and error.unsent
            if not again and rule.answered and (error.may_be_sent_again or away):
                again = time.monotonic() + pause - self._begin <= rule.patience
        if not again or wanted > rule.longest_wait:
            raise error
        return pause
