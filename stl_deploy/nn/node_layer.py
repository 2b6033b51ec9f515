"""The base of a Program's nodes as torch modules: arrays as parameters or buffers, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy.graph import program as ir


class NodeLayer(nn.Module):
    """A node with numbers. Those named in ``learned`` are parameters, the others buffers."""

    learned: tuple[str, ...] = ()

    def __init__(self, node: ir.Node) -> None:
        super().__init__()
        self.node: Any = node

    def hold(self, **arrays: Any) -> None:
        """Keep the arrays under their names; None for missing ones."""
        for name, array in arrays.items():
            tensor = None if array is None else torch.from_numpy(np.array(array))
            if name in self.learned:
                self.register_parameter(name, None if tensor is None else nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def restored(self) -> ir.Node:
        """Return the node with the present numbers."""
        arrays = {name: as_array(getattr(self, name)) for name in self.learned}
        return cast(ir.Node, replace(self.node, **arrays))


def as_array(tensor: Tensor | None) -> Any:
    """Return a copy of a tensor's values, or None."""
    return None if tensor is None else tensor.detach().cpu().numpy().copy()
