"""Locate NaN or infinity in a training run."""

from __future__ import annotations

import torch
from torch import Tensor

from stl_deploy.errors import DivergedError
from stl_deploy.nn.network import Network


def check_finite(network: Network, epoch: int) -> None:
    """Raise DivergedError if a weight, threshold or running statistic is not finite.

    A loss can stay finite then, for a NaN potential does not fire.
    """
    layer = _layer_with_bad_state(network)
    if layer is not None:
        raise _error(epoch, layer)


@torch.no_grad()
def diverged(network: Network, epoch: int, x: Tensor) -> DivergedError:
    """Return the error for a loss that is not finite on the batch ``x``, naming the first affected layer."""
    layer = _layer_with_bad_state(network)
    if layer is None:
        bad: list[str] = []

        def look(name: str, output: Tensor) -> None:
            if not bool(output.isfinite().all()):
                bad.append(name)

        network(x, look, every_layer=True)
        layer = bad[0] if bad else "vote"
    return _error(epoch, layer)


def _layer_with_bad_state(network: Network) -> str | None:
    for name, tensor in network.layers.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name.split(".")[0]
    return None


def _error(epoch: int, layer: str) -> DivergedError:
    kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
    return DivergedError(
        f"training diverged in epoch {epoch + 1}: layer '{layer}' holds NaN or infinite values; {kept}; "
        "use a smaller train.lr"
    )
