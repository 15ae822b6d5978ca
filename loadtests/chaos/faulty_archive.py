"""An archive whose worker ends or is slow with some options, to see what a gateway does."""

from __future__ import annotations

import zipfile
from pathlib import Path

from deploy.torchserve import TorchServe

#: Put at the end of the archive's `model/artifact.py`. The worker ends in the search with 7 beams,
#: and the first time with 6. With 5 beams a search takes two seconds.
FAULTS = """
_search_without_faults = Artifact.caption


def _deadly_search(self, features, options):
    import os
    import time

    marker = {marker!r}
    if options.num_beams == 7 or (options.num_beams == 6 and not os.path.exists(marker)):
        open(marker, "w").close()
        os._exit(1)
    if options.num_beams == 5:
        time.sleep(2)
    return _search_without_faults(self, features, options)


Artifact.caption = _deadly_search
"""


def make_faulty(archive: Path, out: Path) -> Path:
    """Write a copy of an archive, with the faults, as `clipcap.mar` in a folder."""
    target = out / "clipcap.mar"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            marker = str(out / "ended-once")
            more = FAULTS.format(marker=marker) if name == "model/artifact.py" else ""
            copy.writestr(name, source.read(name) + more.encode())
    return target


def ended_once(server: TorchServe) -> Path:
    """The file that exists once the worker of such an archive has ended."""
    return server.archive.parent / "ended-once"
