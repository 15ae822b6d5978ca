"""Captions and features as batches: padding, end token, cut, order, what is left out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from model.network.captioner import IGNORED
from model.refusal import Refusal
from tests.models import PREPROCESSING
from training.captioner.data import CaptionDataModule, TokenizedCaptions
from training.captioner.tokenizer import END, train_tokenizer
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.encoding.feature_file import EncoderIdentity, FeatureFile
from training.encoding.feature_shards import writing_features

CAPTIONS = {
    4: ["two red boats", "boats"],
    6: ["a bird over a snowy lake"],
    9: ["a small house", "a house by the road", "house"],
    11: [],
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([text for texts in CAPTIONS.values() for text in texts], 300)


@pytest.fixture
def dataset(tmp_path: Path) -> CaptionDataset:
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in CAPTIONS]
    annotations = [
        {"image_id": i, "caption": text} for i, texts in CAPTIONS.items() for text in texts
    ]
    coco = {"images": images, "annotations": annotations}
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    splits = {"train": [9, 4, 6], "none": [11]}
    (tmp_path / "split.json").write_text(json.dumps(splits))
    return CaptionDataset.load(tmp_path)


def features_of(folder: Path, ids: list[int]) -> FeatureFile:
    """Features that say whose they are: image id, image id, image id."""
    encoder = EncoderIdentity("clip", "ab", (3,), PREPROCESSING)
    with writing_features(folder, encoder, [{}]) as writer, writer.shard(0) as rows:
        rows.add(ids, np.repeat(np.array(ids, np.float32)[:, None], 3, 1))
    return FeatureFile(folder)


def tokenized(
    dataset: CaptionDataset, tokenizer: Tokenizer, ids: list[int], max_tokens: int = 40
) -> TokenizedCaptions:
    file = features_of(dataset.root / "features", ids)
    rows = file.rows(dataset.ids("train"))
    end = tokenizer.token_to_id(END)
    return TokenizedCaptions(dataset, "train", file.features, rows, tokenizer, end, max_tokens)


def test_each_caption_stands_with_its_own_image_s_feature(
    dataset: CaptionDataset, tokenizer: Tokenizer
):
    captions = tokenized(dataset, tokenizer, [4, 6, 9, 11])
    features, owners, labels = captions[list(range(len(captions)))]
    found = [
        (int(feature[0]), tokenizer.decode(line[line != IGNORED].tolist()).strip())
        for feature, line in zip(features[owners], labels, strict=True)
    ]
    assert len(features) == 3  # each image once
    assert found == [(i, text) for i in (9, 4, 6) for text in CAPTIONS[i]]
    assert features.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_the_end_token_follows_every_caption_and_ignored_places_follow_it(
    dataset: CaptionDataset, tokenizer: Tokenizer
):
    captions = tokenized(dataset, tokenizer, [4, 6, 9])
    *_, labels = captions[list(range(len(captions)))]
    end = tokenizer.token_to_id(END)
    texts = [text for i in (9, 4, 6) for text in CAPTIONS[i]]
    for line, text in zip(labels.tolist(), texts, strict=True):
        ids = tokenizer.encode(text).ids
        assert line == [*ids, end] + [IGNORED] * (len(line) - len(ids) - 1)


def test_a_batch_is_as_long_as_its_own_longest_caption(
    dataset: CaptionDataset, tokenizer: Tokenizer
):
    captions = tokenized(dataset, tokenizer, [4, 6, 9])
    shortest = len(tokenizer.encode("boats").ids) + 1
    assert captions[[4]][2].shape == (1, shortest)
    longest = len(tokenizer.encode("two red boats").ids) + 1
    assert captions[[4, 3]][2].shape == (2, longest)


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_long_captions_are_cut_and_still_end(
    dataset: CaptionDataset, tokenizer: Tokenizer, longest: int
):
    captions = tokenized(dataset, tokenizer, [4, 6, 9], longest)
    *_, labels = captions[list(range(len(captions)))]
    end = tokenizer.token_to_id(END)
    assert labels.shape[1] == longest
    for line in labels.tolist():
        kept = [token for token in line if token != IGNORED]
        assert kept[-1] == end
        assert end not in kept[:-1]


def test_cut_captions_are_counted(
    dataset: CaptionDataset, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
):
    lengths = sorted(len(tokenizer.encode(text).ids) + 1 for i in (9, 4, 6) for text in CAPTIONS[i])
    tokenized(dataset, tokenizer, [4, 6, 9], lengths[-1])
    assert capsys.readouterr().err == ""
    tokenized(dataset, tokenizer, [4, 6, 9], lengths[-1] - 1)
    longer = lengths.count(lengths[-1])
    assert capsys.readouterr().err == (
        f"note: {longer} of 6 captions of split 'train' are longer than "
        f"train.max_tokens={lengths[-1] - 1} and are cut; the longest has {lengths[-1]} tokens "
        "(with the end token)\n"
    )


def test_images_left_out_of_the_features_are_left_out_here(
    dataset: CaptionDataset, tokenizer: Tokenizer
):
    captions = tokenized(dataset, tokenizer, [4, 9])
    assert list(captions.image_ids) == [9, 4]
    assert len(captions) == 5
    features, owners, _ = captions[list(range(5))]
    assert features[owners, 0].tolist() == [9, 9, 9, 4, 4]
    assert [part[:, 0].tolist() for part in captions.image_parts()] == [[9, 4]]


def test_a_split_without_any_feature_is_refused(dataset: CaptionDataset, tokenizer: Tokenizer):
    with pytest.raises(Refusal, match="no image of split 'train' has a feature; encode the data"):
        tokenized(dataset, tokenizer, [11])


def test_a_split_without_captions_is_refused(dataset: CaptionDataset, tokenizer: Tokenizer):
    file = features_of(dataset.root / "features", [11])
    with pytest.raises(Refusal, match="split 'none' of .* has images but no captions"):
        TokenizedCaptions(dataset, "none", file.features, file.rows([11]), tokenizer, 0, 40)


def test_tokens_take_two_bytes_each_on_the_disk(dataset: CaptionDataset, tokenizer: Tokenizer):
    captions = tokenized(dataset, tokenizer, [4, 6, 9])
    assert captions.tokens.dtype == np.uint16
    assert isinstance(captions.tokens, np.memmap)


def test_tokens_are_the_same_however_many_are_made_at_a_time(
    dataset: CaptionDataset, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    whole = tokenized(dataset, tokenizer, [4, 6, 9])
    monkeypatch.setattr("training.captioner.data.IMAGES_TOKENISED_TOGETHER", 1)
    by_image = tokenized(dataset, tokenizer, [4, 6, 9])
    for name in ("tokens", "starts", "owners"):
        assert np.array_equal(getattr(by_image, name), getattr(whole, name)), name


def test_training_visits_every_caption_once_and_validation_in_order(
    dataset: CaptionDataset, tokenizer: Tokenizer
):
    captions = tokenized(dataset, tokenizer, [4, 6, 9])
    settings = dataclasses.replace(load_config().train, batch_size=4)
    module = CaptionDataModule(captions, captions, settings)
    trained, watched = list(module.train_dataloader()), list(module.val_dataloader())
    assert [len(labels) for _, _, labels in trained] == [4, 2]
    owners = [int(i) for features, owners, _ in watched for i in features[owners, 0]]
    assert owners == [9, 9, 9, 4, 4, 6]
    seen = [int(i) for features, owners, _ in trained for i in features[owners, 0]]
    assert sorted(seen) == sorted(owners)


def test_the_settings_of_batches_reach_them(dataset: CaptionDataset, tokenizer: Tokenizer):
    captions = tokenized(dataset, tokenizer, [4, 6, 9])
    settings = dataclasses.replace(load_config().train, bucket_batches=2, batch_size=3, workers=1)
    batches = CaptionDataModule(captions, captions, settings).train_dataloader()
    sampler = batches.sampler
    assert (sampler.window, sampler.together, batches.workers) == (2, 5, 1)
    texts = [text for i in (9, 4, 6) for text in CAPTIONS[i]]
    assert sampler.lengths is not None
    assert sampler.lengths.tolist() == [len(tokenizer.encode(text).ids) + 1 for text in texts]


def test_a_caption_that_has_the_end_token_gets_no_second_one(
    dataset: CaptionDataset, tokenizer: Tokenizer
):
    """The published captioners end at a full stop, which most captions have already."""
    file = features_of(dataset.root / "features", [4, 6, 9])
    rows = file.rows(dataset.ids("train"))
    house = tokenizer.encode("a house").ids[-1]  # the last token of two of the captions
    captions = TokenizedCaptions(dataset, "train", file.features, rows, tokenizer, house, 40)
    _, _, labels = captions[list(range(len(captions)))]
    for line in labels:
        own = line[line != IGNORED]
        assert own[-1] == house
        assert len(own) == 1 or own[-2] != house


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_goes_on_where_it_was_left_and_the_next_one_is_whole(
    dataset: CaptionDataset, tokenizer: Tokenizer, workers: int
):
    captions = tokenized(dataset, tokenizer, [4, 6, 9])
    settings = dataclasses.replace(load_config().train, batch_size=2, workers=workers)

    def epochs(module: CaptionDataModule, numbers: list[int]) -> list[list[list[int]]]:
        batches, found = module.train_dataloader(), []
        for number in numbers:
            reading = iter(batches)  # Lightning asks for it before it sets the epoch
            batches.sampler.set_epoch(number)
            found.append([labels.tolist() for _, _, labels in reading])
        return found

    whole = epochs(CaptionDataModule(captions, captions, settings), [3, 4])
    module = CaptionDataModule(captions, captions, settings)
    module.load_state_dict({"batches": 2})
    assert epochs(module, [3, 4]) == [whole[0][2:], whole[1]]
    assert whole[0] != whole[1]
