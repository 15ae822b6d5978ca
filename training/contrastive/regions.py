"""Boxes with names: where in a picture a thing is, for the region loss of `training.clip`.

    DIR/instances.json  COCO instances: {"annotations": [{"image_id", "category_id", "bbox"}, ...],
                        "categories": [{"id", "name"}, ...]}; an annotation may carry one of
                        "attributes", such as a colour, which COCO has not.

A caption tells the image encoder that a red kite is somewhere; a box tells it where, as in
region-text pre-training (RegionCLIP, arXiv 2112.09106). Here linear layers predict the category and
the attribute of a box from the patches under it, and from the image feature together with the box;
and the number of things of each category from the image feature. The patches also tell where the
next thing is (see `training.contrastive.neighbours`). These layers exist during training
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.image.preprocessing import Preprocessing
from model.refusal import Refusal
from training.contrastive.neighbours import DIRECTIONS, Neighbours, neighbours
from training.data.dataset import CaptionDataset, read_json

#: Label of an entry without a box, or of a box without an attribute; cross-entropy ignores it.
NO_LABEL = -100
#: Largest number of things of a category that is predicted; more count as this many.
MAX_COUNT = 3


class Regions(NamedTuple):
    """The boxes of a split's pictures, padded to the largest number in one picture.

    Attributes:
        boxes: Left, top, right, bottom as fractions of the encoder's square, float [N, K, 4]; parts
            that the centre crop cuts away lie outside 0..1.
        categories: Index of the category, [N, K]; `NO_LABEL` where there is no box.
        attributes: Index of the attribute, [N, K]; `NO_LABEL` where there is none.
    """

    boxes: Tensor
    categories: Tensor
    attributes: Tensor

    def mirrored(self) -> Regions:
        """The boxes of the same pictures with left and right exchanged."""
        left, top, right, bottom = self.boxes.unbind(-1)
        return self._replace(boxes=torch.stack([1 - right, top, 1 - left, bottom], -1))


class RegionIndex:
    """`instances.json` of a data set: names of categories and attributes, and the boxes.

    Args:
        dataset: The data set; the file is in its folder.

    Raises:
        Refusal: The file is missing, is not COCO instances, or contradicts itself.
    """

    def __init__(self, dataset: CaptionDataset) -> None:
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
                        self._attribute[attributes[0]] if attributes else NO_LABEL,
                    )
                )
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(
                f"{file} is not COCO instances: missing or unknown {error}; "
                "set clip.region_weight=0 to train without boxes"
            ) from None

    @property
    def categories(self) -> int:
        """Number of categories."""
        return len(self._category)

    @property
    def attributes(self) -> list[str]:
        """The names of the attributes."""
        return list(self._attribute)

    def split(self, image_ids: Sequence[int], preprocessing: Preprocessing) -> Regions:
        """The boxes of these pictures, after the encoder's resizing and cropping."""
        most = max((len(self._of.get(i, ())) for i in image_ids), default=0)
        shape = (len(image_ids), max(most, 1))
        boxes = torch.zeros(*shape, 4)
        categories = torch.full(shape, NO_LABEL)
        attributes = torch.full(shape, NO_LABEL)
        for row, image_id in enumerate(image_ids):
            for k, (box, category, attribute) in enumerate(self._of.get(image_id, ())):
                boxes[row, k] = torch.tensor(
                    _in_square(box, *self._sizes[image_id], crop=preprocessing.crop)
                )
                categories[row, k] = category
                attributes[row, k] = attribute
        return Regions(boxes, categories, attributes)


