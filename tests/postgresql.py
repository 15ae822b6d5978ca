"""A PostgreSQL of its own for tests: Debian's programs, a private folder, a free port."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_USER = "postgres"
#: What a test database may lose.
_UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def missing() -> str | None:
    """Why there can be no PostgreSQL here; None if there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is missing: pip install -e '.[postgresql]'"
    if not _FOLDERS:
        return "PostgreSQL is missing: apt-get install postgresql"
    return None


class Cluster:
    """A running PostgreSQL.

    Attributes:
        url: Of its database `postgres`, over loopback.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self.port = port
        self.url = f"postgresql://{_USER}@127.0.0.1:{port}/postgres"

    def create(self, name: str) -> str:
        """Make an empty database; return its URL."""
        self._run("psql", "-h127.0.0.1", f"-p{self.port}", "-c", f"CREATE DATABASE {name}")
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        given = (*_UNSAFE, "listen_addresses=127.0.0.1", f"port={self.port}")
        options = " ".join(f"-c {each}" for each in given) + f" -k {self._folder}"
        log = self._folder / "log"
        self._run("pg_ctl", "start", "-w", f"-D{self._folder}/data", f"-l{log}", "-o", options)

    def stop(self) -> None:
        """End it at once; what was committed stays."""
        self._run("pg_ctl", "stop", "-w", "-mfast", f"-D{self._folder}/data")

    def make(self) -> None:
        """Make its files."""
        self._run("initdb", f"-D{self._folder}/data", f"-U{_USER}", "-Atrust", "-N", "-EUTF8")

    def _run(self, program: str, *words: str) -> None:
        command: Sequence[str] = [str(_FOLDERS[-1] / program), *words]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["runuser", "-u", _USER, "--", *command]
        # Not a pipe: the server would keep it open.
        with (self._folder / "out").open("a+") as out:
            done = subprocess.run(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self._folder,
                env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"], "PGUSER": _USER},
            )  # fmt: skip
            if done.returncode:
                out.seek(0)
                raise RuntimeError(f"{program} failed: {out.read()[-500:]}")


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that runs within the `with` block; its files are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="clipcap-postgresql-"))
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.chown(folder, user.pw_uid, user.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = Cluster(folder, port)
    try:
        made.make()
        made.start()
        try:
            yield made
        finally:
            with contextlib.suppress(RuntimeError):  # a test may have stopped it
                made.stop()
    finally:
        shutil.rmtree(folder)
