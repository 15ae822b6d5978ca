"""The metrics of two TorchServes on one page: those of the candidate get a label of their own."""

from __future__ import annotations

import re

#: Begins a line of help or type: the name of the family.
_COMMENT = re.compile(r"# (?:HELP|TYPE) (\S+)")
#: The name of a sample, and whether labels follow.
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{?)")
#: Ends of the names of samples of a histogram or summary.
_PARTS = ("_bucket", "_sum", "_count", "_created")


def with_candidate(stable: str, candidate: str, version: str) -> str:
    """One page in Prometheus' text format, in which each family of metrics stands together.

    Args:
        stable: The page of one server, whose samples stay as they are.
        candidate: That of the other one.
        version: Value of the label `version` of its samples.
    """
    families: dict[str, list[str]] = {}
    _collect(stable, families, None)
    _collect(candidate, families, version)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _collect(page: str, families: dict[str, list[str]], version: str | None) -> None:
    known = set(families)  # their help and type stand there already
    own: set[str] = set()
    for line in page.splitlines():
        if comment := _COMMENT.match(line):
            own.add(comment[1])
            if comment[1] not in known:
                families.setdefault(comment[1], []).append(line)
        elif sample := _SAMPLE.match(line):
            shown = line if version is None else _label(line, version)
            families.setdefault(_family_of(sample[1], own), []).append(shown)


def _family_of(name: str, families: set[str]) -> str:
    if name not in families:
        for part in _PARTS:
            if name.endswith(part) and name.removesuffix(part) in families:
                return name.removesuffix(part)
    return name


def _label(line: str, version: str) -> str:
    """A sample with one label more, the first one."""
    sample = _SAMPLE.match(line)
    assert sample is not None
    if sample[2]:
        comma = "" if line[sample.end()] == "}" else ","
        return f'{sample[0]}version="{version}"{comma}{line[sample.end() :]}'
    return f'{sample[1]}{{version="{version}"}}{line[sample.end(1) :]}'
