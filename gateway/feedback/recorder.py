"""A thread that writes to the database of feedback, so that no caption waits for it.

Answers are written together, `FLUSH_SECONDS` after the first of them, and at once when a feedback
comes, which may be about one of them. While the database is down they wait here, `MOST_WAITING` at
most; then the oldest are dropped and counted, and captions go on. A feedback is refused meanwhile,
and its client told when to send it again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import logging
import threading
import time
from concurrent.futures import Future

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from client import CaptionResult
from feedback import answers, opinions, schema
from feedback.database import WRITERS, described, open_database, reason, writing
from feedback.erasing import expire
from feedback.errors import DatabaseRefused, OpinionRefused
from feedback.opinions import Limits, Opinion, Stored
from gateway.access.callers import Caller
from gateway.errors import GatewayError
from gateway.feedback.measures import FeedbackMeasures
from gateway.pictures.reading import decode_base64
from gateway.settings import PREFIX, Settings, SettingsError

logger = logging.getLogger(__name__)

#: Seconds that answers wait for others, to be written with them.
FLUSH_SECONDS = 0.5
#: Answers that wait for a database that is down; 20000 take about 20 MB.
MOST_WAITING = 20_000
#: Feedback that waits for its turn.
MOST_FEEDBACK = 64
#: Seconds that a feedback waits for the database.
FEEDBACK_SECONDS = 10.0
#: Seconds before a database that is down is asked again.
PAUSE_SECONDS = 5.0
#: Seconds between two looks for what is too old.
PRUNE_SECONDS = 60.0
#: What PostgreSQL says where it refuses a connection for a reason that passes.
_PASSING = ("starting up", "shutting down", "recovery mode", "too many", "connection slots")
#: Bytes of a picture that are hashed within the event loop; it takes 0.2 to 1 ms.
SMALL = 1 << 18


@dataclasses.dataclass(frozen=True)
class _Waiting:
    opinion: Opinion
    result: Future[Stored]


class Recorder:
    """Writes what was answered and what people say of it.

    Args:
        settings: The database and the limits.
        measures: What is counted.

    Attributes:
        limits: What is taken.
        measures: As given.

    Raises:
        SettingsError: The database cannot be used. One that does not answer is no such error: it
            may be starting, and captions need none.
    """

    def __init__(self, settings: Settings, measures: FeedbackMeasures) -> None:
        self._settings = settings
        self.measures = measures
        self.limits = Limits(
            settings.feedback_hours,
            settings.feedback_text,
            settings.feedback_rows,
            settings.feedback_picture_bytes,
        )
        self._changed = threading.Condition()
        self._answers: collections.deque[answers.Answer] = collections.deque()
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._stopped = False
        self._has_tables = False
        self._down_until = 0.0
        self._pruned = -PRUNE_SECONDS
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        measures.answers_waiting.set_function(lambda: len(self._answers))
        try:
            self._engine = open_database(settings.feedback, create=True)
            self._make_tables()
        except DatabaseRefused as error:
            raise SettingsError(f"{PREFIX}FEEDBACK: {error}") from None
        except SQLAlchemyError as error:
            if self._engine.dialect.name == "sqlite" or _is_refusal(error):
                raise SettingsError(
                    f"{PREFIX}FEEDBACK: {described(self._engine.url)} cannot be used: "
                    f"{_reason(error)}"
                ) from None
            self._note_down(error)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end; a database that is down loses it."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(FEEDBACK_SECONDS)
        self._engine.dispose()

    async def record(
        self, caller: Caller, picture_index: int, result: CaptionResult, picture: bytes
    ) -> None:
        """Note that a picture was captioned. It takes no time but that of the picture's hash.

        Args:
            caller: Whose request it is.
            picture_index: Of the picture in the request.
            result: The captions.
            picture: Its file, or the base64 text of it that was sent.
        """
        if len(picture) > SMALL:
            sha256 = await asyncio.to_thread(_sha256, picture)
        else:
            sha256 = _sha256(picture)
        answer = answers.Answer(
            request_id=caller.request_id,
            owner=answers.owner_of(caller.request_id, caller.name, caller.chose_id),
            picture_index=picture_index,
            answered=time.time(),
            model=result.model[:200],
            version=result.version[:200],
            captions=answers.served(result.captions),
            sha256=sha256,
        )
        with self._changed:
            self._answers.append(answer)
            first = len(self._answers) == 1
            self._drop_surplus()
            if first:  # else the thread knows that there are some
                self._changed.notify()

    async def submit(self, opinion: Opinion) -> Stored:
        """Store what a client says of a caption.

        Raises:
            OpinionRefused: It is not taken.
            GatewayError: The database is down, or too many wait for it.
        """
        opinions.check(opinion, self.limits)
        result: Future[Stored] = Future()
        with self._changed:
            if len(self._waiting) >= MOST_FEEDBACK:
                raise _unavailable(PAUSE_SECONDS)
            self._waiting.append(_Waiting(opinion, result))
            self._changed.notify()
        try:
            async with asyncio.timeout(FEEDBACK_SECONDS):
                return await asyncio.wrap_future(result)
        except TimeoutError:
            raise _unavailable(PAUSE_SECONDS) from None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, PRUNE_SECONDS)
                if not (self._waiting or self._stopped):
                    self._changed.wait_for(lambda: self._waiting or self._stopped, FLUSH_SECONDS)
                batch, self._answers = self._answers, collections.deque()
                asked, self._waiting = self._waiting, collections.deque()
                stopped = self._stopped
            try:
                self._work(batch, asked)
            except Exception:  # a fault here: captions go on, and so does this thread
                logger.exception("feedback: %d answers are lost", len(batch))
                self.measures.answers_lost.inc(len(batch))
                for each in asked:
                    if not each.result.done():
                        each.result.set_exception(_unavailable(PAUSE_SECONDS))
            if stopped:
                self.measures.answers_lost.inc(len(self._answers))
                return

    def _has_work(self) -> bool:
        return bool(self._answers or self._waiting or self._stopped)

    def _work(
        self, batch: collections.deque[answers.Answer], asked: collections.deque[_Waiting]
    ) -> None:
        """Write a batch of answers, then what was said, and delete what is too old."""
        if time.monotonic() >= self._down_until or self._stopped:
            try:
                self._make_tables()
                has_written = bool(batch or asked)
                batch = self._write(batch)
                for each in asked:
                    if each.result.set_running_or_notify_cancel():
                        self._answer(each)
                if self._prune() or has_written:
                    self._note_up()
                return
            except (OperationalError, InterfaceError, DatabaseRefused) as error:
                self._note_down(error)
        pause = max(1.0, self._down_until - time.monotonic())
        for each in asked:
            if not each.result.done():
                each.result.set_exception(_unavailable(pause))
        with self._changed:
            self._answers.extendleft(reversed(batch))
            self._drop_surplus()
            # The condition of the loop holds, so wait here for the next try.
            self._changed.wait_for(lambda: self._waiting or self._stopped, pause)

    def _make_tables(self) -> None:
        if not self._has_tables:
            if schema.upgrade(self._engine):
                logger.info("feedback: made the tables of %s", described(self._engine.url))
            self._has_tables = True

    def _write(self, batch: collections.deque[answers.Answer]) -> collections.deque[answers.Answer]:
        """Write answers; returns those that are left, which are none.

        Raises:
            OperationalError: The database is down; the answers may be written later.
        """
        if batch:
            try:
                with writing(self._engine) as connection:
                    answers.record(connection, batch)
            except (OperationalError, InterfaceError):
                raise
            except DBAPIError as error:  # it would be refused again
                logger.error("feedback: %d answers are lost: %s", len(batch), reason(error))
                self.measures.answers_lost.inc(len(batch))
        return collections.deque()

    def _answer(self, waiting: _Waiting) -> None:
        """Store one opinion and say what became of it.

        Raises:
            OperationalError: The database is down.
        """
        try:
            with writing(self._engine, WRITERS) as connection:
                stored = opinions.add(connection, waiting.opinion, self.limits, time.time())
        except OpinionRefused as error:
            waiting.result.set_exception(error)
        except (OperationalError, InterfaceError):
            waiting.result.set_exception(_unavailable(PAUSE_SECONDS))
            raise
        except DBAPIError as error:
            logger.error("feedback: one is refused by the database: %s", reason(error))
            waiting.result.set_exception(_unavailable(PAUSE_SECONDS))
        else:
            waiting.result.set_result(stored)

    def _prune(self) -> bool:
        """Delete what is too old, once a minute; returns whether it was time to."""
        if time.monotonic() < self._pruned + PRUNE_SECONDS:
            return False
        self._pruned = time.monotonic()
        settings, now = self._settings, time.time()
        with writing(self._engine, WRITERS) as connection:
            answers.prune(connection, settings.feedback_hours, settings.feedback_answers, now)
            rows, pictures = expire(connection, settings.feedback_days, now)
        if rows:
            logger.info("feedback: deleted %d that were too old, and %d pictures", rows, pictures)
        return True

    def _drop_surplus(self) -> None:
        while len(self._answers) > MOST_WAITING:
            self._answers.popleft()
            self.measures.answers_lost.inc()

    def _note_up(self) -> None:
        if self._down_until:
            logger.info("feedback: %s answers again", described(self._engine.url))
        self._down_until = 0.0
        self.measures.database_up.set(1)

    def _note_down(self, error: Exception) -> None:
        if not self._down_until:
            where = described(self._engine.url)
            logger.error(
                "feedback: %s cannot be used, captions go on without: %s", where, _reason(error)
            )
        self._down_until = time.monotonic() + PAUSE_SECONDS
        self.measures.database_up.set(0)


def _is_refusal(error: Exception) -> bool:
    """Whether PostgreSQL answered, and refuses this user or database for good."""
    said = _reason(error)
    return "FATAL" in said and not any(words in said for words in _PASSING)


def _reason(error: Exception) -> str:
    return reason(error) if isinstance(error, DBAPIError) else str(error)


def _unavailable(seconds: float) -> GatewayError:
    return GatewayError(
        503,
        "feedback_unavailable",
        "the database of feedback does not answer; send the feedback again later; captions do not "
        "need it",
        seconds,
    )


def _sha256(picture: bytes) -> str:
    """Of the picture file, also where it came as base64 text."""
    if picture.isascii():
        with contextlib.suppress(GatewayError):  # it may be a picture of ASCII bytes
            picture = decode_base64(picture.decode(), "the picture")
    return hashlib.sha256(picture).hexdigest()
