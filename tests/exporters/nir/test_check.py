"""The check: total, complete, anchored."""

import json

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.errors import ToolError, UnsupportedError
from stl_deploy.exporters.nir.check import check, check_file
from stl_deploy.exporters.nir.dialect import PRESETS, Dialect
from stl_deploy.exporters.nir.file import ForeignNode, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.findings import Finding, to_lines
from tests.drawn import examples
from tests.graph.nets import a, bare, chain, iff, lif
from tests.graph.oracle import nets


def slugs(report, severity="error"):
    return {(f.slug, f.node) for f in report.findings if f.severity == severity}


def test_a_sound_graph_is_faithful_everywhere():
    net = chain([2], nir.Linear(np.ones((2, 2), np.float32)), lif((2,), r=2))
    net.metadata = {"stl_deploy": {"dialect": {"compare": "ge"}, "input": {"fraction_bits": 0, "max": 1.0}}}
    report = check(net)
    assert report.ok
    assert report.targets == {"nir": "faithful", "onnx": "faithful"}
    assert [(n.node, n.kind, n.shape) for n in report.nodes] == [
        ("input", "Input", (2,)),
        ("n0", "Linear", (2,)),
        ("n1", "LIF", (2,)),
        ("output", "Output", (2,)),
    ]
    assert slugs(report) == slugs(report, "warning") == set()


def test_every_broken_node_is_found_at_once():
    net = chain(
        [3],
        nir.Linear(np.full((2, 3), np.nan, np.float32)),
        lif((2,), theta=-1),
        lonely=ForeignNode("is strange", "unknown-type"),
        unfed=nir.Scale(a(1)),
        extra=[("input", "lonely"), ("ghost", "n1"), ("unfed", "output")],
    )
    report = check(net)
    assert not report.ok
    assert slugs(report) == {
        ("unknown-node", None),
        ("not-finite", "n0"),
        ("threshold-not-positive", "n1"),
        ("unknown-type", "lonely"),
        ("no-source", "unfed"),
    }
    assert {n.node: n.targets["nir"] for n in report.nodes} == {
        "input": "unjudged",
        "n0": "unsupported",
        "n1": "unsupported",
        "lonely": "unsupported",
        "unfed": "unsupported",
        "output": "unjudged",
    }
    assert json.loads(json.dumps(report.as_dict()))["ok"] is False


def test_every_fault_of_a_node_is_found():
    broken_conv = bare(
        nir.Conv2d,
        weight=np.full((2, 1, 3, 3), np.inf),
        bias=a(1, 2, 3),
        stride=0,
        padding="around",
        dilation="two",
        groups=1,
    )
    broken_lif = bare(nir.LIF, tau=a(0, 1), r=a(np.nan, 1), v_leak="low", v_threshold=a(1, -1), v_reset=a(1, 2, 3))
    report = check(chain([1, 6, 6], broken_conv, nir.Flatten({"input": None}, 0, -1), broken_lif))
    found = {(f.node, f.reason.replace("field ", "").split()[0].strip("':")) for f in report.findings if f.node}
    assert {field for node, field in found if node == "n0"} == {"weight", "bias", "stride", "padding", "dilation"}
    # What arrives at the neuron is not known, so its v_reset cannot be held against it.
    assert {field for node, field in found if node == "n2"} >= {"tau", "r", "v_leak", "v_threshold"}
    assert ("not-reached", "n2") in slugs(report, "info")


def test_what_is_missing_is_told_field_by_field():
    report = check(chain([2], bare(nir.Affine, bias=a(np.nan)), bare(nir.LIF), bare(nir.Conv1d)))
    found = {(f.node, f.reason.split("'")[1]) for f in report.findings if f.severity == "error"}
    assert found == {
        *{("n0", "weight"), ("n0", "bias")},
        *{("n1", field) for field in ("tau", "r", "v_leak", "v_threshold")},
        *{("n2", field) for field in ("weight", "stride", "padding", "dilation", "groups")},
    }


