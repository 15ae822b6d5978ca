"""The handler with TorchServe's own context around it and a tiny captioner inside."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from handler import caption_handler, caption_settings
from handler.caption_batch import Prepared, Spent, caption_batch
from handler.caption_handler import CaptionHandler
from handler.caption_reply import Failure, to_json
from handler.caption_request import CaptionRequest
from handler.lanes import Lanes
from model.artifact import Artifact
from model.image.preprocessing import to_pixels
from model.options import GenerationOptions
from model.refusal import Refusal
from tests import ROOT
from tests.pictures import broken, encoded, picture, sound

REST = {"Host": "x", "Content-Length": "1"}


def context_of(folder: Path, config: dict[str, Any] | None = None) -> Context:
    metrics = MetricsCacheYamlImpl(str(ROOT / "handler" / "metrics.yaml"))
    metrics.initialize_cache()
    manifest = {"model": {"modelVersion": "1.0"}}
    return Context("clipcap", str(folder), manifest, 8, None, "0.12.0", True, metrics, config or {})


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


@pytest.fixture
def captioner(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> CaptionHandler:
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    handler = CaptionHandler()
    threads = torch.get_num_threads()
    handler.initialize(context_of(tiny_artifact))
    torch.set_num_threads(threads)
    return handler


def answer(
    captioner: CaptionHandler,
    rows: list[dict[str, Any]],
    headers: list[dict[str, Any]] | None = None,
    folder: Path = ROOT,
) -> list[tuple[int, dict[str, Any], dict[str, str]]]:
    """Status, body and headers of the reply to each row of a batch."""
    context = context_of(folder)
    context.request_processor = [RequestProcessor(each) for each in headers or [REST] * len(rows)]
    replies = captioner.handle(rows, context)
    return [
        (
            context.get_response_status(index)[0],
            json.loads(reply),
            context.get_response_headers(index),
        )
        for index, reply in enumerate(replies)
    ]


def test_a_batch_gets_a_reply_each_in_its_order(captioner: CaptionHandler):
    good = sound()
    rows: list[dict[str, Any]] = [{"body": data} for data in good.values()]
    together = answer(captioner, rows)
    assert [status for status, _, _ in together] == [200] * len(rows)
    for row, (_, body, _) in zip(rows, together, strict=True):
        ((_, alone, _),) = answer(captioner, [row])
        assert body["caption"] == alone["caption"]
        assert body["captions"][0]["log_prob"] == pytest.approx(
            alone["captions"][0]["log_prob"], abs=1e-3
        )


def test_bad_ones_in_a_batch_get_their_own_status(captioner: CaptionHandler):
    bad = list(broken().values())
    png = sound()["png"]
    rows: list[dict[str, Any]] = [{"body": png}]
    rows += [row for data, _, _ in bad for row in ({"body": data}, {"body": png})]
    replies = answer(captioner, rows)
    assert [status for status, _, _ in replies[1::2]] == [status for _, status, _ in bad]
    assert [body["error"]["code"] for _, body, _ in replies[1::2]] == [code for *_, code in bad]
    assert {status for status, _, _ in replies[0::2]} == {200}
    assert len({body["caption"] for _, body, _ in replies[0::2]}) == 1


def test_a_batch_of_nothing_but_bad_ones_is_answered(captioner: CaptionHandler):
    replies = answer(captioner, [{"body": b""}, {}])
    assert [body["error"]["code"] for _, body, _ in replies] == ["empty", "no_image"]


def test_replies_say_json_and_only_grpc_ones_end_a_stream(captioner: CaptionHandler):
    rows: list[dict[str, Any]] = [{"data": sound()["png"]}] * 2
    rest, rpc = answer(captioner, rows, [REST, {"data": {"content-type": ""}}])
    assert rest[2] == {"content-type": "application/json"}
    assert rpc[2] == {"content-type": "application/json", "ts_stream_next": "false"}


def test_a_describe_call_may_come_in_a_batch(captioner: CaptionHandler):
    rows: list[dict[str, Any]] = [{}, {"body": sound()["png"]}]
    (_, description, _), (status, body, _) = answer(captioner, rows, [{"describe": "True"}, REST])
    assert description["model"] == {"name": "clipcap", "version": "1.0"}
    assert description["options"]["num_beams"]["to"] == 8
    assert (status, "caption" in body) == (200, True)


def test_what_is_past_the_deadline_is_answered_504(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    settings = caption_settings.Settings(deadline_seconds=1e-9)
    monkeypatch.setattr(captioner, "settings", settings)
    ((status, body, _),) = answer(captioner, [{"body": sound()["png"]}])
    assert (status, body["error"]["code"]) == (504, "deadline")


@pytest.fixture
def requests(artifact: Artifact) -> list[Prepared]:
    """Three requests of 1, 2 and 1 pictures, with two sets of options."""
    torch.manual_seed(0)
    side = artifact.preprocessing.size
    one, two = GenerationOptions(num_beams=1), GenerationOptions(num_beams=3, num_captions=2)
    options = [[one], [two, one], [two]]
    return [
        Prepared(CaptionRequest([b""] * len(each), each), torch.randn(len(each), 3, side, side))
        for each in options
    ]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("per_pass", [1, 2, 8])
def test_options_are_grouped_and_captions_find_their_way_back(
    artifact: Artifact, requests: list[Prepared], per_pass: int, threads: int
):
    spent, lanes = Spent(), Lanes(threads)
    results = caption_batch(artifact, requests, per_pass, time.monotonic() + 60, spent, lanes)
    for prepared, result in zip(requests, results, strict=True):
        assert not isinstance(result, Failure)
        for pixels, options, captions in zip(
            prepared.pixels, prepared.request.options, result, strict=True
        ):
            expected = artifact.caption(artifact.encode(pixels[None]), options)[0]
            assert [caption.text for caption in captions] == [each.text for each in expected]
            assert captions[0].log_prob == pytest.approx(expected[0].log_prob, abs=1e-3)
    assert spent.pictures == 4
    assert spent.encode > 0
    assert spent.generate > 0


def test_a_deadline_fails_whole_requests_only(
    artifact: Artifact, requests: list[Prepared], monkeypatch: pytest.MonkeyPatch
):
    clock = iter([0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0])  # the second search starts too late
    monkeypatch.setattr("handler.caption_batch.time.monotonic", lambda: next(clock))
    results = caption_batch(artifact, requests, 8, 1.0, Spent(), Lanes(1))
    kinds = [result.status if isinstance(result, Failure) else 200 for result in results]
    assert kinds == [200, 504, 504]


def test_nothing_is_encoded_past_the_deadline(
    artifact: Artifact, requests: list[Prepared], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(artifact, "encode", lambda _: pytest.fail("it was encoded"))
    results = caption_batch(artifact, requests, 8, time.monotonic() - 1, Spent(), Lanes(1))
    assert [isinstance(each, Failure) and each.status for each in results] == [504] * 3


def test_a_fault_of_ours_is_one_request_s_alone(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    def faulty(image: Image.Image, _: Any) -> torch.Tensor:
        if image.size == (13, 7):
            raise AttributeError("nobody thought of this one")
        return to_pixels(image, captioner.artifact.preprocessing)

    monkeypatch.setattr(caption_handler, "to_pixels", faulty)
    odd = encoded(Image.new("RGB", (13, 7)), "PNG")
    replies = answer(captioner, [{"body": sound()["png"]}, {"body": odd}, {"body": sound()["png"]}])
    assert [status for status, _, _ in replies] == [200, 500, 200]
    assert replies[1][1]["error"]["code"] == "internal"


def test_an_empty_batch_is_nothing_to_do(artifact: Artifact):
    assert caption_batch(artifact, [], 8, time.monotonic() + 60, Spent(), Lanes(1)) == []


def test_numbers_that_json_has_no_word_for_are_not_sent():
    with pytest.raises(ValueError, match="JSON"):
        to_json({"confidence": float("nan")})


def test_another_copy_of_our_code_is_refused(tiny_artifact: Path):
    with pytest.raises(RuntimeError, match="cannot be served: the package `model` comes from"):
        CaptionHandler().initialize(context_of(tiny_artifact))


def test_a_wrong_setting_is_refused(tiny_artifact: Path):
    with pytest.raises(RuntimeError, match=r"handler\.max_pixel does not exist"):
        CaptionHandler().initialize(context_of(tiny_artifact, {"handler": {"max_pixel": 1}}))


@pytest.mark.parametrize("value", [0, -1, 2.5, "9", True, None])
def test_settings_are_positive_whole_numbers(value: Any):
    with pytest.raises(Refusal, match="max_pixels"):
        caption_settings.read({"handler": {"max_pixels": value}})


def test_a_container_s_share_of_the_cores_counts(tmp_path: Path):
    quota = tmp_path / "cpu.max"
    for text, cores in (("max 100000", None), ("150000 100000", 2), ("50000 100000", 1)):
        quota.write_text(text)
        machine = len(os.sched_getaffinity(0))
        assert caption_settings.cores(tmp_path / "none") == machine
        assert caption_settings.cores(quota) == min(machine, cores or machine)


def test_workers_share_the_cores():
    cores = caption_settings.cores()
    assert caption_settings.read({}).threads == cores
    assert caption_settings.read({"minWorkers": 64}).threads == 1
    assert caption_settings.read({"handler": {"threads": 3}}).threads == 3


def test_the_settings_that_are_shipped_are_sound():
    import yaml

    shipped = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    settings = caption_settings.read(shipped)
    assert settings.max_pixels == 50_000_000
    assert shipped["responseTimeout"] > settings.deadline_seconds


def test_max_pixels_comes_from_the_settings(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(captioner, "settings", caption_settings.Settings(max_pixels=2399))
    ((status, body, _),) = answer(captioner, [{"body": encoded(picture(), "PNG")}])
    assert status == 413
    assert "60 x 40 = 2400 pixels; the limit is 2399" in body["error"]["message"]


def test_the_pictures_of_a_request_share_a_limit(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(captioner, "settings", caption_settings.Settings(max_pixels=2400))

    data = base64.b64encode(encoded(picture(), "PNG")).decode()
    two, three = ({"instances": [{"data": data}] * count} for count in (2, 3))
    (sound, _, _), (status, body, _) = answer(
        captioner, [{"body": json.dumps(request).encode()} for request in (two, three)]
    )
    assert (sound, status) == (200, 413)
    assert (
        "the first 3 pictures of this request have 7200 pixels; the limit is 4800 for all"
        in (body["error"]["message"])
    )
