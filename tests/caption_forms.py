"""Invented data sets in the forms of public ones: the same names of files, columns and fields."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.pictures import encoded

#: Names of two pictures, as those of Flickr8k are.
TWO = ("1000268201_693b08cb0e", "1001773457_577c3a7d70")


@dataclasses.dataclass
class Made:
    """What was made in a folder, and what is to be read there.

    Attributes:
        recognised: What the form is called.
        captions: Path of each picture -> its captions.
        splits: Path -> split, where the data set tells it.
        faults: One line for each.
        left_out: What is left out and counted.
        settings: Arguments of `recognise`.
        overrides: The same as settings of the block `folder`.
    """

    recognised: str
    captions: dict[str, list[str]]
    splits: dict[str, str] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)


def numbered(file: Path, number: int | None = None) -> Path:
    """A picture file of its own colour; its name decides where no number does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(hash(file.as_posix()) if number is None else number))
    return file


def png(number: int) -> bytes:
    """A picture file that no other number below 2^24 gives."""
    colour = (number >> 16 & 255, number >> 8 & 255, number & 255)
    return encoded(Image.new("RGB", (12, 12), colour), "PNG")


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file, with its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def pictures(folder: Path, *names: str) -> None:
    """Picture files with these paths."""
    for name in names:
        numbered(folder / name)


def lora(folder: Path) -> Made:
    pictures(folder, "10_boat/IMG_1.PNG", "10_boat/more/IMG_2.png", "10_boat/IMG_3.png")
    (folder / "10_boat/IMG_1.txt").write_text("a red boat, sunset\n")
    (folder / "10_boat/more/IMG_2.txt").write_text("a boat in fog")
    return Made(
        "text beside each picture",
        {"10_boat/IMG_1.PNG": ["a red boat, sunset"], "10_boat/more/IMG_2.png": ["a boat in fog"]},
    )


def lora_caption(folder: Path) -> Made:
    pictures(folder, "a.png", "b.png")
    (folder / "a.caption").write_text("a red boat\n")
    (folder / "b.caption").write_text("a tree\n")
    return Made("text beside each picture", {"a.png": ["a red boat"], "b.png": ["a tree"]})


def lines_beside(folder: Path) -> Made:
    pictures(folder, "train/a.png", "val/b.png")
    (folder / "train/a.txt").write_text("a boat\na ship\n")
    (folder / "val/b.txt").write_text("a tree\nan oak\n")
    return Made(
        "text beside each picture",
        {"train/a.png": ["a boat", "a ship"], "val/b.png": ["a tree", "an oak"]},
        {"train/a.png": "train", "val/b.png": "val"},
        settings={"each_line": True},
        overrides={"text_lines": "each"},
    )


def img2dataset(folder: Path) -> Made:
    made = {}
    for key, text in (("000000000", "a boat"), ("000000002", "a tree")):
        pictures(folder, f"00000/{key}.png")
        (folder / f"00000/{key}.txt").write_text(text)
        fields = {"caption": text, "url": "https://example.org/x", "key": key, "status": "success"}
        write_json(folder / f"00000/{key}.json", {**fields, "error_message": None, "width": 12})
        made[f"00000/{key}.png"] = [text]
    pictures(folder, "00000/000000003.png")
    (folder / "00000/000000003.txt").write_text("")
    write_json(folder / "00000_stats.json", {"count": 4, "successes": 3, "failed_to_download": 1})
    return Made("img2dataset files", made, left_out={"pictures whose text file is empty": 1})


def image_folder(kind: str) -> Callable[[Path], Made]:
    def write(folder: Path) -> Made:
        said, splits = {}, {}
        for split, own in (("train", "train"), ("validation", "val"), ("test", "test")):
            rows = []
            for number in range(2):
                name = f"{number:04d}.png"
                pictures(folder, f"{split}/{name}")
                said[f"{split}/{name}"] = [f"{split} boat, {number}"]
                splits[f"{split}/{name}"] = own
                rows.append({"file_name": name, "text": f"{split} boat, {number}"})
            file = folder / split / f"metadata.{kind}"
            if kind == "csv":
                lines = [f'{row["file_name"]},"{row["text"]}"\n' for row in rows]
                file.write_text("file_name,text\n" + "".join(lines))
            elif kind == "jsonl":
                file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            else:
                pyarrow = pytest.importorskip("pyarrow")
                pytest.importorskip("pyarrow.parquet")

                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return Made("Hugging Face image folder", said, splits)

    return write


