"""Files of what is learned after a captioner, beside its weights in the checkpoint folder.

Each has tensors, in `NAME.safetensors`, and a record of where they come from, in `NAME.json`. The
captioner's weights keep their digest, and the tensors name it: for other weights they would say
nothing.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.refusal import Refusal


@dataclasses.dataclass(frozen=True)
class LearnedFile:
    """The two files of one thing that is learned after the captioner.

    Attributes:
        tensors: Name of the file of tensors.
        record: Name of the file that says where they come from.
        advice: What to do about a file that does not fit, for messages.
    """

    tensors: str
    record: str
    advice: str

    def save(
        self, folder: Path, tensors: dict[str, Tensor], record: dict[str, Any], weights_sha256: str
    ) -> None:
        """Write both into a checkpoint folder, in place of older ones.

        Args:
            folder: The checkpoint folder.
            tensors: By name.
            record: By name, what may be written as JSON.
            weights_sha256: Digest of the folder's weights, which they were learned for.
        """
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        aside = folder / f"{self.tensors}.partial"
        # One entry only: safetensors writes several in an order that changes from run to run.
        save_file(tensors, aside, metadata={"weights_sha256": weights_sha256})
        aside.replace(folder / self.tensors)
        aside = folder / f"{self.record}.partial"
        aside.write_text(json.dumps(record, indent=2) + "\n")
        aside.replace(folder / self.record)

    def load(self, folder: Path, weights_sha256: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and record of a checkpoint folder that has them.

        Args:
            folder: The checkpoint folder.
            weights_sha256: Digest of the folder's weights.

        Raises:
            Refusal: A file is missing or damaged, or they are those of other weights.
        """
        file, record = folder / self.tensors, folder / self.record
        try:
            with safe_open(file, "pt") as opened:
                learned_for = (opened.metadata() or {}).get("weights_sha256", "")
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise Refusal(f"{file} is damaged: {error}; {self.advice}") from None
        if learned_for != weights_sha256:
            raise Refusal(
                f"{file} was learned for weights with SHA-256 {learned_for[:12] or 'unknown'}…, "
                f"those here have {weights_sha256[:12]}…; {self.advice}"
            )
        try:
            fields = json.loads(record.read_text())
        except (FileNotFoundError, ValueError) as error:
            raise Refusal(f"{record} cannot be read: {error}; {self.advice}") from None
        return tensors, fields
