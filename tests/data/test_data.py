import builtins
import gzip
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stl_deploy.config.schema import DatasetConfig, RunConfig
from stl_deploy.data import dataset_names, describe, encode, input_coding, load_dataset, sources
from stl_deploy.data.datasets import Split
from stl_deploy.errors import ConfigError, InputError, ToolError
from stl_deploy.runs.inputs import encode_split
from stl_deploy.verbs.whole_way import TEST_INPUT, keep_test_input
from tests.hunt.run_formats import TINY


def _indices(split, images):
    """Which of all images a split holds, by content and order."""
    rows = {image.numpy().tobytes(): i for i, image in enumerate(images)}
    return [rows[image.numpy().tobytes()] for image in split.pixels]


def test_digits_splits_are_stratified_disjoint_and_follow_the_seed():
    config = DatasetConfig(name="digits", validation_fraction=0.2, test_fraction=0.2)
    data = load_dataset(config)
    splits = (data.train, data.validation, data.test)
    assert sum(map(len, splits)) == 1797
    assert len(data.test) >= 350
    everything = torch.cat([split.pixels for split in splits])
    assert len({image.numpy().tobytes() for image in everything}) == len(everything)
    assert max(data.test.labels.bincount()) - min(data.test.labels.bincount()) <= 2
    again = load_dataset(config)
    assert torch.equal(again.test.pixels, data.test.pixels)
    assert torch.equal(again.train.labels, data.train.labels)
    other = load_dataset(config.model_copy(update={"seed": 1}))
    assert not torch.equal(other.test.pixels, data.test.pixels)


def test_digits_are_sixteenths_exactly():
    data = load_dataset(DatasetConfig(name="digits"))
    images = data.train.images()
    assert images.dtype == torch.float32
    assert images.shape[1:] == data.input_shape == (1, 8, 8)
    assert torch.equal(images * 16, data.train.pixels.float())
    assert (images.min(), images.max()) == (0, 1)


def test_direct_encoding_repeats_and_bernoulli_draws():
    images = torch.tensor([0.0, 0.25, 1.0]).expand(2, 3)
    assert torch.equal(encode(images, 5, "direct"), images.expand(5, 2, 3))
    spikes = encode(images, 4000, "bernoulli", torch.Generator().manual_seed(0))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rates = spikes.mean((0, 1))
    assert rates[0] == 0
    assert rates[2] == 1
    assert abs(rates[1] - 0.25) < 0.02
    assert torch.equal(spikes, encode(images, 4000, "bernoulli", torch.Generator().manual_seed(0)))
    assert not torch.equal(spikes[0], spikes[1]) or not torch.equal(spikes[1], spikes[2])
    assert (input_coding("direct"), input_coding("bernoulli")) == ("analog", "spikes")


def _write_idx(path: Path, array: np.ndarray) -> None:
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count, suffix in (("train", 50, ".gz"), ("t10k", 20, "")):
        _write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 28, 28), np.uint8))
        _write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count, dtype=np.uint8) % 10)
    return folder


def test_idx_files_are_read_offline(idx_folder):
    data = load_dataset(
        DatasetConfig(name="fashion_mnist", data_dir=str(idx_folder.parents[1]), validation_fraction=0.2)
    )
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 10, 20)
    assert data.validation.labels.bincount().tolist() == [1] * 10
    assert data.test.labels.tolist() == [i % 10 for i in range(20)]
    assert data.train.images().max() <= 1


def _break_label(folder):
    _write_idx(folder / "t10k-labels-idx1-ubyte", np.full(20, 11, np.uint8))


def _break_count(folder):
    _write_idx(folder / "t10k-labels-idx1-ubyte", np.zeros(19, np.uint8))


def _truncate(folder):
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def _truncate_gz(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])


def _damage_gz(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    stored = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), 0))
    stored[2000] ^= 255
    path.write_bytes(stored)


