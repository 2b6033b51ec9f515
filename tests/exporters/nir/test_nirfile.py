"""NIR files: round trips, other releases' files, and files from people who wish us ill."""

import shutil
import tracemalloc
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from stl_deploy._util.hdf5.guard import whole_hdf5
from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.nir.check import check_file
from stl_deploy.exporters.nir.file import ForeignNode, read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run
from tests.graph.nets import a, bare, chain, full, graph, iff, lif

METADATA = {
    "stl_deploy": {"dialect": {"dt": 1e-4, "compare": "ge", "v_min": None}, "l": [1, 2], "t": True, "w": ["ä", "b"]}
}


def everything():
    """One node of each kind; sizes work out."""
    cuba = dict(tau_syn=full(3, 1), tau_mem=full(3, 1), r=full(3, 1), v_leak=full(3, 0), w_in=full(3, 1))
    return chain(
        [1, 6, 6],
        nir.Conv2d((6, 6), np.ones((2, 1, 3, 3), np.float32), 1, (1, 1), 1, 1, a(1, 2)),
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.AvgPool2d(np.array([3, 3]), np.array([1, 1]), np.array([0, 0])),
        nir.Flatten({"input": np.array([2, 1, 1])}, 1, -1),
        nir.Conv1d(1, np.ones((3, 2, 1), np.float32), 1, "same", 1, 1, full(3, 0)),
        nir.Flatten({"input": None}, 0, -1),
        nir.Affine(np.ones((3, 3), np.float32), full(3, 1)),
        nir.Linear(np.ones((3, 3))),
        nir.Scale(a(1, 2, 3)),
        nir.Delay(a(0, 1, 2)),
        nir.Threshold(full(3, 0.5)),
        nir.I(full(3, 1)),
        nir.IF(full(3, 1), full(3, 1), full(3, 0)),
        nir.LI(full(3, 1), full(3, 1), full(3, 0)),
        nir.LIF(full(3, 1), full(3, 1), full(3, 0), full(3, 1)),
        nir.CubaLI(**cuba),
        nir.CubaLIF(**cuba, v_threshold=full(3, 1)),
        chain([3], nir.Scale(a(1, 2, 3))),
    )


def same(one, other):
    assert type(one) is type(other)
    for field in (f for f in vars(one) if f not in ("input_type", "output_type", "metadata", "nodes", "edges")):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        assert np.asarray(getattr(one, field)).dtype.kind == np.asarray(getattr(other, field)).dtype.kind
    if isinstance(one, nir.NIRGraph):
        assert sorted(one.edges) == sorted(other.edges)
        assert set(one.nodes) == set(other.nodes)
        for name in one.nodes:
            same(one.nodes[name], other.nodes[name])


def test_every_node_survives_a_round_trip(tmp_path):
    net = everything()
    net.metadata = METADATA
    net.nodes["n8"].metadata = {"note": "kept"}
    write_nir(net, tmp_path / "net.nir")
    found = read_nir(tmp_path / "net.nir")
    same(net, found)
    assert found.nodes["n8"].metadata == {"note": "kept"}
    del METADATA["stl_deploy"]["dialect"]["v_min"]
    assert found.metadata == METADATA
    assert {type(value) for value in found.metadata["stl_deploy"].values()} == {dict, list, bool}


def test_files_go_both_ways_between_nir_and_us(tmp_path):
    net = everything()
    for node in net.nodes.values():
        if isinstance(node, nir.Flatten) and node.input_type["input"] is None:
            node.input_type = {"input": np.array([3, 1])}
    net.nodes["n17"].nodes["output"] = nir.Output(np.array([3]))
    write_nir(net, tmp_path / "ours.nir")
    theirs = nir.read(tmp_path / "ours.nir", type_check=False)
    nir.write(tmp_path / "theirs.nir", theirs)
    same(read_nir(tmp_path / "theirs.nir"), read_nir(tmp_path / "ours.nir"))


