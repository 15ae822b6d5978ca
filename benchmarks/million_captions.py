"""How long a million captions take to read in each form, and how much memory.

    python -m benchmarks.million_captions --lines 1000000 --pictures 200000 --folder build/million

Each form is read by `python -m training.prepare --look`, which decodes no picture: the picture
files are empty. It prints a Markdown table; memory is what reading adds to the program itself. It
needs Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

#: Reads a folder and prints seconds, those of one core, megabytes before and at the peak.
READ = """
import re, sys, time
from training.config import load_config
from training.sources.look import look
def peak():  # of this program alone: `getrusage` has that of the one that started it too
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]) // 1024
before, start, cpu = peak(), time.perf_counter(), time.process_time()
look(sys.argv[1], load_config())
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
print("MEASURED", round(wall), round(cpu), before, peak())
"""


def caption(number: int) -> str:
    """A caption of usual length that no other number gives."""
    return f"a small red boat, number {number}, lies at the old harbour wall"


def pairs(lines: int, pictures: int) -> Iterator[tuple[str, str]]:
    """Name of a picture and caption of each line."""
    for number in range(lines):
        yield f"{number * pictures // lines:08d}.jpg", caption(number)


def csv(folder: Path, lines: int, pictures: int) -> None:
    """A comma in each caption, so each is quoted."""
    with (folder / "captions.csv").open("w") as file:
        file.write("file,caption\n")
        file.writelines(f'{name},"{text}"\n' for name, text in pairs(lines, pictures))


def loose(folder: Path, lines: int, pictures: int) -> None:
    """Names in capitals, and a semicolon."""
    with (folder / "captions.csv").open("w") as file:
        file.write("file;caption\n")
        file.writelines(f"{name.upper()};{text}\n" for name, text in pairs(lines, pictures))


def json_lines(folder: Path, lines: int, pictures: int) -> None:
    """Of a Hugging Face image folder."""
    with (folder / "metadata.jsonl").open("w") as file:
        for name, text in pairs(lines, pictures):
            file.write(json.dumps({"file_name": name, "text": text}) + "\n")


def coco(folder: Path, lines: int, pictures: int) -> None:
    """The annotations are in no order, as in COCO."""
    images = [{"id": n, "file_name": f"{n:08d}.jpg", "width": 1} for n in range(pictures)]
    annotations = [
        {"id": n, "image_id": n * 7919 % pictures, "caption": caption(n)} for n in range(lines)
    ]
    with (folder / "captions.json").open("w") as file:
        json.dump({"images": images, "annotations": annotations}, file)


def karpathy(folder: Path, lines: int, pictures: int) -> None:
    """With the tokens of each sentence."""
    each = max(lines // pictures, 1)
    with (folder / "dataset.json").open("w") as file:
        file.write('{"images": [')
        for n in range(pictures):
            texts = [caption(n * each + m) for m in range(each)]
            sentences = [{"raw": text, "tokens": text.split(), "imgid": n} for text in texts]
            image = {"filename": f"{n:08d}.jpg", "split": "train", "sentences": sentences}
            file.write((", " if n else "") + json.dumps(image))
        file.write("]}")


def json_list(folder: Path, lines: int, pictures: int) -> None:
    """As of BLIP."""
    rows = [{"image": name, "caption": text} for name, text in pairs(lines, pictures)]
    (folder / "train.json").write_text(json.dumps(rows))


def parquet(folder: Path, lines: int, pictures: int) -> None:
    """Of a Hugging Face image folder."""
    import pyarrow.parquet

    names, texts = zip(*pairs(lines, pictures), strict=True)
    table = pyarrow.table({"file_name": names, "text": texts})
    pyarrow.parquet.write_table(table, folder / "metadata.parquet")


def arrow(folder: Path, lines: int, _: int) -> None:
    """With pictures of a kilobyte in it."""
    import pyarrow

    name = "data-00000-of-00001.arrow"
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")
    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", picture), ("text", pyarrow.string())])
    with pyarrow.ipc.new_stream(str(folder / name), schema) as writer:
        for first in range(0, lines, 1000):
            rows = range(first, min(first + 1000, lines))
            images = [{"bytes": bytes(1000), "path": None} for _ in rows]
            writer.write_batch(
                pyarrow.record_batch(
                    [pyarrow.array(images, picture), [caption(row) for row in rows]], schema=schema
                )
            )


def beside(folder: Path, lines: int, _: int) -> None:
    """A picture file and a text file for each line, a thousand in each folder."""
    for number in range(lines):
        place = folder / f"{number // 1000:05d}"
        if number % 1000 == 0:
            place.mkdir()
        (place / f"{number:08d}.jpg").touch()
        (place / f"{number:08d}.txt").write_text(caption(number))


def tar(folder: Path, lines: int, _: int) -> None:
    """Shards of 10000 samples."""
    for first in range(0, lines, 10_000):
        with tarfile.open(folder / f"{first // 10_000:05d}.tar", "w") as shard:
            for number in range(first, min(first + 10_000, lines)):
                for kind, content in (("jpg", b"x"), ("txt", caption(number).encode())):
                    info = tarfile.TarInfo(f"{number:09d}.{kind}")
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))


#: Name of a form -> what writes it, and whether it needs picture files.
FORMS: dict[str, tuple[Callable[[Path, int, int], None], bool]] = {
    "CSV": (csv, True),
    "CSV, names matched loosely": (loose, True),
    "JSON lines": (json_lines, True),
    "COCO": (coco, True),
    "Karpathy": (karpathy, True),
    "JSON list": (json_list, True),
    "Parquet with file names": (parquet, True),
    "save_to_disk with pictures": (arrow, False),
    "text beside pictures": (beside, False),
    "tar shards": (tar, False),
}


def main() -> None:
    """Write each form, read it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("build/million"))
    parser.add_argument("--form", choices=FORMS, action="append", help="default: all of them")
    options = parser.parse_args()
    print("| form | seconds | seconds of one core | MB of memory |\n|---|---|---|---|", flush=True)
    shutil.rmtree(options.folder, ignore_errors=True)
    for name in options.form or FORMS:
        write, needs_files = FORMS[name]
        folder = options.folder / ("with" if needs_files else "without")
        if needs_files and not folder.exists():
            (folder / "images").mkdir(parents=True)
            for number in range(options.pictures):
                (folder / "images" / f"{number:08d}.jpg").touch()
        if not needs_files:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for file in folder.iterdir():
            if file.is_file():
                file.unlink()
        write(folder, options.lines, options.pictures)
        command = [sys.executable, "-c", READ, str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, cpu, before, peak = map(int, done.stdout.rpartition("MEASURED ")[2].split())
        print(f"| {name} | {seconds} | {cpu} | {peak - before} |", flush=True)
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
