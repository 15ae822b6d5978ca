"""Sends a checkpoint folder to the Hugging Face hub in one commit, and checks what arrived."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from model.checkpoint import CARD, Checkpoint, read_evaluation
from model.pretrained.checkpoint_name import OPTIONAL, REQUIRED, HubName, hub_name
from model.pretrained.hub import file_sha256, is_unreachable
from model.refusal import Refusal
from training.publish import Publication
from training.publishing.card import published_card

#: Values of `training.json` that name folders of the machine that trained.
_FOLDERS = ("encoder", "language_model", "started_from")


def publish(settings: Publication) -> str:
    """Publish a captioner.

    Args:
        settings: See `training.publish.Publication`.

    Returns:
        The commit on the hub.

    Raises:
        Refusal: The folder is no evaluated checkpoint, holds something else, or has no licence;
            the name is none; there is no token or no right to write; the hub cannot be reached; or
            another content arrived than was sent.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # of its defaults
    folder, name = settings.checkpoint, _name(settings)
    _check_files(folder)
    checkpoint = Checkpoint.load(folder)
    if read_evaluation(folder) is None:
        raise Refusal(
            f"{folder} has no evaluation of these weights, so nobody could tell how good they are; "
            f"python -m training.evaluate --checkpoint {folder} --data DIR makes one"
        )
    card = published_card(folder, checkpoint, name, settings.license).encode()
    for key in _FOLDERS:
        if (value := str((checkpoint.training or {}).get(key, ""))).startswith(("/", "~")):
            print(f"note: training.json names a folder of this machine ({key}: {value})")
    api, endpoint = HfApi(token=_token()), huggingface_hub.constants.ENDPOINT
    if is_unreachable(endpoint):
        raise Refusal(f"{endpoint} cannot be reached; check the network, or correct HF_ENDPOINT")
    with _readable_errors(name):
        commit = _send(api, settings, name, card)
        _check_arrived(api, name, commit, folder, card)
    print(
        f"{endpoint}/{name.repo}: commit {commit}; to serve it anywhere: make serve "
        f"CHECKPOINT={name}"
    )
    return commit


def _name(settings: Publication) -> HubName:
    """The repository and branch, if that can be one."""
    name = hub_name(settings.to)
    if name is None or name.revision is not None:
        raise Refusal(
            f"--to is {settings.to!r}; it must be OWNER/NAME in letters, digits, '.', '-' and '_', "
            "and no folder of this machine; a branch is given with --revision"
        )
    return HubName(name.repo, settings.revision)


def _token() -> str:
    """The token of this user."""
    if token := huggingface_hub.get_token():
        return token
    raise Refusal(
        "there is no token of the Hugging Face hub; make one with the right to write at "
        "https://huggingface.co/settings/tokens, and give it as HF_TOKEN or to: hf auth login"
    )


def _files(folder: Path) -> list[str]:
    """The names of a checkpoint's files that a folder has."""
    return [name for name in (*REQUIRED, *OPTIONAL) if (folder / name).is_file()]


def _check_files(folder: Path) -> None:
    """Refuse a folder that lacks files of a checkpoint or holds others, which might be private."""
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise Refusal(f"{folder} is no checkpoint folder: it has no {', no '.join(missing)}")
    others = sorted({each.name for each in folder.iterdir()} - {*REQUIRED, *OPTIONAL})
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise Refusal(
            f"{folder} also holds {len(others)} that are no files of a checkpoint ({shown}); move "
            "them away, so that it is plain what is published"
        )


def _send(api: HfApi, settings: Publication, name: HubName, card: bytes) -> str:
    """Make the repository and the branch if need be, and commit; returns the commit."""
    api.create_repo(name.repo, private=settings.private or None, exist_ok=True)
    if settings.private and not api.model_info(name.repo).private:
        raise Refusal(
            f"{name.repo} is there already and public; make it private on its page, or leave "
            "--private out"
        )
    if name.revision is not None:
        api.create_branch(name.repo, branch=name.revision, exist_ok=True)
    before = api.model_info(name.repo, revision=name.revision).siblings or []
    names = _files(settings.checkpoint)
    # A head or drafts of older weights would be refused with these.
    old = {each.rfilename for each in before} & {*OPTIONAL} - {*names, CARD}
    files = [(each, settings.checkpoint / each) for each in names if each != CARD]
    size = sum(path.stat().st_size for _, path in files) + len(card)
    print(f"sending {len(names)} files ({size / 1e6:.1f} MB) to {name} ...", file=sys.stderr)
    sent = api.create_commit(
        name.repo,
        operations=[
            CommitOperationAdd(CARD, card),
            *(CommitOperationAdd(each, path) for each, path in files),
            *(CommitOperationDelete(each) for each in sorted(old)),
        ],
        commit_message="The captioner with its evaluation",
        revision=name.revision,
    )
    return str(sent.oid)


def _check_arrived(api: HfApi, name: HubName, commit: str, folder: Path, card: bytes) -> None:
    """Refuse a commit that does not hold what was sent."""
    info = api.model_info(name.repo, revision=commit, files_metadata=True)
    there: dict[str, Any] = {each.rfilename: each for each in info.siblings or []}
    for file in _files(folder):
        found = there.get(file)
        if found is None:
            same = False
        elif file == CARD:
            same = found.blob_id == _git_sha1(card)
        elif found.lfs is not None:
            same = found.lfs.sha256 == file_sha256(folder / file)
        else:
            same = found.blob_id == _git_sha1((folder / file).read_bytes())
        if not same:
            raise Refusal(
                f"commit {commit} of {name.repo} does not hold {file} as it was sent; run the "
                "command again"
            )


def _git_sha1(content: bytes) -> str:
    """The name that git gives a content."""
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


@contextmanager
def _readable_errors(name: HubName) -> Iterator[None]:
    """Turn what the hub's library raises into a refusal of one line."""
    endpoint = huggingface_hub.constants.ENDPOINT
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = error.server_message or error.response.reason_phrase
        advice = "run the command again later"
        if status in (401, 403):
            advice = f"the token must have the right to write to {name.repo.partition('/')[0]}"
        elif status < 500:
            advice = "correct what it names"
        said = " ".join(str(said).split()) or "no reason"
        raise Refusal(f"{endpoint} answers {status} ({said}): {advice}") from None
    except httpx.HTTPError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Refusal(
            f"the connection to {endpoint} broke ({reason}); run the command again: what arrived "
            "is not sent twice"
        ) from None
    except json.JSONDecodeError:
        raise Refusal(
            f"{endpoint} does not answer as a Hugging Face hub does; correct HF_ENDPOINT"
        ) from None
    except ValueError as error:  # such as metadata of the card that the hub does not take
        reason = " ".join(str(error).split())
        raise Refusal(f"{endpoint} refuses what was sent: {reason}") from None
