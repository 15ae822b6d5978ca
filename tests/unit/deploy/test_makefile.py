"""The Makefile: which Python it takes, and values with blanks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

#: Variables that a make which runs these tests would pass on.
MAKES_OWN = ("PYTHON", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")


def make(folder: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if n not in MAKES_OWN}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [shutil.which("make") or "make", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile alone, and a folder `bin` with what it needs of the system."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copyfile(ROOT / "Makefile", folder / "Makefile")
    (tmp_path / "bin").mkdir()
    for name in ("sh", "mkdir", "rm", "rmdir", "touch", "env"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    return folder


def script(file: Path, text: str) -> Path:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


OLD = "case $1 in --version) echo Python 3.10.13;; *) exit 1;; esac"


def test_an_unsuitable_python_is_refused_in_one_line(project: Path, tmp_path: Path):
    script(tmp_path / "bin" / "python3", OLD)
    script(tmp_path / "bin" / "python3.12", "echo not installed >&2; exit 127")  # as of pyenv
    done = make(project, ".venv/bin/python", path=str(tmp_path / "bin"))
    assert done.returncode
    assert done.stderr.startswith(
        "error: Python 3.11, 3.12 or 3.13 is needed; found: python3 is Python 3.10.13; to name one:"
    )
    assert len(done.stderr.splitlines()) == 2  # the second is make's own
    assert not (project / ".venv").exists()
    done = make(project, ".venv/bin/python", f"PYTHON={tmp_path / 'none'}")
    assert "found: none; to name one: make PYTHON=" in done.stderr


def test_the_first_suitable_python_makes_the_environment(project: Path, tmp_path: Path):
    made = "mkdir -p .venv/bin; echo {} > .venv/bin/python"
    for name, answer in {"python3.11": OLD, "python3.13": made, "python3": made}.items():
        script(tmp_path / "bin" / name, answer.format(name) if answer == made else OLD)
    done = make(project, ".venv/bin/python", path=str(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert (project / ".venv" / "bin" / "python").read_text() == "python3.13\n"


def test_the_python_that_runs_the_tests_is_suitable(project: Path, tmp_path: Path):
    python = tmp_path / "my python"
    python.symlink_to(sys.executable)
    done = make(project, ".venv/bin/python", f"PYTHON={python}")
    assert done.returncode == 0, done.stderr
    assert (project / ".venv" / "pyvenv.cfg").is_file()


def test_two_commands_do_not_install_at_once(project: Path):
    (project / ".venv" / "bin").mkdir(parents=True)
    script(project / ".venv" / "bin" / "python", "exit 0")
    for name in ("pyproject.toml", "constraints.txt"):
        (project / name).touch()
    (project / ".venv" / ".installing").mkdir()
    done = make(project, ".venv/.installed-serve")
    assert done.returncode
    assert done.stderr.startswith("error: another make installs into .venv; wait until it ends")
    (project / ".venv" / ".installing").rmdir()
    assert make(project, ".venv/.installed-serve").returncode == 0
    assert not (project / ".venv" / ".installing").exists()
    script(project / ".venv" / "bin" / "python", "exit 3")
    assert make(project, ".venv/.installed-train").returncode
    assert not (project / ".venv" / ".installed-train").exists()
    assert not (project / ".venv" / ".installing").exists()


@pytest.mark.parametrize("value", ["holiday/my photo.jpg", 'it\'s "here".jpg', "a;b.jpg"])
def test_values_with_blanks_and_quotes_arrive_whole(project: Path, value: str):
    (project / ".venv" / "bin").mkdir(parents=True)
    script(project / ".venv" / "bin" / "python", 'for each; do echo "<$each>"; done')
    (project / "client" / "generated").mkdir(parents=True)
    files = ("pyproject.toml", "constraints.txt", ".venv/.installed-serve",
             ".venv/.installed-train", ".venv/.installed-dev", "client/stubs.py",
             "client/generated/__init__.py")  # fmt: skip
    for n, name in enumerate(files):
        (project / name).touch()
        os.utime(project / name, (n, n))

    def words(*given: str) -> list[str]:
        done = make(project, *given)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert words("caption", f"FILE={value}") == ["<-m>", "<client>", f"<{value}>"]
    start = ["<-m>", "<deploy.serve>", "<start>"]
    assert words("serve") == start
    assert words("serve", f"CHECKPOINT={value}", f"SAMPLE={value}", "MODEL=coco") == [
        *start, "<--checkpoint>", f"<{value}>", "<--model>", "<coco>", "<--sample>", f"<{value}>",
    ]  # fmt: skip
    assert words("swap", f"CHECKPOINT={value}", "PRECISION=fp16") == [
        "<-m>", "<deploy.swap>", "<--checkpoint>", f"<{value}>", "<--precision>", "<fp16>",
    ]  # fmt: skip
    assert words("serve", "NO_GATEWAY=1") == [*start, "<--no-gateway>"]
    _, *load = words("loadtest", f"PROFILE={value}")  # behind the line that make shows
    assert load == ["<-m>", "<loadtests>", f"<{value}>"]
    assert words("loadtest")[1:] == ["<-m>", "<loadtests>"]
    key = ["<-m>", "<gateway.key>"]
    assert words("key", f"NAME={value}") == [*key, "<-->", f"<{value}>"]
    assert words("key", "NAME=a", f"FILE={value}", "RATE=0.5") == [
        *key, "<--file>", f"<{value}>", "<--rate>", "<0.5>", "<-->", "<a>",
    ]  # fmt: skip
    assert "no picture given" in make(project, "caption").stderr
    assert "a key is for a person or program" in make(project, "key", "NAME=").stderr


def test_data_are_pulled_and_pushed_from_the_remote_that_is_set(project: Path):
    (project / ".venv" / "bin").mkdir(parents=True)
    for n, name in enumerate((".venv/.installed-serve", ".venv/.installed-train")):
        for needed in ("pyproject.toml", "constraints.txt"):
            (project / needed).touch()
            os.utime(project / needed, (0, 0))
        (project / name).touch()
        os.utime(project / name, (n + 1, n + 1))
    python = project / ".venv" / "bin" / "python"
    script(python, 'test "$3" = config || echo "$*"')
    for target in ("pull", "push"):
        done = make(project, target)
        assert done.returncode
        assert done.stderr.startswith("error: no DVC remote is set; to set one: .venv/bin/dvc rem")
        assert done.stdout == ""
    script(python, 'test "$3" = config && echo storage || echo "$*"')
    for target in ("pull", "push"):
        *_, words = make(project, target).stdout.splitlines()
        assert words == f"-m dvc {target} --with-deps archive"
    *_, words = make(project, "pull", "EXPERIMENT=folder").stdout.splitlines()
    assert words == "-m dvc pull --with-deps training/conf/dvc.yaml:archive@folder"


def test_nothing_is_cleaned_away_under_a_server(project: Path):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / "build").mkdir()
    script(project / ".venv" / "bin" / "python", 'echo "$*" >&2; exit 1')
    (project / ".venv" / ".installed-serve").touch()
    done = make(project, "clean")
    assert done.returncode
    assert done.stderr.startswith("-m deploy.serve idle\n")
    assert (project / "build").is_dir()
    script(project / ".venv" / "bin" / "python", "exit 0")
    assert make(project, "clean").returncode == 0
    assert not (project / "build").exists()
