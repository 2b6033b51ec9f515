"""Own data: npz files, folders of images, Python files, arrays; what each is read as, and what is refused in words."""

import importlib.util
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from stl_deploy._util import install
from stl_deploy._util.readers import read_image
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data import Source, complete, from_arrays, from_datasets, load_dataset, registry, transformed
from stl_deploy.data.own import trust
from stl_deploy.data.raw import Look, Raw
from stl_deploy.errors import ConfigError, InputError, ToolError

RNG = np.random.default_rng(0)
TORCHVISION = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason="torchvision is not installed: pip install 'stl-deploy[data]'",
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trust, "allowed", set())


def _npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def _config(name, path, **settings):
    return DatasetConfig.model_validate({"name": name, "path": str(path), **settings})


def _labels(count, classes=3):
    return np.arange(count) % classes


# --- npz


def test_static_images_of_8_bits_are_split_by_the_seed(tmp_path):
    x = RNG.integers(0, 256, (60, 1, 4, 5), np.uint8)
    config = _config("npz", _npz(tmp_path / "a.npz", x=x, y=_labels(60)), test_fraction=0.2, validation_fraction=0.2)
    data = load_dataset(config)
    assert (data.input_shape, data.classes, data.class_names) == ((1, 4, 5), 3, ("0", "1", "2"))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [36, 12, 12]
    assert (data.train.levels, data.train.grid) == (255, None)
    rows = {image.tobytes() for image in x}
    assert {i.numpy().tobytes() for s in (data.train, data.validation, data.test) for i in s.pixels} == rows
    assert torch.equal(load_dataset(config).test.pixels, data.test.pixels)
    other = load_dataset(config.model_copy(update={"seed": 1}))
    assert not torch.equal(other.test.pixels, data.test.pixels)


def test_splits_and_class_names_of_the_file_are_kept(tmp_path):
    x, more = RNG.random((12, 7)).astype(np.float32), RNG.random((6, 7)).astype(np.float32)
    path = _npz(tmp_path / "a.npz", x=x, y=_labels(12), x_test=more, y_test=_labels(6), classes=["cat", "dog", "owl"])
    data = load_dataset(_config("npz", path, validation_fraction=0.25))
    np.testing.assert_array_equal(data.test.pixels, more)
    assert (len(data.train), len(data.validation)) == (9, 3)
    assert data.class_names == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("x", "settings", "grid"),
    [
        (np.array([[0.0, 1.0]]), {}, (0, 1.0)),
        (np.array([[0.0, 3.0]]), {}, (0, 3.0)),
        (np.array([[0.3, -2.5]]), {}, (8, 2.5)),
        (np.array([[0.3, 0.9999]]), {}, (8, 1.0)),
        (np.array([[0.3, -0.9]]), {"input_grid": 1}, (1, 1.0)),
        (np.array([[0.3, -2.5]]), {"input_grid": 4}, (4, 2.5)),
        (np.array([[True, False]]), {}, (0, 1.0)),
        (np.array([[0, 9]]), {}, (0, 9.0)),
        (np.array([[0, 16]], np.uint8), {"levels": 16, "input_grid": 4}, (4, 1.0)),
    ],
    ids=["events", "counts", "real", "rounded up", "coarse", "declared", "bool", "integers", "sixteenths"],
)
def test_the_grid_of_the_input_is_what_the_values_need(tmp_path, x, settings, grid):
    path = _npz(tmp_path / "a.npz", x=np.repeat(x, 12, 0), y=_labels(12))
    found = load_dataset(_config("npz", path, test_fraction=0.25, validation_fraction=0.25, **settings)).train.grid
    assert (found.fraction_bits, found.bound) == grid


@pytest.mark.parametrize("encoder", ["direct", "bernoulli", "latency"])
@pytest.mark.parametrize(
    ("x", "levels", "found"),
    [
        (np.array([[0, 255]], np.uint8), 10, "values up to 255|found 0 to 25.5"),
        (np.array([[0.3, 1.7]], np.float32), 2, "others"),
        (np.array([[0.3, -3.0]], np.float32), 2, "values up to 3|found -1.5 to 0.15"),
    ],
)
def test_values_that_levels_do_not_reach_are_refused(tmp_path, encoder, x, levels, found):
    path = _npz(tmp_path / "a.npz", x=np.repeat(x, 30, 0), y=_labels(30))
    with pytest.raises(InputError, match=rf"expected .*{found}.*levels"):
        load_dataset(_config("npz", path, levels=levels, encoder=encoder))
    if encoder == "direct":
        declared = load_dataset(_config("npz", path, levels=levels, input_grid=6)).train
        assert declared.images().abs().max() == pytest.approx(np.abs(x).max() / levels)
        assert declared.grid.bound == round(np.abs(x).max() / levels * 64) / 64


