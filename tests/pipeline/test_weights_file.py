"""Checkpoints as trainings leave them: keys around the state dict, prefixes, pickled modules, other networks."""

from __future__ import annotations

import argparse
import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError
from stl_deploy.runs.weights_file import load_weights

State = dict[str, torch.Tensor]


class Net(nn.Module):
    """Two layers and a norm, with a buffer that its state dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


class Around(nn.Module):
    """A network inside another, as Lightning modules hold theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


def touch(path: str) -> None:
    Path(path).touch()


class Marks:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (touch, (str(self.path),))


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def _load(path: Path, module: nn.Module) -> str:
    stream = io.StringIO()
    load_weights(module, path, Console(stream=stream))
    return stream.getvalue()


def _reference_training(state: State, path: Path) -> None:
    """As torchvision's and SpikingJelly's training scripts save: arguments are a Namespace."""
    sgd = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    arguments = argparse.Namespace(model="spiking", T=4)
    torch.save({"model": state, "optimizer": sgd, "epoch": 90, "args": arguments}, path)


def _before_counts(state: State, path: Path) -> None:
    """As torchvision's first weights, resnet18-5c106cde among them: no norm says how many batches it counted, so 0."""
    counts = [name for name in state if name.endswith("num_batches_tracked")]
    torch.save({name: value for name, value in state.items() if name not in counts}, path)
    for name in counts:
        state[name].zero_()


def _lightning(state: State, path: Path) -> None:
    loops = {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}}
    held = {"state_dict": _prefixed("net.", state), "loops": loops, "pytorch-lightning_version": "2.5.0"}
    torch.save(held, path)


def _pickled_module(state: State, path: Path) -> None:
    net = Net()
    net.load_state_dict(state)
    torch.save(nn.DataParallel(net), path)


def _of_an_old_framework(state: State, path: Path) -> None:
    """A module with neurons of SpikingJelly's first name, which is not installed, pickled whole."""
    name = "spikingjelly.clock_driven.neuron"
    lif = type("LIFNode", (nn.Module,), {"__module__": name, "__qualname__": "LIFNode"})
    module = ModuleType(name)
    module.LIFNode = lif  # type: ignore[attr-defined]
    net = Net()
    net.load_state_dict(state)
    net.lif = lif()
    packages = {part: ModuleType(part) for part in ("spikingjelly", "spikingjelly.clock_driven")}
    with mock.patch.dict(sys.modules, packages | {name: module}):
        torch.save(net, path)


FILES: dict[str, tuple[str, Callable[[State, Path], None], str]] = {
    "plain": ("w.pth", torch.save, ""),
    "safetensors": ("w.safetensors", lambda state, path: save_file(_prefixed("backbone.", state), path), "'backbone.'"),
    "reference": ("checkpoint.pth", _reference_training, "in 'model'"),
    "torch before 0.4.1": ("resnet.pth", _before_counts, ""),
    "lightning": ("last.ckpt", _lightning, "in 'state_dict' under the prefix 'net.'"),
    "parallel": ("w.pt", lambda state, path: torch.save(_prefixed("module.", state), path), "'module.'"),
    "compiled": ("w.pt", lambda state, path: torch.save(_prefixed("net._orig_mod.", state), path), "'net._orig_mod.'"),
    "pickled": ("net.pth", _pickled_module, "under the prefix 'module.'"),
    "clock_driven": ("net.pth", _of_an_old_framework, ""),
    "nested": ("w.pt", lambda state, path: torch.save({"ema": {"state": state}}, path), "in 'ema.state'"),
}


@pytest.mark.parametrize("form", FILES)
def test_checkpoints_load_as_they_lie_around(form: str, tmp_path: Path) -> None:
    state = {name: (3 * torch.randn(value.shape)).to(value.dtype) for name, value in Net().state_dict().items()}
    name, save, said = FILES[form]
    save(state, tmp_path / name)
    net = Net()
    printed = _load(tmp_path / name, net)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert said in printed
    assert bool(printed) == bool(said)


def test_the_inner_networks_weights_fit_the_outer_one(tmp_path: Path) -> None:
    state = Net().state_dict()
    torch.save(state, tmp_path / "w.pt")
    net = Around()
    assert "'net.'" in _load(tmp_path / "w.pt", net)
    assert torch.equal(net.net.fc.weight, state["fc.weight"])


def test_one_tensor_never_serves_two_names(tmp_path: Path) -> None:
    both = nn.ModuleDict({"net": nn.Linear(4, 3), "other": nn.Linear(4, 3)})
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"found 0 of them among 2; missing: 'net\.weight'"):
        _load(tmp_path / "w.pt", both)


def test_several_state_dicts_and_other_tensors_are_warned_of(tmp_path: Path) -> None:
    first, second = Net().state_dict(), Net().state_dict()
    criterion = {"criterion.weight": torch.ones(3)}
    torch.save({"model": _prefixed("net.", first) | criterion, "model_ema": second}, tmp_path / "w.pt")
    net = Net()
    printed = _load(tmp_path / "w.pt", net)
    assert torch.equal(net.fc.weight, first["fc.weight"])
    assert "found others in 'model_ema'" in printed
    assert "left over: 'criterion.weight'" in printed


def test_nothing_of_a_pickle_is_run(tmp_path: Path) -> None:
    state = Net().state_dict()
    torch.save({"state_dict": state, "callback": Marks(tmp_path / "run")}, tmp_path / "w.ckpt")
    _load(tmp_path / "w.ckpt", Net())
    assert not (tmp_path / "run").exists()
    torch.load(tmp_path / "w.ckpt", weights_only=False)
    assert (tmp_path / "run").exists(), "the file would have run code"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_another_network_are_named(suffix: str, tmp_path: Path) -> None:
    state = _prefixed("net.", {**Net().state_dict(), "fc2.weight": torch.ones(2, 3)})
    del state["net.norm.weight"]
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    found = r"found 6 of them among 7 under the prefix 'net\.'; missing: 'norm\.weight'; left over: 'net\.fc2\.weight'"
    with pytest.raises(InputError, match=found):
        _load(path, Net())
    torch.save({**Net().state_dict(), "fc.weight": torch.ones(3, 5)}, tmp_path / "wide.pt")
    with pytest.raises(InputError, match=r"size mismatch for fc\.weight"):
        _load(tmp_path / "wide.pt", Net())


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "pickle"])
def test_files_that_torch_cannot_read_are_named_damaged(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(Net().state_dict(), path)
    whole = path.read_bytes()
    contents = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"weights\n", "pickle": pickle.dumps([1])}
    path.write_bytes(contents[kind])
    with pytest.raises(InputError, match=r"damaged, truncated or no file of torch\.save \(\w+Error\); write it again"):
        _load(path, Net())


@pytest.mark.parametrize(
    "value", [{}, {"epoch": 3}, [torch.ones(2)], torch.ones(2)], ids=["empty", "epoch", "list", "tensor"]
)
def test_files_without_tensors_by_name_are_refused(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"expected a state dict of tensors; found none in a {type(value).__name__}"):
        _load(tmp_path / "w.pth", Net())
