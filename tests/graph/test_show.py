"""The layer table and the drawing."""

import xml.etree.ElementTree as ET

import nir
import numpy as np
import pytest

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import Conv
from stl_deploy.graph.show import svg, table
from tests.graph.nets import a, bare, chain, graph, iff, lif


def conv(**changes):
    fields = dict(weight=np.ones((4, 1, 3, 2), np.float32), bias=None, stride=2, padding=1, dilation=(1, 2), groups=2)
    return bare(nir.Conv2d, **{**fields, **changes})


def test_rows_say_what_a_node_is():
    net = chain(
        [2, 6, 6],
        conv(),
        lif((4, 3, 3), theta=np.linspace(0.5, 2, 36).reshape(4, 3, 3), v_reset=0.25),
        bare(nir.SumPool2d, kernel_size=3, stride=3, padding=0),
        nir.Flatten({"input": None}, 0, -1),
        nir.Affine(np.ones((2, 4), np.float32), a(1, 2)),
        bare(nir.CubaLIF, tau_syn=a(2), tau_mem=a(4), r=a(4), v_leak=a(0), w_in=a(2), v_threshold=a(1)),
        extra=[("n5", "n5")],
    )
    rows = {row.node: row for row in table(lower(net, Dialect(dt=1.0, compare="ge")))}
    assert rows["n0"].constants == "kernel 3×2, stride 2×2, padding 1/1, dilation 1×2, groups 2"
    assert rows["n1"].constants == "decay -4999, θ 0.5…2, gain 5000, v >= θ, reset to 0.25"
    assert rows["n2"].constants == "sum of 3×3, stride 3×3"
    assert (rows["n4"].parameters, rows["n4"].synapses) == (10, 8)
    assert rows["n5"].constants == "synapse euler, decay 0.5, decay 0.75, θ 1, v >= θ, reset to 0"
    assert rows["n5"].sources == ("n4", "n5 (t-1)")
    assert rows["output"].as_dict()["shape"] == (2,)


@pytest.mark.parametrize(
    ("node", "options", "parameters", "constants"),
    [
        (nir.Scale(a(0.5, 2)), {}, 2, "scale 0.5…2"),
        (nir.Delay(a(1, 3)), {}, 0, "1…3 steps"),
        (bare(nir.LI, tau=a(2, 2), r=a(2, 2), v_leak=a(0, 0)), {}, 0, "decay 0.5, puts out v"),
        (iff((2,), r=1), {"reset": "none"}, 0, "decay 1, θ 1, v > θ, no reset"),
        (
            iff((2,), r=1),
            {"reset": "snntorch_subtract_now"},
            0,
            "decay 1, θ 1, v > θ, reset by subtraction as snnTorch's reset_delay=False",
        ),
    ],
)
def test_rows_of_one_node_each(node, options, parameters, constants):
    row = table(lower(chain([2], node), Dialect(dt=1.0, **options)))[1]
    assert (row.parameters, row.constants) == (parameters, constants)


@pytest.mark.parametrize("options", [{}, {"stride": 1, "padding": 0}, {"padding": (0, 2)}])
def test_synapses_of_a_convolution_are_those_that_an_all_ones_pass_adds_up(options):
    program = lower(chain([2, 7, 6], conv(**options)))
    (node,) = program.of(Conv)
    taps = apply(node, np.ones((1, *node.input_shape), np.float32)).sum()
    assert {row.node: row.synapses for row in table(program)}["n0"] == taps


def test_the_drawing_is_xml_with_a_box_for_each_node_and_dashes_for_loops():
    name = 'a<b>&"c"' + "x" * 40
    nodes = {"in": nir.Input(np.array([1])), name: iff((1,)), "out": nir.Output(np.array([1]))}
    program = lower(graph(nodes, [("in", name), (name, name), (name, "out")]))
    text = svg(program)
    root = ET.fromstring(text)
    space = {"s": "http://www.w3.org/2000/svg"}
    assert len(root.findall(".//s:rect", space)) == 3
    assert [t.text for t in root.findall(".//s:title", space)] == ["in", name, "out"]
    assert len([p for p in root.findall("s:path", space) if p.get("stroke-dasharray")]) == 1
    assert len(root.findall("s:path", space)) == 3


def test_boxes_do_not_overlap():
    fan = {f"b{i}": nir.Scale(a(1)) for i in range(4)}
    edges = [e for name in fan for e in (("input", name), (name, "output"))]
    root = ET.fromstring(svg(lower(chain([1], extra=edges, **fan))))
    boxes = [(int(r.get("x")), int(r.get("y"))) for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(set(boxes)) == len(boxes) == 6
    assert sorted({y for _, y in boxes}) == [16, 84, 152]
