"""Words of captions in every script: marks stay with their letters, unspaced scripts are cut."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest

from training.evaluation.scores.words import mostly_latin, words
from training.scenes import sample_scene, write_captions


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Two RED boats, isn't it?", ["two", "red", "boats", "isn", "t", "it"]),
        ("एक कुत्ता दौड़ रहा है।", ["एक", "कुत्ता", "दौड़", "रहा", "है"]),
        ("كَلْبٌ يَجْرِي", ["كَلْبٌ", "يَجْرِي"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("สุนัขวิ่ง", ["สุ", "นั", "ข", "วิ่", "ง"]),
        ("น้ำ", ["น้ำ"]),
        ("犬がビール1本、走る。", ["犬", "が", "ビ", "ー", "ル", "1", "本", "走", "る"]),
        ("が", ["が"]),
        ("강아지가 달린다", ["강아지가", "달린다"]),
        ("a dog 狗 runs", ["a", "dog", "狗", "runs"]),
        ("…!?", []),
    ],
)
def test_words(caption: str, expected: list[str]):
    normal = [unicodedata.normalize("NFC", word) for word in expected]
    assert words(caption) == normal
    assert words(unicodedata.normalize("NFD", caption)) == normal


def test_words_of_plain_captions_are_runs_of_letters_and_digits():
    rng = random.Random(3)
    for _ in range(50):
        for caption in write_captions(sample_scene(rng, "test")):
            assert words(caption) == re.findall(r"\w+", caption.lower())
    for code in {*range(0x250)} - {0x130}:  # the Turkish capital I has a mark in lower case
        assert words(chr(code)) == re.findall(r"\w+", chr(code).lower())


@pytest.mark.parametrize(
    ("captions", "latin"),
    [
        (["a dog 犬"], True),
        (["犬が走る a"], False),
        (["ein Hund läuft", "собака"], True),
        (["собака бежит"], False),
        (["123 !"], True),
    ],
)
def test_mostly_latin(captions: list[str], latin: bool):
    assert mostly_latin(captions) == latin
