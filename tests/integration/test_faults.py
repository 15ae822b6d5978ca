"""Faults of the server itself, through a real TorchServe: each stays with its own request."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client import CaptionClient, CaptionError, CaptionResult
from deploy.torchserve import TorchServe
from tests.integration.scrape import value_of
from tests.pictures import sound

PNG = sound()["png"]
#: Put at the end of the archive's `model/artifact.py`: the search fails for some options.
FAULTS = """
_search_without_faults = Artifact.caption


def _search_with_faults(self, features, options):
    if options.num_beams == 7:
        raise MemoryError("a fault on purpose")
    found = _search_without_faults(self, features, options)
    if options.num_beams == 6:
        found = [[dataclasses.replace(each[0], log_prob=float("nan"))] for each in found]
    return found


Artifact.caption = _search_with_faults
"""


@pytest.fixture(scope="module")
def faulty(
    server: TorchServe,
    serve: Callable[[Path], TorchServe],
    tmp_path_factory: pytest.TempPathFactory,
) -> TorchServe:
    """A server whose captioner fails to search with 7 beams, and finds NaN with 6."""
    archive = tmp_path_factory.mktemp("faulty") / "clipcap.mar"
    with zipfile.ZipFile(server.archive) as source, zipfile.ZipFile(archive, "w") as target:
        for name in source.namelist():
            more = FAULTS.encode() if name == "model/artifact.py" else b""
            target.writestr(name, source.read(name) + more)
    return serve(archive)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_fault_in_a_batch_is_its_own_request_s_500(faulty: TorchServe, transport: str):
    workers = faulty.workers()
    batches = value_of(faulty, "clipcap_decode_seconds_count")
    beams = [5, 7, 5, 6] * 10
    with (
        CaptionClient(getattr(faulty, transport), retries=0) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        expected = client.caption(PNG, num_beams=5).caption

        def ask(num_beams: int) -> CaptionResult | CaptionError:
            try:
                return client.caption(PNG, num_beams=num_beams)
            except CaptionError as error:
                return error

        outcomes = list(pool.map(ask, beams))
    for num_beams, outcome in zip(beams, outcomes, strict=True):
        if num_beams == 5:
            assert isinstance(outcome, CaptionResult), outcome
            assert outcome.caption == expected
        else:
            assert isinstance(outcome, CaptionError)
            assert (outcome.status, outcome.code) == (500, "internal")
    assert value_of(faulty, "clipcap_decode_seconds_count") - batches < len(beams)
    assert faulty.workers() == workers
    assert "MemoryError: a fault on purpose" in (faulty.logs / "model_log.log").read_text()
