"""What Locust runs: the users of a profile, its stages, and a record of every request.

`loadtests/__main__.py` starts Locust with this file. The variable LOADTEST_RUN names a JSON file
with all that it needs; see `run.py`. Records and stages are written when Locust ends.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, events, task

from loadtests.expected import Expected, WrongReply
from loadtests.figures import captions_per_second
from loadtests.kinds import KINDS, Built, Options, bad_requests, built, error_of
from loadtests.profiles import Stage
from loadtests.records import Outcome, Record, Span, write_records
from loadtests.run import Run

#: Where requests arrive at a rate, a user sends one in this many times the time that a caption took
#: in the first stage, and in this many seconds at least. Its reply must be there by then, or the
#: rate is missed.
PATIENCE, LEAST_SECONDS = 3.0, 2.0
#: Most users that begin in a second.
SPAWN_RATE = 100.0
logging.getLogger("httpx").setLevel(logging.WARNING)


class Bench:
    """The state that all users share.

    Args:
        run: What to do.

    Attributes:
        records: Of the requests that have their reply.
        spans: The stages that have begun.
        every: Seconds between two requests of a user while requests arrive at a rate; 0 while
            users wait for replies.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.choice = random.Random(run.seed)
        self.records: list[Record] = []
        self.spans: list[Span] = []
        self.every = 0.0
        self.clients = itertools.cycle(_spread(run.profile.clients))
        self._built: dict[tuple[str, tuple[str, ...], str], Built] = {}
        self.expected = Expected(run.pictures, run.torchserve, self.choice)
        first = next(iter(self.expected.pictures.values()))
        self.bad = {
            name: list(bad_requests(name, first).items()) for name in ("bad", "predictions_bad")
        }

    def built(self, kind: str, names: tuple[str, ...], options: Options) -> Built:
        """A request; the same one is written once, so that sending costs little."""
        key = (kind, names, json.dumps(options))
        if key not in self._built:
            pictures = [self.expected.pictures[name] for name in names]
            self._built[key] = built(KINDS[kind], pictures, options)
        return self._built[key]

    def names(self, count: int) -> tuple[str, ...]:
        """Pictures for a request: one by chance, and those that follow it."""
        known = list(self.expected.pictures)
        begin = self.choice.randrange(len(known))
        return tuple(known[(begin + n) % len(known)] for n in range(count))


@functools.cache
def bench() -> Bench:
    """The state of this process."""
    return Bench(Run.read(Path(os.environ["LOADTEST_RUN"])))


@events.init.add_listener
def prepare(**_: Any) -> None:
    """Caption the pictures alone, before the load begins."""
    try:
        bench()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


@events.quitting.add_listener
def write(**_: Any) -> None:
    """Write the records and the stages."""
    run = bench().run
    write_records(run.records, bench().records)
    run.spans.write_text(json.dumps([dataclasses.asdict(each) for each in bench().spans]))


