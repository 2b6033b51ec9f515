"""nengo-loihi's emulator against our integer model, every spike: as recorded, and itself where it is installed."""

from __future__ import annotations

from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.netx.layers import InputLayer, NetxFile
from stl_deploy.exporters.netx.target import Loihi, NetxOptions
from stl_deploy.exporters.witnesses.environment import NENGO_LOIHI, STAMP, Witness, find_witness
from stl_deploy.exporters.witnesses.rows import conv_rows, net_arrays
from stl_deploy.exporters.witnesses.target import NengoLoihi, parting, simulate_wrapped, wrap
from stl_deploy.integers.graph import ConvNode
from tests.exporters.netx.nets import chain, dense, neuron, random_case
from tests.exporters.netx.programs import conv_net, events
from tests.exporters.witnesses import stand_in
from tests.exporters.witnesses.cases import cases, wide
from tests.exporters.witnesses.record_golden import GOLDEN


def test_our_model_spikes_as_recorded() -> None:
    compared = fired = 0
    with np.load(GOLDEN, allow_pickle=False) as recorded:
        known = {name: case for name, case in cases().items() if name != "wide"}
        assert {key.split("/")[0] for key in recorded.files} == {*known, "wide"}
        for name, (net, x) in known.items():
            for key, spikes in run_file(net, x, record=True).spikes.items():
                np.testing.assert_array_equal(np.packbits(spikes), recorded[f"{name}/{key}"], err_msg=name)
                np.testing.assert_array_equal(simulate_wrapped(net, x).spikes[key], spikes, err_msg=name)
                compared, fired = compared + spikes.size, fired + int(spikes.sum())
    assert len(known) > 30
    assert compared > 100_000
    assert 0.05 < fired / compared < 0.8


def test_past_21_bits_the_accumulator_wraps_there_and_not_here() -> None:
    net, x = wide()
    with np.load(GOLDEN, allow_pickle=False) as recorded:
        theirs = np.unpackbits(recorded["wide/layer1"], count=2).tolist()
    assert run_file(net, x).y.reshape(-1).tolist() == [1, 1]
    assert theirs == simulate_wrapped(net, x).y.reshape(-1).tolist() == [1, 0]
    # 64 * 32,800 = 2,099,200 is 2,048 past 2^21 and comes out at -2,095,104.
    assert wrap(64 * 200 * x.reshape(-1).astype(np.int64), 21).tolist() == [2_086_400, -2_095_104]


def test_the_first_spike_that_a_register_changes_is_told_with_what_passed_it() -> None:
    net, x = wide()
    assert parting(net, x) == (
        "nengo-loihi's registers change 1 of 2 spikes; the first: 'layer1', step 1, sample 0, neuron [0]: its weighted "
        "sum of 32,800 in step 1 is past 2^21/64 = 32,768, where nengo-loihi's accumulator wraps and Lava's does not"
    )
    assert parting(net, x[:1]) is None
    # u keeps 32,000 of every step: after four, 64 * (128,000 + 4,000) is past 2^23, and no sum is past 2^15.
    kept = chain((1,), dense([[200]], neuron=neuron(4096, 1000, i_decay=0), bias=[4000]))
    assert "neuron [0]: its u and bias come to more than 2^23" in str(parting(kept, np.full((4, 1, 1), 160)))


def test_registers_decide_wherever_sums_are_wide() -> None:
    """Weights and inputs many times larger: the two models part."""
    parted = 0
    for seed in range(20):
        net, x = random_case(seed, longest=10)
        if any(getattr(layer, "delay", None) is not None for layer in net.layers):
            continue
        parted += int((run_file(net, 300 * x).y != simulate_wrapped(net, 300 * x).y).sum())
    assert parted > 100


@pytest.mark.skipif(NENGO_LOIHI.reason() is not None, reason=str(NENGO_LOIHI.reason()))
def test_the_tool_itself_spikes_as_recorded() -> None:
    chosen = dict(list(cases().items())[:6]) | {"wide": wide()}
    with np.load(GOLDEN, allow_pickle=False) as recorded:
        for name, (net, x) in chosen.items():
            run = NengoLoihi(None, NetxOptions()).integers(net, x, True)  # type: ignore[arg-type]
            for key, spikes in run.spikes.items():
                np.testing.assert_array_equal(np.packbits(spikes), recorded[f"{name}/{key}"], err_msg=name)


def test_rows_of_a_convolution_by_hand() -> None:
    """1 x 2 pixels, a kernel of 1 x 2 with a pixel of padding on each side: outputs read (-, 0), (0, 1) and (1, -)."""
    layer = ConvNode(
        name="c",
        shape=(1, 1, 3),
        operands=(),
        weight=np.array([[[[3, 5]]]], np.int32),
        bias=None,
        input_shape=(1, 1, 2),
        stride=(1, 1),
        padding=((0, 0), (1, 1)),
        dilation=(1, 1),
        groups=1,
    )
    starts, targets, weights = conv_rows(layer)
    rows = [list(zip(targets[a:b].tolist(), weights[a:b].tolist(), strict=True)) for a, b in pairwise(starts)]
    assert [sorted(row) for row in rows] == [[(0, 5), (1, 3)], [(1, 5), (2, 3)]]