def _lengthen(folder):
    with (folder / "t10k-images-idx3-ubyte").open("ab") as stream:
        stream.write(b"x")


def _lengthen_gz(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"x"))


def _declare_more(folder):
    data = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 28, 28)
    (folder / "t10k-images-idx3-ubyte").write_bytes(data)


def _other_kind(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"PK\x03\x04" + bytes(100))


def _not_gzip(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"hello")


def _remove(folder):
    (folder / "t10k-images-idx3-ubyte").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_break_label, "dataset fashion_mnist: expected labels from 0 to 9; found 11 to 11"),
        (_break_count, "t10k-labels-idx1-ubyte: expected sizes [20]; found [19]"),
        (_truncate, "t10k-images-idx3-ubyte: truncated, 15679 of 15680 bytes"),
        (_truncate_gz, "train-images-idx3-ubyte.gz: truncated or damaged"),
        (_damage_gz, "train-images-idx3-ubyte.gz: truncated or damaged (CRC check failed"),
        (_lengthen, "t10k-images-idx3-ubyte: expected 15680 bytes of sizes [20, 28, 28]; found more; fetch it again"),
        (_lengthen_gz, "train-images-idx3-ubyte.gz: expected 39200 bytes of sizes [50, 28, 28]; found more"),
        (_declare_more, "expected at most 134,217,728 bytes; found sizes [2147483648, 28, 28]"),
        (_other_kind, "expected an IDX file as MNIST has them, of bytes with 3 axes; found another"),
        (_not_gzip, "train-images-idx3-ubyte.gz: truncated or damaged"),
        (_remove, "no file t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz"),
    ],
)
def test_damaged_files_are_named(idx_folder, damage, message):
    damage(idx_folder)
    with pytest.raises(InputError) as caught:
        load_dataset(DatasetConfig(name="fashion_mnist", data_dir=str(idx_folder)))
    assert message in str(caught.value)


def test_a_file_that_cannot_be_opened_is_told(idx_folder, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte: Permission denied"):
        load_dataset(DatasetConfig(name="fashion_mnist", data_dir=str(idx_folder)))


def test_downloads_are_torchvision_s_and_what_fails_is_a_sentence(idx_folder, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    asked = []

    def fetch(root, *, train, download):
        asked.append((root, train, download))

    monkeypatch.setattr("stl_deploy.data.sources.cache_dir", lambda: idx_folder.parents[1])
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fetch)
    assert len(load_dataset(DatasetConfig(name="fashion_mnist", validation_fraction=0.2)).test) == 20
    assert asked == [(idx_folder.parents[1], True, True)]

    def fail(root, *, train, download):
        raise RuntimeError("Error downloading\n  no route")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    with pytest.raises(InputError, match=r"MNIST cannot be downloaded to .* \(Error downloading .*\); put the files"):
        load_dataset(DatasetConfig(name="mnist"))


def test_absent_files_unknown_dataset_and_empty_split(tmp_path, idx_folder):
    with pytest.raises(InputError, match=r"expected train-images-idx3-ubyte.*; found no MNIST files"):
        load_dataset(DatasetConfig(name="mnist", data_dir=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"key 'dataset\.name': expected digits, mnist.*; found 'imagenet'"):
        load_dataset(DatasetConfig(name="imagenet"))
    with pytest.raises(InputError, match="the validation split is empty; use a larger validation_fraction"):
        load_dataset(DatasetConfig(name="fashion_mnist", data_dir=str(idx_folder), validation_fraction=0.01))
    assert [describe(name)[2] for name in dataset_names()] == [*[10] * 4, 100, 10, 11, 10, 20, *[None] * 4]


def test_without_torchvision_the_error_says_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("torchvision"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ToolError, match=r"torchvision is not installed; .*pip install .*\[data\]"):
        load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))


