"""Clients that send pictures to the gateway all the time, and check every reply."""

from __future__ import annotations

import dataclasses
import io
import itertools
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from loadtests.chaos.case import Failed, check, wait_until
from loadtests.comparison import difference
from training.scenes import draw_scene, sample_scene

#: Clients at a time, and seconds that each waits between two requests: the captioner is busy half
#: of the time on two cores, so that a fault meets requests in every state.
CLIENTS, PAUSE = 6, 0.1
#: Seconds until a client tries again when nothing listens.
RECONNECT_SECONDS = 0.2
#: Seconds that a client waits for an answer: longer than any deadline of a gateway.
PATIENCE = 90.0
#: What a request came to, if it did not fail in another way.
ANSWERED, REFUSED = "captioned", "connection refused"


def draw_pictures(count: int, seed: int = 20261129) -> list[bytes]:
    """JPEG files of drawn scenes.

    Args:
        count: How many.
        seed: Equal seeds give equal pictures.
    """
    pictures = []
    for index in range(count):
        scene = sample_scene(random.Random(f"{seed}/{index}"), "test")
        file = io.BytesIO()
        draw_scene(scene, 320, 240).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
    return pictures


@dataclasses.dataclass(frozen=True)
class Sample:
    """One request of a client.

    Attributes:
        begin: When it was sent, by `time.monotonic`.
        seconds: Until its answer.
        outcome: `ANSWERED`, `REFUSED`, or what happened instead.
    """

    begin: float
    seconds: float
    outcome: str


class Clients:
    """Sends pictures, one at a time from each client, from `with` to its end.

    Before, every picture is captioned alone. Under load its reply must be the same: a reply that
    was given to the wrong request of a batch has the status 200 too. A request has a connection of
    its own, so that a connection which the gateway closes between two requests takes none with it.

    Args:
        address: Of the gateway.
        pictures: What is sent, in turn.
        options: Of every request.

    Attributes:
        samples: What became of the requests.
    """

    def __init__(
        self, address: str, pictures: Sequence[bytes], options: Mapping[str, int] | None = None
    ) -> None:
        self.samples: list[Sample] = []
        self._address = address
        self._pictures = pictures
        self._options = dict(options or {})
        self._alone: list[dict[str, Any]] = []
        self._turns = itertools.count()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send_all) for _ in range(CLIENTS)]

    def __enter__(self) -> Clients:
        """Caption each picture alone, then start the clients and wait until they get captions."""
        with self._http() as http:
            for picture in self._pictures:
                reply = self._post(http, picture)
                check(reply.status_code == 200, f"a picture alone got {reply.text[:200]}")
                self._alone.append(reply.json()["results"][0])
        texts = {each["caption"] for each in self._alone}
        check(len(texts) > 1, "all pictures have the same caption, so that replies tell nothing")
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_answers()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Let every client get its last answer."""
        self._end()

    def wait_for_answers(self, seconds: float = 60.0) -> float:
        """Wait until each client could have got the answer to a request sent from now on.

        Returns:
            The seconds that it took.

        Raises:
            Failed: There were not so many answers.
        """
        begin = time.monotonic()
        return wait_until(
            lambda: len(self._since(begin, ANSWERED)) >= CLIENTS,
            seconds,
            "requests that were sent later got no answers",
        )

    @property
    def lost(self) -> list[Sample]:
        """Requests that the gateway accepted and that got no caption."""
        return [each for each in self.samples if each.outcome not in (ANSWERED, REFUSED)]

    @property
    def refused(self) -> list[Sample]:
        """Requests whose connection was refused."""
        return [each for each in self.samples if each.outcome == REFUSED]

    @property
    def slowest(self) -> float:
        """Seconds of the slowest request that got its caption."""
        answered = (each.seconds for each in self.samples if each.outcome == ANSWERED)
        return max(answered, default=0.0)

    def count_as_refused(self, sample: Sample) -> None:
        """Note of a request that was lost that the gateway had not accepted it."""
        place = self.samples.index(sample)
        self.samples[place] = dataclasses.replace(sample, outcome=REFUSED)

    def check_none_lost(self, allow_refused: bool = False) -> None:
        """Raise unless every request got its caption.

        Args:
            allow_refused: Requests whose connection was refused do not count.

        Raises:
            Failed: One did not.
        """
        missing = self.lost + ([] if allow_refused else self.refused)
        if missing:
            kinds = sorted({each.outcome for each in missing})
            raise Failed(f"{len(missing)} of {len(self.samples)} requests lost: {'; '.join(kinds)}")

    def _since(self, begin: float, outcome: str) -> list[Sample]:
        return [s for s in list(self.samples) if s.begin >= begin and s.outcome == outcome]

    def _http(self) -> httpx.Client:
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(timeout=PATIENCE, limits=limits, trust_env=False)

    def _post(self, http: httpx.Client, picture: bytes) -> httpx.Response:
        url = f"{self._address}/v1/captions"
        return http.post(url, content=picture, params=self._options)

    def _send_all(self) -> None:
        with self._http() as http:
            while not self._ended.is_set():
                number = next(self._turns) % len(self._pictures)
                begin = time.monotonic()
                outcome = self._send(http, number)
                self.samples.append(Sample(begin, time.monotonic() - begin, outcome))
                self._ended.wait(RECONNECT_SECONDS if outcome == REFUSED else PAUSE)

    def _send(self, http: httpx.Client, number: int) -> str:
        try:
            reply = self._post(http, self._pictures[number])
        except httpx.ConnectError:
            return REFUSED
        except httpx.TransportError as error:
            return f"no answer ({type(error).__name__})"
        try:
            body = reply.json()
            if reply.status_code != 200:
                return f"{reply.status_code} {body['error']['code']}"
            problem = difference(body["results"][0], self._alone[number])
        except (ValueError, LookupError, TypeError):
            return f"{reply.status_code} with {reply.text[:60]!r}"
        return f"wrong caption: {problem}" if problem else ANSWERED

    def _end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
