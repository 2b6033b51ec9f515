"""Thresholds per pixel: unrolling changes no spike, projection some, and both fit netx's contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.netx.forms import compare_forms, quantise_forms
from stl_deploy.exporters.netx.layers import DenseLayer
from stl_deploy.exporters.netx.model import export_netx, quantise, run_model
from stl_deploy.exporters.netx.target import model_of_file
from stl_deploy.graph.program import Neuron
from stl_deploy.graph.run import run
from stl_deploy.integers import per_pixel as pixels
from stl_deploy.integers.per_pixel import average_thresholds, per_pixel, unroll_convolutions
from tests.exporters.netx.programs import Builder, conv_net, events


def test_unrolling_changes_no_spike_of_the_graph() -> None:
    rng = np.random.default_rng(0)
    build = Builder((2, 5, 7)).conv(
        "c", rng.integers(-3, 4, (4, 1, 2, 3)), rng.integers(-2, 3, 4), ((1, 1), (0, 0)), stride=(1, 2), groups=2
    )  # fmt: skip
    build.lif("a", rng.integers(1, 5, build.shape)).max_pool("p").flatten("f")
    program = build.linear("l", rng.integers(-3, 4, (3, build.shape[0]))).lif("b", 2.0).program()
    flat = unroll_convolutions(program)
    x = events(rng, 12, 20, 2, 5, 7)
    names = [node.name for node in program.spiking]
    wanted, found = run(program, x, record=names).recorded, run(flat, x, record=names).recorded
    for name in names:
        np.testing.assert_array_equal(found[name].reshape(wanted[name].shape), wanted[name])
        assert 0 < wanted[name].mean() < 1


def test_projection_takes_the_mean_of_a_channel_and_leaves_the_rest() -> None:
    program = conv_net(np.random.default_rng(1), "pixel")
    assert per_pixel(program) == ("lif1",)
    projected = average_thresholds(program)
    before, after = program.by_name["lif1"], projected.by_name["lif1"]
    assert isinstance(before, Neuron)
    assert isinstance(after, Neuron)
    assert before.threshold is not None
    assert after.threshold is not None
    assert after.threshold.shape == (4, 1, 1)
    np.testing.assert_allclose(after.threshold[2], before.threshold[2].mean(), rtol=1e-6)
    assert per_pixel(projected) == ()
    assert average_thresholds(projected).by_name["lif2"] is program.by_name["lif2"]
    assert unroll_convolutions(projected) is projected


def test_three_ways_compared() -> None:
    rng = np.random.default_rng(2)
    program, x = conv_net(rng, "pixel"), events(rng, 8, 60, 1, 6, 6)
    rows = {row.form: row for row in compare_forms(program, quantise_forms(program, x), x, None)}
    differing = {form: row.differing or 0 for form, row in rows.items() if row.refused is None and row.compared}
    assert set(differing) == {"per-neuron", "per-layer", "projected", "unrolled"}
    assert rows["folded"].refused is not None
    assert "per-pixel" not in rows["folded"].form
    assert differing["unrolled"] < differing["projected"]
    assert differing["per-neuron"] < differing["projected"]


@pytest.mark.parametrize("form", ["projected", "unrolled"])
def test_the_file_holds_one_threshold_per_population_and_keeps_names_and_shapes(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    program, x = conv_net(rng, "pixel"), events(rng, 6, 30, 1, 6, 6)
    model = export_netx(program, tmp_path / "a.net", calibration=x, thresholds=form)  # type: ignore[arg-type]
    assert all(layer.neuron.threshold.shape == () for _, layer in model.file.spiking)
    assert all(isinstance(layer, DenseLayer) for _, layer in model.file.spiking) == (form == "unrolled")
    found = run_model(model, x, record=True)
    assert {name: spikes.shape[2:] for name, spikes in found.spikes.items()} == {
        node.name: node.shape for node in program.spiking
    }
    again = run_model(model_of_file(tmp_path / "a.net", program), x, record=True)
    for name, spikes in found.spikes.items():
        np.testing.assert_array_equal(again.spikes[name], spikes)
    np.testing.assert_array_equal(again.y, found.y)


def test_what_is_too_large_to_unroll_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_SYNAPSES", 100)
    program = conv_net(np.random.default_rng(4), "pixel")
    with pytest.raises(UnsupportedError, match="unrolled it has 36 x 144 synapses") as error:
        quantise(program, np.zeros((2, 3, 1, 6, 6), np.float32), thresholds="unrolled")
    assert (error.value.node, error.value.slug) == ("conv", "unrolled-too-large")
