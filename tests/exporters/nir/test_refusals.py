"""What lowering and the run refuse, in one sentence that names the node."""

from dataclasses import replace

import nir
import numpy as np
import pytest

from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.nir.detect_writer import resolve_dialect
from stl_deploy.exporters.nir.dialect import PRESETS, Dialect, load_dialect
from stl_deploy.exporters.nir.lower import all_errors, lower, try_lower
from stl_deploy.graph.run import run
from tests.graph.nets import a, bare, chain, graph, iff, lif, steps

ABOVE_0 = "node 'n0': v_threshold: expected thresholds above 0 here; found"
AT_0 = "v starts at 0, not below it; files in mV start at v_leak or v_reset: say so in the dialect, as start"
ONES = np.ones((2, 3), np.float32)


def conv(**changes):
    fields = dict(weight=np.ones((2, 1, 3, 3), np.float32), bias=None, stride=1, padding=0, dilation=1, groups=1)
    return bare(nir.Conv2d, **{**fields, **changes})


class Exotic(nir.NIRNode):
    def __init__(self):
        self.input_type, self.output_type, self.metadata = {"input": None}, {"output": None}, {}


REFUSED = {
    "nan": (
        chain([3], nir.Linear(np.array([[1, 1, np.nan], [0, 0, 0]], np.float32))),
        "node 'n0': field 'weight': expected finite numbers; found nan at index [0, 2]",
    ),
    "infinite threshold": (
        chain([2], lif((2,), theta=a(1, np.inf))),
        "node 'n0': field 'v_threshold': expected finite numbers; found inf at index [1]",
    ),
    "over float32": (
        chain([1], nir.Linear(np.full((1, 1), 1e39))),
        "node 'n0': field 'weight' in float32: expected finite numbers; found inf at index [0, 0]",
    ),
    "weights of text": (
        chain([1], bare(nir.Linear, weight="heavy")),
        "node 'n0': field 'weight': expected numbers; found <U5",
    ),
    "missing field": (chain([1], bare(nir.Linear)), "node 'n0': field 'weight': expected numbers; found none"),
    "theta 0": (
        chain([2], lif((2,), theta=a(1, 0))),
        f"{ABOVE_0} 0 at index [1]: {AT_0}",
    ),
    "theta below 0": (
        chain([2], iff((2,), theta=-1)),
        f"{ABOVE_0} -1 at every neuron: {AT_0}",
    ),
    "theta vanishes in float32": (
        chain([1], bare(nir.IF, r=a(1), v_threshold=np.array([1e-60]))),
        f"{ABOVE_0} 0 at every neuron: {AT_0}",
    ),
    "tau 0": (
        chain([2], lif((2,), tau=a(1, 0))),
        "node 'n0': tau: expected a time constant above 0; found 0 at index [1]",
    ),
    "tau vanishes beside dt": (
        chain([1], lif((1,), tau=1e-45)),
        "node 'n0': the decay in float32: expected finite numbers; found -inf at index []",
    ),
    "unknown node": (
        chain([1], extra=[("input", "ghost")]),
        "edge input -> ghost names 'ghost', which is not a node; nodes: input, output",
    ),
    "edge twice": (chain([1], extra=[("input", "output")]), "edge input -> output is listed twice"),
    "unknown type": (chain([1], Exotic()), "node 'n0': type Exotic is not known"),
    "loop without a neuron": (
        chain([1], nir.Scale(a(1)), nir.Scale(a(1)), extra=[("n1", "n0")]),
        "node 'n0': the loop n0 -> n1 -> n0 has no neuron in it; a loop needs one to hold its state",
    ),
    "loop that nothing feeds": (
        chain([1], x=iff((1,)), extra=[("x", "x")]),
        "node 'x': only loops lead to it, so its shape is unknown; feed the loop from an input",
    ),
    "node that nothing feeds": (
        chain([1], lonely=nir.Scale(a(1)), extra=[("lonely", "output")]),
        "node 'lonely': no edge leads to it; connect it or remove it",
    ),
    "shapes": (
        chain([4], nir.Linear(ONES)),
        "node 'n0': expected 3 values as input, as its weight has it; found shape [4]",
    ),
    "sum of shapes": (
        chain([3], nir.Linear(ONES), extra=[("input", "output")]),
        "node 'output': expected inputs of one shape to add up; found n0 [2], input [3]",
    ),
    "returning shape": (
        chain([3], iff((3,)), nir.Linear(ONES), extra=[("n1", "n0")]),
        "node 'n0': expected shape [3]; found [2] from 'n1'",
    ),
    "parameter shape": (
        chain([4], lif((3,), tau=a(1, 2, 3))),
        "node 'n0': field 'tau': expected a shape that fits the node's, [4]; found [3]",
    ),
    "uniform parameter of a wrong shape": (
        chain([4], lif((3,))),
        "node 'n0': field 'tau': expected a shape that fits the node's, [4]; found [3]",
    ),
    "bias": (
        chain([3], bare(nir.Affine, weight=ONES, bias=a(1))),
        "node 'n0': field 'bias': expected a value for each of 2 outputs; found 1",
    ),
    "channels": (
        chain([2, 5, 5], conv()),
        "node 'n0': weight [2, 1, 3, 3] with groups 1 does not fit an input of shape [2, 5, 5]",
    ),
    "kernel": (
        chain([1, 5, 5], conv(weight=ONES)),
        "node 'n0': expected weight [C_out, C_in/groups, kh, kw]; found shape [2, 3]",
    ),
    "flattened axes": (
        chain([2, 3], nir.Flatten({"input": None}, 1, 0)),
        "node 'n0': expected an axis to flatten to behind axis 1 of [2, 3]; found 0",
    ),
    "behind the output": (
        chain([1], x=nir.Scale(a(1)), extra=[("output", "x")]),
        "node 'output': an Output of the network leads to 'x'",
    ),
    "fields of several lengths": (
        chain([1], bare(nir.Linear, weight=[[1, 2], [3]])),
        "node 'n0': field 'weight': expected numbers; found list",
    ),
    "window": (
        chain([1, 2, 5], conv()),
        "node 'n0': a window of [3, 3] does not fit an input of [2, 5] with padding [(0, 0), (0, 0)]",
    ),
    "stride": (
        chain([1, 5, 5], conv(stride=np.array([1, 0]))),
        "node 'n0': field 'stride': expected 2 integers of at least 1; found [1.0, 0.0]",
    ),
    "padding": (
        chain([1, 5, 5], conv(padding="reflect")),
        "node 'n0': padding: expected numbers, 'valid' or 'same' at stride 1; found 'reflect' at stride [1, 1]",
    ),
    "pool": (
        chain([5], bare(nir.SumPool2d, kernel_size=2, stride=2, padding=0)),
        "node 'n0': expected an input [C, H, W]; found shape [5]",
    ),
    "delay": (
        chain([1], nir.Delay(a(2.5e-4))),
        "node 'n0': expected a delay of whole time steps of dt 0.0001, from 0 to 2^31; found 2.5; pass a dialect if dt "
        "is another",
    ),
    "input size": (
        chain([0]),
        "node 'input': expected a shape of up to 8 sizes of 1 or more; found [0]",
    ),
    "input size that is not whole": (
        chain([2.5]),
        "node 'input': expected a shape of whole sizes with a product below 2^31; found [2.5]",
    ),
    "input of too many": (
        chain([2**16, 2**15]),
        "node 'input': expected a shape of whole sizes with a product below 2^31; found [65536, 32768]",
    ),
    "no input": (
        graph({"output": nir.Output(np.array([1])), "s": nir.Scale(a(1))}, [("s", "output")]),
        "the graph has no Input node",
    ),
    "into the input": (
        chain([1], iff((1,)), extra=[("n0", "input")]),
        "node 'input': 'n0' leads into an Input of the network",
    ),
    "names after opening": (
        chain(
            [1],
            chain([1], nir.Scale(a(1))),
            extra=[("input", "n0.n0"), ("n0.n0", "output")],
            **{"n0.n0": nir.Scale(a(1))},
        ),
        "node 'n0.n0': two nodes have this name once nested graphs are opened; rename one",
    ),
    "two ports": (
        chain(
            [1], graph({"i": nir.Input(a(1)), "j": nir.Input(a(1)), "o": nir.Output(a(1))}, [("i", "o"), ("j", "o")])
        ),
        "node 'n0': a nested graph with 2 Input nodes; an edge to or from it needs one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_is_refused_in_one_sentence(case):
    net, message = REFUSED[case]
    with pytest.raises(GraphError) as caught:
        lower(net)
    assert str(caught.value) == message


def test_graphs_nested_too_deep():
    net = chain([1], nir.Scale(a(1)))
    for _ in range(40):
        net = chain([1], net)
    with pytest.raises(GraphError, match="graphs are nested more than 32 deep"):
        lower(net)


def test_all_errors_are_collected():
    net = chain(
        [3], nir.Linear(ONES * np.nan), lif((2,), theta=-1), lonely=Exotic(), extra=[("input", "lonely"), ("x", "n1")]
    )
    lowering = try_lower(net)
    assert {(error.node, error.slug) for error in lowering.errors} == {
        (None, "unknown-node"),
        ("n0", "not-finite"),
        ("n1", "threshold-not-positive"),
        ("lonely", "unknown-type"),
    }
    assert lowering.unreached == ()


def test_an_error_of_all_neurons_is_collected_once():
    lowering = try_lower(chain([2], lif((2,), theta=-1)))
    (error,) = all_errors(lowering)
    assert str(error) == f"{ABOVE_0} -1 at every neuron: {AT_0}"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 1, 4)), "input 'input': expected shape [T, B, 3] with T, B >= 1; found [2, 1, 4]"),
        (np.ones((0, 1, 3)), "input 'input': expected shape [T, B, 3] with T, B >= 1; found [0, 1, 3]"),
        (np.ones(3), "input 'input': expected shape [T, B, 3] with T, B >= 1; found [3]"),
        (
            np.full((1, 1, 3), np.nan),
            "input 'input': expected finite numbers within float32; found NaN, infinity or larger ones",
        ),
        (np.full((1, 1, 3), "a"), "input 'input': expected numbers; found <U1"),
        (
            np.full((1, 1, 3), -(2**24) - 1),
            "input 'input': expected integers up to 2^24, which float32 holds exactly; found -16777217",
        ),
        ({"y": np.ones((1, 1, 3))}, "expected inputs input; found y"),
    ],
)
def test_inputs_that_do_not_fit(x, message):
    with pytest.raises(InputError) as caught:
        run(lower(chain([3], nir.Linear(ONES))), x)
    assert str(caught.value) == message


