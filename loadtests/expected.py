"""The captions of each picture alone, and what may differ from them under load.

Every picture is captioned alone first. Under load its reply must be the same. That finds replies
that were given to another picture of a batch, which a status of 200 does not show.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import httpx

from loadtests.comparison import difference, ties
from loadtests.kinds import VARIED, Captions, Options, Seen

#: The options that every picture is captioned with.
OF_EACH = list({json.dumps(each): each for each in VARIED}.values())
#: How many pictures are sent.
PICTURES = 16


class WrongReply(Exception):
    """A reply that is not the one to its pictures; the message says what differs."""


class Expected:
    """Some pictures of a folder, and the captions of each.

    Args:
        folder: With `.jpg` and `.png` files.
        torchserve: Address of a TorchServe with nothing else to do.
        choice: Chooses the pictures.

    Attributes:
        pictures: Name -> bytes of the file. No two have the same captions, so that an exchanged
            reply is seen.
    """

    def __init__(self, folder: Path, torchserve: str, choice: random.Random) -> None:
        """Caption pictures alone, until there are `PICTURES`, or no more in the folder.

        Raises:
            ValueError: There are not two.
            httpx.HTTPError: TorchServe does not caption one.
        """
        files = sorted(file for file in folder.glob("*") if file.suffix in (".jpg", ".png"))
        choice.shuffle(files)
        self.pictures: dict[str, bytes] = {}
        # Name of a picture and options -> its captions, as TorchServe gives them.
        self._alone: dict[tuple[str, str], list[dict[str, Any]]] = {}
        taken: set[str] = set()
        with httpx.Client(base_url=torchserve, timeout=60, trust_env=False) as http:
            for file in files:
                data = file.read_bytes()
                found = {_key(each): _captions(http, data, each) for each in OF_EACH}
                best = {captions[0]["caption"] for captions in found.values()}
                if taken.isdisjoint(best):
                    taken |= best
                    self.pictures[file.name] = data
                    self._alone |= {(file.name, key): each for key, each in found.items()}
                if len(self.pictures) == PICTURES:
                    break
        if len(self.pictures) < 2:
            raise ValueError(
                f"{folder} has {len(files)} pictures (.jpg, .png), and {len(self.pictures)} with "
                "captions of their own; at least 2 are needed; make them: make train"
            )

    def check(self, names: list[str], options: Options, seen: Captions) -> int:
        """Compare the captions of a reply with those of each picture alone.

        Args:
            names: The pictures of the request.
            options: Its options.
            seen: The captions of its reply.

        Returns:
            How many captions stand in place of others of equal score.

        Raises:
            WrongReply: They are not the same.
        """
        if len(seen) != len(names):
            raise WrongReply(f"captions of {len(seen)} pictures, not {len(names)}")
        return sum(
            self._check_picture(name, options, captions)
            for name, captions in zip(names, seen, strict=True)
        )

    def _check_picture(self, name: str, options: Options, seen: list[Seen]) -> int:
        ours = {
            "captions": [
                {"caption": each.caption, "log_prob": self._score(name, each)} for each in seen
            ]
        }
        theirs = {"captions": self._alone[name, _key(options)]}
        if problem := difference(ours, theirs):
            raise WrongReply(f"{name}: {problem}")
        return len(ties(ours, theirs))

    def _score(self, name: str, seen: Seen) -> float:
        """The score of a caption; if its reply has none, that of the same text alone."""
        if seen.log_prob is not None:
            return seen.log_prob
        for options in OF_EACH:
            for caption in self._alone[name, _key(options)]:
                if caption["caption"] == seen.caption:
                    return float(caption["log_prob"])
        raise WrongReply(f"{name}: {seen.caption!r} is none of its captions")


def _key(options: Options) -> str:
    return json.dumps(options, sort_keys=True)


def _captions(http: httpx.Client, picture: bytes, options: Options) -> list[dict[str, Any]]:
    reply = http.post("/predictions/clipcap", files={"data": picture}, data=dict(options))
    found: list[dict[str, Any]] = reply.raise_for_status().json()["captions"]
    return found
