"""Files and captioners by name, from a server that speaks the hub's HTTP."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.image.decode import MAX_PIXELS, load_image
from model.image.preprocessing import to_pixels
from model.pretrained import published
from model.pretrained.encoder_folder import load_encoder
from model.pretrained.hub import fetch
from model.pretrained.hugging_face import load_clip, load_gpt2_tokenizer
from model.pretrained.sources import CAPTIONERS, HubFile
from model.refusal import Refusal
from tests.hub_server import HubServer, add_published, hub_server
from tests.models import save_gpt2
from tests.pictures import sound
from training.captioner.language_model import language_model
from training.config import Export, load_config
from training.data.dataset import CaptionDataset
from training.exporting.export import export

WEIGHTS = CAPTIONERS["coco"].weights
#: Bytes that the hub's library collects before it writes them.
BLOCK = 10 * 1024 * 1024


@pytest.fixture
def hub(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    with hub_server(tmp_path / "cache", monkeypatch) as server:
        add_published(server, tmp_path / "hub", tiny_clip, gpt2_tokenizer, monkeypatch)
        yield server


@pytest.fixture
def large(hub: HubServer, tmp_path: Path) -> HubFile:
    """A file of three blocks, for downloads that are interrupted."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "large.bin").write_bytes(random.Random(1).randbytes(30_000_000))
    hub.add("someone/large", folder)
    return HubFile("someone/large", "large.bin")


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["model.pretrained.published", *map(str, words)])
    published.main()


def fails(monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """The one line that a failing command ends with."""
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *words)
    message = str(caught.value)
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    return message


def served(hub: HubServer, name: str) -> str:
    """The path under which a large file's content is served."""
    (found,) = {p for path, p in hub.server.redirects.items() if path.endswith(f"/{name}")}
    return found[found.index("/cdn/") :]


