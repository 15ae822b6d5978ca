"""What is kept of a captioned picture, and its columns in Parquet."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from handler.request_result import ImageResult
from model.ood import pooled

if TYPE_CHECKING:
    import pyarrow

#: Version of the columns; it stands in the metadata of each file.
FORMAT = "1"


@dataclasses.dataclass(frozen=True)
class CapturedRow:
    """What is kept of one picture.

    Attributes:
        columns: Name of a column -> value; see `schema`.
        picture: The bytes of its file, if pictures are kept.
    """

    columns: dict[str, Any]
    picture: bytes | None = None


def schema(arrow: Any, metadata: dict[str, str]) -> pyarrow.Schema:
    """The columns.

    Args:
        arrow: The module `pyarrow`.
        metadata: Of the captioner: `model`, `version`, `weights_sha256`.
    """
    fields = [
        ("id", arrow.string()),  # of the request, and the number of the picture in it
        ("request", arrow.string()),  # what names the request in logs
        ("time", arrow.timestamp("us", tz="UTC")),
        ("caption", arrow.string()),
        ("other_captions", arrow.list_(arrow.string())),
        ("confidence", arrow.float32()),
        ("log_prob", arrow.float32()),
        ("tokens", arrow.int32()),
        ("finish_reason", arrow.string()),
        ("quality", arrow.float32()),
        ("ood_score", arrow.float32()),
        ("ood_p_value", arrow.float32()),
        ("options", arrow.string()),  # JSON
        ("feature", arrow.list_(arrow.float32())),  # of patches the mean
    ]
    return arrow.schema(fields, metadata={"clipcap_capture": FORMAT, **metadata})


def image_schema(arrow: Any, metadata: dict[str, str]) -> pyarrow.Schema:
    """The columns of the files of pictures; `id` is that of the row."""
    fields = [("id", arrow.string()), ("image", arrow.binary())]
    return arrow.schema(fields, metadata={"clipcap_capture_images": FORMAT, **metadata})


def captured_row(
    request_id: str,
    number: int,
    image: ImageResult,
    picture: bytes | None = None,
    named: str = "",
) -> CapturedRow:
    """What is kept of one captioned picture; costs a mean over its patches.

    Args:
        request_id: The id that the request had in this server.
        number: Of the picture in the request, from 0.
        image: The picture, captioned.
        picture: The bytes of its file, if pictures are kept.
        named: What names the request in logs.
    """
    assert image.features is not None
    best = image.captions[0]
    columns = {
        "id": f"{request_id}/{number}",
        "request": named,
        "time": datetime.datetime.now(datetime.UTC),
        "caption": best.text,
        "other_captions": [each.text for each in image.captions[1:]],
        "confidence": best.confidence,
        "log_prob": best.log_prob,
        "tokens": best.tokens,
        "finish_reason": best.finish_reason,
        "quality": best.quality,
        "ood_score": image.ood.score if image.ood else None,
        "ood_p_value": image.ood.p_value if image.ood else None,
        "options": image.options,
        "feature": pooled(image.features.unsqueeze(0))[0].cpu().numpy(),
    }
    return CapturedRow(columns, picture)


def table(arrow: Any, rows: Sequence[CapturedRow], of: pyarrow.Schema) -> pyarrow.Table:
    """Rows as a table of these columns."""
    values = {name: [row.columns[name] for row in rows] for name in of.names}
    values["options"] = [json.dumps(each.to_dict()) for each in values["options"]]
    return arrow.Table.from_pydict(values, schema=of)
