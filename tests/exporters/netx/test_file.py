"""netx files: read back as written, laid out as netx reads them, and refused in one sentence when they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from benchmarks.unseen import lava_dl_rows
from stl_deploy import verbs
from stl_deploy._util.console import Console
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import read_netx, write_netx
from stl_deploy.exporters.netx.layers import ConvLayer, DenseLayer, FlattenLayer, InputLayer, NetxFile, same_file
from tests.exporters.netx.nets import chain, dense, neuron, random_case, special_cases


@pytest.mark.parametrize("seed", range(12))
def test_random_nets_come_back_equal(seed: int, tmp_path: Path) -> None:
    net, _ = random_case(seed)
    write_netx(net, tmp_path / "a.net")
    assert same_file(read_netx(tmp_path / "a.net"), net)


def test_special_nets_come_back_equal(tmp_path: Path) -> None:
    for net, _ in special_cases().values():
        write_netx(net, tmp_path / "a.net")
        assert same_file(read_netx(tmp_path / "a.net"), net)


def test_another_weight_is_another_net() -> None:
    a = chain((2,), dense([[1, 2]], neuron=neuron(0, 1), node="fc"))
    assert not same_file(a, chain((2,), dense([[1, 3]], neuron=neuron(0, 1), node="fc")))
    assert not same_file(a, chain((2,), dense([[1, 2]], neuron=neuron(0, 1))))
    assert not same_file(a, chain((2,), dense([[1, 2]], neuron=neuron(0, 2), node="fc")))


def test_layout_is_what_netx_reads(tmp_path: Path) -> None:
    threshold = np.arange(2 * 3 * 4, dtype=np.int32).reshape(2, 3, 4)
    weight = np.arange(2 * 1 * 2 * 3, dtype=np.int32).reshape(2, 1, 2, 3)
    conv = ConvLayer(
        weight=weight, input_shape=(1, 4, 6), bias=threshold - 3, neuron=neuron(2048, threshold), node="lif1"
    )
    write_netx(chain((1, 4, 6), conv, FlattenLayer(), dense(np.ones((2, 24)), neuron=neuron(1, 2))), tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net") as file:
        assert [file[f"layer/{i}/type"][()] for i in range(4)] == [b"input", b"conv", b"flatten", b"dense"]
        assert file["layer/1/shape"][()].tolist() == [2, 3, 4]
        assert file["layer/1/weight"][()].tolist() == weight.tolist()
        assert file["layer/1/neuron/vThMant"].shape == (4, 3, 2)
        assert file["layer/1/neuron/vThMant"][3, 2, 1] == threshold[1, 2, 3]
        assert file["layer/1/bias"][3, 2, 1] == threshold[1, 2, 3] - 3
        assert file["layer/1/neuron/iDecay"][()] == 4096
        assert file["layer/3/neuron/vThMant"].shape == ()


@pytest.mark.parametrize(("key", "least"), [("stride", 1), ("dilation", 1), ("padding", 0)])
def test_a_convolution_that_does_not_move_is_refused(key: str, least: int, tmp_path: Path) -> None:
    conv = ConvLayer(weight=np.ones((2, 1, 2, 3), np.int32), input_shape=(1, 4, 6), neuron=neuron(2048, 1))
    write_netx(chain((1, 4, 6), conv), tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net", "r+") as file:
        _set(f"layer/1/{key}", [1, least - 1])(file, tmp_path)
    with pytest.raises(InputError, match=rf"layer/1/{key}: expected one or two numbers from {least}; found \[1, "):
        read_netx(tmp_path / "a.net")


def test_files_as_lava_dl_writes_them_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.net", "w") as file:
        for index, kind in enumerate(("input", "conv", "flatten", "dense")):
            file.create_dataset(f"layer/{index}/type", (1,), "S10", [kind.encode()])
        file["layer/0/shape"] = [1, 4, 4]
        settings: tuple[tuple[str, Any], ...] = (
            ("stride", [1, 1]),
            ("padding", 0),
            ("dilation", [1, 1]),
            ("groups", 1),
            ("kernelSize", 3),
        )
        for key, value in settings:
            file[f"layer/1/{key}"] = value
        file["layer/1/shape"] = [2, 2, 2]
        file["layer/1/weight"] = np.ones((2, 1, 3, 3, 1), np.float32)
        file["layer/2/shape"] = [8]
        file["layer/3/shape"] = [3]
        file["layer/3/weight"] = np.ones((3, 8), np.float64)
        file["layer/3/delay"] = np.array([0.0, 1, 2])
        for index in (1, 3):
            file[f"layer/{index}/neuron/type"] = np.bytes_("CUBA")
            for key, number in (("iDecay", 4096), ("vDecay", 2048), ("vThMant", 80), ("refDelay", 1)):
                file[f"layer/{index}/neuron/{key}"] = number
    net = read_netx(tmp_path / "a.net")
    conv, last = net.layers[1], net.layers[3]
    assert isinstance(conv, ConvLayer)
    assert isinstance(last, DenseLayer)
    assert conv.weight.shape == (2, 1, 3, 3)
    assert last.delay is not None
    assert last.delay.tolist() == [[d] * 8 for d in (0, 1, 2)]


def _set(key: str, value: Any) -> Callable[[Any, Path], None]:
    def change(file: Any, folder: Path) -> None:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value

    return change


def _huge(file: Any, folder: Path) -> None:
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (10**6, 10**6), "i4", chunks=(64, 64))


def _external_data(file: Any, folder: Path) -> None:
    (folder / "secret.bin").write_bytes(bytes(48))
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (4, 3), "i4", external=[(str(folder / "secret.bin"), 0, 48)])


def _group(file: Any, folder: Path) -> None:
    del file["layer/1/weight"]
    file.create_group("layer/1/weight")


def _named(file: Any, folder: Path) -> None:
    file["layer/1"].attrs["node"] = "../a"


HOSTILE: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "float": (_set("layer/1/weight", np.full((4, 3), 0.5)), "layer/1/weight: holds fractions"),
    "nan": (_set("layer/1/weight", np.full((4, 3), np.nan)), "layer/1/weight: holds fractions"),
    "text": (_set("layer/1/weight", b"x"), "layer/1/weight: expected integers"),
    "missing": (_set("layer/1/neuron/vDecay", None), "layer/1/neuron/vDecay: missing"),
    "no_type": (_set("layer/1/type", None), "layer/1/type: missing"),
    "unknown": (_set("layer/1/type", b"wibble"), "expected input, dense, conv or flatten; found 'wibble'"),
    "pool": (_set("layer/1/type", b"pool"), "netx names this type but cannot run it"),
    "neuron": (
        _set("layer/1/neuron/type", b"SDNN"),
        r"expected CUBA \(or LOIHI\) neurons; found 'SDNN' \(sigma-delta\)",
    ),
    "resonate": (_set("layer/1/neuron/type", b"RF_PHASE"), r"found 'RF_PHASE' \(resonate-and-fire\)"),
    "recurrent": (_set("layer/1/type", b"dense_rec"), "'dense_rec': recurrent dense layers run in netx, but not here"),
    "message_bits": (_set("layer/1/neuron/messageBits", 8), "netx 0.6 hangs on it"),
    "shape": (_set("layer/1/shape", [5]), r"expected \[5, in\] for 5 outputs; found \[4, 3\]"),
    "negative_shape": (_set("layer/0/shape", [-3]), "layer/0/shape"),
    "order": (_set("layer/0/type", b"conv"), "expected an 'input' layer with its shape first; found 'conv'"),
    "average": (_set("layer/0/type", b"average"), "layer with its shape first; found 'average'"),
    "gap": (_set("layer/7/type", b"flatten"), "layer/2 is missing"),
    "soft": (_set("layer/1/weight", h5py.SoftLink("/layer/0/shape")), "found a link to elsewhere"),
    "external": (_set("layer/1/weight", h5py.ExternalLink("/etc/passwd", "/x")), "found a link to elsewhere"),
    "soft_layer": (_set("layer/1", h5py.SoftLink("/layer/0")), "found a link to elsewhere"),
    "external_data": (_external_data, "another file"),
    "huge": (_huge, r"declares \[1000000, 1000000\] int32"),
    "big_value": (_set("layer/1/bias", [2**40, 0, 0, 0]), "beyond 32 bits"),
    "bias_shape": (_set("layer/1/bias", [1, 2]), r"expected bias of shape \[4\]; found \[2\]"),
    "no_layers": (_set("layer", None), "no group 'layer'"),
    "delay_shape": (_set("layer/1/delay", np.ones((2, 3))), r"delay: shape \[2, 3\] does not fit weights \[4, 3\]"),
    "decays": (_set("layer/1/neuron/vDecay", [1, 2]), r"vDecay: expected one number; found shape \[2\]"),
    "group": (_group, "layer/1/weight: is not an array of numbers or a text"),
    "name": (_named, "expected a printable name of up to 255 characters, no path; found '../a'"),
    "conv": (_set("layer/1/type", b"conv"), r"expected \[C_out, C_in/groups, kh, kw\]; found \[4, 3\] behind \[3\]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_layer_and_key(name: str, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    path = tmp_path / "a.net"
    write_netx(chain((3,), dense(np.arange(12).reshape(4, 3), neuron=neuron(1, 2))), path)
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read_netx(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_delays_of_a_convolution_are_refused_as_netx_ignores_them(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    layer = ConvLayer(weight=np.ones((1, 1, 1, 1), np.int32), input_shape=(1, 2, 2), neuron=neuron(1, 2))
    write_netx(chain((1, 2, 2), layer), path)
    with h5py.File(path, "r+") as file:
        file["layer/1/delay"] = [1]
    with pytest.raises(InputError, match="layer/1/delay: netx ignores delays of conv layers; remove it"):
        read_netx(path)


@pytest.mark.parametrize("value", [-1, 25, 2.0, "8", [8, 8]])
def test_the_input_s_grid_is_a_number_of_bits(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    net = chain((3,), dense(np.arange(12).reshape(4, 3), neuron=neuron(1, 2)))
    gridded = NetxFile((InputLayer(shape=(3,), fraction_bits=8), *net.layers[1:]))
    write_netx(gridded, path)
    assert read_netx(path).fraction_bits == 8
    assert not same_file(net, gridded)
    with h5py.File(path, "r+") as file:
        file["layer/0"].attrs["fraction_bits"] = value
    with pytest.raises(InputError, match=r"a\.net: layer/0/fraction_bits: expected an integer from 0 to 24; found"):
        read_netx(path)


def test_out_of_range_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    write_netx(chain((3,), dense(np.arange(12).reshape(4, 3), neuron=neuron(1, 2))), path)
    with h5py.File(path, "r+") as file:
        file["layer/1/neuron/vThMant"][...] = 2**17
    with pytest.raises(UnsupportedError, match=r"threshold is 131072, netx holds 0 to 131071 \(in .*\.net\)"):
        read_netx(path)


@pytest.mark.parametrize("content", [b"", b"not hdf5", None])
def test_foreign_and_missing_files(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"no such file|damaged, truncated or not a netx \.net file"):
        read_netx(path)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_truncated_files(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    write_netx(random_case(1)[0], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=r"a\.net: damaged, truncated or not a netx"):
        read_netx(path)


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    write_netx(random_case(1)[0], path)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(40):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 8)] = rng.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        try:
            read_netx(path)
        except (InputError, UnsupportedError):
            refused += 1
    assert 0 < refused < 40


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An input of 3, a dense layer of 4."""
    path = tmp_path / "a.net"
    weight = np.array([[40, -20, 7], [3, 90, -60], [25, 25, 25], [-9, 80, 4]])
    write_netx(chain((3,), dense(weight, neuron=neuron(1024, 60))), path)
    return path


