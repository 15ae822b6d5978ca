"""Tests: `unit` in seconds, room by room; `integration` against a real TorchServe."""

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parent.parent
