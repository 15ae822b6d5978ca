"""Options that the server describes are checked before they are sent, with the server's words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client import AsyncCaptionClient, CaptionClient, CaptionError
from client.options import check_options, option_texts
from model.options import OPTIONS, SYNONYMS, BadOption, GenerationOptions, UnknownOption
from tests.picture_peer import Peer, picture_peer

#: As `handler/caption_handler.py` describes them.
DESCRIPTION: dict[str, Any] = {
    "model": {"name": "clipcap", "version": "1.0"},
    "formats": ["JPEG", "PNG"],
    "max_pixels": 10**8,
    "max_pictures": 32,
    "options": {
        name: {
            "default": option.default,
            "from": option.low,
            "to": option.high,
            "type": option.kind.__name__,
            "help": option.help,
        }
        for name, option in OPTIONS.items()
    },
    "synonyms": SYNONYMS,
}
VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["1", " 2", "3.0", "1e2", "[1]", "{}", "NaN", "null", " ", "9" * 60, '"4"']),
)


def of_server(name: str, text: str) -> tuple[str, str] | None:
    """What the server says of one option alone, beside those that would not conflict with it."""
    try:
        GenerationOptions().updated({name: text})
    except UnknownOption as error:
        return "unknown_option", str(error)
    except BadOption as error:
        return "bad_option", str(error)
    return None


@given(st.sampled_from([*OPTIONS, *SYNONYMS, "beams", "num-beams"]), VALUES)
@example("num_beams", "2.0")
@example("num_beams", 10**5000)
@example("prompt", "x" * 201)
def test_an_option_is_refused_as_the_server_refuses_it(name: str, value: Any):
    try:
        texts = option_texts({name: value})
    except ValueError:  # Python prints no numbers of thousands of digits
        return
    expected = of_server(name, texts[name])
    together = (" where ", "at most num", "0 for any")
    if expected is not None and any(words in expected[1] for words in together):
        return  # a conflict with another option, which is for the server to find
    found = None
    try:
        check_options(DESCRIPTION, texts)
    except CaptionError as error:
        found = (error.status, error.code, error.message)
    statuses = {"unknown_option": 400, "bad_option": 422}
    assert found == (expected and (statuses[expected[0]], *expected))


def test_a_name_and_its_synonym_are_refused_as_the_server_refuses_them():
    texts = {"max_tokens": "5", "max_new_tokens": "6"}
    with pytest.raises(BadOption) as expected:
        GenerationOptions().updated(texts)
    with pytest.raises(CaptionError) as caught:
        check_options(DESCRIPTION, texts)
    assert caught.value.message == str(expected.value)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with picture_peer() as found:
        found.description = DESCRIPTION
        yield found


def test_options_are_read_once_and_checked_from_then_on(peer: Peer):
    with CaptionClient(peer.address) as client:
        client.caption(b"a", num_beams=99)  # nobody asked what the limits are
        options = client.options()
        assert client.options() == options
        assert list(options) == list(OPTIONS)
        beams = options["num_beams"]
        assert (beams.type, beams.low, beams.high, beams.default) == ("int", 1, 8, 5)
        with pytest.raises(CaptionError) as caught:
            client.caption(b"a", num_beams=99)
        assert (
            caught.value.message
            == "option num_beams is '99'; it must be a whole number from 1 to 8"
        )
        with pytest.raises(
            CaptionError, match="unknown option 'beams'; known options: num_beams, "
        ):
            client.caption(b"a", beams=5)
        client.caption(b"a", num_beams=8)
        assert client.description()["formats"] == ["JPEG", "PNG"]
    assert peer.asked == {"a": 2}
    assert peer.described == 1


def test_many_pictures_are_not_sent_with_a_wrong_option(peer: Peer):
    with CaptionClient(peer.address) as client:
        with pytest.raises(CaptionError, match="num_beams is '99'"):
            client.caption_many([b"a"], num_beams=99)

        async def go() -> None:
            async with AsyncCaptionClient(peer.address) as other:
                with pytest.raises(CaptionError, match="num_beams is '99'"):
                    await anext(other.caption_many([b"a"], num_beams=99))
                assert (await other.options())["num_beams"].high == 8
                assert "formats" in await other.description()

        asyncio.run(go())
    assert not peer.asked


@pytest.mark.parametrize("description", [None, [], {"options": []}, {"model": 1, "options": {}}])
def test_a_server_without_a_description_gets_what_it_got_before(peer: Peer, description: Any):
    peer.description = description
    with CaptionClient(peer.address) as client:
        with pytest.raises(CaptionError):
            client.options()
        [(_, result)] = client.caption_many([b"a"], num_beams=99)
        assert result == client.caption(b"a", of_the_future="x")


def test_what_an_older_or_newer_server_does_not_say_is_not_checked():
    strange = {
        "a": {"from": 1},
        "b": 3,
        "c": {"type": "date", "from": 0, "to": 1},
        "d": {"type": 7},
    }
    check_options({"options": strange}, dict.fromkeys(strange, "x"))
    with pytest.raises(CaptionError, match="unknown option 'e'; known options: a, b, c, d"):
        check_options({"options": strange}, {"e": "1"})


def test_fields_of_explanations_are_left_to_a_server_that_has_explanations():
    fields = {"explain": "true", "grid": "3", "format": "png", "num_beams": "2"}
    check_options({**DESCRIPTION, "explanation": {"grid": {"from": 2}, "format": []}}, fields)
    with pytest.raises(CaptionError, match="unknown option 'explain'"):
        check_options(DESCRIPTION, fields)


def test_an_option_that_cannot_be_sent_is_refused_without_a_description(peer: Peer):
    with CaptionClient(peer.address) as client, pytest.raises(ValueError, match="half a character"):
        client.caption(b"a", prompt="\udc80")
