"""Reads whether a request asks for an explanation of its caption, and of which kind.

`explain`, `grid` and `format` stand where options stand: as fields of a form or of a gRPC message,
as members of the JSON document, or in its `options` or `parameters`. They are taken out here, so
that what follows finds options of captions only. TorchServe's route `/explanations` asks for an
explanation by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from handler.requests.caption_request import (
    EXPLANATION_FORMATS,
    CaptionRequest,
    ExplanationRequest,
    Form,
    RequestRefusal,
)
from model.explanation import DEFAULT_GRID, HIGHEST_GRID, LOWEST_GRID
from model.options import BadOption

#: Names in a request.
FIELDS = ("explain", "grid", "format")


def take_fields(
    fields: Mapping[str, Any], names: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the fields beside a picture: those with these names, and the others."""
    own = {name: value for name, value in fields.items() if name in names}
    return own, {name: value for name, value in fields.items() if name not in names}


def take_members(document: Any, names: Collection[str]) -> tuple[dict[str, Any], Any]:
    """Divide a JSON document: the fields with these names, and a document without them.

    Args:
        document: Any JSON value, which may be wrong otherwise.
        names: They may also stand in its `options` or `parameters`.
    """
    if not isinstance(document, Mapping):
        return {}, document
    found, rest = take_fields(document, names)
    for name in ("options", "parameters"):
        if isinstance(rest.get(name), Mapping):
            own, rest[name] = take_fields(rest[name], names)
            found.update(own)
    return found, rest


def read_explanation(fields: Mapping[str, Any], by_route: bool) -> ExplanationRequest | None:
    """What the fields of explanations ask for; None if for nothing.

    Args:
        fields: Names of `FIELDS` to values: JSON, or text that spells it.
        by_route: Whether the route asks for an explanation.

    Raises:
        BadOption: A value that it cannot take, or a field without an explanation.
    """
    explains = read_boolean("explain", fields.get("explain", by_route))
    if by_route and not explains:
        raise BadOption("explain", False, "true on /explanations; ask /predictions without it")
    if not explains:
        for name in ("grid", "format"):
            if name in fields:
                raise BadOption(name, fields[name], "left out where explain is not true")
        return None
    grid = fields.get("grid", DEFAULT_GRID)
    if isinstance(grid, str) and grid.strip().isdecimal() and len(grid) < 20:
        grid = int(grid)
    if type(grid) is not int or not LOWEST_GRID <= grid <= HIGHEST_GRID:
        limits = f"{LOWEST_GRID} to {HIGHEST_GRID}"
        raise BadOption("grid", grid, f"a whole number of cells on a side, from {limits}")
    format_ = fields.get("format", EXPLANATION_FORMATS[0])
    if format_ not in EXPLANATION_FORMATS:
        raise BadOption("format", format_, f"one of {', '.join(EXPLANATION_FORMATS)}")
    return ExplanationRequest(grid, format_)


def explained(request: CaptionRequest, explanation: ExplanationRequest | None) -> CaptionRequest:
    """The request with its explanation.

    Raises:
        RequestRefusal: It holds several pictures, or has a form of KServe.
    """
    if explanation is None:
        return request
    if request.form is not Form.PLAIN or len(request.pictures) != 1:
        raise RequestRefusal(
            "no_explanations",
            f"the request holds {len(request.pictures)} pictures in the form "
            f"{request.form.value}; an explanation is of one picture, sent as a file, in a form, "
            'or as JSON {"image": "<base64>", "explain": true}',
        )
    return dataclasses.replace(request, explanation=explanation)


def read_boolean(name: str, value: Any) -> bool:
    """A field that is true or false, or text that spells it.

    Raises:
        BadOption: It is something else.
    """
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise BadOption(name, value, "true or false")
    return value
