"""The settings that a sweep varies, in Hydra's words for sweeps, and their check.

    train.batch_size=64,128                              one of these
    train.mapper.kind=choice(mlp,linear)                 the same
    train.gpt2.layers=range(1,4)                         1, 2 or 3
    train.word_dropout=interval(0.0,0.3)                 a number between these
    train.learning_rate=tag(log,interval(1e-4,1e-2))     the same, drawn by its logarithm
    train.max_tokens=int(interval(20,40))                a whole number

Source: hydra.cc/docs/advanced/override_grammar/extended
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import OverrideParseException

from model.refusal import Refusal
from training.captioner.settings import check_train
from training.config import Config, load_config

if TYPE_CHECKING:  # importing it takes a second
    from optuna.trial import Trial

#: Blocks of settings that a trial may vary: those that a training's validation CIDEr depends on.
BLOCKS = ("train", "features")
#: Settings that belong to the sweep itself: every trial has its own.
_OWN = ("train.data", "train.out", "train.work", "train.curves", "train.resume", "train.features",
        "train.loggers", "features.data", "features.out")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A setting that is varied.

    Attributes:
        key: The setting.
        text: The override, as it was written.
        choices: The values, as words of a command line; empty for an interval.
        low: Lower end of an interval.
        high: Its upper end.
        log: Whether it is drawn by its logarithm.
        whole: Whether its values are integers.
    """

    key: str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def ends(self) -> list[str]:
        """Every choice, or the ends of the interval, as words of a command line."""
        values = self.choices or (self._said(self.low), self._said(self.high))
        return [f"{self.key}={value}" for value in values]

    def suggest(self, trial: Trial) -> str:
        """A value that Optuna chooses, as a word of a command line."""
        if self.choices:
            return f"{self.key}={trial.suggest_categorical(self.key, self.choices)}"
        if self.whole:
            number = trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
            return f"{self.key}={number}"
        return f"{self.key}={trial.suggest_float(self.key, self.low, self.high, log=self.log)!r}"

    def word(self, value: object) -> str:
        """The word of a command line for a value that was suggested."""
        return f"{self.key}={value}"

    def _said(self, value: float) -> str:
        return str(int(value)) if self.whole else repr(float(value))


@dataclasses.dataclass(frozen=True)
class Search:
    """What a sweep does.

    Attributes:
        fixed: Words of the command line that hold for all trials.
        dimensions: The settings that are varied.
        config: All settings, with the varied ones at their defaults.
    """

    fixed: list[str]
    dimensions: list[Dimension]
    config: Config

    @property
    def grid(self) -> list[dict[str, str]]:
        """The values by key of every trial of a grid; empty for another sampler."""
        if self.config.sweep.sampler != "grid":
            return []
        keys = [each.key for each in self.dimensions]
        combinations = itertools.product(*(each.choices for each in self.dimensions))
        return [dict(zip(keys, values, strict=True)) for values in combinations]

    @property
    def trials(self) -> int:
        """How many trials there are in all."""
        return len(self.grid) or self.config.sweep.trials


def read_search(words: Sequence[str]) -> Search:
    """The search that the words of a command line ask for.

    A setting that the command line fixes or varies is left out of the space of the file.

    Raises:
        Refusal: A word cannot be read, a setting cannot be varied, or a value of it is refused.
    """
    given = _parsed(words)
    fixed = [each.input_line for each in given if not each.is_sweep_override()]
    config = load_config([str(word) for word in fixed])
    named = {each.key_or_group for each in given}
    of_file = _parsed(config.sweep.space)
    for each in of_file:
        if not each.is_sweep_override():
            raise Refusal(
                f"sweep.space has {each.input_line!r}, which varies nothing; write "
                f"{each.key_or_group}=choice(...) or interval(...)"
            )
    varied = [each for each in of_file if each.key_or_group not in named]
    varied += [each for each in given if each.is_sweep_override()]
    if not varied:
        raise Refusal(
            "nothing is varied; name a space with sweep=NAME, or vary a setting on the command "
            "line, such as train.learning_rate=1e-3,3e-3"
        )
    dimensions = [_dimension(each) for each in varied]
    search = Search([str(word) for word in fixed], dimensions, config)
    _check(search)
    return search


def _parsed(words: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except OverrideParseException as error:
        reason = error.message.splitlines()[0]
        raise Refusal(
            f"{error.override!r} cannot be read ({reason}); write key=value, or in Hydra's words "
            "for sweeps key=choice(a,b), key=range(1,4) or key=interval(0.0,1.0)"
        ) from error


def _dimension(override: Override) -> Dimension:
    key, value, text = override.key_or_group, override.value(), str(override.input_line)
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or low > high:
            raise Refusal(f"{text}: the first end of an interval must be the lower one")
        whole = isinstance(low, int) and isinstance(high, int)
        return Dimension(key, text, (), low, high, "log" in value.tags, whole)
    return Dimension(key, text, tuple(override.sweep_string_iterator()))


def _check(search: Search) -> None:
    """Try every choice and both ends of every interval, before the first trial."""
    check_train(search.config.train)
    for each in search.dimensions:
        block = each.key.partition(".")[0]
        if block not in BLOCKS or each.key in _OWN:
            raise Refusal(
                f"{each.key} cannot be varied: the trials are compared by validation CIDEr on the "
                "same data, and have folders of their own; settings of train and features can"
            )
        if search.config.sweep.sampler == "grid" and not each.choices:
            raise Refusal(
                f"sweep.sampler is grid, but {each.text} has no end of values; write "
                f"{each.key}=choice(...), or set sweep.sampler=tpe"
            )
        if each.log and each.low <= 0:
            raise Refusal(f"{each.text}: the ends of a logarithmic interval must be above 0")
    ends = [each.ends for each in search.dimensions]
    for turn in range(max(map(len, ends))):
        load_config([*search.fixed, *(words[turn % len(words)] for words in ends)])
