"""The values of a request's JSON document: read, checked and described in messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from handler.requests.caption_request import HOW_TO_SEND, RequestRefusal
from model.options import GenerationOptions

#: Most objects in a document, which needs a few for each picture. Looking for names that stand
#: twice makes an object cost two to three times as much to parse.
MAX_OBJECTS = 1000


def read_json(data: bytes | bytearray) -> Any:
    """Parse a JSON document.

    Args:
        data: Its text.

    Raises:
        RequestRefusal: It is not valid JSON, an object of it has the same name twice, or it has
            too many objects.
    """
    if (objects := data.count(b"{")) > MAX_OBJECTS:
        raise RequestRefusal(
            "bad_json",
            f"the JSON body has {objects} objects; the limit is {MAX_OBJECTS}; {HOW_TO_SEND}",
        )
    try:
        return json.loads(data, object_pairs_hook=_object)
    except RequestRefusal:  # a ValueError too
        raise
    except (ValueError, RecursionError) as error:
        raise RequestRefusal(
            "bad_json", f"the body is not valid JSON ({str(error)[:100]}); {HOW_TO_SEND}"
        ) from None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python alone would keep the last of two pictures with the same name."""
    found = dict(members)
    if len(found) == len(members):
        return found
    names: set[str] = set()
    for name, _ in members:
        if name in names:
            break
        names.add(name)
    raise RequestRefusal(
        "bad_request", f"an object in the JSON body has {name[:40]!r} twice; send each name once"
    )


def merge_options(options: GenerationOptions, fields: Mapping[str, Any]) -> GenerationOptions:
    """Options updated with the fields beside a picture, and with `options` and `parameters`.

    Args:
        options: Those that hold without the fields.
        fields: Members of a JSON object, without the picture.

    Raises:
        RequestRefusal: `options` or `parameters` is no object.
        UnknownOption: A field is no option.
        BadOption: An option has a value it cannot take.
    """
    single = dict(fields)
    grouped: dict[str, Any] = {}
    for name in ("options", "parameters"):
        group = single.pop(name, None)
        if group is None:
            continue
        if not isinstance(group, Mapping):
            raise RequestRefusal("bad_json", f'"{name}" is {kind_of(group)}; it must be an object')
        grouped.update(group)
    return options.updated({**single, **grouped})


def check_count(pictures: Any, where: str, max_pictures: int) -> None:
    """Check a list of pictures.

    Args:
        pictures: Any JSON value.
        where: Its place in the document, for messages.
        max_pictures: Most pictures of a request.

    Raises:
        RequestRefusal: It is no list, or an empty one, or too long.
    """
    if not isinstance(pictures, list) or not pictures:
        raise RequestRefusal("no_image", f'"{where}" must be a list of at least one picture')
    if len(pictures) > max_pictures:
        raise RequestRefusal(
            "too_many_images",
            f'"{where}" holds {len(pictures)} pictures; the limit is {max_pictures} a request; '
            "send several requests",
        )


def kind_of(value: Any) -> str:
    """The type of a JSON value in words, such as "a list"."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
