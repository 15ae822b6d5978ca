"""Loads a TorchScript file and packs its layers for this processor.

Needs torch only, and none of the files that define the layers: TorchScript files hold their code.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from model.layers.memory import map_parameters, release_free_memory
from model.layers.precision import suppress_quantized_tensor_warning


def load_module(file: Path) -> Any:
    """A TorchScript module, in evaluation mode on the CPU, ready to run.

    Args:
        file: Written by `model.export`. It may be removed or replaced afterwards, but its bytes
            must not change: large parameters stay in the mapped file.
    """
    suppress_quantized_tensor_warning()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(file), map_location="cpu").eval()
    map_parameters(module, file)  # before packing, which needs the memory that this frees
    _pack(module)
    release_free_memory()
    return module


def _pack(module: Any) -> None:
    """Pack all layers in parallel: packing one layer uses one core at most."""
    threads = torch.get_num_threads()

    def pack(layer: Any) -> None:
        # Sets the number for this thread, and for threads that start later.
        torch.set_num_threads(1)
        layer.pack()

    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(pack, [each for each in module.modules() if hasattr(each, "pack")]))
    finally:
        torch.set_num_threads(threads)
