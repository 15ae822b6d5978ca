"""The pages show the results that are kept, and the held-out scores come from the real pipeline."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import capture, heldout, ood, ray_serve, readme, robustness
from benchmarks.figures import END, begin, shown_figures, write_figures
from benchmarks.machine import RESULTS, ROOT
from benchmarks.pages import table
from model.refusal import Refusal

DRIFT = ROOT / "docs" / "drift.md"


def test_the_pages_show_the_kept_results():
    for page, figures in readme.pages().items():
        assert shown_figures(page, "benchmarks.readme") == figures, (
            f"{page.name}: run python -m benchmarks.readme"
        )


@pytest.mark.parametrize("benchmark", [capture, ood, robustness], ids=lambda each: each.__name__)
def test_the_page_on_drift_shows_the_kept_results(benchmark: ModuleType):
    written = json.loads((RESULTS / "drift" / f"{benchmark.__name__[11:]}.json").read_text())
    assert shown_figures(DRIFT, benchmark.__name__) == benchmark.report(written)


def test_the_page_on_ray_serve_shows_a_kept_result():
    files = RESULTS.glob("*/ray-serve.json")
    kept = [ray_serve.report(json.loads(file.read_text())) for file in files]
    assert shown_figures(ROOT / "docs" / "ray-serve.md", "benchmarks.ray_serve") in kept


def test_every_kept_result_is_read():
    kept = {file.relative_to(RESULTS).as_posix() for file in RESULTS.rglob("*.*")}
    drift = {
        f"drift/{name}.{kind}"
        for name in ("ood", "robustness", "capture")
        for kind in ("json", "png")
    }
    kept -= drift  # which their own commands write, for the page on drift
    names = {name.rpartition("/")[2] for name in kept if "/" in name}
    of_kinds = {"decode", "drafts", "features", "gate", "gateway", "options", "serve", "train"}
    of_kinds |= {"programs", "telemetry", "ray-serve"}
    assert names <= {f"{name}.json" for name in of_kinds}
    of_all = {"load.json", "memory.json", "scenes.json", "quality.json", "quality.png"}
    of_all |= {"explanations.json", "encoders.json"}
    assert {name for name in kept if "/" not in name} <= of_all


def test_figures_go_between_the_marks(tmp_path: Path):
    page = tmp_path / "page.md"
    other = f"{begin('benchmarks.other')}\nown\n{END}"
    page.write_text(f"{other}\n{begin('benchmarks.readme')}\nold\n{END}\nb")
    figures = table({"what": "{name}", "s": "{seconds:.1f} s"}, [{"name": "x", "seconds": 1}])
    assert figures == "| what | s |\n|---|---:|\n| x | 1.0 s |"
    write_figures(page, "benchmarks.readme", figures)
    assert page.read_text() == f"{other}\n{begin('benchmarks.readme')}\n{figures}\n{END}\nb"
    assert shown_figures(page, "benchmarks.readme") == figures
    page.write_text("no marks")
    with pytest.raises(Refusal, match="lacks the marks"):
        write_figures(page, "benchmarks.readme", "")


def test_readme_takes_the_gates_and_the_load_test_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    results = shutil.copytree(readme.RESULTS, tmp_path / "results")
    for name, content in (
        ("reports/metrics.json", {"precisions": {"fp32": {"same": 1.0}}}),
        (
            "reports/loadtest/torchserve/summary.json",
            {"figures": {"median_ms": 7, "kinds": {"json": {}}}, "users": 3},
        ),
        ("model_store/clipcap.mar", "x" * 1_500_000),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "RESULTS", results)
    monkeypatch.setattr(readme, "results_folder", lambda: results / "here")
    readme.take_over()
    load = json.loads((results / "load.json").read_text())
    assert (load["median_ms"], load["users"], load["archive_mb"]) == (7, 3, 1.5)
    assert "kinds" not in load
    gate = json.loads((results / "here" / "gate.json").read_text())
    assert gate["precisions"] == {"fp32": {"same": 1.0}}


def test_held_out_scores_come_from_scenes_of_their_own(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The commands themselves, but in this process, which has imported everything already.
    monkeypatch.setattr(heldout, "run_command", partial(run_here, monkeypatch))
    # METEOR takes seconds to start.
    monkeypatch.setattr("training.evaluation.scores.scoring._meteor", lambda *_: 0.5)
    before = {file.name: file.read_bytes() for file in tiny_checkpoint.iterdir()}
    words = ["--count", "3", "--seed", "5", "--checkpoint", str(tiny_checkpoint)]
    run_here(monkeypatch, "benchmarks.heldout", *words, "--out", str(tmp_path))
    results = json.loads((tmp_path / "scenes.json").read_text())
    assert (results["seed"], results["scenes"]) == (5, {"test": 3, "compositional": 3})
    assert list(results["splits"]) == ["test", "compositional"]
    assert {file.name: file.read_bytes() for file in tiny_checkpoint.iterdir()} == before
    shown = readme.quality_figures(results)
    human = [f"{split['human_CIDEr']:.2f}" for split in results["splits"].values()]
    assert f"| … of one human caption against the other four | {' | '.join(human)} |" in shown
    assert "| relations: precision / recall |" in shown
    assert "on scenes of seed 5" in shown


def run_here(monkeypatch: pytest.MonkeyPatch, module: str, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [module, *words])
    importlib.import_module(module).main()


def test_a_command_that_fails_ends_the_measurement(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(Refusal, match=r"python -m training\.prepare failed with status 1"):
        heldout.run_command("training.prepare", "scenes.count=none")
    assert "scenes.count" in capfd.readouterr().err


def test_the_held_out_seed_is_not_one_of_the_pipeline():
    config = (readme.ROOT / "training" / "conf" / "config.yaml").read_text()
    assert str(heldout.SEED) not in config


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks.heldout", "--checkpoint", str(tmp_path)])
    with pytest.raises(Refusal, match="is no checkpoint folder"):
        heldout.main()