def test_cifar10_from_folders_of_images(tmp_path):
    pytest.importorskip("torchvision")
    image = pytest.importorskip("PIL.Image")
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for label, name in enumerate(names):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(10 if split == "train" else 1):
                colour = (label, number, 7 if split == "train" else 9)
                image.new("RGB", (32, 32), colour).save(tmp_path / split / name / f"{number:04}.png")
    data = load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [90, 10, 10]
    assert data.test.labels.tolist() == list(range(10))
    for split, blue in ((data.train, 7), (data.validation, 7), (data.test, 9)):
        assert torch.equal(split.pixels[:, 0, 5, 5].long(), split.labels)
        assert (split.pixels[:, 2] == blue).all()
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "cats")
    with pytest.raises(InputError, match=r"test: expected CIFAR-10's ten folders of images, .*; found no cat$"):
        load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))
    (tmp_path / "test" / "cats").rename(tmp_path / "test" / "cat")
    (tmp_path / "train" / "zebra").mkdir()
    with pytest.raises(InputError, match=r"train: expected CIFAR-10's ten folders of images, .*; found zebra$"):
        load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))
    (tmp_path / "train" / "zebra").rmdir()
    for name in ("automobile", "airplane"):
        (tmp_path / "train" / name).rename(tmp_path / name)
    with pytest.raises(InputError, match=r"train: .* truck; found no airplane, automobile$"):
        load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))
    for name in ("automobile", "airplane"):
        (tmp_path / name).rename(tmp_path / "train" / name)
    (tmp_path / "test").rename(tmp_path / "val")
    with pytest.raises(InputError, match=r"test: .*; found no airplane, .*, truck$"):
        load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))
    (tmp_path / "val").rename(tmp_path / "test")
    image.new("RGB", (31, 32)).save(tmp_path / "test" / "cat" / "0000.png")
    with pytest.raises(InputError, match="31"):
        load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))
    for path in tmp_path.rglob("*.png"):
        image.new("RGB", (16, 16)).save(path)
    with pytest.raises(InputError, match=r"expected images \[3, 32, 32\] as CIFAR-10 has them; found \[3, 16, 16\]"):
        load_dataset(DatasetConfig(name="cifar10", data_dir=str(tmp_path)))


@pytest.mark.parametrize(("name", "classes"), [("CIFAR10", 10), ("CIFAR100", 100)])
def test_colour_pictures_through_torchvision(monkeypatch, tmp_path, name, classes):
    """The package's reader is stood in for; what it is asked and how its pictures are read is tested."""
    asked = []

    class Pictures:
        def __init__(self, root, *, train, download):
            asked.append((root, train, download))
            self.targets = [*range(classes)] * 2
            self.data = np.zeros((2 * classes, 32, 32, 3), np.uint8)
            self.data[:, 5, 7, 2] = self.targets
            if (root / "broken").exists():
                raise RuntimeError("Dataset not found\nor corrupted.")

    monkeypatch.setattr(sources, "torchvision_datasets", lambda: SimpleNamespace(**{name: Pictures}))
    config = DatasetConfig(name=name.lower(), data_dir=str(tmp_path), validation_fraction=0.5)
    data = load_dataset(config)
    assert asked == [(tmp_path, True, False), (tmp_path, False, False)]
    assert (data.input_shape, data.classes) == ((3, 32, 32), classes)
    assert data.test.pixels[:, 2, 5, 7].tolist() == data.test.labels.tolist() == [*range(classes)] * 2
    assert sorted(data.train.labels.tolist()) == sorted(data.validation.labels.tolist()) == list(range(classes))
    (tmp_path / "broken").touch()
    with pytest.raises(InputError) as caught:
        load_dataset(config)
    folder = {
        "CIFAR10": "cifar-10-batches-py, or train/airplane and so on with its images",
        "CIFAR100": "cifar-100-python",
    }[name]
    assert str(caught.value) == (
        f"{name} in {tmp_path}: expected the folder {folder}; found none that can be read (Dataset not found or "
        "corrupted.)"
    )


