"""How the names of picture files end, for the formats that the captioner accepts."""

from __future__ import annotations

#: In lower case, with the dot.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif"),
)


def is_picture(name: str) -> bool:
    """Whether a file without a folder is a picture by its name; hidden files are none."""
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)
