"""The quality of captions in every form of reply, and replies without it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from handler.replies.caption_reply import reply_body
from handler.request_result import ImageResult
from handler.requests.caption_request import CaptionRequest, Form
from model.artifact import GeneratedCaption
from model.options import GenerationOptions

CAPTIONS = [
    GeneratedCaption("a boat", -0.5, 3, quality=0.91234567),
    GeneratedCaption("a ship", -1.5, 3, quality=0.25),
]
BARE = [dataclasses.replace(caption, quality=None) for caption in CAPTIONS]


def reply(form: Form, captions: list[GeneratedCaption]) -> dict[str, Any]:
    request = CaptionRequest([b""], [GenerationOptions()], form)
    image = ImageResult(torch.zeros(3, 8, 8), GenerationOptions(), captions=captions)
    return json.loads(reply_body(request, [image], "clipcap", "1.0"))


@pytest.mark.parametrize("form", [Form.PLAIN, Form.KSERVE_V1])
def test_quality_stands_beside_confidence(form: Form):
    found = reply(form, CAPTIONS)
    picture = found if form is Form.PLAIN else found["predictions"][0]
    assert picture["quality"] == 0.912346
    assert [each["quality"] for each in picture["captions"]] == [0.912346, 0.25]
    picture = reply(form, BARE)
    assert "quality" not in json.dumps(picture)


def test_quality_is_a_tensor_of_kserve_v2():
    tensors = {each["name"]: each for each in reply(Form.KSERVE_V2, CAPTIONS)["outputs"]}
    assert tensors["quality"] == {
        "name": "quality",
        "datatype": "FP32",
        "shape": [1, 2],
        "data": [0.91234567, 0.25],
    }
    assert "quality" not in {each["name"] for each in reply(Form.KSERVE_V2, BARE)["outputs"]}
