"""Tests of what needs no Ray running; left out where the extra `scale` is not installed."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]
