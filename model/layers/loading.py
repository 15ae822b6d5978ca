"""Loads a TorchScript file and packs its layers for this processor, or puts it on another device.

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
from model.refusal import Refusal

CPU = torch.device("cpu")


def load_module(file: Path, device: torch.device = CPU) -> Any:
    """A TorchScript module, in evaluation mode on a device, ready to run.

    Args:
        file: Written by `model.export`. It may be removed or replaced afterwards, but its bytes
            must not change: on the CPU, large parameters stay in the mapped file.
        device: Where it runs. Layers are packed on the CPU only.

    Raises:
        Refusal: The file was written before layers could run on another device.
    """
    suppress_quantized_tensor_warning()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(file), map_location=device).eval()
    if device.type != "cpu":
        for layer in _layers(module):
            if not hasattr(layer, "keep_plain"):
                raise Refusal(f"{file} was exported for processors only; export it again")
            layer.keep_plain()
        return module
    map_parameters(module, file)  # before packing, which needs the memory that this frees
    _pack(module)
    release_free_memory()
    return module


def _layers(module: Any) -> list[Any]:
    """The layers that can be packed."""
    return [each for each in module.modules() if hasattr(each, "pack")]


def _pack(module: Any) -> None:
    """Pack all layers in parallel: packing one layer uses one core at most."""
    threads = torch.get_num_threads()

    def pack(layer: Any) -> None:
        # Sets the number for this thread, and for threads that start later.
        torch.set_num_threads(1)
        layer.pack()

    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(pack, _layers(module)))
    finally:
        torch.set_num_threads(threads)
