import pytest
import yaml

from stl_deploy.config.load import apply_overrides, config_of, dump_config, load_config, preset_names, save_config
from stl_deploy.data import class_count, sample_shape
from stl_deploy.errors import ConfigError
from stl_deploy.nn.network import Network


@pytest.mark.parametrize("name", preset_names())
def test_presets_read_back_and_build(name, tmp_path):
    config = load_config(name)
    assert name in preset_names()
    assert config_of(yaml.safe_load(dump_config(config))) == config
    save_config(config, tmp_path / "c.yaml")
    assert load_config(tmp_path / "c.yaml") == config
    classes = class_count(config.dataset)
    network = Network(config, sample_shape(config.dataset), classes)
    assert list(network.shapes.values())[-1] == (classes,)


def test_a_configuration_that_was_written_before_there_were_soft_resets_stays_what_it_was():
    config = load_config("digits")
    written = yaml.safe_load(dump_config(config))
    assert written["neuron"].pop("reset") == "zero"
    assert config_of(written) == config
    soft = apply_overrides(config, ["neuron.reset=subtract"])
    assert "reset: subtract" in dump_config(soft)
    assert all(lif.soft_reset for _, lif in Network(soft, (1, 8, 8), 10).lifs)
    assert not any(lif.soft_reset for _, lif in Network(config, (1, 8, 8), 10).lifs)


def test_mnist_preset_is_the_net_of_the_released_code():
    config = load_config("mnist")
    network = Network(config, (1, 28, 28), 10)
    thresholds = [theta.numel() for theta in network.thresholds().values()]
    assert thresholds == [128 * 28 * 28, 128 * 14 * 14, 2048, 100]
    assert sum(thresholds) == 127_588
    weights = [p.numel() for n, p in network.named_parameters() if "threshold" not in n]
    assert sum(weights) == 13_462_656 + 512
    assert (config.train.lr_decay, config.train.weight_decay, config.train.batch_size) == (0.93, 1e-6, 50)


@pytest.mark.parametrize(
    ("name", "weighted", "before_head"),
    [
        ("cifar10", 8, (256, 8, 8)),
        ("cifar10_small", 7, None),
        ("cifar10_wide", 9, None),
        ("cifar100", 7, (512, 4, 4)),
        ("n_mnist", 4, (128, 8, 8)),
        ("dvs128_gesture", 7, (128, 4, 4)),
        ("cifar10_dvs", 6, (128, 8, 8)),
        ("shd", 2, None),
    ],
)
def test_presets_are_the_templates_they_name(name, weighted, before_head):
    config = load_config(name)
    network = Network(config, sample_shape(config.dataset), class_count(config.dataset))
    assert sum(layer.startswith(("conv", "linear")) for layer in network.layers) == weighted
    if before_head is not None:
        assert network.shapes["dropout1"] == before_head


def test_overrides_reach_sections_and_layers():
    config = apply_overrides(
        load_config("digits"), ["train.epochs=3", "train.lr=1e-4", "network.0.channels=5", "dataset.data_dir=/x/y"]
    )
    assert (config.train.epochs, config.train.lr) == (3, 1e-4)
    assert config.network[0].channels == 5
    assert config.dataset.data_dir == "/x/y"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=0", "changes: key 'train.epochs': expected a number >= 1; found 0"),
        ("dataset.T=100000", "changes: key 'dataset.T': expected a number <= 10000; found 100000"),
        ("train.epochs=10000000", "changes: key 'train.epochs': expected a number <= 1e+06; found 10000000"),
        ("train.seed=99999999999999999999", "changes: key 'train.seed': expected a number < "),
        ("network.0.channels=2000000", "changes: key 'network.0.channels': expected a number <= 1e+06; found 2000000"),
        ("train.epochs=2.5", "changes: key 'train.epochs': expected an integer; found 2.5"),
        ("train.epochs=true", "changes: key 'train.epochs': expected an integer; found True"),
        ("train.lr=.nan", "changes: key 'train.lr': expected a finite number; found nan"),
        ("neuron.reset=value", "changes: key 'neuron.reset': expected 'zero' or 'subtract'; found 'value'"),
        ("train.mode=xx", "changes: key 'train.mode': expected 'stl', 'sl', 'tl' or 'ann'; found 'xx'"),
        (
            "train.device=gpu",
            "changes: key 'train.device': expected auto, cpu, cuda, or cuda: and a number; found 'gpu'",
        ),
        ("fold.grid=1", "changes: key 'fold.grid': expected exact_grid, weight_bits"),
        ("speed=1", "changes: key 'speed': expected dataset, network, neuron, train, fold"),
        (
            "network.0.knl=2",
            "changes: key 'network.0.knl': expected kind, channels, ",
        ),
        ("network.0.kind=lstm", "changes: key 'network.0.kind': expected conv, linear, norm, lif, "),
        ("network=[{features: 3}]", "changes: key 'network.0.kind': expected conv, linear"),
        ("network=[{kind: conv}]", "changes: key 'network.0.channels' is missing; it has no default"),
        ("network=[]", "changes: key 'network': expected a list of at least 1 layer; found []"),
        ("network.99.p=1", "changes 'network.99.p': expected an entry of the list, 0 to 11; found '99'"),
        (
            "network.reset=subtract",
            "changes 'network.reset': expected an entry of the list, 0 to 11; found 'reset'; for all neurons set "
            "neuron.reset",
        ),
        ("train.lr.x=1", "changes 'train.lr.x': expected keys or a list to go into; found a float"),
        ("train=3", "changes: key 'train': expected a mapping of keys to values; found 3"),
        (
            "dataset.test_fraction=0.95",
            "changes: key 'dataset': expected validation_fraction and test_fraction that leave samples to train on",
        ),
        (
            "epochs=3",
            "changes: key 'epochs': expected dataset, network, neuron, train, fold; found 'epochs' (it belongs to "
            "train: train.epochs)",
        ),
        ("epochs", "changes: expected key=value, as train.epochs=3; found 'epochs'"),
        ("train.lr=[1", "changes 'train.lr=[1': not YAML"),
    ],
)
def test_wrong_keys_and_values_are_named(override, message):
    base = apply_overrides(load_config("digits"), ["dataset.validation_fraction=0.2", "dataset.test_fraction=0.2"])
    assert len(base.network) >= 12
    with pytest.raises(ConfigError) as caught:
        apply_overrides(base, [override])
    assert str(caught.value).startswith(message.replace("0 to 11", f"0 to {len(base.network) - 1}"))