@pytest.mark.skipif("STL_DEPLOY_DATA" not in os.environ, reason="STL_DEPLOY_DATA names no folder of datasets")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files(name):
    root = Path(os.environ["STL_DEPLOY_DATA"]) / name
    data = load_dataset(DatasetConfig(name=name, data_dir=str(root)))
    assert (len(data.train) + len(data.validation), len(data.test)) == (60_000, 10_000)
    assert abs(len(data.validation) - 6_000) <= 5


def test_latency_gives_one_spike_the_sooner_the_brighter():
    images = torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]])
    spikes = encode(images, 5, "latency")
    assert spikes.shape == (5, 1, 5)
    assert spikes.sum(0).tolist() == [[0, 1, 1, 1, 1]]
    assert spikes[:, 0, 1:].argmax(0).tolist() == [4, 2, 0, 0]
    assert encode(images, 1, "latency").tolist() == [[[0, 1, 1, 1, 1]]]
    assert input_coding("latency") == "spikes"


def _sorted_digits(classes=10):
    """The test split of digits in order of its labels, as folders of images are read."""
    split = load_dataset(DatasetConfig(name="digits")).test
    order = torch.argsort(split.labels, stable=True)
    order = order[split.labels[order] < classes]
    return Split(split.pixels[order], split.labels[order], split.levels)


def test_samples_kept_of_a_split_sorted_by_class_span_its_classes(tmp_path):
    config, split = RunConfig.model_validate(TINY), _sorted_digits()
    assert set(split.labels[:30].tolist()) == {0}
    folded = SimpleNamespace(
        data=SimpleNamespace(test=split), program=SimpleNamespace(samples_within=lambda *_: 60), config=config
    )
    kept = keep_test_input(folded, tmp_path)
    assert sorted(set(kept.labels.tolist())) == list(range(10))
    assert len(set(kept.labels[:30].tolist())) >= 8  # any part spans them, too
    rows = {image.numpy().tobytes(): int(label) for image, label in zip(split.images(), split.labels, strict=True)}
    assert [rows[image.tobytes()] for image in kept.x[0]] == kept.labels.tolist()
    with np.load(tmp_path / TEST_INPUT) as written:
        assert np.array_equal(written["y"], kept.labels)
    assert torch.equal(split.some(60).pixels, split.pixels[split.part(60)])
    assert np.array_equal(split.some(60).labels.numpy(), kept.labels)
    assert np.array_equal(encode_split(config, split, 20).labels, kept.labels[:20])
    frame = config.model_copy(update={"train": config.train.model_copy(update={"mode": "ann"})})
    assert np.array_equal(encode_split(frame, split, 60).x[0], kept.x[0])  # the twin's are the same samples


def test_splits_of_random_order_and_whole_ones_keep_their_order():
    config, mixed = RunConfig.model_validate(TINY), load_dataset(DatasetConfig(name="digits")).test
    assert np.array_equal(encode_split(config, mixed, 20).labels, mixed.labels[:20].numpy())
    for split in (_sorted_digits(), _sorted_digits(classes=1)):
        assert np.array_equal(encode_split(config, split).labels, split.labels.numpy())
        assert np.array_equal(encode_split(config, split, len(split) + 1).labels, split.labels.numpy())
    steps = Split(mixed.pixels, mixed.labels[:, None].expand(-1, 2), mixed.levels)
    assert steps.part(3) == slice(0, 3)


@pytest.mark.parametrize("without_file", [False, True])
def test_digits_are_scikit_learns_with_and_without_its_import(without_file, monkeypatch):
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    if without_file:
        monkeypatch.setattr(sources, "find_spec", lambda _: None)
    raw, bunch = sources.digits(None), load_digits()
    assert raw.train.dtype == np.uint8
    assert raw.train_labels.dtype == np.int64
    assert np.array_equal(raw.train[:, 0], bunch.images)
    assert np.array_equal(raw.train_labels, bunch.target)