@pytest.mark.parametrize("x", [np.array([[0, 10]], np.uint8), np.array([[-10.0, 4.0]])])
def test_integers_up_to_levels_are_shown_as_parts_of_it(tmp_path, x):
    path = _npz(tmp_path / "a.npz", x=np.repeat(x, 30, 0), y=_labels(30))
    data = load_dataset(_config("npz", path, levels=10))
    assert data.test.grid is None
    np.testing.assert_allclose(data.test.images()[0], x[0] / 10)


def test_8_bit_numbers_are_taken_as_they_are_at_one_level(tmp_path):
    path = _npz(tmp_path / "a.npz", x=np.repeat(np.array([[0, 40]], np.uint8), 30, 0), y=_labels(30))
    grid = load_dataset(_config("npz", path, levels=1)).train.grid
    assert (grid.fraction_bits, grid.bound) == (0, 40)


def test_sequences_bring_their_steps_and_are_shown_as_they_are(tmp_path):
    x = RNG.random((30, 6, 2, 3, 4)).astype(np.float32)
    config = complete(_config("npz", _npz(tmp_path / "a.npz", x=x, y=_labels(30))))
    assert (config.T, config.encoder, config.input_shape) == (6, "sequence", (2, 3, 4))
    assert load_dataset(config).test.pixels.shape[1:] == (6, 2, 3, 4)
    assert complete(config) == config


@pytest.mark.parametrize(
    ("axes", "settings", "shape", "steps"),
    [
        ((5,), {}, (5,), None),
        ((3, 4), {"encoder": "direct"}, (1, 3, 4), None),
        ((3, 4), {"encoder": "sequence"}, (4,), 3),
        ((2, 3, 4), {}, (2, 3, 4), None),
        ((2, 3, 4), {"encoder": "bernoulli"}, (2, 3, 4), None),
        ((6, 2, 3, 4), {}, (2, 3, 4), 6),
        ((6, 2, 3, 4), {"encoder": "spikes", "T": 6}, (2, 3, 4), 6),
    ],
)
def test_which_axis_is_time(tmp_path, axes, settings, shape, steps):
    path = _npz(tmp_path / "a.npz", x=np.zeros((9, *axes), np.float32), y=_labels(9))
    config = complete(_config("npz", path, **settings))
    assert config.input_shape == shape
    assert (config.T if steps else None) == steps


def test_a_label_that_no_sample_has_is_told(tmp_path):
    path = _npz(tmp_path / "a.npz", x=_x(60, 5), y=1 + _labels(60))
    with pytest.warns(UserWarning, match="no sample has the label 0; labels count from 0, so there are 4 classes"):
        load_dataset(_config("npz", path))


@pytest.mark.parametrize(
    ("shape", "order"), [((9, 6, 5, 3), r"\(0, 3, 1, 2\)"), ((9, 2, 8, 7, 1), r"\(0, 1, 4, 2, 3\)")]
)
def test_images_with_channels_last_are_warned_of(tmp_path, shape, order):
    path = _npz(tmp_path / "a.npz", x=np.ones(shape, np.uint8), y=_labels(9))
    with pytest.warns(UserWarning, match=rf"are read as \[channels, height, width\].*give x.transpose{order}"):
        complete(_config("npz", path))


@pytest.mark.parametrize("shape", [(9, 3, 6, 5), (9, 4, 4, 4), (9, 64, 4, 3), (9, 2, 1, 8, 7)])
def test_images_with_channels_first_are_not_warned_of(tmp_path, shape):
    complete(_config("npz", _npz(tmp_path / "a.npz", x=np.ones(shape, np.uint8), y=_labels(9))))


