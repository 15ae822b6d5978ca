"""The output: rows, blocks, parts that are made of them, and what a resumed run finds."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from model.refusal import Refusal
from scale.first_blocks import checked
from scale.output.assembly import Assembly
from scale.output.parts import block_file, part_file, write_block
from scale.output.rows import SCHEMA, CaptionRow, Counts, counts_of, table_of_rows
from scale.output.store import Store
from scale.picture_error import PictureError
from scale.pipeline import chosen_sizes, runs_of
from scale.plan import PART_BLOCKS, Plan
from scale.stages.blocks import DecodedBlock
from scale.stages.deaths import TWICE, Deaths

CAPTION = {"caption": "a boat", "confidence": 0.5, "log_prob": -2.0, "tokens": 3,
           "finish_reason": "end"}  # fmt: skip
REPLY = {"caption": "a boat", "confidence": 0.5, "captions": [CAPTION, {**CAPTION, "caption": "b"}],
         "warnings": ["truncated"], "ood": {"score": 1.5, "p_value": 0.25}}  # fmt: skip


def rows_of(first: int, count: int) -> list[CaptionRow]:
    """Every tenth has an error."""
    broken = PictureError("empty", "no bytes")
    return [
        CaptionRow(f"{n}", error=broken) if n % 10 == 0 else CaptionRow(f"{n}", reply=REPLY)
        for n in range(first, first + count)
    ]


def write(store: Store, plan: Plan, block: int) -> None:
    rows = rows_of(block * plan.block_rows, plan.rows_of(block))
    write_block(store, block, table_of_rows(rows, "v1"), counts_of(rows))


def test_a_row_has_the_fields_of_the_reply():
    feature = torch.arange(6, dtype=torch.float32)
    rows = [
        CaptionRow("a", reply=REPLY, feature=feature.numpy().tobytes(), shape=[2, 3]),
        CaptionRow("b", error=PictureError("empty", "no bytes")),
    ]
    table = table_of_rows(rows, "v1")
    assert table.schema.equals(SCHEMA)
    good, bad = table.to_pylist()
    assert good["caption"] == "a boat"
    assert [each["caption"] for each in good["alternatives"]] == ["a boat", "b"]
    assert good["ood"] == {"score": 1.5, "p_value": 0.25}
    assert (good["feature"], good["feature_shape"]) == (feature.tolist(), [2, 3])
    assert (good["error_code"], good["model_version"]) == (None, "v1")
    assert (bad["id"], bad["error_code"], bad["error"]) == ("b", "empty", "no bytes")
    assert (bad["caption"], bad["feature"], bad["alternatives"]) == (None, None, None)


def test_parts_are_made_of_blocks_in_any_order_and_the_blocks_removed(tmp_path: Path):
    store, plan = Store(str(tmp_path)), Plan(10 * PART_BLOCKS + 25, 10)
    assembly = Assembly(store, plan)
    assert list(assembly.remaining()) == list(range(plan.blocks))
    for block in reversed(range(plan.blocks)):
        write(store, plan, block)
        assert assembly.add(block) == plan.rows_of(block)
        assert assembly.add(block) == 0  # done twice
    counts = assembly.complete()
    assert {part: each.rows for part, each in counts.items()} == {0: 10 * PART_BLOCKS, 1: 25}
    assert counts[1].errors == {"empty": 3}
    assert store.names("_blocks") == set()
    ids = pq.read_table(tmp_path)["id"].to_pylist()
    assert ids == [str(n) for n in range(plan.rows)]


def test_a_resumed_run_finds_what_is_written(tmp_path: Path):
    store, plan = Store(str(tmp_path)), Plan(20 * PART_BLOCKS, 10)
    first = Assembly(store, plan)
    for block in [*plan.blocks_of(0), PART_BLOCKS + 3]:
        write(store, plan, block)
        first.add(block)
    first.close()
    write(store, plan, 2)  # left behind: its part is there
    (tmp_path / "_blocks" / ".half.tmp").write_bytes(b"killed while it was written")
    second = Assembly(store, plan)
    assert second.rows == 10 * PART_BLOCKS + 10
    rest = list(second.remaining())
    assert rest == [block for block in plan.blocks_of(1) if block != PART_BLOCKS + 3]
    assert not (tmp_path / block_file(2)).exists()
    for block in rest:
        write(store, plan, block)
        second.add(block)
    assert sum(each.rows for each in second.complete().values()) == plan.rows


def test_a_part_whose_blocks_are_all_there_is_made_at_the_start(tmp_path: Path):
    store, plan = Store(str(tmp_path)), Plan(30, 10)
    for block in range(3):
        write(store, plan, block)
    assembly = Assembly(store, plan)
    assert list(assembly.remaining()) == []
    assert assembly.complete()[0].rows == 30


def test_an_output_that_lacks_rows_is_never_called_complete(tmp_path: Path):
    store, plan = Store(str(tmp_path)), Plan(30, 10)
    write(store, plan, 0)
    with pytest.raises(Refusal, match="part 0 .* has 0 rows instead of 30"):
        Assembly(store, plan).complete()


def test_readers_of_the_folder_pass_over_what_is_not_complete(tmp_path: Path):
    store, plan = Store(str(tmp_path)), Plan(20 * PART_BLOCKS, 10)
    assembly = Assembly(store, plan)
    for block in [*plan.blocks_of(0), PART_BLOCKS]:
        write(store, plan, block)
        assembly.add(block)
    assembly.close()
    assert pq.read_table(tmp_path).num_rows == 10 * PART_BLOCKS
    assert store.names() == {part_file(0), "_blocks"}


def test_a_block_travels_between_the_stages_unchanged():
    pixels = [bytes([n]) * 12 for n in range(2)]
    errors = [None, PictureError("empty", "no bytes"), None]
    block = DecodedBlock(7, ["a", "b", "c"], errors, [[], [], ["truncated"]], pixels)
    found = DecodedBlock.of_row(block.to_row(), 2)
    assert (found.block, found.ids, found.errors) == (7, ["a", "b", "c"], errors)
    assert found.warnings == [[], [], ["truncated"]]
    assert isinstance(found.pixels, torch.Tensor)
    assert found.pixels.shape == (2, 2, 2, 3)
    assert found.pixels[1].unique().tolist() == [1]
    nothing = DecodedBlock(7, ["a"], [PictureError("empty", "")], [[]], [])
    assert len(DecodedBlock.of_row(nothing.to_row(), 2).pixels) == 0
    stream = io.BytesIO()  # a row without pictures can be stored
    pq.write_table(nothing.to_row(), stream)


def test_a_picture_that_ends_its_process_is_found_and_its_neighbours_are_not():
    deaths, guilty, picture = Deaths(), [], (3, 14)
    for attempt in range(1 + TWICE):
        before, guilty = deaths.begin("work")
        assert before == attempt
        assert guilty == []
        if before:  # under watch
            deaths.decode("work", (3, 13))
            deaths.decode("work", picture)
    _, guilty = deaths.begin("work")
    assert guilty == [picture]
    deaths.end("work")
    assert deaths.begin("work") == (0, [])


def test_sizes_follow_the_machines_and_are_refused_beyond_them():
    assert chosen_sizes([2], None, None, None, 8).workers == 1
    sizes = chosen_sizes([16, 16, 4], None, None, None, 8)
    assert (sizes.threads, sizes.workers, sizes.decoders) == (4, 9, 18)
    assert chosen_sizes([2], 2, 1, None, 8).workers == 2
    gpus = chosen_sizes([16, 16], None, None, None, 64, 0.5, [2, 0])
    assert (gpus.workers, gpus.threads, gpus.gpus) == (4, 1, 0.5)
    with pytest.raises(Refusal, match="the 0 GPUs have room for 0 workers"):
        chosen_sizes([2], None, None, None, 64, 1.0, [0])
    for words in ((3, 1, None), (None, 3, None), (None, None, 3)):
        with pytest.raises(Refusal, match=r"--(workers|threads|decoders)"):
            chosen_sizes([2], *words, 8)


def unread_block(store: Store, plan: Plan, block: int, code: str) -> Counts:
    broken = PictureError(code, "Access denied")
    rows = [CaptionRow(f"{block}:{n}", error=broken) for n in range(plan.rows_of(block))]
    write_block(store, block, table_of_rows(rows, "v1"), counts_of(rows))
    return counts_of(rows)


def test_a_job_in_which_nothing_can_be_read_ends_and_leaves_no_rows(tmp_path: Path):
    store, plan = Store(str(tmp_path)), Plan(100, 10)
    blocks = ((b, unread_block(store, plan, b, "unreadable_file")) for b in range(10))
    with pytest.raises(Refusal, match="none of the first 40 pictures can be read; 0:0: Access"):
        list(checked(store, blocks, is_first=True))
    assert store.names("_blocks") == set()


def test_blocks_that_cannot_be_read_are_kept_where_others_can(tmp_path: Path):
    store, plan = Store(str(tmp_path)), Plan(100, 10)

    def blocks(codes: list[str]) -> list[tuple[int, Counts]]:
        return [(b, unread_block(store, plan, b, code)) for b, code in enumerate(codes)]

    some = blocks(["fetch_failed"] * 3 + ["empty"] + ["fetch_failed"] * 6)
    assert list(checked(store, some, is_first=True)) == some
    few = blocks(["fetch_failed"] * 3)
    assert list(checked(store, few, is_first=True)) == few
    later = blocks(["fetch_failed"] * 9)
    assert list(checked(store, later, is_first=False)) == later


def test_runs_are_neighbours_of_one_part():
    runs = list(runs_of([0, 1, 2, 3, 4, 9, PART_BLOCKS - 1, PART_BLOCKS]))
    assert runs == [[0, 1, 2, 3], [4, 9, PART_BLOCKS - 1], [PART_BLOCKS]]


def test_a_table_without_features_is_as_long_as_its_rows():
    table = table_of_rows(rows_of(0, 5), "v1")
    assert table["feature"].null_count == 5
    assert pa.concat_tables([table, table]).num_rows == 10
