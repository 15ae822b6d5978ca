"""The handler with TorchServe's own context around it and a tiny captioner inside."""

from __future__ import annotations

import ast
import base64
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from handler import batch_captioner, caption_handler, caption_settings, request_images
from handler.admission import Admission
from handler.caption_batch import caption_images
from handler.caption_handler import CANNOT_BE_SERVED, CaptionHandler
from handler.caption_settings import Settings
from handler.parallel_passes import ParallelPasses
from handler.replies.caption_reply import to_json
from handler.replies.failure import PHRASES, STATUSES
from handler.request_result import ImageResult
from model.artifact import Artifact, GeneratedCaption
from model.image.decode import MAX_PIXELS, OpenedImage, open_image
from model.options import OPTIONS, GenerationOptions
from model.refusal import Refusal
from tests import ROOT
from tests.pictures import broken, encoded, picture, sound

PNG_TEXT = base64.b64encode(sound()["png"]).decode()
REST = {"Host": "x", "Content-Length": "1"}
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())


def config_with(**changes: Any) -> dict[str, Any]:
    """The shipped `model-config.yaml` with other values in its `handler` section."""
    return {**SHIPPED, "handler": {**SHIPPED["handler"], **changes}}


def settings_with(**changes: Any) -> Settings:
    return caption_settings.read(config_with(**changes))


def context_of(folder: Path, config: dict[str, Any] | None = None) -> Context:
    metrics = MetricsCacheYamlImpl(str(ROOT / "handler" / "metrics.yaml"))
    metrics.initialize_cache()
    manifest = {"model": {"modelVersion": "1.0"}}
    config = SHIPPED if config is None else config
    return Context("clipcap", str(folder), manifest, 8, None, "0.12.0", True, metrics, config)


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
    assert list(description["options"]) == list(OPTIONS)
    assert description["options"]["num_beams"] == {
        "default": 5,
        "from": 1,
        "to": 8,
        "type": "int",
        "help": OPTIONS["num_beams"].help,
    }
    assert description["options"]["max_tokens"]["default"] == 12  # the captioner's own
    # Its language model has fewer positions than others.
    limit = captioner.artifact.info["max_tokens"]
    assert limit < OPTIONS["max_tokens"].high
    assert description["options"]["max_tokens"]["to"] == limit
    assert description["options"]["min_tokens"]["to"] == limit
    assert description["options"]["length_penalty"]["type"] == "float"
    assert (status, "caption" in body) == (200, True)