def _table(first: int, captions: list[Any], **more: Any) -> Any:
    pyarrow = pytest.importorskip("pyarrow")

    rows = [
        {"image": {"bytes": png(first + n), "path": f"{n}.png"}, "caption": caption, **more}
        for n, caption in enumerate(captions)
    ]
    return pyarrow.Table.from_pylist(rows)


def parquet(folder: Path) -> Made:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    (folder / "data").mkdir(parents=True)
    said, splits = {}, {}
    for first, split in enumerate(("train", "validation", "test")):
        name = f"data/{split}-00000-of-00001-0a1b2c.parquet"
        table = _table(10 * first, [["a boat", "a ship"], ["a tree"], ["an owl"]], filename="x.jpg")
        pyarrow.parquet.write_table(table, folder / name, row_group_size=2)
        for row, captions in enumerate((["a boat", "a ship"], ["a tree"], ["an owl"])):
            said[f"{name}#{row}"] = captions
            splits[f"{name}#{row}"] = "val" if split == "validation" else split
    return Made("Parquet with captions", said, splits)


def parquet_img2dataset(folder: Path) -> Made:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"key": f"{n:09d}", "jpg": content, "txt": text, "url": "https://x", "status": status}
        for n, (content, text, status) in enumerate(
            [
                (png(1), "a boat", "success"),
                (None, None, "failed_to_download"),
                (png(2), "a tree", "success"),
            ]
        )
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "00000.parquet")
    return Made(
        "Parquet with captions",
        {"00000.parquet#0": ["a boat"], "00000.parquet#2": ["a tree"]},
        left_out={"rows whose status is not success": 1},
    )


def saved_to_disk(folder: Path) -> Made:
    pyarrow = pytest.importorskip("pyarrow")

    said, splits = {}, {}
    for first, split in enumerate(("train", "validation")):
        place = folder / split
        place.mkdir(parents=True)
        table = _table(50 + 10 * first, ["a boat", "a tree", "an owl"])
        name = "data-00000-of-00001.arrow"
        with pyarrow.ipc.new_stream(str(place / name), table.schema) as writer:
            for batch in table.to_batches(max_chunksize=2):
                writer.write_batch(batch)
        write_json(place / "state.json", {"_data_files": [{"filename": name}], "_split": split})
        write_json(place / "dataset_info.json", {"features": {}})
        for row, text in enumerate(("a boat", "a tree", "an owl")):
            said[f"{split}/{name}#{row}"] = [text]
            splits[f"{split}/{name}#{row}"] = "val" if split == "validation" else split
    write_json(folder / "dataset_dict.json", {"splits": ["train", "validation"]})
    return Made("Hugging Face datasets, save_to_disk", said, splits)


def flickr8k(folder: Path) -> Made:
    pictures(folder, *(f"Images/{name}.png" for name in TWO))
    (folder / "captions.txt").write_text(
        "image,caption\n"
        f"{TWO[0]}.png,A child climbs a set of stairs .\n"
        f'{TWO[0]}.png,"A girl in a pink dress , going into a wooden cabin ."\n'
        f"{TWO[1]}.png,A black dog and a spotted dog are fighting\n"
    )
    said = {
        f"Images/{TWO[0]}.png": [
            "A child climbs a set of stairs .",
            "A girl in a pink dress , going into a wooden cabin .",
        ],
        f"Images/{TWO[1]}.png": ["A black dog and a spotted dog are fighting"],
    }
    return Made("Flickr8k captions.txt", said)