def _x(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("arrays", "settings", "sentence"),
    [
        ({"x": _x(4, 5)}, {}, "expected x and y in the train split; found no 'y'"),
        ({"x": _x(4, 5), "y": _labels(3)}, {}, r"'y': expected integers \[4\].*; found int64 \[3\]"),
        ({"x": _x(4, 5), "y": _labels(4) * 0.5}, {}, r"'y': expected integers .*; found float64 \[4\]"),
        (
            {"x": _x(4, 5), "y": np.array(["no", "yes"] * 2)},
            {},
            r"'y': expected integers \[4\].*; found <U3 \[4\]; give classes, y = numpy.unique\(y, return_inv",
        ),
        ({"x": _x(4, 5), "y": _labels(4) - 1}, {}, "'y': expected labels from 0; found -1"),
        (
            {"x": _x(4, 5) * np.nan, "y": _labels(4)},
            {},
            "'x': expected finite numbers; found NaN, or values beyond float32",
        ),
        (
            {"x": _x(4, 5, dtype=np.float64) * 1e39, "y": _labels(4)},
            {},
            "'x': expected finite numbers; found NaN, or values beyond float32",
        ),
        ({"x": _x(4), "y": _labels(4)}, {}, r"'x': expected \[N, \*shape\] or \[N, T, \*shape\].*; found \[4\]"),
        ({"x": _x(4, 5, dtype="U1"), "y": _labels(4)}, {}, "'x': expected floats, integers or bool; found <U1"),
        ({"x": _x(4, 5), "y": _labels(4), "X_test": _x(1)}, {}, "expected arrays group, x, x_test.*; found 'X_test'"),
        (
            {"x": _x(4, 5), "y": _labels(4), "x_val": _x(4, 6), "y_val": _labels(4)},
            {},
            r"'x_val': expected samples of float32 \[5\] as in 'x'; found float32 \[6\]",
        ),
        (
            {"x": _x(4, 5), "y": _labels(4), "classes": ["a", "b"]},
            {},
            "expected labels below 2, the classes that are named; found 2",
        ),
        (
            {"x": _x(4, 5), "y": _labels(4)},
            {"classes": ["a"]},
            "'dataset.classes': expected 3 names or more, as .* has labels; found 1",
        ),
        ({"x": _x(4, 5, 6), "y": _labels(4)}, {}, r"samples are \[5, 6\]: is the first axis time, or is it an image"),
        (
            {"x": _x(4, 2, 3, 4, 5, 6), "y": _labels(4)},
            {},
            r"expected samples \[T, features\] or \[T, channels, height, width\]",
        ),
        (
            {"x": _x(4, 5), "y": _labels(4)},
            {"encoder": "counts"},
            r"expected samples \[T, features\] or .*; found \[5\]",
        ),
        (
            {"x": _x(4, 6, 1, 2, 2), "y": _labels(4)},
            {"T": 5},
            "key 'dataset.T': expected the 6 steps of .*'s sequences; found 5",
        ),
        (
            {"x": _x(4, 5) * 2, "y": _labels(4)},
            {"encoder": "latency"},
            "expected values from 0 to 1 for the encoder 'latency'; found 2 to 2",
        ),
        ({"x": _x(4, 5), "y": _labels(4)}, {"size": 8}, "key 'dataset.size': expected a folder of images; found npz"),
        (
            {"x": _x(4, 5), "y": _labels(4)},
            {"data_dir": "x"},
            "expected none for npz; found 'x'; name its place with dataset.path",
        ),
        (
            {"x": _x(4, 5), "y": _labels(4)},
            {"downscale": 2},
            "key 'dataset.downscale': expected none for npz, no events; found 2",
        ),
        (
            {"x": _x(4, 5), "y": _labels(4)},
            {"binning": "time"},
            "key 'dataset.binning': expected none for npz, no events; found 'time'",
        ),
        pytest.param(
            {"x": _x(4, 5), "y": _labels(4)},
            {"augment": ["flip"]},
            r"'dataset.augment': expected images; found samples \[5\] in npz",
            marks=TORCHVISION,
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        load_dataset(_config("npz", _npz(tmp_path / "a.npz", **arrays), **settings))


def test_more_than_fits_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("stl_deploy.data.own.arrays.MAX_ARRAY_BYTES", 79)
    assert from_arrays(_x(3, 6), _labels(3)).arrays["x"].nbytes == 72
    with pytest.raises(InputError, match="from_arrays: 'x': expected at most 79 bytes; found 80"):
        from_arrays(_x(4, 5), _labels(4))


def test_nothing_left_to_train_on_is_told(tmp_path):
    config = _config("npz", _npz(tmp_path / "a.npz", x=_x(4, 5), y=_labels(4, 4)), test_fraction=0.8)
    with pytest.raises(InputError, match=r"the train split is empty; use a smaller test_fraction or validation_frac"):
        load_dataset(config)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"expected an .npz with x and y .*; found no such file"):
        complete(_config("npz", tmp_path / "a.npz"))
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InputError, match=r"not an .npz file.*numpy.savez\('x.npz', x=x, y=y\) where labels"):
        complete(_config("npz", tmp_path / "a.npz"))
    np.savez(tmp_path / "p.npz", x=np.array([{}], object), y=[0])
    with pytest.raises(InputError, match=r"array 'x': expected numbers; found Python objects"):
        complete(_config("npz", tmp_path / "p.npz"))
    with pytest.raises(ConfigError, match=r"key 'dataset.path': expected .* for npz; found none"):
        complete(DatasetConfig(name="npz"))


def test_keys_of_own_data_are_refused_elsewhere():
    with pytest.raises(ConfigError, match=r"key 'dataset.path': expected own data .*; found digits"):
        complete(DatasetConfig(name="digits", path="x"))
    with pytest.raises(ConfigError, match=r"key 'dataset.data_dir': expected none for digits; found 'x'; leave it out"):
        complete(DatasetConfig(name="digits", data_dir="x"))


def test_data_that_have_changed_are_told(tmp_path):
    path = _npz(tmp_path / "a.npz", x=_x(30, 5), y=_labels(30))
    config = complete(_config("npz", path))
    kept = config.model_copy(update={"sha256": load_dataset(config).digest})
    load_dataset(kept)
    _npz(path, x=_x(30, 5) * 2, y=_labels(30))
    with pytest.raises(InputError, match=r"the data differ from those trained on"):
        load_dataset(kept)


# --- folders of images


def _image(path, values, mode=None):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8), mode).save(path)


