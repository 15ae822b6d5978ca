"""Makes a torchvision importable that was built for another build of torch.

transformers imports torchvision wherever it is installed; open_clip (the extra `openclip`) installs
it. PyPI's torchvision is built for CUDA. Beside a CPU build of torch its library cannot be loaded,
and `import torchvision` fails, because it describes two operators of that library. Declaring the
two operators here lets the import succeed. They cannot be called; only object detectors would.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

#: The operators that torchvision describes even where its library could not be loaded.
DESCRIBED = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_operators() -> None:
    """Declare torchvision's operators, if it is installed and its library cannot be loaded."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or "torchvision" in sys.modules:
        return
    import torch  # not at the top: it takes seconds, and most machines have no torchvision

    folder = Path(found.origin).parent
    library = next(folder.glob("_C.*"), folder / "_C.so")
    try:
        torch.ops.load_library(library)
    except OSError:
        for name in DESCRIBED:
            torch.library.define(f"torchvision::{name}", SIGNATURE)
