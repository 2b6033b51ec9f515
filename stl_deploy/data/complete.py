"""Check and complete the data section of a configuration before data are loaded."""

from __future__ import annotations

from typing import Any, get_args

from stl_deploy._util.install import require
from stl_deploy.config.schema import DatasetConfig, Encoder, RunConfig
from stl_deploy.data.events import shrunk
from stl_deploy.data.raw import Shape
from stl_deploy.data.registry import Source, source
from stl_deploy.data.sensors import SENSOR_ENCODERS
from stl_deploy.data.transforms import EVENT_ENCODERS, TIMED_ENCODERS
from stl_deploy.errors import ConfigError

_OF_OWN_DATA = ("path", "size", "colour", "levels", "classes", "input_shape", "sha256")
_OF_IMAGES = ("size", "colour")
_MOVES = ("shift", "flip", "cutout")


def complete_run(config: RunConfig) -> RunConfig:
    """Return the run's configuration with its `complete` dataset; raise ConfigError if ``train`` changes non-images."""
    dataset = complete(config.dataset)
    for key in _MOVES:
        if getattr(config.train, key) and len(shape := sample_shape(dataset)) != 3:
            raise ConfigError(_no_images(f"train.{key}", dataset, shape))
    return config.model_copy(update={"dataset": dataset})


def complete(config: DatasetConfig) -> DatasetConfig:
    """Complete the configuration from its own data: shape, class names, and of sequences T and the encoder.

    A dataset that knows its shape by itself stays as it is. Raises ConfigError where settings do not fit, InputError
    for data that cannot be looked at, ToolError where a package is missing.
    """
    entry = source(config.name)
    _check_keys(config, entry)
    if config.augment:
        require("torchvision", purpose="changes images for dataset.augment")
    if entry.look is None:
        if entry.events != (config.encoder in EVENT_ENCODERS):
            accepted = EVENT_ENCODERS if entry.events else _static()
            raise ConfigError(_wrong_encoder(config, "events" if entry.events else "images", accepted))
        _check_augmented(config, entry.input_shape)
        return config
    if config.input_shape is not None and config.classes is not None:
        _check_augmented(config, config.input_shape)
        return config
    summary = entry.look(config)
    _check_augmented(config, summary.shape)
    changes: dict[str, Any] = {"input_shape": summary.shape, "classes": summary.classes}
    if summary.steps is None:
        if config.encoder in TIMED_ENCODERS:
            raise ConfigError(_wrong_encoder(config, "static samples", _static()))
    else:
        if "encoder" not in config.model_fields_set:
            changes["encoder"] = "sequence"
        elif config.encoder not in TIMED_ENCODERS:
            raise ConfigError(_wrong_encoder(config, "sequences", TIMED_ENCODERS))
        if "T" in config.model_fields_set and summary.steps != config.T:
            raise ConfigError(
                f"key 'dataset.T': expected the {summary.steps} steps of {config.path}'s sequences; found {config.T}; "
                "leave T out"
            )
        changes["T"] = summary.steps
    return config.model_copy(update=changes)


def has_fixed_steps(config: DatasetConfig) -> bool:
    """Whether the data themselves set T: own sequences, which are not binned anew; T of 1 sums their steps."""
    return source(config.name).look is not None and config.encoder in TIMED_ENCODERS


def sample_shape(config: DatasetConfig) -> Shape:
    """Return a sample's shape at one step without loading all; raise ConfigError if too little of it would be left."""
    entry = source(config.name)
    if entry.look is not None:
        shape = complete(config).input_shape
        assert shape is not None
        return shape
    assert entry.input_shape is not None
    if config.downscale == 1:
        return entry.input_shape
    if 0 in (small := shrunk(entry.input_shape, config.downscale)):
        raise ConfigError(
            f"key 'dataset.downscale': expected one that leaves pixels of {list(entry.input_shape)}; found "
            f"{config.downscale}"
        )
    return small


