"""A second captioner that is tried out: who gets what, faults, copies, and what is counted."""

from __future__ import annotations

import logging
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.captioning.backend import Backend
from gateway.captioning.torchserve_metrics import with_candidate
from gateway.captioning.trial import Trial
from gateway.settings import Settings, SettingsError
from tests.unit.gateway.two_servers import Two, two

STABLE, CANDIDATE = "two red boats on a lake", "two red boats on the sea"
#: Settings without a candidate.
NONE = dict.fromkeys(("candidate_inference", "candidate_management", "candidate_metrics"), "")
IDS = [f"request-{number}" for number in range(2000)]


def trial(share: float, failures: int = 5) -> Trial:
    return Trial(Backend("http://c", "", ""), share, False, failures)


def caption(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["results"][0]["caption"])


def test_a_share_is_of_the_ids_and_a_larger_one_keeps_those_of_a_smaller_one():
    shares = (0, 10, 25, 100)
    taken = {share: {each for each in IDS if trial(share).takes(each)} for share in shares}
    assert not taken[0]
    assert 150 < len(taken[10]) < 250
    assert taken[10] < taken[25] < taken[100] == set(IDS)


def test_too_many_failures_among_the_last_pictures_stop_it(caplog: pytest.LogCaptureFixture):
    found = trial(100)
    for _ in range(4):
        found.note(failed=True)
    for _ in range(99):
        found.note(failed=False)
    for _ in range(4):  # those at the beginning do not count any more
        found.note(failed=True)
        assert not found.stopped
    found.note(failed=True)
    assert found.stopped
    assert not found.takes("any")
    assert "candidate http://c: stopped after 5 failures in its last 100 pictures" in caplog.text


def test_a_request_goes_wholly_to_one_and_the_reply_says_which():
    with two(candidate_share=50.0) as found:
        picked = Trial(Backend("", "", ""), 50.0, False, 5)
        for request_id in IDS[:12]:
            expected = "candidate" if picked.takes(request_id) else "stable"
            reply = found.ask(request_id)
            assert reply.headers["X-Captioner"] == expected
            assert caption(reply) == (CANDIDATE if expected == "candidate" else STABLE)
            assert reply.json()["model"]["version"] == ("2" if expected == "candidate" else "1")
        form = [("data", (f"{n}.jpg", b"x%d" % n)) for n in range(8)]
        reply = httpx.post(
            f"{found.address}/v1/captions",
            files=form,
            headers={"X-Request-Id": next(each for each in IDS if picked.takes(each))},
            trust_env=False,
        )
        assert {each["caption"] for each in reply.json()["results"]} == {CANDIDATE}


def test_a_request_may_name_the_captioner():
    with two(candidate_share=0.0) as found:
        assert caption(found.ask()) == STABLE
        assert caption(found.ask(wanted="candidate")) == CANDIDATE
        found.candidate.fault = 500  # and gets its own answer, whatever that is
        reply = found.ask(wanted="candidate")
        assert reply.status_code == 500
        assert caption(found.ask(wanted="stable")) == STABLE
        assert found.ask(wanted="other").json()["error"]["code"] == "unknown_captioner"
        found.torchserve.backends.move_to(found.settings(**NONE))
        assert found.ask(wanted="candidate").json()["error"]["code"] == "no_candidate"
        assert caption(found.ask(wanted="stable")) == STABLE


@pytest.mark.parametrize("fault", [400, 500, 503])
def test_what_the_candidate_fails_the_other_one_captions(
    fault: int, caplog: pytest.LogCaptureFixture
):
    with two() as found:
        found.candidate.fault = fault
        replies = [found.ask() for _ in range(5)]
        assert {caption(each) for each in replies} == {STABLE}
        assert {each.headers["X-Captioner"] for each in replies} == {"stable"}
        assert len(found.candidate.asked) == 3  # then it is stopped
        assert "stopped after 3 failures in its last 3 pictures" in caplog.text
        metrics = found.metrics()
        assert metrics["gateway_version_pictures_total/candidate/failed"] == 3
        assert metrics["gateway_version_pictures_total/stable/captioned"] == 5
        assert metrics["gateway_candidate_fallbacks_total"] == 3
        assert metrics["gateway_candidate_stopped"] == 1
        # What is not changed stays stopped, also when the certificate is renewed.
        found.torchserve.backends.move_to(found.settings())
        assert found.metrics()["gateway_candidate_stopped"] == 1
        found.torchserve.backends.move_to(found.settings(candidate_share=50.0))
        assert found.metrics()["gateway_candidate_stopped"] == 0


def test_one_that_hangs_or_does_not_listen_costs_a_request_little():
    with two(candidate_seconds=0.2) as found:
        found.candidate.seconds = 60
        begin = time.monotonic()
        assert caption(found.ask()) == STABLE
        assert time.monotonic() - begin < 40
        assert found.metrics()["gateway_version_pictures_total/candidate/failed"] == 1
        found.stable.seconds = 0.4  # slower than the candidate may be: the request is at fault
        assert caption(found.ask()) == STABLE
        assert found.metrics()["gateway_version_pictures_total/candidate/failed"] == 1
    with two() as found:
        found.candidate.close()  # nothing listens
        assert caption(found.ask()) == STABLE
        assert found.metrics()["gateway_version_pictures_total/candidate/failed"] == 1


