"""Datasets with fixed splits, own data included, and the encoding of samples as sequences."""

from stl_deploy.data.complete import check_dataset, class_count, complete, sample_shape
from stl_deploy.data.datasets import (
    Dataset,
    Split,
    dataset_names,
    describe,
    load_dataset,
    present,
    whole_size,
)
from stl_deploy.data.own.arrays import ArrayData, from_arrays
from stl_deploy.data.own.python_file import from_datasets
from stl_deploy.data.raw import Look, Raw
from stl_deploy.data.registry import Source
from stl_deploy.data.sensors import encode_axes, encode_bands
from stl_deploy.data.transforms import augment, encode, input_coding, transformed

__all__ = [
    "ArrayData",
    "Dataset",
    "Look",
    "Raw",
    "Source",
    "Split",
    "augment",
    "check_dataset",
    "class_count",
    "complete",
    "dataset_names",
    "describe",
    "encode",
    "encode_axes",
    "encode_bands",
    "from_arrays",
    "from_datasets",
    "input_coding",
    "load_dataset",
    "present",
    "sample_shape",
    "transformed",
    "whole_size",
]
