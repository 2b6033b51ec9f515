"""A run folder for tests of what is made from one."""

import pytest

from stl_deploy._util.files import write_npz
from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.source import TEST_INPUT
from stl_deploy.training.loop import train


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run folder of the digits network, briefly trained and narrower than the preset's."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    narrow = ["network.0.channels=8", "network.4.channels=16", "train.epochs=3"]
    train(apply_overrides(load_config("digits"), narrow), folder)
    done = fold_run(folder, folder / "net.nir")
    assert done.exact
    test = encode_split(done.config, done.data.test)
    write_npz(folder / TEST_INPUT, {"x": test.x, "y": test.labels})
    return folder
