"""How the names of picture files end."""

from __future__ import annotations

#: In lower case, with the dot.
PICTURE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
