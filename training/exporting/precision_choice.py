"""The precision of an export: as asked for, or for `auto` by a fixed rule.

`auto` takes the first of these that passed its gate (see `training.evaluation.precision_gate`) and
that this processor supports:

    bf16  if the processor multiplies bfloat16 (AVX-512 BF16 or AMX): 2.6 to 3.1 times as fast as
          float32 at the size of ViT-B/32 and GPT-2, and faster for a small captioner too
    fp16  if the weights file has more than `LARGE_WEIGHTS`: half the bytes are then read from
          memory, 1.3 to 1.9 times as fast; small weights stay in the processor's cache, so that
          nothing is gained
    fp32  otherwise

The figures are those of docs/speed.md. int8 is used only when asked for: it is as fast as bf16 in a
batch and 1.2 times as fast for one picture, but changes captions more. The rule depends on the
weights, the gates and the processor only, and on no time measured: two exports never differ because
the machine was busy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from model.layers.precision import PRECISIONS, multiplies_bf16, unsupported_reason
from model.refusal import Refusal
from training.evaluation.precision_gate import MAX_CIDER_CHANGE, MIN_SAME, valid_gates

#: Bytes of a weights file (float32) above which fp16 is worth it: more than most processors cache.
LARGE_WEIGHTS = 64_000_000


def preferred(usable: Collection[str], weights_bytes: int, native_bf16: bool) -> str:
    """The precision that `auto` takes.

    Args:
        usable: Precisions that passed their gate and that the processor supports.
        weights_bytes: Size of the checkpoint's weights file.
        native_bf16: The processor has instructions that multiply bfloat16.
    """
    if "bf16" in usable and native_bf16:
        return "bf16"
    if "fp16" in usable and weights_bytes > LARGE_WEIGHTS:
        return "fp16"
    return "fp32"


def choose_precision(
    wanted: str,
    figures: Mapping[str, Any] | None,
    weights_bytes: int,
    possible: Collection[str] = PRECISIONS,
) -> str:
    """The precision to export in.

    Args:
        wanted: `auto` or a precision.
        figures: The evaluation of these weights, or None: `auto` is then float32.
        weights_bytes: Size of the checkpoint's weights file.
        possible: The precisions of the format; `auto` takes no other.

    Raises:
        Refusal: The precision does not exist, did not pass, or is not supported here.
    """
    if wanted not in ("auto", *PRECISIONS):
        raise Refusal(f"export.precision is {wanted!r}; it must be auto, {', '.join(PRECISIONS)}")
    measured = valid_gates(figures)
    if wanted == "auto":
        passed = {name for name, gate in measured.items() if gate["passes"]}
        usable = {name for name in passed & {*possible} if not unsupported_reason(name)}
        return preferred(usable, weights_bytes, multiplies_bf16())
    if wanted in measured and not measured[wanted]["passes"]:
        own = measured[wanted]
        raise Refusal(
            f"export.precision={wanted} did not pass its gate: {own['same']:.1%} of the captions "
            f"stay the same (at least {MIN_SAME:.0%}), CIDEr changes by {own['cider_change']:+.2%} "
            f"(at most {MAX_CIDER_CHANGE:.0%}); use export.precision=auto"
        )
    if reason := unsupported_reason(wanted):
        raise Refusal(f"export.precision={wanted} cannot be used here: {reason}; use auto")
    return wanted