def test_what_is_past_the_deadline_is_answered_504(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(captioner, "settings", settings_with(deadline_seconds=1e-9))
    ((status, body, _),) = answer(captioner, [{"body": sound()["png"]}])
    assert (status, body["error"]["code"]) == (504, "deadline")


def test_a_request_names_its_own_deadline(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    """Its picture costs nothing after that, and its neighbours are captioned."""
    decoded: list[float] = []
    decode = batch_captioner.decode_images

    def count(*arguments: Any) -> list[ImageResult]:
        decoded.append(arguments[3])
        return decode(*arguments)

    monkeypatch.setattr(batch_captioner, "decode_images", count)
    now = time.time()
    named = [str(now - 0.001), f"{now + 60:.3f}", "soon", "nan", "-inf", "inf"]
    headers = [{**REST, "x-request-deadline": each} for each in named]
    rows: list[dict[str, Any]] = [{"body": sound()["png"]}] * 7
    replies = answer(captioner, rows, [*headers, REST])
    assert [status for status, _, _ in replies] == [504, 200, 400, 400, 504, 200, 200]
    assert "'soon'; it must be a time in seconds since 1970" in replies[2][1]["error"]["message"]
    assert len(decoded) == 3
    assert min(decoded) == pytest.approx(time.monotonic() + 60 - (time.time() - now), abs=1)


def test_an_image_past_its_own_deadline_takes_no_part_in_a_pass(artifact: Artifact):
    side = artifact.preprocessing.size
    images = [ImageResult(torch.randn(3, side, side), ONE) for _ in range(3)]
    images[1].deadline = time.monotonic()
    caption_images(artifact, images, 8, math.inf, ParallelPasses(1))
    assert [image.features is None for image in images] == [False, True, False]
    assert [image.failure and image.failure.code for image in images] == [None, "deadline", None]


ONE, TWO = GenerationOptions(num_beams=1), GenerationOptions(num_beams=3, num_captions=2)


@pytest.fixture
def images(artifact: Artifact) -> list[ImageResult]:
    """Four images, with two sets of options."""
    torch.manual_seed(0)
    side = artifact.preprocessing.size
    return [ImageResult(torch.randn(3, side, side), options) for options in (ONE, TWO, ONE, TWO)]


def alone(artifact: Artifact, image: ImageResult) -> list[GeneratedCaption]:
    return artifact.caption(artifact.encode(image.pixels[None]), image.options)[0]


def assert_captioned(artifact: Artifact, image: ImageResult) -> None:
    expected = alone(artifact, image)
    assert image.failure is None
    assert [caption.text for caption in image.captions] == [each.text for each in expected]
    assert image.captions[0].log_prob == pytest.approx(expected[0].log_prob, abs=1e-3)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("per_pass", [1, 2, 8])
def test_images_are_grouped_by_options_and_get_their_own_captions(
    artifact: Artifact, images: list[ImageResult], per_pass: int, threads: int
):
    passes = ParallelPasses(threads)
    timings = caption_images(artifact, images, per_pass, time.monotonic() + 60, passes)
    for image in images:
        assert_captioned(artifact, image)
    assert timings.encode > 0
    assert timings.generate > 0


def test_a_deadline_fails_what_was_not_searched(
    artifact: Artifact, images: list[ImageResult], monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    search = artifact.caption

    def slow(features: torch.Tensor, options: GenerationOptions) -> list[list[GeneratedCaption]]:
        nonlocal now
        now += 2.0
        return search(features, options)

    monkeypatch.setattr("handler.caption_batch.time.monotonic", lambda: now)
    monkeypatch.setattr(artifact, "caption", slow)  # the second search would begin too late
    caption_images(artifact, images, 8, 1.0, ParallelPasses(1))
    assert [image.failure and image.failure.status for image in images] == [None, 504, None, 504]


def test_of_several_pictures_those_that_are_late_fail_alone(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    search = captioner.artifact.caption

    def slow(features: torch.Tensor, options: GenerationOptions) -> list[list[GeneratedCaption]]:
        nonlocal now
        now += 100.0
        return search(features, options)

    monkeypatch.setattr("handler.caption_batch.time.monotonic", lambda: now)
    monkeypatch.setattr("handler.batch_captioner.time.monotonic", lambda: now)
    monkeypatch.setattr("handler.request_images.time.monotonic", lambda: now)
    monkeypatch.setattr(captioner.artifact, "caption", slow)
    both = {"instances": [{"data": PNG_TEXT, "num_beams": 1}, {"data": PNG_TEXT, "num_beams": 2}]}
    rows: list[dict[str, Any]] = [{"body": sound()["png"], "num_beams": b"1"}]
    rows += [{"body": json.dumps(both).encode()}, {"body": sound()["png"], "num_beams": b"2"}]
    replies = answer(captioner, rows)
    assert [status for status, _, _ in replies] == [200, 200, 504]
    first, second = replies[1][1]["predictions"]
    assert first["caption"]
    assert second["error"]["status"] == 504


def test_nothing_is_encoded_past_the_deadline(
    artifact: Artifact, images: list[ImageResult], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(artifact, "encode", lambda _: pytest.fail("it was encoded"))
    caption_images(artifact, images, 8, time.monotonic() - 1, ParallelPasses(1))
    assert [image.failure and image.failure.status for image in images] == [504] * 4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("an operator failed")])
def test_an_image_that_cannot_be_encoded_fails_alone(
    artifact: Artifact,
    images: list[ImageResult],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    threads: int,
    error: Exception,
):
    encode = artifact.encode

    def faulty(pixels: torch.Tensor) -> torch.Tensor:
        if any(torch.equal(each, images[1].pixels) for each in pixels):
            raise error
        return encode(pixels)

    monkeypatch.setattr(artifact, "encode", faulty)
    caption_images(artifact, images, 8, time.monotonic() + 60, ParallelPasses(threads))
    monkeypatch.undo()
    assert images[1].failure is not None
    assert (images[1].failure.status, images[1].failure.code) == (500, "internal")
    assert images[1].captions == []
    for image in (images[0], images[2], images[3]):
        assert_captioned(artifact, image)
    assert type(error).__name__ in caplog.text


def raising_for(
    captioner: CaptionHandler, options: GenerationOptions, error: Exception
) -> Callable[[torch.Tensor, GenerationOptions], list[list[GeneratedCaption]]]:
    """The captioner's own search, which fails for one set of options."""
    search = captioner.artifact.caption

    def caption(features: torch.Tensor, given: GenerationOptions) -> list[list[GeneratedCaption]]:
        if given == options:
            raise error
        return search(features, given)

    return caption


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("an operator failed")])
def test_a_search_that_fails_is_its_own_request_s_500(
    captioner: CaptionHandler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
):
    rows: list[dict[str, Any]] = [{"body": sound()["png"]}] * 2
    rows.insert(1, {"body": sound()["png"], "num_beams": b"4"})
    expected = [body for _, body, _ in answer(captioner, rows)]
    bad = captioner.artifact.defaults.updated({"num_beams": 4})
    monkeypatch.setattr(captioner.artifact, "caption", raising_for(captioner, bad, error))
    replies = answer(captioner, rows)
    assert [status for status, _, _ in replies] == [200, 500, 200]
    assert replies[1][1]["error"]["code"] == "internal"
    assert [replies[0][1], replies[2][1]] == [expected[0], expected[2]]
    assert "Traceback" in caplog.text


def test_a_batch_that_is_too_large_for_the_memory_is_captioned_image_by_image(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    search = captioner.artifact.caption

    def caption(features: torch.Tensor, options: GenerationOptions) -> list[list[GeneratedCaption]]:
        if len(features) > 1:
            raise MemoryError
        return search(features, options)

    monkeypatch.setattr(captioner.artifact, "caption", caption)
    replies = answer(captioner, [{"body": sound()["png"]}, {"body": sound()["jpeg"]}] * 2)
    assert [status for status, _, _ in replies] == [200] * 4


def test_a_reply_that_cannot_be_serialised_is_its_own_request_s_500(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    search = captioner.artifact.caption

    def caption(features: torch.Tensor, options: GenerationOptions) -> list[list[GeneratedCaption]]:
        found = search(features, options)
        if options.num_beams == 4:
            found = [[GeneratedCaption(each[0].text, math.nan, 1)] for each in found]
        return found

    monkeypatch.setattr(captioner.artifact, "caption", caption)
    rows: list[dict[str, Any]] = [{"body": sound()["png"]}] * 2
    rows.insert(1, {"body": sound()["png"], "num_beams": b"4"})
    replies = answer(captioner, rows)
    assert [status for status, _, _ in replies] == [200, 500, 200]
    assert replies[1][1]["error"]["code"] == "internal"


@pytest.mark.parametrize("error", [MemoryError(), AttributeError("nobody thought of this one")])
def test_a_fault_of_the_server_is_never_called_a_damaged_picture(
    captioner: CaptionHandler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
):
    def faulty(data: bytes, max_pixels: int, side: int) -> OpenedImage:
        opened = open_image(data, max_pixels, side)
        if opened.image.size == (13, 7):
            raise error
        return opened

    monkeypatch.setattr(request_images, "open_image", faulty)
    odd = encoded(Image.new("RGB", (13, 7)), "PNG")
    both = [{"data": base64.b64encode(data).decode()} for data in (sound()["png"], odd)]
    rows = [sound()["png"], odd, sound()["png"], json.dumps({"instances": both}).encode()]
    replies = answer(captioner, [{"body": data} for data in rows])
    assert [status for status, _, _ in replies] == [200, 500, 200, 200]
    assert replies[1][1]["error"]["code"] == "internal"
    assert replies[3][1]["predictions"][1]["error"]["code"] == "internal"
    assert type(error).__name__ in caplog.text


def slowed(captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make each image take this much longer to search."""
    search = captioner.artifact.caption

    def caption(features: torch.Tensor, options: GenerationOptions) -> list[list[GeneratedCaption]]:
        time.sleep(seconds * len(features))
        return search(features, options)

    monkeypatch.setattr(captioner.artifact, "caption", caption)


def many_pictures(count: int) -> dict[str, Any]:
    return {"body": json.dumps({"instances": [{"data": PNG_TEXT}] * count}).encode()}


def test_requests_that_a_batch_has_no_time_for_are_refused(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    """16 requests of 16 pictures are allowed, and took longer than the deadline: 504 for all."""
    slowed(captioner, monkeypatch, 0.02 * captioner.settings.threads)
    monkeypatch.setattr(captioner, "admission", Admission(8))  # the warm-up was not slow
    answer(captioner, [many_pictures(16)])
    monkeypatch.setattr(captioner, "settings", settings_with(deadline_seconds=3.0))
    headers = [{**REST, "Content-Length": "9"}] * 15 + [{"body": {"content-type": ""}}]
    replies = answer(captioner, [many_pictures(16)] * 16, headers)
    statuses = [status for status, _, _ in replies]
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 503}
    waits = []
    for status, body, sent in replies:
        if status == 503:
            assert body["error"]["code"] == "overloaded"
            waits.append(body["error"]["retry_after_seconds"])
            assert sent["Retry-After"] == str(waits[-1])
        else:
            assert "Retry-After" not in sent
    assert waits[0] == 1
    assert waits == sorted(waits)
    assert replies[-1][2]["ts_stream_next"] == "false"


def test_the_first_estimate_comes_from_the_warm_up(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    handler, threads = CaptionHandler(), torch.get_num_threads()
    search = Artifact.caption

    def slow(
        self: Artifact, features: torch.Tensor, options: GenerationOptions
    ) -> list[list[GeneratedCaption]]:
        time.sleep(0.1 * len(features))
        return search(self, features, options)

    monkeypatch.setattr(Artifact, "caption", slow)
    handler.initialize(context_of(tiny_artifact, config_with(threads=1)))
    torch.set_num_threads(threads)
    monkeypatch.setattr(handler, "settings", settings_with(threads=1, deadline_seconds=4.0))
    replies = answer(handler, [many_pictures(16)] * 3)  # 1.6 s and more each
    assert [status for status, _, _ in replies] == [200, 503, 503]


def test_the_captioner_is_loaded_with_the_worker_s_threads(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    threads, load, found = torch.get_num_threads(), Artifact.load, []

    def observed(folder: Path, device: str) -> Artifact:
        found.append(torch.get_num_threads())
        return load(folder, device)

    monkeypatch.setattr(Artifact, "load", observed)
    CaptionHandler().initialize(context_of(tiny_artifact, config_with(threads=threads + 1)))
    torch.set_num_threads(threads)
    assert found == [threads + 1]


def test_a_warm_up_that_fails_says_so(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    search = Artifact.caption

    def faulty(
        self: Artifact, features: torch.Tensor, options: GenerationOptions
    ) -> list[list[GeneratedCaption]]:
        if options.max_tokens > 3:
            raise MemoryError
        return search(self, features, options)

    monkeypatch.setattr(Artifact, "caption", faulty)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="cannot be served: 8 images at once were not captioned"):
        CaptionHandler().initialize(context_of(tiny_artifact))
    torch.set_num_threads(threads)


def test_an_error_is_text_in_kserve_v2_whatever_failed(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [PNG_TEXT]}
    nothing = base64.b64encode(b"no picture").decode()
    documents: list[dict[str, Any]] = [
        {"inputs": [tensor], "parameters": {"binary_data_output": True}},
        {"inputs": [tensor], "parameters": {"beams": 2}},
        {"inputs": [{**tensor, "data": [nothing]}]},
        {"inputs": [tensor], "parameters": {"num_beams": 4}},
        {"instances": [{"data": nothing}]},
    ]
    bad = captioner.artifact.defaults.updated({"num_beams": 4})
    monkeypatch.setattr(
        captioner.artifact, "caption", raising_for(captioner, bad, RuntimeError("an operator"))
    )
    rows: list[dict[str, Any]] = [{"body": json.dumps(each).encode()} for each in documents]
    headers = [REST] * len(rows)
    rows.insert(4, {"body": b"compressed"})
    headers.insert(4, {**REST, "Inference-Header-Content-Length": "99"})
    rows.insert(5, {"body": bytearray(b"\x1f\x8bcompressed")})
    headers.insert(5, {**REST, "Inference-Header-Content-Length": "9"})
    replies = answer(captioner, rows, headers)
    assert [status for status, _, _ in replies] == [200, 400, 400, 500, 400, 400, 400]
    assert "outputs" in replies[0][1]
    for (status, body, _), code in zip(
        replies[1:6],
        ("unknown_option", "image_undecodable", "internal", "bad_request", "bad_json"),
        strict=True,
    ):
        message = body["error"]
        assert isinstance(message, str)
        assert body == {
            "error": message,
            "detail": {"status": status, "code": code, "message": message},
        }
    assert replies[6][1]["error"]["code"] == "image_undecodable"


def test_an_empty_batch_is_nothing_to_do(artifact: Artifact, captioner: CaptionHandler):
    caption_images(artifact, [], 8, time.monotonic() + 60, ParallelPasses(1))
    assert answer(captioner, []) == []


def test_every_error_code_has_its_status_in_one_table():
    used = {"unknown_option", "bad_option", "internal"}
    for file in [*(ROOT / "handler").rglob("*.py"), *(ROOT / "model" / "image").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            if named in ("RequestRefusal", "ImageRefusal") and node.args:
                code = node.args[0]
                used |= {code.value} if isinstance(code, ast.Constant) else set()
    assert used == set(STATUSES)
    assert set(STATUSES.values()) | {200} == set(PHRASES)


def test_numbers_that_json_has_no_word_for_are_not_sent():
    with pytest.raises(ValueError, match="JSON"):
        to_json({"confidence": float("nan")})


def test_another_copy_of_our_code_is_refused(tiny_artifact: Path):
    with pytest.raises(RuntimeError, match="cannot be served: the package `model` comes from"):
        CaptionHandler().initialize(context_of(tiny_artifact))


def test_the_server_looks_for_the_words_of_an_archive_that_cannot_be_served():
    """`deploy` must not import `handler`; an integration test shows that it finds them."""
    sources = [file.read_text() for file in (ROOT / "deploy").glob("*.py")]
    assert any(f"RuntimeError: ({CANNOT_BE_SERVED}: " in source for source in sources)


def test_a_wrong_setting_is_refused(tiny_artifact: Path):
    with pytest.raises(RuntimeError, match=r"handler\.max_pixel does not exist"):
        CaptionHandler().initialize(context_of(tiny_artifact, config_with(max_pixel=1)))


def test_the_file_has_all_settings():
    for name in SHIPPED["handler"]:
        section = {key: value for key, value in SHIPPED["handler"].items() if key != name}
        with pytest.raises(Refusal, match=rf"handler\.{name} is missing"):
            caption_settings.read({**SHIPPED, "handler": section})


@pytest.mark.parametrize("value", [0, -1, 2.5, "9", True, None])
def test_settings_are_positive_whole_numbers(value: Any):
    with pytest.raises(Refusal, match="max_pixels"):
        settings_with(max_pixels=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, -1.5, "60", False])
def test_the_deadline_is_a_positive_number(value: Any):
    with pytest.raises(Refusal, match="deadline_seconds is .*; it must be a number above 0"):
        settings_with(deadline_seconds=value)


def test_the_deadline_is_before_torchserve_s_own():
    assert settings_with(deadline_seconds=119.5).deadline_seconds == 119.5
    with pytest.raises(Refusal, match=r"is 120; it must be below responseTimeout \(120\)"):
        settings_with(deadline_seconds=120)
    with pytest.raises(Refusal, match=r"responseTimeout \(30\)"):
        caption_settings.read({**SHIPPED, "responseTimeout": 30})


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_share_of_the_cores_counts(tmp_path: Path, version: int):
    affinity = getattr(os, "sched_getaffinity", None)
    machine = len(affinity(0)) if affinity else os.cpu_count() or 1
    assert caption_settings.cores(tmp_path / "none") == machine
    for quota, cores in (("none", None), ("150000", 2), ("50000", 1)):
        if version == 2:
            quota = "max" if quota == "none" else quota
            (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        else:
            (tmp_path / "cpu").mkdir(exist_ok=True)
            quota = "-1" if quota == "none" else quota
            (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
        assert caption_settings.cores(tmp_path) == min(machine, cores or machine)


def test_cores_are_counted_where_a_process_has_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    assert caption_settings.cores(tmp_path) == os.cpu_count()


def test_workers_share_the_cores():
    cores = caption_settings.cores()
    assert settings_with().threads == cores
    assert caption_settings.read({**SHIPPED, "minWorkers": 64}).threads == 1
    assert settings_with(threads=3).threads == 3


def test_the_settings_that_are_shipped_are_sound():
    settings = caption_settings.read(SHIPPED)
    assert settings.max_pixels == MAX_PIXELS
    assert SHIPPED["responseTimeout"] > settings.deadline_seconds


def test_a_picture_short_of_its_last_bytes_is_captioned_with_a_warning(captioner: CaptionHandler):
    whole = encoded(picture((640, 480)), "JPEG")
    short = whole[:-2]
    text = base64.b64encode(short).decode()
    sound_text = base64.b64encode(whole).decode()
    v1 = {"instances": [{"data": sound_text}, {"data": text}]}
    tensor = {"name": "x", "datatype": "BYTES", "shape": [2], "data": [sound_text, text]}
    rows: list[dict[str, Any]] = [
        {"body": whole},
        {"body": short},
        {"data": short},  # a form, or gRPC
        {"body": json.dumps({"image": text}).encode()},
        {"body": json.dumps(v1).encode()},
        {"body": json.dumps({"inputs": [tensor]}).encode()},
    ]
    replies = answer(captioner, rows)
    assert [status for status, _, _ in replies] == [200] * len(rows)
    sound_reply, *plain, of_v1, of_v2 = (body for _, body, _ in replies)
    assert "warnings" not in sound_reply
    for body in plain:
        assert body["warnings"] == ["truncated"]
        assert body["caption"] == sound_reply["caption"]
    assert ["warnings" in each for each in of_v1["predictions"]] == [False, True]
    assert of_v1["predictions"][1]["warnings"] == ["truncated"]
    (warnings,) = (each for each in of_v2["outputs"] if each["name"] == "warnings")
    assert warnings == {
        "name": "warnings",
        "datatype": "BYTES",
        "shape": [2],
        "data": ["", "truncated"],
    }


def test_decoding_waits_for_memory(captioner: CaptionHandler):
    """All memory is reserved by another; the request fails at its deadline, and only then."""
    captioner.settings = settings_with(deadline_seconds=0.2)
    rows = [{"body": sound()["png"]}]
    with captioner.decoding_memory.reserve(1 << 60, math.inf):
        ((status, body, _),) = answer(captioner, rows)
    assert (status, body["error"]["code"]) == (504, "deadline")
    ((status, _, _),) = answer(captioner, rows)
    assert status == 200
    assert captioner.decoding_memory.used == 0


def test_max_pixels_comes_from_the_settings(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(captioner, "settings", settings_with(max_pixels=2399))
    ((status, body, _),) = answer(captioner, [{"body": encoded(picture(), "PNG")}])
    assert status == 413
    assert "60 x 40 = 2400 pixels; the limit is 2399" in body["error"]["message"]


def test_the_pictures_of_a_request_share_a_limit(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(captioner, "settings", settings_with(max_pixels=2400))

    data = base64.b64encode(encoded(picture(), "PNG")).decode()
    two, three = ({"instances": [{"data": data}] * count} for count in (2, 3))
    (sound, _, _), (status, body, _) = answer(
        captioner, [{"body": json.dumps(request).encode()} for request in (two, three)]
    )
    assert (sound, status) == (200, 200)
    *captioned, failed = body["predictions"]
    assert all(each["caption"] for each in captioned)
    assert failed["error"]["status"] == 413
    assert (
        "the first 3 pictures of this request have 7200 pixels; the limit is 4800 for all"
        in failed["error"]["message"]
    )


def gpu_context_of(folder: Path, gpu: int | None, **changes: Any) -> Context:
    """As `context_of`, of a worker to which TorchServe gives a GPU."""
    context = context_of(folder, config_with(**changes))
    context.system_properties["gpu_id"] = gpu
    return context


def test_a_worker_runs_on_the_gpu_that_it_is_given():
    settings = settings_with(images_per_pass=8, gpu_images_per_pass=48)
    assert caption_settings.on_device(settings, None) == (settings, "cpu")
    assert caption_settings.on_device(settings_with(device="cpu"), 1)[1] == "cpu"
    changed, device = caption_settings.on_device(settings, 1)
    assert (changed.images_per_pass, device) == (48, "cuda:1")
    with pytest.raises(Refusal, match="handler.device is 'gpu'; it must be auto or cpu"):
        settings_with(device="gpu")


def test_a_gpu_that_is_not_there_is_refused_unless_the_setting_is_cpu(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match=rf"{CANNOT_BE_SERVED}: .*there is no GPU 3; torch"):
        CaptionHandler().initialize(gpu_context_of(tiny_artifact, 3))
    handler = CaptionHandler()
    handler.initialize(gpu_context_of(tiny_artifact, 3, device="cpu"))
    torch.set_num_threads(threads)
    assert handler.artifact.device == torch.device("cpu")
