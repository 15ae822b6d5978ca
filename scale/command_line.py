"""The command line of `python -m scale.caption`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handler.replies.extras import FIELDS, extras_limits
from model.image.decode import MAX_PIXELS
from model.options import OPTIONS, SYNONYMS

#: Pictures of a block.
BLOCK_ROWS = 256
#: Most images in one pass on a processor and on a GPU, as in `handler/model-config.yaml`.
IMAGES_PER_PASS, GPU_IMAGES_PER_PASS = 8, 64
#: Fields of a request that a job has no use for, or flags of its own for.
_NOT_HERE = ("features", "unit_features", "timeout_ms")


def parse_arguments(description: str | None, words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Args:
        description: The text of `--help`.
        words: Those of the command line; None for those of this process.

    Returns:
        The flags by their names. `options` has those of the captions that were given, `extras`
        those of the reply, both name -> value.

    Raises:
        SystemExit: The command line is wrong (2), or asks for help (0).
    """
    parser = argparse.ArgumentParser(
        prog="python -m scale.caption",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("inputs", nargs="+", metavar="INPUT",
        help="a folder, picture, list (.txt), .parquet, .tar, or a pattern: 's3://b/*.tar'")
    add("--out", required=True, metavar="DIR", help="folder of the output, or s3:// or gs://")
    add("--artifact", type=Path, default=Path("build/artifact"), metavar="DIR",
        help="an exported captioner (build/artifact)")
    add("--address", metavar="HOST:PORT", help="a Ray cluster to join; else Ray starts here")
    add("--limit", type=_positive, metavar="N", help="caption the first N pictures only")
    add("--sample", type=_positive, metavar="N",
        help="write OUT/_sample.html, a page of N pictures by chance, and nothing else")
    add("--sample-seed", type=int, default=0, metavar="N", help="another number, other pictures")
    add("--features", action="store_true", help="write the CLIP feature of each picture too")
    add("--unit-features", action="store_true", help="divide each feature by its L2 norm")
    add("--image-column", metavar="NAME", help="column of Parquet with bytes, or paths or URLs")
    add("--id-column", metavar="NAME", help="column of Parquet with the ids")
    add("--workers", type=_positive, metavar="N", help="processes that caption")
    add("--threads", type=_positive, metavar="N", help="threads of each (its machine's, at most 8)")
    add("--decoders", type=_positive, metavar="N", help="processes that read and decode")
    add("--gpus-per-worker", type=_share, default=0.0, metavar="SHARE",
        help="the part of a GPU that each worker has, from 0 to 1 (0: it runs on processors)")
    add("--images-per-pass", type=_positive, metavar="N",
        help=f"most pictures in one pass ({IMAGES_PER_PASS}, on a GPU {GPU_IMAGES_PER_PASS})")
    add("--block-rows", type=_positive, default=BLOCK_ROWS, metavar="N",
        help=f"pictures that are captioned and written as a whole ({BLOCK_ROWS})")
    add("--max-pixels", type=_positive, default=MAX_PIXELS, metavar="N",
        help=f"most pixels at which a picture is decoded ({MAX_PIXELS})")
    add("--verbose", action="store_true", help="show the messages of Ray and its processes")
    add("--debug", action="store_true", help="show the traceback of an error")
    # fmt: on
    captions = parser.add_argument_group("captions, as in requests (docs/api.md)")
    for name, option in OPTIONS.items():
        others = [_flag(other) for other, of in SYNONYMS.items() if of == name]
        text = option.help.replace("%", "%%")
        captions.add_argument(_flag(name), *others, dest=f"option {name}", metavar="V", help=text)
    for name in FIELDS:
        if name not in _NOT_HERE:
            help_ = str(extras_limits().get(name, {}).get("help", ""))
            captions.add_argument(
                _flag(name), dest=f"extra {name}", action="store_true", default=None, help=help_
            )
    given = parser.parse_args(words)
    if given.unit_features and not given.features:
        parser.error("--unit-features needs --features")
    if given.sample and (given.address or given.gpus_per_worker):
        wrong = "--address" if given.address else "--gpus-per-worker"
        parser.error(f"--sample captions in this process, on a processor; leave out {wrong}")
    usual = GPU_IMAGES_PER_PASS if given.gpus_per_worker else IMAGES_PER_PASS
    given.images_per_pass = given.images_per_pass or usual
    given.options, given.extras = _taken(given, "option "), _taken(given, "extra ")
    return given


def _taken(given: argparse.Namespace, prefix: str) -> dict[str, Any]:
    found = {name: value for name, value in vars(given).items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items() if value is not None}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 1 << 62:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part of a GPU, from 0 to 1")
    return share
