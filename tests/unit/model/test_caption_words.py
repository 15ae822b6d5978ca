"""Captions in many scripts are cut into their words, and no token is lost or shared."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model.caption_words import caption_words
from tests.models import WORDS
from training.captioner.tokenizer import train_tokenizer

#: A byte-level tokenizer of few merges: other scripts are written byte by byte.
TOKENIZER = train_tokenizer(WORDS, 300, ())


def text_of(ids: Sequence[int], tokenizer: Tokenizer = TOKENIZER) -> str:
    """As `Artifact.text` makes a caption."""
    return " ".join(tokenizer.decode(list(ids)).split())


def words_of(text: str, tokenizer: Tokenizer = TOKENIZER) -> list[str]:
    ids = tokenizer.encode(text).ids
    words = caption_words(ids, lambda part: text_of(part, tokenizer))
    whole = text_of(ids, tokenizer)
    assert [whole[word.begin : word.end] for word in words] == [word.text for word in words]
    return [word.text for word in words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two red boats", ["two", "red", "boats"]),
        (
            "a dog's red-brown hat, and 3 kites.",
            ["a", "dog's", "red-brown", "hat", "and", "3", "kites"],
        ),
        ("  two   boats ", ["two", "boats"]),
        ("ein Mädchen isst Äpfel", ["ein", "Mädchen", "isst", "Äpfel"]),
        ("две красные лодки", ["две", "красные", "лодки"]),
        ("एक लाल नाव की तस्वीर", ["एक", "लाल", "नाव", "की", "तस्वीर"]),
        ("قارب أحمر", ["قارب", "أحمر"]),
        ("빨간 배 두 척", ["빨간", "배", "두", "척"]),
        ("一只红色的船", ["一", "只", "红", "色", "的", "船"]),
        ("赤い船。", ["赤", "い", "船"]),
        ("a 船 at sea", ["a", "船", "at", "sea"]),
        ("เรือ", ["เ", "รื", "อ"]),
        ("a boat 🚤 at sea", ["a", "boat", "at", "sea"]),
        ("...", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]):
    assert words_of(text) == words


def test_where_words_have_no_spaces_the_tokens_that_were_learned_stand_for_them():
    tokenizer = train_tokenizer(["红色的船"] * 50, 300, ())
    assert words_of("红色的船在海上", tokenizer) == ["红色的船", "在", "海", "上"]


@given(st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_words_are_in_order_and_share_no_token(text: str):
    text = text.encode(errors="ignore").decode()
    ids = TOKENIZER.encode(text).ids
    words = caption_words(ids, text_of)
    places = [place for word in words for place in word.tokens]
    assert places == sorted(set(places))
    assert all(place in range(len(ids)) for place in places)
    whole, end = text_of(ids), 0
    for word in words:
        assert end <= word.begin < word.end <= len(whole)
        assert whole[word.begin : word.end] == word.text == word.text.strip()
        assert word.tokens
        end = word.end
    # No letter or digit is in no word.
    covered = {place for word in words for place in range(word.begin, word.end)}
    assert all(place in covered for place, each in enumerate(whole) if each.isalnum())


def test_the_tokens_of_a_word_make_its_text():
    ids = TOKENIZER.encode("a snowy 船 Mädchen").ids
    for word in caption_words(ids, text_of):
        assert TOKENIZER.decode([ids[place] for place in word.tokens]).strip() == word.text


@given(st.lists(st.integers(0, 299), max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_tokens_at_all_are_cut(ids: list[int]):
    """A captioner may write half a character."""
    whole = text_of(ids)
    for word in caption_words(ids, text_of):
        assert whole[word.begin : word.end] == word.text
