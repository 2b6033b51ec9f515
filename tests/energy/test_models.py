"""SRAM prices and memory-inclusive models, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stl_deploy.energy import AnnTwin, EnergyReport, load_prices, measure_energy
from stl_deploy.energy.models.layout import activation_bits
from stl_deploy.energy.models.ledger import Item, total
from stl_deploy.energy.models.ratios import Ratio
from stl_deploy.energy.prices.price_list import sram_access, word_access
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.graph.program import Program
from tests.energy.close import approx
from tests.energy.nets import conv, f32, lif, linear, program, start

PJ = 1e-12
X = f32([[[1, 0]], [[0, 0]]])  # one sample, two steps, one event
FP32 = load_prices("horowitz45_fp32")


def two_layers() -> Program:
    return program(
        start((2,)),
        linear("a", "in", np.ones((3, 2)), bias=np.zeros(3)),
        lif("hidden", "a", (3,)),
        linear("b", "hidden", np.ones((2, 3))),
        lif("out_", "b", (2,)),
    )


def found(report: EnergyReport, name: str, price: str = "horowitz45_fp32") -> Ratio:
    return next(m for m in report.models if name in m.name and m.prices.name == price)


def of(items: tuple[Item, ...], layer: str, term: str) -> Item:
    return next(item for item in items if (item.layer, item.term) == (layer, term))


@pytest.mark.parametrize(
    ("size", "pj"),
    [(0, 0), (4096, 5), (8192, 10), (20480, 15), (32768, 20), (540672, 60), (1048576, 100), (2064384, 180)],
)
def test_sram_is_linear_between_the_listed_sizes(size: int, pj: float) -> None:
    assert sram_access(FP32, size) == approx((pj * PJ, pj * PJ))


def test_a_word_pays_its_share_of_a_64_bit_access() -> None:
    # 32 bits of a 1 MB memory: 50 pJ. Dividing the row by 32 bits (the common mistake) would say 100.
    assert word_access(FP32, 32, 1048576) == approx((50 * PJ, 50 * PJ))
    assert word_access(FP32, 8, 8192) == approx((1.25 * PJ, 1.25 * PJ))


def test_lemaire_by_hand() -> None:
    model = found(measure_energy(two_layers(), X), "addressing")

    def sram(size: int, bits: int = 32) -> float:
        return 10 * size / 8192 * bits / 64

    # layer a: 1 event, 3 synops, 6 bias adds; 6 weights (24 B), 3 biases (12 B), 3 potentials (12 B)
    a = 3 * 0.9 + 6 * 0.9 + 3 * sram(24) + 6 * sram(12) + 2 * (3 + 6) * sram(12) + sram(1, 1) + 3 * 0.9
    # layer b: 3 events, 6 synops; 6 weights (24 B), 2 potentials (8 B), addresses of 2 bits in a queue of 1 byte
    b = 6 * 0.9 + 6 * sram(24) + 2 * (6 + 4) * sram(8) + 2 * 3 * sram(1, 2) + 6 * 0.9
    # neurons: 5 x 2 updates with a leak, an add and a compare; 5 resets
    n = 10 * 3.7 + 20 * 0.9 + 5 * 0.9
    assert total(model.snn)[0] == approx((a + b + n) * PJ)
    # ANN: 12 MACs, inputs once per layer, weights per MAC, biases, outputs; 12 addressing adds; 5 ReLUs
    ann = 12 * 4.6 + 3 * 0.9 + 2 * sram(8) + 3 * sram(12) + 12 * sram(24) + 3 * sram(12)
    ann += 3 * sram(12) + 2 * sram(8) + 12 * 0.9 + 5 * 0.9
    assert total(model.ann)[0] == approx(ann * PJ)


def test_lemaires_addressing_by_hand() -> None:
    net = program(start((1, 4, 4)), conv("c", "in", np.ones((2, 1, 3, 3)), (1, 4, 4)), lif("n", "c", (2, 2, 2)))
    x = np.zeros((1, 1, 1, 4, 4), np.float32)
    x[0, 0, 0, 0, 0] = x[0, 0, 0, 1, 1] = 1  # in one and in all four windows of two channels: 10 synops
    model = found(measure_energy(net, x), "addressing")
    # an event computes where it lands with 2 MACs, a synop its address with an add
    assert of(model.snn, "c", "addressing").joules[0] == approx((2 * 2 * 4.6 + 10 * 0.9) * PJ)
    # the dense pass walks 16 inputs, 8 outputs and 2 x 9 weights
    assert of(model.ann, "c", "addressing").joules[0] == approx((16 + 8 + 18) * 0.9 * PJ)
    assert of(model.ann, "c", "input reads").count == of(model.ann, "c", "weight reads").count == 72
    # 8 potentials of 4 bytes: each synop and each output step reads and writes one; events carry 4 bits in 8 bytes
    potentials = (10 + 8) * 10 * 32 / 8192 * 32 / 64
    assert of(model.snn, "c", "potential reads").joules[0] == approx(potentials * PJ)
    assert of(model.snn, "c", "queue writes and reads").joules[0] == approx(2 * 10 * 8 / 8192 * 4 / 64 * PJ)


def test_a_synop_reads_a_weight_and_a_potential_and_writes_the_potential() -> None:
    snn = found(measure_energy(two_layers(), X), "without reuse", "horowitz45_int8_acc32").snn
    assert of(snn, "b", "weight reads").count == 6
    assert of(snn, "b", "weight reads").joules[0] == approx(6 * 10 * 6 / 8192 * 8 / 64 * PJ)  # 6 B of weights
    assert of(snn, "b", "potential reads and writes").joules[0] == approx(2 * 6 * 10 * 8 / 8192 * 32 / 64 * PJ)
    assert of(snn, "hidden", "state reads and writes").count == 2 * 3 * 2


def test_reuse_bounds_the_fetches_of_the_twin() -> None:
    net = program(start((1, 4, 4)), conv("c", "in", np.ones((2, 1, 3, 3)), (1, 4, 4)), lif("n", "c", (2, 2, 2)))
    report = measure_energy(net, np.ones((1, 1, 1, 4, 4), np.float32))
    none, ideal = found(report, "ANN without reuse"), found(report, "ANN with ideal reuse")
    assert of(none.ann, "c", "weight reads").count == 72
    assert of(ideal.ann, "c", "weight reads").count == 18
    assert of(ideal.ann, "c", "input reads").count == 16
    assert total(ideal.ann)[0] < total(none.ann)[0]
    assert none.snn == ideal.snn


@pytest.mark.parametrize(("steps", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)])
def test_the_quantised_twin_has_ceil_log2_of_t_plus_1_bits(steps: int, bits: int) -> None:
    assert activation_bits(steps) == bits


def test_the_quantised_twin_pays_for_its_bits() -> None:
    report = measure_energy(two_layers(), X)  # T = 2: 2 bits against 8-bit weights
    qnn = found(report, "quantised ANN of the same information, no reuse", "horowitz45_int8_acc32").ann
    assert of(qnn, "a", "MACs: multiply").joules[0] == approx(6 * 0.2 * 2 / 8 * PJ)
    assert of(qnn, "a", "MACs: add").joules[0] == approx(6 * 0.1 * PJ)
    assert "2 bits for T = 2" in found(report, "quantised", "horowitz45_int8_acc32").source


def test_a_measured_twin_skips_its_zeros_and_must_have_the_same_macs() -> None:
    twin = AnnTwin(macs_nonzero=30, macs=120, samples=10, source="twin")
    report = measure_energy(two_layers(), X, twin=twin)
    skipping, dense = found(report, "zeros skipped"), found(report, "ANN with ideal reuse")
    assert of(skipping.ann, "a", "MACs: add").count == approx(of(dense.ann, "a", "MACs: add").count / 4)
    assert report.as_dict()["ann_twin"]["macs_zero_skipping"] == [3, 3]
    assert report.as_dict()["ann_twin"]["label"] == "measured"
    with pytest.raises(InputError, match=r"one pass has 13 MACs, the spiking network 12; train the twin"):
        measure_energy(two_layers(), X, twin=replace(twin, macs=130))


@pytest.mark.parametrize(("x", "least"), [(X, 0), (np.concatenate([X[:1], X[:1]]), 3)])
def test_an_unmeasured_twin_is_bounded(x: np.ndarray, least: float) -> None:
    twin = measure_energy(two_layers(), x).as_dict()["ann_twin"]
    assert (twin["label"], twin["macs_zero_skipping"], twin["macs_dense"]) == ("unmeasured", [least, 12], 12)


def test_the_range_is_over_every_model_and_list() -> None:
    data = measure_energy(two_layers(), X).as_dict()
    ratios = [end for model in data["models"] for end in model["snn_over_ann_range"]]
    assert data["model_range"]["snn_over_ann_range"] == [min(ratios), max(ratios)]
    assert data["model_range"]["models"] == len(data["models"]) == 16
    joules = [end for model in data["models"] for end in model["snn_range_J"]]
    assert data["model_range"]["snn_range_J"] == [min(joules), max(joules)]
    lowest = min(data["models"], key=lambda model: model["snn_over_ann_range"][0])
    assert data["model_range"]["lowest"] == f"{lowest['name']} ({lowest['price']})"


def test_items_add_up_and_the_dearest_comes_first() -> None:
    for model in measure_energy(two_layers(), X).as_dict()["models"]:
        for side in ("snn", "ann"):
            joules = [item["joules"][1] for item in model[side]]
            assert sum(joules) == approx(model[f"{side}_range_J"][1])
            assert joules == sorted(joules, reverse=True)


def test_a_users_list_with_memory_rows_is_modelled_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'title="t"\nscope="arithmetic"\nnode="n"\nyear=2020\nevidence="unverified"\nsource="s"\nweight_bits=4\n[terms]\n'
        + "".join(f'{op}={{value=[1,2],unit="pJ"}}\n' for op in ("ac", "mac", "mul", "add"))
        + "".join(f'sram_{size}={{value=10,unit="pJ/64bit"}}\n' for size in ("8KB", "32KB", "1MB"))
        + 'dram={value=1000,unit="pJ/64bit"}\n'
    )
    model = found(measure_energy(two_layers(), X, prices=[str(path)]), "addressing", "mine")
    assert total(model.snn)[0] < total(model.snn)[1]
    ends = model.comparison.ends
    assert ends is not None
    assert ends[0] < ends[1]
    path.write_text(path.read_text().replace("weight_bits=4", "weight_bits=0"))
    with pytest.raises(ConfigError, match="'weight_bits': expected an integer from 1 to 64; found 0"):
        load_prices(path)
