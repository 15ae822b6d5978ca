"""Starts Ray on this machine, or joins a cluster; and ends that again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handler.caption_settings import cores
from model.refusal import Refusal

#: The folder of this project's packages.
ROOT = Path(__file__).resolve().parent.parent
#: The packages that the stages import; nodes of a cluster get them from the driver.
PACKAGES = ("scale", "handler", "model")
#: How often Ray is started on this machine: on a busy one it may give up after half a minute.
STARTS = 3
#: The least memory for objects between the stages, in bytes, and the most of all memory.
LEAST_STORE, LARGEST_SHARE = 256_000_000, 0.3
#: Decoded blocks that may wait for each processor.
BLOCKS_PER_CORE = 8
#: Read by Ray when it is imported. It reports no usage, and its own messages go to its log files.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
#: Of the processes that caption: their threads wait for each other without taking a processor for
#: long, which others may need.
_OF_WORKERS = {"GOMP_SPINCOUNT": "5000"}
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}


@contextlib.contextmanager
def connected(address: str | None, store_bytes: int, *, verbose: bool = False) -> Iterator[Any]:
    """Ray, within this context.

    Args:
        address: `HOST:PORT` of a cluster's head, or `auto` on one of its nodes; None to start Ray
            on this machine. It ends with this process, however that ends.
        store_bytes: Memory for objects, of a Ray that is started here.
        verbose: Whether messages of Ray and of its processes are shown.

    Yields:
        The module `ray`.

    Raises:
        Refusal: There is no cluster at the address, or Ray does not start here.
    """
    os.environ.update(_ENVIRONMENT)
    if not verbose:
        os.environ.update(_QUIET)
    # Ray listens on the machine's own address: only those with the token of ~/.ray are served.
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    import ray.data

    on_terminate = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    shown: dict[str, Any] = {"log_to_driver": verbose}
    if not verbose:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"ray\.")
        shown["logging_level"] = logging.CRITICAL
    with contextlib.nullcontext() if verbose else without_stderr():
        if address is None:
            _start(ray, store_bytes, shown)
        else:
            _join(ray, address, shown)
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Drop what the process writes to standard error: Ray's C++ code has a line for each start."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _start(ray: Any, store_bytes: int, shown: dict[str, Any]) -> None:
    # Processes of Ray find our packages as this one does.
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    os.environ.update(_OF_WORKERS)
    for number in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cores(),
                include_dashboard=False,
                object_store_memory=store_bytes,
                **shown,
            )
            return
        except Exception as error:  # Ray has no other type for this
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if number == STARTS:
                raise Refusal(
                    f"Ray did not start on this machine in {STARTS} tries; it may be busy: try "
                    "again, or --verbose to see why"
                ) from error


def _join(ray: Any, address: str, shown: dict[str, Any]) -> None:
    if address.startswith("ray://"):
        raise Refusal(
            f"--address is {address}; the command has to run on a node of the cluster: give "
            "HOST:PORT of its head, or auto"
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 10).close()
        except (OSError, ValueError) as error:
            raise Refusal(f"no cluster answers at --address {address}: {error}") from None
    packages = [str(ROOT / name) for name in PACKAGES]
    try:
        needed = {"py_modules": packages, "env_vars": _OF_WORKERS}
        ray.init(address=address, runtime_env=needed, **shown)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise Refusal(f"the cluster at --address {address} is not joined: {first}") from None


def processors_of_nodes(ray: Any) -> list[int]:
    """Processors of each node that has some.

    Raises:
        Refusal: No node has one.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    found = [int(node["Resources"].get("CPU", 0)) for node in nodes]
    if not any(found):
        raise Refusal("the cluster has no node with processors; start one: ray start --address=...")
    return [count for count in found if count]


def gpus_of_nodes(ray: Any) -> list[float]:
    """Number of GPUs of each node."""
    return [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]


def check_nodes(ray: Any, output: str, name: str, content: bytes) -> None:
    """Refuse a cluster with a node that cannot see the output.

    Args:
        ray: The module, connected.
        output: Address of the output.
        name: A file in it.
        content: Of the file.

    Raises:
        Refusal: A node sees another file or none.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def sees(output: str) -> bytes | None:
        from scale.output.store import Store

        try:
            return Store(output).read(name)
        except FileNotFoundError:
            return None

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(ray.remote(sees).options(num_cpus=0, scheduling_strategy=there).remote(output))
    for node, seen in zip(nodes, ray.get(asked), strict=True):
        if seen != content:
            raise Refusal(
                f"the node {node['NodeManagerAddress']} does not see the output {output}; all "
                "nodes need the same folder there; or give a bucket, such as s3://BUCKET/captions"
            )


def store_bytes(block_bytes: int, artifact: Path) -> int:
    """Memory for objects of a Ray on this machine: decoded blocks that wait, and the captioner.

    Args:
        block_bytes: Of a decoded block.
        artifact: Folder of the captioner.
    """
    files = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file())
    wanted = max(LEAST_STORE, block_bytes * BLOCKS_PER_CORE * cores() + 2 * files)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(wanted, int(LARGEST_SHARE * machine))
