"""A page of a few pictures by chance, with their captions: a look before a job begins.

It runs in this process, without Ray, and leaves nothing but the page in the output. Each picture is
shown as the captioner sees it, resized and cropped.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import random
from collections.abc import Iterable

import torch
from PIL import Image

from handler.caption_settings import cores
from handler.requests.caption_request import Extras
from scale.inputs.entry import Entry
from scale.inputs.listing import Listing
from scale.inputs.parquet_rows import Columns
from scale.inputs.reading import PictureReader
from scale.output.rows import CaptionRow
from scale.output.store import Store
from scale.run import Captioning
from scale.stages.blocks import DecodedBlock
from scale.stages.captioning import Captioner
from scale.stages.decoding import decode_block

#: The page in the output. Its name keeps readers of Parquet data sets away.
PAGE = "_sample.html"
_STYLE = """body{font:16px/1.4 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:1.5rem}
figure{margin:0}img{width:100%;border-radius:4px}small{color:#555;overflow-wrap:anywhere}
.error{color:#a00}"""


def write_sample(given: argparse.Namespace) -> None:
    """Caption a sample of the input and write the page.

    Args:
        given: The command line.

    Raises:
        Refusal: The input or the captioner cannot be used.
    """
    captioning, store = Captioning.of(given), Store(given.out)
    columns = Columns(given.image_column, given.id_column)
    count, entries = _chosen(Listing(given.inputs, columns), given.sample, given.sample_seed)
    captioner = Captioner(
        captioning.artifact,
        captioning.options,
        Extras(),
        given.threads or cores(),
        given.images_per_pass,
    )
    with PictureReader(columns) as reader:
        preprocessing = captioning.artifact.preprocessing
        decoded = decode_block(0, entries, reader, preprocessing, given.max_pixels)
    decoded = DecodedBlock.of_row(decoded.to_row(), preprocessing.size)
    rows = captioner.caption(decoded)
    store.write(PAGE, _page(rows, decoded, count).encode("utf-8", "replace"))
    failed = sum(row.error is not None for row in rows)
    print(f"{store.path(PAGE)}: {len(rows)} of {count:,} pictures, {failed} of them with an error")


def _chosen(entries: Iterable[Entry], size: int, seed: int) -> tuple[int, list[Entry]]:
    """How many pictures there are, and some of them by chance, in their order.

    Source: Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """
    chance, kept, count = random.Random(seed), list[tuple[int, Entry]](), 0
    for count, entry in enumerate(entries, 1):  # noqa: B007 - the last one is the number of all
        if len(kept) < size:
            kept.append((count, entry))
        elif (place := chance.randrange(count)) < size:
            kept[place] = (count, entry)
    return count, [entry for _, entry in sorted(kept)]


def _page(rows: list[CaptionRow], decoded: DecodedBlock, count: int) -> str:
    assert isinstance(decoded.pixels, torch.Tensor)
    pixels = iter(decoded.pixels)
    figures = [
        _figure(row, None if error else next(pixels))
        for row, error in zip(rows, decoded.errors, strict=True)
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Sample</title>'
        f"<style>{_STYLE}</style><h1>{len(rows)} of {count:,} pictures</h1>"
        f"<main>{''.join(figures)}</main></html>"
    )


def _figure(row: CaptionRow, pixels: torch.Tensor | None) -> str:
    shown = ""
    if pixels is not None:
        file = io.BytesIO()
        side = pixels.shape[0]
        Image.frombytes("RGB", (side, side), bytes(pixels.flatten().tolist())).save(file, "JPEG")
        data = base64.b64encode(file.getvalue()).decode()
        shown = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    if row.error is not None:
        text = f'<span class="error">{html.escape(row.error.message)}</span>'
    else:
        assert row.reply is not None
        text = f"{html.escape(row.reply['caption'])} ({row.reply['confidence']:.2f})"
    return (
        f"<figure>{shown}<figcaption>{text}<br><small>{html.escape(row.id)}</small></figcaption>"
        "</figure>"
    )