def test_nodes_behind_a_broken_one_are_judged_by_the_shape_it_would_put_out():
    conv = bare(nir.Conv2d, weight=np.full((2, 1, 3, 3), np.nan), bias=None, stride=1, padding=0, dilation=1, groups=1)
    net = chain(
        [1, 4, 4],
        conv,
        lif((2, 2, 2), theta=-1),
        nir.Flatten({"input": None}, 0, -1),
        nir.Linear(np.full((3, 8), np.inf, np.float32)),
        lif((4,)),
        nir.Linear(np.ones((1, 5), np.float32)),
    )
    assert slugs(check(net)) == {
        ("not-finite", "n0"),
        ("threshold-not-positive", "n1"),
        ("not-finite", "n3"),
        ("bad-shape", "n4"),
        ("bad-shape", "n5"),
    }


def test_dt_larger_than_tau_is_told():
    net = chain([2], lif((2,), tau=a(1e-4, 4e-5)))
    (found,) = (f for f in check(net, Dialect()).findings if f.slug == "dt-over-tau")
    assert found.node == "n0"
    assert found.reason == "dt is larger than τ, so the decay is -1.5 and the potential can grow without bound"


def test_sums_that_are_not_exact_make_onnx_approximate():
    report = check(chain([2], nir.Linear(a(0.1, 0.2).reshape(1, 2)), lif((1,))), Dialect())
    assert report.targets == {"nir": "faithful", "onnx": "approximate"}
    assert {n.node: n.targets["onnx"] for n in report.nodes}["n0"] == "approximate"
    assert {n.node: n.targets["onnx"] for n in report.nodes}["n1"] == "faithful"


def test_a_missing_dialect_names_the_options_that_matter():
    net = chain([1], iff((1,)), nir.Threshold(a(0.5)))
    found = check(net).findings[0]
    assert found.slug == "dialect-unstated"
    assert found.reason.endswith("assumed: dt 0.0001, compare gt, reset value, spikes_per_step one")
    assert not any(f.slug == "dialect-unstated" for f in check(net, Dialect()).findings)
    assert not any(f.slug == "dialect-unstated" for f in check(chain([1], nir.Scale(a(1)))).findings)


def test_what_sinabs_leaves_open_is_a_finding():
    found = check(chain([1], lif((1,), tau=20)), PRESETS["sinabs"]).findings[0]
    assert (found.slug, found.severity) == ("dialect-ambiguous", "warning")
    assert "norm_input=True" in found.reason
    net = chain([1], lif((1,), tau=20))
    net.metadata = {"stl_deploy": {"dialect": {"dt": 1.0, "leak": "exp", "compare": "ge"}}}
    assert not any(f.slug == "dialect-ambiguous" for f in check(net).findings)


def test_a_field_that_the_dialect_does_not_look_at_is_a_finding():
    net = chain([1], lif((1,), tau=20, r=5))
    (found,) = (f for f in check(net, PRESETS["sinabs_norm"]).findings if f.slug == "field-overlooked")
    assert found.severity == "warning"
    assert "r, which is not 1 at 'n0'" in found.reason
    assert not any(f.slug == "field-overlooked" for f in check(net, PRESETS["spec"]).findings)


def test_a_batch_size_in_the_shapes_is_told():
    (found,) = (
        f for f in check(chain([8, 2], nir.Linear(np.ones((1, 2), np.float32)))).findings if f.slug == "shapes-assumed"
    )
    assert found.reason == "the first axis of the Input shape is taken for a batch size"


def test_a_threshold_that_fires_without_input_is_told():
    report = check(chain([1], nir.Threshold(a(-0.5))), Dialect())
    (found,) = (f for f in report.findings if f.slug == "always-on")
    assert str(found) in str(report).splitlines()
    assert str(report).splitlines()[-1] == "onnx: faithful"


def test_what_nothing_reads_is_told():
    net = chain([1], iff((1,)), dead=nir.Scale(a(1)), extra=[("n0", "dead")])
    assert ("unread", "dead") in slugs(check(net), "warning")


def test_targets_answer_with_findings_or_refusals():
    def rough(program):
        yield Finding("rounds", "warning", "n0", "rounds the leak", "accept it")

    def refuses(program):
        raise UnsupportedError("has no leak", node="n0", slug="no-leak", remedy="drop it")

    def notes(program):
        yield Finding("slow", "info", "n0", "is slow there")

    net = chain([1], lif((1,)))
    for source in (net, lower(net)):
        report = check(source, targets={"rough": rough, "chip": refuses, "ok": notes})
        assert report.targets == {"rough": "approximate", "chip": "unsupported", "ok": "faithful"}
        (found,) = (f for f in report.findings if f.target == "chip")
        assert (found.slug, found.node, found.reason, found.remedy) == ("no-leak", "n0", "has no leak", "drop it")
        assert not report.ok


