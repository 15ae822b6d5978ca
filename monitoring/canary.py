"""Golden requests: asks a served captioner about pictures whose captions are known.

    python -m monitoring.canary [--address URL] [--every 60 | --once] [--textfile FILE | --port N]
    python -m monitoring.canary --record [--artifact DIR | --address URL] --folder DIR
                                [--from POOL --most 12]

A wrong model, wrong preprocessing or swapped words show in the next round, as gauges for Prometheus
(`--port`, or `--textfile` for the node exporter) and as lines on standard output. The pictures in
`monitoring/golden/scenes` are for the captioner that ships; `--record` makes a folder for another
one. docs/canary.md describes it.

The exit status of `--once` is 0 if all is as expected, 1 if a picture is not, 2 if one could not be
asked. Without `--once` the command runs until SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
from pathlib import Path

from client import CaptionClient, CaptionError
from model.refusal import Refusal
from monitoring.golden.asking import Round, ask_all
from monitoring.golden.recording import choose, from_artifact, from_server, record
from monitoring.golden.reference import Limits, Reference
from monitoring.key import TOKEN, read_key

#: Pictures for the captioner that ships, and what it gives.
SCENES = Path(__file__).resolve().parent / "golden" / "scenes"
#: Header with which the gateway lets one of two captioners answer; see docs/canary.md.
CAPTIONER = "X-Captioner"


def main() -> int:
    """Record a reference, or ask in rounds.

    Returns:
        The exit status.
    """
    given = _parser().parse_args()
    try:
        return _record(given) if given.record else _watch(given)
    except (Refusal, CaptionError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _record(given: argparse.Namespace) -> int:
    if given.source is not None and given.folder == SCENES:
        raise Refusal("--from needs --folder, where the pictures that are chosen are copied to")
    with _client(given) as client:
        trusted = from_artifact(given.artifact) if given.artifact else from_server(client)
        if given.source is not None:
            choose(trusted, given.source, given.most, given.folder)
        # The source is in a file that may be published: the name of the folder, not where it lies.
        source = f"artifact {given.artifact.name}" if given.artifact else given.address
        reference = record(trusted, source, given.folder, Limits())
    words = {word for each in reference.pictures for word in each.caption.split()}
    print(
        f"{given.folder}: {len(reference.pictures)} pictures of version {reference.version}, "
        f"whose captions have {len(words)} different words"
    )
    for each in reference.pictures:
        print(f"  {each.file.name}: {each.caption}")
    return 0


def _watch(given: argparse.Namespace) -> int:
    from monitoring.golden.gauges import Gauges

    reference = Reference.load(given.folder)
    gauges = Gauges(reference.version)
    ended = threading.Event()
    if not given.once:
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
    if given.port is not None:
        from prometheus_client import start_http_server

        start_http_server(given.port, given.host, registry=gauges.registry)
    with _client(given) as client:
        while True:
            begin = time.monotonic()
            found = ask_all(client, reference)
            gauges.show(found)
            if given.textfile is not None:
                gauges.write(given.textfile)
            _print(found, reference)
            if given.once:
                return found.status
            if ended.wait(max(0.0, given.every - (time.monotonic() - begin))):
                return 0


def _print(found: Round, reference: Reference) -> None:
    """A line of the round, and one for each problem."""
    asked, wrong = found.asked, found.wrong
    models = sorted({" ".join(each.model) for each in asked if each.model})
    answered = f", {', '.join(models)} (recorded: {reference.version})" if models else ""
    states = {0: "as expected", 1: "NOT AS EXPECTED", 2: "NOT ASKED"}
    print(
        f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {states[found.status]}: {len(asked) - len(wrong)} "
        f"of {len(found.answers)} pictures are right, {len(wrong)} wrong, "
        f"{len(found.answers) - len(asked)} not asked{answered}"
    )
    problems: dict[str, list[str]] = {}  # a server that does not answer has one for all pictures
    for each in found.answers:
        if each.problem:
            problems.setdefault(each.problem, []).append(each.file.name)
    for problem, names in problems.items():
        print(f"  {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {problem}")
    sys.stdout.flush()


def _client(given: argparse.Namespace) -> CaptionClient:
    """A client that sends nothing again: a round is asked again soon.

    Raises:
        Refusal: The file of the key is empty.
        OSError: It cannot be read.
    """
    return CaptionClient(
        given.address,
        model=given.model,
        timeout=given.timeout,
        retries=0,
        headers={CAPTIONER: given.captioner},
        token=read_key(given.token_file),
        ca_file=given.ca_file,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitoring.canary", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--address", default="http://127.0.0.1:8000", metavar="URL", help="gateway or TorchServe")
    add("--folder", type=Path, default=SCENES, help="golden pictures and their expected.json")
    add("--every", type=_seconds, default=60.0, metavar="SECONDS", help="between two rounds (60)")
    add("--once", action="store_true", help="one round; the exit status says what it found")
    add("--textfile", type=Path, metavar="FILE", help="write the gauges to FILE.prom each round")
    add("--port", type=int, metavar="N", help="serve the gauges on this port")
    add("--host", default="127.0.0.1", help="address for --port (127.0.0.1)")
    add(
        "--captioner",
        choices=("stable", "candidate"),
        default="stable",
        help="which of two captioners a gateway that tries one out asks (stable)",
    )
    add("--model", default="clipcap", help="name of the model on the server")
    add("--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="for a caption (30)")
    add("--token-file", type=Path, metavar="FILE", help=f"file with a key (else ${TOKEN})")
    add("--ca-file", type=Path, metavar="FILE", help="certificates (PEM) of authorities to trust")
    add("--record", action="store_true", help="write expected.json from a trusted captioner")
    add("--artifact", type=Path, metavar="DIR", help="record from this artifact, not a server")
    add("--from", dest="source", type=Path, metavar="POOL", help="choose pictures from POOL first")
    add("--most", type=int, default=12, metavar="N", help="how many pictures to choose (12)")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
