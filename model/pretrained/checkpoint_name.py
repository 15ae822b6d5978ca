"""A captioner's checkpoint folder, given as a folder or by its name on the Hugging Face hub.

    models/mine                     a folder
    anna/captions-of-birds          a repository on the hub, its newest commit
    anna/captions-of-birds@v2       the same at a branch, a tag or a commit

`training.publish` makes such a repository. A folder that is there comes first. Only the files of a
checkpoint are fetched, which hold numbers and text: neither code nor pickles. They stay in the
hub's cache, so that the captioner can be had again without network, and each is checked (see
`model.pretrained.hub`).

`python -m model.pretrained.checkpoint_name GIVEN` prints the folder, for programs without torch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id  # type: ignore[attr-defined]

from model.pretrained.hub import fetch, is_unreachable
from model.pretrained.sources import HubFile
from model.refusal import Refusal

#: Files that every checkpoint folder has.
REQUIRED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
#: Files that it may have (see `model.checkpoint`).
OPTIONAL = (
    "README.md",
    "drafts.safetensors",
    "evaluation.json",
    "ood.json",
    "ood.safetensors",
    "quality.json",
    "quality.safetensors",
    "reference.jsonl",
    "seen_images.safetensors",
    "training.json",
    "training_features.json",
)
#: Where the project's own commands write. A folder in them that is missing is no name on the hub.
_OUR_FOLDERS = ("build", "models")


class HubName(NamedTuple):
    """A captioner's place on the hub.

    Attributes:
        repo: OWNER/NAME.
        revision: A branch, a tag or a commit; None for the newest commit.
    """

    repo: str
    revision: str | None

    def __str__(self) -> str:
        """As the user writes it."""
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def hub_name(given: str | Path) -> HubName | None:
    """The name on the hub that is given in place of a folder; None if it can only be a folder.

    Args:
        given: A folder, or OWNER/NAME, or OWNER/NAME@REVISION.
    """
    text = str(given)
    repo, _, revision = text.partition("@")
    owner, _, name = repo.partition("/")
    if Path(text).exists() or not name or "/" in name:
        return None
    if owner in _OUR_FOLDERS or Path(owner).exists():
        return None
    try:
        validate_repo_id(repo)
    except HFValidationError:
        return None
    return HubName(repo, revision or None)


def checkpoint_folder(given: str | Path) -> Path:
    """The folder of a captioner that is given as a folder or by its name on the hub.

    Args:
        given: See `hub_name`. A folder is returned as it is, whether it exists or not.

    Returns:
        The folder; that of a name lies in the hub's cache, where nothing may be written.

    Raises:
        Refusal: There is no such name, no access to it, no captioner in it, no network, or a file
            of it that is damaged.
    """
    name = hub_name(given)
    if name is None:
        return Path(given)
    endpoint = huggingface_hub.constants.ENDPOINT
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return _cached(name, "HF_HUB_OFFLINE forbids asking the hub")
    if is_unreachable(endpoint):
        return _cached(name, f"{endpoint} cannot be reached")
    try:
        info = HfApi().model_info(name.repo, revision=name.revision)
        files = [each.rfilename for each in info.siblings or []]
        _check_complete(name, files)
        wanted = [file for file in (*REQUIRED, *OPTIONAL) if file in files]
        fetched = [fetch(HubFile(name.repo, file, revision=info.sha)) for file in wanted]
        # The library then remembers which commit the branch or tag is at, for when it is offline.
        hf_hub_download(name.repo, REQUIRED[0], revision=name.revision)
    except HfHubHTTPError as error:
        raise Refusal(_answered(name, error)) from None
    except httpx.HTTPError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Refusal(f"{endpoint} gives no answer about {name}: {reason}") from None
    return fetched[0].path.parent


def _cached(name: HubName, reason: str) -> Path:
    """The folder of a captioner in the cache.

    Args:
        name: Which captioner.
        reason: Why the hub is not asked.
    """
    cache = huggingface_hub.constants.HF_HUB_CACHE
    found = huggingface_hub.try_to_load_from_cache(name.repo, REQUIRED[0], revision=name.revision)
    folder = Path(found).parent if isinstance(found, str) else None
    if folder is None or not all((folder / file).exists() for file in REQUIRED):
        raise Refusal(
            f"{name} is no folder here and not whole in {cache}, and {reason}; give a folder, or "
            "fetch it with a network first"
        )
    print(f"note: {reason}; {name} is taken from {cache}", file=sys.stderr)
    return folder


def _check_complete(name: HubName, files: list[str]) -> None:
    """Refuse a repository that holds no captioner."""
    missing = [file for file in REQUIRED if file not in files]
    if missing:
        address = f"{huggingface_hub.constants.ENDPOINT}/{name.repo}"
        raise Refusal(
            f"{address} holds no captioner of this project: it has no {', no '.join(missing)}; "
            "python -m training.publish makes such a repository"
        )


def _answered(name: HubName, error: HfHubHTTPError) -> str:
    """What the hub answered instead of the captioner, and what to do."""
    address = f"{huggingface_hub.constants.ENDPOINT}/{name.repo}"
    if isinstance(error, GatedRepoError):
        return f"{address} is gated: accept its terms there, and give your token as HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{name.repo} is no folder here, and {address} is not there or private; correct the "
            "name, or give a token that may read it as HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{address} has no branch, tag or commit {name.revision!r}; correct what follows @"
    return f"{address}: the hub answers {error.response.status_code}; run the command again later"


def main() -> None:
    """Print the folder of what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("given", help="a checkpoint folder, OWNER/NAME or OWNER/NAME@REVISION")
    given = parser.parse_args().given
    try:
        folder = checkpoint_folder(given)
        if not folder.is_dir():
            raise Refusal(f"{given} does not exist; give a checkpoint folder or OWNER/NAME")
    except (Refusal, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the command again to go on from there")
    print(folder)


if __name__ == "__main__":
    main()