X = np.random.default_rng(0).integers(0, 2, (20, 2, 3))


def test_a_first_dense_layer_tells_the_input_itself(small: Path) -> None:
    with_input = run_file(read_netx(small), X).y
    assert with_input.any()
    with h5py.File(small, "r+") as file:
        del file["layer/0"]
        file.move("layer/1", "layer/0")
    net = read_netx(small)
    assert net.input_shape == (3,)
    found = run_file(net, X, record=True)
    np.testing.assert_array_equal(found.y, with_input)
    assert list(found.spikes) == ["layer0"]


def test_averages_at_the_end_are_left_out_and_said(small: Path) -> None:
    before = run_file(read_netx(small), X).y
    with h5py.File(small, "r+") as file:
        file["layer/2/type"] = np.array([b"average"])
        file["layer/2/shape"] = [2, 1, 1]
    net = read_netx(small)
    assert net.notes == ("layer/2 ('average') is not run by netx and is left out",)
    np.testing.assert_array_equal(run_file(net, X).y, before)


def test_a_dense_layer_without_neurons_never_fires(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(small, "r+") as file:
        del file["layer/1/neuron"]
    net = read_netx(small)
    note = "layer1 has no neurons; netx gives it neurons that never fire, so its spikes are all 0"
    assert net.notes == (note,)
    assert not run_file(net, X).y.any()
    np.savez(tmp_path / "x.npz", x=X)
    verbs.simulate(small, tmp_path / "x.npz", "loihi", tmp_path / "y.npz", say=Console())
    assert note in " ".join(capsys.readouterr().err.split())


def test_mixed_weights_are_clipped_and_delays_clamped_as_netx_does(small: Path) -> None:
    with h5py.File(small, "r+") as file:
        file["layer/1/weight"][0] = [300, -300, 255]
        file["layer/1/delay"] = [0, 1, 70, 3]
    layer = read_netx(small).layers[1]
    assert isinstance(layer, DenseLayer)
    assert layer.weight[0].tolist() == [254, -256, 254]
    assert layer.delay is not None
    assert layer.delay[:, 0].tolist() == [0, 1, 62, 3]


def test_neurons_of_the_input_layer_take_the_input_for_their_bias(small: Path) -> None:
    """v of bias 20: 64·20 = 1280, 2240, past 64·30 = 1920: fires in every second step, from rest."""
    with h5py.File(small, "r+") as file:
        file["layer/0/weight"], file["layer/0/bias"] = 40.0, [36.0]
        for key, value in (("type", b"LOIHI"), ("iDecay", 4096), ("vDecay", 1024), ("vThMant", 30)):
            file[f"layer/0/neuron/{key}"] = value
    net = read_netx(small)
    bias = np.broadcast_to(np.array([20, 31, 7]), (6, 1, 3))
    found = run_file(net, bias, record=True)
    assert found.spikes["layer0"][:, 0].T.tolist() == [[0, 1, 0, 1, 0, 1], [1] * 6, [0] * 6]
    with pytest.raises(InputError, match=r"the bias .*5000 .*trains on 40 times the image plus 36"):
        run_file(net, bias * 250 * (bias == 20))


def _lava_dl() -> Path | None:
    """The folder of lava-dl's own networks, which Lava's side environment has."""
    found = environment.location().glob("lib/python3*/site-packages/tests/lava/lib/dl/netx")
    return next(found, None)


@pytest.mark.skipif(_lava_dl() is None, reason="Lava is not installed, and lava-dl's own files come with it")
def test_lava_dls_own_networks_spike_as_its_recordings_say() -> None:
    folder = _lava_dl()
    assert folder is not None
    rows = {row.name: row for row in lava_dl_rows(folder)}
    assert {row.differ for row in rows.values() if row.compared} == {0}
    assert {name for name, row in rows.items() if row.compared} == {
        "ntidigits.net",
        "pilotnet_lif/network.net",
        "tiny.net",
    }
    refused = [name for name, row in rows.items() if "sigma-delta" in row.note]
    assert refused == ["pilotnet_sdnn/network.net", "pilotnet_sdnn/square_network.net"]
