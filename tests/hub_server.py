"""A small server that speaks as much of the Hugging Face hub's HTTP as its library asks for.

HEAD and GET /OWNER/NAME/resolve/REVISION/FILE    X-Repo-Commit, ETag, size; large files redirect
GET /cdn/SHA256                                   large files, with ranges
GET /api/models/OWNER/NAME[/revision/REVISION]    the commit and the names of the files
404 with X-Error-Code                             EntryNotFound, RepoNotFound
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.pretrained.sources import CAPTIONERS, HubFile
from tests.file_server import FileServer, file_server
from tests.published_weights import weights_file

#: Larger files are in git LFS, as they are on the hub.
LFS_FROM = 50_000


class HubServer:
    """Repositories on a `FileServer`.

    Attributes:
        server: What serves them; its switches make it misbehave.
    """

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.commits: dict[str, str] = {}
        server.not_found = self._not_found

    def add(self, repo: str, folder: Path, names: list[str] | None = None) -> None:
        """Serve the files of a folder as the newest commit of a repository.

        Args:
            repo: OWNER/NAME.
            folder: The files.
            names: Which of them; by default all.
        """
        names = sorted(names or (file.name for file in folder.iterdir()))
        contents = {name: (folder / name).read_bytes() for name in names}
        commit = hashlib.sha1(repo.encode() + b"".join(contents.values())).hexdigest()
        self.commits[repo] = commit
        described = {"id": repo, "sha": commit, "siblings": [{"rfilename": n} for n in names]}
        for revision in ("main", commit):
            for name, content in contents.items():
                self._put(f"/{repo}/resolve/{revision}/{name}", content, commit)
            self.server.files[f"/api/models/{repo}/revision/{revision}"] = _json(described)
        self.server.files[f"/api/models/{repo}"] = _json(described)

    def _put(self, path: str, content: bytes, commit: str) -> None:
        state = self.server
        state.headers[path] = {"X-Repo-Commit": commit}
        if len(content) < LFS_FROM:
            state.files[path] = content
            git_sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            state.etags[path] = f'"{git_sha1}"'
            return
        sha256 = hashlib.sha256(content).hexdigest()
        state.files[f"/cdn/{sha256}"] = content
        # "localhost" is another host than "127.0.0.1", as the hub's network of caches is.
        cdn = state.address.replace("127.0.0.1", "localhost")
        state.redirects[path] = f"{cdn}/cdn/{sha256}"
        state.headers[path] |= {
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(len(content)),
        }

    def _not_found(self, path: str) -> dict[str, str]:
        repo = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if repo not in self.commits:
            return {"X-Error-Code": "RepoNotFound"}
        return {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commits[repo]}

    def downloads(self) -> list[tuple[str, str | None]]:
        """Path and range of each GET so far of a file's content."""
        state = self.server
        return [
            (path, wanted)
            for method, path, wanted in state.asked
            if method == "GET" and path in state.files and not path.startswith("/api/")
        ]


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


@contextmanager
def hub_server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub without repositories, on a free port, as HF_ENDPOINT of this process and its children.

    Args:
        cache: HF_HUB_CACHE of them.
        monkeypatch: Takes both back at the end of the test.
    """
    with file_server() as server:
        values = {"HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(cache), "NO_PROXY": "*"}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        # This process has read its environment already.
        constants = "huggingface_hub.constants"
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.ENDPOINT", server.address)
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
        yield HubServer(server)


def add_published(
    hub: HubServer, folder: Path, clip: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put small stand-ins for a published captioner's files under their real names.

    The SHA-256 that `CAPTIONERS` expects become those of the stand-ins.

    Args:
        hub: Where.
        folder: A folder to work in.
        clip: A CLIP folder with 24 features and `model.safetensors`; served as `pytorch_model.bin`.
        tokenizer: A folder with `tokenizer.json`, of 300 tokens.
        monkeypatch: Takes the SHA-256 back at the end of the test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    published = CAPTIONERS["coco"]
    weights_file(folder).rename(folder / published.weights.name)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(clip / name, folder)
    torch.save(load_file(clip / "model.safetensors"), folder / "pytorch_model.bin")
    shutil.copy(tokenizer / "tokenizer.json", folder)
    for repo in dict.fromkeys(file.repo for file in published.files):
        hub.add(repo, folder, [file.name for file in published.files if file.repo == repo])

    def stand_in(file: HubFile) -> HubFile:
        content = (folder / file.name).read_bytes()
        return dataclasses.replace(file, sha256=file.sha256 and hashlib.sha256(content).hexdigest())

    small = dataclasses.replace(
        published,
        clip=tuple(map(stand_in, published.clip)),
        tokenizer=stand_in(published.tokenizer),
    )
    monkeypatch.setitem(CAPTIONERS, "coco", small)