def flickr8k_token(folder: Path) -> Made:
    pictures(folder, *(f"Flicker8k_Dataset/{name}.png" for name in (*TWO, "3", "4")))
    token = folder / "Flickr8k_text"
    token.mkdir(parents=True)
    (token / "Flickr8k.token.txt").write_text(
        "".join(
            f"{name}.png#{number}\tA {kind} , seen {number} .\n"
            for name, kind in ((TWO[0], "dog"), (TWO[1], "boat"), ("3", "cat"), ("4", "cow"))
            for number in range(2)
        )
        + "2258277193_586949ec62.jpg.1#0\tA picture that is not there .\n"
    )
    for split, name in (("train", TWO[0]), ("dev", TWO[1]), ("test", "3")):
        (token / f"Flickr_8k.{split}Images.txt").write_text(f"{name}.png\n")
    names = {TWO[0]: ("dog", "train"), TWO[1]: ("boat", "val"), "3": ("cat", "test")}
    return Made(
        "Flickr token file",
        {
            f"Flicker8k_Dataset/{name}.png": [f"A {kind} , seen {n} ." for n in range(2)]
            for name, (kind, _) in names.items()
        },
        {f"Flicker8k_Dataset/{name}.png": split for name, (_, split) in names.items()},
        left_out={"captions of pictures that are in no list of a split": 3},
    )


def flickr30k(folder: Path) -> Made:
    pictures(folder, "flickr30k_images/1000092795.png", "flickr30k_images/2199200615.png")
    (folder / "results.csv").write_text(
        "image_name| comment_number| comment\n"
        "1000092795.png| 0| Two young guys look at their hands .\n"
        '1000092795.png| 1| "Two" men , in green | shirts\n'.replace(" | shirts", " shirts")
        + "2199200615.png| 3| A dog runs .\n"
        "2199200615.png| 4   A dog runs across the grass .\n"
    )
    return Made(
        "Flickr30k results.csv",
        {
            "flickr30k_images/1000092795.png": [
                "Two young guys look at their hands .",
                '"Two" men , in green shirts',
            ],
            "flickr30k_images/2199200615.png": ["A dog runs ."],
        },
        faults=["results.csv line 5: has 2 fields between '|', not 3"],
    )


def flickr30k_token(folder: Path) -> Made:
    pictures(folder, "flickr30k-images/1000092795.png")
    (folder / "results_20130124.token").write_text(
        '1000092795.png#0\tTwo men , "friends" , look at their hands .\n'
        "1000092795.png#1\tTwo men .\n1000092795.png#2\tTwo men .\n"
    )
    said = ['Two men , "friends" , look at their hands .', "Two men .", "Two men ."]
    return Made("Flickr token file", {"flickr30k-images/1000092795.png": said})


def karpathy(*images: dict[str, Any], dataset: str) -> Callable[[Path], Made]:
    def write(folder: Path) -> Made:
        said, splits, left_out, entries = {}, {}, {}, []
        for number, image in enumerate(images):
            raw = [f"picture {number} seen once", f"picture {number} seen twice"]
            path = f"{image.get('filepath', 'images')}/{image['filename']}"
            pictures(folder, path)
            sentences = [{"tokens": text.split(), "raw": text, "sentid": 0} for text in raw]
            if not number:
                sentences.append({"tokens": [], "raw": "", "sentid": 9})
                left_out = {"captions that are empty": 1}
            entries.append({**image, "imgid": number, "sentids": [0], "sentences": sentences})
            said[path] = raw
            splits[path] = image["split"].replace("restval", "train")
        write_json(folder / f"dataset_{dataset}.json", {"images": entries, "dataset": dataset})
        return Made("Karpathy's JSON", said, splits, left_out=left_out)

    return write


def blip(folder: Path) -> Made:
    said, splits = {}, {}
    for first, split in enumerate(("train", "val", "test")):
        name = f"val2014/COCO_val2014_{first:012d}.png"
        pictures(folder, name)
        texts = [f"a boat {split}", f"a ship {split}"]
        item = {"image": name, "image_id": f"coco_{first}"}
        one = [{**item, "caption": text} for text in texts]
        write_json(
            folder / f"coco_karpathy_{split}.json",
            one if split == "train" else [{"image": name, "caption": texts}],
        )
        said[name], splits[name] = texts, split
        if split != "train":  # BLIP's references for scoring, without names of files
            truth = {
                "images": [{"id": first}],
                "annotations": [{"image_id": first, "caption": "x"}],
            }
            write_json(folder / f"coco_karpathy_{split}_gt.json", truth)
    return Made("JSON list of pictures and captions, as of BLIP and ClipCap", said, splits)


