"""SANA-FE's model of Loihi 1 against our integer model, every spike, where it is installed."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.target import NetxOptions
from stl_deploy.exporters.witnesses.environment import SANAFE
from stl_deploy.exporters.witnesses.rows import net_arrays
from stl_deploy.exporters.witnesses.target import SanaFe
from tests.exporters.netx.nets import chain, dense, neuron
from tests.exporters.witnesses.cases import cases


def sanafe(said: StringIO | None = None) -> SanaFe:
    return SanaFe(None, NetxOptions(say=Console(stream=said or StringIO())))  # type: ignore[arg-type]


@pytest.mark.skipif(SANAFE.reason() is not None, reason=str(SANAFE.reason()))
def test_the_tool_itself_spikes_as_our_model() -> None:
    compared = fired = 0
    for name, (net, x) in cases().items():
        try:
            sanafe().check(net_arrays(net))
        except InputError:
            continue
        if name == "wide":
            continue
        said = StringIO()
        found, expected = sanafe(said).integers(net, x, True), run_file(net, x, record=True)
        for key, spikes in expected.spikes.items():
            np.testing.assert_array_equal(found.spikes[key], spikes, err_msg=f"{name}: {key}")
            compared, fired = compared + spikes.size, fired + int(spikes.sum())
        assert "SANA-FE's own model of Loihi 1: " in said.getvalue()
        if compared > 3000:
            break
    assert 0.05 < fired / compared < 0.8


@pytest.mark.skipif(SANAFE.reason() is not None, reason=str(SANAFE.reason()))
def test_input_of_many_levels_takes_few_cores() -> None:
    """One entering neuron for each level would be more than the chip's 131,072."""
    rng = np.random.default_rng(0)
    net = chain((700,), dense(rng.integers(-10, 11, (3, 700)), neuron=neuron(2048, 10000)))
    x = rng.integers(0, 256, (4, 2, 700)).astype(np.int32)
    expected = run_file(net, x, record=True).spikes["layer1"]
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(sanafe().integers(net, x, True).spikes["layer1"], expected)


def test_what_it_keeps_in_floating_point_is_refused() -> None:
    net = chain((1,), dense([[1]], neuron=neuron(1000, 1)))
    arrays = net_arrays(net)
    arrays["layer1.i_decay"] = arrays["layer1.i_decay"] * 0 + 100
    with pytest.raises(
        InputError, match="'layer1': expected neurons whose current lasts one step; use backend='loihi'"
    ):
        sanafe().check(arrays)


def test_its_energy_is_told_by_term_and_sample() -> None:
    said, found = StringIO(), {"layer1": np.zeros((1, 1, 1)), "energy": np.array([4e-6, 0, 1e-6, 3e-6])}
    runner = sanafe(said)
    runner.tell(found, 2)
    assert [*found] == ["layer1"]
    assert "4 µJ an inference without floor power (synapse 2 µJ, dendrite 0 J, soma 500 nJ, network 1.5 µJ)" in (
        " ".join(said.getvalue().split())
    )
    with pytest.raises(ToolError, match="returned no energy"):
        runner.tell({}, 2)