@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f4"])
@pytest.mark.parametrize(("rows", "shuffled"), [(1, False), (600, True)])
def test_large_arrays_are_written_smaller_and_read_by_nir(tmp_path, rows, shuffled, kind):
    weight = np.round(np.random.default_rng(0).normal(size=(rows, 500)) * 2**14).astype(kind)
    write_nir(chain([500], bare(nir.Linear, weight=weight)), tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir") as file:
        assert file["node/nodes/n0/weight"].shuffle is shuffled
        stored = file["node/nodes/n0/weight"].id.get_storage_size()
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        plain = file.create_dataset("weight", data=weight, compression="gzip").id.get_storage_size()
    assert (stored < 0.9 * plain) == shuffled
    for found in (read_nir(tmp_path / "net.nir"), nir.read(tmp_path / "net.nir", type_check=False)):
        assert found.nodes["n0"].weight.dtype == kind
        np.testing.assert_array_equal(found.nodes["n0"].weight, weight)


def test_written_arrays_are_not_copied_and_the_file_is_whole_or_absent(tmp_path):
    net = chain([1], iff((1,)))
    net.nodes["n0"].metadata = {"bad": [1, "mixed", {}]}
    with pytest.raises(GraphError, match="node 'n0': 'bad' holds what HDF5 cannot"):
        write_nir(net, tmp_path / "net.nir")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "", ".", "new\nline"])
def test_names_that_hdf5_cannot_hold_are_refused(tmp_path, name):
    net = graph({name: nir.Input(np.array([1])), "o": nir.Output(np.array([1]))}, [(name, "o")])
    with pytest.raises(GraphError, match="cannot stand in an HDF5 file; use printable text without '/'"):
        write_nir(net, tmp_path / "net.nir")


def test_parameters_that_nir_refuses_to_build_are_read(tmp_path):
    node = lif((3,), r=2)
    node.tau = np.float32(2e-4)
    write_nir(chain([8, 3], node), tmp_path / "net.nir")
    with pytest.raises(AssertionError):
        nir.read(tmp_path / "net.nir", type_check=False)
    program = lower(read_nir(tmp_path / "net.nir"))
    assert run(program, np.full((1, 1, 3), 1.5)).y.ravel().tolist() == [1, 1, 1]


def edit(tmp_path, change, net=None):
    path = tmp_path / "net.nir"
    write_nir(net or chain([2], lif((2,), r=2)), path)
    with h5py.File(path, "a") as file:
        change(file)
    return path


def replace(group, key, **data):
    del group[key]
    group.create_dataset(key, **data)


def test_files_of_nir_104_have_no_v_reset(tmp_path):
    path = edit(tmp_path, lambda f: f["node/nodes/n0"].__delitem__("v_reset"))
    assert lower(read_nir(path)).by_name["n0"].v_reset is None


