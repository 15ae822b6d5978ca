"""The order in which pictures go to TorchServe: a bounded queue, shared fairly by the clients.

Only as many pictures are in TorchServe as it needs to fill its batches. The others wait here, where
the clients take turns: the picture of a client that sends one does not wait for the hundred of a
client that came before. A picture that waits here and whose client leaves, or whose deadline
passes, costs the captioner nothing.

A client may hold as many pictures here as there are free places left. So a client that is alone
gets half of all places, and one that comes later still finds room.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator

from gateway.errors import GatewayError


class FairQueue:
    """Places for pictures: some in TorchServe, the others waiting for one of those.

    Args:
        limit: Most pictures here, those in TorchServe included.
        at_once: Most pictures in TorchServe.
    """

    def __init__(self, limit: int, at_once: int) -> None:
        self._limit = limit
        self._at_once = at_once
        self._held: dict[str, int] = {}  # client -> its pictures here; never 0
        # Client -> who of it waits. The client whose turn is next comes first.
        self._turns: dict[str, deque[asyncio.Future[None]]] = {}
        self._alone: deque[asyncio.Future[None]] = deque()
        self._serving = 0
        self._one_is_alone = False

    @property
    def held(self) -> int:
        """How many pictures are here."""
        return sum(self._held.values())

    @property
    def waiting(self) -> int:
        """How many of them are not in TorchServe."""
        return self.held - self._serving

    def refusal(self, client: str, pictures: int, patience: float) -> GatewayError | None:
        """Why there are no places for the pictures of a request; None if there are.

        Args:
            client: Whose request it is.
            pictures: How many.
            patience: Seconds to name in the error.
        """
        held = self.held
        own, free = self._held.get(client, 0), self._limit - held
        if not held or own + pictures <= free:
            return None
        share = f"; {own} of them are yours" if own else ""
        return GatewayError(
            503,
            "overloaded",
            f"{held} pictures wait already{share}; the limit is {self._limit}, and a client "
            "may have as many as places are free; send the request again later",
            patience,
        )

    @contextlib.contextmanager
    def hold(self, client: str, pictures: int, patience: float) -> Iterator[None]:
        """Keep places for the pictures of a request while the `with` block runs.

        If nothing else is here, a request gets places however large it is.

        Args:
            client: Whose request it is.
            pictures: How many.
            patience: Seconds to name in the error.

        Raises:
            GatewayError: There are not so many places left, or the client has its share.
        """
        if error := self.refusal(client, pictures, patience):
            raise error
        self._held[client] = self._held.get(client, 0) + pictures
        try:
            yield
        finally:
            self._held[client] -= pictures
            if not self._held[client]:
                del self._held[client]

    async def enter(self, client: str) -> None:
        """Wait until a picture of a client may go to TorchServe; `leave` gives its place back."""
        if self._one_is_alone or self._alone or self._turns or self._serving >= self._at_once:
            waiter = asyncio.get_running_loop().create_future()
            self._turns.setdefault(client, deque()).append(waiter)
            await self._wait(waiter)
        else:
            self._serving += 1

    async def enter_alone(self) -> None:
        """Wait until nothing is in TorchServe; nothing else goes there until `leave`."""
        waiter = asyncio.get_running_loop().create_future()
        self._alone.append(waiter)
        self._give()
        await self._wait(waiter)

    def leave(self) -> None:
        """Give back the place of a picture that was in TorchServe."""
        self._serving -= 1
        self._one_is_alone = False  # if one was, it was the one that leaves
        self._give()

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._give()  # the others may have waited for this one
            else:
                self.leave()  # it had got its place just before
            raise

    def _give(self) -> None:
        """Give free places in TorchServe to those whose turn it is."""
        while self._alone and self._alone[0].cancelled():
            self._alone.popleft()
        if self._alone:
            if not self._serving:
                self._one_is_alone = True
                self._serving = 1
                self._alone.popleft().set_result(None)
            return
        while self._turns and self._serving < self._at_once and not self._one_is_alone:
            client = next(iter(self._turns))
            waiters = self._turns.pop(client)
            waiter = waiters.popleft()
            if waiters:
                self._turns[client] = waiters  # behind the other clients
            if not waiter.cancelled():
                self._serving += 1
                waiter.set_result(None)
