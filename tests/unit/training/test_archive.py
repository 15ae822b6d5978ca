"""Packing: the same bytes each time, only what serving needs, and nothing that does not work."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from model.refusal import Refusal
from training.archive import archive, serving_modules


def test_the_same_inputs_give_the_same_bytes(
    tiny_artifact: Path, tiny_archive: Path, tmp_path: Path
):
    caption = archive(tiny_artifact, tmp_path / "again.mar")
    hashes = {
        hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (tiny_archive, tmp_path / "again.mar")
    }
    assert len(hashes) == 1
    assert isinstance(caption, str)
    assert [file.name for file in tmp_path.iterdir()] == ["again.mar"]  # nothing left aside


def test_exactly_these_modules_are_packed():
    """A file more costs every worker, and a file of training would need packages it lacks."""
    assert [str(file) for file in serving_modules()] == [
        "handler/__init__.py",
        "handler/admission.py",
        "handler/batch_captioner.py",
        "handler/caption_batch.py",
        "handler/caption_handler.py",
        "handler/caption_settings.py",
        "handler/capture/__init__.py",
        "handler/capture/capturing.py",
        "handler/capture/folder.py",
        "handler/capture/rows.py",
        "handler/capture/settings.py",
        "handler/decoding_memory.py",
        "handler/explanation.py",
        "handler/measures.py",
        "handler/parallel_passes.py",
        "handler/replies/__init__.py",
        "handler/replies/caption_reply.py",
        "handler/replies/extras.py",
        "handler/replies/failure.py",
        "handler/replies/overlay.py",
        "handler/request_images.py",
        "handler/request_result.py",
        "handler/requests/__init__.py",
        "handler/requests/caption_request.py",
        "handler/requests/document.py",
        "handler/requests/explanation.py",
        "handler/requests/fields.py",
        "handler/requests/hugging_face.py",
        "handler/requests/kserve_v2.py",
        "handler/requests/picture_text.py",
        "handler/requests/values.py",
        "handler/telemetry/__init__.py",
        "handler/telemetry/phases.py",
        "handler/telemetry/request_log.py",
        "handler/telemetry/tracing.py",
        "model/__init__.py",
        "model/artifact.py",
        "model/caption_words.py",
        "model/explanation.py",
        "model/image/__init__.py",
        "model/image/colour.py",
        "model/image/decode.py",
        "model/image/jpeg.py",
        "model/image/limits.py",
        "model/image/preprocessing.py",
        "model/image/refusals.py",
        "model/layers/__init__.py",
        "model/layers/loading.py",
        "model/layers/memory.py",
        "model/layers/precision.py",
        "model/ood.py",
        "model/options.py",
        "model/refusal.py",
        "model/tokenizer.py",
    ]


def test_it_holds_what_serving_needs_and_no_more(tiny_archive: Path):
    with zipfile.ZipFile(tiny_archive) as opened:
        names = set(opened.namelist())
        manifest = json.loads(opened.read("MAR-INF/MANIFEST.json"))
    ours = {str(file) for file in serving_modules()} - {"handler/caption_handler.py"}
    artifact = {"captioner.pt", "captioner.json", "tokenizer.json", "ood.pt"}
    settings = {"MAR-INF/MANIFEST.json", "model-config.yaml", "handler/metrics.yaml"}
    assert names == ours | artifact | settings | {"caption_handler.py"}
    assert manifest["model"]["handler"] == "caption_handler.py"
    assert not any(name.startswith(("training/", "client/")) for name in names)


def test_a_folder_in_the_archive_s_place_is_refused(tiny_artifact: Path, tmp_path: Path):
    with pytest.raises(Refusal, match=r"is a folder; give the \.mar file"):
        archive(tiny_artifact, tmp_path)


def test_an_incomplete_artifact_is_refused(tiny_artifact: Path, tmp_path: Path):
    shutil.copytree(tiny_artifact, tmp_path / "artifact")
    (tmp_path / "artifact" / "tokenizer.json").unlink()
    with pytest.raises(Refusal, match=r"has no tokenizer\.json; export a captioner first"):
        archive(tmp_path / "artifact", tmp_path / "out.mar")


def test_an_archive_that_does_not_work_never_takes_the_place_of_one_that_does(
    tiny_artifact: Path, tmp_path: Path
):
    shutil.copytree(tiny_artifact, tmp_path / "artifact")
    (tmp_path / "artifact" / "captioner.pt").write_bytes(b"no weights")
    out = tmp_path / "clipcap.mar"
    out.write_bytes(b"the one that works")
    with pytest.raises(Refusal, match="the packed archive does not work: RuntimeError"):
        archive(tmp_path / "artifact", out)
    assert out.read_bytes() == b"the one that works"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["artifact", "clipcap.mar"]
