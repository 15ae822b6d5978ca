"""`make canary`, `make promote` and `make rollback` under load: no request is lost.

The tests share one gateway and run in the order of this file: each begins with what the one before
has left.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from deploy import slots
from tests.integration.one_machine import Load, Run, ask, caption, gateway_address


def metrics() -> dict[str, float]:
    """The figures of both captioners, as Prometheus reads them."""
    text = httpx.get(f"{gateway_address()}/metrics", timeout=30, trust_env=False).text
    return {
        "/".join(
            [sample.name, *(sample.labels[name] for name in sorted(sample.labels))]
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def answered_by(wanted: str) -> str:
    reply = httpx.post(
        f"{gateway_address()}/v1/captions",
        content=Path("docs/sample.jpg").read_bytes(),
        headers={"X-Captioner": wanted},
        timeout=60,
        trust_env=False,
    )
    assert (reply.status_code, reply.headers["X-Captioner"]) == (200, wanted), reply.text
    return str(reply.json()["results"][0]["caption"])


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def test_there_must_be_a_gateway_and_a_trial(run: Run):
    for command in ("canary", "promote", "rollback"):
        status, out, err = run(command)
        assert (status, out, err.count("\n")) == (1, "", 1), err
    assert "no captioner is tried out; begin: make canary CHECKPOINT=DIR" in err


def test_a_trial_under_load(root: Path, run: Run, other_checkpoint: Path):
    status, out, err = run("start")
    assert status == 0, out + err
    status, out, err = run("canary")
    assert status == 1
    assert "already; name another one: make canary CHECKPOINT=DIR" in err
    stable = caption()

    with Load() as load:
        # A share of the requests.
        status, out, err = run("canary", "--checkpoint", other_checkpoint, "--share", "50")
        assert status == 0, out + err
        first, second = slots.serving()
        at = second.server.rest
        assert f"{other_checkpoint} at {at} gets 50% of the requests" in out
        candidate = answered_by("candidate")
        assert answered_by("stable") == stable != candidate
        time.sleep(2)
        found = metrics()
        for version in ("stable", "candidate"):
            assert found[f"gateway_version_pictures_total/captioned/{version}"] > 0
            assert found[f"gateway_version_pictures_total/failed/{version}"] == 0
        assert any(name.startswith("ts_") and "/candidate" in name for name in found)
        assert {text for _, text in load.captions} == {stable, candidate}

        status, out, err = run("status")
        assert (status, err) == (0, "")
        assert f"{at}: candidate {other_checkpoint}, workers ready: [" in out
        assert "gets 50% of the requests" in out
        status, out, err = run("swap")
        assert (status, out) == (1, "")
        assert "is tried out; take it or end it first: make promote or make rollback" in err

        # Copies: no user gets the candidate's caption.
        status, out, err = run("canary", "--shadow", "1", "--share", "100")
        assert status == 0, out + err
        assert f"{at} gets a copy of 100% of the requests" in out
        time.sleep(2)  # replies of requests that began before
        moved = time.monotonic()
        time.sleep(2)
        found = metrics()
        assert found["gateway_shadow_pictures_total/compared"] > 0
        assert found["gateway_shadow_equal_total"] == 0
        assert {text for begin, text in load.captions if begin > moved} == {stable}

        # Back, and nothing was lost.
        processes = family(second.server.process())
        status, out, err = run("rollback")
        assert status == 0, out + err
        assert f"the gateway at {gateway_address()} asks {first.server.rest} only" in out
        ended = time.monotonic()
        time.sleep(1)
    assert not load.faults
    assert {text for begin, text in load.captions if begin > ended} == {stable}
    assert not any(each.is_running() for each in processes)
    status, out, err = run("status")
    assert (status, err, out.count("\n")) == (0, "", 2)


def test_a_trial_outlives_the_gateway_and_is_promoted_under_load(
    root: Path, run: Run, other_checkpoint: Path
):
    first, second = slots.serving()
    stable = caption()
    status, out, err = run("canary", "--checkpoint", other_checkpoint, "--share", "0")
    assert status == 0, out + err
    candidate = answered_by("candidate")

    slots.gateway_of(first).process().kill()
    status, out, err = run("start")
    assert (status, err) == (0, ""), out
    assert "has ended by itself" in out
    assert "was cut off" not in out
    assert (caption(), answered_by("candidate")) == (stable, candidate)

    processes = family(first.server.process())
    with Load() as load:
        time.sleep(1)
        status, out, err = run("promote")
        assert status == 0, out + err
        promoted = time.monotonic()
        time.sleep(1)
    assert not load.faults
    assert {text for _, text in load.captions} == {stable, candidate}
    assert {text for begin, text in load.captions if begin > promoted} == {candidate}
    assert not any(each.is_running() for each in processes)
    new, _ = slots.serving()
    assert new.server.folder == second.server.folder
    assert ask()["model"]["version"].startswith("1.0-")
    status, out, err = run("status")
    assert (status, err, out.count("\n")) == (0, "", 2)
    assert out.startswith(f"{new.server.rest}: {other_checkpoint}, process ")


def test_one_that_fails_gets_no_more_and_is_not_promoted(
    root: Path, run: Run, tiny_checkpoint: Path
):
    stable = caption()
    status, out, err = run("canary", "--checkpoint", tiny_checkpoint, "--share", "100")
    assert status == 0, out + err
    _, other = slots.serving()
    at = other.server.rest
    for each in family(other.server.process()):
        each.kill()
    # The command sees that its TorchServe has ended; until then the gateway asks the other one.
    assert {caption() for _ in range(7)} == {stable}
    assert metrics()["gateway_candidate_stopped"] == 1
    status, out, err = run("promote")
    assert status == 1
    assert f"the trial of the captioner at {at} is over: a TorchServe has ended" in out
    assert "no captioner is tried out" in err
    assert metrics()["gateway_candidate_stopped"] == 0
    assert caption() == stable