def test_a_name_becomes_an_artifact_that_says_the_same(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    out = tmp_path / "models" / "coco"
    run(monkeypatch, "coco", "--out", out)
    shown = capsys.readouterr()
    assert shown.out == (
        f"{out} has the mlp mapper with a prefix of 4; to serve it: make serve CHECKPOINT={out}\n"
    )
    assert f"downloading {WEIGHTS.name} of {WEIGHTS.repo} (" in shown.err

    export(Export(str(out), str(tmp_path / "artifact"), "fp32", "torchscript", None))
    artifact, eager = Artifact.load(tmp_path / "artifact"), eager_artifact(Checkpoint.load(out))
    pixels = to_pixels(load_image(sound()["png"], MAX_PIXELS), eager.preprocessing)[None]
    says, expected = (
        each.caption(each.encode(pixels), eager.defaults)[0][0] for each in (artifact, eager)
    )
    assert says.text == expected.text
    assert says.text.strip()

    # Each file once, and from the commit that was asked about.
    files = [path for path, _ in hub.downloads()]
    assert len(files) == len(set(files)) == len(CAPTIONERS["coco"].files)
    assert not [path for path, _ in hub.downloads() if "/main/" in path]


def test_what_it_was_made_of_is_recorded(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "coco"
    run(monkeypatch, "coco", "--out", out)
    record = json.loads((tmp_path / "coco.lock.json").read_text())
    card = (out / "README.md").read_text()
    for file in CAPTIONERS["coco"].files:
        entry = record["files"][f"{file.repo}/{file.name}"]
        assert entry["commit"] == hub.commits[file.repo]
        assert entry["bytes"] == (tmp_path / "hub" / file.name).stat().st_size
        assert entry["sha256"] == file.sha256 or file.sha256 is None
        for part in (f"{file.repo}/{file.name}", entry["commit"], entry["sha256"]):
            assert f"`{part}`" in card
    assert card.count("(as expected)") == 2
    assert card.count("none is published to compare") == 3


def test_a_folder_that_is_there_needs_no_network(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    out = tmp_path / "coco"
    run(monkeypatch, "coco", "--out", out)
    hub.server.asked.clear()
    shutil.rmtree(tmp_path / "cache")
    written = (out / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    run(monkeypatch, "coco", "--out", out)
    assert hub.server.asked == []
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    assert capsys.readouterr().out.startswith(f"{out} is up to date; to serve it: make serve")


def test_a_run_that_was_killed_after_the_download_is_finished(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, record = tmp_path / "coco", tmp_path / "coco.lock.json"
    run(monkeypatch, "coco", "--out", out)
    complete = json.loads(record.read_text())
    record.write_text(json.dumps({"files": complete["files"]}))
    hub.server.asked.clear()
    run(monkeypatch, "coco", "--out", out)
    assert json.loads(record.read_text()) == complete
    assert hub.server.asked == []  # the cache has all of it


@pytest.mark.parametrize("change", ["no record", "other weights", "unfinished record"])
def test_a_folder_of_other_weights_is_left_alone(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    out = tmp_path / "coco"
    run(monkeypatch, "coco", "--out", out)
    record = tmp_path / "coco.lock.json"
    if change == "no record":
        record.unlink()
    elif change == "unfinished record":
        record.write_text(json.dumps({"files": json.loads(record.read_text())["files"]}))
        (out / "README.md").write_text("# My own captioner\n")
    else:
        checkpoint = Checkpoint.load(out)
        with torch.no_grad():
            next(checkpoint.captioner.mapper.parameters()).add_(1)
        checkpoint.save(out)
    before = (out / "model.safetensors").read_bytes()
    message = fails(monkeypatch, "coco", "--out", out)
    assert f"serve it as it is with CHECKPOINT={out}, or move both away" in message
    assert (out / "model.safetensors").read_bytes() == before


def test_another_file_under_the_same_name_is_refused_the_next_time(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "coco"
    run(monkeypatch, "coco", "--out", out)
    shutil.rmtree(out)
    shutil.rmtree(tmp_path / "cache")
    file = tmp_path / "hub" / WEIGHTS.name
    weights = torch.load(file, weights_only=True)
    weights["clip_project.model.0.bias"] += 1
    torch.save(weights, file)
    hub.add(WEIGHTS.repo, tmp_path / "hub", [WEIGHTS.name])
    message = fails(monkeypatch, "coco", "--out", out)
    assert f"{WEIGHTS.repo}/{WEIGHTS.name} has SHA-256" in message
    assert "the file on the hub was changed; remove" in message
    assert not out.exists()
    (tmp_path / "coco.lock.json").unlink()
    run(monkeypatch, "coco", "--out", out)
    assert Checkpoint.load(out).captioner.mapper is not None


def test_a_damaged_record_is_one_line(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "coco.lock.json").write_text('{"files": 3}')
    assert "coco.lock.json is damaged" in fails(monkeypatch, "coco", "--out", tmp_path / "coco")
    assert hub.server.asked == []


def test_an_interrupted_download_goes_on_where_it_was_cut(hub: HubServer, large: HubFile):
    path = served(hub, large.name)
    content = hub.server.files[path]
    hub.server.cuts.append(25_000_000)
    message = f"ended at {2 * BLOCK} of {len(content)} bytes .* to go on from there"
    with pytest.raises(Refusal, match=message):
        fetch(large)
    before = hub.server.sent
    fetched = fetch(large)
    assert fetched.path.read_bytes() == content
    assert hub.downloads() == [(path, None), (path, f"bytes={2 * BLOCK}-")]
    assert hub.server.sent - before == len(content) - 2 * BLOCK
    assert not list(fetched.path.resolve().parent.glob("*.part"))


def test_a_killed_process_goes_on_where_it_was_killed(
    hub: HubServer, large: HubFile, tmp_path: Path
):
    code = (
        "from model.pretrained.hub import fetch\n"
        "from model.pretrained.sources import HubFile\n"
        f"fetch(HubFile({large.repo!r}, {large.name!r}))"
    )
    hub.server.pause = 0.01  # seconds before each 64 kB
    killed = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while hub.server.sent < 1.5 * BLOCK:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (part,) = (tmp_path / "cache").rglob("*.part")
    assert part.stat().st_size == BLOCK
    hub.server.pause = 0.0
    path = served(hub, large.name)
    assert fetch(large).path.read_bytes() == hub.server.files[path]
    assert hub.downloads() == [(path, None), (path, f"bytes={BLOCK}-")]


def test_a_server_without_ranges_sends_all_of_it_again(hub: HubServer, large: HubFile):
    hub.server.cuts.append(25_000_000)
    hub.server.ranges = False
    with pytest.raises(Refusal, match="go on from there"):
        fetch(large)
    assert fetch(large).path.read_bytes() == hub.server.files[served(hub, large.name)]


@pytest.mark.parametrize("length", ["wrong bytes", "too long"])
def test_a_beginning_of_something_else_is_not_kept(hub: HubServer, tmp_path: Path, length: str):
    content = hub.server.files[served(hub, WEIGHTS.name)]
    sha256 = served(hub, WEIGHTS.name).removeprefix("/cdn/")
    blobs = tmp_path / "cache" / f"models--{WEIGHTS.repo.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{sha256}.part"
    if length == "too long":
        part.write_bytes(content + b"more")
    else:
        part.write_bytes(b"other bytes")
        with pytest.raises(Refusal, match="damaged on the way; run the command again"):
            fetch(WEIGHTS)
    assert fetch(WEIGHTS).path.read_bytes() == content
    assert not part.exists()


def test_a_token_goes_to_the_hub_and_no_further(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    commit = fetch(WEIGHTS).commit
    seen = hub.server.authorizations
    assert seen[f"/{WEIGHTS.repo}/resolve/{commit}/{WEIGHTS.name}"] == "Bearer hf_secret"
    assert seen[served(hub, WEIGHTS.name)] is None


def test_bytes_damaged_on_the_way_are_refused(hub: HubServer):
    path = served(hub, WEIGHTS.name)
    content = hub.server.files[path]
    hub.server.files[path] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(Refusal, match="but the hub says .* damaged on the way; run the command"):
        fetch(WEIGHTS)
    hub.server.files[path] = content
    assert fetch(WEIGHTS).path.read_bytes() == content


def test_a_small_file_damaged_on_the_way_is_refused(hub: HubServer):
    file = CAPTIONERS["coco"].clip[0]
    (path,) = {p for p in hub.server.files if p.endswith(f"/{file.name}") and "/main/" not in p}
    content = hub.server.files[path]
    hub.server.files[path] = content[:-1] + b"!"
    with pytest.raises(Refusal, match="but the hub says .* damaged on the way; run the command"):
        fetch(file)


def test_another_file_than_the_table_expects_is_refused(hub: HubServer):
    other = HubFile(WEIGHTS.repo, WEIGHTS.name, "0" * 64)
    with pytest.raises(Refusal, match=f"but it must be {'0' * 64}") as caught:
        fetch(other)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_damaged_in_the_cache_is_refused(hub: HubServer):
    path = fetch(WEIGHTS).path
    content = path.read_bytes()
    path.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Refusal, match=f"remove {path.resolve()} and run the command again"):
        fetch(WEIGHTS)
    path.resolve().unlink()
    assert fetch(WEIGHTS).path.read_bytes() == content


@pytest.mark.parametrize(
    ("file", "status", "words"),
    [
        (HubFile("akhaliq/no-such-captioner", "coco_weights.pt"), None, "answers 404"),
        (HubFile(WEIGHTS.repo, "no_such_weights.pt"), None, "answers 404"),
        (WEIGHTS, 401, "answers 401 .* needs HF_TOKEN"),
        (WEIGHTS, 500, "answers 500 .* run the command again later"),
    ],
)
def test_an_answer_without_the_file_is_one_line(
    hub: HubServer, file: HubFile, status: int | None, words: str
):
    fetch(CAPTIONERS["coco"].clip[0])  # the connection is there
    if status is not None:
        hub.server.answers[:] = [status]
    with pytest.raises(Refusal, match=words) as caught:
        fetch(file)
    assert f"{file.name} of {file.repo}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_server_that_is_no_hub_is_one_line(hub: HubServer):
    hub.server.headers[f"/{WEIGHTS.repo}/resolve/main/{WEIGHTS.name}"].pop("X-Repo-Commit")
    with pytest.raises(Refusal, match="without ETag, size or X-Repo-Commit.*correct HF_ENDPOINT"):
        fetch(WEIGHTS)


def test_a_dead_server_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as nobody:  # bound, so that no other takes the port, but not listening
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "*")
        message = fails(monkeypatch, "coco", "--out", tmp_path / "coco")
    assert (
        f"{address} cannot be reached; check the network, name a mirror with HF_ENDPOINT" in message
    )
    assert not list(tmp_path.iterdir())


def test_too_little_room_is_told_before_the_download(hub: HubServer):
    path = f"/{WEIGHTS.repo}/resolve/main/{WEIGHTS.name}"
    hub.server.headers[path]["X-Linked-Size"] = str(10**17)
    with pytest.raises(Refusal, match=r"needs 100000000000\.0 MB in .* make room, or name a cache"):
        fetch(WEIGHTS)
    assert hub.downloads() == []


def test_a_disk_that_fills_up_is_one_line(hub: HubServer, tmp_path: Path):
    # /dev/full answers each write as a full disk does.
    blobs = tmp_path / "cache" / f"models--{WEIGHTS.repo.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    sha256 = served(hub, WEIGHTS.name).removeprefix("/cdn/")
    (blobs / f"{sha256}.part").symlink_to("/dev/full")
    with pytest.raises(Refusal, match=f"{os.strerror(errno.ENOSPC)}.*; make room, or name a cache"):
        fetch(WEIGHTS)


def test_two_downloads_of_a_file_do_not_meet(hub: HubServer, tmp_path: Path):
    sha256 = served(hub, WEIGHTS.name).removeprefix("/cdn/")
    lock = tmp_path / "cache" / ".locks" / f"models--{WEIGHTS.repo.replace('/', '--')}"
    lock.mkdir(parents=True)
    code = (
        "import filelock, sys, time\n"
        f"with filelock.FileLock({str(lock / f'{sha256}.lock')!r}):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"locked\n"
    with pytest.raises(Refusal, match=r"another process is downloading coco_weights\.pt"):
        fetch(WEIGHTS)
    other.communicate()
    assert fetch(WEIGHTS).sha256 == sha256


def test_offline_a_filled_cache_is_enough(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = fails(monkeypatch, "coco", "--out", tmp_path / "coco")
    assert f"is not in {tmp_path / 'cache'}, and HF_HUB_OFFLINE forbids" in message
    assert hub.server.asked == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    run(monkeypatch, "coco", "--out", tmp_path / "first")
    hub.server.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run(monkeypatch, "coco", "--out", tmp_path / "coco")
    assert hub.server.asked == []
    one, two = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("first", "coco"))
    assert one == two


def test_an_unknown_name_is_one_line_with_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    message = fails(monkeypatch, "cocoa", "--out", tmp_path / "cocoa")
    assert message.endswith(
        "cocoa is no file and no published captioner; the captioners are coco and conceptual"
    )


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--clip", "here"], "--clip"),
        (["--gpt2-tokenizer", "here"], "--gpt2-tokenizer"),
        (["--no-normalize", "--end-token", "."], "--normalize, --end-token"),
    ],
)
def test_options_of_a_file_are_refused_for_a_name(
    options: list[str],
    names: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit):
        run(monkeypatch, "coco", "--out", tmp_path / "coco", *options)
    assert f"for a weights file only: {names}; all of this is known" in capsys.readouterr().err


def test_the_environment_names_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The command itself, as `make serve MODEL=coco` runs it, up to the CLIP's SHA-256."""
    monkeypatch.setenv("TQDM_POSITION", "-1")  # progress, though this is no terminal
    command = [sys.executable, "-m", "model.pretrained.published", "coco"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "coco"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"downloading {WEIGHTS.name} of {WEIGHTS.repo}" in done.stderr
    assert f"{WEIGHTS.name}: 100%" in done.stderr
    # The small CLIP is not OpenAI's.
    expected = "must be a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f"
    assert expected in done.stderr.splitlines()[-1]
    assert (tmp_path / "cache" / f"models--{WEIGHTS.repo.replace('/', '--')}" / "refs").exists()


def test_an_encoder_and_a_gpt2_by_name_come_from_the_same_hub(
    hub: HubServer, tiny_clip: Path, tmp_path: Path
):
    save_gpt2(tmp_path / "gpt2")
    hub.add("openai-community/gpt2", tmp_path / "gpt2")
    for name, folder in (("someone/small-clip", tiny_clip), ("openai/clip-vit-base-patch32", None)):
        if folder is not None:
            hub.add(name, folder)
        encoder, preprocessing = load_encoder(name)
        expected, same = load_encoder(str(tiny_clip))
        for key, value in expected.state_dict().items():
            assert torch.equal(encoder.state_dict()[key], value)
        assert preprocessing == same
    assert load_clip("someone/small-clip", CLIPModel).config.projection_dim == 24
    settings = load_config(["train.gpt2.base=openai-community/gpt2"]).train
    tokenizer, gpt2 = language_model(settings, CaptionDataset(tmp_path, {}, {}, {}))
    own = load_gpt2_tokenizer(str(tmp_path / "gpt2"))
    assert tokenizer.encode("two red boats").ids == own.encode("two red boats").ids
    assert not isinstance(gpt2, dict)
    assert gpt2.config.n_positions == 64
    asked = {path for _, path, _ in hub.server.asked}
    assert not [path for path in asked if "discussions" in path or "convert" in path]
