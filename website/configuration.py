"""The pages of settings, written from their schema: names, types, limits, defaults and meaning.

Types and limits come from the dataclasses, their meaning from the docstrings, and the defaults from
the files that are read at a start. So a page cannot differ from what a command accepts.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.settings import PREFIX
from gateway.settings import Settings as GatewaySettings
from handler.caption_settings import Settings as HandlerSettings
from handler.capture.settings import CaptureSettings
from model.options import OPTIONS
from training.config import Config, load_config

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "training" / "conf"
#: Python's name of a type -> a reader's.
NAMES: dict[Any, str] = {
    **{int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"},
    float | None: "number",
    CaptureSettings | None: "names with values",
}
#: A docstring that only names the class which has the meaning.
ELSEWHERE = re.compile(r"See `([\w.]+)\.(\w+)`\.")
#: An attribute of a docstring of Google's form, with the lines that go on.
ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def training_page() -> str:
    """`docs/configuration-training.md`."""
    parts = [
        "# Settings of training",
        "All settings of the pipeline, with their types, limits and defaults. One is given on the "
        "command line as `key=value`, such as `train.epochs=3`; many at once by "
        "`experiment=NAME`, a file of `training/conf/experiment`. Every command takes all of them "
        "and reads those of its own block and of the blocks that it names. A setting that is "
        "unknown, of another type or beyond its limit is refused in one line.",
        "The defaults below are those of `experiment=scenes`, which holds where none is named. "
        "[The last table](#experiments) has what the other experiments set.",
    ]
    defaults = load_config()
    for block in dataclasses.fields(Config):
        kind = typing.get_type_hints(Config)[block.name]
        rows = list(_rows(kind, getattr(defaults, block.name), block.name))
        parts += [f"## {block.name}", *_meanings(kind), _table(rows)]
    return "\n\n".join([*parts, *_experiments()])


def serving_page() -> str:
    """`docs/configuration-serving.md`."""
    return "\n\n".join(
        [
            "# Settings of the servers",
            "What the gateway, the captioner's worker and TorchServe read at their start, and the "
            "options that a request may have. Variables of compose are on the page on "
            "[operations](operations.md#in-a-container), those of `make` are listed by `make`.",
            "## Gateway",
            "A setting is an environment variable, or a line of a TOML file with the rest of its "
            "name in lower case. [The API page](api.md#settings) says how they are given and which "
            "are read again while the gateway runs.",
            _gateway_table(),
            "## Worker",
            "The section `handler` of `handler/model-config.yaml`, which travels in the archive: "
            "build the archive again after a change. Without `threads` each worker takes an equal "
            "part of the cores that it may use. All are above 0.",
            _attribute_table(HandlerSettings),
            "The settings of `capture`, which is left out by default ([drift](drift.md)):",
            _attribute_table(CaptureSettings),
            "The whole file, with TorchServe's own keys:",
            f"```yaml\n{(ROOT / 'handler' / 'model-config.yaml').read_text().rstrip()}\n```",
            "## TorchServe",
            "`config.properties`, which is read at its start:",
            f"```properties\n{(ROOT / 'config.properties').read_text().rstrip()}\n```",
            "## Options of captions",
            "They may stand in every request, and as defaults in `generation_config.json` of a "
            "checkpoint, there with Hugging Face's names. A captioner may have a lower limit and "
            "another default; `python -m client --options` prints those of the one that is served.",
            _options_table(),
        ]
    )


def _rows(kind: type, values: Any, key: str) -> Iterator[tuple[str, str, str]]:
    """Setting, type with limits, and default; those of inner blocks with their whole key."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        value, whole = getattr(values, name), f"{key}.{name}"
        if dataclasses.is_dataclass(hint):
            yield from _rows(typing.cast(type, hint), value, whole)
        else:
            yield f"`{whole}`", _type(hint), _value(value)


