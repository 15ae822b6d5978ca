"""The exponential moving average of the weights, which is validated and saved in their place.

The average of the last steps lies closer to a minimum than the weights of any of them (Polyak and
Juditsky 1992; for networks Izmailov et al., arXiv 1803.05407). Lightning has a callback for it,
`WeightAveraging`. It is not used, for three reasons: it restores the trained weights before the
module's `on_validation_epoch_end`, where the captions are made that select the best epoch; it
copies the whole module, frozen weights and all; and it averages integer buffers too, or copies them
in every step.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

#: Where a checkpoint holds the weights that are trained; its `state_dict` holds their average.
_TRAINED = "trained_weights"


class WeightAverage(pl.Callback):
    """Keeps the moving average of all weights that are trained, and validates and saves it.

    In the first steps the decay is smaller, (1 + n) / (10 + n) after n steps, so that the random
    weights of the beginning are soon forgotten.

    Args:
        decay: Weight of the average so far in every step, from 0 to 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        #: By name: the average; while the module holds the average, the trained weights.
        self.other: dict[str, Tensor] = {}
        self.steps = 0
        self._averaged = False  # the module holds the average

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin with the present weights, or with the average of the resumed run."""
        for name, weight in _trained(module).items():
            begun = self.other.get(name, weight.detach())
            self.other[name] = begun.to(weight.device, copy=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take the weights of an optimiser step into the average."""
        if trainer.global_step == self.steps:
            return  # the gradients of this batch wait for those of the next
        self.steps = trainer.global_step
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        update = get_ema_multi_avg_fn(decay)
        update([*self.other.values()], [*_trained(module).values()], self.steps)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Validate the average."""
        self._exchange(module, averaged=True)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Train the trained weights again."""
        self._exchange(module, averaged=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average where a model's weights are looked for, and the trained ones beside."""
        before = self._averaged
        self._exchange(module, averaged=True)
        checkpoint["state_dict"] = module.state_dict()  # names of tied weights included
        checkpoint[_TRAINED] = dict(self.other)
        self._exchange(module, averaged=before)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the average and the trained weights of the run that is resumed."""
        self.other = {name: checkpoint["state_dict"][name] for name in checkpoint[_TRAINED]}
        module.load_state_dict(checkpoint[_TRAINED], strict=False)

    def state_dict(self) -> dict[str, Any]:
        """What else a resumed run must know."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.steps = state_dict["steps"]

    def _exchange(self, module: pl.LightningModule, averaged: bool) -> None:
        """Put the average, or the trained weights, into the module without a copy."""
        if averaged == self._averaged or not self.other:
            return
        for name, weight in _trained(module).items():
            weight.data, self.other[name] = self.other[name], weight.data
        self._averaged = averaged


def _trained(module: pl.LightningModule) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
