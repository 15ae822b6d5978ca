"""The rows of the output: one for each picture, with a caption or an error.

id              string          of the picture
caption         string          the best caption; null where there is an error
confidence      double          exp(mean token log-probability)
log_prob        double          log-probability of its tokens, summed, in nats
tokens          int32           number of tokens
finish_reason   string          end, length or characters
quality         double          expected correctness, of a captioner with a quality head
alternatives    list<struct>    all captions that were asked for, best first
ood             struct          score and p_value, of a captioner that gives them
warnings        list<string>    such as truncated
feature         list<float>     where it was asked for
feature_shape   list<int32>     its axes
error_code      string          of the REST contract, such as image_undecodable
error           string          the message
model_version   string          of the captioner
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from scale.picture_error import PictureError

_CAPTION = [
    ("caption", pa.string()),
    ("confidence", pa.float64()),
    ("log_prob", pa.float64()),
    ("tokens", pa.int32()),
    ("finish_reason", pa.string()),
    ("quality", pa.float64()),
]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        *_CAPTION,
        ("alternatives", pa.list_(pa.struct(_CAPTION))),
        ("ood", pa.struct([("score", pa.float64()), ("p_value", pa.float64())])),
        ("warnings", pa.list_(pa.string())),
        ("feature", pa.list_(pa.float32())),
        ("feature_shape", pa.list_(pa.int32())),
        ("error_code", pa.string()),
        ("error", pa.string()),
        ("model_version", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class CaptionRow:
    """What became of a picture.

    Attributes:
        id: Of the picture.
        reply: The fields of the REST reply for it, without features; None where it has an error.
        feature: float32, little-endian; None where it was not asked for.
        shape: Of the feature.
        error: Why it has no caption; None where it has one.
    """

    id: str
    reply: Mapping[str, Any] | None = None
    feature: bytes | None = None
    shape: Sequence[int] = ()
    error: PictureError | None = None


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many rows there are, and how many have an error: code -> number."""

    rows: int = 0
    errors: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def __add__(self, other: Counts) -> Counts:
        """Of both together."""
        return Counts(self.rows + other.rows, self.errors + other.errors)

    @classmethod
    def of(cls, rows: int, codes: Iterable[str]) -> Counts:
        """Of so many rows, some of them with these error codes."""
        return cls(rows, collections.Counter(codes))


def counts_of(rows: Sequence[CaptionRow]) -> Counts:
    """How many rows there are, and how many have an error."""
    return Counts.of(len(rows), (row.error.code for row in rows if row.error))


def table_of_rows(rows: Sequence[CaptionRow], version: str) -> pa.Table:
    """Rows as a table of `SCHEMA`."""
    fields = [_fields(row, version) for row in rows]
    columns = {
        name: pa.array([each.get(name) for each in fields], SCHEMA.field(name).type)
        for name in SCHEMA.names
        if name != "feature"
    }
    columns["feature"] = _features(rows)
    return pa.table([columns[name] for name in SCHEMA.names], SCHEMA)


def _fields(row: CaptionRow, version: str) -> dict[str, Any]:
    """The columns of a row but for its feature."""
    fields: dict[str, Any] = {"id": row.id, "model_version": version}
    if row.error is not None:
        return {**fields, "error_code": row.error.code, "error": row.error.message}
    assert row.reply is not None
    captions = row.reply["captions"]
    if row.feature is not None:
        fields["feature_shape"] = list(row.shape)
    return {
        **fields,
        **captions[0],
        "alternatives": captions,
        "ood": row.reply.get("ood"),
        "warnings": row.reply.get("warnings"),
    }


def _features(rows: Sequence[CaptionRow]) -> pa.Array:
    """The column of features, made of their bytes: lists of numbers would take long."""
    values = pa.py_buffer(b"".join(row.feature or b"" for row in rows))
    offsets, end = [0], 0
    for row in rows:
        end += math.prod(row.shape) if row.feature is not None else 0
        offsets.append(end)
    missing = pa.array([row.feature is None for row in rows], pa.bool_())
    numbers = pa.Array.from_buffers(pa.float32(), end, [None, values])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers, mask=missing)
