"""The page shows pictures with their captions, marks what is false, and needs nothing else."""

import dataclasses
import html.parser
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from training.evaluation.report.page import Section, Shown, figures_table, write_page
from training.evaluation.report.scores_chart import draw_chart
from training.evaluation.scores.reliability import Kept
from training.scenes.checks import SceneChecks
from training.scenes.language.statements import Claim

CHECKS = SceneChecks({})
FIGURES = {
    "test": {"CIDEr": 2.5, "human_CIDEr": 2.25, "precision": 0.975, "thing_precision": 0.99},
    "compositional": {"CIDEr": 2.0, "precision": 0.9, "thing_precision": 0.95},
}


class Page(html.parser.HTMLParser):
    """What a page holds: captions, marked words, and every address it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.said: list[str] = []
        self.marked: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.sources += [str(given[name]) for name in ("src", "href") if name in given]
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)
        if given.get("class") == "said":
            self.said.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "figure" in self.open and "ul" not in self.open and self.said:
            self.said[-1] += data
            if "mark" in self.open:
                self.marked.append(data)


@pytest.fixture
def shown(tmp_path: Path) -> list[Shown]:
    pictures = []
    for i in range(20):
        file = tmp_path / f"{i}.png"
        Image.new("RGB", (90 + i, 60), (10 * i, 80, 90)).save(file)
        pictures.append(Shown(file, f"caption {i} <b>&", [f"reference {i}"], float(i)))
    return pictures


def test_best_worst_and_sampled_pictures(shown: list[Shown], tmp_path: Path) -> None:
    file = tmp_path / "reports" / "page.html"
    write_page(
        file, "A <title>", {"test": Section(FIGURES["test"], shown)}, ["no SPICE"], 9, CHECKS
    )
    text = file.read_text()
    page = Page(text)
    assert page.open == []
    assert "is not in the picture" in text
    numbers = [int(said.split()[1]) for said in page.said]
    assert numbers[:3] == [0, 1, 2]
    assert numbers[3:6] == [19, 18, 17]
    assert len(set(numbers)) == 9
    assert page.said[0].startswith("caption 0 <b>&")
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in page.sources)
    assert "97.5%" in text
    assert "no SPICE" in text
    write_page(
        file, "A <title>", {"test": Section(FIGURES["test"], shown)}, ["no SPICE"], 9, CHECKS
    )
    assert file.read_text() == text


def test_false_words_are_marked(shown: list[Shown], tmp_path: Path) -> None:
    caption = "a red boat & a blue dog"
    false = [Claim("colour", ("red", "boat"), (2, 5)), Claim("thing", ("dog",), (20, 23))]
    file = tmp_path / "page.html"
    picture = Shown(shown[0].file, caption, [], 1.0, false, 0.5)
    write_page(file, "t", {"a b": Section({}, [picture])}, checks=CHECKS)
    page = Page(file.read_text())
    assert page.said[0].startswith(caption)
    assert page.marked == ["red", "dog"]


def test_few_pictures_are_shown_once(shown: list[Shown], tmp_path: Path) -> None:
    for count in (0, 1, 2, 5):
        write_page(tmp_path / "page.html", "t", {"test": Section({}, shown[:count])})
        assert len(Page((tmp_path / "page.html").read_text()).said) == count


def test_the_table_has_every_split() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(figures_table(FIGURES, CHECKS))
    text = captured.get()
    for word in ("test", "compositional", "human CIDEr", "2.250", "97.5%", "90.0%"):
        assert word in text


def test_the_chart_is_drawn_with_and_without_scenes(tmp_path: Path) -> None:
    photos = {"val": {"CIDEr": 0.9}}
    for name, figures, checks in (("scenes", FIGURES, CHECKS), ("photos", photos, None)):
        draw_chart(tmp_path / "plots" / f"{name}.png", figures, checks)
        with Image.open(tmp_path / "plots" / f"{name}.png") as chart:
            assert chart.height > 300


def test_a_data_set_without_checks_has_scores_and_no_word_on_truth(
    shown: list[Shown], tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    write_page(file, "t", {"val": Section({"CIDEr": 0.9, "precision": 0.5}, shown)})
    text = file.read_text()
    assert "0.900" in text
    assert "scene precision" not in text
    assert "is not in the picture" not in text


def test_captions_kept_by_quality_are_a_table_and_a_chart(
    shown: list[Shown], tmp_path: Path
) -> None:
    file, kept = tmp_path / "page.html", [Kept(1.0, 0.02, 0.861), Kept(0.5, 0.95, 0.987)]
    judged = [dataclasses.replace(each, quality=0.42) for each in shown]
    write_page(file, "t", {"test": Section({"quality_AUROC": 0.85}, judged, kept)})
    text = file.read_text()
    for word in ("quality, AUROC", "0.850", "50%", "0.95", "98.7%", "quality 0.42"):
        assert word in text
    assert text.count("data:image/png;base64,") == 1
    write_page(file, "t", {"test": Section({}, shown)})
    assert "quality" not in file.read_text()
