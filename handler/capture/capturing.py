"""Takes rows from the handler and writes them to Parquet in a thread of its own.

A reply never waits for the disk: rows go into a bounded queue, and when it is full they are dropped
and counted. A process that is killed loses the rows that it has not written yet: at most
`rows_a_file` in the queue (`LEAST_QUEUE` at least) and as many that the thread has taken, and none
that is older than `seconds_a_file` unless the disk is slow.
"""

from __future__ import annotations

import atexit
import collections
import logging
import queue
import random
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handler.capture.folder import IMAGES, CaptureFolder
from handler.capture.rows import CapturedRow, captured_row, image_schema, schema, table
from handler.capture.settings import CaptureSettings
from handler.request_result import RequestResult
from model.refusal import Refusal

logger = logging.getLogger(__name__)

#: What becomes of a row, as it is counted.
OUTCOMES = ("written", "queue_full", "write_failed", "images_failed")
#: Fewest rows that may wait: those of a few batches.
LEAST_QUEUE = 256
#: Most bytes of pictures in memory; a row whose picture does not fit is dropped.
MAX_PICTURE_BYTES = 64_000_000
#: Seconds that the end of the process waits for the last file.
LAST_FILE_SECONDS = 10.0


class Capture:
    """Captures a sample of what a worker captions.

    Args:
        settings: Where, how much and how long.
        metadata: Of the captioner: `model`, `version`, `weights_sha256`.

    Raises:
        Refusal: pyarrow is not installed, or the folder cannot be written.
    """

    def __init__(self, settings: CaptureSettings, metadata: dict[str, str]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise Refusal(
                "handler.capture writes Parquet and needs pyarrow: pip install 'clipcap[parquet]', "
                "or remove handler.capture from model-config.yaml"
            ) from None
        self._arrow: Any = pyarrow
        self._parquet: Any = pyarrow.parquet
        self._settings = settings
        self._schema = schema(pyarrow, metadata)
        self._image_schema = image_schema(pyarrow, metadata)
        image_days = settings.image_days if settings.images else settings.days
        try:
            self._folder = CaptureFolder(
                Path(settings.folder), settings.max_bytes, settings.days, image_days or 0.0
            )
        except OSError as error:
            raise Refusal(
                f"handler.capture.folder {settings.folder} cannot be written: {error.strerror}"
            ) from None
        self._random = random.Random()
        self._queue: queue.Queue[CapturedRow | None] = queue.Queue(
            max(settings.rows_a_file, LEAST_QUEUE)
        )
        self._counts: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._picture_bytes = 0  # in the queue and with the thread
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def offer(self, request_id: str | None, result: RequestResult, named: str = "") -> None:
        """Capture a sample of the captioned pictures of a request; never waits.

        Args:
            request_id: The id that the request has in this server; None for a new one.
            result: The request; one that failed has nothing to capture.
            named: What names it in logs; several requests may have the same name, if one request
                to a gateway became several.
        """
        if result.failure is not None or result.request is None:
            return
        request_id = request_id or str(uuid.uuid4())
        for number, image in enumerate(result.images):
            if image.failure is not None or not image.captions:
                continue
            if self._random.random() >= self._settings.sample:
                continue
            picture = result.request.pictures[number] if self._settings.images else None
            kept = bytes(picture) if isinstance(picture, bytes | bytearray) else None
            if not self._fits(len(kept or b"")):
                self._count("queue_full", 1)
                continue
            try:
                self._queue.put_nowait(captured_row(request_id, number, image, kept, named))
            except queue.Full:
                self._fits(-len(kept or b""))
                self._count("queue_full", 1)

    def _fits(self, size: int) -> bool:
        """Take room for a picture, or give it back; False if there is not enough."""
        with self._lock:
            if size > 0 and self._picture_bytes + size > MAX_PICTURE_BYTES:
                return False
            self._picture_bytes += size
            return True

    def take_counts(self) -> dict[str, int]:
        """What became of rows since the last call: an outcome of `OUTCOMES` -> rows."""
        with self._lock:
            counts, self._counts = self._counts, collections.Counter()
        return dict(counts)

    def close(self) -> None:
        """Write what has been taken, and stop."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=LAST_FILE_SECONDS)
            except queue.Full:
                return
            self._thread.join(LAST_FILE_SECONDS)
        atexit.unregister(self.close)

    def _run(self) -> None:
        """Collect rows and write a file when there are enough, or when the first has waited."""
        rows: list[CapturedRow] = []
        due = 0.0
        while True:
            try:
                waiting = max(0.0, due - time.monotonic()) if rows else None
                row = self._queue.get(timeout=waiting)
            except queue.Empty:
                self._write(rows)
                rows = []
                continue
            if row is None:
                self._write(rows)
                return
            if not rows:
                due = time.monotonic() + self._settings.seconds_a_file
            rows.append(row)
            full = self._picture_bytes > MAX_PICTURE_BYTES / 2
            if full or len(rows) >= self._settings.rows_a_file:
                self._write(rows)
                rows = []

    def _write(self, rows: Sequence[CapturedRow]) -> None:
        """Write one file of rows, and one of their pictures if those are kept."""
        if not rows:
            return
        try:
            self._folder.write(self._parquet, table(self._arrow, rows, self._schema))
            self._count("written", len(rows))
        except Exception:  # of any kind: captioning goes on without the rows
            logger.exception("capture: %d rows could not be written", len(rows))
            self._count("write_failed", len(rows))
        pictures = {row.columns["id"]: row.picture for row in rows if row.picture is not None}
        if not pictures:
            return
        try:
            columns = {"id": list(pictures), "image": list(pictures.values())}
            images = self._arrow.Table.from_pydict(columns, schema=self._image_schema)
            self._folder.write(self._parquet, images, IMAGES)
        except Exception:  # the same
            logger.exception("capture: %d pictures could not be written", len(pictures))
            self._count("images_failed", len(pictures))
        finally:
            self._fits(-sum(len(picture) for picture in pictures.values()))

    def _count(self, outcome: str, rows: int) -> None:
        with self._lock:
            self._counts[outcome] += rows