def _images(root, sizes=((4, 5),), count=6, colour=False):
    for label, name in enumerate(("left", "right")):
        for i in range(count):
            shape = (*sizes[i % len(sizes)], 3) if colour else sizes[i % len(sizes)]
            _image(root / name / f"{i}.png", np.full(shape, 100 * label + i))


@TORCHVISION
def test_a_folder_of_grey_images(tmp_path):
    _images(tmp_path / "d")
    (tmp_path / "d" / "left" / "notes.txt").write_text("no image")
    data = load_dataset(_config("folder", tmp_path / "d", validation_fraction=0.2, test_fraction=0.2))
    assert (data.input_shape, data.class_names, data.train.levels) == ((1, 4, 5), ("left", "right"), 255)
    everything = torch.cat([s.pixels for s in (data.train, data.validation, data.test)])
    assert sorted(everything[:, 0, 0, 0].tolist()) == [*range(6), *range(100, 106)]
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.labels, (split.pixels[:, 0, 0, 0] >= 100).long())
    assert data.digest is not None


@TORCHVISION
@pytest.mark.parametrize("encoder", ["direct", "bernoulli", "latency"])
def test_images_brighter_than_levels_are_refused(tmp_path, encoder):
    _images(tmp_path)
    assert load_dataset(_config("folder", tmp_path, levels=105, encoder=encoder)).train.images().max() <= 1
    for levels in (1, 104):
        with pytest.raises(InputError, match=rf"integers up to {levels} \(key 'dataset.levels'.* up to 105;"):
            load_dataset(_config("folder", tmp_path, levels=levels, encoder=encoder))


@TORCHVISION
def test_folders_with_splits_sizes_and_colours(tmp_path):
    for split in ("train", "val", "test"):
        _images(tmp_path / split, sizes=((4, 5), (9, 7)), count={"train": 6, "val": 2, "test": 3}[split], colour=True)
    data = load_dataset(_config("folder", tmp_path, size=6))
    assert data.input_shape == (3, 6, 6)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [12, 4, 6]
    assert data.test.pixels[:3].unique().tolist() == [0, 1, 2]
    grey = load_dataset(_config("folder", tmp_path, size=[6, 8], colour="grey"))
    assert grey.input_shape == (1, 6, 8)


@TORCHVISION
@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("TRAIN", "Validation")])
def test_folders_of_splits_have_names_of_either_case(tmp_path, names):
    for name, count in zip(names, (6, 2), strict=True):
        _images(tmp_path / name, count=count)
    data = load_dataset(_config("folder", tmp_path, validation_fraction=0.5, test_fraction=0.25))
    assert data.class_names == ("left", "right")
    assert len(data.validation if "Validation" in names else data.test) == 4


