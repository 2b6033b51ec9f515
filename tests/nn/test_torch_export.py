"""A network as a torch module passes torch's own tools: strict export, decompositions and compilation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.runtimes.networks import NETWORKS
from stl_deploy.errors import InputError
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import run
from stl_deploy.nn.program_module import Population, ProgramModule, _next_float
from tests.exporters.onnx.nets import neuron

pytestmark = [  # of torch about itself
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]


def _case(network: str) -> tuple[ProgramModule, torch.Tensor, np.ndarray]:
    """A module whose Program nothing has read before, input, and what it puts out."""
    program = NETWORKS[network]()
    x = (np.random.default_rng(0).random((4, 2, *program.inputs[0].shape)) < 0.4).astype(np.float32)
    return ProgramModule(NETWORKS[network]()).eval(), torch.from_numpy(x), run(program, x).y


@pytest.mark.push(4)
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_strict_export_computes_the_same_and_the_module_runs_after_it(network: str) -> None:
    module, x, expected = _case(network)
    exported = torch.export.export(module, (x,), strict=True)
    made = module(x).detach().numpy()
    for runs in (exported.module(), exported.run_decompositions().module()):
        np.testing.assert_array_equal(runs(x).detach().numpy(), made)
    if network != "cells":  # whose outputs are sums off the grid
        np.testing.assert_array_equal(made, expected)
    with pytest.raises(InputError):
        module(x[0])


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [lambda x: x[:0], lambda x: x[..., :5], torch.Tensor.double])
def test_what_is_wrong_with_the_input_stands_in_torch_s_error(wrong: Callable[[torch.Tensor], torch.Tensor]) -> None:
    module, x, _ = _case("delays")
    with pytest.raises(InputError) as ours:
        module(wrong(x))
    for trace in (
        lambda: torch.export.export(module, (wrong(x),), strict=True),
        lambda: torch.compile(module, backend="eager", fullgraph=True)(wrong(x)),
    ):
        with pytest.raises(torch._dynamo.exc.Unsupported) as theirs:
            trace()
        assert str(ours.value) in str(theirs.value)


@given(arrays(np.float32, 8, elements=st.floats(2.0**-100, 2.0**100, width=32)))
def test_the_next_float_is_the_next(values: np.ndarray) -> None:
    """Of v > θ the module holds the next float above θ, and subtracts θ: both without an operator for next floats."""
    signed = np.concatenate([values, -values])
    for sign in (1, -1):
        made = _next_float(torch.from_numpy(signed), sign).numpy()
        np.testing.assert_array_equal(made, np.nextafter(signed, np.float32(sign * np.inf)))


def test_a_soft_reset_of_v_above_theta_teaches_theta_as_one_of_v_at_least_theta_does() -> None:
    learned = []
    for compare in ("gt", "ge"):
        node = neuron("lif", reset="subtract", compare=compare, threshold=0.9)((3,), (ir.Operand("input"),))
        population = Population(node, "arctan")
        population(torch.linspace(0, 1, 24).reshape(4, 2, 3)).sum().backward()
        learned.append(population.threshold.grad)
    assert bool(learned[0].any())
    torch.testing.assert_close(*learned)


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
