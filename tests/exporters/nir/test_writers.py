"""Files that do not say how they are meant: their writer is told by form, or the candidates are."""

import itertools
from dataclasses import replace

import nir
import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.detect_writer import (
    candidates,
    detect_writer,
    ignored_fields,
    resolve_dialect,
    unspecified_options,
)
from stl_deploy.exporters.nir.dialect import PRESETS, Dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import with_metadata
from tests.conformance.golden import GOLDEN
from tests.graph.nets import a, bare, chain, graph, iff, lif

READ = sorted(GOLDEN.glob("*-read-*.npz"))
ALONE = {"rockpool", "spyx", "spikingjelly", "norse"}
"""Whose files, of neurons with leak, are told by form; of snnTorch's those with recurrent layers."""


def golden(path, folder):
    with np.load(path) as kept:
        (folder / "net.nir").write_bytes(kept["nir"].tobytes())
    return read_nir(folder / "net.nir")


@pytest.mark.parametrize("path", READ, ids=lambda path: path.stem)
def test_a_writer_is_never_mistaken(path, tmp_path):
    framework, net = path.stem.split("-")[0], path.stem
    graph = golden(path, tmp_path)
    found = detect_writer(graph)
    assert not any(ignored_fields(graph, d) for preset, d in PRESETS.items() if preset.split("_")[0] == framework)
    told = (framework in ALONE and not ("-if" in net and framework in ("norse", "spyx"))) or (
        framework == "snntorch" and "recurrent" in net
    )
    assert (found.preset if found else None) == (framework if told else None)
    if found:
        assert found.dialect == PRESETS[framework]


@pytest.mark.parametrize(
    "net",
    [
        chain([2], lif((2,), r=2)),
        chain([2], iff((2,), r=1)),
        graph(
            {"input": nir.Input(np.array([2])), "0": lif((2,), r=2), "1": nir.Output(np.array([2]))},
            [("input", "0"), ("0", "1")],
        ),
    ],
)
def test_a_graph_that_anyone_could_have_written_is_not_told(net):
    assert detect_writer(net) is None
    with pytest.raises(InputError, match=r"net\.nir: the file does not say how it is meant.*dialect=NAME\): spec \("):
        resolve_dialect(net, None, "net.nir")


