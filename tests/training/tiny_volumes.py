"""A preprocessed 3-D dataset of five small volumes, and Primus networks small enough to be trained on it."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from torch import nn

from nnunetv2.preprocessing.stored_cases import comp_blosc2_params, nnUNetDatasetBlosc2
from tests.training.tiny_dataset import tiny_plans

NAME = "Dataset778_TinyVolumes"
CONFIGURATION = "3d_fullres"
SIZE = 18  # voxels of each side
PATCH = 16
_TINY = {"embed_dim": 24, "eva_depth": 1, "eva_numheads": 2, "ch_per_level": (4, 4, 8, 8)}


def volume_plans() -> dict[str, Any]:
    """Plans with one configuration, `3d_fullres`: patches of 16 x 16 x 16, a U-Net of three stages."""
    plans = tiny_plans()
    configuration = plans["configurations"].pop("2d")
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments |= {
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "kernel_sizes": [[3] * 3] * 3,
        "strides": [[1] * 3, [2] * 3, [2] * 3],
    }
    configuration |= {"data_identifier": "nnUNetPlans_3d_fullres", "patch_size": [PATCH] * 3, "spacing": [1.0] * 3}
    configuration |= {"median_image_size_in_voxels": [float(SIZE)] * 3}
    geometry = {"original_median_spacing_after_transp": [1.0] * 3, "original_median_shape_after_transp": [SIZE] * 3}
    configurations = {CONFIGURATION: configuration}
    return {
        **plans,
        **geometry,
        "dataset_name": NAME,
        "configurations": configurations,
        "image_reader_writer": "NibabelIO",
    }


def write_tiny_volumes(preprocessed_root: Path) -> Path:
    """Writes the dataset below the root of preprocessed data; returns its folder."""
    folder = preprocessed_root / NAME
    cases = folder / "nnUNetPlans_3d_fullres"
    cases.mkdir(parents=True)
    labels = {"background": 0, "low": 1, "high": 2}
    dataset = {"channel_names": {"0": "gray"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    for name, content in {
        "nnUNetPlans.json": volume_plans(),
        "dataset.json": dataset,
        "dataset_fingerprint.json": {},
    }.items():
        (folder / name).write_text(json.dumps(content))
    generator = np.random.default_rng(5)
    shape = (1, SIZE, SIZE, SIZE)
    for number in range(5):
        segmentation = np.zeros(shape, dtype=np.int16)
        segmentation[:, 2:9, 4 + number : 12 + number] = 1
        segmentation[:, 9:15, 4 + number : 12 + number] = 2
        image = (segmentation + generator.normal(0, 0.2, shape)).astype(np.float32)
        properties = {
            "spacing": [1.0] * 3,
            "shape_before_cropping": shape[1:],
            "shape_after_cropping_and_before_resampling": shape[1:],
            "bbox_used_for_cropping": [[0, SIZE]] * 3,
            "class_locations": {label: np.argwhere(segmentation == label) for label in (1, 2)},
        }
        blocks, chunks = comp_blosc2_params(shape, (PATCH,) * 3, 4)
        path = str(cases / f"case_{number}")
        nnUNetDatasetBlosc2.save_case(image, segmentation, properties, path, chunks, blocks, chunks, blocks)
    return folder


@contextlib.contextmanager
def tiny_primus() -> Iterator[None]:
    """Makes every Primus one block of 24 features, whatever size its trainer asks for."""
    from dynamic_network_architectures.architectures import primus

    with contextlib.ExitStack() as stack:
        for network in (primus.Primus, primus.PrimusV2, primus.PrimusV3):
            stack.enter_context(mock.patch.object(network, "__init__", _shrunk(network.__init__)))
        yield


def _shrunk(init: Callable[..., None]) -> Callable[..., None]:
    def build(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(init).bind(self, *args, **kwargs)
        bound.arguments.update({name: value for name, value in _TINY.items() if name in bound.signature.parameters})
        init(*bound.args, **bound.kwargs)

    return build
