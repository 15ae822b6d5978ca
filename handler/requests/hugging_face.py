"""Reads the options of Hugging Face's form of a request, which have names of their own.

    {"inputs": "<base64>", "parameters": {"generate_kwargs": {"num_return_sequences": 2}}}

`gateway/pictures/hugging_face.py` reads them alike; a test compares the two.
(Hugging Face, "Image to Text" of its inference types, and the generation parameters of
`transformers`; whether a draw is asked for is decided as in Text Generation Inference.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handler.requests.caption_request import RequestRefusal
from handler.requests.values import kind_of
from model.options import BadOption

#: Objects that options may stand in, each inside the one before it.
_GROUPS = (("options", "parameters"), ("generate_kwargs", "generation_parameters"))
#: Hugging Face's name -> ours. Of two names for the same option, the first one that is given holds.
_NAMES = {
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "min_new_tokens": "min_tokens",
    "min_length": "min_tokens",
    "num_return_sequences": "num_captions",
}
#: What changes no caption here -> the values for which that is so; None for any.
_NO_EFFECT: dict[str, tuple[Any, ...] | None] = {
    "early_stopping": None,
    "return_full_text": None,
    "use_cache": None,
    "wait_for_model": None,
    "diversity_penalty": (0,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "typical_p": (1,),
}
_DRAW = ("temperature", "top_k", "top_p", "seed")


def captioner_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a request under the names that the captioner gives them.

    `do_sample` becomes a temperature: 1 if it is true and none is given, 0 if it is false. Without
    it, a temperature other than 1, `top_k` or `top_p` ask for a draw.

    Args:
        fields: Members of the JSON document, without the picture.

    Returns:
        Names, some of which may be unknown, and values, which are not checked.

    Raises:
        RequestRefusal: A group of options is no object.
        BadOption: `do_sample` is neither true nor false.
    """
    given = dict(fields)
    for names in _GROUPS:
        for name in names:
            group = given.pop(name, None)
            if isinstance(group, Mapping):
                given.update(group)
            elif group is not None:
                raise RequestRefusal(
                    "bad_json", f'"{name}" is {kind_of(group)}; it must be an object'
                )
    given = {name: value for name, value in given.items() if value is not None}
    for name, values in _NO_EFFECT.items():
        if name in given and (values is None or given[name] in values):
            del given[name]
    for name, ours in _NAMES.items():
        if name in given:
            value = given.pop(name)
            given.setdefault(ours, value)
    sample = given.pop("do_sample", None)
    if sample is not None and not isinstance(sample, bool):
        raise BadOption("do_sample", sample, "true or false")
    if _draws(given, sample):
        given.setdefault("temperature", 1.0)
        return given
    given = {name: value for name, value in given.items() if name not in _DRAW}
    return given if sample is None else {**given, "temperature": 0.0}


def _draws(given: Mapping[str, Any], sample: bool | None) -> bool:
    """Whether words are drawn by chance."""
    temperature = given.get("temperature", 1)
    if sample is not None:
        return sample
    if temperature == 0:
        return False
    return temperature != 1 or "top_k" in given or "top_p" in given
