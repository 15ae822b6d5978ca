"""The loss on sentences turned round learns from the picture, not from the words around."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from model.network.captioner import IGNORED
from model.refusal import Refusal
from training.captioner.objectives.turned_sentences import TurnedSentences

#: Words: end, "of", the two sides, a dog that is always left, a cat and a car on either side.
END, OF, LEFT, RIGHT, DOG, CAT, CAR = range(7)
WORDS = {"left": LEFT, "right": RIGHT, "of": OF}
CAPTIONS = [
    *([[DOG, LEFT, OF, CAT, END], [DOG, LEFT, OF, CAR, END]] * 20),
    *([[CAT, LEFT, OF, CAR, END], [CAT, RIGHT, OF, CAR, END]] * 20),
]


def encode(text: str) -> list[int]:
    return [WORDS[word] for word in text.split()]


def turned_of() -> TurnedSentences:
    turned = TurnedSentences([["left of", "right of"]], encode, 7)
    turned.fit([torch.tensor(CAPTIONS)])
    return turned


def test_the_guess_is_sure_where_the_words_tell_the_side_and_even_where_they_do_not() -> None:
    labels = torch.tensor([[DOG, LEFT, OF, CAR, END], [CAT, LEFT, OF, CAR, END]])
    odds = turned_of().guess(labels, torch.tensor([1, 1]), 2, 0)
    assert odds[0] > 4
    assert odds[1].abs() < 0.3


def test_the_loss_is_that_of_the_choice_between_the_two_phrases_given_the_guess() -> None:
    turned = turned_of()
    labels = torch.tensor([[CAT, RIGHT, OF, CAR, END], [CAT, END, *[IGNORED] * 3]])
    logits = torch.randn(7, 7, requires_grad=True)
    odds = float(turned.guess(labels[:1], torch.tensor([1]), 2, 0))  # of "left of"
    with_guess = turned(logits, labels)

    expected = F.softplus(-(logits[1, RIGHT] - logits[1, LEFT] - odds))
    assert torch.allclose(turned.take_loss(), expected)
    added = with_guess - logits
    assert added[1, RIGHT].item() == pytest.approx(math.log(1 / (1 + math.exp(odds))), abs=1e-5)
    assert added[1, LEFT].item() == pytest.approx(math.log(1 / (1 + math.exp(-odds))), abs=1e-5)
    added[1, [LEFT, RIGHT]] = 0
    assert not added.any()


def test_what_the_words_tell_already_is_not_learned() -> None:
    turned = turned_of()
    gradients = []
    for word in (DOG, CAT):
        logits = torch.zeros(5, 7, requires_grad=True)
        turned(logits, torch.tensor([[word, LEFT, OF, CAR, END]]))
        turned.take_loss().backward()
        gradients.append(float(logits.grad.abs().sum()))  # type: ignore[union-attr]
    assert gradients[0] < 0.05 < 0.8 < gradients[1]


def test_captions_without_the_phrases_have_no_loss() -> None:
    turned = turned_of()
    logits = torch.randn(2, 7, requires_grad=True)
    assert torch.equal(turned(logits, torch.tensor([[CAT, END]])), logits)
    assert turned.take_loss() == 0


@pytest.mark.parametrize("pair", [["left", "left of"], ["left", "left"], ["left"]])
def test_a_pair_that_is_no_pair_is_refused(pair: list[str]) -> None:
    with pytest.raises(Refusal, match=r"train\.turned has"):
        TurnedSentences([pair], encode, 7)
