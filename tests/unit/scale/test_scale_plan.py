"""The plan and the job: each id once, the same blocks each time, and refusals of another job."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from model.refusal import Refusal
from scale.inputs.entry import Entry, Kind
from scale.job import Job, begin_or_continue
from scale.output.store import Store
from scale.plan import PART_BLOCKS, ListedInput, Plan, read_blocks


def entries(count: int) -> list[Entry]:
    return [Entry(f"{n:07d}.jpg", f"/pictures/{n:07d}.jpg", size=n) for n in range(count)]


def job_of(listed: ListedInput, **changes: object) -> Job:
    job = Job(
        inputs=["pictures"],
        rows=listed.rows,
        repeated=listed.repeated,
        fingerprint=listed.fingerprint,
        block_rows=10,
        captioner="a" * 64,
        options={"num_beams": 5},
        features={"features": False},
        columns={"picture": None, "id": None},
    )
    return dataclasses.replace(job, **changes)


def test_a_plan_holds_all_pictures_in_their_order(tmp_path: Path):
    count = 10 * PART_BLOCKS * 2 + 35
    store = Store(str(tmp_path))
    with ListedInput(entries(count)) as listed:
        plan = listed.write_plan(store, 10)
    assert (plan.rows, plan.blocks, plan.parts) == (count, 2 * PART_BLOCKS + 4, 3)
    assert [plan.rows_of(b) for b in plan.blocks_of(2)] == [10, 10, 10, 5]
    found = [e for p in range(3) for block in read_blocks(store, plan.blocks_of(p)) for e in block]
    assert found == entries(count)
    assert next(read_blocks(store, [PART_BLOCKS + 1]))[0] == found[10 * (PART_BLOCKS + 1)]


def test_the_same_picture_twice_is_taken_once_and_counted():
    twice = [*entries(50), *entries(20)]
    with ListedInput(twice) as listed, ListedInput(entries(50)) as once:
        assert (listed.rows, listed.repeated) == (50, 20)
        assert list(listed.entries()) == entries(50)
        assert listed.fingerprint == once.fingerprint


def test_two_pictures_with_one_id_are_refused():
    other = Entry("0000003.jpg", "/elsewhere/3.jpg", Kind.RANGE, 5, 7)
    with pytest.raises(Refusal, match=r"id 0000003.jpg: /pictures/0000003.jpg of 3 bytes and "
                                      r"/elsewhere/3.jpg at byte 5 of 7 bytes"):  # fmt: skip
        ListedInput([*entries(9), other])


def test_a_limit_takes_the_first_ones():
    with ListedInput(entries(50), 7) as listed:
        assert list(listed.entries()) == entries(7)


def test_a_second_run_continues_the_same_job(tmp_path: Path):
    store = Store(str(tmp_path))
    with ListedInput(entries(35)) as listed:
        assert begin_or_continue(store, listed, job_of(listed)) == (job_of(listed), False)
        assert begin_or_continue(store, listed, job_of(listed)) == (job_of(listed), True)


def test_another_job_is_refused_with_what_differs(tmp_path: Path):
    store = Store(str(tmp_path))
    with ListedInput(entries(35)) as listed:
        begin_or_continue(store, listed, job_of(listed))
        for changes, message in (
            ({"options": {"num_beams": 2}}, "num_beams was 5 and is 2"),
            ({"captioner": "b" * 64}, "captioner was aaaaaaaaaaaa… and is bbbbbbbbbbbb…"),
            ({"features": {"features": True}}, "features was False and is True"),
            ({"limit": 3}, "limit was None and is 3"),
            ({"block_rows": 9}, "block_rows was 10 and is 9"),
        ):
            with pytest.raises(Refusal, match=message):
                begin_or_continue(store, listed, job_of(listed, **changes))


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ([*entries(35), Entry("new.jpg", "/new.jpg")], r"picture 36 \(new.jpg\) is new"),
        (entries(34), r"picture 35 \(0000034.jpg\) is gone"),
        (entries(35)[1:], "picture 1 was 0000000.jpg and is 0000001.jpg"),
        (
            [*entries(34), Entry("0000034.jpg", "/pictures/0000034.jpg", size=9)],
            "0000034.jpg was /pictures/0000034.jpg of 34 bytes and is .* of 9 bytes",
        ),
    ],
)
def test_an_input_that_has_changed_is_refused_with_what_changed(
    tmp_path: Path, now: list[Entry], message: str
):
    store = Store(str(tmp_path))
    with ListedInput(entries(35)) as listed:
        begin_or_continue(store, listed, job_of(listed))
    with ListedInput(now) as listed, pytest.raises(Refusal, match=message):
        begin_or_continue(store, listed, job_of(listed))


def test_a_run_that_was_killed_while_it_planned_begins_again(tmp_path: Path):
    store = Store(str(tmp_path))
    with ListedInput(entries(35)) as listed:
        listed.write_plan(store, 99)
        _, continued = begin_or_continue(store, listed, job_of(listed))
        assert not continued
    assert [len(block) for block in read_blocks(store, range(4))] == [10, 10, 10, 5]


def test_a_folder_with_other_files_is_refused(tmp_path: Path):
    (tmp_path / "thesis.doc").write_text("mine")
    with ListedInput(entries(3)) as listed, pytest.raises(Refusal, match=r"such as thesis.doc"):
        begin_or_continue(Store(str(tmp_path)), listed, job_of(listed))


def test_numbers_of_a_plan_of_a_hundred_million():
    plan = Plan(100_000_000, 256)
    assert plan.blocks == 390_625
    assert plan.parts == 6_104
    assert sum(len(plan.blocks_of(part)) for part in range(plan.parts)) == plan.blocks
