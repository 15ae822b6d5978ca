"""The command in a process of its own: killed, asked to end, waiting, measured, on a terminal."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.picture_peer import Peer, caption_of, picture_peer


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def command(peer: Peer, *words: object) -> list[str]:
    return [sys.executable, "-m", "client", "--address", peer.address, *map(str, words)]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(300):
        (folder / f"{n:03}.jpg").write_text(f"picture {n}")
    return folder


def wait_for(peer: Peer, count: int) -> None:
    end = time.monotonic() + 60
    while sum(peer.asked.values()) < count:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_run_that_is_killed_again_and_again_loses_nothing(peer: Peer, many: Path, tmp_path: Path):
    peer.delay = 0.01
    outputs = ["--text", "--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl"]
    for killed in (40, 120, 200):
        with subprocess.Popen(command(peer, many, *outputs, "--jobs", "4"), cwd=ROOT) as process:
            wait_for(peer, killed)
            process.kill()
    with (tmp_path / "a.csv").open("ab") as file:  # what a power cut may leave
        file.write(b'"half a row')
    done = subprocess.run(command(peer, many, *outputs), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "a.csv: an unfinished record at its end was taken off" in done.stderr
    found = {path.name: caption_of(path.read_text()) for path in sorted(many.glob("*.jpg"))}
    for records in (rows(tmp_path / "a.csv"), lines(tmp_path / "a.jsonl")):
        assert len(records) == 300
        assert {Path(each["file"]).name: each["caption"] for each in records} == found
    for name, caption in found.items():
        assert (many / name).with_suffix(".txt").read_text() == f"{caption}\n"
    # Each kill costs the pictures that were on their way: 4 x --jobs at most.
    assert sum(peer.asked.values()) <= 300 + 3 * 16


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_end_writes_what_it_has_and_goes_on_later(
    peer: Peer, many: Path, tmp_path: Path, number: int, status: int
):
    peer.delay = 0.01
    words = command(peer, many, "--jsonl", tmp_path / "a.jsonl", "--jobs", "4")
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(peer, 40)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "interrupted; the same command goes on from here" in err
    # What was sent is written too, so that nothing is asked twice.
    assert len(lines(tmp_path / "a.jsonl")) == sum(peer.asked.values()) < 300
    assert subprocess.run(words, cwd=ROOT, capture_output=True).returncode == 0
    assert set(peer.asked.values()) == {1}
    assert len(lines(tmp_path / "a.jsonl")) == 300


def test_a_run_that_waits_for_an_overloaded_server_ends_when_it_is_asked(
    peer: Peer, many: Path, tmp_path: Path
):
    for file in many.iterdir():
        file.write_text("busy 99")
    peer.retry_after = "60"
    words = command(peer, many, "--jsonl", tmp_path / "a.jsonl", "--jobs", "4")
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(peer, 4)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "0 captioned, 0 failed" in err
    assert lines(tmp_path / "a.jsonl") == []


def test_a_second_signal_ends_a_run_at_once(peer: Peer, many: Path, tmp_path: Path):
    peer.delay = 30
    words = command(peer, many, "--jsonl", tmp_path / "a.jsonl")
    with subprocess.Popen(words, cwd=ROOT) as process:
        wait_for(peer, 8)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_a_server_that_is_started_again_in_the_middle_costs_no_picture(many: Path, tmp_path: Path):
    with picture_peer() as first:
        first.delay = 0.01
        words = command(first, many, "--jsonl", tmp_path / "a.jsonl", "--jobs", "4")
        process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        wait_for(first, 60)
    time.sleep(3)  # longer than three retries take
    with process, picture_peer(int(first.address.rpartition(":")[2])):
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(lines(tmp_path / "a.jsonl")) == 300


def peak_kilobytes(peer: Peer, folder: Path, out: Path) -> int:
    """The most memory that the command takes. `getrusage` would count that of this process too."""
    code = (
        "import re, sys\n"
        "from client.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
        "sys.exit(status)\n"
    )
    words = ["--address", peer.address, str(folder), "--recursive", "--jsonl", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_the_number_of_pictures(peer: Peer, tmp_path: Path):
    (tmp_path / "one.jpg").write_bytes(b"a" * 20_000)
    peaks = {}
    for count in (300, 3000):
        for n in range(count):
            path = tmp_path / str(count) / str(n // 500) / f"a picture of a holiday {n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(tmp_path / "one.jpg", path)
        peaks[count] = peak_kilobytes(peer, tmp_path / str(count), tmp_path / f"{count}.jsonl")
        assert len((tmp_path / f"{count}.jsonl").read_text().splitlines()) == count
    assert peaks[3000] - peaks[300] < 4000, peaks


def test_a_terminal_shows_how_many_how_fast_and_how_long(peer: Peer, many: Path, tmp_path: Path):
    peer.delay = 0.02
    main_end, other_end = pty.openpty()
    words = command(peer, many, "--jsonl", tmp_path / "a.jsonl", "--jobs", "4")
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(main_end, 4096)
            except OSError:  # nobody writes any more
                return
            shown.extend(part)

    reader = threading.Thread(target=read)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(words, cwd=ROOT, stderr=other_end, env=environment) as process:
        os.close(other_end)
        reader.start()
        assert process.wait(timeout=60) == 0
    reader.join(10)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"captioning .*[1-9]\d*/300 [0-9.]+/s 0:00:0\d", text)