def clipcap(folder: Path) -> Made:
    names = ["train2014/COCO_train2014_000000318556.png", "val2014/COCO_val2014_000000116100.png"]
    pictures(folder, *names)
    write_json(
        folder / "annotations" / "train_caption.json",
        [
            {"image_id": "318556", "id": 48, "caption": "A clean bathroom"},
            {"image_id": "116100", "id": 67, "caption": "A panoramic view"},
            {"image_id": "318556", "id": 126, "caption": "A blue and white bathroom"},
        ],
    )
    return Made(
        "JSON list of pictures and captions, as of BLIP and ClipCap",
        {
            names[0]: ["A clean bathroom", "A blue and white bathroom"],
            names[1]: ["A panoramic view"],
        },
    )


def coco(folder: Path) -> Made:
    said, splits = {}, {}
    for split, ids in (("train", [9, 25]), ("val", [139, 285])):
        names = {i: f"{i:012d}.png" for i in (*ids, ids[0] + 1)}
        pictures(folder, *(f"{split}2017/{name}" for name in names.values()))
        write_json(
            folder / "annotations" / f"captions_{split}2017.json",
            {
                "info": {"year": 2017},
                "licenses": [{"id": 1}],
                "images": [{"license": 1, "file_name": n, "id": i} for i, n in names.items()],
                "annotations": [
                    {"image_id": i, "id": 10 * i + n, "caption": f"picture {i}, {n}"}
                    for n in range(2)
                    for i in ids
                ],
            },
        )
        instances = {"images": [{"id": 9, "file_name": "x"}], "annotations": [{"bbox": [1, 2, 3]}]}
        write_json(folder / "annotations" / f"instances_{split}2017.json", instances)
        for i in ids:
            said[f"{split}2017/{names[i]}"] = [f"picture {i}, {n}" for n in range(2)]
            splits[f"{split}2017/{names[i]}"] = split
    left_out = {"images of the file that have no caption": 2}
    return Made("COCO captions", said, splits, left_out=left_out)


def vizwiz(folder: Path) -> Made:
    said, splits = {}, {}
    for first, split in ((0, "train"), (2, "val")):
        names = [f"VizWiz_{split}_{first + n:08d}.png" for n in range(2)]
        pictures(folder, *(f"{split}/{name}" for name in names))
        note = {"is_precanned": False, "is_rejected": False, "text_detected": False}
        canned = {"is_precanned": True, "is_rejected": False, "text_detected": False}
        write_json(
            folder / "annotations" / f"{split}.json",
            {
                "info": {"version": "VizWiz-Captions 1.0"},
                "images": [
                    {"file_name": name, "vizwiz_url": "https://x", "id": first + n}
                    for n, name in enumerate(names)
                ],
                "annotations": [
                    {"caption": "a red boat", "image_id": first, "id": 5 * first, **note},
                    {
                        "caption": "Quality issues ...",
                        "image_id": first,
                        "id": 5 * first + 1,
                        **canned,
                    },
                    {
                        "caption": "spam",
                        "image_id": first,
                        "id": 5 * first + 2,
                        "is_rejected": True,
                    },
                    {
                        "caption": "Quality ...",
                        "image_id": first + 1,
                        "id": 5 * first + 5,
                        **canned,
                    },
                ],
            },
        )
        said[f"{split}/{names[0]}"] = ["a red boat"]
        splits[f"{split}/{names[0]}"] = split
    canned_words = (
        "captions that say that the picture cannot be described (is_precanned, is_rejected)"
    )
    left_out = {canned_words: 6, "images of the file that have no caption": 2}
    return Made("VizWiz-Captions", said, splits, left_out=left_out)