def test_what_both_refuse_is_the_fault_of_the_picture():
    with two() as found:
        for _ in range(4):
            reply = found.ask(picture=b"no picture")
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, "image_undecodable")
        metrics = found.metrics()
        assert metrics["gateway_version_pictures_total/candidate/refused"] == 4
        assert metrics["gateway_version_pictures_total/candidate/failed"] == 0
        assert metrics["gateway_candidate_stopped"] == 0


def wait_for(found: Two, name: str, value: float) -> dict[str, float]:
    deadline = time.monotonic() + 20
    while (metrics := found.metrics())[name] != value:
        assert time.monotonic() < deadline, metrics[name]
        time.sleep(0.05)
    return metrics


def test_a_copy_is_compared_and_no_user_gets_it():
    with two(candidate_shadow=True) as found:
        for _ in range(3):
            reply = found.ask()
            assert (caption(reply), reply.headers["X-Captioner"]) == (STABLE, "stable")
        metrics = wait_for(found, "gateway_shadow_pictures_total/compared", 3)
        assert metrics["gateway_shadow_equal_total"] == 0
        assert metrics["gateway_shadow_word_f1_sum"] / 3 == pytest.approx(2 * 4 / 12)
        assert metrics["gateway_version_seconds_count/candidate"] == 3
        assert metrics["gateway_version_caption_words_sum/candidate"] == 18
        assert metrics["gateway_version_confidence_count/stable"] == 3
        assert metrics["gateway_candidate_share_percent/copies"] == 100
        assert metrics[f"gateway_version_info/candidate/{found.candidate.address}/clipcap/2"] == 1
        found.candidate.caption = STABLE
        found.ask()
        metrics = wait_for(found, "gateway_shadow_pictures_total/compared", 4)
        assert metrics["gateway_shadow_equal_total"] == 1
        assert metrics["gateway_shadow_bytes"] == 0
        found.candidate.fault = 500
        found.ask()
        wait_for(found, "gateway_shadow_pictures_total/failed", 1)


def test_copies_are_dropped_where_the_candidate_is_slow():
    with two(candidate_shadow=True) as found:
        found.candidate.seconds = 60
        for _ in range(40):  # 4 are asked about, 32 wait
            assert caption(found.ask()) == STABLE
        metrics = found.metrics()
        assert metrics["gateway_shadow_pictures_total/slow"] >= 1
        assert metrics["gateway_shadow_bytes"] > 0
        found.candidate.released.set()


def test_memory_of_copies_is_bounded():
    with two(candidate_shadow=True, max_bodies_bytes=1600, max_body_bytes=1600) as found:
        assert caption(found.ask(picture=b"y" * 201)) == STABLE
        assert found.metrics()["gateway_shadow_pictures_total/memory"] == 1
        assert not found.candidate.asked


def test_promotion_and_rollback_begin_new_figures(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with two() as found:
        assert f"candidate: {found.candidate.address} gets 100% of the requests" in caplog.messages
        found.ask()
        assert found.metrics()["gateway_version_pictures_total/candidate/captioned"] == 1
        backends = found.torchserve.backends
        with backends.using(backends.trial.backend):
            backends.move_to(found.settings(**NONE))
            assert caplog.messages[-1] == "candidate: none"
            assert len(backends.former) == 1
        left = f"backend {found.candidate.address}: its last request has ended"
        assert caplog.messages[-1] == left
        assert found.metrics()["gateway_version_pictures_total/candidate/captioned"] == 0
        backends.move_to(found.settings())
        candidate = found.candidate.address
        promoted = dict(inference=candidate, management=candidate, metrics=candidate, **NONE)
        backends.move_to(found.settings(**promoted))
        reply = found.ask()
        assert (caption(reply), reply.headers["X-Captioner"]) == (CANDIDATE, "stable")
        assert backends.former == []


def test_metrics_of_both_stand_on_one_page():
    with two() as found:
        metrics = found.metrics()
        assert metrics["ts_requests_total/clipcap"] == 3
        assert metrics["ts_requests_total/candidate/clipcap"] == 3
        assert (metrics["ts_up"], metrics["ts_up/candidate"]) == (1, 1)


def test_families_stand_together_and_each_has_one_type():
    page = (
        "# HELP a Help.\n# TYPE a histogram\n"
        'a_bucket{le="1.0",text="x}y"} 1\na_bucket{le="+Inf",text="x}y"} 2\na_count{text="x}y"} 2\n'
        "# HELP b Help.\n# TYPE b gauge\nb 4\n"
    )
    other = page + "# HELP c Help.\n# TYPE c gauge\nc{} 5\n"
    merged = with_candidate(page, other, "candidate")
    families = list(text_string_to_metric_families(merged))
    assert [each.name for each in families] == ["a", "b", "c"]
    assert merged.count("# TYPE") == 3
    assert len(families[0].samples) == 6
    assert 'c{version="candidate"} 5' in merged
    assert with_candidate("", other, "v").count("# TYPE") == 3


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"candidate_inference": "http://c:1"}, "CANDIDATE_MANAGEMENT is not given"),
        ({"candidate_share": 101.0}, "CANDIDATE_SHARE is '101.0'; it must be percent"),
        ({"candidate_failures": 0}, "CANDIDATE_FAILURES is '0'"),
        ({"candidate_seconds": 0.0}, "CANDIDATE_SECONDS is '0.0'"),
        (
            dict.fromkeys(NONE, "http://127.0.0.1:8080"),
            "the address of another TorchServe",
        ),
    ],
)
def test_settings_that_cannot_be_used(given: dict, problem: str):
    with pytest.raises(SettingsError, match="GATEWAY_CANDIDATE") as refused:
        Settings(**given)
    assert problem in str(refused.value)
