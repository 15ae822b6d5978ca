"""Entries put together by picture: the same as with a dict, which needs much more memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from training.sources.captions.collected import CollectedPictures
from training.sources.captions.entry import Entry
from training.sources.faults import MAX_KEPT, Faults

SPLITS = st.sampled_from([None, "train", "test"])
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=2, unique=True),
        SPLITS,
        st.sampled_from([None, 1, 2]),
    ),
    max_size=12,
)


def slowly(
    entries: list[tuple[str, list[str], str | None, int | None]], repeats: bool
) -> tuple[dict[str, list[str]], int]:
    """Captions of each picture and number of faults, with dicts."""
    with_split = any(split for _, _, split, _ in entries)
    first: dict[str, tuple[str | None, int | None]] = {}
    for path, _, split, image_id in entries:
        first.setdefault(path, (split, image_id))
    told: dict[str, list[str]] = {path: [] for path in first}
    before: set[tuple[str, str]] = set()
    faults = 0
    for path, captions, split, image_id in entries:
        wrong = (with_split and split is None) or first[path] != (split, image_id)
        faults += wrong
        for text in captions:
            again = (path, text) in before and not repeats
            before.add((path, text))
            if not wrong:
                faults += again
                told[path] += [] if again else [text]
    return told, faults


@settings(max_examples=200, deadline=None)
@given(ENTRIES, st.booleans())
def test_it_gives_what_dicts_give(
    entries: list[tuple[str, list[str], str | None, int | None]], repeats: bool
):
    pictures, faults = CollectedPictures(), Faults()
    for number, (path, captions, split, image_id) in enumerate(entries):
        entry = Entry(f"line {number}", path, captions, split, image_id)
        pictures.add(entry, path, repeats)
    pictures.group(faults)
    expected, count = slowly(entries, repeats)
    found = {pictures[n].path: pictures.captions(n) for n in range(len(pictures))}
    assert found == expected
    assert list(found) == list(expected)  # in the order of their first lines
    assert len(faults) == count
    assert [pictures[int(n)].path for n in pictures.captioned()] == [p for p in found if found[p]]


def test_many_faults_are_counted_and_the_first_kept():
    faults = Faults()
    for number in range(MAX_KEPT + 5):
        faults.append(f"fault {number}")
    assert len(faults) == MAX_KEPT + 5
    assert faults[:2] == ["fault 0", "fault 1"]
    assert len(faults[:]) == MAX_KEPT