def nocaps(folder: Path) -> Made:
    domains = ("in-domain", "near-domain", "out-domain")
    names = [f"{n:016x}.png" for n in range(3)]
    pictures(folder, *(f"val/{name}" for name in names))
    write_json(
        folder / "nocaps_val_4500_captions.json",
        {
            "licenses": [],
            "info": {"url": "http://nocaps.org", "description": "nocaps validation dataset"},
            "images": [
                {"id": n, "open_images_id": name[:16], "file_name": name, "domain": domain}
                for n, (name, domain) in enumerate(zip(names, domains, strict=True))
            ],
            "annotations": [
                {"image_id": n, "id": 10 * n + m, "caption": f"a baby {n} {m}"}
                for n in range(3)
                for m in range(2)
            ],
        },
    )
    return Made(
        "nocaps",
        {f"val/{name}": [f"a baby {n} {m}" for m in range(2)] for n, name in enumerate(names)},
        {
            f"val/{name}": f"test_{domain.replace('-', '_')}"
            for name, domain in zip(names, domains, strict=True)
        },
    )


def textcaps(folder: Path) -> Made:
    said, splits = {}, {}
    for split in ("train", "val", "test"):
        image = f"{split[0]}0054c91397f2fe05"
        pictures(folder, f"train_images/{image}.png")
        texts = [f"a sign that says {split}", f"a shop called {split}"]
        item = {"image_id": image, "image_name": image, "image_path": f"{split}/{image}.png"}
        rows = [
            {
                **item,
                "set_name": split,
                "caption_id": n,
                "caption_str": text,
                "reference_strs": texts,
            }
            for n, text in enumerate(texts)
        ]
        if split == "test":
            rows = [{**item, "set_name": split}]
        else:
            said[f"train_images/{image}.png"], splits[f"train_images/{image}.png"] = texts, split
        data = {"dataset_type": split, "dataset_name": "textcaps", "data": rows}
        write_json(folder / f"TextCaps_0.1_{split}.json", data)
    # The pictures of the test are of no use without captions.
    (folder / "TextCaps_0.1_test.json").unlink()
    return Made("TextCaps", said, splits)


def mapping(folder: Path) -> Made:
    pictures(folder, "a.png", "b.png")
    write_json(folder / "meta.json", {"a.png": ["a boat", "a ship"], "b.png": "a tree"})
    said = {"a.png": ["a boat", "a ship"], "b.png": ["a tree"]}
    return Made("JSON object of file names and captions", said)


def own_csv(folder: Path) -> Made:
    pictures(folder, "images/IMG_0412.png", "images/IMG_0413.png")
    (folder / "captions.csv").write_text("file,caption\nIMG_0412.png,a boat\nIMG_0413.png,a tree\n")
    said = {"images/IMG_0412.png": ["a boat"], "images/IMG_0413.png": ["a tree"]}
    return Made("table of captions", said)


def several_columns(folder: Path) -> Made:
    pictures(folder, "a.png", "b.png")
    (folder / "captions.csv").write_text(
        "image;caption_0;caption_1\na.png;a boat;a ship, red\nb.png;a tree;\n"
    )
    return Made("table of captions", {"a.png": ["a boat", "a ship, red"], "b.png": ["a tree"]})


