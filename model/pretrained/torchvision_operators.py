"""torchvision beside a build of torch that it was not made for.

open_clip (the extra `openclip`) brings torchvision along, and transformers imports it wherever it
is installed. PyPI's torchvision is built for CUDA: beside a CPU build of torch its library cannot
be loaded, and then importing it fails, because it describes two operators of that library. Once
declared they are operators that cannot be called; only detectors would.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

#: Those that torchvision describes whether or not its library could be loaded.
DESCRIBED = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_operators() -> None:
    """Declare what torchvision describes, if it is installed and its library cannot be loaded."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or "torchvision" in sys.modules:
        return
    import torch  # here, since it takes seconds that who draws pictures need not wait for

    folder = Path(found.origin).parent
    library = next(folder.glob("_C.*"), folder / "_C.so")
    try:
        torch.ops.load_library(library)
    except OSError:
        for name in DESCRIBED:
            torch.library.define(f"torchvision::{name}", SIGNATURE)
