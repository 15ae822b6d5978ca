"""The settings that a sweep varies: how they are written, and what is refused before a trial."""

from __future__ import annotations

import pytest

from model.refusal import Refusal
from training.config import load_config
from training.sweeping.space import Dimension, read_search


def dimensions(*words: str) -> dict[str, Dimension]:
    found = read_search(["sweep.space=[]", *words]).dimensions
    return {each.key: each for each in found}


def test_words_for_sweeps_are_hydras():
    found = dimensions(
        "train.batch_size=64,128",
        "train.mapper.kind=choice(mlp,linear)",
        "train.gpt2.layers=range(1,4)",
        "train.word_dropout=interval(0.0,0.3)",
        "train.learning_rate=tag(log,interval(1e-4,1e-2))",
        "train.max_tokens=int(interval(20,40))",
        "train.pair_prior=choice([],[red,blue])",
    )
    assert found["train.batch_size"].choices == ("64", "128")
    assert found["train.mapper.kind"].choices == ("mlp", "linear")
    assert found["train.gpt2.layers"].choices == ("1", "2", "3")
    assert found["train.pair_prior"].choices == ("[]", "[red,blue]")
    dropout, rate = found["train.word_dropout"], found["train.learning_rate"]
    assert (dropout.low, dropout.high, dropout.log) == (0.0, 0.3, False)
    assert (rate.low, rate.high, rate.log) == (1e-4, 1e-2, True)
    assert found["train.max_tokens"].whole
    assert found["train.max_tokens"].ends == ["train.max_tokens=20", "train.max_tokens=40"]


def test_the_command_line_goes_before_the_space_of_the_file():
    search = read_search(["sweep=scenes", "train.learning_rate=1e-3", "train.batch_size=32,64"])
    keys = {each.key for each in search.dimensions}
    assert "train.learning_rate" not in keys
    assert {"train.batch_size", "train.word_dropout"} <= keys
    assert search.fixed == ["sweep=scenes", "train.learning_rate=1e-3"]
    assert search.config.train.learning_rate == 1e-3
    assert search.trials == load_config().sweep.trials


def test_a_grid_has_a_trial_for_each_combination():
    words = ["train.batch_size=32,64", "train.epochs=1,2,3", "sweep.sampler=grid"]
    assert read_search(["sweep.space=[]", *words]).trials == 6


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.batch_size=64", "nothing is varied; name a space with sweep=NAME, or vary"),
        ("train.batch_size=0,64", "train.batch_size is 0; it must be at least 1"),
        ("train.bach_size=32,64", "settings: .*bach_size"),
        ("train.learning_rate=choice(", "'train.learning_rate=choice\\(' cannot be read"),
        ("train.word_dropout=interval(0.3,0.1)", "the first end of an interval must be the lower"),
        ("train.word_dropout=tag(log,interval(0.0,0.1))", "logarithmic interval must be above 0"),
        ("scenes.count=100,200", "scenes.count cannot be varied: the trials are compared by"),
        ("train.out=a,b", "train.out cannot be varied"),
        (
            "sweep.space=['train.epochs=3']",
            "sweep.space has 'train.epochs=3', which varies nothing",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_line(word: str, message: str):
    with pytest.raises(Refusal, match=message) as caught:
        read_search(["sweep.space=[]", word] if "sweep" not in word else [word])
    assert len(str(caught.value).splitlines()) == 1


def test_an_interval_has_no_grid():
    with pytest.raises(Refusal, match="sweep.sampler is grid, but .* has no end of values"):
        read_search(["sweep.sampler=grid", "train.word_dropout=interval(0.0,0.1)"])
