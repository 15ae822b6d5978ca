"""A folder takes the place of an older one of its kind, and of nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.refusal import Refusal
from model.whole_folder import whole_folder, working_folder
from tests import ROOT


def older(target: Path) -> Path:
    """A folder of the kind that is replaced."""
    target.mkdir()
    (target / "mark").write_text("older")
    return target


def write_newer(target: Path) -> None:
    with whole_folder(target, "mark") as folder:
        (folder / "mark").write_text("newer")


def test_an_older_one_of_its_kind_is_replaced(tmp_path: Path):
    for text in ("first", "second"):
        with whole_folder(tmp_path / "out", "mark", "other") as folder:
            (folder / "mark").write_text(text)
    assert (tmp_path / "out" / "mark").read_text() == "second"


def test_anything_else_is_left_alone(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("out", "file"):
        with (
            pytest.raises(Refusal, match="holds something else"),
            whole_folder(tmp_path / name, "mark"),
        ):
            pytest.fail("it began")
    assert (tmp_path / "out" / "photo.jpg").read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))


def test_an_empty_folder_is_filled(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out", "mark") as folder:
        (folder / "mark").touch()
    assert (tmp_path / "out" / "mark").exists()


def test_two_processes_do_not_write_to_one_place(tmp_path: Path):
    target = older(tmp_path / "out")
    code = (
        "import sys; from model.whole_folder import whole_folder\n"
        f"with whole_folder({str(target)!r}, 'mark'): pass"
    )
    with whole_folder(target, "mark") as folder:
        (folder / "mark").write_text("newer")
        command = [sys.executable, "-c", code]
        other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert f"another run (process {os.getpid()}) writes to {target}.partial" in other.stderr
    assert (target / "mark").read_text() == "newer"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("step", ["rename", "rmtree"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interruption_at_any_step_leaves_the_older_or_the_newer(
    step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = older(tmp_path / "out")
    place = Path if step == "rename" else shutil
    whole, calls = getattr(place, step), []

    def interrupted(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) == number:
            raise KeyboardInterrupt
        return whole(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(place, step, interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            write_newer(target)
    if target.exists():  # a run that was killed in mid-step may leave it to the next one
        assert (target / "mark").read_text() in ("older", "newer")
    with whole_folder(tmp_path / "out", "mark"), contextlib.suppress(KeyboardInterrupt):
        assert (target / "mark").read_text() in ("older", "newer")


def test_a_folder_of_the_name_that_is_worked_in_is_left_alone(tmp_path: Path):
    mine = tmp_path / "out.partial" / "photo.jpg"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(Refusal, match=r"out.partial is where .* holds something else"):
        write_newer(tmp_path / "out")
    assert mine.read_text() == "mine"
    (tmp_path / "file.partial").write_text("mine")
    (tmp_path / "link.partial").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(Refusal, match=rf"{name}.partial is in the way"):
            write_newer(tmp_path / name)
    with pytest.raises(FileExistsError), working_folder(tmp_path / "link.partial" / "below"):
        pytest.fail("it began")


def test_what_a_link_leads_to_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    older(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing yet")
    for name, place in (("link", "disk"), ("dangling", "nothing yet")):
        write_newer(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / place / "mark").read_text() == "newer"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_newer(Path("."))
    assert (tmp_path / "here" / "mark").read_text() == "newer"


def test_many_processes_one_after_the_other_never_see_each_other_s_files(tmp_path: Path):
    code = (
        "import pathlib, sys, time\n"
        "from model.refusal import Refusal\n"
        "from model.whole_folder import whole_folder\n"
        "end = time.monotonic() + 1.5\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        f"        with whole_folder({str(tmp_path / 'out')!r}, 'mark') as folder:\n"
        "            for name in ('mark', 'a', 'b'):\n"
        "                (folder / name).write_text(sys.argv[1])\n"
        "            assert {each.read_text() for each in folder.iterdir()} == {sys.argv[1]}\n"
        "    except Refusal as refusal:\n"
        "        assert 'another run' in str(refusal), refusal\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=ROOT, stderr=subprocess.PIPE)
        for name in "123"
    ]
    assert [process.communicate()[1] for process in running] == [b""] * 3
    assert len({each.read_text() for each in (tmp_path / "out").iterdir()}) == 1


def test_what_a_killed_run_took_away_is_put_back(tmp_path: Path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "lock").touch()
    older(tmp_path / "out.partial" / "old")
    (tmp_path / "out.partial" / "new").mkdir()
    with pytest.raises(OSError, match="disk"), whole_folder(tmp_path / "out", "mark"):
        raise OSError("disk")
    assert (tmp_path / "out" / "mark").read_text() == "older"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_child_that_outlives_a_killed_run_does_not_keep_the_lock(tmp_path: Path):
    code = (  # the child speaks, as filelock has closed its copy of the file by then
        "import os, time; from model.whole_folder import whole_folder\n"
        f"with whole_folder({str(tmp_path / 'out')!r}, 'mark'):\n"
        "    if not os.fork(): print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    child = int(run.stdout.readline())
    try:
        with pytest.raises(Refusal, match=rf"another run \(process {run.pid}\)"):
            write_newer(tmp_path / "out")
        run.kill()
        run.wait()
        write_newer(tmp_path / "out")
        os.kill(child, 0)  # it lives
    finally:
        run.kill()
        os.kill(child, signal.SIGKILL)
    assert (tmp_path / "out" / "mark").read_text() == "newer"