def json_lines(folder: Path) -> Made:
    pictures(folder, "a.png", "b.png")
    rows = [{"image": "a.png", "captions": ["a boat", "a ship"]}, {"image": "b.png", "text": "x"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Made("lines of JSON", {"a.png": ["a boat", "a ship"], "b.png": ["x"]})


def pack(file: Path, members: list[tuple[str, bytes]]) -> Path:
    """A tar file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def webdataset(folder: Path) -> Made:
    pack(
        folder / "00000.tar",
        [
            ("a.png", png(1)), ("a.txt", b"a boat\na ship"),
            ("b.png", png(2)), ("b.json", b'{"text": "a tree", "url": "x"}'),
            ("c.json", b'{"captions": ["an owl"]}'), ("c.png", png(3)),
        ],
    )  # fmt: skip
    return Made("WebDataset", {"a": ["a boat", "a ship"], "b": ["a tree"], "c": ["an owl"]})


def img2dataset_tar(folder: Path) -> Made:
    pack(
        folder / "00000.tar",
        [
            ("000000000.png", png(1)), ("000000000.txt", b"a boat"),
            ("000000000.json", b'{"caption": "not read", "status": "success"}'),
            ("000000001.png", png(2)), ("000000001.txt", b""),
            ("000000001.json", b'{"caption": null, "status": "success"}'),
            ("000000002.png", png(3)), ("000000002.txt", b"\n"),
            ("000000002.json", b'{"caption": "a tree"}'),
        ],
    )  # fmt: skip
    left_out = {"samples whose caption is null": 1}
    return Made("WebDataset", {"0": ["a boat"], "2": ["a tree"]}, left_out=left_out)


def dotted(folder: Path) -> Made:
    members = []
    for number, text in enumerate(("a boat", "a tree")):
        key = f"boat.v1.{number:03d}"
        members += [(f"{key}.png", png(number)), (f"{key}.txt", text.encode())]
    pack(folder / "0.tar", members)
    return Made("WebDataset", {"0": ["a boat"], "1": ["a tree"]})


def edits(folder: Path) -> Made:
    members = []
    for number, text in enumerate(("a boat", "a tree")):
        kinds = (("input.jpg", png(number)), ("output.jpg", b"x"), ("txt", text.encode()))
        members += [(f"{number}.{kind}", content) for kind, content in kinds]
    pack(folder / "0.tar", members)
    return Made("WebDataset", {"0": ["a boat"], "1": ["a tree"]})


def named_shards(folder: Path) -> Made:
    for number, name in enumerate(("train-00000", "train-00001", "val-00000")):
        pack(folder / f"{name}.tar", [("0.png", png(number)), ("0.txt", name.encode())])
    said = {name: [name] for name in ("train-00000", "train-00001", "val-00000")}
    return Made("WebDataset", said, {name: name.partition("-")[0] for name in said})


#: The same for tar files; the captions are by any name.
TARS: dict[str, Callable[[Path], Made]] = {
    "WebDataset": webdataset,
    "img2dataset": img2dataset_tar,
    "dots in keys": dotted,
    "two pictures": edits,
    "a split in each name": named_shards,
}
#: Name of each form -> what makes an example of it.
FORMS: dict[str, Callable[[Path], Made]] = {
    "CSV": own_csv,
    "CSV with several columns": several_columns,
    "JSON lines": json_lines,
    "JSON mapping": mapping,
    "text beside": lora,
    "text beside, .caption": lora_caption,
    "text beside, one a line": lines_beside,
    "img2dataset files": img2dataset,
    "img2dataset Parquet": parquet_img2dataset,
    "image folder, CSV": image_folder("csv"),
    "image folder, JSON lines": image_folder("jsonl"),
    "image folder, Parquet": image_folder("parquet"),
    "Parquet with pictures": parquet,
    "save_to_disk": saved_to_disk,
    "Flickr8k": flickr8k,
    "Flickr8k token": flickr8k_token,
    "Flickr30k": flickr30k,
    "Flickr30k token": flickr30k_token,
    "Karpathy's JSON for COCO": karpathy(
        {"filepath": "val2014", "filename": "COCO_1.png", "cocoid": 391895, "split": "test"},
        {"filepath": "val2014", "filename": "COCO_2.png", "cocoid": 60623, "split": "restval"},
        {"filepath": "train2014", "filename": "COCO_3.png", "cocoid": 3, "split": "train"},
        dataset="coco",
    ),
    "Karpathy's JSON for Flickr8k": karpathy(
        {"filename": f"{TWO[0]}.png", "split": "train"},
        {"filename": f"{TWO[1]}.png", "split": "val"},
        dataset="flickr8k",
    ),
    "Karpathy's JSON for Flickr30k": karpathy(
        {"filename": "1000092795.png", "split": "train"},
        {"filename": "10002456.png", "split": "test"},
        dataset="flickr30k",
    ),
    "BLIP": blip,
    "ClipCap": clipcap,
    "COCO in several files": coco,
    "VizWiz": vizwiz,
    "nocaps": nocaps,
    "TextCaps": textcaps,
}
