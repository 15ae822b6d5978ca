"""Encoding a data set: equal to Hugging Face's features, resumed after a kill, faults listed."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path, PosixPath

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.refusal import Refusal
from tests import ROOT
from tests.processes import start, together
from training.config import Config, Features, load_config
from training.data.dataset import CaptionDataset
from training.data.tar_picture import TarPicture
from training.encoding.encode_dataset import encode_dataset
from training.encoding.encoder import Encoder
from training.encoding.feature_file import FeatureFile
from training.prepare import prepare


@pytest.fixture
def broken(tiny_run: Config, tiny_scenes: Path, tmp_path: Path) -> tuple[Features, list[int]]:
    """The small data set with pictures 2, 5 and 60 broken, each in a different way."""
    shutil.copytree(tiny_scenes, tmp_path / "scenes")
    files = CaptionDataset.load(tmp_path / "scenes").files
    files[2].write_bytes(b"")
    files[5].write_bytes(files[5].read_bytes()[:200])
    files[60].unlink()
    settings = dataclasses.replace(
        tiny_run.features, data=str(tmp_path / "scenes"), out=str(tmp_path / "features")
    )
    return settings, [2, 5, 60]


def content(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def encode_in_a_child(settings: Features) -> int:
    """Start the encoding in a forked process (starting Python would take seconds); its id."""
    child = os.fork()
    if not child:
        torch.set_num_threads(1)  # a fork has none of the threads of its parent
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        try:
            encode_dataset(settings)
        finally:
            os._exit(0)
    return child


def test_every_image_has_hugging_face_s_feature(tiny_run: Config, tiny_clip: Path):
    dataset = CaptionDataset.load(tiny_run.features.data)
    file = FeatureFile(tiny_run.features.out, Encoder(str(tiny_clip)).identity)
    assert file.ids.tolist() == sorted(dataset.files)
    clip = CLIPModel.from_pretrained(tiny_clip).eval()
    processor = CLIPImageProcessorPil.from_pretrained(tiny_clip)
    for image_id in (1, 31, 60):
        with Image.open(dataset.files[image_id]) as picture:
            pixels = processor(picture, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            pooled = clip.vision_model(pixel_values=pixels).pooler_output
            expected = clip.visual_projection(pooled)[0]
        row = file.features[file.rows([image_id])[0]]
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-4)


def test_worker_processes_and_batch_sizes_change_nothing(tiny_run: Config, tmp_path: Path):
    settings = dataclasses.replace(
        tiny_run.features, out=str(tmp_path / "features"), workers=2, batch_size=7
    )
    assert encode_dataset(settings) == 0
    expected = FeatureFile(tiny_run.features.out)
    found = FeatureFile(tmp_path / "features", expected.encoder)
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.features[:], expected.features[:], atol=1e-5)


def test_broken_images_are_listed_and_the_command_fails(broken: tuple[Features, list[int]]):
    settings, ids = broken
    files = CaptionDataset.load(settings.data).files
    with pytest.raises(Refusal, match="3 of 60 images are broken; .*features.on_broken=skip") as e:
        encode_dataset(settings)
    for image_id in ids:
        assert str(files[image_id]) in str(e.value)
    assert not Path(settings.out).exists()


def test_a_long_list_of_broken_images_is_cut_and_counted(
    broken: tuple[Features, list[int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("training.sources.faults.MAX_LISTED", 2)
    with pytest.raises(Refusal, match="and 1 more"):
        encode_dataset(broken[0])


def test_broken_images_are_left_out_with_on_broken_skip(broken: tuple[Features, list[int]]):
    settings, ids = broken
    assert encode_dataset(dataclasses.replace(settings, on_broken="skip")) == 3
    file = FeatureFile(settings.out)
    assert file.ids.tolist() == [i for i in range(1, 61) if i not in ids]
    assert file.rows(ids).tolist() == [-1, -1, -1]
    assert np.isfinite(file.features[:]).all()


def test_a_killed_run_resumes_and_ends_with_the_same_bytes(
    broken: tuple[Features, list[int]], tmp_path: Path
):
    settings = dataclasses.replace(broken[0], on_broken="skip", batch_size=4, shard_batches=1)
    encode_dataset(settings)
    expected = content(settings.out)
    settings = dataclasses.replace(settings, out=str(tmp_path / "killed" / "features"))
    partial = tmp_path / "killed" / "features.partial"
    rng = random.Random(1)
    kills = 0
    for goal in (1, 3, 6, 10):  # of 15 shards; the kill falls anywhere in the next
        child = encode_in_a_child(settings)
        while len(list(partial.glob("shard-*.json"))) < goal and not Path(settings.out).exists():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        whole = {f"features-{file.stem[6:]}.npy" for file in partial.glob("shard-*.json")}
        before = {name: (partial / "features" / name).stat().st_mtime_ns for name in whole}
    assert kills > 1
    assert encode_dataset(settings) == 3
    assert content(settings.out) == expected
    after = {file.name: file.stat().st_mtime_ns for file in Path(settings.out).iterdir()}
    assert before.items() <= after.items()


def test_two_processes_write_the_bytes_of_one_and_read_no_picture_twice(
    broken: tuple[Features, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = dataclasses.replace(broken[0], on_broken="skip", batch_size=4, shard_batches=1)
    encode_dataset(settings)
    expected = content(settings.out)
    settings = dataclasses.replace(settings, out=str(tmp_path / "two" / "features"))
    log = tmp_path / "two" / "log"

    def work(rank: int) -> None:
        encode, read = Encoder.encode, PosixPath.read_bytes

        def slow(encoder: Encoder, pixels: Tensor) -> Tensor:
            time.sleep(0.05)
            return encode(encoder, pixels)

        def noted(file: Path) -> bytes:
            with (log / f"read-{rank}").open("a") as opened:
                opened.write(f"{file.name}\n")
            return read(file)

        monkeypatch.setattr(Encoder, "encode", slow)
        monkeypatch.setattr(PosixPath, "read_bytes", noted)
        encode_dataset(settings)

    def pictures() -> list[str]:
        lines = [line for file in log.glob("read-*") for line in file.read_text().split()]
        return [line for line in lines if line.endswith(".jpg")]

    log.mkdir(parents=True)
    children = start(2, work, log)
    partial = tmp_path / "two" / "features.partial"
    while len(list(partial.glob("shard-*.json"))) < 4:  # of 15
        time.sleep(0.01)
    os.kill(children[1], signal.SIGKILL)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert statuses == [1, -signal.SIGKILL]
    assert "process 0 waited for another process of this run, which has ended" in (
        (log / "rank-0.log").read_text()
    )
    assert not Path(settings.out).exists()
    before = len({file.stem for file in partial.glob("shard-*.json")})
    assert 4 <= before < 15
    for file in log.glob("read-*"):
        file.unlink()
    together(2, work, log)
    assert content(settings.out) == expected
    assert [file.name for file in (tmp_path / "two").iterdir()] != [partial.name]
    found = pictures()
    assert len(found) == len(set(found)) <= 60 - 4 * before
    assert all((log / f"read-{rank}").read_text() for rank in (0, 1))


def test_pictures_of_tar_files_are_read_once_by_all_processes_and_their_workers(
    tiny_run: Config, tiny_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scenes = CaptionDataset.load(tiny_scenes)
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for image_id in sorted(scenes.files)[number::3]:
                words = scenes.captions[image_id][0].encode()
                entry = tarfile.TarInfo(f"{image_id}.txt")
                entry.size = len(words)
                tar.addfile(entry, io.BytesIO(words))
                tar.add(scenes.files[image_id], f"{image_id}.jpg")
    places = [f"webdataset.shards={tmp_path}", f"webdataset.out={tmp_path / 'data'}"]
    prepare(load_config(["prepare.source=webdataset", *places, "webdataset.workers=0"]))
    read, log = TarPicture.read_bytes, tmp_path / "log"

    def noted(picture: TarPicture) -> bytes:
        with (log / f"read-{os.getpid()}").open("a") as opened:
            opened.write(f"{picture}\n")
        return read(picture)

    settings = dataclasses.replace(
        tiny_run.features,
        **{"data": str(tmp_path / "data"), "workers": 2, "batch_size": 4, "shard_batches": 2},
    )
    monkeypatch.setattr(TarPicture, "read_bytes", noted)
    together(
        2, lambda _: encode_dataset(dataclasses.replace(settings, out=str(tmp_path / "two"))), log
    )
    by_process = [file.read_text().splitlines() for file in log.glob("read-*")]
    assert len(by_process) == 4
    lines = sum(by_process, [])
    assert len(lines) == len(set(lines)) == 60
    encode_dataset(dataclasses.replace(settings, out=str(tmp_path / "one"), workers=0))
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_only_shards_with_corrected_pictures_are_encoded_again(
    broken: tuple[Features, list[int]], tiny_scenes: Path, capsys: pytest.CaptureFixture[str]
):
    settings = dataclasses.replace(broken[0], batch_size=4, shard_batches=2)
    with pytest.raises(Refusal, match="3 of 60 images are broken"):
        encode_dataset(settings)
    for file in CaptionDataset.load(settings.data).files.values():
        if not file.exists() or file.stat().st_size < 300:
            shutil.copy(tiny_scenes / "images" / file.name, file)
    assert encode_dataset(settings) == 0
    said = capsys.readouterr().err
    assert "48 of 60 images were encoded by an earlier run" in said  # all but shards 0 and 7
    assert "as these changed: images" in said
    assert FeatureFile(settings.out).ids.tolist() == list(range(1, 61))


def test_a_data_set_whose_pictures_are_all_broken_is_refused(broken: tuple[Features, list[int]]):
    settings, _ = broken
    for file in CaptionDataset.load(settings.data).files.values():
        file.write_bytes(b"no picture")
    with pytest.raises(Refusal, match="none of the 60 images of .* can be read"):
        encode_dataset(dataclasses.replace(settings, on_broken="skip"))


def test_pictures_of_more_than_max_pixels_count_as_broken(broken: tuple[Features, list[int]]):
    settings, _ = broken
    settings = dataclasses.replace(settings, max_pixels=100, on_broken="stop")
    with pytest.raises(Refusal, match="60 of 60 images are broken"):
        encode_dataset(settings)


def test_an_unknown_value_of_on_broken_is_refused(tiny_run: Config):
    settings = dataclasses.replace(tiny_run.features, on_broken="ignore")
    with pytest.raises(Refusal, match="on_broken is 'ignore'; it must be stop or skip"):
        encode_dataset(settings)


def test_the_identity_of_an_encoder_does_not_depend_on_its_folder(tiny_clip: Path, tmp_path: Path):
    moved = shutil.copytree(tiny_clip, tmp_path / "moved")
    assert Encoder(str(moved)).identity == Encoder(str(tiny_clip)).identity


@pytest.mark.parametrize("command", ["prepare", "features"])
def test_a_wrong_setting_is_refused_before_heavy_packages_are_imported(command: str):
    code = (
        "import runpy, sys\n"
        "sys.argv[1:] = ['wrong=1']\n"
        "try:\n"
        f"    runpy.run_module('training.{command}', run_name='__main__')\n"
        "except SystemExit as refused:\n"
        "    print(refused)\n"
        "print(*sorted({'torch', 'transformers', 'numpy', 'PIL', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    message, imported = done.stdout.split("\n", 1)
    assert message.startswith("error: settings: Key 'wrong'")
    assert imported.strip() == ""