@TORCHVISION
def test_layouts_that_say_nothing_of_classes_or_two_things_of_splits_are_refused(tmp_path):
    _images(tmp_path / "train")
    config = _config("folder", tmp_path)
    with pytest.raises(InputError, match=r"two or more; found 1, 'train', without test or val beside it$"):
        complete(config)
    _images(tmp_path / "held out")
    with pytest.raises(InputError, match=r"held out: expected images of one class; found them .* alone \(left\)"):
        complete(config)
    shutil.rmtree(tmp_path / "held out")
    for name in ("test", "Testing"):
        _images(tmp_path / name)
    with pytest.raises(InputError, match=r"expected one folder of the test split; found Testing, test; remove"):
        complete(config)


@TORCHVISION
def test_images_below_a_class_s_own_are_its_own(tmp_path):
    _images(tmp_path, count=30)
    _image(tmp_path / "left" / "more" / "1.png", np.full((4, 5), 50))
    data = load_dataset(_config("folder", tmp_path))
    assert sum(len(split) for split in (data.train, data.validation, data.test)) == 61


@TORCHVISION
def test_an_unreadable_image_and_other_faults_of_folders(tmp_path):
    root = tmp_path / "d"
    _images(root)
    config = _config("folder", root)
    with pytest.raises(
        InputError, match=r"expected a folder with a sub-folder of images for each class; found no such folder"
    ):
        complete(_config("folder", tmp_path / "absent"))
    _image(root / "right" / "z.png", np.zeros((9, 9)))
    with pytest.raises(InputError, match=r"z.png: 9x9 pixels, the first image has 4x5; give one size to all with"):
        load_dataset(config)
    _image(root / "right" / "z.png", np.zeros((4, 5, 3)))
    with pytest.raises(InputError, match=r"z.png: in colour, unlike the first image; say dataset.colour"):
        load_dataset(config)
    (root / "right" / "z.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(InputError, match=r"z.png: cannot be read as an image"):
        load_dataset(config)
    (root / "right" / "z.png").unlink()
    (root / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: expected images of a class; found none; remove the folder"):
        complete(config)
    for name in ("left", "right"):
        (tmp_path / "events" / name).mkdir(parents=True)
        (tmp_path / "events" / name / "1.npy").touch()
    with pytest.raises(InputError, match=r"expected images .*; found none.*: use dataset.name npz"):
        complete(_config("folder", tmp_path / "events"))
    (tmp_path / "one" / "only").mkdir(parents=True)
    with pytest.raises(InputError, match=r"expected a sub-folder for each class, two or more; found 1"):
        complete(_config("folder", tmp_path / "one"))


@TORCHVISION
def test_a_full_memory_is_no_fault_of_an_image(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr("PIL.Image.open", full)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "x.png", None)


@TORCHVISION
def test_classes_of_every_split_are_those_of_the_training(tmp_path, monkeypatch):
    for split in ("train", "test"):
        _images(tmp_path / split)
    _image(tmp_path / "test" / "other" / "1.png", np.zeros((4, 5)))
    with pytest.raises(InputError, match=r"test/other: expected a class of '.*train'; found another; name both alike"):
        complete(_config("folder", tmp_path))
    shutil.rmtree(tmp_path / "test" / "other")
    shutil.rmtree(tmp_path / "test" / "left")  # a class that no image tests
    assert len(load_dataset(_config("folder", tmp_path)).test) > 0
    monkeypatch.setattr("stl_deploy.data.own.folder.MAX_ARRAY_BYTES", 20)
    with pytest.raises(InputError, match=r"images of \[1, 4, 5\] take more than 0 GiB; choose a smaller dataset\.size"):
        load_dataset(_config("folder", tmp_path))


@TORCHVISION
def test_encoders_of_other_data_are_refused(tmp_path):
    _images(tmp_path / "still")
    with pytest.raises(
        ConfigError, match=r"key 'dataset\.encoder': expected direct, .* static samples; found 'sequence'"
    ):
        complete(_config("folder", tmp_path / "still", encoder="sequence"))


def test_a_file_of_python_that_cannot_be_read_is_not_trusted(tmp_path):
    with pytest.raises(InputError, match=r"absent\.py: No such file or directory \(key 'dataset\.path'\)"):
        trust.allow(tmp_path / "absent.py")


@TORCHVISION
def test_more_than_8_bits_a_channel_are_refused(tmp_path):
    from PIL import Image

    _images(tmp_path / "d")
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "d" / "left" / "0.png")
    with pytest.raises(InputError, match=r"expected an image of 8 bits a channel; found mode I;16"):
        complete(_config("folder", tmp_path / "d"))


def test_a_missing_extra_is_told_before_data_are_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "is_there", lambda name: False)
    with pytest.raises(ToolError, match=r"torchvision is not installed; it reads a folder of images: .* pip install"):
        complete(_config("folder", tmp_path / "absent"))
    with pytest.raises(ToolError, match=r"it changes images for dataset.augment: .* pip install"):
        complete(DatasetConfig(name="digits", augment=("flip",)))


