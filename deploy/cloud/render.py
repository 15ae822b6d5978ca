"""Fills in the names of an installation: `python -m deploy.cloud.render FILE` prints JSON.

A file of this folder is YAML with places such as `${PROJECT}`. Each is filled from the environment
variable of that name, and `$$` stands for a dollar sign. A place without a variable is an error,
since an empty name would make a command do something else than was meant.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import ServeError


def render(file: Path, values: Mapping[str, str]) -> Any:
    """The document of a file with its places filled in.

    Args:
        file: YAML.
        values: Name -> value of the places. Others are ignored.

    Returns:
        Dictionaries, lists and plain values, as JSON has them.

    Raises:
        ServeError: The file is no YAML, or names a place that has no value.
        OSError: The file cannot be read.
    """
    try:
        document = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ServeError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    missing: set[str] = set()
    filled = _fill(document, values, missing, file)
    if missing:
        names = sorted(missing)
        example = " ".join(f"{name}=..." for name in names)
        raise ServeError(f"{file} needs {', '.join(names)}; set them first: export {example}")
    return filled


def _fill(value: Any, values: Mapping[str, str], missing: set[str], file: Path) -> Any:
    """A value with the places of all its texts filled in; adds what has no value to `missing`."""
    if isinstance(value, dict):
        return {key: _fill(each, values, missing, file) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, values, missing, file) for each in value]
    if not isinstance(value, str):
        return value
    template = string.Template(value)
    if not template.is_valid():
        raise ServeError(f"{file} has a lone dollar sign in {value[:80]!r}; write $$ for one")
    lacking = {name for name in template.get_identifiers() if not values.get(name)}
    missing |= lacking
    return value if lacking else template.substitute(values)


def main() -> int:
    """Print a file as JSON.

    Returns:
        The exit status: 0, or 1 if the file cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.cloud.render", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path)
    try:
        print(json.dumps(render(parser.parse_args().file, os.environ), indent=2))
    except (ServeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
