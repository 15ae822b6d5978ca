"""Prints the options of a server, with their types, limits and defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def print_options(options: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> None:
    """Print options as a table, or as the JSON object that the server gave."""
    if as_json:
        print(json.dumps(options))
        return
    table = Table(box=SIMPLE_HEAD)
    table.add_column("option", no_wrap=True)
    for title in ("type", "from", "to", "default", "meaning"):
        table.add_column(title)
    for name, option in options.items():
        flag = f"--{name.replace('_', '-')}"
        cells = [_cell(option.get(key)) for key in ("type", "from", "to", "default", "help")]
        table.add_row(flag, *cells)
    Console().print(table)


def _cell(value: Any) -> str:
    words = {"int": "whole number", "float": "number", "str": "text", None: ""}
    return f"{value:g}" if isinstance(value, float) else words.get(value, str(value))