def _line(first, **nodes):
    names = [first, *nodes, "output"]
    ends = {first: nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    return nir.NIRGraph({**ends, **nodes}, list(itertools.pairwise(names)), type_check=False)


def _doubles(tau, r):
    return nir.LIF(**{name: np.full(2, v) for name, v in dict(tau=tau, r=r, v_leak=0.0, v_threshold=1.0).items()})


@pytest.mark.parametrize(
    ("alike", "another", "writer"),
    [
        (_line("input_1", _0=_doubles(4e-3, 4.0), _1=_doubles(2e-3, 2.0)), _doubles(2e-3, 4.0), "spikingjelly"),
        (
            _line("input", **{"0_LIFTorch": lif((2,), 1e-2, 9.048374), "1_LIFTorch": lif((2,), 1e-2, 9.048374)}),
            lif((2,), 1e-2, 5),
            "rockpool",
        ),
        (_line("input", layer_0=lif((2,), 2, 0.5), layer_1=lif((2,), 4, 0.25)), lif((2,), 4, 0.5), "spyx"),
    ],
)
def test_time_constants_that_no_dt_explains_are_not_their_writers(alike, another, writer):
    """Names alone tell nothing: one neuron layer of another dt, or of another r, and it was somebody else."""
    assert detect_writer(alike).preset == writer
    last = list(alike.nodes)[-1]
    assert detect_writer(nir.NIRGraph({**alike.nodes, last: another}, alike.edges, type_check=False)) is None


def test_the_dt_of_rockpool_and_spikingjelly_is_in_their_files():
    dt, tau = 2e-3, a(1e-2, 3e-2)
    node = bare(nir.CubaLIF, tau_mem=tau, tau_syn=tau, r=tau * np.exp(-dt / tau) / a(dt), v_leak=a(0, 0))
    node.w_in, node.v_threshold = a(1, 1), a(1, 1)
    net = nir.NIRGraph(
        {"input": nir.Input(np.array([2])), "0_LIFTorch": node, "output": nir.Output(np.array([2]))},
        [("input", "0_LIFTorch"), ("0_LIFTorch", "output")],
        type_check=False,
    )
    assert detect_writer(net).dialect.dt == pytest.approx(dt)
    doubles = {name: np.full(2, value) for name, value in dict(tau=4e-3, r=4.0, v_leak=0.0, v_threshold=1.0).items()}
    net = nir.NIRGraph(
        {"input_1": nir.Input(np.array([2])), "_0": nir.LIF(**doubles), "output": nir.Output(np.array([2]))},
        [("input_1", "_0"), ("_0", "output")],
        type_check=False,
    )
    assert detect_writer(net).dialect == Dialect(dt=1e-3, compare="ge", start="v_reset")


def test_candidates_are_those_who_write_such_nodes():
    assert candidates(chain([2, 4, 4], bare(nir.SumPool2d), iff((2, 2, 2)))) == [
        *("spec", "sinabs", "sinabs_hard", "sinabs_reader", "sinabs_norm", "spyx")
    ]


def test_what_no_dialect_changes_needs_none():
    assert resolve_dialect(chain([2], nir.Scale(a(1, 2))), None, "net.nir").dialect == PRESETS["spec"]


def test_what_sinabs_leaves_unsaid_is_told():
    assert "norm_input=True" in unspecified_options(chain([1], lif((1,), tau=20)), PRESETS["sinabs"])
    assert "sinabs_reader" in unspecified_options(chain([1], iff((1,), r=1)), PRESETS["sinabs"])
    assert not unspecified_options(chain([1], lif((1,), tau=20)), PRESETS["sinabs_norm"])
    assert not unspecified_options(chain([1], iff((1,), r=1)), PRESETS["sinabs_reader"])
    assert not unspecified_options(chain([1], lif((1,))), PRESETS["spec"])
    assert "(v_reset); read as 0" in unspecified_options(chain([1], lif((1,))), PRESETS["norse"])
    assert not unspecified_options(chain([1], lif((1,), v_reset=-0.5)), PRESETS["norse"])
    assert "the neurons' bias; read as 0" in unspecified_options(chain([1], lif((1,))), PRESETS["rockpool"])
    assert "the reset; read as snntorch_zero; others: snntorch," in unspecified_options(
        chain([1], lif()), PRESETS["snntorch_zero"]
    )


def test_fields_that_a_named_dialect_does_not_look_at_are_told():
    scaled, lifted = chain([1], lif((1,), tau=20, r=5)), chain([1], lif((1,), v_reset=-0.5))
    assert resolve_dialect(scaled, "sinabs_norm", "net.nir").unspecified_options == (
        "this dialect ignores r, which is not 1 at 'n0'; if it scales input, name another"
    )
    assert "r, which is not 1" in ignored_fields(scaled, PRESETS["rockpool"])
    assert "r, which is not 1" in ignored_fields(scaled, PRESETS["spyx"])
    assert not ignored_fields(scaled, PRESETS["spec"])
    assert resolve_dialect(lifted, "snntorch", "net.nir").unspecified_options.endswith(
        "; the reset of this dialect, subtract_delayed, ignores v_reset, which is not 0 at 'n0'"
    )
    assert not ignored_fields(lifted, PRESETS["snntorch_zero"])
    own = replace(PRESETS["spec"], nodes={"n0": {"reset": "none"}})
    assert "reset of this dialect, none" in ignored_fields(lifted, own)
    assert not ignored_fields(chain([1], bare(nir.LIF)), PRESETS["sinabs"])


def test_another_dialect_than_the_file_declares_is_warned_of():
    """A file of our own that was read as another framework's spiked otherwise, without a word."""
    net = with_metadata(chain([2], nir.Scale(a(1, 2))), {"dialect": PRESETS["norse"].written()})
    assert not resolve_dialect(net, PRESETS["norse"], "net.nir").unspecified_options
    assert "declares another dialect" in resolve_dialect(net, "snntorch", "net.nir").unspecified_options
