"""Recognises which form of captions a JSON file has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.data.json_members import list_entries, members
from training.sources.captions.coco_files import DOMAINS
from training.sources.picture_extensions import PICTURE_EXTENSIONS


def json_form(file: Path) -> str | None:
    """Which form a JSON file has: `coco`, `vizwiz`, `nocaps`, `karpathy`, `textcaps`, `list`.

    Or `mapping`; None for a file that is JSON of another kind. It is read as far as the first
    caption.

    Raises:
        Refusal: It is not JSON.
    """
    try:
        with file.open(encoding="utf-8-sig") as opened:
            if opened.read(1000).lstrip()[:1] == "[":
                return _form_of_list(next(list_entries(file), None), "list")
    except UnicodeDecodeError as error:
        raise Refusal(f"{file} is not JSON: {error}") from None
    image: Any = None
    try:
        for name, value in members(file):
            if name == "images" and isinstance(value, Iterator):
                image = next(value, None)
                if isinstance(image, dict) and "sentences" in image:
                    return "karpathy"
            elif name == "annotations" and isinstance(value, Iterator):
                annotation = next(value, None)
                if isinstance(annotation, dict) and "caption" in annotation:
                    return _form_of_coco(image, annotation)
                if image is None:
                    continue
                return None
            elif name == "data" and isinstance(value, Iterator):
                return _form_of_list(next(value, None), "data")
            elif name.lower().endswith(PICTURE_EXTENSIONS) and isinstance(value, str | Iterator):
                return "mapping"
    except TypeError:
        return None
    return None


def _form_of_list(first: Any, form: str) -> str | None:
    if not isinstance(first, dict):
        return None
    if "caption_str" in first or "reference_strs" in first:
        return "textcaps"
    return form if any("caption" in name or name == "text" for name in first) else None


def _form_of_coco(image: Any, annotation: dict[str, Any]) -> str | None:
    if "is_precanned" in annotation or "is_rejected" in annotation:
        return "vizwiz"
    if isinstance(image, dict):
        if "open_images_id" in image or image.get("domain") in DOMAINS:
            return "nocaps"
        if "file_name" not in image:
            return None
    return "coco"
