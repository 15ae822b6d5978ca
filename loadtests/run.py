"""What Locust is told of a run, in a file: it is a process of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from loadtests.profiles import Profile, profile_from


@dataclasses.dataclass(frozen=True)
class Run:
    """What `loadtests/__main__.py` tells `loadtests/locustfile.py`.

    Attributes:
        profile: The profile.
        torchserve: Address of TorchServe.
        keys: Name of each client -> its key; empty without a gateway.
        pictures: Folder of pictures.
        seed: Of all choices.
        records: File to write the records to.
        spans: File to write the stages to.
    """

    profile: Profile
    torchserve: str
    keys: dict[str, str]
    pictures: Path
    seed: int
    records: Path
    spans: Path

    def write(self, file: Path) -> None:
        """Write this as JSON."""
        file.write_text(json.dumps(dataclasses.asdict(self), default=str))

    @classmethod
    def read(cls, file: Path) -> Run:
        """Read what `write` wrote."""
        given = json.loads(file.read_text())
        profile = given["profile"]
        paths = {name: Path(given[name]) for name in ("pictures", "records", "spans")}
        return cls(**{**given, **paths, "profile": profile_from(profile.pop("name"), profile)})
