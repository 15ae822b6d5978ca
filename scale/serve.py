"""Serves an exported captioner on Ray Serve, on this machine or on a Ray cluster.

    python -m scale.serve
    python -m scale.serve --artifact build/artifact --min-replicas 1 --max-replicas 4 --threads 2
    python -m scale.serve --address 10.0.0.1:6379

It stays until Ctrl-C or SIGTERM, which end it after the requests in hand. The exit status is 0
then, 1 for an error, and 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from handler import caption_settings
from handler.caption_settings import cores
from model.artifact import read_info
from model.refusal import Refusal
from scale import cluster

#: The name of the application in Serve.
APPLICATION = "clipcap"
#: Memory for objects, of a Ray that is started here; requests pass through it.
STORE_BYTES = 500_000_000


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        words: Those of the command line; None for those of this process.

    Returns:
        The exit status.
    """
    given = _parse(words)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        _serve(given, ended)
    except (Refusal, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scale.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("--artifact", type=Path, default=Path("build/artifact"), metavar="DIR",
        help="an exported captioner, on every node (build/artifact)")
    add("--config", type=Path, metavar="FILE",
        help="batches, limits and deadlines (handler/model-config.yaml)")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=int, default=8085, help="port to listen on (8085)")
    add("--name", metavar="NAME", help="of the model (clipcap)")
    add("--version", metavar="TEXT", help="of the model, for replies (1.0)")
    add("--min-replicas", type=int, metavar="N", help="fewest processes that caption (1)")
    add("--max-replicas", type=int, metavar="N", help="most of them (1)")
    add("--threads", type=int, metavar="N",
        help="threads, and processors, of each (all of the machine / --max-replicas)")
    add("--queue-size", type=int, metavar="N", help="requests that may wait for a replica (64)")
    add("--max-request-bytes", type=int, metavar="N", help="most bytes of a request (20971520)")
    add("--address", metavar="HOST:PORT", help="a Ray cluster to join; else Ray starts here")
    add("--verbose", action="store_true", help="show the messages of Ray and its processes")
    # fmt: on
    return parser.parse_args(words)


def _serve(given: argparse.Namespace, ended: threading.Event) -> None:
    """Deploy the captioner, wait for the end, and remove it.

    Raises:
        Refusal: A setting, the artifact or the cluster cannot be used, or it does not start.
    """
    file = given.artifact / "captioner.json"
    if not file.is_file():
        raise Refusal(
            f"--artifact {given.artifact} holds no captioner.json; export a captioner: "
            "python -m training.export"
        )
    read_info(file, set())
    _check_port(given.host, given.port)
    names = ("name", "version", "min_replicas", "max_replicas", "threads", "queue_size")
    wanted: dict[str, Any] = {"artifact": str(given.artifact.resolve())}
    for name in (*names, "max_request_bytes"):
        if (value := getattr(given, name)) is not None:
            wanted[name] = value
    if given.config:
        wanted["config"] = str(given.config.resolve())
    if given.threads is None:
        wanted["threads"] = max(1, cores() // max(1, given.max_replicas or 1))
    with cluster.connected(given.address, STORE_BYTES, verbose=given.verbose) as ray:
        from ray import serve

        from scale.serving.application import CAPTIONER, ServingSettings, build

        try:
            settings = ServingSettings(**wanted)
        except ValidationError as error:
            raise Refusal(_first(error)) from None
        caption_settings.read(settings.of_the_handler())
        most = settings.max_replicas * settings.threads
        if given.address is None and most > cores():
            raise Refusal(
                f"--max-replicas {settings.max_replicas} of {settings.threads} threads need {most} "
                f"processors; this machine has {cores()}; lower one of them"
            )

        def quiet() -> contextlib.AbstractContextManager[None]:
            return contextlib.nullcontext() if given.verbose else cluster.without_stderr()

        try:
            with quiet():
                serve.start(
                    proxy_location="HeadOnly" if given.address is None else "EveryNode",
                    http_options={"host": given.host, "port": given.port},
                    logging_config={"enable_access_log": False},
                )
                serve.run(build(settings), name=APPLICATION)
        except RuntimeError:
            status = serve.status().applications[APPLICATION]
            reason = status.deployments[CAPTIONER].message if status.deployments else status.message
            raise Refusal(f"the captioner does not start: {_last(reason)}") from None
        print(
            f"{settings.name} {settings.version} is served at http://{given.host}:{given.port}: "
            f"curl -T photo.jpg http://{given.host}:{given.port}/predictions/{settings.name}",
            flush=True,
        )
        while not ended.wait(1):
            if not ray.is_initialized():
                raise Refusal("Ray ended")
        print("ending, after the requests in hand", flush=True)
        with quiet():
            serve.delete(APPLICATION)


def _check_port(host: str, port: int) -> None:
    """Refuse a port that another program listens on.

    Raises:
        Refusal: One does, or the address is not one of this machine.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise Refusal(f"--host {host} --port {port} cannot be used: {error}") from None


def _first(error: ValidationError) -> str:
    """The first fault of settings, in the words of the command line."""
    fault = error.errors()[0]
    flag = "--" + "-".join(str(part) for part in fault["loc"]).replace("_", "-")
    reason = fault["msg"].removeprefix("Value error, ")
    return f"{flag} is {fault['input']!r}: {reason}" if fault["loc"] else reason


def _last(text: str) -> str:
    """The last line that says something, which names the error of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or [text])[-1][:500]


if __name__ == "__main__":
    sys.exit(main())