def _type(hint: Any) -> str:
    """A type in words, with the limit that stands beside it."""
    limits = [str(each) for each in getattr(hint, "__metadata__", ())]
    bare = hint.__origin__ if limits else hint
    if limits and bare not in (int, float):  # words to choose from say their type themselves
        return limits[0]
    return ", ".join([_type_name(bare), *limits])


def _type_name(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(
            "null" if one is type(None) else _type_name(one) for one in kind.__args__
        )
    origin = typing.get_origin(kind)
    if origin is list:
        return f"list of {_type_name(kind.__args__[0])}s"
    if origin is dict:
        return "names with values"
    return NAMES[kind]


def _value(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _meanings(kind: type) -> Iterator[str]:
    """The docstring of a block and of the blocks in it, as paragraphs."""
    yield _meaning(kind)
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield f"`{name}`: {_meaning(typing.cast(type, hint))}"


def _meaning(kind: type) -> str:
    text = inspect.getdoc(kind) or ""
    if found := ELSEWHERE.fullmatch(text):
        other = getattr(importlib.import_module(found[1]), found[2])
        if other.__name__ == "GenerationOptions":
            return (
                "[The options of captions](configuration-serving.md#options-of-captions) say more."
            )
        first, _, rest = (inspect.getdoc(other) or "").partition("\n\nAttributes:\n")
        listed = [
            f"- `{name}`: {' '.join(words.split())}" for name, words in ATTRIBUTE.findall(rest)
        ]
        return "\n".join([first, "", *listed])
    return _linked(text)


def _experiments() -> Iterator[str]:
    """What each experiment sets beside the defaults of `scenes`."""
    names = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))
    usual = dict(_flat(load_config()))
    for name in names:
        if name == "scenes":
            continue
        rows = [
            (f"`{key}`", _value(value), _value(usual[key]))
            for key, value in _flat(load_config([f"experiment={name}"]))
            if value != usual[key]
        ]
        head = "## Experiments\n\n" if name == next(n for n in names if n != "scenes") else ""
        yield f"{head}### {name}\n\n{_table(rows, ('setting', 'value', 'of scenes'))}"


def _flat(settings: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(settings):
        value, whole = getattr(settings, field.name), f"{key}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{whole}.")
        else:
            yield whole, value


def _gateway_table() -> str:
    meaning = _attributes(GatewaySettings)
    rows = []
    for field in dataclasses.fields(GatewaySettings):
        default = field.default
        if default in (None, (), ""):
            shown = ""
        elif isinstance(default, bool):
            shown = f"`{str(default).lower()}`"
        else:
            shown = f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        rows.append((f"`{PREFIX}{field.name.upper()}`", shown, meaning[field.name]))
    return _table(rows, ("variable", "default", "meaning"))


def _attribute_table(kind: type) -> str:
    hints, meaning = typing.get_type_hints(kind), _attributes(kind)
    rows = [(f"`{name}`", NAMES[hints[name]], words) for name, words in meaning.items()]
    return _table(rows, ("setting", "type", "meaning"))


def _options_table() -> str:
    rows = []
    for name, option in OPTIONS.items():
        if option.kind is str:
            limits = f"text of at most {option.high:g} characters"
        else:
            limits = f"{NAMES[option.kind]}, {option.low:g} to {option.high:g}"
        rows.append(
            (f"`{name}`", limits, _value(option.default), option.help, f"`{option.hugging_face}`")
        )
    return _table(rows, ("option", "type", "default", "meaning", "Hugging Face"))


def _attributes(kind: type) -> Mapping[str, str]:
    """Name -> meaning, from the attributes in a docstring."""
    _, _, rest = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    return {name: _linked(" ".join(words.split())) for name, words in ATTRIBUTE.findall(rest)}


def _linked(text: str) -> str:
    """The text with the pages that it names as links."""
    return re.sub(r"docs/([\w-]+)\.md", r"[\1](\1.md)", text)


def _table(
    rows: Sequence[tuple[str, ...]], titles: tuple[str, ...] = ("setting", "type", "default")
) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
