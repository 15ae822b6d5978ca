"""The kinds of requests: how each is written, and how the captions are read from its reply."""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import httpx

Options = Mapping[str, int]
#: The options that are sent, each as often as it stands here.
PLAIN: tuple[Options, ...] = ({},)
VARIED: tuple[Options, ...] = ({}, {}, {}, {"num_beams": 1}, {"num_captions": 3})


class Seen(NamedTuple):
    """A caption in a reply.

    Attributes:
        caption: The text.
        log_prob: Its score; None where the interface has none.
    """

    caption: str
    log_prob: float | None = None


#: The captions of each picture of a reply, best first.
Captions = list[list[Seen]]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        path: Where it is sent.
        write: Bytes of pictures and options -> the arguments of `httpx.Request`.
        read: Bytes of a reply -> the captions. What it raises says that the reply is not of its
            form.
        options: One of these is chosen for each request.
        pictures: How many pictures a request holds.
        of_torchserve: Whether TorchServe alone answers it too.
    """

    path: str
    write: Callable[[Sequence[bytes], Options], dict[str, Any]]
    read: Callable[[bytes], Captions]
    options: tuple[Options, ...] = VARIED
    pictures: int = 1
    of_torchserve: bool = False


@dataclasses.dataclass(frozen=True)
class Bad:
    """A request that must be refused.

    Attributes:
        body: What is sent.
        status: Of the expected reply.
        code: Of the expected error.
    """

    body: bytes
    status: int
    code: str


def bad_requests(kind: str, picture: bytes) -> dict[str, Bad]:
    """Bad requests by name.

    Args:
        kind: `bad` or `predictions_bad`.
        picture: The bytes of one that is sound.
    """
    text = _text(picture)
    return {
        "empty": Bad(b"", 400, "no_image" if kind == "bad" else "empty"),
        "text": Bad(b"no picture at all", 400, "image_undecodable"),
        "cut short": Bad(picture[: len(picture) // 2], 400, "image_undecodable"),
        "video": Bad(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", 415, "image_format"),
        "broken json": Bad(b'{"image": ', 400, "bad_json"),
        "unknown option": Bad(_json(image=text, beams=3), 400, "unknown_option"),
        "option out of range": Bad(_json(image=text, num_beams=99), 422, "bad_option"),
    }


def error_of(body: bytes) -> dict[str, Any]:
    """The error object of a reply; empty if it has none."""
    try:
        document = json.loads(body)
        found = document["error"]
        # Interfaces whose clients read `error` as text have the object beside it.
        return dict(document["detail"] if isinstance(found, str) else found)
    except (ValueError, KeyError, TypeError):
        return {}


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def _json(**members: Any) -> bytes:
    return json.dumps(members).encode()


def _scored(found: Sequence[Mapping[str, Any]]) -> list[Seen]:
    return [Seen(each["caption"], each["log_prob"]) for each in found]


def _bytes(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    return {"content": pictures[0], "params": dict(options)}


def _form(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    return {"files": [("data", each) for each in pictures], "data": dict(options)}


def _document(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    return {"json": {"image": _text(pictures[0]), "options": options}}


def _documents(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    return {"json": {"images": [_text(each) for each in pictures], "options": options}}


def _openai(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    url = f"data:image/jpeg;base64,{_text(pictures[0])}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": content}]
    return {"json": {"model": "clipcap", "messages": messages, **options}}


def _ollama(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    images = [_text(each) for each in pictures]
    return {"json": {"model": "clipcap", "images": images, "options": options, "stream": False}}


def _hugging_face(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    return {"json": {"inputs": _text(pictures[0]), "parameters": options}}


def _kserve_v1(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    instances = [{"data": _text(each)} for each in pictures]
    return {"json": {"instances": instances, "parameters": options}}


def _tensor(count: int) -> dict[str, Any]:
    return {"name": "image", "shape": [count], "datatype": "BYTES"}


def _kserve_v2(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    tensor = {**_tensor(len(pictures)), "data": [_text(each) for each in pictures]}
    return {"json": {"inputs": [tensor], "parameters": options}}


def _kserve_v2_binary(pictures: Sequence[bytes], options: Options) -> dict[str, Any]:
    """JSON, and behind it each picture with its length in front."""
    data = b"".join(struct.pack("<I", len(each)) + each for each in pictures)
    tensor = {**_tensor(len(pictures)), "parameters": {"binary_data_size": len(data)}}
    head = _json(inputs=[tensor], parameters=options)
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return {"content": head + data, "headers": headers}


def _of_predictions(body: bytes) -> Captions:
    return [_scored(json.loads(body)["captions"])]


def _of_results(body: bytes) -> Captions:
    return [_scored(each["captions"]) for each in json.loads(body)["results"]]


def _of_openai(body: bytes) -> Captions:
    return [[Seen(each["message"]["content"]) for each in json.loads(body)["choices"]]]


def _of_ollama(body: bytes) -> Captions:
    return [[Seen(json.loads(body)["response"])]]


def _of_hugging_face(body: bytes) -> Captions:
    return [[Seen(each["generated_text"]) for each in json.loads(body)]]


def _of_kserve_v1(body: bytes) -> Captions:
    return [_scored(each["captions"]) for each in json.loads(body)["predictions"]]


def _of_kserve_v2(body: bytes) -> Captions:
    outputs = {each["name"]: each for each in json.loads(body)["outputs"]}
    rows, columns = outputs["caption"]["shape"]
    pairs = zip(outputs["caption"]["data"], outputs["log_prob"]["data"], strict=True)
    found = [Seen(caption, log_prob) for caption, log_prob in pairs]
    return [found[row * columns : (row + 1) * columns] for row in range(rows)]


_PREDICTIONS = "/predictions/clipcap"
_CAPTIONS = "/v1/captions"
_INFER = "/v2/models/clipcap/infer"
#: Ollama's reply holds one caption, so no more are asked for.
_ONE_CAPTION: tuple[Options, ...] = ({}, {"num_beams": 1})

#: Every kind that a profile may name. For `bad` and `predictions_bad` see `bad_requests`.
KINDS: dict[str, Kind] = {
    # A query never reaches TorchServe's handler, so there are no options.
    "predictions_bytes": Kind(_PREDICTIONS, _bytes, _of_predictions, PLAIN, of_torchserve=True),
    "predictions_form": Kind(_PREDICTIONS, _form, _of_predictions, of_torchserve=True),
    "predictions_json": Kind(_PREDICTIONS, _document, _of_predictions, of_torchserve=True),
    "predictions_bad": Kind(_PREDICTIONS, _bytes, _of_predictions, of_torchserve=True),
    "bytes": Kind(_CAPTIONS, _bytes, _of_results),
    "form": Kind(_CAPTIONS, _form, _of_results),
    "json": Kind(_CAPTIONS, _document, _of_results),
    "several": Kind(_CAPTIONS, _documents, _of_results, pictures=3),
    "openai": Kind("/v1/chat/completions", _openai, _of_openai),
    "ollama": Kind("/api/generate", _ollama, _of_ollama, _ONE_CAPTION),
    "hugging_face": Kind("/models/clipcap", _hugging_face, _of_hugging_face),
    "kserve_v1": Kind("/v1/models/clipcap:predict", _kserve_v1, _of_kserve_v1),
    "kserve_v2": Kind(_INFER, _kserve_v2, _of_kserve_v2),
    "kserve_v2_binary": Kind(_INFER, _kserve_v2_binary, _of_kserve_v2),
    "bad": Kind(_CAPTIONS, _bytes, _of_results),
}


class Built(NamedTuple):
    """A request as it is sent: its path with the query, its body, and the headers of the body."""

    path: str
    body: bytes
    headers: dict[str, str]


def built(kind: Kind, pictures: Sequence[bytes], options: Options) -> Built:
    """A request of a kind.

    Args:
        kind: The kind.
        pictures: The bytes of each picture file.
        options: Names and values.
    """
    request = httpx.Request("POST", f"http://host{kind.path}", **kind.write(pictures, options))
    own = ("content-type", "inference-header-content-length")
    headers = {name: value for name, value in request.headers.items() if name in own}
    return Built(request.url.raw_path.decode(), request.read(), headers)