def test_a_target_whose_tool_fails_is_told_with_it():
    def fails(program):
        raise ToolError("the compiler of the chip ended with status 3")

    report = check(chain([1], lif((1,))), targets={"chip": fails})
    (found,) = (f for f in report.findings if f.target == "chip")
    assert (found.slug, found.severity, found.reason) == (
        "failed",
        "error",
        "the compiler of the chip ended with status 3",
    )
    assert report.targets == {"chip": "unsupported"}


def test_files_that_cannot_be_read_give_a_report(tmp_path):
    report = check_file(tmp_path / "none.nir")
    assert not report.ok
    assert report.targets == {"nir": "unsupported", "onnx": "unsupported"}
    assert [f.slug for f in report.findings] == ["bad-input"]
    write_nir(chain([1], lif((1,))), tmp_path / "net.nir")
    assert check_file(tmp_path / "net.nir").ok


def test_a_wrong_dialect_in_the_metadata_is_a_finding():
    net = chain([1], lif((1,)))
    net.metadata = {"stl_deploy": {"dialect": {"dt": -1}}}
    assert [f.slug for f in check(net).findings] == ["bad-input"]


@pytest.mark.parametrize("junk", [None, 3, "net", nir.Scale(a(1)), chain([1], object()), {"nodes": 1}])
def test_it_never_raises(junk):
    assert not check(junk).ok


@examples(80)
@given(net=nets(), data=st.data())
def test_random_damage_is_always_anchored_and_never_unexpected(net, data):
    name = data.draw(st.sampled_from(sorted(net.nodes)))
    node = net.nodes[name]
    arrays = sorted(f for f in vars(node) if isinstance(getattr(node, f), np.ndarray))
    if arrays:
        field = data.draw(st.sampled_from(arrays))
        value = getattr(node, field)
        damage = data.draw(st.sampled_from([np.nan, np.inf, 1e39, "shape", "text", None]))
        if damage == "shape":
            setattr(node, field, np.ones((*value.shape, 7)))
        elif damage is None or damage == "text":
            setattr(node, field, damage)
        else:
            setattr(node, field, np.full(value.shape, damage))
        report = check(net)
        assert {n.node for n in report.nodes} == set(net.nodes)
        assert "unexpected" not in {f.slug for f in report.findings}
        assert {f.node for f in report.findings if f.severity == "error"} <= {name}


def test_what_holds_for_several_nodes_and_targets_is_told_once():
    def rounds(node, bits, target):
        return Finding("rounds", "warning", node, f"{bits} bits become 8", "accept it", target)

    found = [
        Finding("bare", "error", None, "nothing there"),
        rounds("n0", 13, "netx"),
        rounds("n2", 13, "netx"),
        rounds("n4", 16, "netx"),
        rounds("n0", 13, "c"),
        rounds("n2", 13, "c"),
        rounds("n4", 16, "c"),
        rounds("n6", 16, "c"),
        Finding("slow", "info", "{n}", "is slow there"),
        Finding("slow", "info", "n2", "is slow there"),
        Finding("slow", "info", "n3", "is slow there"),
    ]
    assert to_lines(found) == [
        "error: bare: nothing there",
        "warning: rounds for netx and c:",
        "  each of 'n0' and 'n2': 13 bits become 8",
        "  'n4': 16 bits become 8",
        "  -> accept it",
        "warning: rounds at 'n6' for c: 16 bits become 8 -> accept it",
        "info: slow at each of '{n}', 'n2' and 'n3': is slow there",
    ]
    assert str(found[1]) == "warning: rounds at 'n0' for netx: 13 bits become 8 -> accept it"


def test_what_holds_for_the_whole_graph_or_every_target_stays_so() -> None:
    of = [("n0", "netx"), (None, "netx"), ("n0", None), ("n0", "netx")]
    assert to_lines([Finding("slow", "info", node, "is slow", target=target) for node, target in of]) == [
        "info: slow at 'n0' for netx: is slow",
        "info: slow for netx: is slow",
        "info: slow at 'n0': is slow",
    ]
