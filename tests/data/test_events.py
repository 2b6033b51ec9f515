"""Event files, their frames, and a network trained on them."""

import os
import shutil
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy._util import isolated
from stl_deploy.config.load import apply_overrides
from stl_deploy.config.schema import DatasetConfig, RunConfig
from stl_deploy.data import encode, input_coding, load_dataset, present
from stl_deploy.data.events import Events, aer40, gather, gesture_npy, shrunk
from stl_deploy.errors import ConfigError, InputError, ToolError
from stl_deploy.graph.run import run
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.loop import train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stl-deploy"


def _record(x, y, p, t):
    return bytes((x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255))


def _recording(rng, label, events=300):
    """A bar whose column tells the label, in increasing time."""
    times = np.sort(rng.integers(0, 300_000, events))
    return b"".join(
        _record(3 * label + int(rng.integers(3)), int(rng.integers(34)), int(rng.integers(2)), int(t)) for t in times
    )


@pytest.fixture
def nmnist(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "data" / "NMNIST"
    for part, count in (("Train", 12), ("Test", 4)):
        for label in range(10):
            folder = root / part / str(label)
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index:05}.bin").write_bytes(_recording(rng, label))
    return root.parent


def _config(root, **changes):
    settings = {"name": "n_mnist", "T": 4, "encoder": "spikes", "data_dir": str(root), "validation_fraction": 0.25}
    return DatasetConfig(**(settings | changes))


def test_records_by_hand_and_the_clock_that_wraps():
    data = _record(5, 7, 1, 100_000) + _record(0, 240, 0, 0) + _record(1, 2, 0, 3)
    events = aer40(data, (2, 34, 34), "here")
    assert events.where.tolist() == [1 * 34 * 34 + 7 * 34 + 5, 2 * 34 + 1]
    assert events.when.tolist() == [100_000, 2**13 + 3]
    with pytest.raises(InputError, match=r"here: expected a multiple of 5 bytes .*; found 4"):
        aer40(data[:4], (2, 34, 34), "here")
    with pytest.raises(InputError, match="here: expected events at 0 to 33 on axis 2; found 34 to 34"):
        aer40(_record(34, 0, 0, 0), (2, 34, 34), "here")


def test_frames_by_hand():
    events = Events(np.array([0, 0, 1, 2, 2]), np.array([40, 0, 10, 20, 30]))
    assert gather(events, 2, (3,), "time").tolist() == [[1, 1, 0], [1, 0, 2]]
    assert gather(events, 2, (3,), "count").tolist() == [[1, 1, 1], [1, 0, 1]]
    assert gather(Events(np.zeros(300, np.int64), np.arange(300)), 1, (1,), "count").tolist() == [[255]]
    nothing = Events(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert [gather(nothing, 2, (3,), how).sum() for how in ("time", "count")] == [0, 0]
    at_once = Events(np.array([0, 1]), np.array([5, 5]))
    assert gather(at_once, 3, (2,), "time").sum() == 2


@given(
    st.lists(st.tuples(st.integers(0, 31), st.integers(0, 10**6)), max_size=60),
    st.integers(1, 7),
    st.sampled_from(["count", "time"]),
)
def test_no_event_is_lost_and_time_never_goes_back(events, steps, binning):
    where, when = (np.array([e[i] for e in events], np.int64) for i in (0, 1))
    frames = gather(Events(where, when), steps, (2, 4, 4), binning)
    assert frames.shape == (steps, 2, 4, 4)
    assert frames.sum() == len(events)
    assert (frames.sum(0).ravel() == np.bincount(where, minlength=32)).all()
    per_frame = frames.reshape(steps, -1).sum(1).astype(int)
    if binning == "count" and len(events):
        assert per_frame.max() - per_frame.min() <= 1
    small = gather(Events(where, when), steps, (2, 4, 4), binning, downscale=2)
    assert (small == frames.reshape(steps, 2, 2, 2, 2, 2).sum((3, 5))).all()


def test_downscaling_cuts_what_fills_no_block():
    assert (shrunk((2, 34, 34), 4), shrunk((700,), 5)) == ((2, 8, 8), (140,))
    events = Events(np.array([33 * 34 + 33, 5]), np.array([0, 1]))
    assert gather(events, 1, (2, 34, 34), "count", 4).sum() == 1


def test_folders_and_zips_give_the_same_frames_and_are_kept(nmnist, cache, tmp_path, monkeypatch):
    data = load_dataset(_config(nmnist))
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 30, 40)
    assert data.input_shape == (2, 34, 34)
    assert data.test.pixels.shape == (40, 4, 2, 34, 34)
    assert data.test.pixels.sum() == 40 * 300
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    for part in ("Train", "Test"):
        with zipfile.ZipFile(zipped / f"{part.lower()}.zip", "w") as archive:
            for path in sorted((nmnist / "NMNIST" / part).rglob("*.bin")):
                archive.write(path, path.relative_to(nmnist / "NMNIST"))
    assert torch.equal(load_dataset(_config(zipped)).train.pixels, data.train.pixels)
    assert len(list((cache / "frames").iterdir())) == 4
    monkeypatch.setattr("stl_deploy.data.event_sources.gather", None)
    assert torch.equal(load_dataset(_config(nmnist)).train.pixels, data.train.pixels)
    with pytest.raises(TypeError):
        load_dataset(_config(nmnist, binning="time"))


