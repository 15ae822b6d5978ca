"""What a release says, and whether it may be made: `python -m website.release_notes v1.2.0`.

Prints the section of CHANGELOG.md of a tag. It is refused where the tag, pyproject.toml and the
gateway name different versions, and where the section is missing, empty or without a date.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

from model.refusal import Refusal

ROOT = Path(__file__).resolve().parent.parent


def release_notes(tag: str, root: Path = ROOT) -> str:
    """The text of a release, in Markdown.

    Args:
        tag: Such as `v1.2.0`.
        root: The repository.

    Raises:
        Refusal: What stands against the release, and where to mend it.
    """
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{version}":
        raise Refusal(f"the tag is {tag} and pyproject.toml has version {version}; make them agree")
    [gateway] = re.findall(
        r'^__version__ = "(.*)"$', (root / "gateway/__init__.py").read_text(), re.M
    )
    if gateway != version:
        raise Refusal(f"gateway/__init__.py has version {gateway}; make it {version}")
    text = (root / "CHANGELOG.md").read_text()
    found = re.search(rf"^## \[{re.escape(version)}\]([^\n]*)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if found is None or not found[2].strip():
        raise Refusal(f"CHANGELOG.md has no section '## [{version}] - YEAR-MONTH-DAY' with changes")
    if not re.fullmatch(r" - \d{4}-\d{2}-\d{2}", found[1]):
        raise Refusal(
            f"the section [{version}] of CHANGELOG.md has no date; write ' - YEAR-MONTH-DAY'"
        )
    return found[2].strip()


def main() -> None:
    """Print the notes; what stands against the release is one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tag", help="such as v1.2.0")
    try:
        print(release_notes(parser.parse_args().tag))
    except Refusal as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