def test_recording_a_node_that_is_not_there():
    with pytest.raises(InputError, match="expected nodes to record: input, n0, output; found 'n7'"):
        run(lower(chain([3], nir.Linear(ONES))), np.ones((1, 1, 3)), record=["n7"])


@pytest.mark.parametrize(
    "node",
    [
        nir.Scale(a(1e38)),
        bare(nir.I, r=a(1e38)),
        bare(nir.IF, r=a(-1e38), v_threshold=a(1)),
    ],
    ids=["scale", "integrator", "silent neuron"],
)
@pytest.mark.parametrize("loop", [False, True])
def test_a_network_that_leaves_float32_is_refused(node, loop):
    extra = [("n0", "n0")] if loop and not isinstance(node, nir.Scale) else []
    with pytest.raises(GraphError, match=r"node 'n0': .*the network diverges"):
        run(lower(chain([1], node, extra=extra), Dialect(dt=1.0)), np.full((60, 1, 1), 10.0))


BOUNDS = 'expected null, a finite number, "-threshold", or an object with one of these for each node'
DIALECTS = {
    '{"dt": 0}': "dialect key 'dt': expected a positive finite number; found 0",
    '{"dt": true}': "dialect key 'dt': expected a positive finite number; found True",
    '{"leak": "cubic"}': "dialect key 'leak': expected \"euler\", \"exp\"; found 'cubic'",
    '{"reset": ["value"]}': 'dialect key \'reset\': expected "value", "subtract", "subtract_delayed", "value_delayed", '
    '"none", "snntorch_zero", "snntorch_subtract_now", "snntorch_zero_now", "spyx"; found [\'value\']',
    '{"v_min": "low"}': f"dialect key 'v_min': {BOUNDS}; found 'low'",
    '{"v_min": NaN}': f"dialect key 'v_min': {BOUNDS}; found nan",
    '{"v_min": {"n0": "low"}}': f"dialect key 'v_min': {BOUNDS}; found {{'n0': 'low'}}",
    '{"theta": 1}': "expected dialect keys bounded, compare, dt, emit, gain, integrate, leak, loop, loop_input, nodes, "
    "preset, rate, reset, spikes_per_step, start, synapse, v_min; found 'theta'",
    '{"preset": "Snntorch0"}': "expected a dialect preset: "
    + ", ".join(PRESETS)
    + "; found 'Snntorch0' (did you mean 'snntorch'?)",
    '{"preset": 3}': "expected a dialect preset: " + ", ".join(PRESETS) + "; found 3",
    "[]": "expected a JSON object; found a list",
}


