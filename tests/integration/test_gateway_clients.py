"""Programs that speak other interfaces, each with its own client as it is, against the gateway."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ollama
import openai
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient.utils import InferenceServerException

from client import CaptionClient, CaptionResult
from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

PICTURES = sound()
PNG, JPEG = PICTURES["png"], PICTURES["grey"]
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
BAD = b"this is no picture"
QUESTION = "What is in this image?"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of keys, and one of them."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    return file, add_key(file, "clients")


@pytest.fixture(scope="module")
def gateway(server: TorchServe, key: tuple[Path, str]) -> Iterator[str]:
    with running(settings_for(server, keys=key[0])) as address:
        yield address


@pytest.fixture(scope="module")
def expected(server: TorchServe) -> CaptionResult:
    with CaptionClient(server.rest) as client:
        return client.caption(PNG)


@pytest.fixture(scope="module")
def three(server: TorchServe) -> CaptionResult:
    with CaptionClient(server.rest) as client:
        return client.caption(PNG, num_captions=3)


# OpenAI


@pytest.fixture(scope="module")
def chat(gateway: str, key: tuple[Path, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key=key[1], max_retries=0) as client:
        yield client


def message(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [{"type": "text", "text": QUESTION}, *parts]}


def test_openai_captions_an_image(chat: openai.OpenAI, expected: CaptionResult):
    messages = [{"role": "system", "content": "You are kind."}, message(URL)]
    found = chat.chat.completions.create(model="clipcap", messages=messages, seed=1)
    assert [choice.message.content for choice in found.choices] == [expected.caption]
    assert found.choices[0].finish_reason == "length"
    assert expected.captions[0].finish_reason == "length"
    assert found.model == "clipcap"
    assert found.usage.completion_tokens == expected.captions[0].tokens


def test_openai_and_ollama_draw_where_a_temperature_is_given(
    chat: openai.OpenAI, llama: ollama.Client, server: TorchServe
):
    with CaptionClient(server.rest) as client:
        drawn = client.caption(PNG, temperature=1.5, top_p=0.9, seed=3).caption
    words = {"temperature": 1.5, "top_p": 0.9, "seed": 3}
    found = chat.chat.completions.create(model="clipcap", messages=[message(URL)], **words)
    assert found.choices[0].message.content == drawn
    assert llama.generate("clipcap", images=[PNG], options=words).response == drawn


def test_openai_and_ollama_may_allow_more_tokens_than_there_can_be(
    chat: openai.OpenAI, llama: ollama.Client, server: TorchServe
):
    with CaptionClient(server.rest) as client:
        longest = client.caption(PNG, max_tokens=60).caption
    found = chat.chat.completions.create(model="clipcap", messages=[message(URL)], max_tokens=3000)
    assert found.choices[0].message.content == longest
    generated = llama.generate("clipcap", images=[PNG], options={"num_predict": 3000})
    assert generated.response == longest


def test_openai_gets_n_answers_and_our_options(chat: openai.OpenAI, three: CaptionResult):
    for how in ({"n": 3}, {"extra_body": {"num_captions": 3}}):
        found = chat.chat.completions.create(model="clipcap", messages=[message(URL)], **how)
        texts = [choice.message.content for choice in found.choices]
        assert texts == [caption.caption for caption in three.captions]


def test_openai_streams(chat: openai.OpenAI, expected: CaptionResult):
    parts = list(
        chat.chat.completions.create(model="clipcap", messages=[message(URL)], stream=True)
    )
    assert "".join(part.choices[0].delta.content or "" for part in parts) == expected.caption
    assert parts[-1].choices[0].finish_reason == "length"  # as the caption of its own interface


def test_openai_gets_a_line_for_each_image(chat: openai.OpenAI, expected: CaptionResult):
    found = chat.chat.completions.create(model="clipcap", messages=[message(URL, URL)])
    assert found.choices[0].message.content == f"{expected.caption}\n{expected.caption}"


def test_openai_lists_the_model(chat: openai.OpenAI):
    assert [model.id for model in chat.models.list()] == ["clipcap"]
    assert chat.models.retrieve("clipcap").id == "clipcap"
    with pytest.raises(openai.NotFoundError):
        chat.models.retrieve("gpt-4")


def test_openai_s_errors_are_its_own_types(chat: openai.OpenAI, gateway: str):
    def ask(content: Any, model: str = "clipcap", client: openai.OpenAI = chat) -> None:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])

    with pytest.raises(openai.BadRequestError, match="no message has an image") as raised:
        ask(QUESTION)
    assert raised.value.code == "no_image"
    bad = message(f"data:image/png;base64,{base64.b64encode(BAD).decode()}")["content"]
    with pytest.raises(openai.BadRequestError) as raised:
        ask(bad)
    assert raised.value.code == "image_undecodable"
    with pytest.raises(openai.BadRequestError, match="not fetched"):
        ask(message("https://example.org/photo.jpg")["content"])
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        ask(QUESTION, "gpt-4")
    with (
        openai.OpenAI(base_url=f"{gateway}/v1", api_key="wrong", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError, match="needs a key"),
    ):
        ask(QUESTION, client=other)


# Ollama


@pytest.fixture(scope="module")
def llama(gateway: str, key: tuple[Path, str]) -> ollama.Client:
    return ollama.Client(gateway, headers={"Authorization": f"Bearer {key[1]}"})


@pytest.mark.parametrize("model", ["clipcap", "clipcap:latest"])
def test_ollama_generates(llama: ollama.Client, expected: CaptionResult, model: str):
    options = {"temperature": 0, "seed": 5, "num_predict": -1}
    found = llama.generate(model, QUESTION, images=[PNG], options=options)
    assert (found.response, found.done, found.done_reason) == (expected.caption, True, "length")


def test_ollama_chats(llama: ollama.Client, expected: CaptionResult):
    messages = [
        {"role": "user", "content": QUESTION, "images": [PNG, PNG]},
        {"role": "user", "content": "And the colours?"},
    ]
    found = llama.chat("clipcap", messages)
    assert found.message.content == f"{expected.caption}\n{expected.caption}"
    assert found.message.role == "assistant"


def test_ollama_streams(llama: ollama.Client, expected: CaptionResult):
    parts = list(llama.generate("clipcap", QUESTION, images=[PNG], stream=True))
    assert "".join(part.response for part in parts) == expected.caption
    assert [part.done for part in parts] == [False, True]
    message = {"role": "user", "content": QUESTION, "images": [PNG]}
    chats = list(llama.chat("clipcap", [message], stream=True))
    assert "".join(part.message.content for part in chats) == expected.caption


def test_ollama_takes_our_options(llama: ollama.Client, server: TorchServe):
    with CaptionClient(server.rest) as client:
        short = client.caption(PNG, max_tokens=3)
    for options in ({"max_tokens": 3}, {"num_predict": 3}):
        found = llama.generate("clipcap", images=[PNG], options=options)
        assert found.response == short.caption


def test_ollama_lists_and_loads_the_model(llama: ollama.Client, gateway: str, key: Any):
    assert [model.model for model in llama.list().models] == ["clipcap:latest"]
    assert llama.generate("clipcap").done_reason == "load"
    version = httpx.get(f"{gateway}/api/version", headers={"X-API-Key": key[1]})
    assert version.json()["version"]


def test_ollama_s_errors_are_text(llama: ollama.Client, gateway: str):
    for status, text, how in (
        (404, "is not served", {"model": "llama3", "prompt": QUESTION}),
        (400, "no images", {"model": "clipcap", "prompt": QUESTION}),
        (400, "picture", {"model": "clipcap", "images": [BAD]}),
        (422, "num_beams", {"model": "clipcap", "images": [PNG], "options": {"num_beams": 1000}}),
    ):
        with pytest.raises(ollama.ResponseError) as raised:
            llama.generate(**how)
        assert raised.value.status_code == status
        assert text in raised.value.error
    with pytest.raises(ollama.ResponseError, match="needs a key"):
        ollama.Client(gateway).generate("clipcap", images=[PNG])


# Hugging Face


@pytest.mark.parametrize("how", ["model", "base_url"])
def test_hugging_face_s_client_captions(
    gateway: str, key: tuple[Path, str], expected: CaptionResult, how: str
):
    client = InferenceClient(**{how: f"{gateway}/models/clipcap"}, token=key[1])
    assert client.image_to_text(PNG).generated_text == expected.caption


def test_hugging_face_s_client_shows_errors(gateway: str, key: tuple[Path, str]):
    with pytest.raises(HfHubHTTPError) as raised:
        InferenceClient(f"{gateway}/models/clipcap", token=key[1]).image_to_text(BAD)
    assert raised.value.response.status_code == 400
    assert "image" in str(raised.value)
    with pytest.raises(HfHubHTTPError, match="401"):
        InferenceClient(f"{gateway}/models/clipcap", token="wrong").image_to_text(PNG)


def test_hugging_face_s_parameters_are_options(
    gateway: str, key: tuple[Path, str], three: CaptionResult
):
    body = {"inputs": base64.b64encode(PNG).decode(), "parameters": {"num_captions": 3}}
    headers = {"X-API-Key": key[1]}
    reply = httpx.post(f"{gateway}/models/clipcap", json=body, headers=headers)
    assert reply.json() == [{"generated_text": each.caption} for each in three.captions]


# KServe


@pytest.fixture(scope="module")
def kserve(gateway: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(gateway.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def headers(key: tuple[Path, str]) -> dict[str, str]:
    """Made for each test: `tritonclient` adds to what it is given."""
    return {"Authorization": f"Bearer {key[1]}"}


def tensor(*pictures: bytes, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput("image", [len(pictures)], "BYTES")
    elements = pictures if binary else [base64.b64encode(each) for each in pictures]
    found.set_data_from_numpy(np.array(elements, dtype=object), binary_data=binary)
    return found


def test_kserve_is_alive_and_ready(kserve: triton.InferenceServerClient, headers: dict[str, str]):
    assert kserve.is_server_live()
    assert kserve.is_server_ready()
    assert kserve.is_model_ready("clipcap", headers=headers)
    assert kserve.is_model_ready("clipcap", "1.0", headers=headers)
    assert not kserve.is_model_ready("clipcap", "2.0", headers=headers)
    assert not kserve.is_model_ready("other", headers=headers)
    assert "binary_tensor_data" in kserve.get_server_metadata(headers=headers)["extensions"]
    metadata = kserve.get_model_metadata("clipcap", headers=headers)
    assert metadata["name"] == "clipcap"
    assert metadata["versions"] == ["1.0"]
    assert [each["name"] for each in metadata["outputs"]][:2] == ["caption", "confidence"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [None, True, False])
def test_kserve_infers(
    kserve: triton.InferenceServerClient,
    headers: dict[str, str],
    expected: CaptionResult,
    binary_in: bool,
    binary_out: bool | None,
):
    outputs = None  # the client's default
    if binary_out is not None:
        names = ("caption", "confidence", "log_prob", "tokens")
        outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    found = kserve.infer(
        "clipcap",
        [tensor(PNG, PNG, binary=binary_in)],
        outputs=outputs,
        request_id="id-5",
        headers=headers,
    )
    best = expected.captions[0]
    captions = found.as_numpy("caption")
    assert captions.shape == (2, 1)
    assert [_text(each) for each in captions.ravel()] == [best.caption] * 2
    assert found.as_numpy("confidence").ravel() == pytest.approx([best.confidence] * 2)
    assert found.as_numpy("log_prob").ravel() == pytest.approx([best.log_prob] * 2, rel=1e-6)
    assert found.as_numpy("tokens").ravel().tolist() == [best.tokens] * 2
    assert found.get_response()["id"] == "id-5"
    assert found.get_response()["model_version"] == "1.0"


def _text(element: bytes | str) -> str:
    return element.decode() if isinstance(element, bytes) else element


def test_kserve_takes_options_as_parameters(
    kserve: triton.InferenceServerClient, headers: dict[str, str], three: CaptionResult
):
    found = kserve.infer(
        "clipcap",
        [tensor(PNG)],
        model_version="1.0",
        outputs=[triton.InferRequestedOutput("caption")],
        parameters={"num_captions": 3},
        headers=headers,
    )
    texts = [each.decode() for each in found.as_numpy("caption").ravel()]
    assert texts == [caption.caption for caption in three.captions]
    assert found.as_numpy("tokens") is None


@pytest.mark.parametrize(
    ("status", "text", "how"),
    [
        ("400", "picture", {"inputs": [tensor(BAD)]}),
        ("400", r"picture \[0\]", {"inputs": [tensor(BAD, BAD)]}),
        ("404", "not served", {"model_name": "other"}),
        ("404", "not served", {"model_version": "2.0"}),
        ("422", "num_beams", {"parameters": {"num_beams": 1000}}),
        ("400", "unknown option", {"parameters": {"beams": 1}}),
        ("400", "no output", {"outputs": [triton.InferRequestedOutput("tags")]}),
        ("413", "limit", {"inputs": [tensor(*[PNG] * 17)]}),
    ],
)
def test_kserve_s_errors_are_text(
    kserve: triton.InferenceServerClient,
    headers: dict[str, str],
    status: str,
    text: str,
    how: dict[str, Any],
):
    request = {"model_name": "clipcap", "inputs": [tensor(PNG)], "headers": headers, **how}
    with pytest.raises(InferenceServerException, match=text) as raised:
        kserve.infer(**request)
    assert raised.value.status() == status


def test_kserve_has_a_row_for_a_picture_that_failed(
    kserve: triton.InferenceServerClient, headers: dict[str, str]
):
    found = kserve.infer("clipcap", [tensor(PNG, BAD)], headers=headers)
    captions = [each.decode() for each in found.as_numpy("caption").ravel()]
    assert captions[0]
    assert captions[1] == ""
    errors = [each.decode() for each in found.as_numpy("error")]
    assert errors[0] == ""
    assert "image_undecodable" in errors[1]


@pytest.mark.parametrize(
    ("length", "size", "blob"),
    [
        ("99999", 4, b"\0\0\0\0"),
        ("x", 4, b"\0\0\0\0"),
        (None, 5, b"\0\0\0\0"),
        (None, 3, b"\0\0\0"),
        (None, 5, b"\xff\0\0\0x"),
    ],
)
def test_kserve_s_broken_binary_tensors_are_refused(
    gateway: str, headers: dict[str, str], length: str | None, size: int, blob: bytes
):
    text = (
        '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", '
        f'"parameters": {{"binary_data_size": {size}}}}}]}}'
    ).encode()
    reply = httpx.post(
        f"{gateway}/v2/models/clipcap/infer",
        content=text + blob,
        headers={**headers, "Inference-Header-Content-Length": length or str(len(text))},
    )
    assert reply.status_code == 400
    assert isinstance(reply.json()["error"], str)
    assert reply.json()["detail"]["code"] == "bad_request"


def test_kserve_v1_predicts(gateway: str, headers: dict[str, str], expected: CaptionResult):
    text = base64.b64encode(PNG).decode()
    for instance in (text, {"data": text}, {"image": {"b64": text}}):
        reply = httpx.post(
            f"{gateway}/v1/models/clipcap:predict",
            json={"instances": [instance, instance], "parameters": {"num_captions": 1}},
            headers=headers,
        )
        found = [each["caption"] for each in reply.json()["predictions"]]
        assert found == [expected.caption] * 2
    state = httpx.get(f"{gateway}/v1/models/clipcap", headers=headers).json()
    assert (state["name"], state["ready"]) == ("clipcap", True)
    for instances, status in (([], 400), ([{"data": 5}], 400), ([{}], 400), (5, 422)):
        reply = httpx.post(
            f"{gateway}/v1/models/clipcap:predict",
            json={"instances": instances},
            headers=headers,
        )
        assert reply.status_code == status
        assert reply.json()["error"]["message"]
