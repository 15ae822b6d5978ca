"""A captioner goes to a hub with the hub's own client and comes back by its name as it was."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from deploy.captioner import Captioner
from deploy.errors import ServeError
from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.image.decode import MAX_PIXELS, load_image
from model.image.preprocessing import to_pixels
from model.pretrained import hub
from model.pretrained.checkpoint_name import OPTIONAL, REQUIRED, checkpoint_folder, hub_name
from model.refusal import Refusal
from tests import ROOT
from tests.hub_server import TOKEN, HubServer, hub_server
from tests.pictures import sound
from tests.training_runs import Variant, weights
from training import publish as publish_command
from training.captioner.train import train
from training.config import Config, Export, load_config
from training.evaluation.evaluate import evaluate
from training.exporting.export import export
from training.judging.learn import learn

NAME = "anna/birds"


@pytest.fixture(scope="module")
def evaluated(tiny_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint with the figures and the card of an evaluation."""
    folder = tmp_path_factory.mktemp("publish") / "evaluated"
    shutil.copytree(tiny_run.train.out, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("training.evaluation.scores.scoring._meteor", lambda *_: 0.0)
        evaluate(evaluation(tiny_run, folder, folder.parent / "report"))
    return folder


def evaluation(config: Config, checkpoint: str | Path, out: Path):
    words = [f"evaluate.data={config.evaluate.data}", f"evaluate.checkpoint={checkpoint}"]
    words += [f"evaluate.out={out}", "evaluate.workers=0", "evaluate.gate_images=0"]
    return load_config([*words, "evaluate.splits=[test]"]).evaluate


@pytest.fixture
def checkpoint(evaluated: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(evaluated, tmp_path / "mine")


@pytest.fixture
def hub_of_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.chdir(tmp_path)
    with hub_server(tmp_path / "cache", monkeypatch) as server:
        yield server


def publish(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, *words: str, license_id: str | None = "mit"
) -> None:
    given = ["--checkpoint", str(checkpoint), *(words or ("--to", NAME))]
    given += ["--license", license_id] if license_id else []
    monkeypatch.setattr(sys, "argv", ["training.publish", *given])
    publish_command.main()


def caption(artifact: Artifact) -> str:
    pixels = to_pixels(load_image(sound()["png"], MAX_PIXELS), artifact.preprocessing)[None]
    return artifact.caption(artifact.encode(pixels), artifact.defaults)[0][0].text


def test_a_published_captioner_comes_back_byte_by_byte_and_says_the_same(
    hub_of_tests: HubServer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
):  # fmt: skip
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    publish(monkeypatch, checkpoint)
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == before
    shown = capsys.readouterr()
    commit = hub_of_tests.commits[NAME]
    assert f"/{NAME}: commit {commit}; to serve it anywhere: make serve" in shown.out
    assert f"sending {len(before)} files" in shown.err
    # Large files went where git LFS keeps them, the others into the commit.
    assert set(hub_of_tests.large.values()) == {v for v in before.values() if len(v) >= 50_000}

    folder = checkpoint_folder(NAME)
    assert {file.name for file in folder.iterdir()} == before.keys()
    for name, content in before.items():
        assert (folder / name).read_bytes() == content or name == "README.md"
    export(Export(NAME, str(tmp_path / "artifact"), "fp32", "torchscript", None))
    exported = caption(Artifact.load(tmp_path / "artifact"))
    assert exported == caption(eager_artifact(Checkpoint.load(checkpoint)))
    files = [path for path, _ in hub_of_tests.downloads()]
    assert len(files) == len(set(files)) == len(before)  # each once, and no .gitattributes


def test_the_card_says_what_the_hub_wants_to_know(
    hub_of_tests: HubServer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    record = json.loads((checkpoint / "training.json").read_text())
    record |= {"encoder": "openai/clip-vit-base-patch32", "language_model": "distilgpt2"}
    (checkpoint / "training.json").write_text(json.dumps(record))
    publish(monkeypatch, checkpoint)
    card = hub_of_tests.contents[NAME]["main"]["README.md"].decode()
    data = yaml.safe_load(card.split("---")[1])
    assert (data["license"], data["pipeline_tag"]) == ("mit", "image-to-text")
    assert data["library_name"] == "clipcap"
    assert data["base_model"] == ["openai/clip-vit-base-patch32", "distilbert/distilgpt2"]
    (results,) = data["model-index"][0]["results"]
    assert (results["task"]["type"], results["dataset"]["split"]) == ("image-to-text", "test")
    assert "cider" in {each["type"] for each in results["metrics"]}
    assert f"make serve CHECKPOINT={NAME}\n" in card
    assert "CHECKPOINT=DIR" not in card
    # Again, under another name: one section on how to use it, as before.
    (checkpoint / "README.md").write_text(card)
    publish(monkeypatch, checkpoint, "--to", "bert/birds")
    again = hub_of_tests.contents["bert/birds"]["main"]["README.md"].decode()
    assert again.replace("bert/birds", NAME) == card


def test_a_new_commit_replaces_the_files_and_branches_stay_apart(
    hub_of_tests: HubServer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    (checkpoint / "quality.json").write_text("{}")  # of weights before
    hub_of_tests.add(NAME, checkpoint)
    (checkpoint / "quality.json").unlink()
    first = hub_of_tests.commits[NAME]
    publish(monkeypatch, checkpoint, "--to", NAME, "--revision", "v2")
    assert "quality.json" in hub_of_tests.contents[NAME]["main"]
    assert "quality.json" not in hub_of_tests.contents[NAME]["v2"]
    assert checkpoint_folder(f"{NAME}@v2").name == hub_of_tests.commits[NAME]
    assert checkpoint_folder(f"{NAME}@{first}").name == checkpoint_folder(NAME).name == first


def test_a_private_repository_stays_private(
    hub_of_tests: HubServer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    publish(monkeypatch, checkpoint, "--to", NAME, "--private")
    assert hub_of_tests.private == {NAME}
    publish(monkeypatch, checkpoint, "--to", "anna/open")
    before = hub_of_tests.commits["anna/open"]
    with pytest.raises(Refusal, match="anna/open is there already and public"):
        publish(monkeypatch, checkpoint, "--to", "anna/open", "--private")
    assert hub_of_tests.commits["anna/open"] == before


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no token", r"there is no token .* HF_TOKEN or to: hf auth login"),
        ("wrong token", r"answers 403 \(You have no right .* the right to write to anna"),
        ("no evaluation", r"has no evaluation of these weights, .* training\.evaluate"),
        ("no card", r"has no README\.md; python -m training\.evaluate writes it"),
        ("no figures", r"README\.md has no figures; python -m"),
        ("no licence", r"names no licence, .* --license mit"),
        ("bad licence", r"--license is 'MIT License'; it must be an identifier"),
        ("wrong name", r"--to is 'birds'; it must be OWNER/NAME"),
        ("a branch in the name", r"--to is 'anna/birds@v2'; .* with --revision"),
        ("another file", r"also holds 2 that are no files of a checkpoint \(last\.ckpt, notes\)"),
        ("no checkpoint", r"is no checkpoint folder: it has no config\.json, no generation"),
        ("no hub", r"cannot be reached; check the network, or correct HF_ENDPOINT"),
        ("no hub's answer", r"does not answer as a Hugging Face hub does; correct HF_ENDPOINT"),
        ("a failing hub", r"answers 507 .* run the command again later"),
        ("damaged", r"does not hold config\.json as it was sent"),
    ],
)  # fmt: skip
def test_what_cannot_be_published_is_one_line(
    fault: str, words: str, hub_of_tests: HubServer, checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    given, license_id = ["--to", NAME], "mit"
    if fault == "no token":
        monkeypatch.delenv("HF_TOKEN")
    elif fault == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    elif fault == "no evaluation":
        (checkpoint / "evaluation.json").unlink()
    elif fault == "no card":
        (checkpoint / "README.md").unlink()
    elif fault == "no figures":
        (checkpoint / "README.md").write_text("# Mine\n")
    elif fault == "no licence":
        license_id = ""
    elif fault == "bad licence":
        license_id = "MIT License"
    elif fault == "wrong name":
        given = ["--to", "birds"]
    elif fault == "a branch in the name":
        given = ["--to", f"{NAME}@v2"]
    elif fault == "another file":
        (checkpoint / "last.ckpt").touch()
        (checkpoint / "notes").mkdir()
    elif fault == "no checkpoint":
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()
    elif fault == "no hub":
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    elif fault == "no hub's answer":
        monkeypatch.setattr(hub_of_tests, "_create", lambda _: (200, {}, b"<html>"))
    elif fault == "a failing hub":
        hub.is_unreachable(hub_of_tests.server.address)
        hub_of_tests.server.answers.append(507)
    elif fault == "damaged":
        hub_of_tests.damage.add("config.json")
    with pytest.raises(Refusal, match=words) as caught:
        publish(monkeypatch, checkpoint, *given, license_id=license_id)
    assert len(str(caught.value).splitlines()) == 1
    assert fault == "damaged" or "config.json" not in str(hub_of_tests.contents)


def test_only_names_go_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "one").mkdir(parents=True)
    assert hub_name("anna/birds") == ("anna/birds", None)
    assert hub_name("anna/birds@v2/x") == ("anna/birds", "v2/x")
    for folder in ("here/one", "here/two", "models/mine", "build/mine", "birds", "/tmp/mine",
                   "./mine", "../mine", "a/b/c", "anna/..", "~/mine"):  # fmt: skip
        assert hub_name(folder) is None, folder
        assert checkpoint_folder(folder) == Path(folder)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("anna/none", r"anna/none is no folder here, and http://.*/anna/none is not there or priv"),
        ("anna/gated", r"anna/gated is gated: accept its terms there, and give your token"),
        ("anna/birds@v9", r"anna/birds has no branch, tag or commit 'v9'"),
        ("anna/clip", r"holds no captioner of this project: it has no generation_config\.json, no"),
    ],
)
def test_a_name_that_gives_no_captioner_is_one_line(
    given: str, words: str, hub_of_tests: HubServer, checkpoint: Path, tmp_path: Path
):
    hub_of_tests.add(NAME, checkpoint)
    hub_of_tests.add("anna/clip", checkpoint, ["config.json", "model.safetensors"])
    hub_of_tests.gated.add("anna/gated")
    with pytest.raises(Refusal, match=words) as caught:
        checkpoint_folder(given)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(Refusal, match=words):
        export(Export(given, str(tmp_path / "artifact"), "fp32", "torchscript", None))


def test_without_network_the_cache_is_taken_and_said(
    hub_of_tests: HubServer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    hub_of_tests.add(NAME, checkpoint)
    folder = checkpoint_folder(NAME)
    hub_of_tests.server.asked.clear()
    capsys.readouterr()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert checkpoint_folder(NAME) == folder
    assert f"note: HF_HUB_OFFLINE forbids asking the hub; {NAME} is" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert checkpoint_folder(NAME) == folder
    assert "http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err
    (folder / "tokenizer.json").unlink()
    with pytest.raises(Refusal, match="not whole in .*, and http://127.0.0.1:9 cannot be reached"):
        checkpoint_folder(NAME)
    assert hub_of_tests.server.asked == []


def test_neither_code_nor_pickles_are_fetched(hub_of_tests: HubServer, checkpoint: Path):
    for name in ("modeling.py", "pytorch_model.bin", "optimizer.pt"):
        (checkpoint / name).write_bytes(b"\x80")
    hub_of_tests.add(NAME, checkpoint)
    found = {file.name for file in checkpoint_folder(NAME).iterdir()}
    assert found <= {*REQUIRED, *OPTIONAL}
    assert len(found) == len(list(checkpoint.iterdir())) - 3


def test_a_training_goes_on_from_a_name(
    hub_of_tests: HubServer, checkpoint: Path, variant: Variant, no_score: None
):
    hub_of_tests.add(NAME, checkpoint)
    train(variant(init=NAME, epochs=1, learning_rate=1e-9))
    config = variant(init=NAME)
    trained, before = weights(config.train.out), weights(checkpoint)
    assert all(torch.allclose(trained[name], before[name], atol=1e-5) for name in before)
    assert Checkpoint.load(config.train.out).training["started_from"] == NAME


def test_what_is_on_the_hub_is_evaluated_and_left_as_it_is(
    hub_of_tests: HubServer, checkpoint: Path, tiny_run: Config, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.setattr("training.evaluation.scores.scoring._meteor", lambda *_: 0.0)
    hub_of_tests.add(NAME, checkpoint)
    folder = checkpoint_folder(NAME)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    evaluate(evaluation(tiny_run, NAME, tmp_path / "report"))
    assert (tmp_path / "report" / "metrics.json").exists()
    assert f"note: {NAME} is on the hub, so its model card stays" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with pytest.raises(Refusal, match="anna/birds is no folder here; a quality head is written"):
        learn(load_config([f"quality.checkpoint={NAME}"]))


def test_make_serve_takes_a_name(
    hub_of_tests: HubServer, checkpoint: Path, capfd: pytest.CaptureFixture[str]
):
    hub_of_tests.add(NAME, checkpoint)
    chosen = Captioner.asked_for(Path(f"{NAME}@main"), None, "fp32")
    assert chosen.checkpoint == checkpoint_folder(NAME)
    assert chosen.name == f"{NAME}@main in fp32"
    assert chosen.origin == "from the Hugging Face hub"
    identity = chosen.identity()
    with pytest.raises(ServeError, match="looking for anna/none failed with status 1"):
        Captioner.asked_for(Path("anna/none"), None, None)
    assert "error: anna/none is no folder here, and http" in capfd.readouterr().err
    with pytest.raises(ServeError, match="failed with status 1"):
        Captioner.asked_for(Path("models/none"), None, None)
    assert "models/none does not exist; give a checkpoint folder or OWN" in capfd.readouterr().err
    # Another commit is another captioner.
    (checkpoint / "training.json").write_text("{}")
    hub_of_tests.add(NAME, checkpoint)
    assert Captioner.asked_for(Path(f"{NAME}@main"), None, "fp32").identity() != identity


def test_the_shipped_captioner_has_only_files_that_are_published():
    folder = ROOT / "training" / "pretrained" / "scenes-captioner"
    assert {file.name for file in folder.iterdir()} == {*REQUIRED, *OPTIONAL}