def test_events_are_shown_as_spikes_or_counts():
    frames = torch.tensor([[[0.0, 3.0], [1.0, 0.0]]])
    assert encode(frames, 2, "counts").tolist() == [[[0, 3]], [[1, 0]]]
    assert encode(frames, 2, "spikes").tolist() == [[[0, 1]], [[1, 0]]]
    assert encode(frames, 1, "counts").tolist() == [[[1, 3]]]
    assert (input_coding("counts"), input_coding("spikes")) == ("graded", "spikes")


def test_gestures_keep_parts_of_a_millisecond(tmp_path):
    np.save(tmp_path / "0.npy", np.array([[3, 2, 1, 10.0], [5, 0, 0, 10.251]]))
    events = gesture_npy(tmp_path / "0.npy", (2, 4, 8))
    assert events.where.tolist() == [(4 + 2) * 8 + 3, 5]
    assert events.when.tolist() == [10_000, 10_251]


def test_gestures_and_their_labels(tmp_path):
    for part in ("Train", "Test"):
        folder = tmp_path / "DVSGesture" / f"ibmGesture{part}" / "user01_led"
        folder.mkdir(parents=True)
        for label in range(11):
            np.save(folder / f"{label}.npy", np.array([[label, 2, 1, 10], [127, 127, 0, 20]], np.float64))
            if part == "Train":
                np.save(folder.parent / "user01_led" / f"{label}.npy", np.array([[label, 2, 1, 10]], np.float64))
    config = DatasetConfig(name="dvs128_gesture", encoder="counts", data_dir=str(tmp_path), T=2, downscale=4)
    with pytest.raises(InputError, match="validation split is empty"):
        load_dataset(config)
    found = np.load(folder / "3.npy")
    np.save(folder / "3.npy", found.astype(object))
    with pytest.raises(InputError, match=r"3\.npy: expected numbers \[events, 4\]; found object \[2, 4\]"):
        load_dataset(config)
    (folder / "3.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(InputError, match=r"3\.npy: damaged, truncated or not a whole \.npy file"):
        load_dataset(config)
    np.save(folder / "3.npy", found)
    for label in range(11):
        shutil.copy(folder / f"{label}.npy", folder.parents[1] / "ibmGestureTrain" / "user01_led")
        (folder.parents[1] / "ibmGestureTrain" / "user02_led").mkdir(exist_ok=True)
        shutil.copy(folder / f"{label}.npy", folder.parents[1] / "ibmGestureTrain" / "user02_led")
    data = load_dataset(config.model_copy(update={"validation_fraction": 0.5}))
    assert data.input_shape == (2, 32, 32)
    assert data.test.labels.tolist() == list(range(11)) or sorted(data.test.labels.tolist()) == list(range(11))
    for frames, label in zip(data.test.pixels, data.test.labels.tolist(), strict=True):
        assert frames.sum() == 2
        assert frames[0, 1, 0, label // 4] == 1
        assert frames[1, 0, 31, 31] == 1


def _shd(path, labels):
    with h5py.File(path, "w") as file:
        file["labels"] = np.array(labels, np.uint16)
        times = file.create_dataset("spikes/times", (len(labels),), h5py.vlen_dtype(np.float32))
        units = file.create_dataset("spikes/units", (len(labels),), h5py.vlen_dtype(np.uint16))
        for i, label in enumerate(labels):
            times[i], units[i] = [0.0, 0.25, 1.0], [label, label + 1, 699]


def test_spoken_digits(tmp_path):
    _shd(tmp_path / "shd_train.h5", [*range(20), *range(20)])
    _shd(tmp_path / "shd_test.h5", range(20))
    config = DatasetConfig(
        name="shd", encoder="spikes", data_dir=str(tmp_path), T=4, binning="time", validation_fraction=0.5
    )
    data = load_dataset(config)
    assert data.test.pixels.shape == (20, 4, 700)
    assert [frame.nonzero().ravel().tolist() for frame in data.test.pixels[5]] == [[5], [6], [], [699]]
    small = load_dataset(config.model_copy(update={"downscale": 5}))
    assert small.input_shape == (140,)
    _shd(tmp_path / "shd_test.h5", [25])
    with pytest.raises(InputError, match="expected labels from 0 to 19; found 25 to 25"):
        load_dataset(config)
    with h5py.File(tmp_path / "shd_test.h5", "r+") as file:
        file["spikes/units"][0] = [1, 2]
    with pytest.raises(
        InputError, match=r"expected times in floats, one for each unit in integers; found 3 \(.*\) for 2"
    ):
        load_dataset(config)
    (tmp_path / "shd_test.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(InputError, match=r"shd_test\.h5: damaged, truncated or not an SHD file"):
        load_dataset(config)


STAND_IN = """
import numpy as np

class Decoder:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.said = file.read()
        if self.said == b"memory":
            import os
            os.abort()
        if self.said == b"panic":
            class PanicException(BaseException):
                pass
            raise PanicException("range end\\nindex 4")

    def id_to_stream(self):
        return {0: {"type": "imus"}, 1: {"type": "events"}} if self.said != b"imus" else {0: {"type": "imus"}}

    def __iter__(self):
        kind = [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")]
        yield {"stream_id": 0}
        for t in (0, 10):
            yield {"stream_id": 1, "events": np.array([(t, 3 + self.said[0], 2, True)], kind)}
"""


def test_pictures_before_a_camera_through_aedat(tmp_path, monkeypatch):
    """The package's decoder is stood in for; what it is asked and how its packets are read is tested."""
    for place, name in enumerate(("airplane", "automobile")):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.aedat4").write_bytes(bytes([place]))
    (tmp_path / "packages").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    isolated._stop()

    config = DatasetConfig(name="cifar10_dvs", encoder="spikes", data_dir=str(tmp_path), T=2)
    (tmp_path / "packages" / "aedat.py").write_text("raise ImportError")
    with pytest.raises(ToolError, match=r"aedat is not installed; .*pip install .*\[data\]"):
        load_dataset(config)
    isolated._stop()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "no-python"))
        with pytest.raises(ToolError, match=r"cannot start a process to read untrusted files in: .*no-python"):
            load_dataset(config)
    (tmp_path / "packages" / "aedat.py").write_text(STAND_IN)
    data = load_dataset(config)
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    for frames, label in zip(data.test.pixels, data.test.labels.tolist(), strict=True):
        assert frames[:, 1, 2, 3 + label].tolist() == [1, 1]
        assert frames.sum() == 2
    for damage, said in ((b"panic", "range end index 4"), (b"memory", "crashes on it"), (b"imus", "no events")):
        (tmp_path / "automobile" / "5.aedat4").write_bytes(damage)
        with pytest.raises(InputError, match=rf"5\.aedat4: damaged, truncated or not an AEDAT 4 file \(.*{said}"):
            load_dataset(config)
    isolated._stop()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("n_mnist", "Train.zip and Test.zip of https://www.garrickorchard.com/datasets/n-mnist"),
        ("dvs128_gesture", "ibmGestureTrain.tar.gz and ibmGestureTest.tar.gz"),
        ("cifar10_dvs", "CIFAR10DVS.zip"),
        ("shd", "shd_train.h5.zip and shd_test.h5.zip of https://zenkelab.org/datasets"),
    ],
)
def test_absent_files_say_what_to_fetch_and_where_to_put_it(name, said, cache):
    """No package downloads them."""
    with pytest.raises(InputError) as refused:
        load_dataset(DatasetConfig(name=name, T=4, encoder="spikes"))
    assert f"found none; unpack {said}" in str(refused.value)
    assert str(cache) in str(refused.value)


