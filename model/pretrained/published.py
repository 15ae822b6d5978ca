"""Published captioners as checkpoint folders: by name from the hub, or from a weights file.

    python -m model.pretrained.published coco --out models/coco
    python -m model.pretrained.published coco_weights.pt --out models/mine

A name (`coco`, `conceptual`) fetches the weights, the CLIP they were trained on and GPT-2's
tokenizer from the Hugging Face hub. It does nothing when the folder is there already:

    models/coco/              the checkpoint folder
    models/coco.lock.json     what it was made of: commit, bytes and SHA-256 of each file

The record stays when the folder is removed. The next download must give the same bytes.

A file is completed with the CLIP and the tokenizer that the options name. Whether the feature is
divided by its norm, which CLIP made it, and which token ends a caption are not in the file. Without
the options it is assumed, printed, and written into the model card. Captioners of RN50x4 features
need the extra `openclip`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.pretrained.hub import Fetched, fetch, file_sha256
from model.pretrained.sources import CAPTIONERS, PublishedCaptioner
from model.refusal import Refusal

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint

#: The file of a checkpoint folder that holds its weights.
WEIGHTS = "model.safetensors"


def make_checkpoint(name: str, out: str | Path) -> Checkpoint | None:
    """Make the checkpoint folder of a published captioner, unless it is there already.

    Args:
        name: One of `CAPTIONERS`.
        out: The folder. What it was made of goes beside it, into `OUT.lock.json`.

    Returns:
        The checkpoint; None when the folder was there and holds these weights.

    Raises:
        Refusal: The folder holds other weights, a file cannot be had, or it is not the one that
            is recorded.
    """
    out = Path(out)
    record, published = record_of(out), CAPTIONERS[name]
    known = _read(record)
    if out.exists() and not _was_interrupted(known, published, out):
        if _is_made_of(known, published, out):
            return None
        raise Refusal(
            f"{out} exists and does not hold the published {name!r} weights as {record} records "
            f"them; serve it as it is with CHECKPOINT={out}, or move both away to fetch them"
        )
    fetched = [fetch(file) for file in published.files]
    files = {_key(each): _entry(each) for each in fetched}
    for key, entry in files.items():
        before = known["files"].get(key) if known else None
        if before is not None and before["sha256"] != entry["sha256"]:
            raise Refusal(
                f"{key} has SHA-256 {entry['sha256']}, but {record} records {before['sha256']}: "
                f"the file on the hub was changed; remove {record} to accept the new one"
            )
    _write({"files": files}, record)  # before the folder, which a killed run would leave unrecorded
    weights, clip, tokenizer = fetched[0], fetched[1:-1], fetched[-1]
    checkpoint = _convert(
        weights.path,
        str(clip[0].path.parent),
        str(tokenizer.path.parent),
        (_origin(weights), "<br>".join(map(_origin, clip)), _origin(tokenizer)),
    )
    checkpoint.save(out)
    _write({"files": files, "checkpoint_sha256": file_sha256(out / WEIGHTS)}, record)
    return checkpoint


def _convert(
    file: Path,
    clip: str | None,
    tokenizer: str,
    origins: tuple[str, str, str] | None = None,
    normalize: bool | None = None,
    end_token: str | None = None,
) -> Checkpoint:
    """Read a weights file and complete it (`completion.complete`).

    Of a file without `origins` nothing is known but its shapes. What is assumed is printed.
    """
    # Imported here: transformers takes seconds, which a folder that is up to date does not need.
    from model.pretrained.completion import assumptions, complete
    from model.pretrained.weights_file import read_published

    captioner = read_published(file, normalize)
    assumed = [] if origins else assumptions(captioner.config, clip, normalize, end_token)
    for each in assumed:
        print(f"assumed: {each}")
    return complete(captioner, file, clip, tokenizer, origins, end_token, assumed)


def record_of(out: Path) -> Path:
    """The record beside a checkpoint folder."""
    return out.with_name(f"{out.name}.lock.json")


def _was_interrupted(
    known: dict[str, Any] | None, published: PublishedCaptioner, out: Path
) -> bool:
    """Whether a run was killed after it put the folder in place, before it recorded that."""
    if known is None or "checkpoint_sha256" in known or not _names(known, published):
        return False
    weights = known["files"][f"{published.weights.repo}/{published.weights.name}"]
    card = out / "README.md"
    return card.is_file() and weights["sha256"] in card.read_text(encoding="utf-8")


def _is_made_of(known: dict[str, Any] | None, published: PublishedCaptioner, out: Path) -> bool:
    """Whether the folder holds what the record says, and the record what is published."""
    return (
        known is not None
        and _names(known, published)
        and (out / WEIGHTS).is_file()
        and known.get("checkpoint_sha256") == file_sha256(out / WEIGHTS)
    )


def _names(known: dict[str, Any], published: PublishedCaptioner) -> bool:
    """Whether a record is of these very files."""
    expected = {f"{file.repo}/{file.name}": file.sha256 for file in published.files}
    return known["files"].keys() == expected.keys() and all(
        sha256 in (None, known["files"][key]["sha256"]) for key, sha256 in expected.items()
    )


def _key(fetched: Fetched) -> str:
    return f"{fetched.file.repo}/{fetched.file.name}"


def _entry(fetched: Fetched) -> dict[str, Any]:
    return {"commit": fetched.commit, "bytes": fetched.bytes, "sha256": fetched.sha256}


def _origin(fetched: Fetched) -> str:
    """A file as the model card names it."""
    known = "as expected" if fetched.file.sha256 else "as downloaded: none is published to compare"
    return f"`{_key(fetched)}` of commit `{fetched.commit}`, SHA-256 `{fetched.sha256}` ({known})"


def _read(record: Path) -> dict[str, Any] | None:
    """The record, or None if there is none.

    Raises:
        Refusal: It is damaged.
    """
    try:
        known: Any = json.loads(record.read_text())
        for entry in known["files"].values():
            entry["sha256"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(
            f"{record} is damaged ({type(error).__name__}: {error}); restore it, or remove it to "
            "record the files anew"
        ) from None
    return dict(known)


def _write(content: dict[str, Any], record: Path) -> None:
    """Replace the record as a whole."""
    record.parent.mkdir(parents=True, exist_ok=True)
    aside = record.with_suffix(".new")
    aside.write_text(json.dumps(content, indent=2) + "\n")
    aside.replace(record)


def main() -> None:
    """Convert what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "weights",
        metavar="NAME_OR_FILE",
        help=f"published captioner ({', '.join(CAPTIONERS)}), or a weights file (.pt)",
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument(
        "--clip",
        metavar="NAME_OR_FOLDER",
        help="for a file: encoder it was trained on (default: by the width of its features)",
    )
    parser.add_argument(
        "--gpt2-tokenizer", metavar="NAME_OR_FOLDER", help="for a file: tokenizer (default: gpt2)"
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="for a file: divide the feature by its norm (default: with a transformer mapper)",
    )
    parser.add_argument(
        "--end-token",
        metavar="TOKEN",
        help="for a file: token that ends a caption, e.g. <|endoftext|> (default: the full stop)",
    )
    given = parser.parse_args()
    named = given.weights in CAPTIONERS
    options = {
        "--clip": given.clip,
        "--gpt2-tokenizer": given.gpt2_tokenizer,
        "--normalize": given.normalize,
        "--end-token": given.end_token,
    }
    unused = [name for name, value in options.items() if value is not None]
    if named and unused:
        parser.error(
            f"for a weights file only: {', '.join(unused)}; all of this is known of "
            f"{given.weights}, so leave it out"
        )
    try:
        checkpoint: Checkpoint | None
        if named:
            checkpoint = make_checkpoint(given.weights, given.out)
        elif not Path(given.weights).exists():
            raise Refusal(
                f"{given.weights} is no file and no published captioner; the captioners are "
                f"{' and '.join(CAPTIONERS)}"
            )
        else:
            tokenizer = given.gpt2_tokenizer or "gpt2"
            checkpoint = _convert(
                Path(given.weights),
                given.clip,
                tokenizer,
                normalize=given.normalize,
                end_token=given.end_token,
            )
            checkpoint.save(given.out)
    except (Refusal, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the command again to go on from there")
    if checkpoint is None:
        state = "is up to date"
    else:
        mapper = checkpoint.captioner.config.mapper
        state = f"has the {mapper.kind} mapper with a prefix of {mapper.prefix_length}"
    print(f"{given.out} {state}; to serve it: make serve CHECKPOINT={given.out}")


if __name__ == "__main__":
    main()
