"""Random torch models through capture: each is refused by a sentence, or spikes as it does on input drawn anew.

A model is drawn from a seed: where time is, how x is prepared, the layers, the neurons and how their spikes are
written, what joins them, and how the output is read. Some hold what a graph cannot (`HAZARDS`). ``python -m
tests.hunt.captures 300 --seed 7`` tells what was captured, refused and wrong; `make hunt` runs it, too.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from stl_deploy.graph.readout import Readout

Time = Literal["first", "second", "step", "inside"]
Change = Callable[[Any], Any]
STEPS, SAMPLES, FEATURES, HIDDEN, CLASSES = 7, 3, 6, 10, 4
TOLERANCE = 1e-3
"""In parts of the largest output."""

INPUTS: dict[str, Callable[[tuple[int, ...], torch.Generator], Tensor]] = {
    "spikes": lambda shape, g: (torch.rand(shape, generator=g) < 0.4).float(),
    "rare spikes": lambda shape, g: (torch.rand(shape, generator=g) < 0.15).float(),
    "numbers": lambda shape, g: torch.rand(shape, generator=g),
    "signed": lambda shape, g: torch.randn(shape, generator=g),
    "counts": lambda shape, g: torch.randint(0, 5, shape, generator=g).float(),
    "quarters": lambda shape, g: torch.randint(0, 5, shape, generator=g).float() / 4,
}

HAZARDS: dict[str, Change] = {
    "floor": lambda x: torch.div(x, 0.25, rounding_mode="floor") / 4,
    "int": lambda x: (x * 4).int().float() / 4,
    "int of x": lambda x: x.int().float(),
    "uint8": lambda x: (x * 3).to(torch.uint8).float() / 3,
    "bool": lambda x: (x * 2).bool().float(),
    "float8": lambda x: x.to(torch.float8_e5m2).float(),
    "sum of ints": lambda x: x - 0.1 * x.sum(-1, keepdim=True, dtype=torch.int32),
    "numpy": lambda x: x / (1 + float(x.numpy().max())),
    "numpy by steps": lambda x: x - float(np.unique(x.detach()).mean()),
    "list": lambda x: x * max(x.reshape(-1).tolist()),
    "item": lambda x: x * x.max().item(),
    "branch": lambda x: x * 2 if x.sum() > 3 else x,
    "allclose": lambda x: x if torch.allclose(x, x.round()) else x.round(),
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(0, 1),
    "maximum": lambda x: x / x.max(),
    "norm": lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6),
    "centred": lambda x: x - x.mean(),
    "sorted": lambda x: x.sort(-1).values,
    "square": lambda x: x * x,
    "round": torch.round,
    "remainder": lambda x: x.remainder(1000.0),
    "unique": lambda x: x * len(x.unique()),
    "many steps or samples": lambda x: 2 * x if x.shape[0] > 30 else x,
    "item of text": lambda x: x * float(f"{x.mean():.2f}"),
    "data": lambda x: x - torch.from_numpy(np.asarray(x.data).copy()).mean(),
}

POTENTIAL_HAZARDS: dict[str, Change] = {
    "fixed point": lambda v: (v * 65536).int() / 65536,
    "rounded": lambda v: torch.round(v * 2**14) / 2**14,
    "floored": lambda v: torch.div(v * 2**12, 1.0, rounding_mode="floor") / 2**12,
    "half": lambda v: v.half().float(),
    "bounded": lambda v: v.clamp(-2, 2),
    "bent": lambda v: functional.hardshrink(v, 0.01),
    "quantised": lambda v: torch.fake_quantize_per_tensor_affine(v, 0.01, 0, -128, 127),
}

SPIKES: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "above": lambda v, theta: (v > theta).float(),
    "from": lambda v, theta: (v >= theta).float(),
    "difference": lambda v, theta: ((v - theta) > 0).to(v),
    "ratio": lambda v, theta: ((v - theta) / theta > 0).float(),
    "heaviside": lambda v, theta: torch.heaviside(v - theta, torch.zeros(())),
    "where": lambda v, theta: torch.where(v > theta, torch.ones_like(v), torch.zeros_like(v)),
    "not below": lambda v, theta: 1.0 - (v < theta).float(),
    "sign": lambda v, theta: torch.relu(torch.sign(v - theta)),
    "floored": lambda v, theta: torch.floor(v / theta).clamp(0, 1),
}

RESETS: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "to 0": lambda v, s, theta: v * (1 - s),
    "where": lambda v, s, theta: torch.where(s > 0, torch.zeros_like(v), v),
    "mask": lambda v, s, theta: v.masked_fill(s.bool(), 0.1),
    "subtract": lambda v, s, theta: v - theta * s,
    "none": lambda v, s, theta: v,
}


@dataclass
class Drawn:
    """What a model was drawn to be, as words for a report."""

    words: list[str] = field(default_factory=list)

    def choice(self, random: Random, what: str, options: dict[str, Any]) -> Any:
        """One of the options, noted by its name."""
        name = random.choice(sorted(options))
        self.words.append(f"{what}: {name}")
        return options[name]


class Neurons(nn.Module):
    """One population; the potential is in the caller's hands."""

    def __init__(self, random: Random, drawn: Drawn, size: int) -> None:
        super().__init__()
        self.spike = drawn.choice(random, "spike", SPIKES)
        self.left = drawn.choice(random, "reset", RESETS)
        generator = torch.Generator().manual_seed(random.randrange(2**31))
        theta = 0.3 + 0.5 * torch.rand(size, generator=generator)
        self.theta: Any = random.choice([0.5, 1.0, nn.Parameter(theta), theta[0]])
        beta = 0.5 + 0.45 * torch.rand(size, generator=generator)
        self.beta: Any = random.choice([0.5, 0.9, 1.0, nn.Parameter(beta), beta[0]])
        mixing = isinstance(self.beta, float) and self.beta == 1  # whose currents count for nothing
        self.form = random.choice(["decay", "in place"] if mixing else ["decay", "towards", "in place", "lerp"])
        self.bound = random.choice([None, None, None, -0.5, 0.0])
        self.least_left = random.choice([None, None, None, -0.3, 0.0, 0.05]) if self.bound is None else None
        harmful = random.random() < 0.05
        self.harm = drawn.choice(random, "potential", POTENTIAL_HAZARDS) if harmful else None
        drawn.words.append(f"form: {self.form}")
        drawn.words += [f"bound: {self.bound}"] if self.bound is not None else []
        drawn.words += [f"left: {self.least_left}"] if self.least_left is not None else []

    def step(self, v: Tensor, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, what is left of the potential, and the potential."""
        match self.form:
            case "decay":
                v = self.beta * v + current
            case "towards":
                v = v + (current - v) * (1 - torch.as_tensor(self.beta)) * 2
            case "in place":
                v = (v * self.beta).add_(current)
            case _:
                v = torch.lerp(2 * current, v, torch.as_tensor(self.beta).expand_as(v))
        if self.bound is not None:
            v = v.clamp(min=self.bound)
        if self.harm is not None:
            v = self.harm(v)
        s = self.spike(v, self.theta)
        left = self.left(v, s, self.theta)
        return s, left if self.least_left is None else left.clamp(min=self.least_left), v


JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "second": lambda a, b: b,
    "skip": lambda a, b: a + b,
    "difference": lambda a, b: a - 0.5 * b,
    "both": lambda a, b: a * b,
    "either": torch.maximum,
    "one and many": lambda a, b: a * b[..., :1],
    "not both": lambda a, b: a * (1 - b),
    "shuffled": lambda a, b: torch.cat([b[..., 4:], a[..., :4]], -1),
    "ratio": lambda a, b: a / (b + 1),
}

PREPARE: dict[str, Change] = {
    "nothing": lambda x: x,
    "scaled": lambda x: (x - 0.2) * 1.5,
    "turned": lambda x: x.flip(-1),
    "padded": lambda x: functional.pad(x, (1, 0))[..., :-1],
    "written": lambda x: _written(x),
}

OVER_TIME: dict[str, Change] = {
    "every step": lambda y: y,
    "mean": lambda y: y.mean(0),
    "sum": lambda y: y.sum(0),
    "scaled sum": lambda y: y.sum(0) * 0.3,
    "sum over a number": lambda y: y.sum(0) / STEPS,
    "maximum": lambda y: y.amax(0),
    "last": lambda y: y[-1],
    "softmax": lambda y: y.mean(0).softmax(-1),
    "burn-in": lambda y: y[2:].mean(0),
    "late steps": lambda y: y[3:],
    "last steps": lambda y: y[-3:].sum(0),
    "squeezed": torch.squeeze,
    "median": lambda y: y.median(0).values,
}


def _written(x: Tensor) -> Tensor:
    y = x.clone()
    y[..., 1] = 0.5 * x[..., 2]
    y[..., 3:5] *= 2
    return y


def _late(x: Tensor) -> Tensor:
    """Each channel so many steps late; time is first."""
    padded = functional.pad(x, (0, 0, 0, 0, 3, 0))
    return torch.stack([padded[3 - c % 4 : 3 - c % 4 + x.shape[0], :, c] for c in range(x.shape[-1])], -1)


class Model(nn.Module):
    """Two populations between linear layers, as a seed draws them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random, self.drawn = Random(seed), Drawn()
        torch.manual_seed(seed)
        self.time: Time = random.choice(["first", "first", "second", "step", "inside"])
        self.drawn.words.append(f"time: {self.time}")
        self.make = self.drawn.choice(random, "x", INPUTS)
        self.prepare = self.drawn.choice(random, "prepare", PREPARE)
        self.hazard = self.drawn.choice(random, "hazard", HAZARDS) if random.random() < 0.15 else None
        whole = self.time in ("first", "second")
        self.taps = nn.Conv1d(FEATURES, FEATURES, 3) if whole and random.random() < 0.25 else None
        self.late = whole and self.taps is None and random.random() < 0.2
        self.enter = nn.Linear(FEATURES, HIDDEN)
        self.norm = nn.BatchNorm1d(HIDDEN) if random.random() < 0.3 else None
        if self.norm is not None:
            self.norm.running_mean.uniform_(-0.5, 0.5)
            self.norm.running_var.uniform_(0.5, 2)
        self.between, self.leave = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        with torch.no_grad():
            self.between.bias += 0.2
        self.recurrent = nn.Linear(HIDDEN, HIDDEN, bias=random.random() < 0.5) if random.random() < 0.3 else None
        self.first, self.second = (Neurons(random, self.drawn, HIDDEN) for _ in range(2))
        joins = JOINS if random.random() < 0.6 else {"skip": JOINS["skip"], "second": JOINS["second"]}
        self.join = self.drawn.choice(random, "join", joins)
        self.shows_potential = random.random() < 0.15
        self.passes = self.time == "step" and random.random() < 0.7
        self.watches = random.random() < 0.3
        self.strength = random.choice([1.0, 1.0, 2.0])
        self.own = random.choice([0.0, 0.0, 0.0, 0.4, -0.3])
        self.queue = random.choice([0, 0, 0, 0, 2])
        self.doubled = random.random() < 0.05
        over = OVER_TIME if self.time != "step" else {"every step": OVER_TIME["every step"]}
        self.over_time = self.drawn.choice(random, "output", over)
        for name in (
            "own",
            "queue",
            "doubled",
            "taps",
            "late",
            "norm",
            "recurrent",
            "shows_potential",
            "passes",
            "watches",
        ):
            if getattr(self, name):
                self.drawn.words.append(name)
        self.state: Any = None

    def reset(self) -> None:
        """Bring the model to rest."""
        self.state = None

    def prepared(self, x: Tensor) -> Tensor:
        """x as the first layer gets it; time is first, if it is there."""
        x = self.prepare(x if self.hazard is None else self.hazard(x))
        if self.taps is not None:
            x = self.taps(functional.pad(x.permute(1, 2, 0), (2, 0))).permute(2, 0, 1)
        return _late(x) if self.late else x

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One time step."""
        if state is None:
            nothing = torch.zeros(x.shape[0], HIDDEN)
            state = (nothing, nothing, nothing, (nothing,) * self.queue, self.doubled)
        v, w, last, queue, begins = state
        current = self.strength * self.enter(x)
        current = current if self.norm is None else self.norm(current)
        if self.recurrent is not None:
            current = current + self.recurrent(last)
        if self.own:
            current = current + self.own * last
        s, v, _ = self.first.step(v, current)
        z, w, potential = self.second.step(w, self.between(s))
        if self.watches:
            self.seen = s.mean().item(), f"{z.mean():.2f}", z.numpy().sum()
        joined = potential if self.shows_potential else self.join(s, z)
        if self.queue:
            joined, queue = queue[0], (*queue[1:], joined)
        y = self.leave(joined)
        return (2 * y if begins else y), (v, w, s, queue, False)

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """Outputs of all steps, or of one, as the seed says."""
        if self.time == "step":
            y, made = self.step(self.prepared(x), state if self.passes else self.state)
            if self.passes:
                return y, made
            self.state = made
            return y
        if self.time == "inside":
            steps = [self.prepared(x)] * STEPS
        else:
            steps = list(self.prepared(x.transpose(0, 1) if self.time == "second" else x))
        found, state = [], None
        for each in steps:
            y, state = self.step(each, state)
            found.append(y)
        outputs = torch.stack(found)
        made = self.over_time(outputs)
        if self.time == "second" and made.dim() == 3:
            made = made.transpose(0, 1)
        return (made, outputs.detach().std(), state[0].mean()) if self.watches else made

    def draw(self, generator: torch.Generator, samples: int = SAMPLES, steps: int = STEPS) -> Tensor:
        """Input of the model's kind."""
        shape = {
            "first": (steps, samples),
            "second": (samples, steps),
            "step": (steps, samples),
            "inside": (samples,),
        }[self.time]
        found: Tensor = self.make((*shape, FEATURES), generator)
        return found


def outputs_of(model: Model, x: Tensor) -> Tensor:
    """What the model puts out, by calls as its user makes them."""
    model.eval()
    model.reset()
    with torch.no_grad():
        if model.time != "step":
            made = model(x.clone())
            return made[0] if isinstance(made, tuple) else made
        found, state = [], None
        for each in x:
            made = model(each.clone(), state)
            state = made[1] if model.passes else None
            found.append(made[0] if isinstance(made, tuple) else made)
        return torch.stack(found)


def unseen(model: Model, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Inputs that capture never saw: of x's kind, of other kinds, other numbers of samples and of steps."""
    generator = torch.Generator().manual_seed(seed)
    yield "of the same kind", model.draw(generator, 8)
    yield "larger and of both signs", 1.7 * model.draw(generator) - 0.6
    yield "small", 0.3 * model.draw(generator) + 0.05
    if model.time != "inside":
        yield "of more steps", model.draw(generator, 2, STEPS + 4)
        yield "of many steps", model.draw(generator, 2, 45)


def judge(seed: int) -> tuple[str, str]:
    """captured, refused, wrong or crashed; and what of it."""
    model = Model(seed)
    words = f"seed {seed} ({', '.join(model.drawn.words)})"
    generator = torch.Generator().manual_seed(seed + 1)
    try:
        net = stl.capture(model, model.draw(generator, 4), time=model.time)
    except CaptureError as error:
        return ("crashed", f"{words}: {error.reason}") if "report it" in error.reason else ("refused", error.reason)
    except Exception as error:
        return "crashed", f"{words}: {type(error).__name__}: {error}"
    for what, x in unseen(model, seed + 2):
        if "int of x" not in str(model.drawn.words) or bool((x == x.round()).all()):
            wrong = differing(model, net, x)
            if wrong:
                return "wrong", f"{words}: {wrong} on input {what}"
    return "captured", words


def differing(model: Model, net: stl.SpikingGraph, x: Tensor) -> str:
    """How many outputs of the graph are not the module's; nothing where all are."""
    expected = outputs_of(model, x).double().numpy()
    run = net.simulate(x.numpy())
    found = run.y if net.readout == Readout() else run.readout
    if model.time == "second" and found.ndim == 3:
        found = found.swapaxes(0, 1)
    unequal = np.abs(found.reshape(expected.shape) - expected) > TOLERANCE * np.abs(expected).max(initial=1e-9)
    return f"{int(unequal.sum())} of {unequal.size} outputs differ" if unequal.any() else ""


def hunt_captures(count: int, seed: int) -> tuple[Counter[str], list[str], Counter[str]]:
    """Judge models; returns how many ended in each way, the failures, and the reasons of refusals."""
    ended, failures, reasons = Counter[str](), list[str](), Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for each in range(seed, seed + count):
            end, what = judge(each)
            ended[end] += 1
            if end in ("wrong", "crashed"):
                failures.append(f"{end}: {what}")
            if end == "refused":
                caught = any(word in what for word in ("of the folded graph", "does not compute", "not the model's"))
                reasons[f"{what} [seed {each}]" if caught else what] += 1
    return ended, failures, reasons


def main() -> int:
    """Hunt, and tell; exit status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    options = parser.parse_args()
    ended, failures, reasons = hunt_captures(options.models, options.seed)
    for reason, count in reasons.most_common():
        print(f"{count:4d} refused: {reason}")
    print(f"seed {options.seed}, {options.models} models: {dict(ended)}")
    print("\n".join(failures))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
