"""Make the data set: drawn scenes, a folder of the user's pictures, tar shards, COCO, corrections.

    python -m training.prepare --seed N --count M --out DIR                    draws scenes
    python -m training.prepare prepare.source=folder folder.path=DIR           copies pictures
    python -m training.prepare prepare.source=webdataset webdataset.shards=DIR reads tar files
    python -m training.prepare prepare.source=coco                             downloads COCO
    python -m training.prepare prepare.source=feedback   reads what the gateway's users corrected
    python -m training.prepare --look PATH                                     says what is there

Each writes a folder of the same format (see `training.data.dataset`).
"""

from __future__ import annotations

import dataclasses
from importlib import import_module

from model.refusal import Refusal
from training.command import arguments, command, given_options
from training.config import Config, load_config

#: Each is a module of `training.sources` with a function `prepare`, and a block of the settings.
SOURCES = ("scenes", "folder", "webdataset", "coco", "feedback")


def prepare(config: Config, **given: object) -> None:
    """Make the data set of the source `prepare.source`.

    Args:
        config: All settings.
        **given: Values that replace those of the source's own block of settings.

    Raises:
        Refusal: An unknown source, a setting that the source does not have, or an error of the
            source itself.
    """
    source = config.prepare.source
    if source not in SOURCES:
        known = ", ".join(SOURCES)
        raise Refusal(f"prepare.source is {source!r}; it must be one of {known}")
    settings = getattr(config, source)
    for name in given:
        if not hasattr(settings, name):
            raise Refusal(f"--{name} means nothing to prepare.source={source}; leave it out")
    # Imported only now: a wrong setting is reported before NumPy, Pillow or torch is loaded, and
    # torch is loaded only for a source that decodes pictures.
    module = import_module(f"training.sources.{source}")
    module.prepare(dataclasses.replace(settings, **given))


def main() -> None:
    """Parse the command line and make the data set."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--look",
        metavar="PATH",
        help="say what captions and pictures a folder, tar files or a database URL hold",
    )
    parser.add_argument("--seed", type=int, help="the seed of the source")
    parser.add_argument("--count", type=int, help="scenes.count: pictures in all splits together")
    parser.add_argument("--out", help="folder of the data set")
    options = parser.parse_args()
    if options.look is not None:
        config = load_config(options.overrides)
        import_module("training.sources.look").look(options.look, config)
        return
    prepare(load_config(options.overrides), **given_options(options, "seed", "count", "out"))


if __name__ == "__main__":
    command(main)
