"""Load a file of weights into a torch module: find the state dict in the file, and the prefix of its names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.isolated import isolated
from stl_deploy._util.units import counted
from stl_deploy._util.untrusted import one_line, plain_file
from stl_deploy.errors import InputError
from stl_deploy.runs.checkpoint_file import read_checkpoint

_MOST_BYTES = 2**33
_FREE_MEMORY, _MEMORY_RATIO = 2**28, 4
"""Bytes that reading a checkpoint may take: files of torch.save are not compressed."""
_SECONDS = 120.0
_MOST_PREFIXES = 16
_SHOWN = 3


@dataclass(frozen=True)
class _Match:
    """One way to find a module's tensors in the file: the file's name of each, under a prefix.

    place: key of the state dict in the file, ``""`` for the file itself. left: names under the prefix without use.
    other: names under other prefixes.
    """

    place: str
    prefix: str
    names: Mapping[str, str]
    missing: Sequence[str]
    left: Sequence[str]
    other: Sequence[str]

    def __str__(self) -> str:
        inside = f" in '{self.place}'" if self.place else ""
        return inside + (f" under the prefix {self.prefix!a}" if self.prefix else "")


def load_weights(module: nn.Module, path: Path, say: Console = QUIET) -> None:
    """Load the state dict of a ``.safetensors`` file, or of a file of ``torch.save``, into ``module``.

    The state dict may lie under a key of the file, and its names may have a prefix more or less than the module's.
    Prints both, and warns where the file has further tensors, or where another state dict or prefix fits, too.
    Raises InputError if none fits; it names the tensors that miss and those that are left over.
    """
    size = plain_file(path, "a file of weights", _MOST_BYTES)
    states = {"": _safetensors(path)} if path.suffix == ".safetensors" else _checkpoint(path, size)
    wanted = module.state_dict()
    required = set(module.load_state_dict({}, strict=False).missing_keys)  # old files have no num_batches_tracked
    matches = [match for place, state in states.items() for match in _matches(place, state, wanted)]
    fitting = [match for match in matches if required.isdisjoint(match.missing) and not match.left]
    if not fitting:
        raise InputError(_misfit(path, min(matches, key=lambda match: len(match.missing))))
    match, *others = fitting
    for other in others:
        say.warn(f"{path}: weights are taken from the first that fits,{match or ' the file'}; found others{other}")
    if match.other:
        say.warn(f"{path}: left over: {_listed(match.other)}")
    if str(match):
        say.say(f"{path}: {counted(len(wanted), 'tensor')}{match}")
    state = {name: states[match.place][known] for name, known in match.names.items() if name not in match.missing}
    for name, value in state.items():
        if value.is_complex():
            raise InputError(f"{path}: expected tensors of real numbers by name; found {name!a} of {value.dtype}")
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{path}: {one_line(error, 300)}") from None
    for name, weights in module.named_parameters():
        if not bool(weights.isfinite().all()):
            raise InputError(f"{path}: '{name}': expected finite weights; found NaN or infinity")


def _matches(place: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[_Match]:
    """Yield the names as they are, and under each prefix that the file's or the module's names have."""
    for prefix in ("", *_prefixes(state, wanted)):
        names = {name: prefix + name for name in wanted}
        yield _match(place, prefix, names, state, [name for name in state if name.startswith(prefix)])
    for prefix in _prefixes(wanted, state):
        # a wrapper put its name before all of the module's, not before some
        if all(name.startswith(prefix) for name in wanted):
            names = {name: name.removeprefix(prefix) for name in wanted}
            yield _match(place, prefix, names, state, list(state))


def _match(place: str, prefix: str, names: Mapping[str, str], state: Iterable[str], under: Sequence[str]) -> _Match:
    missing = [name for name, known in names.items() if known not in state]
    left = sorted(set(under) - set(names.values()))
    return _Match(place, prefix, names, missing, left, sorted(set(state) - set(under)))


def _prefixes(longer: Iterable[str], shorter: Iterable[str]) -> list[str]:
    """Return the prefixes that turn names of ``shorter`` into names of ``longer``, the most frequent first."""
    known, counts = set(shorter), Counter[str]()
    for name in longer:
        parts = name.split(".")
        cuts = range(1, len(parts))
        counts.update(".".join(parts[:cut]) + "." for cut in cuts if ".".join(parts[cut:]) in known)
    return [prefix for prefix, _ in counts.most_common(_MOST_PREFIXES)]


def _misfit(path: Path, match: _Match) -> str:
    expected = len(match.names)
    ours = expected - len(match.missing)
    message = f"{path}: weights of another network: expected {counted(expected, 'tensor')}; found "
    message += f"{ours} of them among {ours + len(match.left)}{match}"
    if match.missing:
        message += f"; missing: {_listed(match.missing)}"
    return f"{message}; left over: {_listed(match.left)}" if match.left else message


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(ascii(name[:100]) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a safetensors file ({one_line(error, 300)})") from None


def _checkpoint(path: Path, size: int) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the state dicts of a file of ``torch.save``, by their place in it."""
    forms, contents = isolated(
        read_checkpoint, path, what="a file of weights", memory=_FREE_MEMORY + _MEMORY_RATIO * size, seconds=_SECONDS
    )
    states: dict[str, dict[str, Tensor]] = {}
    for (place, name, dtype, shape), content in zip(forms, contents, strict=True):
        kind: torch.dtype = getattr(torch, dtype)
        filled = torch.from_numpy(content.copy()).view(kind) if content.size else torch.empty(0, dtype=kind)
        states.setdefault(place, {})[name] = filled.reshape(shape)
    return states
