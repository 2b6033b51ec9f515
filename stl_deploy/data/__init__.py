"""Datasets with fixed splits, and how their images become sequences."""

from stl_deploy.data.augment import augment
from stl_deploy.data.datasets import (
    Dataset,
    Split,
    check_dataset,
    dataset_names,
    describe,
    load_dataset,
    present,
    sample_shape,
    whole_size,
)
from stl_deploy.data.encoders import encode, input_coding

__all__ = [
    "Dataset",
    "Split",
    "augment",
    "check_dataset",
    "dataset_names",
    "describe",
    "encode",
    "input_coding",
    "load_dataset",
    "present",
    "sample_shape",
    "whole_size",
]
