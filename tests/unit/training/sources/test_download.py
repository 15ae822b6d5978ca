"""Downloads are byte-equal after any network error, or fail with the next step in the message."""

from __future__ import annotations

import errno
import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.refusal import Refusal
from tests.file_server import FileServer, file_server
from training.sources import download as module
from training.sources.download import download, downloaded_bytes, look_up

BODY = random.Random(3).randbytes(3_500_000)
OTHER = random.Random(4).randbytes(3_500_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(module, "RETRY_DELAYS", (0, 0, 0))
    monkeypatch.setattr(module, "TIMEOUT", 2)
    with file_server() as state:
        state.files["/a.zip"] = BODY
        state.etags["/a.zip"] = '"one"'
        yield state


def fetch(server: FileServer, folder: Path, sha256: str | None = SHA256) -> list[int]:
    """Download, and what the progress was told."""
    told: list[int] = []
    download(look_up(f"{server.address}/a.zip"), folder / "down" / "a.zip", sha256, told.append)
    return told


def ranges(server: FileServer) -> list[str | None]:
    return [wanted for method, _, wanted in server.asked if method == "GET"]


def assert_whole(folder: Path, body: bytes = BODY) -> None:
    assert (folder / "down" / "a.zip").read_bytes() == body
    assert [file.name for file in (folder / "down").iterdir()] == ["a.zip"]


def test_a_file_is_downloaded_and_progress_is_reported(server: FileServer, tmp_path: Path):
    told = fetch(server, tmp_path)
    assert_whole(tmp_path)
    assert told == sorted(told)
    assert told[-1] == len(BODY)
    assert ranges(server) == [None]


def test_a_download_resumes_where_the_connection_was_cut(server: FileServer, tmp_path: Path):
    server.cuts = [1_200_000, 0, 0, 1_100_000, 0, 0]
    told = fetch(server, tmp_path)
    assert_whole(tmp_path)
    assert len(ranges(server)) == 7
    starts = [int(wanted[6:-1]) for wanted in ranges(server)[1:] if wanted]
    assert len(starts) == 6
    assert starts == sorted(starts)
    assert starts[0] > 0
    assert told == sorted(told)


def test_a_server_without_ranges_sends_the_whole_file_again(server: FileServer, tmp_path: Path):
    server.ranges = False
    server.cuts = [2_200_000]
    fetch(server, tmp_path)
    assert_whole(tmp_path)
    assert ranges(server)[1] is not None


def test_a_range_that_was_not_requested_is_not_used(server: FileServer, tmp_path: Path):
    server.cuts, server.shift = [1_200_000], 7
    with pytest.raises(Refusal, match="asked for bytes from .* the server sends 'bytes"):
        fetch(server, tmp_path, None)
    server.shift = 0
    fetch(server, tmp_path)
    assert_whole(tmp_path)


def test_a_download_without_new_bytes_fails_and_the_next_one_resumes(
    server: FileServer, tmp_path: Path
):
    server.cuts = [1_200_000, 0, 0, 0, 0]
    with pytest.raises(Refusal, match="gave nothing in 4 tries .* run the command again to go on"):
        fetch(server, tmp_path)
    assert not (tmp_path / "down" / "a.zip").exists()
    server.cuts, server.asked = [], []
    assert fetch(server, tmp_path)[0] > 0
    assert_whole(tmp_path)
    assert None not in ranges(server)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_to_a_busy_server_is_repeated(server: FileServer, tmp_path: Path, status: int):
    server.answers = [status, status]
    fetch(server, tmp_path)
    assert_whole(tmp_path)


def test_a_server_that_sends_nothing_is_refused_after_the_timeout(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    server.pause = 1.0
    with pytest.raises(Refusal, match=r"gave nothing in 4 tries \(.*timed out\)"):
        fetch(server, tmp_path)


def test_bytes_received_before_a_timeout_are_kept(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    server.stall = 8  # half a megabyte of each connection comes
    fetch(server, tmp_path)
    assert len(ranges(server)) > 4  # more than one may give nothing
    assert (tmp_path / "down" / "a.zip").read_bytes() == server.files["/a.zip"]


@pytest.mark.parametrize("change", ["etag", "size", "both"])
def test_a_file_that_changed_after_an_interruption_is_downloaded_from_its_beginning(
    server: FileServer, tmp_path: Path, change: str
):
    server.cuts = [1_200_000, 0, 0, 0, 0]
    with pytest.raises(Refusal):
        fetch(server, tmp_path)
    assert downloaded_bytes(look_up(f"{server.address}/a.zip"), tmp_path / "down" / "a.zip") > 0
    body = OTHER if change == "etag" else OTHER[:2_000_000]
    server.files["/a.zip"] = body
    if change != "size":
        server.etags["/a.zip"] = '"two"'
    server.cuts, server.asked = [], []
    fetch(server, tmp_path, hashlib.sha256(body).hexdigest())
    assert_whole(tmp_path, body)
    assert ranges(server) == [None]


def test_a_file_that_changes_during_a_download_is_not_mixed(server: FileServer, tmp_path: Path):
    remote = look_up(f"{server.address}/a.zip")
    server.cuts = [1_200_000]

    def change(_: int) -> None:
        server.files["/a.zip"], server.etags["/a.zip"] = OTHER, '"two"'

    with pytest.raises(Refusal, match="changed during the download; run the command again"):
        download(remote, tmp_path / "down" / "a.zip", None, change)
    fetch(server, tmp_path, None)
    assert_whole(tmp_path, OTHER)


def test_bytes_of_unknown_origin_are_not_used(server: FileServer, tmp_path: Path):
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "a.zip.part").write_bytes(b"?" * 1000)
    fetch(server, tmp_path)
    assert_whole(tmp_path)
    (tmp_path / "down" / "a.zip").unlink()
    (tmp_path / "down" / "a.zip.part").write_bytes(BODY[:1000])
    (tmp_path / "down" / "a.zip.part.json").write_text('{"url": ')
    fetch(server, tmp_path)
    assert_whole(tmp_path)


def test_a_file_with_another_sha_256_is_refused_and_removed(server: FileServer, tmp_path: Path):
    with pytest.raises(Refusal, match=f"has SHA-256 {SHA256}, the settings have 00ff; "):
        fetch(server, tmp_path, "00ff")
    assert not (tmp_path / "down" / "a.zip").exists()
    assert fetch(server, tmp_path, SHA256.upper())[0] == 0
    assert_whole(tmp_path)


def test_a_missing_file_is_refused_at_the_first_try(server: FileServer):
    with pytest.raises(Refusal, match="b.zip answers 404 Not Found; correct the address"):
        look_up(f"{server.address}/b.zip")
    assert len(server.asked) == 1


def test_a_server_that_sends_no_size_is_refused(server: FileServer):
    server.sized = False
    with pytest.raises(Refusal, match="a.zip comes without its size"):
        look_up(f"{server.address}/a.zip")


@pytest.mark.parametrize("place", ["http://[::1/x", f"http://{'a' * 70}.org/x"])
def test_a_redirect_to_an_invalid_address_is_refused(
    place: str, server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "redirect", place)
    with pytest.raises(Refusal, match="leads to, no address") as caught:
        look_up(f"{server.address}/a.zip")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/a.zip", "must begin with http:// or https://"),
        ("a.zip", "must begin with http:// or https://"),
        ("file:///etc/passwd", "must begin with http:// or https://"),
        ("http://host name/a.zip", "is, or leads to, no address"),
        ("http://127.0.0.1:1/a.zip", "gave nothing in 4 tries .*refused"),
    ],
)
@pytest.mark.usefixtures("server")
def test_invalid_addresses_are_refused(url: str, words: str):
    with pytest.raises(Refusal, match=words):
        look_up(url)


def test_a_full_disk_is_not_taken_for_a_lost_connection(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    plain = Path.open

    def opened(file: Path, *how: str, **more: object) -> object:
        return Full() if how == ("wb",) else plain(file, *how, **more)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OSError, match="No space left"):
        fetch(server, tmp_path)
    assert len(ranges(server)) == 1
