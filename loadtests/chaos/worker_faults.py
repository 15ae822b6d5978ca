"""The worker, TorchServe's process that captions, is killed or stopped; its thread is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time

import grpc
import httpx

from client import stubs
from deploy.torchserve import TorchServe
from loadtests.chaos.case import Case, check, wait_until
from loadtests.chaos.clients import PATIENCE
from loadtests.chaos.faulty_archive import make_faulty
from loadtests.chaos.serving import Serving
from loadtests.chaos.stage import Stage

KILLS = 10
STOPPED_SECONDS = 5.0
#: Seconds in which TorchServe must have a new worker.
RESTART_SECONDS = 60.0
#: Pictures that end the worker, each twice.
POISON = 3
#: Seconds that the client of a stream waits for its end.
STREAM_SECONDS = 10.0
#: Seconds of the gateway's deadline where requests are expected to reach it.
SHORT_DEADLINE = 8.0


def kill_worker(stage: Stage, kills: int = KILLS) -> str:
    """Kill the worker while it works, several times."""
    with stage.serving() as serving, stage.sending(serving) as clients:
        back = []
        for number in range(kills):
            worker = _worker(serving.server)
            stage.mark(f"kill {number + 1}")
            os.kill(worker, signal.SIGKILL)
            back.append(_wait_for_another(serving.server, worker))
            # Whoever was sent a second time is answered: a second kill would be a new fault.
            clients.wait_for_answers()
        resent = serving.metric("gateway_pictures_resent_total")
    clients.check_none_lost()
    check(resent > 0, "no request was sent again, so none was at the worker when it was killed")
    return (
        f"a new worker was ready after {statistics.median(back):.1f} s (median); "
        f"{resent:g} pictures were sent once more"
    )


def stop_worker(stage: Stage) -> str:
    """Stop the worker for some seconds, as a machine does that swaps or is moved."""
    with stage.serving() as serving, stage.sending(serving) as clients:
        worker = _worker(serving.server)
        stage.mark("stopped")
        os.kill(worker, signal.SIGSTOP)
        try:
            time.sleep(STOPPED_SECONDS)
        finally:
            os.kill(worker, signal.SIGCONT)
        stage.mark("goes on")
        clients.wait_for_answers()
        check(serving.server.workers() == [worker], "the worker was started again")
    clients.check_none_lost()
    slowest = clients.slowest
    check(slowest > STOPPED_SECONDS - 1, f"the slowest request took {slowest:.1f} s: none waited")
    return "requests waited and were answered by the same worker"


def poison(stage: Stage) -> str:
    """Send pictures that end the worker, beside those of the clients."""
    archive = make_faulty(stage.archive, stage.folder)
    options = {"num_beams": 2}
    with stage.serving(archive=archive) as serving, stage.sending(serving, options) as clients:
        first = _worker(serving.server)
        stage.mark("poison")
        for picture in stage.pictures[:POISON]:
            _check_worker_failed(serving, picture)
        stage.mark("answered")
        clients.wait_for_answers()
        last = _worker(serving.server)
        check(last != first, "no worker ended, so the pictures were no poison")
        for picture in stage.pictures[:POISON]:
            _check_worker_failed(serving, picture)
        clients.wait_for_answers()
        check(_worker(serving.server) == last, "a picture that ended workers was tried again")
        resent = serving.metric("gateway_pictures_resent_total")
    clients.check_none_lost()
    return f"{POISON} times worker_failed, also when sent again; {resent:g} pictures sent once more"


def cut_stream(stage: Stage) -> str:
    """Cut off a gRPC stream that has a `sequence_id`; cure TorchServe by a restart."""
    deadline = {"GATEWAY_DEADLINE_SECONDS": f"{SHORT_DEADLINE:g}"}
    with stage.serving(deadline) as serving:
        with stage.sending(serving) as clients:
            stage.mark("stream cut")
            _cut_a_stream(serving.server, stage.pictures[0])
            wait_until(lambda: clients.lost, 60, "captions went on: TorchServe has no such fault")
        kinds = {each.outcome for each in clients.lost}
        check(kinds == {"504 deadline"}, f"requests got {sorted(kinds)}, not 504 deadline")
        check(serving.get("/healthz").status_code == 200, "the gateway is not alive")
        unready = wait_until(
            lambda: serving.get("/readyz").status_code == 503, 120, "/readyz is still 200"
        )
        stage.mark("restart")
        serving.server.stop()
        serving.start_torchserve()
        wait_until(lambda: serving.get("/readyz").status_code == 200, 60, "/readyz is still 503")
        before = clients
        with stage.sending(serving) as clients:
            clients.wait_for_answers()
        clients.check_none_lost()
        clients.samples[:0] = before.samples
    return (
        f"504 deadline after {SHORT_DEADLINE:g} s; /readyz was 503 {unready:.0f} s later; after a "
        "restart of TorchServe all was captioned"
    )


def _worker(server: TorchServe) -> int:
    """The process of the only worker, once it is ready."""
    wait_until(server.workers, RESTART_SECONDS, "no worker is ready")
    return server.workers()[0]


def _wait_for_another(server: TorchServe, worker: int) -> float:
    """Wait until another worker is ready; the seconds that it took."""
    return wait_until(
        lambda: [each for each in server.workers() if each != worker],
        RESTART_SECONDS,
        "no other worker is ready",
    )


def _check_worker_failed(serving: Serving, picture: bytes) -> None:
    reply = httpx.post(
        f"{serving.address}/v1/captions",
        content=picture,
        params={"num_beams": 7},
        timeout=PATIENCE,
        trust_env=False,
    )
    code = reply.json().get("error", {}).get("code")
    check((reply.status_code, code) == (500, "worker_failed"), f"poison got {reply.text[:200]}")


def _cut_a_stream(server: TorchServe, picture: bytes) -> None:
    """Begin a sequence, and close the own side of the stream before its answer."""
    messages, services = stubs.load()
    request = messages.PredictionsRequest(
        model_name=server.model, input={"data": picture}, sequence_id="chaos"
    )
    with grpc.insecure_channel(server.grpc.removeprefix("grpc://")) as channel:
        service = services.InferenceAPIsServiceStub(channel)
        with contextlib.suppress(grpc.RpcError):  # how it ends makes no difference
            list(service.StreamPredictions2(iter([request]), timeout=STREAM_SECONDS))


CASES = [
    Case(
        "worker-killed",
        f"SIGKILL to the worker, {KILLS} times",
        "no request lost; TorchServe starts another worker",
        kill_worker,
    ),
    Case(
        "worker-stopped",
        f"SIGSTOP to the worker, SIGCONT after {STOPPED_SECONDS:g} s",
        "no request lost; they wait",
        stop_worker,
    ),
    Case(
        "poison",
        f"{POISON} pictures, each of which ends the worker whenever it is tried",
        "500 worker_failed for these; no other request lost; not tried again",
        poison,
    ),
    Case(
        "stream-cut",
        "gRPC `StreamPredictions2` with a `sequence_id`, cut off by its client",
        "a fault of TorchServe, which is why it listens on this machine only: requests get 504, "
        "/readyz turns 503; a restart of TorchServe cures it",
        cut_stream,
    ),
]