def test_a_key_without_its_underscore_is_recognised():
    with pytest.raises(
        ConfigError, match=r"key 'train.batchsize'.*; found 'batchsize' \(did you mean 'batch_size'\?\)"
    ):
        load_config("digits", ["train.batchsize=3"])


def test_every_problem_gets_its_sentence():
    with pytest.raises(ConfigError) as caught:
        apply_overrides(load_config("digits"), ["train.epochs=0", "neuron.decay=2"])
    assert sorted(str(caught.value).splitlines()) == [
        "changes: key 'neuron.decay': expected a number <= 1; found 2",
        "changes: key 'train.epochs': expected a number >= 1; found 0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "not YAML (expected every value written out; found the alias *x)"),
        ("!!python/object/apply:os.getcwd []\n", "not YAML"),
        ("- 1\n", "expected keys such as dataset, network and train; found list"),
        ("train: {lr: 1.0}\ntrain: {}\n", "not YAML (key 'train' appears twice, again in line 2)"),
        ("dataset:\n  T: 1\n  name: digits\n  T: 2\n", "not YAML (key 'T' appears twice, again in line 4)"),
        ("{[1]: 2, [1]: 3}\n", "not YAML"),
        ("train: {}\n", "key 'dataset' is missing"),
        ("\x00", "not YAML"),
    ],
)
def test_files_that_are_no_configuration(text, message, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)


def test_both_endings_of_yaml_are_paths(tmp_path):
    text = dump_config(load_config("digits"))
    for name in ("c.yaml", "c.yml"):
        (tmp_path / name).write_text(text)
        assert load_config(tmp_path / name) == load_config("digits")
    with pytest.raises(ConfigError, match=r"d\.yml: expected a YAML configuration.*; found no such file"):
        load_config(tmp_path / "d.yml")


def test_missing_file_binary_file_and_unknown_preset(tmp_path):
    with pytest.raises(ConfigError, match=r"c\.yaml: expected a YAML configuration.*; found no such file"):
        load_config(tmp_path / "c.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ConfigError, match="damaged, truncated or not a YAML configuration"):
        load_config(tmp_path / "b.yaml")
    with pytest.raises(
        ConfigError,
        match=r"expected a preset \(cifar10, .*, shd\) or the path .*; found 'digit' \(did you mean 'digits'\?\)",
    ):
        load_config("digit")


def test_keys_of_the_last_release_are_read_under_their_new_names():
    """A configuration and Python have one name for one thing: ``decay``, ``learn_decay``, ``jitter``."""
    data = load_config("digits").model_dump(mode="json")
    old = config_of({**data, "neuron": {"beta": 0.7, "learn_beta": True, "threshold_jitter": 0.1}})
    assert (old.neuron.decay, old.neuron.learn_decay, old.neuron.jitter) == (0.7, True, 0.1)
    assert apply_overrides(old, ["neuron.beta=0.9"]).neuron.decay == 0.9
    assert apply_overrides(load_config("mnist"), ["neuron.beta=0.9"]).neuron.decay == 0.9
    assert "beta" not in dump_config(old)
    assert config_of(
        {**data, "train": {**data["train"], "winograd": True, "keep_every": 2, "tensorboard": False}}
    ) == load_config("digits")
    with pytest.raises(ConfigError, match="expected 'decay'; found 'beta', its old name, too; leave 'beta' out"):
        config_of({**data, "neuron": {"beta": 0.7, "decay": 0.7}})


def test_the_input_grid_is_read_under_its_former_key():
    data = load_config("digits").model_dump(mode="json")
    del data["dataset"]["input_grid"]
    old = config_of({**data, "dataset": {**data["dataset"], "input_bits": 6}})
    assert old == config_of({**data, "dataset": {**data["dataset"], "input_grid": 6}})
    assert apply_overrides(old, ["dataset.input_bits=4"]).dataset.input_grid == 4
    assert "input_grid: 6" in dump_config(old)
    assert "input_bits" not in dump_config(old)
    with pytest.raises(ConfigError, match="expected 'input_grid'; found 'input_bits', its old name, too"):
        config_of({**data, "dataset": {**data["dataset"], "input_bits": 4, "input_grid": 4}})
    with pytest.raises(ConfigError, match=r"key 'neuron\.input_bits': expected .*; found 'input_bits'"):
        config_of({**data, "neuron": {"input_bits": 4}})
