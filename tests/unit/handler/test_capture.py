"""What is captured of captioned pictures, and what becomes of the files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handler import caption_handler
from handler.caption_handler import CaptionHandler
from handler.capture import capturing
from handler.capture.capturing import Capture
from handler.capture.folder import CaptureFolder
from handler.capture.settings import CaptureSettings, read_capture
from handler.request_result import RequestResult
from model.image.decode import open_image
from model.image.preprocessing import to_pixels
from model.ood import pooled
from model.refusal import Refusal
from tests import ROOT
from tests.pictures import sound
from tests.unit.handler.test_handler import PNG_TEXT, answer, config_with, context_of

pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PNG = sound()["png"]


@pytest.fixture
def started(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a handler that captures; its thread is ended after the test."""
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    handlers: list[CaptionHandler] = []

    def start(**settings: Any) -> CaptionHandler:
        handler = CaptionHandler()
        threads = torch.get_num_threads()
        handler.initialize(context_of(tiny_artifact, config_with(capture=settings)))
        torch.set_num_threads(threads)
        handlers.append(handler)
        return handler

    yield start
    for handler in handlers:
        assert handler.capture is not None
        handler.capture.close()


def rows_in(folder: Path, kind: str = "capture") -> list[dict[str, Any]]:
    """The rows of all files, oldest first; each file must be whole."""
    files = sorted(folder.glob(f"{kind}-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_captured_rows_say_what_the_replies_said(started: Any, tmp_path: Path):
    captioner = started(folder=str(tmp_path / "captures"), seconds_a_file=3600)
    document = {
        "images": [PNG_TEXT, "bad", {"image": PNG_TEXT, "num_beams": 2, "num_captions": 2}],
        "ood": True,
    }
    rows = [{"body": json.dumps(document).encode()}, {"body": b"no picture"}, {"body": PNG}]
    named = {"Host": "x", "X-Request-Id": "named-by-a-client"}
    (_, several, _), _, (_, plain, _) = answer(captioner, rows, [named, named, {"Host": "x"}])
    captioner.capture.close()
    captured = rows_in(tmp_path / "captures")
    replies = [several["results"][0], several["results"][2], plain]
    assert len(captured) == 3
    for row, reply in zip(captured, replies, strict=True):
        assert row["caption"] == reply["caption"]
        assert row["confidence"] == pytest.approx(reply["confidence"], abs=1e-5)
        assert row["tokens"] == reply["captions"][0]["tokens"]
        assert row["other_captions"] == [each["caption"] for each in reply["captions"][1:]]
        assert abs(row["time"].timestamp() - time.time()) < 60
    assert captured[0]["ood_p_value"] == pytest.approx(replies[0]["ood"]["p_value"], abs=1e-5)
    assert json.loads(captured[1]["options"])["num_beams"] == 2
    assert [row["id"].rpartition("/")[2] for row in captured] == ["0", "2", "0"]
    assert captured[0]["id"][:-2] == captured[1]["id"][:-2] != captured[2]["id"][:-2]
    assert [row["request"] for row in captured] == ["named-by-a-client"] * 2 + [""]
    own = captioner.artifact
    pixels = to_pixels(open_image(PNG, 10**6, own.preprocessing.size).decode(), own.preprocessing)
    expected = pooled(own.encode(pixels[None]))[0].numpy()
    np.testing.assert_allclose(captured[2]["feature"], expected, rtol=1e-4, atol=1e-5)
    metadata = pq.read_schema(next((tmp_path / "captures").iterdir())).metadata
    assert metadata[b"weights_sha256"].decode() == own.info["weights_sha256"]
    assert metadata[b"version"] == b"1.0"
    assert not list((tmp_path / "captures").glob("images-*"))  # unless asked for by name


def test_a_share_is_sampled(started: Any, tmp_path: Path):
    captioner = started(folder=str(tmp_path), sample=0.25, seconds_a_file=3600)
    captioner.capture._random.seed(5)
    for _ in range(10):
        answer(captioner, [{"body": json.dumps({"images": [PNG_TEXT] * 8}).encode()}])
    captioner.capture.close()
    assert 8 <= len(rows_in(tmp_path)) <= 34  # 20 expected of 80; 4 standard deviations


def test_pictures_are_kept_by_name_and_leave_first(started: Any, tmp_path: Path):
    captioner = started(folder=str(tmp_path), images=True, image_days=1, days=10, seconds_a_file=1)
    answer(captioner, [{"body": PNG}])
    captioner.capture.close()
    (row,), (image,) = rows_in(tmp_path), rows_in(tmp_path, "images")
    assert image == {"id": row["id"], "image": PNG}
    two_days = time.time() - 2 * 86400
    for file in tmp_path.iterdir():
        os.utime(file, (two_days, two_days))
    CaptureFolder(tmp_path, 10**9, days=10, image_days=1)
    assert len(rows_in(tmp_path)) == 1
    assert rows_in(tmp_path, "images") == []


def test_files_are_written_by_rows_and_by_time(started: Any, tmp_path: Path):
    captioner = started(folder=str(tmp_path), rows_a_file=2, seconds_a_file=0.5)
    answer(captioner, [{"body": json.dumps({"images": [PNG_TEXT] * 5}).encode()}])
    deadline = time.monotonic() + 30
    while len(rows_in(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(len(pq.read_table(file)) for file in tmp_path.iterdir()) == [1, 2, 2]


def test_a_full_queue_drops_rows_and_never_waits(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(capturing, "LEAST_QUEUE", 2)
    captioner = started(folder=str(tmp_path), rows_a_file=2, seconds_a_file=3600)
    disk_is_slow = threading.Event()
    write = CaptureFolder.write

    def slow(*arguments: Any) -> Path:
        disk_is_slow.wait(60)
        return write(*arguments)

    monkeypatch.setattr(CaptureFolder, "write", slow)
    for _ in range(3):
        ((status, _, _),) = answer(
            captioner, [{"body": json.dumps({"images": [PNG_TEXT] * 4}).encode()}]
        )
        assert status == 200
    disk_is_slow.set()
    captioner.capture.close()
    kept = len(rows_in(tmp_path))
    assert 4 <= kept < 12  # two with the thread, two that waited
    counts = captioner.capture.take_counts()
    assert counts.get("written", 0) == kept or kept == 12 - counts.get("queue_full", 0)


def test_a_folder_that_breaks_is_counted_and_captions_go_on(started: Any, tmp_path: Path):
    folder = tmp_path / "captures"
    captioner = started(folder=str(folder), rows_a_file=1)
    folder.rmdir()
    folder.write_text("no folder any more")
    ((status, _, _),) = answer(captioner, [{"body": PNG}])
    assert status == 200
    captioner.capture.close()
    assert captioner.capture.take_counts() == {"write_failed": 1}


def test_counts_reach_the_metrics(started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    captioner = started(folder=str(tmp_path), rows_a_file=1)
    seen: list[tuple[str, float, str]] = []
    monkeypatch.setattr(
        caption_handler.measures,
        "emit",
        lambda context, name, value, label="": seen.append((name, value, label)),
    )
    answer(captioner, [{"body": PNG}])
    deadline = time.monotonic() + 30
    while not rows_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    answer(captioner, [{"body": b"bad"}])
    assert ("clipcap_capture_rows_total", 1, "written") in seen


WRITER = """
import sys
from pathlib import Path
import torch
from handler.capture.capturing import Capture
from handler.capture.settings import CaptureSettings
from handler.request_result import ImageResult, RequestResult
from handler.requests.caption_request import CaptionRequest
from model.artifact import GeneratedCaption
from model.options import GenerationOptions
capture = Capture(CaptureSettings(sys.argv[1], rows_a_file=20), {"weights_sha256": "x"})
options = GenerationOptions()
written = offered = 0
while True:
    image = ImageResult(torch.zeros(0), options, features=torch.randn(512))
    image.captions = [GeneratedCaption(f"number {offered}", -1.0, 3)]
    capture.offer(None, RequestResult(request=CaptionRequest([b""], [options]), images=[image]))
    counts = capture.take_counts()
    offered += 1 - counts.get("queue_full", 0)
    written += counts.get("written", 0)
    print(written, flush=True)
"""


def test_killed_writers_leave_whole_files_with_all_that_was_acknowledged(tmp_path: Path):
    """Two processes write into one folder until they are killed."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    acknowledged = 0
    for writer in writers:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 200:
                break
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        lines = writer.communicate()[0].splitlines()
        acknowledged += int(lines[-1]) if lines and lines[-1].isdecimal() else 200
    files = list(tmp_path.glob("capture-*.parquet"))
    assert {len(pq.read_table(file)) for file in files} == {20}
    assert len(rows_in(tmp_path)) >= acknowledged >= 400
    ids = [row["id"] for row in rows_in(tmp_path)]
    assert len(set(ids)) == len(ids)
    for left in tmp_path.glob(".unfinished-*"):
        os.utime(left, (0, 0))
    CaptureFolder(tmp_path, 10**9, 30, 30)
    assert not list(tmp_path.glob(".unfinished-*"))


def test_the_oldest_files_leave_when_the_folder_is_full(tmp_path: Path):
    folder = CaptureFolder(tmp_path, max_bytes=50_000, days=30, image_days=30)
    noise = pyarrow.table({"noise": [os.urandom(9000)]})
    written = [folder.write(pq, noise) for _ in range(12)]
    kept = sorted(tmp_path.iterdir())
    assert kept == written[-len(kept) :]
    assert 30_000 < sum(file.stat().st_size for file in kept) <= 50_000
    month = time.time() - 31 * 86400
    os.utime(kept[0], (month, month))
    folder.remove_old()
    assert sorted(tmp_path.iterdir()) == kept[1:]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("here", "it must have keys and values"),
        ({}, ".folder is None"),
        ({"folder": "x", "size": 3}, ".size does not exist; known: folder"),
        ({"folder": "x", "sample": 2}, ".sample is 2; it must be a share, at most 1"),
        ({"folder": "x", "sample": 0}, ".sample is 0; it must be a number above 0"),
        ({"folder": "x", "days": True}, ".days is True; it must be a number above 0"),
        ({"folder": "x", "max_bytes": 10}, ".max_bytes is 10; it must be a whole number, 1000000"),
        ({"folder": "x", "rows_a_file": 1.5}, ".rows_a_file is 1.5; it must be a whole number"),
        ({"folder": "x", "images": "yes"}, ".images is 'yes'; it must be true or false"),
        ({"folder": "x", "images": True}, ".images is true without image_days"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(section: Any, message: str):
    with pytest.raises(Refusal) as caught:
        read_capture(section)
    assert message in str(caught.value)


def test_nothing_is_captured_by_default():
    assert read_capture(None) is None


def test_what_is_missing_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(Refusal, match=r"handler\.capture\.folder .*file.* cannot be written"):
        Capture(CaptureSettings(str(blocked)), {})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Refusal, match=r"pip install 'clipcap\[parquet\]'"):
        Capture(CaptureSettings(str(tmp_path)), {})


def test_pictures_in_memory_are_bounded(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(capturing, "MAX_PICTURE_BYTES", len(PNG) - 1)
    captioner = started(folder=str(tmp_path), images=True, image_days=1)
    answer(captioner, [{"body": PNG}])
    captioner.capture.close()
    assert captioner.capture.take_counts() == {}  # the batch has taken the count
    assert rows_in(tmp_path) == []


def test_a_request_that_failed_has_nothing_to_capture(tmp_path: Path):
    capture = Capture(CaptureSettings(str(tmp_path)), {})
    capture.offer("1", RequestResult())
    capture.close()
    assert rows_in(tmp_path) == []
