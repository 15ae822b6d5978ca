"""What encoding a data set costs: ours beside the original's loop.

`python -m benchmarks.features` writes JPEG files of COCO's size and a CLIP of ViT-B/32's sizes with
random weights. Then it encodes them, in turn, by `training.features` and by a loop as the original
code has it: one picture after the other, once for each of its five captions. It prints a table, and
writes `features.json` into `benchmarks/results/KIND`.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from benchmarks.decode import processes
from benchmarks.machine import ROOT, command_line, options_parser, results_folder, write_results
from benchmarks.real_size import draw_jpegs
from benchmarks.training_figures import features_table
from model.image.preprocessing import Preprocessing, to_pixels
from model.pretrained.preprocessor_config import write_preprocessing
from model.pretrained.sources import CLIP_MEAN, CLIP_STD
from model.refusal import Refusal
from training.command import command
from training.config import load_config
from training.data.dataset import CaptionDataset, Picture, write_index, writing_dataset
from training.encoding.encode_dataset import encode_dataset
from training.encoding.encoder import Encoder
from training.encoding.feature_file import FeatureFile

#: Captions of an image in COCO, and its usual size.
PER_IMAGE, SIZE = 5, (640, 480)


def write_inputs(folder: Path, images: int) -> None:
    """Write the pictures as a data set, and the encoder."""
    with writing_dataset(folder / "data") as data:
        (data / "images").mkdir()
        pictures = []
        for number, content in enumerate(draw_jpegs(SIZE, images), start=1):
            (data / "images" / f"{number}.jpg").write_bytes(content)
            texts = [f"caption {caption}" for caption in range(PER_IMAGE)]
            pictures.append(Picture(number, f"{number}.jpg", texts, "train"))
        write_index(data, "random colours", pictures)
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(projection_dim=512))
    clip.save_pretrained(folder / "clip")
    size = int(clip.config.vision_config.image_size)
    write_preprocessing(Preprocessing(size, CLIP_MEAN, CLIP_STD), folder / "clip")


def ours(folder: Path, turn: int) -> np.ndarray:
    """Features [N, D] by the project's code, with its default settings."""
    given = [f"features.data={folder / 'data'}", f"features.clip={folder / 'clip'}"]
    given += ["features.kind=pooled", f"features.out={folder / f'features-{turn}'}"]
    # As in a process that a user starts; this one comes from a fork server, which hands that on.
    multiprocessing.set_start_method("fork", force=True)
    encode_dataset(load_config(given).features)
    return np.array(FeatureFile(folder / f"features-{turn}").features[:])


def original(folder: Path) -> np.ndarray:
    """Features [N, D] by the original's loop."""
    encoder = Encoder(str(folder / "clip"))
    dataset = CaptionDataset.load(folder / "data")
    features: dict[int, np.ndarray] = {}
    for image_id in sorted(dataset.files):
        for _ in dataset.captions[image_id]:
            with Image.open(folder / "data" / "images" / f"{image_id}.jpg") as image:
                pixels = to_pixels(image.convert("RGB"), encoder.preprocessing)
            features[image_id] = encoder.encode(pixels[None])[0].numpy()
    return np.stack(list(features.values()))


def measure(folder: Path, images: int, rounds: int) -> dict[str, Any]:
    """Everything that `features.json` holds of this run."""
    seconds: dict[str, list[float]] = {"the original's loop": [], "ours": []}
    with processes({name: int for name in seconds}) as homes:
        for turn in range(rounds):
            took, theirs = homes["the original's loop"].timed(partial(original, folder))
            seconds["the original's loop"].append(took)
            took, own = homes["ours"].timed(partial(ours, folder, turn))
            seconds["ours"].append(took)
            if not np.allclose(theirs, own, atol=1e-3):
                raise Refusal(f"the features differ by {np.abs(theirs - own).max():.2g}")
    rows = [
        {
            "system": name,
            "seconds": round(statistics.median(own), 3),
            "rounds": [round(v, 3) for v in own],
        }
        for name, own in seconds.items()
    ]
    return {"images": images, "captions": PER_IMAGE * images, "measured": rows}


def main() -> None:
    """Measure; write the results, print the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--images", type=int, default=64, help="pictures to encode")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn")
    parser.add_argument("--quick", action="store_true", help="to try the command; not kept")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    for name in ("images", "rounds"):
        if getattr(options, name) < 1:
            raise Refusal(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    out = options.out or (ROOT / "build" / "features-speed" if options.quick else results_folder())
    with tempfile.TemporaryDirectory() as temporary:
        write_inputs(Path(temporary), options.images)
        results = measure(Path(temporary), options.images, options.rounds)
    write_results(out / "features.json", command_line("benchmarks.features"), results)
    print(features_table(results))


if __name__ == "__main__":
    command(main)
