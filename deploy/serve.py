"""`make serve` and `make stop`: the captioner up on this machine, and down again.

python -m deploy.serve start [--checkpoint DIR [--precision P]] [--config FILE] [--sample FILE]
python -m deploy.serve status
python -m deploy.serve stop
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from client import CaptionClient, CaptionError
from deploy.torchserve import (
    CONFIG,
    ROOT,
    THREAD_ENVIRONMENT,
    ServeError,
    TorchServe,
    read_properties,
)

STATE = ROOT / "build" / "server"
ARCHIVE = ROOT / "model_store" / "clipcap.mar"
CUSTOM_ARCHIVE = ROOT / "model_store" / "custom" / "clipcap.mar"
#: The pictures that the pipeline draws; the first test picture is the sample.
SCENES = ROOT / "data" / "scenes"


def start(
    checkpoint: Path | None, config: Path, sample: Path | None, precision: str | None = None
) -> None:
    """Build what is not built yet, start TorchServe, and caption a sample over REST and gRPC.

    Args:
        checkpoint: Serve this captioner instead of the one that the pipeline trains.
        config: The `config.properties` to serve with.
        sample: The picture to caption.
        precision: What the other captioner is exported in; by default `export.precision`.

    Raises:
        ServeError: Something is missing or a port is in use; the message says what to do.
    """
    if precision is not None and checkpoint is None:
        raise ServeError(
            f"precision {precision} was given without a checkpoint; the pipeline's own captioner "
            "takes export.precision of training/conf/config.yaml"
        )
    server = TorchServe(STATE, ARCHIVE if checkpoint is None else CUSTOM_ARCHIVE, config)
    if sample is not None and not sample.is_file():
        raise ServeError(f"{sample} does not exist; give another SAMPLE")
    if running := server.process():
        started = server.as_started()
        serving = f"serving at {started.rest} (process {running.pid})"
        if checkpoint is not None or read_properties(started.config) != read_properties(config):
            raise ServeError(
                f"already {serving}, perhaps another captioner or configuration; end it first: "
                "make stop"
            )
        print(f"already {serving}; to end it: make stop")
        return
    server.check_ports()  # before minutes of work, not after
    if checkpoint is None:
        _run("the pipeline (dvc repro; nothing is done twice)", "-m", "dvc", "repro")
    else:
        built = ROOT / "build" / "custom"
        export = ["-m", "training.export", "--checkpoint", checkpoint, "--out", built]
        _run("exporting", *export, *([f"export.precision={precision}"] if precision else []))
        _run("archiving", "-m", "training.archive", "--artifact", built, "--out", CUSTOM_ARCHIVE)
    begin = time.monotonic()
    print("starting TorchServe and waiting for its workers ...", flush=True)
    server.start()
    print(f"they are ready after {time.monotonic() - begin:.1f} s (logs: {server.logs})\n")
    _caption_sample(server, sample or _sample_picture())


def _caption_sample(server: TorchServe, picture: Path) -> None:
    shown = os.path.relpath(picture)
    for door, address in (("REST", server.rest), ("gRPC", server.grpc)):
        begin = time.monotonic()
        with CaptionClient(address) as client:
            result = client.caption(picture)
        spent = time.monotonic() - begin
        print(f"{door} {address}, {shown}, {spent:.2f} s:\n  {json.dumps(result.to_dict())}")
    print(f"\nTry:   curl -T {shown} {server.rest}/predictions/{server.model}")
    print("Stop:  make stop")


def _sample_picture() -> Path:
    """A picture the captioner was not trained on: the first of the test split, else a new one."""
    scenes = SCENES
    if not (scenes / "split.json").is_file():  # serving a checkpoint from elsewhere needs no data
        scenes = ROOT / "build" / "sample"
        draw = ("-m", "training.prepare", "prepare.source=scenes", "--count", "40")
        _run("drawing a sample", *draw, "--out", scenes)
    captions = json.loads((scenes / "captions.json").read_text())
    first = json.loads((scenes / "split.json").read_text())["test"][0]
    name = next(image["file_name"] for image in captions["images"] if image["id"] == first)
    return scenes / "images" / str(name)


def _run(what: str, *arguments: str | Path) -> None:
    """Run a Python module of the project, its output shown as it comes."""
    print(f"{what} ...", flush=True)
    binaries = str(Path(sys.executable).parent)
    environment = {
        **THREAD_ENVIRONMENT,
        **os.environ,
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]),
    }
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise ServeError(f"{what} failed with status {done.returncode}; see the lines above")


def main() -> int:
    """Run one of the commands.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=("start", "status", "stop"))
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder of another captioner")
    parser.add_argument("--precision", help="fp32, fp16, bf16, int8 or auto, for --checkpoint")
    parser.add_argument("--config", type=Path, default=CONFIG, help="another config.properties")
    parser.add_argument("--sample", type=Path, help="picture to caption once the server is up")
    given = parser.parse_args()
    server = TorchServe(STATE, ARCHIVE, given.config)
    try:
        if given.command == "start":
            start(given.checkpoint, given.config, given.sample, given.precision)
        elif given.command == "stop":
            print("stopped" if server.stop() else "no server of this folder is running")
        else:
            running = server.process()
            server = server.as_started() if running else server
            workers = server.workers() if running else []
            state = f"process {running.pid}, workers ready: {workers}" if running else "not running"
            print(f"{server.rest}: {state}")
            return 0 if workers else 1
    except (ServeError, CaptionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
