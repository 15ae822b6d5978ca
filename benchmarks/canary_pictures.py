"""What an operator sees of a trial and of a wrong captioner: `docs/canary.png`, from Prometheus.

    python -m benchmarks.canary_pictures [--seconds 40] [--out docs/canary.png]

On servers of its own it serves the captioner that ships, sends it pictures, asks golden requests,
tries the same captioner in bf16 out (copies, then a share), promotes it, and then serves a
captioner whose preprocessing is wrong, until the right one is served again. A real Prometheus
scrapes all of it. It needs `apt-get install prometheus`, and takes about ten times `--seconds`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import httpx

from client import CaptionClient, CaptionError
from deploy import canary, serve, slots, swap
from deploy.captioner import SHIPPED, Captioner
from deploy.ports import on_free_ports
from deploy.properties import ROOT, derived_config
from monitoring import compare
from monitoring.canary import SCENES
from monitoring.golden.recording import pictures_of
from tests.integration.gateways import free_port

#: Threads that send pictures.
CLIENTS = 3
#: Seconds between two scrapes, and between two rounds of golden requests.
STEP = 5
#: Seconds after and before something is done that are drawn of a long wait.
KEPT = 45.0
_CAPTIONED = 'gateway_version_pictures_total{outcome="captioned",version='
_COMPARED = 'gateway_shadow_pictures_total{outcome="compared"}'
#: What is drawn: the title of each part, and its curves by name.
PARTS: dict[str, dict[str, str]] = {
    "captions a second": {
        "stable": f'sum(rate({_CAPTIONED}"stable"}}[20s]))',
        "candidate": f'sum(rate({_CAPTIONED}"candidate"}}[20s]))',
    },
    "copies: share of equal captions, word F1": {
        "equal": f"gateway_shadow_equal_total / on (job) ({_COMPARED} > 0)",
        "word F1": "gateway_shadow_word_f1_sum / (gateway_shadow_word_f1_count > 0)",
    },
    "golden requests: captions as recorded, feature": {
        "captions": "clipcap_golden_match",
        "cosine of the feature": "clipcap_golden_feature_cosine",
    },
}


class Load:
    """Threads that send pictures, and count what fails."""

    def __init__(self, address: str) -> None:
        self.sent, self.failed = 0, 0
        self._ended = threading.Event()
        self._address = address
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send(self, first: int) -> None:
        files = pictures_of(SCENES)
        with CaptionClient(self._address, retries=0) as client:
            for file in itertools.cycle([*files[first:], *files[:first]]):
                if self._ended.wait(0.05):
                    return
                self.sent += 1
                try:
                    client.caption(file)
                except CaptionError as error:
                    self.failed += 1
                    print(f"failed: {error}", file=sys.stderr)

    def end(self) -> None:
        """Wait for the last answers."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def wrong_captioner(folder: Path) -> Path:
    """The captioner that ships, with another mean and deviation of colours in its configuration."""
    shutil.copytree(SHIPPED, folder)
    config = json.loads((folder / "config.json").read_text())
    config["preprocessing"] |= {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


Curves = dict[str, list[tuple[float, float]]]


def play(root: Path, seconds: float) -> tuple[Curves, dict[str, float], str]:
    """Serve, try out, promote, serve a wrong one.

    Returns:
        The curves, with seconds since the beginning; when each thing was done; and the table of
        `monitoring.compare`.
    """
    config = derived_config(root / "config.properties", on_free_ports())
    done: dict[str, float] = {}

    def do(name: str, action: Callable[[], object]) -> None:
        print(f"--- {name}", flush=True)
        action()
        done[name] = time.time()
        time.sleep(seconds)

    serve.start(SHIPPED, config, None, precision="fp32")
    gateway = slots.gateway_of(slots.serving()[0]).address
    golden, prometheus = free_port(), free_port()
    (root / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": f"{STEP}s"},
                "scrape_configs": [
                    {"job_name": name, "static_configs": [{"targets": [target]}]}
                    for name, target in (
                        ("clipcap", gateway.removeprefix("http://")),
                        ("clipcap-golden", f"127.0.0.1:{golden}"),
                    )
                ],
            }
        )
    )
    at = f"127.0.0.1:{prometheus}"
    watched = subprocess.Popen(
        [sys.executable, "-m", "monitoring.canary", "--address", gateway]
        + ["--every", str(STEP), "--port", str(golden)],
        cwd=ROOT,
    )
    scraped = subprocess.Popen(
        ["prometheus", f"--config.file={root / 'prometheus.yml'}", f"--web.listen-address={at}"]
        + [f"--storage.tsdb.path={root / 'prometheus'}", "--log.level=error"]
    )
    load = Load(gateway)
    begin = time.time()
    try:
        time.sleep(seconds)
        bf16, wrong = Captioner(SHIPPED, "bf16"), wrong_captioner(root / "wrong")
        do("copies to bf16", lambda: canary.start(bf16, config, 100.0, True, True))
        table = compare.table(compare.read_metrics(gateway, None))
        do("a quarter to bf16", lambda: canary.start(bf16, config, 25.0, False, True))
        do("promoted", canary.promote)
        do("wrong preprocessing", lambda: swap.swap(wrong, config, "fp32", None))
        do("right again", lambda: swap.swap(SHIPPED, config, "fp32", None))
        load.end()
        print(f"{load.sent} pictures sent, {load.failed} failed", flush=True)
        curves = {
            name: query(f"http://{at}", text, begin)
            for part in PARTS.values()
            for name, text in part.items()
        }
    finally:
        load.end()
        for process in (watched, scraped):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    return curves, {name: when - begin for name, when in done.items()}, table