def test_files_unpacked_into_the_cache_are_read(nmnist, cache):
    """Where the message says, or in the folder that it names."""
    shutil.copytree(nmnist / "NMNIST", cache / "NMNIST")
    assert len(load_dataset(_config(nmnist, data_dir=None)).test) == 40


def test_what_is_too_much_or_nothing_is_refused(nmnist, tmp_path, monkeypatch):
    monkeypatch.setattr("stl_deploy.data.event_sources.MAX_ARRAY_BYTES", 1)
    with pytest.raises(
        InputError, match=r"over 0 GiB of frames at dataset\.T = \d+; take fewer steps or a dataset\.down"
    ):
        load_dataset(_config(nmnist))
    _shd(tmp_path / "shd_train.h5", [])
    _shd(tmp_path / "shd_test.h5", [0])
    with pytest.raises(InputError, match=r"shd_train\.h5: expected .*; found no recordings"):
        load_dataset(DatasetConfig(name="shd", encoder="spikes", data_dir=str(tmp_path)))


def test_present_looks_into_the_cache(nmnist, cache):
    assert present("digits")
    assert not present("n_mnist")
    shutil.copytree(nmnist, cache)
    assert present("n_mnist")
    assert len(load_dataset(_config(nmnist, data_dir=None)).test) == 40


