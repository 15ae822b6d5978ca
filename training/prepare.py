"""Make the data set: drawn scenes, a folder of one's own, tar shards, or COCO.

`python -m training.prepare --seed N --count M --out DIR` draws scenes;
`prepare.source=folder folder.path=DIR` checks and splits pictures of one's own;
`prepare.source=webdataset webdataset.shards=DIR` indexes tar files where they are;
`prepare.source=coco` downloads COCO. All give the same kind of folder, see `training.data.dataset`.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module

from model.refusal import Refusal
from training.command import arguments, command
from training.config import Config, load_config

#: Modules of `training.sources`, each with a `prepare`, and the settings each takes.
SOURCES = ("scenes", "folder", "webdataset", "coco")


def prepare(config: Config, **given: object) -> None:
    """Make the data set of `prepare.source`.

    Args:
        config: All settings.
        **given: Settings of the source's block that stand in for those of `config`.

    Raises:
        Refusal: An unknown source, settings it does not have, or whatever is wrong with it.
    """
    source = config.prepare.source
    if source not in SOURCES:
        known = ", ".join(SOURCES)
        raise Refusal(f"prepare.source is {source!r}; it must be one of {known}")
    settings = getattr(config, source)
    for name in given:
        if not hasattr(settings, name):
            raise Refusal(f"--{name} means nothing to prepare.source={source}; leave it out")
    # Not at the top: one source needs torch, which the others need not wait for.
    import_module(f"training.sources.{source}").prepare(dataclasses.replace(settings, **given))


def main() -> None:
    """Parse the command line and make the data set."""
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, help="the seed of the source")
    parser.add_argument("--count", type=int, help="scenes.count: pictures in all splits together")
    parser.add_argument("--out", help="folder of the data set")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("seed", "count", "out")}
    given = {name: value for name, value in given.items() if value is not None}
    prepare(load_config(options.overrides), **given)


if __name__ == "__main__":
    command(main)