@pytest.mark.parametrize(
    ("text", "key"), [('{"dt": %s}', "dt"), ('{"v_min": %s}', "v_min"), ('{"v_min": {"n0": %s}}', "v_min")]
)
def test_a_integers_too_large_for_a_float_is_no_finite_number_of_a_dialect(tmp_path, text, key):
    path = tmp_path / "d.json"
    path.write_text(text % ("1" + "0" * 400))
    with pytest.raises(InputError, match=f"d.json: dialect key '{key}': expected .*finite number"):
        load_dialect(str(path))


@pytest.mark.parametrize("text", DIALECTS)
def test_dialect_files_are_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_dialect(str(path))
    assert str(caught.value) == f"dialect file {path}: {DIALECTS[text]}"


def test_dialect_files_start_from_a_preset(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('{"preset": "SnnTorch", "dt": 0.001, "v_min": {"n0": -1}}')
    assert load_dialect(str(path)) == replace(PRESETS["snntorch"], dt=0.001, v_min={"n0": -1})


def test_presets_are_found_without_regard_to_case():
    assert load_dialect("SnnTorch") is load_dialect(" snntorch ") is PRESETS["snntorch"]


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [
        (Dialect(start="v_leak", spikes_per_step="many"), "several spikes in a step"),
        (Dialect(start="v_leak", reset="subtract"), "to subtract it would raise v"),
        (Dialect(start="v_leak", v_min="-threshold"), "the lower bound -threshold would lie above it"),
    ],
)
def test_a_threshold_below_0_where_the_dialect_gives_it_no_sense(dialect, reason):
    node = lif((2,), theta=-50, v_leak=-65, v_reset=-70)
    with pytest.raises(GraphError, match=f"'n0': v_threshold: expected .* found -50 at every neuron: {reason}"):
        lower(chain([2], node), dialect)


