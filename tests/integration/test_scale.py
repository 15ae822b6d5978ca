"""`python -m scale.caption` on a real Ray: captions, errors, and every kind of death."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.pictures import encoded, picture
from tests.processes import free_port

if importlib.util.find_spec("ray") is None:
    pytest.skip("the extra scale is not installed", allow_module_level=True)

import pyarrow as pa
import pyarrow.parquet as pq

from tests.integration.ray_clusters import (
    MARK,
    Cluster,
    cluster,
    finish,
    kill_node,
    start_command,
    wait_for_blocks,
)

BUCKET = "captions"


@pytest.fixture(autouse=True)
def _same_workers() -> None:
    """No TorchServe is asked here, so none is started."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """An emulator of S3 with an empty bucket; the variables that name it."""
    if importlib.util.find_spec("moto") is None:
        yield {}
        return
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        transport = httpx.HTTPTransport(retries=9)  # until it listens
        with httpx.Client(transport=transport) as client:
            client.put(f"{address}/{BUCKET}").raise_for_status()
        yield {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key",
               "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory, bucket: dict[str, str]) -> Iterator[Cluster]:
    """A cluster of one node."""
    with cluster(tmp_path_factory.mktemp("ray"), 2, environment=bucket) as made:
        yield made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures of different colours and sizes, and three files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(7):
        image = picture((60 + 20 * n, 90)).rotate(40 * n)
        (folder / f"{n}.jpg").write_bytes(encoded(image, "JPEG"))
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "empty.png").write_bytes(b"")
    (folder / "large.png").write_bytes(encoded(picture((900, 900)), "PNG"))
    return folder


def many(pictures: Path, file: Path, count: int) -> Path:
    """A table of so many rows of the seven pictures."""
    paths = [str(pictures / f"{n % 7}.jpg") for n in range(count)]
    ids = [f"picture {n}" for n in range(count)]
    pq.write_table(pa.table({"id": ids, "path": paths}), file)
    return file


def caption(artifact: Path, file: Path) -> str:
    """The caption that the artifact gives in this process."""
    from training.try_artifact import caption_files

    return str(caption_files(artifact, [file])[0]["caption"])


def rows(out: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(out).to_pylist()
    assert len({row["id"] for row in found}) == len(found)
    return found


def test_a_driver_that_is_killed_is_continued_with_each_id_once(
    tiny_artifact: Path, pictures: Path, tmp_path: Path
):
    table, out, log = (
        many(pictures, tmp_path / "many.parquet", 1500),
        tmp_path / "out",
        tmp_path / "log",
    )
    words = [table, "--out", out, "--artifact", tiny_artifact, "--block-rows", "20"]
    first = start_command(*words, log=log)
    wait_for_blocks(out, first, log, 2)
    of_ray = psutil.Process(first.pid).children(recursive=True)
    assert any("raylet" in process.name() for process in of_ray)
    first.kill()
    first.wait()
    # A Ray that the command started ends with it; its agents notice after about a minute.
    agents = [process for process in of_ray if "Agent" in process.name()]
    _, alive = psutil.wait_procs([each for each in of_ray if each not in agents], timeout=30)
    assert not alive
    for process in agents:
        process.kill()
    there = {file.name: file.stat().st_mtime_ns for file in (out / "_blocks").glob("0*")}
    assert 2 <= len(there) < 75
    assert not (out / "_manifest.json").exists()

    said = finish(start_command(*words, log=log), log)
    assert f"{20 * len(there):,} of 1,500 pictures have their rows from before" in said
    assert f"1,500 rows; {1500 - 20 * len(there):,} in this run" in said
    found = rows(out)
    assert [row["id"] for row in found] == [f"picture {n}" for n in range(1500)]
    captions = [caption(tiny_artifact, pictures / f"{n}.jpg") for n in range(7)]
    assert len(set(captions)) > 1
    assert [row["caption"] for row in found] == [captions[n % 7] for n in range(1500)]
    assert list((out / "_blocks").iterdir()) == []
    assert json.loads((out / "_manifest.json").read_text())["captioned"] == 1500


def test_broken_pictures_are_rows_and_so_is_one_that_ends_its_process(
    ray: Cluster, tiny_artifact: Path, pictures: Path, tmp_path: Path
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for file in pictures.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "deadly.jpg").write_bytes((pictures / "0.jpg").read_bytes() + MARK)
    out, log = tmp_path / "out", tmp_path / "log"
    command = start_command(
        folder, "--out", out, "--artifact", tiny_artifact, "--address", ray.address,
        "--max-pixels", "100000", "--num-beams", "3", "--num-captions=2", "--features",
        environment=ray.environment, log=log,
    )  # fmt: skip
    said = finish(command, log)
    assert "worker_failed" in said
    found = {row["id"]: row for row in rows(out)}
    errors = {id_: row["error_code"] for id_, row in found.items() if row["error_code"]}
    assert errors == {
        "damaged.jpg": "image_undecodable",
        "empty.png": "empty",
        "large.png": "image_too_large",
        "deadly.jpg": "worker_failed",
    }
    best = found["3.jpg"]
    alternatives = best["alternatives"]
    assert isinstance(alternatives, list)
    assert [each["caption"] for each in alternatives][0] == best["caption"]
    assert len(alternatives) == 2
    assert best["confidence"] == pytest.approx(
        math.exp(best["log_prob"] / best["tokens"]), abs=1e-5
    )  # type: ignore[operator]
    assert best["feature_shape"] == [24]
    assert len(best["feature"]) == 24  # type: ignore[arg-type]


def test_actors_that_are_killed_are_replaced_and_each_id_comes_once(
    ray: Cluster, tiny_artifact: Path, pictures: Path, tmp_path: Path
):
    table, out, log = (
        many(pictures, tmp_path / "many.parquet", 2000),
        tmp_path / "out",
        tmp_path / "log",
    )
    command = start_command(
        table, "--out", out, "--artifact", tiny_artifact, "--address", ray.address,
        "--block-rows", "20", environment=ray.environment, log=log,
    )  # fmt: skip
    ray.kill_workers("DecodeStage")  # it is soon far ahead of the other stage
    before = wait_for_blocks(out, command, log)
    ray.kill_workers("CaptionStage")
    wait_for_blocks(out, command, log, before + 2)
    finish(command, log)
    assert len(rows(out)) == 2000


def test_a_bucket_is_input_and_output(
    ray: Cluster, bucket: dict[str, str], tiny_artifact: Path, pictures: Path, tmp_path: Path
):
    if not bucket:
        pytest.skip("the extra buckets is not installed")
    import fsspec

    settings = {"endpoint_url": bucket["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
    s3 = fsspec.filesystem("s3", key="key", secret="secret", client_kwargs=settings)
    for file in pictures.iterdir():
        s3.pipe_file(f"{BUCKET}/in/sub/{file.name}", file.read_bytes())
    out, log = f"s3://{BUCKET}/out", tmp_path / "log"
    words = [f"s3://{BUCKET}/in", "--out", out, "--artifact", tiny_artifact, "--address",
             ray.address, "--block-rows", "4"]  # fmt: skip
    finish(start_command(*words, environment=ray.environment, log=log), log)
    part = s3.cat_file(f"{BUCKET}/out/part-000000.parquet")
    found = {row["id"]: row for row in pq.read_table(pa.BufferReader(part)).to_pylist()}
    assert len(found) == 10
    assert found["sub/2.jpg"]["caption"] == caption(tiny_artifact, pictures / "2.jpg")
    assert found["sub/empty.png"]["error_code"] == "empty"
    said = finish(start_command(*words, environment=ray.environment, log=log), log)
    assert "10 of 10 pictures have their rows from before" in said


def test_a_node_that_is_killed_costs_no_row(
    ray: Cluster, tiny_artifact: Path, pictures: Path, tmp_path: Path
):
    table, out, log = (
        many(pictures, tmp_path / "many.parquet", 3000),
        tmp_path / "out",
        tmp_path / "log",
    )
    node = ray.add_node(2)
    command = start_command(
        table, "--out", out, "--artifact", tiny_artifact, "--address", ray.address,
        "--block-rows", "20", environment=ray.environment, log=log,
    )  # fmt: skip
    wait_for_blocks(out, command, log)
    assert "2 workers of 2 threads" in log.read_text()
    assert len(ray.workers("CaptionStage")) == 2
    kill_node(node)
    assert len(list(out.glob("part-*"))) < 3
    finish(command, log)
    assert len(rows(out)) == 3000


def test_what_cannot_be_done_is_refused_in_one_line(
    ray: Cluster, tiny_artifact: Path, pictures: Path, tmp_path: Path
):
    log = tmp_path / "log"
    base = [pictures, "--artifact", tiny_artifact, "--out", tmp_path / "out"]
    for words, message in (
        (["--address", "127.0.0.1:1"], "no cluster answers at --address 127.0.0.1:1"),
        (["--num-beams", "9"], "option num_beams is '9'"),
        (["--address", ray.address, "--workers", "9"], "have room for 1 workers of 2 threads"),
    ):
        command = start_command(*base, *words, environment=ray.environment, log=log)
        said = finish(command, log, status=1)
        assert message in said
        assert said.count("\n") == 1