def query(address: str, expression: str, begin: float) -> list[tuple[float, float]]:
    """A curve: seconds since the beginning, and values."""
    reply = httpx.get(
        f"{address}/api/v1/query_range",
        params={"query": expression, "start": begin, "end": time.time(), "step": STEP},
        trust_env=False,
        timeout=30,
    )
    reply.raise_for_status()
    series = reply.json()["data"]["result"]
    return sorted(
        (float(when) - begin, float(value)) for each in series for when, value in each["values"]
    )


def shorter(when: float, done: dict[str, float]) -> float | None:
    """A time on an axis from which long waits are cut; None for one that is cut."""
    cut, before = 0.0, 0.0
    for event in done.values():
        if event - before > 2 * KEPT:
            if before + KEPT < when < event - KEPT:
                return None
            if when >= event - KEPT:
                cut += event - before - 2 * KEPT
        before = event
    return when - cut


def draw(curves: Curves, done: dict[str, float], out: Path) -> None:
    """Write the picture; time is cut where nothing is done for long."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(PARTS), 1, figsize=(10, 8), sharex=True)
    for axis, (title, parts) in zip(axes, PARTS.items(), strict=True):
        for name in parts:
            points = [(shorter(when, done), value) for when, value in curves[name]]
            shown = [(when, value) for when, value in points if when is not None]
            axis.plot(*zip(*shown, strict=True), ".", markersize=5, label=name)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.legend(loc="lower left", fontsize=8)
        axis.grid(alpha=0.3)
        for when in done.values():
            axis.axvline(shorter(when, done), color="grey", linestyle="--", linewidth=0.8)
    for name, when in done.items():
        axes[0].annotate(
            name,
            (shorter(when, done), 1.12),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            rotation=12,
        )
    axes[-1].set_xlabel("seconds; waits for an export are cut out")
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def main() -> None:
    """Play, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=40.0, help="between two things")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "canary.png")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="canary-") as name:
        root = Path(name)
        port = mock.patch.dict(os.environ, {"GATEWAY_PORT": str(free_port())})
        folders = mock.patch.multiple(
            slots, STATE=root / "server", ARCHIVE=root / "clipcap.mar", ARTIFACT=root / "artifact"
        )
        with port, folders:
            try:
                curves, done, table = play(root, given.seconds)
            finally:
                serve.stop()
        draw(curves, done, given.out)
    print(table)
    print(f"{given.out}")


if __name__ == "__main__":
    main()
