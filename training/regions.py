"""Boxes with names: where in a picture a thing is, for the region loss of `training.clip`.

    DIR/instances.json  COCO instances: {"annotations": [{"image_id", "category_id", "bbox"}, ...],
                        "categories": [{"id", "name"}, ...]}; an annotation may carry one of
                        "attributes", such as a colour, which COCO has not.

A caption tells the image encoder that a red kite is somewhere; a box tells it where to look, as
in region-text pre-training (RegionCLIP, arXiv 2112.09106). Here the patches under a box name its
category and its attribute, and so does the image feature when it is asked about a place in the
picture; it also says how many there are of each category. The layers that say so are thrown away
afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.image import Preprocessing
from model.refusal import Refusal
from training.dataset import CaptionDataset, read_json

#: Label of a place in the table where there is no box, or a box without an attribute.
NOTHING = -100
#: More of a category than this is not counted.
MOST = 3


class Regions(NamedTuple):
    """The boxes of a split's pictures, padded to the largest number in one picture.

    Attributes:
        boxes: Left, top, right, bottom in units of the encoder's square, float [N, K, 4]; parts
            that the centre crop cuts away lie outside 0..1.
        categories: Index of the category, [N, K]; `NOTHING` where there is no box.
        attributes: Index of the attribute, [N, K]; `NOTHING` where there is none.
    """

    boxes: Tensor
    categories: Tensor
    attributes: Tensor


class RegionIndex:
    """`instances.json` of a data set: its names, and the boxes of any split."""

    def __init__(self, dataset: CaptionDataset) -> None:
        """Read the file; refuse one that is missing or contradicts itself."""
        file = dataset.root / "instances.json"
        coco = read_json(file, "add COCO instances, or train without: clip.region_weight=0")
        try:
            names = [category["id"] for category in coco["categories"]]
            self._category = {number: index for index, number in enumerate(names)}
            self._sizes = {i["id"]: (i["width"], i["height"]) for i in coco["images"]}
            found = sorted({a for i in coco["annotations"] for a in i.get("attributes", ())})
            self._attribute = {name: index for index, name in enumerate(found)}
            self._of: dict[int, list[tuple[list[float], int, int]]] = {}
            for instance in coco["annotations"]:
                attributes = instance.get("attributes", ())
                if len(attributes) > 1:
                    raise Refusal(
                        f"{file}: instance {instance.get('id')} has {len(attributes)} attributes, "
                        f"{attributes}; give at most one"
                    )
                image_id = instance["image_id"]
                if image_id not in self._sizes:
                    raise Refusal(
                        f"{file}: instance {instance.get('id')} is in image {image_id!r}, which "
                        "its `images` lack; add the image, or remove the instance"
                    )
                self._of.setdefault(image_id, []).append(
                    (
                        [float(v) for v in instance["bbox"]],
                        self._category[instance["category_id"]],
                        self._attribute[attributes[0]] if attributes else NOTHING,
                    )
                )
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(
                f"{file} is not COCO instances: missing or unknown {error}; "
                "set clip.region_weight=0 to train without boxes"
            ) from None

    @property
    def categories(self) -> int:
        """How many categories there are."""
        return len(self._category)

    @property
    def attributes(self) -> list[str]:
        """The names of the attributes."""
        return list(self._attribute)

    def split(self, image_ids: list[int], preprocessing: Preprocessing) -> Regions:
        """The boxes of these pictures as the encoder sees them."""
        most = max((len(self._of.get(i, ())) for i in image_ids), default=0)
        shape = (len(image_ids), max(most, 1))
        boxes = torch.zeros(*shape, 4)
        categories = torch.full(shape, NOTHING)
        attributes = torch.full(shape, NOTHING)
        for row, image_id in enumerate(image_ids):
            for k, (box, category, attribute) in enumerate(self._of.get(image_id, ())):
                boxes[row, k] = torch.tensor(
                    _in_square(box, *self._sizes[image_id], crop=preprocessing.crop)
                )
                categories[row, k] = category
                attributes[row, k] = attribute
        return Regions(boxes, categories, attributes)


class RegionHead(nn.Module):
    """Names what is in a box from the patches under it, and in the picture from its feature.

    Args:
        width: Of a patch's vector.
        feature_width: D, of the image feature.
        grid: Patches along one side.
        categories: How many names there are.
        attributes: How many attributes, 0 for none.
    """

    def __init__(
        self, width: int, feature_width: int, grid: int, categories: int, attributes: int
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.category = nn.Linear(width, categories)
        self.attribute = nn.Linear(width, max(attributes, 1))
        self.feature_norm = nn.LayerNorm(feature_width)
        self.count = nn.Linear(feature_width, categories * (MOST + 1))
        self.place = nn.Sequential(
            nn.Linear(4, feature_width), nn.GELU(), nn.Linear(feature_width, feature_width)
        )
        self.category_there = nn.Linear(feature_width, categories)
        self.attribute_there = nn.Linear(feature_width, max(attributes, 1))
        edges = torch.arange(grid) / grid
        self.register_buffer("edges", edges, persistent=False)
        self.cell = 1 / grid

    def forward(self, patches: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K, categories] and [B, K, attributes] of boxes.

        Args:
            patches: Vectors of the patches, row by row, [B, grid * grid, width].
            boxes: As in `Regions`, [B, K, 4].
        """
        across = self._overlap(boxes[..., 0], boxes[..., 2])
        down = self._overlap(boxes[..., 1], boxes[..., 3])
        share = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(2)
        share = share / share.sum(-1, keepdim=True).clamp(min=1e-6)
        pooled = self.norm(share.to(patches.dtype) @ patches)
        return self.category(pooled), self.attribute(pooled)

    def of_picture(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the counts [B, C, MOST + 1], and of boxes as `forward` gives them.

        The feature is asked by place and not by name ("what colour is the dog?"): a name invites
        to answer what colour dogs usually have.

        Args:
            features: Of the pictures, [B, D].
            boxes: As in `Regions`, [B, K, 4].
        """
        features = self.feature_norm(features)
        counts = self.count(features).unflatten(-1, (-1, MOST + 1))
        there = F.gelu(features.unsqueeze(1) * self.place(boxes))
        return counts, self.category_there(there), self.attribute_there(there)

    def loss(
        self, patches: Tensor, features: Tensor, regions: Regions
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the cross-entropies, and how often each kind of name is right.

        A picture without boxes has none of any category; a batch without boxes teaches only that.
        """
        counts, category_there, attribute_there = self.of_picture(features, regions.boxes)
        present = torch.stack(
            [(regions.categories == c).sum(1) for c in range(counts.shape[1])], dim=1
        ).clamp(max=MOST)
        category, attribute = self(patches, regions.boxes)
        names = {
            "category": (category, regions.categories),
            "attribute": (attribute, regions.attributes),
            "picture_category": (category_there, regions.categories),
            "picture_attribute": (attribute_there, regions.attributes),
            # Of most categories there is none: those that are there weigh as much together.
            "picture_count": (counts, present.masked_fill(present == 0, NOTHING)),
            "picture_none": (counts, present.masked_fill(present > 0, NOTHING)),
        }
        total, right = patches.new_zeros(()), {}
        for name, (logits, labels) in names.items():
            known = labels != NOTHING
            loss = F.cross_entropy(
                logits.float().flatten(0, 1),
                labels.flatten(),
                ignore_index=NOTHING,
                reduction="sum",
            )
            total = total + loss / known.sum().clamp(min=1)
            hits = (logits.argmax(-1) == labels) & known
            right[name] = hits.sum() / known.sum().clamp(min=1)
        return total, right

    def _overlap(self, low: Tensor, high: Tensor) -> Tensor:
        """How much of each of the grid's cells lies between, [B, K, grid]."""
        upper = torch.minimum(high.unsqueeze(-1), self.edges + self.cell)
        return (upper - torch.maximum(low.unsqueeze(-1), self.edges)).clamp(min=0)


def recoloured(pixels: Tensor, regions: Regions) -> Tensor:
    """Pictures whose boxes have other colours, the boxes of one category the same ones.

    Args:
        pixels: Normalised, [B, 3, S, S].
        regions: Their boxes.
    """
    batch, most = regions.categories.shape
    same = regions.categories.unsqueeze(2) == regions.categories.unsqueeze(1)
    first = same.int().argmax(2)  # [B, K]: the first box of the category
    colours = random_colours(batch * most).view(batch, most, 3, 3)
    colours = colours[torch.arange(batch)[:, None], first]
    middles = (torch.arange(pixels.shape[-1]) + 0.5) / pixels.shape[-1]
    left, top, right, bottom = regions.boxes.unsqueeze(-1).unbind(2)  # each [B, K, 1]
    across, down = (middles >= left) & (middles < right), (middles >= top) & (middles < bottom)
    down = down & (regions.categories != NOTHING).unsqueeze(-1)
    painted = pixels
    for k in range(most):
        inside = (down[:, k, :, None] & across[:, k, None, :]).unsqueeze(1)  # [B, 1, S, S]
        other = torch.einsum("bij,bjhw->bihw", colours[:, k], pixels)
        painted = torch.where(inside, other.to(pixels.dtype), painted)
    return painted


def random_colours(count: int) -> Tensor:
    """Matrices [count, 3, 3] for normalised RGB.

    The channels change places, are inverted half of the time, and are mixed with their mean.
    """
    places = torch.rand(count, 3).argsort(1)
    sign = torch.where(torch.rand(count, 1, 1) < 0.5, -1.0, 1.0)
    grey = torch.rand(count, 1, 1)
    return sign * ((1 - grey) * torch.eye(3)[places] + grey / 3)


def _in_square(box: list[float], width: int, height: int, crop: bool) -> list[float]:
    """A COCO box [x, y, w, h] in pixels as [left, top, right, bottom] of the encoder's square."""
    x, y, w, h = box
    if not crop:
        return [x / width, y / height, (x + w) / width, (y + h) / height]
    unit = min(width, height)
    left, top = (width - unit) / 2, (height - unit) / 2
    return [v / unit for v in (x - left, y - top, x + w - left, y + h - top)]
