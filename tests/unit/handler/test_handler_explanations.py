"""Explanations in a batch: each gets its own reply, and none costs its neighbours their caption."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from handler import caption_handler
from handler.admission import SHARE, Admission
from handler.caption_batch import BatchTimings
from handler.caption_handler import CaptionHandler
from handler.replies.overlay import TILE, PictureView, contact_sheet
from handler.request_result import ImageResult, RequestResult
from handler.requests.caption_request import CaptionRequest, ExplanationRequest
from model.artifact import GeneratedCaption
from model.caption_words import CaptionWord
from model.explanation import CaptionExplanation, explain, image_count
from model.image.decode import load_image
from model.image.preprocessing import Preprocessing, to_pixels
from model.options import GenerationOptions
from tests import ROOT
from tests.pictures import encoded, picture, sound

REST = {"Host": "x", "Content-Length": "1"}
PNG = sound()["png"]
Row = dict[str, Any]


def context_of(folder: Path, **changes: Any) -> Context:
    config = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    config["handler"].update(changes)
    metrics = MetricsCacheYamlImpl(str(ROOT / "handler" / "metrics.yaml"))
    metrics.initialize_cache()
    manifest = {"model": {"modelVersion": "1.0"}}
    return Context("clipcap", str(folder), manifest, 8, None, "0.12.0", True, metrics, config)


@pytest.fixture
def captioner(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> CaptionHandler:
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    handler, threads = CaptionHandler(), torch.get_num_threads()
    handler.initialize(context_of(tiny_artifact, threads=2))
    torch.set_num_threads(threads)
    return handler


def answer(
    captioner: CaptionHandler, rows: list[Row], headers: list[dict[str, Any]] | None = None
) -> list[tuple[int, Any, str]]:
    """Status, reply and content type for each row of a batch; JSON is parsed."""
    context = context_of(ROOT)
    context.request_processor = [RequestProcessor(each) for each in headers or [REST] * len(rows)]
    replies = captioner.handle(rows, context)
    found = []
    for index, reply in enumerate(replies):
        kind = context.get_response_headers(index)["content-type"]
        body = json.loads(reply) if kind == "application/json" else reply
        found.append((context.get_response_status(index)[0], body, kind))
    return found


def test_an_explanation_is_added_to_the_reply(captioner: CaptionHandler):
    plain, explained = answer(
        captioner, [{"data": PNG}, {"data": PNG, "explain": b"true", "grid": b"4"}]
    )
    explanation = explained[1].pop("explanation")
    assert explained == plain
    assert explanation["grid"] == [4, 4]
    assert explanation["passes"] == image_count(4)
    caption = explained[1]["caption"]
    assert [caption[word["from"] : word["to"]] for word in explanation["words"]] == [
        word["word"] for word in explanation["words"]
    ]
    # The values are those of the captioner itself.
    artifact = captioner.artifact
    pixels = to_pixels(load_image(PNG), artifact.preprocessing)
    [[best]] = artifact.caption(artifact.encode(pixels[None]), artifact.defaults)
    parts = [range(image_count(4))]
    found = explain(artifact, pixels, best, 4, parts, lambda work, each: [*map(work, each)])
    for word, cells, log_prob, blank in zip(
        explanation["words"], found.cells, found.log_probs, found.blank, strict=True
    ):
        torch.testing.assert_close(torch.tensor(word["cells"]), cells, atol=1e-3, rtol=1e-3)
        assert word["log_prob"] == pytest.approx(log_prob.item(), abs=1e-3)
        assert word["log_prob_blank"] == pytest.approx(blank.item(), abs=1e-3)


def test_the_reply_says_which_part_of_the_picture_the_grid_covers(captioner: CaptionHandler):
    wide = encoded(picture((200, 100)), "PNG")
    [(_, body, _)] = answer(captioner, [{"data": wide, "explain": b"true", "grid": b"2"}])
    assert body["explanation"]["crop"] == {"x": 0.25, "y": 0.0, "width": 0.5, "height": 1.0}


def test_the_route_of_torchserve_explains(captioner: CaptionHandler):
    [(status, body, _)] = answer(captioner, [{"body": PNG}], [{**REST, "explain": "True"}])
    assert status == 200
    assert body["explanation"]["grid"] == [8, 8]


def test_a_picture_to_look_at(captioner: CaptionHandler):
    rows = [{"data": PNG, "explain": b"true", "format": b"png", "grid": b"3"}, {"data": PNG}]
    (status, sheet, kind), plain = answer(captioner, rows)
    assert (status, kind) == (200, "image/png")
    image = Image.open(io.BytesIO(sheet))
    image.load()
    assert image.mode == "RGB"
    words = len(plain[1]["caption"].split())
    assert image.width >= min(4, 1 + words) * TILE
    assert image.height >= (1 + words) // 4 * TILE * 40 // 60  # the picture is 60 x 40


def test_each_of_a_batch_gets_its_own_reply(captioner: CaptionHandler):
    rows = [
        {"data": PNG},
        {"data": PNG, "explain": b"true", "grid": b"2"},
        {"data": PNG, "explain": b"perhaps"},
        {"data": b"no picture", "explain": b"true"},
        {"data": PNG, "explain": b"true", "grid": b"3", "format": b"png"},
        {"data": PNG, "explain": b"true", "grid": b"2", "num_captions": b"2"},
    ]
    replies = answer(captioner, rows)
    assert [status for status, _, _ in replies] == [200, 200, 422, 400, 200, 200]
    assert "explain" in replies[2][1]["error"]["message"]
    assert "explanation" not in replies[0][1]
    assert replies[1][1]["explanation"] == replies[5][1]["explanation"]
    assert len(replies[5][1]["captions"]) == 2


def test_an_explanation_does_not_depend_on_its_batch(captioner: CaptionHandler):
    row = {"data": PNG, "explain": b"true", "grid": b"3"}
    others = [{"data": data, "explain": b"true", "grid": b"3"} for data in sound().values()]
    [(_, alone, _)] = answer(captioner, [row])
    together = answer(captioner, [*others, row])[-1][1]
    for one, other in zip(
        alone["explanation"]["words"], together["explanation"]["words"], strict=True
    ):
        torch.testing.assert_close(
            torch.tensor(one["cells"]), torch.tensor(other["cells"]), atol=1e-3, rtol=1e-3
        )


def slowed(captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make the score of each pass take this long."""
    score = captioner.artifact.score

    def slow(features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        time.sleep(seconds)
        return score(features, tokens)

    monkeypatch.setattr(captioner.artifact, "score", slow)


def test_neighbours_wait_no_longer_than_the_limit_of_explanations(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caption_handler, "_check_origin", lambda _: None)
    captioner, threads = CaptionHandler(), torch.get_num_threads()
    captioner.initialize(context_of(tiny_artifact, threads=1, explanation_seconds=0.5))
    torch.set_num_threads(threads)
    slowed(captioner, monkeypatch, 0.2)
    begin = time.monotonic()
    rows: list[Row] = [{"data": PNG, "explain": b"true", "grid": b"12"}, {"data": PNG}]
    late, plain = answer(captioner, rows)
    assert time.monotonic() - begin < 5  # all passes take 11 s
    assert plain[0] == 200
    assert (late[0], late[1]["error"]["code"]) == (504, "deadline")
    assert "0.5 s" in late[1]["error"]["message"]
    assert "smaller grid" in late[1]["error"]["message"]
    # What is known now keeps a second large one out of the next batch.
    replies = answer(captioner, [{"data": PNG, "explain": b"true", "grid": b"8"}] * 2 + [rows[1]])
    assert [status for status, _, _ in replies] == [504, 503, 200]


def test_the_deadline_of_a_request_ends_its_explanation(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    slowed(captioner, monkeypatch, 0.2)
    row = {"data": PNG, "explain": b"true"}
    headers = {**REST, "X-Request-Deadline": str(time.time() + 1.0)}
    begin = time.monotonic()
    (late, soon) = answer(captioner, [row, {"data": PNG}], [headers, REST])
    assert time.monotonic() - begin < 5
    assert [late[0], late[1]["error"]["code"]] == [504, "deadline"]
    assert soon[0] == 200


def test_a_pass_that_fails_costs_one_explanation(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    score, calls, lock = captioner.artifact.score, [], threading.Lock()

    def faulty(features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        with lock:
            calls.append(len(features))
            if len(calls) == 1:
                raise RuntimeError("a broken pass")
        return score(features, tokens)

    monkeypatch.setattr(captioner.artifact, "score", faulty)
    row = {"data": PNG, "explain": b"true", "grid": b"2"}
    replies = answer(captioner, [{"data": PNG}, row, row])
    assert [status for status, _, _ in replies] == [200, 500, 200]
    assert "broken" not in json.dumps(replies[1][1])
    assert max(calls) <= captioner.settings.images_per_pass


def test_the_description_names_the_limits(captioner: CaptionHandler):
    [(_, body, _)] = answer(captioner, [{}], [{"describe": "True"}])
    assert body["explanation"] == {
        "grid": {"default": 8, "from": 2, "to": 12},
        "format": ["json", "png"],
    }


FIVE = GenerationOptions(num_beams=5)


def request(grid: int | None) -> RequestResult:
    explanation = None if grid is None else ExplanationRequest(grid, "json")
    return RequestResult(request=CaptionRequest([b""], [FIVE], explanation=explanation))


def refused(admission: Admission, grids: list[int | None], seconds: float) -> list[bool]:
    requests = [request(grid) for grid in grids]
    admission.admit(requests, seconds)
    return [each.failure is not None for each in requests]


def test_admission_counts_what_explanations_cost():
    admission = Admission(8, 20.0)
    images = [
        ImageResult(
            torch.zeros(0),
            FIVE,
            features=torch.zeros(0),
            captions=[GeneratedCaption("a boat", -1.0, 3)],
        )
        for _ in range(8)
    ]
    admission.measure_decode(8, 0.8)
    admission.measure(images, BatchTimings(encode=3.2, generate=4.0))  # 1 s a picture, all in all
    admission.measure_explanations(100, 5.0)  # 0.05 s each
    cost = 1 + 0.05 * image_count(8)  # about 11 s
    assert refused(admission, [8, None], (cost + 1.1) / SHARE) == [False, False]
    assert refused(admission, [None, 8], cost / SHARE) == [False, True]
    assert refused(admission, [8, None, 8], 1000.0) == [False, False, True]  # over 20 s together
    assert refused(admission, [2, 2, 2, None, 2], 1000.0) == [False] * 5
    # One explanation takes no more than the limit, whatever it would need.
    assert refused(admission, [12, None], (1 + 20 + 1.1) / SHARE) == [False, False]


@pytest.mark.parametrize("size", [(60, 40), (1, 3000), (3000, 1), (900, 1600)])
@pytest.mark.parametrize("words", [0, 1, 3, 64])
def test_a_sheet_of_any_picture_and_caption_opens(size: tuple[int, int], words: int):
    image = Image.effect_noise(size, 80).convert("RGB")
    view = PictureView.of(image, Preprocessing(32, (0.5,) * 3, (0.5,) * 3))
    assert max(view.thumbnail.size) == TILE
    texts = ["船" if n % 2 else f"{'word' * 20}{n}" for n in range(words)]
    parts = tuple(CaptionWord(text, 0, len(text), (0,)) for text in texts)
    numbers = torch.zeros(words)
    cells = torch.randn(words, 8, 8)
    sheet = contact_sheet(
        view, " ".join(texts), CaptionExplanation(parts, numbers, numbers, cells, cells, 1)
    )
    opened = Image.open(io.BytesIO(sheet))
    opened.load()
    assert opened.height >= -(-(1 + words) // 4) * view.thumbnail.height
    assert len(sheet) < 20_971_520  # max_response_size in config.properties


def test_colour_stands_where_the_highest_cell_is():
    image = Image.new("RGB", (200, 100), (128, 128, 128))
    view = PictureView.of(image, Preprocessing(32, (0.5,) * 3, (0.5,) * 3))
    cells = torch.zeros(1, 8, 8)
    cells[0, 7, 0] = 5.0
    numbers, word = torch.zeros(1), CaptionWord("boat", 0, 4, (0,))
    sheet = contact_sheet(
        view, "boat", CaptionExplanation((word,), numbers, numbers, cells, cells, 1)
    )
    opened = Image.open(io.BytesIO(sheet)).convert("RGB")
    red = [
        (x, y)
        for x in range(opened.width)
        for y in range(opened.height)
        if opened.getpixel((x, y))[0] > opened.getpixel((x, y))[2] + 80  # type: ignore[index]
    ]
    left, width, height = TILE + 16, view.thumbnail.width, view.thumbnail.height
    bottom = opened.height
    assert red
    # The lower left corner of the square in the centre of the second tile.
    assert all(left + width / 4 - 2 <= x <= left + width * 0.42 for x, _ in red)
    assert all(y > bottom - 16 - height * 0.3 for _, y in red)
