"""How unusual a picture is: in replies of every form, in the metrics, and where nobody knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handler import measures
from handler.caption_handler import CaptionHandler
from model.image.decode import open_image
from model.image.preprocessing import to_pixels
from tests.pictures import sound
from tests.unit.handler.test_handler import (  # noqa: F401  (fixtures)
    PNG_TEXT,
    answer,
    artifact,
    captioner,
)


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The metrics that the handler emits."""
    seen: list[tuple[str, float]] = []
    emit = measures.emit

    def recorded(context: Any, name: str, value: float, label: str = "") -> None:
        seen.append((name, value))
        emit(context, name, value, label)

    monkeypatch.setattr(measures, "emit", recorded)
    return seen


def asked(captioner: CaptionHandler, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:  # noqa: F811
    ((status, body, _),) = answer(captioner, [{"body": json.dumps(document).encode()}])
    return status, body


def expected(captioner: CaptionHandler) -> dict[str, float]:  # noqa: F811
    own = captioner.artifact
    opened = open_image(sound()["png"], 10**6, own.preprocessing.size)
    score, p_value = own.ood(own.encode(to_pixels(opened.decode(), own.preprocessing)[None]))
    return {
        "score": pytest.approx(score.item(), rel=1e-4),
        "p_value": pytest.approx(p_value.item(), abs=1e-6),
    }


def test_every_form_of_reply_has_it_where_it_was_asked_for(captioner: CaptionHandler):  # noqa: F811
    own = expected(captioner)
    assert asked(captioner, {"image": PNG_TEXT, "ood": True})[1]["ood"] == own
    assert asked(captioner, {"image": PNG_TEXT, "options": {"ood": "true"}})[1]["ood"] == own
    ((_, form, _),) = answer(captioner, [{"data": sound()["png"], "ood": b"true"}])
    assert form["ood"] == own
    v1 = asked(captioner, {"instances": [PNG_TEXT], "parameters": {"ood": True}})[1]
    assert v1["predictions"][0]["ood"] == own
    several = asked(captioner, {"images": [PNG_TEXT, "bad"], "ood": True})[1]["results"]
    assert several[0]["ood"] == own
    assert "ood" not in several[1]
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [PNG_TEXT, "bad"]}
    _, v2 = asked(captioner, {"inputs": [tensor], "parameters": {"ood": True}})
    outputs = {each["name"]: each for each in v2["outputs"]}
    assert outputs["ood_score"]["data"] == [own["score"], 0.0]
    assert outputs["ood_p_value"] == {
        "name": "ood_p_value",
        "datatype": "FP32",
        "shape": [2],
        "data": [own["p_value"], 1.0],
    }


def test_no_reply_has_it_unasked(captioner: CaptionHandler):  # noqa: F811
    assert "ood" not in asked(captioner, {"image": PNG_TEXT})[1]
    assert "ood" not in asked(captioner, {"image": PNG_TEXT, "ood": False})[1]


def test_every_captioned_picture_is_in_the_histogram(
    captioner: CaptionHandler,  # noqa: F811
    emitted: list[tuple[str, float]],
):
    asked(captioner, {"images": [PNG_TEXT, "bad", PNG_TEXT]})
    values = [value for name, value in emitted if name == "clipcap_ood_p_value"]
    assert values == [expected(captioner)["p_value"]] * 2


def test_a_captioner_without_statistics_refuses_and_measures_nothing(
    captioner: CaptionHandler,  # noqa: F811
    emitted: list[tuple[str, float]],
):
    captioner.artifact.ood_score = None
    documents = ({"image": PNG_TEXT, "ood": True}, {"image": PNG_TEXT})
    rows = [{"body": json.dumps(each).encode()} for each in documents]
    (status, body, _), (other, _, _) = answer(captioner, rows)
    assert (status, other) == (422, 200)
    assert body["error"]["code"] == "bad_option"
    assert "python -m training.ood" in body["error"]["message"]
    assert "clipcap_ood_p_value" not in {name for name, _ in emitted}


@pytest.mark.parametrize("value", ["maybe", 3, [True]])
def test_values_that_are_not_true_or_false_are_refused(captioner: CaptionHandler, value: Any):  # noqa: F811
    status, body = asked(captioner, {"image": PNG_TEXT, "ood": value})
    assert (status, body["error"]["code"]) == (422, "bad_option")