def test_a_bound_for_a_node_that_is_not_there():
    with pytest.raises(InputError, match=r"'v_min': expected spiking neurons of the graph \(n0\); found 'n1'"):
        lower(chain([2], lif((2,))), Dialect(v_min={"n1": -1}))


def test_options_for_a_node_that_is_not_there():
    with pytest.raises(InputError, match=r"'nodes': expected nodes of the graph \(.*n0.*\); found 'n1'"):
        lower(chain([2], lif((2,))), Dialect(nodes={"n1": {"leak": "exp"}}))


def test_dialect_files_give_what_they_name_and_spec_for_the_rest(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('{"dt": 1, "reset": "subtract"}')
    assert load_dialect(str(path)) == Dialect(dt=1, reset="subtract")


@pytest.mark.parametrize(
    ("asked", "dt"),
    [
        ({"compare": "ge"}, 0.002),
        ({"compare": "ge", "dt": 1}, 1),
        ({"preset": "spec", "compare": "ge"}, 1e-4),
        ("snntorch", 1e-4),
        (Dialect(compare="ge"), 1e-4),
    ],
)
@pytest.mark.parametrize("metadata", [{"stl_deploy": {"dialect": {"dt": 0.002}}}, {"dt": 0.002}])
def test_a_time_step_that_neither_the_dialect_nor_its_preset_names_is_that_of_the_file(metadata, asked, dt):
    net = chain([2], lif((2,)))
    net.metadata = metadata
    assert resolve_dialect(net, asked, "net.nir").dialect.dt == dt


@pytest.mark.parametrize("dt", [0, -1, "x", float("nan"), None, [1], True])
def test_a_file_whose_time_step_is_none_is_read_with_that_of_spec(dt):
    net = chain([2], lif((2,)))
    net.metadata = {"dt": dt}
    assert resolve_dialect(net, {"compare": "ge"}, "net.nir").dialect == Dialect(compare="ge")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nengo", "expected a dialect preset: spec, stl, snntorch"),
        ("missing.json", "missing.json: expected a dialect's JSON file; found no such file"),
    ],
)
def test_unknown_dialects(name, message):
    with pytest.raises(InputError) as caught:
        load_dialect(name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[" * 100_000])
def test_dialect_files_that_are_no_json(tmp_path, content):
    path = tmp_path / "d.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not (JSON|a dialect's JSON file)"):
        load_dialect(str(path))


def test_text_in_metadata_may_be_bytes():
    net = chain([1], lif((1,), r=2))
    net.metadata = {"stl_deploy": {"dialect": {"compare": b"ge"}}}
    assert run(lower(net), steps([1])).y.item() == 1


def test_dialect_in_metadata_is_used_and_checked():
    net = chain([1], lif((1,), r=2))
    net.metadata = {"stl_deploy": {"dialect": {"compare": "ge", "dt": np.float64(1e-4)}}}
    assert run(lower(net), steps([1])).y.item() == 1
    net.metadata["stl_deploy"]["dialect"]["compare"] = "eq"
    with pytest.raises(InputError, match=r"graph metadata: dialect key 'compare': expected .*; found 'eq'"):
        lower(net)
