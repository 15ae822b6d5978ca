"""Packs the linear layers of a loaded program for this processor, as `model.layers` does.

A program holds plain weights and products, which run on any device. On a processor with oneDNN each
product, and the activation behind it, is replaced by a packed layer when the program is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from model.layers.linear import InnerLinear, PackedLinear

_LINEAR = torch.ops.aten.linear.default
_GELU = torch.ops.aten.gelu.default
_SILU = torch.ops.aten.silu.default


def pack_program(program: GraphModule) -> None:
    """Replace the linear layers of a program by packed ones, in place; plain weights are freed.

    Args:
        program: As `ExportedProgram.module` gives it.
    """
    graph = program.graph
    for number, node in enumerate([each for each in graph.nodes if _has_own_weights(each)]):
        last, activation = _with_activation(node)
        x, weight, *bias = node.args
        linear = linear_of(program, node, activation)
        layer = PackedLinear(linear, linear.weight.dtype)
        layer.weight = torch.empty([0])
        name = f"packed_{number}"
        program.add_module(name, layer)
        with graph.inserting_after(last):
            packed = graph.call_module(name, (x,))
        last.replace_all_uses_with(packed)
        for each in dict.fromkeys((last, node)):
            graph.erase_node(each)
        for each in (weight, *bias):
            if isinstance(each, Node) and not each.users:
                _remove(program, str(each.target))
                graph.erase_node(each)
    graph.lint()
    program.recompile()


def linear_of(program: GraphModule, node: Node, activation: str = "none") -> nn.Linear:
    """The layer that a node computes, with the program's own weights.

    Args:
        program: Has the weights.
        node: Of an `aten.linear`.
        activation: Of `model.layers.linear.ACTIVATIONS`, behind the product.
    """
    weight, *bias = (_attribute(program, each) for each in node.args[1:] if each)
    linear = InnerLinear(1, 1, activation)  # whose weights are replaced at once
    linear.out_features, linear.in_features = weight.shape
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias[0], requires_grad=False) if bias else None  # type: ignore[assignment]
    return linear


def _has_own_weights(node: Node) -> bool:
    """Whether a node is a linear layer, and not a product with a part of another weight.

    Attention of torch computes queries, keys and values from parts of one weight.
    """
    return node.target is _LINEAR and all(
        isinstance(each, Node) and each.op == "get_attr" for each in node.args[1:] if each
    )


def _with_activation(node: Node) -> tuple[Node, str]:
    """The activation that alone reads a product, and its name; or the product itself and `none`."""
    user = next(iter(node.users))
    if len(node.users) == 1 and user.target is _SILU:
        return user, "swish"
    if len(node.users) == 1 and user.target is _GELU:
        return user, "gelu_tanh" if user.kwargs.get("approximate") == "tanh" else "gelu"
    return node, "none"


def _attribute(program: GraphModule, node: Any) -> Tensor:
    owner, name = _owner(program, str(node.target))
    return getattr(owner, name)


def _remove(program: GraphModule, target: str) -> None:
    owner, name = _owner(program, target)
    delattr(owner, name)


def _owner(program: GraphModule, target: str) -> tuple[nn.Module, str]:
    """The module that has an attribute, and the attribute's own name."""
    path, _, name = target.rpartition(".")
    return program.get_submodule(path), name