FOREIGN = {
    "type": (lambda n: replace(n, "type", data="Izhikevich"), "unknown-type"),
    "no type": (lambda n: n.__delitem__("type"), "unknown-type"),
    "field": (lambda n: n.create_dataset("tau_refractory", data=1.0), "unknown-field"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_nodes_that_nir_does_not_define_are_kept_for_the_check(tmp_path, case):
    change, slug = FOREIGN[case]
    net = read_nir(edit(tmp_path, lambda f: change(f["node/nodes/n0"])))
    assert isinstance(net.nodes["n0"], ForeignNode)
    with pytest.raises(GraphError) as caught:
        lower(net)
    assert (caught.value.node, caught.value.slug) == ("n0", slug)
    with pytest.raises(GraphError):
        write_nir(net, tmp_path / "again.nir")


def external(file):
    del file["node/nodes/n0/tau"]
    file["node/nodes/n0"].create_dataset("tau", shape=(2,), dtype="f4", external=[("/etc/passwd", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (2,))
    del file["node/nodes/n0/tau"]
    file["node/nodes/n0"].create_virtual_dataset("tau", layout)


def links(kind, *where):
    def change(file):
        del file["node/nodes/n0/tau"]
        file["node/nodes/n0/tau"] = kind(*where)

    return change


def same_object(file):
    node = file["node/nodes/n0"]
    del node["tau"]
    node["tau"] = node["r"]


def cycle(file):
    nested = file["node/nodes"].create_group("loop")
    nested.create_dataset("type", data="NIRGraph")
    nested["nodes"] = file["node/nodes"]


def deep(levels):
    def change(file):
        group = file["node/nodes"]
        for _ in range(levels):
            group = group.create_group("g")
            group.create_dataset("type", data="NIRGraph")
            group = group.create_group("nodes")

    return change


def many(file):
    for i in range(25_000):
        file["node/nodes"].create_group(f"x{i}")


def many_in_parts(file):
    for part in "ab":
        nested = file["node/nodes"].create_group(part)
        nested.create_dataset("type", data="NIRGraph")
        for i in range(12_500):
            nested.create_group(f"nodes/x{i}")


HOSTILE = {
    "external data": (external, "expected a file that holds its data itself; found data in another file"),
    "virtual data": (virtual, "expected a file that holds its data itself; found data in another file"),
    "soft link": (links(h5py.SoftLink, "/node/nodes/n0/r"), "found a link to elsewhere"),
    "external link": (links(h5py.ExternalLink, "other.h5", "/x"), "found a link to elsewhere"),
    "same object": (same_object, "expected each object in one place"),
    "cycle": (cycle, "expected each object in one place"),
    "graphs in graphs": (deep(33), "node '(g/|g.)*g': graphs are nested more than 32 deep"),
    "depth": (deep(200), "is over 100 levels deep"),
    "many nodes": (many, "'/node/nodes': expected up to 25000 members; found 25003"),
    "many nodes in parts": (many_in_parts, "the graph has more than 25000 nodes"),
    "huge array": (
        lambda f: replace(f["node/nodes/n0"], "tau", shape=(2**40,), dtype="f4", chunks=(1024,)),
        r"declares \[1099511627776\] float32: 4,096 GiB",
    ),
    "bomb": (
        lambda f: replace(f["node/nodes/n0"], "tau", shape=(2**27,), dtype="f4", chunks=(2**20,), compression="gzip"),
        "512 MiB, with all the others over the 256 MiB that a file of this size may take",
    ),
    "huge chunk": (
        lambda f: replace(f["node/nodes/n0"], "tau", shape=(1,), maxshape=(None,), dtype="f4", chunks=(2**29,)),
        "over the 256 MiB",
    ),
    "compound": (lambda f: replace(f["node/nodes/n0"], "tau", data=np.zeros(2, "f4,i4")), "expected numbers or text"),
    "complex": (lambda f: replace(f["node/nodes/n0"], "tau", data=np.zeros(2, "c8")), "expected numbers or text"),
    "references": (
        lambda f: replace(f["node/nodes/n0"], "tau", data=f.ref, dtype=h5py.ref_dtype),
        "expected numbers or text",
    ),
    "ragged": (
        lambda f: replace(f["node/nodes/n0"], "tau", shape=(2,), dtype=h5py.vlen_dtype(np.float32)),
        "expected numbers or text",
    ),
    "empty": (lambda f: replace(f["node/nodes/n0"], "tau", data=h5py.Empty("f4")), "expected numbers or text"),
    "much text": (
        lambda f: f.create_dataset(
            "notes", shape=(70,), dtype="S1048576", data=[b"a" * 2**20] * 70, compression="gzip"
        ),
        "'/notes' and others hold over 64 MiB of text",
    ),
    "many strings": (
        lambda f: f.create_dataset("notes", shape=(200_001,), dtype="S1", compression="gzip"),
        "'/notes': expected up to 200000 strings; found 200001 declared",
    ),
    "no nodes": (lambda f: f["node"].__delitem__("nodes"), "has no group 'nodes'"),
    "no graph": (lambda f: f.__delitem__("node"), "no group 'node' in it, so it is not a NIR file"),
    "single node": (lambda f: replace(f["node"], "type", data="LIF"), "holds 'LIF', not a NIRGraph"),
    "edges": (
        lambda f: replace(f["node"], "edges", data=np.zeros((2, 3))),
        r"expected edges as pairs of node names \[n, 2\]; found float64 \[2, 3\]",
    ),
    "control characters": (lambda f: f["node/nodes"].create_group("a\x1b[2Jb"), "characters that cannot be printed"),
    "long name": (lambda f: f["node/nodes"].create_group("a" * 256), "is longer than 255 characters"),
    "undecodable name": (lambda f: f["node/nodes"].create_group(b"\xff\xfe"), "is not UTF-8 text"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path, case):
    change, message = HOSTILE[case]
    with pytest.raises(InputError, match=message):
        read_nir(edit(tmp_path, change))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, share):
    path = edit(tmp_path, lambda f: None)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="damaged, truncated or not a NIR file"):
        read_nir(path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match=r"expected a NIR file.*; found no such file"):
        read_nir(tmp_path / "none.nir")
    with pytest.raises(InputError, match=r"expected a NIR file.*; found a folder"):
        read_nir(tmp_path)
    shutil.copy(Path(__file__), tmp_path / "code.nir")
    with pytest.raises(InputError, match="damaged, truncated or not a NIR file"):
        read_nir(tmp_path / "code.nir")


@pytest.mark.parametrize("size", [1, 100, 20_000, 300_000])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, ">f4"])
def test_arrays_of_any_size_come_back(tmp_path, size, kind):
    """Small ones are handed over by the process that reads the file first, large ones are read again."""
    path = edit(tmp_path, lambda f: replace(f["node/nodes/n0"], "tau", data=np.arange(size).astype(kind)))
    found = read_nir(path).nodes["n0"].tau
    assert found.dtype == kind
    np.testing.assert_array_equal(found, np.arange(size).astype(kind))
    found[0] = 7
    assert found[0] == 7


def test_a_large_weight_is_held_once(tmp_path):
    write_nir(chain([1024], bare(nir.Linear, weight=np.zeros((64, 1024), np.float32))), tmp_path / "net.nir")
    net = read_nir(tmp_path / "net.nir")
    assert np.shares_memory(lower(net).by_name["n0"].weight, net.nodes["n0"].weight)


def test_loading_25_million_weights_takes_no_second_copy_of_them(tmp_path):
    write_nir(chain([5000], bare(nir.Linear, weight=np.zeros((1, 5000), np.float32))), tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        replace(file["node/nodes/n0"], "weight", data=np.ones((5000, 5000), np.float32))
    tracemalloc.start()
    try:
        weight = lower(read_nir(tmp_path / "net.nir")).by_name["n0"].weight
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert weight.nbytes == 10**8
    assert weight.nbytes < peak < 1.1 * weight.nbytes


def test_two_files_are_written_at_once(tmp_path):
    with whole_hdf5(tmp_path / "a.nir") as first, whole_hdf5(tmp_path / "b.nir") as second:
        first["x"], second["x"] = 1, 2
    for name, value in (("a.nir", 1), ("b.nir", 2)):
        with h5py.File(tmp_path / name) as file:
            assert file["x"][()] == value


def test_a_name_that_is_a_path_elsewhere_is_refused_at_once(tmp_path):
    """It could not become the name of an array, which export found after its work."""
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "C:\\x": nir.Linear(np.ones((1, 1), np.float32)),
        "output": nir.Output({"output": np.array([1])}),
    }
    graph = nir.NIRGraph(nodes, [("input", "C:\\x"), ("C:\\x", "output")], type_check=False)
    with pytest.raises(GraphError, match="is a path: expected no backslash; rename it"):
        write_nir(graph, tmp_path / "a.nir")
    nir.write(tmp_path / "b.nir", graph)
    with pytest.raises(GraphError, match="is a path: expected no backslash; rename it"):
        read_nir(tmp_path / "b.nir")
    assert {finding.slug for finding in check_file(tmp_path / "b.nir").findings} == {"odd-name"}
