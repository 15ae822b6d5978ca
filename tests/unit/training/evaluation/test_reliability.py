"""AUROC, calibration error and the curve of captions kept, against slow obvious ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.scores.reliability import (
    SHARES,
    Judged,
    auroc,
    calibration_error,
    kept_curve,
)

CAPTIONS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.99, 1.0]), st.booleans()))


@given(CAPTIONS)
def test_auroc_is_the_share_of_pairs_in_the_right_order(captions: list[tuple[float, bool]]):
    scores, right = [score for score, _ in captions], [each for _, each in captions]
    pairs = [
        1.0 if good > bad else 0.5 if good == bad else 0.0
        for good, is_good in captions
        for bad, is_bad in captions
        if is_good and not is_bad
    ]
    expected = sum(pairs) / len(pairs) if pairs else None
    assert auroc(scores, right) == (None if expected is None else pytest.approx(expected))


def test_calibration_error_is_the_gap_of_each_bin_by_its_captions():
    scores = [0.95, 0.95, 0.95, 0.95, 0.15, 0.15]
    right = [1, 1, 1, 0, 0, 0]
    assert calibration_error(scores, right) == pytest.approx((4 * 0.2 + 2 * 0.15) / 6)
    assert calibration_error([1.0, 0.0], [1, 0]) == 0
    assert calibration_error([], []) == 0


def test_the_curve_keeps_the_highest_scores():
    curve = kept_curve([0.1, 0.9, 0.8, 0.2], [False, True, True, False])
    assert [kept.share for kept in curve] == list(SHARES[:-1])  # a tenth of four is none
    assert curve[0] == (1.0, 0.1, 0.5)
    assert curve[5] == (0.5, 0.8, 1.0)
    assert kept_curve([], []) == []


def test_figures_of_captions_that_are_all_right_have_no_auroc():
    found = Judged([0.9, 0.7], [0.5, 0.5], [True, True]).figures()
    assert found == {"quality_ECE": pytest.approx(0.2)}