def test_counts_are_not_divided_by_levels(tmp_path):
    path = _npz(tmp_path / "a.npz", x=np.full((30, 3, 2), 4, np.float32), y=_labels(30))
    with pytest.raises(ConfigError, match=r"'dataset\.levels': expected none for the encoder 'counts'.*found 4"):
        load_dataset(_config("npz", path, encoder="counts", levels=4))


@TORCHVISION
def test_colours_are_changed_of_images_of_1_or_3_channels_from_0_to_1_alone(tmp_path):
    sentence = "key 'dataset.augment': expected images of 1 or 3 channels for colour; found 2 channels in "
    path = _npz(tmp_path / "two.npz", x=_x(30, 2, 4, 5), y=_labels(30))
    complete(_config("npz", path, augment=["flip", "erase"]))
    own = _config("npz", path, augment=["flip", "colour"])
    known = own.model_copy(update={"input_shape": (2, 4, 5), "classes": ("a", "b", "c")})
    for config in (own, known, DatasetConfig(name="n_mnist", encoder="counts", augment=("colour",))):
        with pytest.raises(ConfigError, match=sentence + config.name):
            complete(config)
    load_dataset(_config("npz", _npz(tmp_path / "a.npz", x=_x(30, 1, 4, 5), y=_labels(30)), augment=["colour"]))
    for values, found in ((_x(30, 1, 4, 5) * 5, "5 to 5"), (-_x(30, 3, 4, 5), "-1 to -1")):
        path = _npz(tmp_path / "a.npz", x=values, y=_labels(30))
        with pytest.raises(InputError, match=f"a.npz: expected values from 0 to 1 for .* colour; found {found}; scale"):
            load_dataset(_config("npz", path, augment=["colour"]))


@TORCHVISION
def test_augmentation_follows_from_the_generator_and_leaves_torch_s_own(monkeypatch):
    """Those of cards, too, which draw dropout by masks of each process's own."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the cards were seeded"))
    images = torch.rand(4, 2, 3, 8, 8)  # [B, T, C, H, W]
    before = torch.get_rng_state()
    names = ("crop", "flip", "flip_vertical", "rotate", "colour", "erase")
    found = [transformed(images, names, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert found[0].shape == images.shape
    assert torch.equal(torch.get_rng_state(), before)
    flips = transformed(images, ("flip",), torch.Generator().manual_seed(1))
    for one, image in zip(flips, images, strict=True):
        assert torch.equal(one, image) or torch.equal(one, image.flip(-1))
    assert transformed(images, (), torch.Generator()) is images


# --- Python files, Datasets, arrays

CODE = """
import torch
from torch.utils.data import TensorDataset

def load():
    x = torch.arange(24.).reshape(12, 2)
    return TensorDataset(x, torch.arange(12) % 2), TensorDataset(x[:4], torch.arange(4) % 2)

def broken():
    raise ValueError("no disk")