class RegionHead(nn.Module):
    """Predicts what is in boxes: from the patches under them, and from the image feature.

    Args:
        width: Width of a patch's vector.
        feature_width: D, width of the image feature.
        grid: Patches along one side.
        categories: Number of categories.
        attributes: Number of attributes; 0 for none.
    """

    def __init__(
        self, width: int, feature_width: int, grid: int, categories: int, attributes: int
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.category = nn.Linear(width, categories)
        self.attribute = nn.Linear(width, max(attributes, 1))
        self.direction = nn.Linear(width, DIRECTIONS)
        self.offset = nn.Linear(width, 2)
        self.feature_norm = nn.LayerNorm(feature_width)
        self.count = nn.Linear(feature_width, categories * (MAX_COUNT + 1))
        self.embed_box = nn.Sequential(
            nn.Linear(4, feature_width), nn.GELU(), nn.Linear(feature_width, feature_width)
        )
        self.category_in_box = nn.Linear(feature_width, categories)
        self.attribute_in_box = nn.Linear(feature_width, max(attributes, 1))
        edges = torch.arange(grid) / grid
        self.edges: Tensor
        self.register_buffer("edges", edges, persistent=False)
        self.cell = 1 / grid

    def forward(self, patches: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of boxes, from the patches under them.

        Args:
            patches: Vectors of the patches, row by row, [B, grid * grid, width].
            boxes: As in `Regions`, [B, K, 4].

        Returns:
            Of the category [B, K, categories], of the attribute [B, K, attributes], and of where
            the next thing is [B, K, DIRECTIONS].
        """
        share = self._share(boxes)
        share = share / share.sum(-1, keepdim=True).clamp(min=1e-6)
        pooled = self.norm(share.to(patches.dtype) @ patches)
        return self.category(pooled), self.attribute(pooled), self.direction(pooled)

    def of_patches(self, patches: Tensor, regions: Regions, around: Neighbours) -> Tensor:
        """Mean losses of what is known of boxes, predicted from each single patch in them.

        A captioner attends to single patches, so each of them must carry the names.

        Args:
            patches: As for `forward`.
            regions: The boxes and their names.
            around: Where the next thing of each box is.
        """
        share = self._share(regions.boxes) / self.cell**2
        share = share * (share > 0.5)  # [B, K, P]: patches of which a box has more than half
        normal = self.norm(patches)
        total = patches.new_zeros(())
        for layer, labels in (
            (self.category, regions.categories),
            (self.attribute, regions.attributes),
            (self.direction, around.directions),
        ):
            known = share * (labels != NO_LABEL).unsqueeze(-1)
            entropies = -layer(normal).float().log_softmax(-1).transpose(1, 2)  # [B, names, P]
            target = labels.clamp(min=0).unsqueeze(-1).expand(share.shape)
            total = total + (entropies.gather(1, target) * known).sum() / known.sum().clamp(min=1)
        boxed = share * (around.directions != NO_LABEL).unsqueeze(-1)
        places = self.offset(normal).float().unsqueeze(1)  # [B, 1, P, 2]
        distances = F.smooth_l1_loss(
            places.expand(*boxed.shape, 2),
            around.offsets.unsqueeze(2).expand(*boxed.shape, 2),
            reduction="none",
        ).sum(-1)
        return total + (distances * boxed).sum() / boxed.sum().clamp(min=1)

    def of_picture(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the counts [B, C, MAX_COUNT + 1], and those of boxes as `forward` returns them.

        The attribute is predicted from the position of a box and not from the name of its thing:
        from the name, such as "dog", the usual colour of dogs could be guessed.

        Args:
            features: Image features, [B, D].
            boxes: As in `Regions`, [B, K, 4].
        """
        features = self.feature_norm(features)
        counts = self.count(features).unflatten(-1, (-1, MAX_COUNT + 1))
        in_box = F.gelu(features.unsqueeze(1) * self.embed_box(boxes))
        return counts, self.category_in_box(in_box), self.attribute_in_box(in_box)

    def loss(
        self, patches: Tensor, features: Tensor, regions: Regions
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the cross-entropies, and the accuracy of each kind of prediction, 0 to 1.

        A picture without boxes has 0 things of each category; of a batch without boxes the counts
        are the only loss.
        """
        counts, category_in_box, attribute_in_box = self.of_picture(features, regions.boxes)
        present = torch.stack(
            [(regions.categories == c).sum(1) for c in range(counts.shape[1])], dim=1
        ).clamp(max=MAX_COUNT)
        category, attribute, direction = self(patches, regions.boxes)
        around = neighbours(regions.boxes, regions.categories, NO_LABEL)
        names = {
            "category": (category, regions.categories),
            "attribute": (attribute, regions.attributes),
            "direction": (direction, around.directions),
            "picture_category": (category_in_box, regions.categories),
            "picture_attribute": (attribute_in_box, regions.attributes),
            # Most counts are 0, so those above 0 get a mean of their own, with the same weight.
            "picture_count": (counts, present.masked_fill(present == 0, NO_LABEL)),
            "picture_none": (counts, present.masked_fill(present > 0, NO_LABEL)),
        }
        total, right = self.of_patches(patches, regions, around), {}
        for name, (logits, labels) in names.items():
            known = labels != NO_LABEL
            loss = F.cross_entropy(
                logits.float().flatten(0, 1),
                labels.flatten(),
                ignore_index=NO_LABEL,
                reduction="sum",
            )
            total = total + loss / known.sum().clamp(min=1)
            hits = (logits.argmax(-1) == labels) & known
            right[name] = hits.sum() / known.sum().clamp(min=1)
        return total, right

    def _share(self, boxes: Tensor) -> Tensor:
        """Area of each patch that lies in boxes [B, K, 4], as a share of the picture, [B, K, P]."""
        across = self._overlap(boxes[..., 0], boxes[..., 2])
        down = self._overlap(boxes[..., 1], boxes[..., 3])
        return (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(2)

    def _overlap(self, low: Tensor, high: Tensor) -> Tensor:
        """Length of each of the grid's cells that lies between low and high, [B, K, grid]."""
        upper = torch.minimum(high.unsqueeze(-1), self.edges + self.cell)
        return (upper - torch.maximum(low.unsqueeze(-1), self.edges)).clamp(min=0)


def _in_square(box: list[float], width: int, height: int, crop: bool) -> list[float]:
    """A COCO box [x, y, w, h] in pixels as [left, top, right, bottom] of the encoder's square."""
    x, y, w, h = box
    if not crop:
        return [x / width, y / height, (x + w) / width, (y + h) / height]
    unit = min(width, height)
    left, top = (width - unit) / 2, (height - unit) / 2
    return [v / unit for v in (x - left, y - top, x + w - left, y + h - top)]
