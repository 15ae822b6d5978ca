"""Generation options: whatever comes in, either a sound set of options or a refusal comes out."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.network.search import Search
from model.network.served import ServedCaptioner
from model.options import DRAW, OPTIONS, SYNONYMS, BadOption, GenerationOptions, UnknownOption
from training.config import Generation

NAMES = list(OPTIONS)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**310)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["5", " 5", "05", "+5", "5.0", "1e1", "1e999", "-0", "NaN", "[[", "true", ""]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), JSON_VALUES, max_size=4))
@example({"length_penalty": 10**400})
@example({"length_penalty": "1" + "0" * 400})
@example({"num_beams": 10**5000})
@example({"num_beams": "[" * 100_000})
@example({"num_beams": "9" * 5000})
@example({"x" * 1000: 1})
def test_anything_gives_sound_options_or_a_short_refusal(wild: dict[str, Any]):
    given_up: UnknownOption | BadOption | None = None
    try:
        options = GenerationOptions().updated(wild)
    except (UnknownOption, BadOption) as refusal:
        given_up = refusal
    if given_up is not None:
        assert (given_up.name in OPTIONS) == isinstance(given_up, BadOption)
        assert given_up.name[:40] in str(given_up) or repr(given_up.name[:40]) in str(given_up)
        assert len(str(given_up)) < 400
        return
    assert set(wild) <= {*OPTIONS, *SYNONYMS}
    for name, option in OPTIONS.items():
        value = getattr(options, name)
        assert type(value) is option.kind
        size = len(value) if option.kind is str else value
        assert option.low <= size <= option.high
    assert options.num_captions <= options.num_beams or options.temperature > 0
    assert options.num_beams == 1 or options.temperature == 0
    assert options.min_tokens <= options.max_tokens


@settings(deadline=None, max_examples=60)
@given(
    st.fixed_dictionaries(
        {
            "num_beams": st.integers(1, 8),
            "num_captions": st.just(1),
            "max_tokens": st.integers(10, 64),
            "min_tokens": st.integers(0, 10),
            "length_penalty": st.floats(-5, 5),
            "repetition_penalty": st.floats(0.1, 10),
            "no_repeat_ngram_size": st.integers(0, 10),
        }
    )
)
def test_numbers_and_the_text_that_spells_them_mean_the_same(values: dict[str, Any]):
    spelled = {name: json.dumps(value) for name, value in values.items()}
    options = GenerationOptions().updated(values)
    assert options == GenerationOptions().updated(spelled)
    assert {name: options.to_dict()[name] for name in values} == values


@pytest.mark.parametrize("name", [name for name in NAMES if name != "prompt"])
@pytest.mark.parametrize("past", [-1, 1])
def test_each_limit_is_the_last_value_accepted(name: str, past: int):
    kind, low, high = OPTIONS[name].kind, OPTIONS[name].low, OPTIONS[name].high
    edge = kind(low if past < 0 else high)
    others = {"num_beams": 8} if name == "num_captions" else {}
    others = {"max_tokens": 64} if name == "min_tokens" else others
    others = {"temperature": 1.0} if name in DRAW else others
    assert getattr(GenerationOptions().updated({**others, name: edge}), name) == edge
    with pytest.raises(BadOption, match=f"option {name} is '.*'; it must be a .*from {low:g} to"):
        GenerationOptions().updated({**others, name: edge + past})


def test_a_draw_needs_no_beams_and_beams_end_a_draw():
    assert GenerationOptions().updated({"temperature": 0.7}).num_beams == 1
    drawing = GenerationOptions(num_beams=1, temperature=1.0, top_k=5, seed=3)
    assert drawing.updated({"num_captions": 4}).num_beams == 1
    searching = drawing.updated({"num_beams": 3})
    assert (searching.temperature, searching.top_k, searching.seed) == (0.0, 0, 0)
    with pytest.raises(BadOption, match="num_beams is '5'; it must be 1 where temperature is abov"):
        GenerationOptions().updated({"temperature": 0.7, "num_beams": 5})


@pytest.mark.parametrize(("name", "value"), [("top_k", 5), ("top_p", 0.5), ("seed", 7)])
def test_an_option_of_a_draw_is_refused_where_nothing_is_drawn(name: str, value: float):
    with pytest.raises(BadOption, match=f"{name} is .*where temperature is 0: nothing is drawn"):
        GenerationOptions().updated({name: value})


def test_a_prompt_is_text_as_it_stands():
    assert GenerationOptions().updated({"prompt": "5"}).prompt == "5"
    assert len(GenerationOptions().updated({"prompt": "a" * 200}).prompt) == 200
    for value, limit in (("", "not blank"), (" ", "not blank"), ("a" * 201, "at most 200 char")):
        with pytest.raises(BadOption, match=f"prompt is .* {limit}"):
            GenerationOptions().updated({"prompt": value})
    with pytest.raises(BadOption, match="prompt is '5'; it must be text"):
        GenerationOptions().updated({"prompt": 5})
    with pytest.raises(BadOption, match="prompt is .*; it must be text of at most 200 characters"):
        GenerationOptions().updated({"prompt": "a \ud800"})  # half a character; JSON may hold it


def test_max_tokens_has_the_name_that_hugging_face_gives_it_too():
    assert GenerationOptions().updated({"max_new_tokens": 7}).max_tokens == 7
    with pytest.raises(BadOption, match="max_tokens is '5'; it must be left out where max_tokens"):
        GenerationOptions().updated({"max_new_tokens": 7, "max_tokens": 5})


def test_more_captions_bring_as_many_beams_unless_said_otherwise():
    assert GenerationOptions(num_beams=2).updated({"num_captions": 4}).num_beams == 4
    assert GenerationOptions(num_beams=5).updated({"num_captions": 4}).num_beams == 5
    with pytest.raises(BadOption, match=r"num_captions is '4'; it must be at most num_beams \(3\)"):
        GenerationOptions().updated({"num_captions": 4, "num_beams": 3})


def test_fewer_beams_bring_as_many_captions_unless_said_otherwise():
    options = GenerationOptions(num_beams=5, num_captions=3)
    assert options.updated({"num_beams": 1}).num_captions == 1
    assert options.updated({"num_beams": 4}).num_captions == 3
    with pytest.raises(BadOption, match="num_captions"):
        options.updated({"num_beams": 1, "num_captions": 3})


def test_fewer_tokens_lower_the_minimum_unless_said_otherwise():
    options = GenerationOptions(min_tokens=10)
    assert options.updated({"max_tokens": 5}).min_tokens == 5
    with pytest.raises(BadOption, match=r"min_tokens is '10'; it must be at most max_tokens \(5\)"):
        options.updated({"max_tokens": 5, "min_tokens": 10})


@pytest.mark.parametrize("value", [True, None, "five", "5 x", [5], {"a": 5}, float("nan"), 2.5])
def test_what_is_no_whole_number_is_refused(value: object):
    with pytest.raises(BadOption):
        GenerationOptions().updated({"num_beams": value})


def test_the_table_of_options_is_complete():
    table = {
        name: (option.kind, option.low, option.high, option.default, option.hugging_face)
        for name, option in OPTIONS.items()
    }
    assert table == {
        "num_beams": (int, 1, 8, 5, "num_beams"),
        "num_captions": (int, 1, 8, 1, "num_return_sequences"),
        "max_tokens": (int, 1, 64, 32, "max_new_tokens"),
        "min_tokens": (int, 0, 64, 0, "min_new_tokens"),
        "max_characters": (int, 0, 1000, 0, "max_characters"),
        "length_penalty": (float, -5.0, 5.0, 1.0, "length_penalty"),
        "repetition_penalty": (float, 0.1, 10.0, 1.0, "repetition_penalty"),
        "no_repeat_ngram_size": (int, 0, 10, 0, "no_repeat_ngram_size"),
        "temperature": (float, 0.0, 5.0, 0.0, "temperature"),
        "top_k": (int, 0, 1000, 0, "top_k"),
        "top_p": (float, 0.01, 1.0, 1.0, "top_p"),
        "seed": (int, 0, 2**31 - 1, 0, "seed"),
        "prompt": (str, 0, 200, "", "prompt"),
    }
    assert all(option.help and "\n" not in option.help for option in OPTIONS.values())
    assert GenerationOptions().to_dict() == {name: row[3] for name, row in table.items()}


@pytest.mark.parametrize(
    "method", [Search.forward, ServedCaptioner.caption, ServedCaptioner.forward]
)
def test_options_are_passed_in_the_order_of_the_table(method: Callable[..., Any]):
    """TorchScript takes plain scalars, so `Artifact.search` passes the options by position."""
    _, _, *parameters = inspect.signature(method).parameters.values()  # self and the tensor
    annotations = [(each.name, each.annotation) for each in parameters]
    options = {
        n: option for n, option in OPTIONS.items() if n not in ("seed", "prompt", "max_characters")
    }
    assert annotations == [
        *((name, option.kind.__name__) for name, option in options.items()),
        ("chances", "Tensor | None"),  # what the seed stands for
        ("prompt", "Tensor | None"),  # its tokens
        ("max_characters", "int"),
    ]
    if method is ServedCaptioner.forward:
        defaults = [each.default for each in parameters]
        assert defaults == [*(each.default for each in options.values()), None, None, 0]


def test_the_settings_of_the_pipeline_are_these_options():
    types = {field.name: field.type for field in dataclasses.fields(Generation)}
    assert types == {name: option.kind.__name__ for name, option in OPTIONS.items()}


def test_options_made_by_hand_are_checked_too():
    with pytest.raises(BadOption):
        GenerationOptions(num_beams=2.0)  # type: ignore[arg-type]
    with pytest.raises(BadOption):
        GenerationOptions(length_penalty=float("nan"))