number = 3
"""


def test_a_python_file_runs_if_the_user_named_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    config = _config("python", f"{file}:load", validation_fraction=0.25)
    with pytest.raises(
        InputError, match=r"mine.py: a Python file named by a run folder, and none that you have trained"
    ):
        load_dataset(config)
    trust.allow(file)
    data = load_dataset(config)
    assert (data.input_shape, data.classes, len(data.test), len(data.train)) == ((2,), 2, 4, 8)
    trust.allowed.clear()
    load_dataset(config)  # trained from before
    kept = tmp_path / "cache" / "stl-deploy" / "trusted.json"
    kept.chmod(0o666)  # anyone could have written it
    with pytest.raises(InputError, match=r"allow it: stl_deploy\.data\.own\.trust\.allow\(Path\("):
        load_dataset(config)
    kept.chmod(0o644)
    file.write_text(CODE + "# changed\n")
    with pytest.raises(InputError, match=r"allow it: stl_deploy\.data\.own\.trust\.allow\(Path\("):
        load_dataset(config)
    trust.allow_everything()
    load_dataset(config)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("broken", r"mine.py: line 10: ValueError: no disk"),
        ("absent", "mine.py: expected a function 'absent' that returns torch Datasets; found none"),
        ("number", "mine.py: expected a function 'number' that returns torch Datasets; found none"),
    ],
)
def test_a_python_file_that_fails(tmp_path, name, sentence):
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    trust.allow(file)
    with pytest.raises(InputError, match=sentence):
        complete(_config("python", f"{file}:{name}"))


@pytest.mark.parametrize("method", ["__len__", "__getitem__"])
@pytest.mark.parametrize("raised", ["RuntimeError('no sample')", "SystemExit('no sample')"])
def test_a_dataset_whose_methods_raise(tmp_path, method, raised):
    """Its file and line are named, as those of a function that fails."""
    methods = {"__len__": "return 4", "__getitem__": "return [1.0], 0", method: f"raise {raised}"}
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n"
        f"    def __len__(self): {methods['__len__']}\n"
        f"    def __getitem__(self, index, /): {methods['__getitem__']}\n"
        "def load(): return Mine()\n"
    )
    trust.allow(file)
    line = 2 if method == "__len__" else 3
    with pytest.raises(InputError, match=rf"mine\.py: line {line}: {raised.partition('(')[0]}: no sample"):
        load_dataset(_config("python", f"{file}:load"))


def test_a_path_that_names_no_function(tmp_path):
    for path in ("mine.py", "mine.txt:load", "mine.py:a.b"):
        with pytest.raises(InputError, match=r"expected FILE.py:NAME, a file and a function in it"):
            complete(_config("python", path))


def test_datasets_become_arrays():
    x, y = torch.rand(6, 3), torch.arange(6) % 2
    for given in (
        (TensorDataset(x, y), TensorDataset(x[:2], y[:2])),
        {"train": TensorDataset(x, y), "test": TensorDataset(x[:2], y[:2])},
    ):
        data = from_datasets(given)
        assert sorted(data.arrays) == ["x", "x_test", "y", "y_test"]
        np.testing.assert_array_equal(data.arrays["x"], x)
    assert sorted(from_datasets([TensorDataset(x, y)] * 3).arrays) == ["x", "x_test", "x_val", "y", "y_test", "y_val"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([1, 2, 3, 4], "expected .*; found 4 parts"),
        ({"test": 1}, "expected train, and validation and test"),
        (3, "data: train: expected a torch Dataset .*; found a int"),
        ([[]], "data: train: expected a Dataset of samples .*; found an empty one"),
        (
            [[(torch.ones(2), 0), (torch.ones(3), 1)]],
            r"sample 1: expected float32 \[2\] as the first; found float32 \[3\]",
        ),
        ([[(torch.ones(2), 0.5)]], "expected an integer as label; found 0.5"),
        (
            [[("picture", 0)]],
            "x: expected an array of numbers; found a str; .*; add a transform",
        ),
        ([[torch.ones(2)]], r"sample 0: expected \(x, label\); found a Tensor"),
    ],
)
def test_what_is_no_dataset(given, sentence):
    with pytest.raises(InputError, match=sentence):
        from_datasets(given)


def test_from_arrays_writes_what_npz_reads(tmp_path):
    x, y = RNG.random((30, 4)), _labels(30)
    data = from_arrays(torch.from_numpy(x), list(y), classes=["a", "b", "c"])
    data.write(tmp_path / "a.npz")
    found = load_dataset(_config("npz", tmp_path / "a.npz"))
    assert found.class_names == ("a", "b", "c")
    assert sum(map(len, (found.train, found.validation, found.test))) == 30
    with pytest.raises(InputError, match=r"from_arrays: expected x and y in the test split; found no 'y_test'"):
        from_arrays(x, y, x_test=x)
    with pytest.raises(InputError, match=r"from_arrays: 'x': expected an array of numbers; found a list"):
        from_arrays([[1, 2], [3]], [0, 1])


# --- those of other packages


def _point(name, value):
    return EntryPoint(name, value, registry.GROUP)


def _raw(config):
    return Raw(np.ones((40, 3), np.float32), _labels(40, 2), None, None, levels=1)


MINE = Source(_raw, "three ones", (3,), 2)


def test_another_package_s_dataset(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [_point("ones", f"{__name__}:MINE")])
    registry._foreign.cache_clear()
    try:
        data = load_dataset(DatasetConfig(name="ones"))
        assert (data.input_shape, data.classes, len(data.test)) == ((3,), 2, 8)
        assert registry.names()[-1] == "ones"
    finally:
        registry._foreign.cache_clear()


SEQUENCES = Source(_raw, "sequences of three ones", look=lambda config: Look((3,), ("a", "b"), 5))


def test_another_package_s_sequences_need_an_encoder_of_sequences(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [_point("waves", f"{__name__}:SEQUENCES")])
    registry._foreign.cache_clear()
    try:
        found = complete(_config("waves", "here"))
        assert (found.encoder, found.T, found.input_shape) == ("sequence", 5, (3,))
        with pytest.raises(ConfigError, match=r"key 'dataset\.encoder': expected .* sequences; found 'latency'"):
            complete(_config("waves", "here", encoder="latency"))
    finally:
        registry._foreign.cache_clear()


HALF = Source(_raw, "classes without a shape", classes=2)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (f"{__name__}:HALF", r"entry point 'odd' .*: expected look, or input_shape and classes; found None and 2"),
        ("nowhere:x", r"dataset 'odd' is installed, but nowhere:x cannot be loaded \(ModuleNotFoundError"),
        ("math:pi", "entry point 'odd' of stl_deploy.datasets .*: expected a stl_deploy.data.Source; found a float"),
    ],
)
def test_an_entry_point_that_gives_none(monkeypatch, value, sentence):
    monkeypatch.setattr(registry, "entry_points", lambda group: [_point("odd", value)])
    registry._foreign.cache_clear()
    try:
        with pytest.raises(InputError, match=sentence):
            registry.source("odd")
        assert registry.source("npz").summary
    finally:
        registry._foreign.cache_clear()


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("sizes", ["equal", "one large"])
def test_samples_of_a_group_go_into_one_split(tmp_path, kind, sizes):
    group = np.arange(200) // 5 if sizes == "equal" else np.maximum(np.arange(200) - 100, 0)
    group = RNG.permutation(group)
    path = _npz(tmp_path / "a.npz", x=np.arange(200, dtype=np.float32)[:, None], y=group % 2, group=group.astype(kind))
    config = _config("npz", path, validation_fraction=0.2, test_fraction=0.2, encoder="direct")
    data = load_dataset(config)
    parts = [set(group[split.pixels[:, 0].numpy().astype(int)]) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set(group)) == len(set.union(*parts))
    if sizes == "equal":
        assert [len(part) for part in parts] == [24, 8, 8]
        assert all(sum(one % 2 for one in part) == len(part) / 2 for part in parts)  # stratified by class
    assert sum(map(len, (data.train, data.validation, data.test))) == 200


def test_groups_that_do_not_fit_are_refused(tmp_path):
    x, y = np.zeros((4, 2), np.float32), np.arange(4) % 2
    for group in (np.zeros(3, int), np.zeros((4, 1), int), np.zeros(4)):
        with pytest.raises(InputError, match=r"'group': expected integers or names \[4\], one for each sample"):
            load_dataset(_config("npz", _npz(tmp_path / "a.npz", x=x, y=y, group=group)))
    with pytest.raises(InputError, match="from_arrays: 'group'"):
        from_arrays(x, y, group=[1, 2])


@TORCHVISION
@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff", "pgm", "ppm", "gif"])
def test_every_format_of_images_is_read(tmp_path, suffix):
    from PIL import Image

    Image.new("L", (6, 5), 200).save(tmp_path / f"x.{suffix}")
    _, (array,) = read_image(tmp_path / f"x.{suffix}", "grey")
    assert array.shape == (1, 5, 6)
    assert (abs(array.astype(int) - 200) < 4).all()


def test_too_few_groups_for_the_splits_are_named(tmp_path):
    path = _npz(tmp_path / "a.npz", x=np.zeros((40, 2), np.float32), y=np.arange(40) % 2, group=np.arange(40) // 20)
    config = _config("npz", path, validation_fraction=0.2, test_fraction=0.2, encoder="direct")
    with pytest.raises(InputError, match=r"split is empty; use a larger .*_fraction, or more groups: found 2, each"):
        load_dataset(config)
