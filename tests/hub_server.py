"""A small server that speaks as much of the Hugging Face hub's HTTP as its library asks for.

HEAD and GET /OWNER/NAME/resolve/REVISION/FILE    X-Repo-Commit, ETag, size; large files redirect
GET /cdn/SHA256                                   large files, with ranges
GET /api/models/OWNER/NAME[/revision/REVISION]    the commit, and the names of the files
404 with X-Error-Code                             EntryNotFound, RepoNotFound, RevisionNotFound

With the token, which may write everywhere:

POST /api/repos/create                            a repository; 409 if it is there
POST /api/models/OWNER/NAME/branch/BRANCH         a branch of the newest commit; 409 if it is there
POST /api/validate-yaml                           whether the model card's metadata are YAML
POST /api/models/OWNER/NAME/preupload/BRANCH      which files are large
POST /OWNER/NAME.git/info/lfs/objects/batch       where to put large files
PUT /lfs/SHA256                                   a large file
POST /api/models/OWNER/NAME/commit/BRANCH         a commit: a line of JSON for each file
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.pretrained.sources import CAPTIONERS, HubFile
from tests.file_server import Answer, FileServer, file_server
from tests.published_weights import weights_file

#: Larger files are in git LFS, as they are on the hub.
LFS_FROM = 50_000
#: What may write.
TOKEN = "hf_of_the_tests"


class HubServer:
    """Repositories on a `FileServer`.

    Attributes:
        server: What serves them; its switches make it misbehave.
        commits: Repository -> its newest commit.
        contents: Repository -> branch -> name of a file -> its bytes.
        private: Repositories that only the token may read.
        gated: Repositories whose terms were not accepted.
        damage: Files that arrive otherwise than they were sent.
    """

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.commits: dict[str, str] = {}
        self.contents: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.damage: set[str] = set()
        self.large: dict[str, bytes] = {}
        server.not_found = self._not_found
        server.takes = self._take

    def add(self, repo: str, folder: Path, names: list[str] | None = None) -> None:
        """Serve the files of a folder as the newest commit of a repository.

        Args:
            repo: OWNER/NAME.
            folder: The files.
            names: Which of them; by default all.
        """
        names = sorted(names or (file.name for file in folder.iterdir()))
        self._commit(repo, "main", {name: (folder / name).read_bytes() for name in names})

    def _commit(self, repo: str, branch: str, contents: dict[str, bytes]) -> str:
        """Serve these files as the newest commit of a branch; returns the commit."""
        listed = b"".join(name.encode() + content for name, content in contents.items())
        commit = hashlib.sha1(repo.encode() + listed).hexdigest()
        self.commits[repo] = commit
        branches = self.contents.setdefault(repo, {})
        for name in branches.get(branch, {}).keys() - contents.keys():
            path = f"/{repo}/resolve/{branch}/{name}"
            self.server.files.pop(path, None)
            self.server.redirects.pop(path, None)
        branches[branch] = contents
        for revision in (branch, commit):
            for name, content in contents.items():
                self._put(f"/{repo}/resolve/{revision}/{name}", content, commit)
            self._describe(repo, commit, contents, f"/api/models/{repo}/revision/{revision}")
        if branch == "main":
            self._describe(repo, commit, contents, f"/api/models/{repo}")
        return commit

    def _describe(self, repo: str, commit: str, contents: dict[str, bytes], path: str) -> None:
        files: list[dict[str, Any]] = [{"rfilename": name} for name in contents]
        described = {"id": repo, "sha": commit, "siblings": files, "private": repo in self.private}
        self.server.files[path] = _json(described)
        for file, content in zip(files, contents.values(), strict=True):
            file |= {"size": len(content), "blobId": _git_sha1(content)}
            if len(content) >= LFS_FROM:
                sha256 = hashlib.sha256(content).hexdigest()
                file["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        self.server.files[f"{path}?blobs=true"] = _json(described)

    def _put(self, path: str, content: bytes, commit: str) -> None:
        state = self.server
        state.headers[path] = {"X-Repo-Commit": commit}
        state.redirects.pop(path, None)
        state.files.pop(path, None)
        if len(content) < LFS_FROM:
            state.files[path] = content
            state.etags[path] = f'"{_git_sha1(content)}"'
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
        parts = path.removeprefix("/api/models").split("/")
        repo = "/".join(parts[1:3])
        if repo in self.gated:
            return {"status": "403", "X-Error-Code": "GatedRepo"}
        if repo not in self.commits:
            return {"X-Error-Code": "RepoNotFound"}
        if parts[3:4] == ["revision"]:
            return {"X-Error-Code": "RevisionNotFound"}
        return {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commits[repo]}

    def _take(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a POST or PUT."""
        if path == "/api/validate-yaml":
            return 200, {}, _json({"warnings": [], "errors": _errors(json.loads(body)["content"])})
        if path.startswith("/lfs/"):
            self.large[path.removeprefix("/lfs/")] = body
            return 200, {}, b""
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 403, {"X-Error-Message": "You have no right to write here"}, b""
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [self._batch(each) for each in json.loads(body)["objects"]]
            return 200, {}, _json({"objects": objects})
        owner, name, what, branch = path.removeprefix("/api/models/").split("/")
        repo = f"{owner}/{name}"
        branches = self.contents[repo]
        if what == "branch":
            if branch in branches:
                return 409, {}, b""
            self._commit(repo, branch, dict(branches["main"]))
            return 200, {}, b"{}"
        if what == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LFS_FROM else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return 200, {}, _json({"files": files})
        commit = self._commit(repo, branch, self._applied(branches[branch], body))
        address = f"{self.server.address}/{repo}/commit/{commit}"
        return 200, {}, _json({"commitUrl": address, "commitOid": commit})

    def _create(self, asked: dict[str, Any]) -> Answer:
        repo = f"{asked['organization']}/{asked['name']}"
        address = _json({"url": f"{self.server.address}/{repo}"})
        if repo in self.commits:
            return 409, {}, address
        if asked.get("visibility") == "private":
            self.private.add(repo)
        self._commit(repo, "main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return 200, {}, address

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.large:  # it need not be sent again
            return asked
        upload = {"href": f"{self.server.address}/lfs/{asked['oid']}"}
        return {**asked, "actions": {"upload": upload}}

    def _applied(self, before: dict[str, bytes], body: bytes) -> dict[str, bytes]:
        """The files of a branch after the lines of a commit."""
        contents = dict(before)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "deletedFile":
                del contents[value["path"]]
            elif line["key"] == "lfsFile":
                contents[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "file":
                contents[value["path"]] = base64.b64decode(value["content"])
        return {
            name: content + b" " if name in self.damage else content
            for name, content in contents.items()
        }

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


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _errors(card: str) -> list[dict[str, str]]:
    try:
        yaml.safe_load(card.split("---")[1])
    except yaml.YAMLError as error:
        return [{"message": str(error)}]
    return []


@contextmanager
def hub_server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub without repositories, on a free port, as HF_ENDPOINT of this process and its children.

    Args:
        cache: HF_HUB_CACHE of them.
        monkeypatch: Takes both back at the end of the test.
    """
    with file_server() as server:
        values = {"HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(cache), "NO_PROXY": "*"}
        values |= {"HF_HUB_DISABLE_XET": "1"}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        # This process has read its environment already.
        constants = "huggingface_hub.constants"
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.ENDPOINT", server.address)
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
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
