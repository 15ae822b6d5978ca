"""Options of a request, under the names that the captioner's own description lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.errors import GatewayError

Description = Mapping[str, Any]
#: Options that the captioner refuses where `temperature` is 0.
DRAW = frozenset({"top_k", "top_p", "seed"})
#: Most characters of an option's value.
MAX_CHARACTERS = 200


def option_texts(description: Description, given: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Options as the text that is sent to the captioner, which checks their values.

    Args:
        description: The captioner's own.
        given: Names and values, from a query, a form or JSON.

    Raises:
        GatewayError: A name is unknown, or given twice, or a value is too long or no text.
    """
    texts: dict[str, str] = {}
    for called, value in given:
        name = description.get("synonyms", {}).get(called, called)
        if name not in description["options"] and name not in description.get("extras", ()):
            known = ", ".join([*description["options"], *description.get("extras", ())])
            raise GatewayError(
                400, "unknown_option", f"unknown option {called[:40]!r}; known options: {known}"
            )
        if name in texts:
            raise GatewayError(
                400, "bad_request", f"the option {name} is given twice; give it once"
            )
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > MAX_CHARACTERS:  # options go to TorchServe in the address of a request
            raise GatewayError(
                422,
                "bad_option",
                f"the value of {name} has {len(text)} characters; the limit is {MAX_CHARACTERS}",
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            # A lone surrogate, which JSON may hold, cannot be sent as UTF-8.
            raise GatewayError(
                422, "bad_option", f"the value of {name} holds half a character; send whole ones"
            )
        texts[name] = text
    return texts


def known_options(description: Description, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the captioner among the fields of another program's request.

    Such programs send fields that mean nothing to a captioner without being asked. They are left
    out, and so are those that are null, and those of a draw where `temperature` asks for none.
    """
    temperature = given.get("temperature")
    draws = isinstance(temperature, int | float) and temperature > 0
    return {
        name: value
        for name, value in given.items()
        if name in description["options"] and value is not None and (draws or name not in DRAW)
    }


def at_most_tokens(description: Description, tokens: int) -> int:
    """A limit of tokens that the captioner accepts and that is not above the one asked for.

    Args:
        description: The captioner's own.
        tokens: The limit in another program's request; many programs always ask for thousands.
    """
    return int(min(tokens, description["options"]["max_tokens"]["to"]))
