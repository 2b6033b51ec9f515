"""The learning rate over a training."""

from __future__ import annotations

from stl_deploy.config.schema import TrainConfig

_RISE = 0.2
_START = 0.04
"""Share of training in which one cycle rises, and where it starts, as a share of the peak."""


def learning_rate(settings: TrainConfig, epochs: float) -> float:
    """Return the rate after the given number of epochs; for ``one_cycle`` fractions of an epoch count.

    One cycle (Smith and Topin, 2018) rises linearly from a 25th of ``lr`` and falls linearly to 0.
    """
    if settings.schedule == "decay":
        return settings.lr * settings.lr_decay ** int(epochs)
    done = epochs / settings.epochs
    return settings.lr * (_START + (1 - _START) * done / _RISE if done < _RISE else (1 - done) / (1 - _RISE))