def test_folders_that_a_failed_download_leaves_are_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr("stl_deploy.data.registry.cache_dir", lambda: tmp_path)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert not present("mnist")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"")
    assert present("mnist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "direct"}, "key 'dataset.encoder': expected spikes, counts for n_mnist, events; found 'direct'"),
        (
            {"name": "digits", "encoder": "counts", "data_dir": None},
            "key 'dataset.encoder': expected direct, bernoulli",
        ),
        ({"downscale": 40}, "key 'dataset.downscale': expected one that leaves pixels of [2, 34, 34]; found 40"),
        (
            {"name": "digits", "encoder": "direct", "downscale": 2, "data_dir": None},
            "key 'dataset.downscale': expected none for digits, no events; found 2; leave it out",
        ),
    ],
)
def test_settings_that_do_not_fit(nmnist, changes, message):
    with pytest.raises(ConfigError) as caught:
        load_dataset(_config(nmnist, **changes))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("mode", "encoder"), [("stl", "spikes"), ("stl", "counts"), ("ann", "counts")])
def test_from_events_to_the_graph(tiny: RunConfig, nmnist, tmp_path, mode, encoder):
    changes = ["dataset.name=n_mnist", f"dataset.encoder={encoder}", f"dataset.data_dir={nmnist}", "dataset.T=4"]
    changes += ["dataset.downscale=3", "dataset.validation_fraction=0.2", f"train.mode={mode}", "train.epochs=12"]
    config = apply_overrides(tiny, changes)
    result = train(config, tmp_path / "run")
    assert result.test.accuracy > 0.5
    network, kept = load_network(tmp_path / "run")
    assert network.input_shape == (2, 11, 11)
    test = load_dataset(kept.dataset).test
    assert evaluate(network, test, kept) == result.test
    if mode == "ann":
        return
    folded = fold_run(tmp_path / "run", tmp_path / "net.nir")
    assert folded.exact
    x = encode_split(kept, test).x
    assert (x.max() > 1) == (encoder == "counts")
    outputs = folded.folded.network(torch.from_numpy(x))
    np.testing.assert_array_equal(run(folded.program, x).y, outputs.numpy())
    declared = {"coding": "spikes", "max": 1.0} if encoder == "spikes" else {"coding": "graded", "max": 255.0}
    assert folded.program.metadata["input"] == {**declared, "fraction_bits": 0}


@pytest.mark.skipif("STL_DEPLOY_DATA" not in os.environ, reason="STL_DEPLOY_DATA names no folder of datasets")
@pytest.mark.parametrize("binning", ["count", "time"])
def test_the_real_n_mnist_files(binning):
    root = Path(os.environ["STL_DEPLOY_DATA"]) / "n_mnist"
    data = load_dataset(_config(root, T=10, binning=binning))
    assert len(data.test) >= 100
    pixels = data.test.pixels.double()
    assert 3_000 < pixels.sum() / len(data.test) < 6_000
    by_step = pixels.sum((2, 3, 4))
    spread = (by_step.max(1).values - by_step.min(1).values).max()
    assert (spread <= 1) == (binning == "count")
    means = torch.stack([data.train.pixels.double().sum(1)[data.train.labels == k].mean(0) for k in range(10)])
    flat = torch.nn.functional.normalize(means.flatten(1), dim=1)
    guessed = (pixels.sum(1).flatten(1) @ flat.T).argmax(1)
    assert (guessed == data.test.labels).double().mean() > 0.5


@pytest.mark.parametrize(("last", "steps"), [(2**53, 2000), (2**63 - 1, 1), (2**63 - 1, 4)])
def test_times_too_far_apart_to_be_parted_are_refused(last, steps):
    events = Events(np.array([0, 1]), np.array([-last - 1, last]))
    with pytest.raises(
        InputError, match=rf"expected events over a time that {steps} time steps can part; found \d+ µs"
    ):
        gather(events, steps, (2, 4, 4), "time")
    assert gather(events, steps, (2, 4, 4), "count").sum() == 2