def test_what_single_connections_cannot_be_is_refused() -> None:
    late = dense([[1]], delay=[[2]], neuron=neuron(0, 1))
    with pytest.raises(InputError, match=r"'layer1': expected no delays.*backend='loihi'"):
        net_arrays(chain((1,), late))
    with pytest.raises(InputError, match="expected counts of spikes, 0 or more; found -1"):
        NengoLoihi(None, NetxOptions()).integers(wide()[0], np.full((1, 1, 1), -1), True)  # type: ignore[arg-type]


def test_neurons_of_the_input_layer_are_refused() -> None:
    net = NetxFile((InputLayer(shape=(1,), neuron=neuron(0, 1)), dense([[1]], neuron=neuron(0, 1))))
    with pytest.raises(InputError, match="its input layer has neurons, whose bias is the input; use our integer model"):
        net_arrays(net)


def test_what_it_returns_is_told_apart_by_layer_with_what_its_registers_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = wide()
    stand_in.ready(NENGO_LOIHI, tmp_path, monkeypatch, {"layer1": np.array([1, 0], np.uint8).reshape(2, 1, 1)})
    write_netx(net, tmp_path / "wide.net")
    said = StringIO()
    runner = NengoLoihi(tmp_path / "wide.net", NetxOptions(say=Console(stream=said)))
    assert runner.run(x).y.reshape(-1).tolist() == [1, 0]
    with np.load(tmp_path / "asked.npz") as asked:
        np.testing.assert_array_equal(asked["x"], x)
    assert "nengo-loihi's registers change 1 of 2 spikes" in said.getvalue()


def test_what_it_must_equal_is_our_model_where_no_register_wraps() -> None:
    rng = np.random.default_rng(0)
    program = conv_net(rng)
    x = events(rng, 6, 2, *program.inputs[0].shape)
    found = NengoLoihi(program, NetxOptions()).model(program).run(x, record=True)
    expected = Loihi(program, NetxOptions()).run(x, record=True)
    assert found.recorded.keys() == expected.recorded.keys()
    assert any(spikes.any() for spikes in found.recorded.values())
    for name, spikes in found.recorded.items():
        np.testing.assert_array_equal(spikes, expected.recorded[name])


@pytest.mark.parametrize("answer", [{}, {"layer1": np.zeros((2, 1, 2))}, {"layer2": np.zeros((2, 1, 1))}])
def test_arrays_of_other_shapes_are_refused(
    answer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = wide()
    stand_in.ready(NENGO_LOIHI, tmp_path, monkeypatch, answer)
    with pytest.raises(ToolError, match="nengo-loihi returned arrays of other shapes than the network's"):
        NengoLoihi(None, NetxOptions()).integers(net, x, True)  # type: ignore[arg-type]


def test_a_witness_that_is_not_there_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    with pytest.raises(ToolError, match=r"no environment of nengo-loihi at .*; run: stl_deploy.verbs.witness_install"):
        NengoLoihi(None, NetxOptions()).integers(*wide(), True)  # type: ignore[arg-type]


def test_environments_say_what_is_wrong_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    place = tmp_path / "nengo_loihi"
    assert "no environment of nengo-loihi" in str(NengoLoihi.available())
    with pytest.raises(ToolError, match="nothing to remove"):
        NENGO_LOIHI.remove()
    NENGO_LOIHI.python.parent.mkdir(parents=True)
    NENGO_LOIHI.python.touch()
    assert "was not finished" in str(NENGO_LOIHI.reason())
    with pytest.raises(ToolError, match="remove it by hand"):
        NENGO_LOIHI.remove()
    with pytest.raises(ToolError, match="holds something that stl-deploy did not make"):
        NENGO_LOIHI.install(python=_python38(tmp_path))
    (place / STAMP).write_text('{"requirements": "others"}')
    assert "has other packages" in str(NENGO_LOIHI.reason())
    (place / "pyvenv.cfg").touch()
    assert NENGO_LOIHI.remove() > 0
    assert not place.exists()
    with pytest.raises(InputError, match=r"expected a witness: nengo_loihi, .*xylosim; found 'nengoloihi'"):
        find_witness("nengoloihi")
    assert find_witness("nengo-loihi") is find_witness("nengo_loihi") is NENGO_LOIHI
    assert find_witness("sana-fe").name == "sanafe"


def test_an_install_that_fails_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    empty = tmp_path / "nothing.txt"
    empty.touch()
    witness = Witness("absent", "absent", (3, 8), "no_such_module", empty, "nothing", "none")
    with pytest.raises(ToolError, match="creating the environment failed"):
        witness.install(python=_python38(tmp_path))
    assert witness.reason() is not None


def _python38(tmp_path: Path) -> Path:
    """Something that says that it is Python 3.8 and makes no environment."""
    script = tmp_path / "python3.8"
    script.write_text('#!/bin/sh\nif [ "$2" = "-c" ]; then echo 3 8; else echo "no venv" >&2; exit 1; fi\n')
    script.chmod(0o755)
    return script
