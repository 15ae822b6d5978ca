"""Whether explanations point at the right place, on scenes, where the place of everything is known.

`python -m benchmarks.explanations` draws scenes with a seed that nothing was chosen by, captions
them with the exported captioner and explains the captions, as a server does (`model.explanation`).
For each thing that a caption names and the scene has, it takes the cell of the highest value and
looks whether its centre lies in the box of such a thing; and the same for the colours of things.
Beside it stand the two parts of a value alone, windows that are only shown or only hidden, and
cells drawn by chance. It writes `benchmarks/results/explanations.json` and
`docs/explanations.png`; `python -m benchmarks.readme` then shows the figures.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from benchmarks.heldout import run_command
from benchmarks.machine import RESULTS, ROOT, command_line, options_parser, write_results
from benchmarks.pages import table
from handler.replies.overlay import PictureView, contact_sheet
from model.artifact import Artifact, GeneratedCaption
from model.explanation import DEFAULT_GRID, CaptionExplanation, explain, image_count
from model.export import export_torchscript
from model.image.decode import load_image
from model.image.preprocessing import Preprocessing, to_pixels
from model.refusal import Refusal
from training.command import command
from training.scenes.language.statements import Claim, stated
from training.scenes.world.scene import Box, Scene

SEED = 20261207
SPLITS = ("test", "compositional")
#: How the value of a cell is made -> from an explanation.
METHODS = {
    "shown and hidden": lambda found: found.cells,
    "only shown": lambda found: found.shown,
    "only hidden": lambda found: found.hidden,
}
#: Kinds of claims that have a place.
KINDS = ("thing", "colour")
#: Scenes in the picture, and the images of a pass.
EXAMPLES, PASS = 4, 32


@dataclasses.dataclass(frozen=True)
class Explained:
    """One scene with its caption, explained."""

    scene: Scene
    picture: Image.Image
    caption: GeneratedCaption
    explanation: CaptionExplanation
    seconds: float  # of the explanation


def explained_scenes(artifact: Artifact, data: Path, split: str, grid: int) -> Iterator[Explained]:
    """Caption the scenes of a split and explain the captions."""
    names = {
        image["id"]: image["file_name"]
        for image in json.loads((data / "captions.json").read_text())["images"]
    }
    truth = json.loads((data / "truth.json").read_text())
    total = image_count(grid)
    parts = [range(begin, min(total, begin + PASS)) for begin in range(0, total, PASS)]
    for image_id in json.loads((data / "split.json").read_text())[split]:
        picture = load_image((data / "images" / names[image_id]).read_bytes())
        pixels = to_pixels(picture, artifact.preprocessing)
        [[caption]] = artifact.caption(artifact.encode(pixels[None]), artifact.defaults)
        begin = time.perf_counter()
        explanation = explain(
            artifact, pixels, caption, grid, parts, lambda work, each: [*map(work, each)]
        )
        seconds = time.perf_counter() - begin
        scene = Scene.from_dict(truth[str(image_id)])
        yield Explained(scene, picture, caption, explanation, seconds)


def claims_with_boxes(found: Explained) -> Iterator[tuple[Claim, Sequence[Box]]]:
    """The true claims of a caption that have a place, each with the boxes of its things."""
    boxes = {(group.colour, group.thing): group.boxes for group in found.scene.groups}
    for claim in stated(found.caption.text).claims:
        if claim.kind in KINDS:
            for (colour, thing), own in boxes.items():
                if claim.value in ((thing,), (colour, thing)):
                    yield claim, own


def words_of(found: Explained, claim: Claim) -> list[int]:
    """The numbers of the words that state a claim."""
    begin, end = claim.span
    words = enumerate(found.explanation.words)
    return [number for number, word in words if word.begin < end and word.end > begin]


def hit_cells(grid: int, boxes: Sequence[Box]) -> torch.Tensor:
    """Whether the centre of each cell lies in a box, bool [C, C].

    The captioner sees the centre square of a scene, in whose units its boxes are.
    """
    centres = (torch.arange(grid) + 0.5) / grid
    found = torch.zeros(grid, grid, dtype=torch.bool)
    for left, top, width, height in boxes:
        inside_x = (centres >= left) & (centres <= left + width)
        inside_y = (centres >= top) & (centres <= top + height)
        found |= inside_y[:, None] & inside_x
    return found


class Pointing:
    """Counts how often the highest cell is in the right place."""

    def __init__(self) -> None:
        self._claims = dict.fromkeys(KINDS, 0)
        self._hits = {kind: dict.fromkeys(METHODS, 0) for kind in KINDS}
        self._by_chance = dict.fromkeys(KINDS, 0.0)

    def add(self, found: Explained) -> None:
        """Count the claims of one scene."""
        for claim, boxes in claims_with_boxes(found):
            words = words_of(found, claim)
            grid = found.explanation.cells.shape[-1]
            hits = hit_cells(grid, boxes)
            self._claims[claim.kind] += 1
            self._by_chance[claim.kind] += hits.float().mean().item()
            for name, values in METHODS.items():
                cells = values(found.explanation)[words].sum(0)
                self._hits[claim.kind][name] += int(hits.flatten()[cells.argmax()])

    def figures(self) -> dict[str, Any]:
        """Kind of claim -> how many there were, and the fraction that each method hit."""
        return {
            kind: {
                "claims": count,
                "hits": {name: hits / max(count, 1) for name, hits in self._hits[kind].items()},
                "by_chance": self._by_chance[kind] / max(count, 1),
            }
            for kind, count in self._claims.items()
        }


def drawn_examples(examples: Sequence[Explained], preprocessing: Preprocessing) -> Image.Image:
    """Sheets of some scenes, one below the other: the words of things and colours, true or not.

    The boxes of the things are outlined in white.
    """
    sheets = []
    for found in examples:
        shown = found.picture.copy()
        draw, unit = ImageDraw.Draw(shown), min(shown.size)
        left, top = (shown.width - unit) / 2, (shown.height - unit) / 2
        for group in found.scene.groups:
            for x, y, width, height in group.boxes:
                box = (x, y, x + width, y + height)
                at = [unit * part + (left, top)[n % 2] for n, part in enumerate(box)]
                draw.rectangle(at, outline=(255, 255, 255), width=3)
        claims = [claim for claim in stated(found.caption.text).claims if claim.kind in KINDS]
        numbers = sorted({number for claim in claims for number in words_of(found, claim)})
        whole = found.explanation
        part = dataclasses.replace(
            whole,
            words=tuple(whole.words[number] for number in numbers),
            log_probs=whole.log_probs[numbers],
            blank=whole.blank[numbers],
            shown=whole.shown[numbers],
            hidden=whole.hidden[numbers],
        )
        view = PictureView.of(shown, preprocessing)
        sheets.append(Image.open(BytesIO(contact_sheet(view, found.caption.text, part))))
    size = (max(each.width for each in sheets), sum(each.height for each in sheets))
    together, at = Image.new("RGB", size, "white"), 0
    for sheet in sheets:
        together.paste(sheet, (0, at))
        at += sheet.height
    return together.quantize(256)


def explanations_section(results: Mapping[str, Any]) -> str:
    """What stands between the marks of docs/explanations.md, from the kept results."""
    titles = {"thing": "things", "colour": "colours"}
    columns = {"the highest cell lies in the thing's box": "{name}"}
    rows: dict[str, dict[str, str]] = {"claims": {"name": "how many were looked at"}}
    for name in (*METHODS, "by chance"):
        rows[name] = {"name": {"by chance": "cells drawn by chance"}.get(name, name)}
    rows["shown and hidden"]["name"] = "**as served: shown and hidden**"
    for split, kinds in results["splits"].items():
        for kind, figures in kinds.items():
            key = f"{split} {kind}"
            scenes = "scenes" if split == "test" else "unseen combinations"
            columns[f"{scenes}: {titles[kind]}"] = f"{{{key}}}"
            rows["claims"][key] = f"{figures['claims']}"
            rows["by chance"][key] = f"{figures['by_chance']:.1%}"
            for name, value in figures["hits"].items():
                rows[name][key] = f"{value:.1%}"
    return "\n".join(
        [
            table(columns, rows.values()),
            "",
            f"Grid of {results['grid']} x {results['grid']}, {results['passes']} passes a picture, "
            f"{results['seconds']:.2f} s each (median, one picture at a time). Measured with "
            f"`{results['command']}` on {results['count']} scenes of each kind with seed "
            f"{results['seed']}, {results['cores']} cores, {results['processor']}, "
            f"{results['date']}.",
        ]
    )


def main() -> None:
    """Measure, and write the results and the picture."""
    parser = options_parser(__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes")
    parser.add_argument("--count", type=int, default=150, help="scenes of each kind")
    parser.add_argument("--grid", type=int, default=DEFAULT_GRID, help="cells on a side")
    checkpoint = ROOT / "training" / "pretrained" / "scenes-captioner"
    parser.add_argument("--checkpoint", type=Path, default=checkpoint)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    picture = ROOT / "docs" / "explanations.png"
    parser.add_argument("--picture", type=Path, default=picture, help="file of the examples")
    options = parser.parse_args()
    if options.count < 1:
        raise Refusal(f"--count is {options.count}; it must be 1 or more")
    shares = "{train: 0.0, val: 0.0, test: 0.5, compositional: 0.5}"
    splits, seconds, examples = {}, [], []
    with tempfile.TemporaryDirectory() as work:
        data, folder = Path(work) / "scenes", Path(work) / "artifact"
        run_command(
            *("training.prepare", "prepare.source=scenes", f"scenes.seed={options.seed}"),
            *(f"scenes.count={2 * options.count}", f"scenes.fractions={shares}"),
            f"scenes.out={data}",
        )
        export_torchscript(options.checkpoint, folder)
        artifact = Artifact.load(folder)
        for split in SPLITS:
            pointing = Pointing()
            scenes = explained_scenes(artifact, data, split, options.grid)
            console = Console(stderr=True)
            for found in track(scenes, f"explaining {split}", options.count, console=console):
                pointing.add(found)
                seconds.append(found.seconds)
                if len(examples) < EXAMPLES:
                    examples.append(found)
            splits[split] = pointing.figures()
    results = {
        "seed": options.seed,
        "count": options.count,
        "grid": options.grid,
        "passes": image_count(options.grid),
        "seconds": sorted(seconds)[len(seconds) // 2],
        "splits": splits,
    }
    kept = write_results(
        options.out / "explanations.json", command_line("benchmarks.explanations"), results
    )
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    drawn_examples(examples, artifact.preprocessing).save(options.picture, optimize=True)
    print(explanations_section(kept))
    print(f"figures: {options.out / 'explanations.json'}, examples: {options.picture}")


if __name__ == "__main__":
    command(main)
