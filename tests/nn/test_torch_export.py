"""A network as a torch module passes torch's own tools: strict export, decompositions and compilation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.runtimes.networks import NETWORKS
from stl_deploy.errors import InputError
from stl_deploy.graph.run import run
from stl_deploy.nn.program_module import ProgramModule

pytestmark = [  # of torch about itself
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]


def _case(network: str) -> tuple[ProgramModule, torch.Tensor, np.ndarray]:
    program = NETWORKS[network]()
    x = (np.random.default_rng(0).random((4, 2, *program.inputs[0].shape)) < 0.4).astype(np.float32)
    module = ProgramModule(program).eval()
    return module, torch.from_numpy(x), run(program, x).y


@pytest.mark.slow
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "cells"])
def test_strict_export_computes_the_same_and_the_module_runs_after_it(network: str) -> None:
    module, x, expected = _case(network)
    exported = torch.export.export(module, (x,), strict=True)
    for runs in (exported.module(), exported.run_decompositions().module()):
        np.testing.assert_array_equal(runs(x).detach().numpy(), expected)
    np.testing.assert_array_equal(module(x).detach().numpy(), expected)
    with pytest.raises(InputError):
        module(x[0])


@pytest.mark.slow
@pytest.mark.parametrize("network", ["captured residual", "delays"])
def test_compiled_without_a_break_it_computes_and_learns_the_same(network: str) -> None:
    module, x, expected = _case(network)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    compiled(x).sum().backward()
    np.testing.assert_array_equal(compiled(x).detach().numpy(), expected)
    learned = {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}
    assert any(bool(grad.any()) for grad in learned.values())
    module.zero_grad()
    module(x).sum().backward()
    for name, weight in module.named_parameters():
        torch.testing.assert_close(weight.grad, learned.get(name))