def class_count(config: DatasetConfig) -> int:
    """Return the number of classes, without loading all data."""
    entry = source(config.name)
    return entry.classes if entry.classes is not None else len(complete(config).classes or ())


def check_dataset(config: DatasetConfig) -> tuple[Shape, int]:
    """Return a sample's shape and the number of classes, without loading all; raise as `complete` does."""
    settled = complete(config)
    return sample_shape(settled), class_count(settled)


def _check_keys(config: DatasetConfig, entry: Source) -> None:
    """Raise ConfigError for a key that the dataset or the encoder does not take, and for own data without a path."""
    if config.data_dir is not None and not entry.takes_data_dir:
        instead = "name its place with dataset.path" if entry.look is not None else "leave it out"
        raise ConfigError(
            f"key 'dataset.data_dir': expected none for {config.name}; found {config.data_dir!r}; {instead}"
        )
    for key, default in {"binning": "count", "downscale": 1}.items():
        if not entry.events and (value := getattr(config, key)) != default:
            raise ConfigError(
                f"key 'dataset.{key}': expected none for {config.name}, no events; found {value!r}; leave it out"
            )
    if config.input_grid is not None and config.encoder not in ("direct", "sequence"):
        raise ConfigError(
            f"key 'dataset.input_grid': expected none for the encoder {config.encoder!r}, which shows integers; "
            f"found {config.input_grid}; leave it out"
        )
    if config.encoder in SENSOR_ENCODERS and entry.look is None:
        raise ConfigError(
            _wrong_encoder(config, "no signals of sensors", EVENT_ENCODERS if entry.events else _static())
        )
    if config.sensor is not None and config.encoder not in SENSOR_ENCODERS:
        raise ConfigError(
            f"key 'dataset.sensor': expected none for the encoder {config.encoder!r}; found one; use the encoder "
            f"{' or '.join(SENSOR_ENCODERS)}, or leave it out"
        )
    if config.levels not in (None, 1) and config.encoder == "counts":
        raise ConfigError(
            f"key 'dataset.levels': expected none for the encoder 'counts', which shows integers; found "
            f"{config.levels}; leave it out"
        )
    if entry.look is None:  # not the user's own data
        keys = [key for key in _OF_OWN_DATA if getattr(config, key) is not None]
        if keys:
            raise ConfigError(f"key 'dataset.{keys[0]}': expected own data (folder, npz, python); found {config.name}")
        return
    if config.path is None and (config.input_shape is None or config.classes is None):
        raise ConfigError(f"key 'dataset.path': expected {entry.summary} for {config.name}; found none")
    if config.name != "folder":
        keys = [key for key in _OF_IMAGES if getattr(config, key) is not None]
        if keys:
            raise ConfigError(
                f"key 'dataset.{keys[0]}': expected a folder of images; found {config.name}, whose arrays stay"
            )


def _check_augmented(config: DatasetConfig, shape: Shape | None) -> None:
    if config.augment and shape is not None and len(shape) != 3:
        raise ConfigError(_no_images("dataset.augment", config, shape))
    if "colour" in (config.augment or ()) and shape is not None and shape[0] not in (1, 3):
        raise ConfigError(
            f"key 'dataset.augment': expected images of 1 or 3 channels for colour; found {shape[0]} channels in "
            f"{config.name}; leave colour out"
        )


def _no_images(key: str, config: DatasetConfig, shape: Shape) -> str:
    return f"key '{key}': expected images; found samples {list(shape)} in {config.name}; leave it out"


def _static() -> tuple[Encoder, ...]:
    return tuple(encoder for encoder in get_args(Encoder) if encoder not in TIMED_ENCODERS)


def _wrong_encoder(config: DatasetConfig, what: str, accepted: tuple[Encoder, ...]) -> str:
    return f"key 'dataset.encoder': expected {', '.join(accepted)} for {config.name}, {what}; found {config.encoder!r}"