class Client(FastHttpUser):
    """Sends requests of the profile's kinds and checks every reply.

    It waits for a reply before it sends the next request. If it is refused, it comes again when it
    was told to. In a stage with a rate it sends at its time, whatever became of the last request.
    """

    def on_start(self) -> None:
        """Take a key."""
        self.name = next(bench().clients)
        self.pause = 0.0
        self.due: float | None = None  # when the next request is sent, if they arrive at a rate
        if bench().every:
            time.sleep(self.wait_time())

    def wait_time(self) -> float:
        """Seconds until the next request."""
        if every := bench().every:
            # Not Locust's `constant_throughput`: it counts from the start of a user, so that users
            # who start together would send together for ever.
            now = time.perf_counter()
            begin = now + every * (random.random() - 1)
            self.due = max(now, (begin if self.due is None else self.due) + every)
            return self.due - now
        pause, self.pause = self.pause, 0.0
        return pause

    @task
    def ask(self) -> None:
        """Send a request of a kind chosen by chance."""
        kinds, choice = bench().run.profile.kinds, bench().choice
        [name] = choice.choices(list(kinds), list(kinds.values()))
        kind = KINDS[name]
        if name in bench().bad:
            which, bad = choice.choice(bench().bad[name])
            request = Built(kind.path, bad.body, {"content-type": "application/octet-stream"})

            def check(status: int, body: bytes) -> int:
                error = error_of(body)
                seen = (status, error.get("status"), error.get("code"))
                if seen != (bad.status, bad.status, bad.code):
                    raise WrongReply(f"{which} gave {seen}, not {(bad.status, bad.code)}")
                return 0

        else:
            names, options = bench().names(kind.pictures), choice.choice(kind.options)
            request = bench().built(name, names, options)

            def check(status: int, body: bytes) -> int:
                if status != 200:
                    raise WrongReply(f"{status} {body!r:.100}")
                try:
                    seen = kind.read(body)
                except (ValueError, LookupError, TypeError) as error:
                    raise WrongReply(f"not a reply of {name}: {error!r:.100}") from None
                return bench().expected.check(list(names), options, seen)

        self._send(name, request, check)

    def _send(self, kind: str, request: Built, check: Callable[[int, bytes], int]) -> None:
        """Send a request, and record what became of it."""
        headers = dict(request.headers)
        if key := bench().run.keys.get(self.name):
            headers["X-API-Key"] = key
        with self.client.post(
            request.path, data=request.body, headers=headers, name=kind, catch_response=True
        ) as reply:
            outcome, ties, problem = self._outcome(reply, check)
            if outcome == "answered":
                reply.success()
            else:
                reply.failure(f"{outcome}: {problem or 'overloaded'}"[:200])
            sent, ms = reply.request_meta["start_time"], reply.request_meta["response_time"]
            status = reply.status_code
        bench().records.append(Record(sent, ms, kind, self.name, status, outcome, ties, problem))

    def _outcome(self, reply: Any, check: Callable[[int, bytes], int]) -> tuple[Outcome, int, str]:
        """What became of a request, how many captions stand for others, and what is wrong."""
        content = reply.content or b""
        if reply.status_code == 503 and error_of(content).get("code") == "overloaded":
            # Not all that were refused together come again together.
            self.pause = float(reply.headers["Retry-After"]) * (1 + random.random())
            return "refused", 0, ""
        if reply.status_code == 0 or reply.status_code >= 500:
            return "unanswered", 0, f"{reply.status_code} {content!r:.100} {reply.error or ''}"
        try:
            return "answered", check(reply.status_code, content), ""
        except WrongReply as error:
            return "wrong", 0, str(error)


class Stages(LoadTestShape):
    """The stages of the profile, one after the other; Locust asks every second."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0
        self._users = 0

    def tick(self) -> tuple[int, float] | None:
        """How many users there shall be, and how many of them begin in a second at most."""
        now = time.time()
        stages = bench().run.profile.stages
        if self._next and not self._is_over(stages[self._next - 1], now):
            return self._users, SPAWN_RATE
        if self._next:
            bench().spans[-1].end = now
        if self._next == len(stages):
            return None
        stage = stages[self._next]
        self._next += 1
        self._users, bench().every = stage.users, 0.0
        if stage.times_peak:
            self._arrive(stage.times_peak, stages[0].users)
        wanted = self._users / bench().every if bench().every else 0.0
        bench().spans.append(Span(stage.name, now, now + stage.settle_seconds, 0.0, wanted))
        return self._users, SPAWN_RATE

    def _arrive(self, times_peak: float, users: int) -> None:
        """Let requests arrive at a multiple of the rate of captions in the first stage.

        Args:
            times_peak: The multiple.
            users: Of the first stage.
        """
        peak = captions_per_second(bench().records, bench().spans[0])
        peak = max(peak, 0.1)  # without a caption the run fails by its figures
        # By Little's law a caption took users / peak seconds in the first stage.
        bench().every = max(LEAST_SECONDS, PATIENCE * users / peak)
        self._users = math.ceil(times_peak * peak * bench().every)

    def _is_over(self, stage: Stage, now: float) -> bool:
        begin = bench().spans[-1].begin
        if stage.seconds:
            return now - begin >= stage.seconds
        return sum(each.begin >= begin for each in bench().records) >= stage.requests


def _spread(parts: Mapping[str, int]) -> list[str]:
    """Each name as often as its part says, mixed evenly."""
    places = [((n + 0.5) / part, name) for name, part in parts.items() for n in range(part)]
    return [name for _, name in sorted(places)]
