"""What preprocessing does to small made-up arrays, of whichever nnunetv2 the interpreter finds.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_preprocessing.py tests/recorded/preprocessing.npz
"""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np

PLANS = {
    "transpose_forward": [1, 0, 2],
    "transpose_backward": [1, 0, 2],
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 0.2, "std": 0.9, "percentile_00_5": -1.5, "percentile_99_5": 1.75},
        "1": {"mean": 0.0, "std": 1.0, "percentile_00_5": -1.0, "percentile_99_5": 1.0},
    },
    "configurations": {
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "patch_size": [8, 8, 8],
            "spacing": [2.0, 1.25, 0.75],
            "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
            "use_mask_for_norm": [False, True],
            "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        },
        "2d": {"inherits_from": "3d_fullres", "patch_size": [8, 8], "spacing": [0.8, 1.1]},
    },
}
DATASET_JSONS = {
    "labels": {"labels": {"background": 0, "a": 1, "b": 2}},
    "regions": {"labels": {"background": 0, "ab": [1, 2], "b": [2]}, "regions_class_order": [1, 2]},
    "ignore": {"labels": {"background": 0, "a": 1, "ignore": 2}},
}


def wave(shape: tuple[int, ...], frequency: float = 1.7) -> np.ndarray:
    """Numbers in [-2, 2] that are the same on every machine and version."""
    return 2 * np.sin(frequency * np.arange(np.prod(shape), dtype=np.float64)).reshape(shape)


def labels(shape: tuple[int, ...], highest: int, frequency: float = 0.37) -> np.ndarray:
    return np.clip((wave(shape, frequency) + 2) / 4 * (highest + 1), 0, highest).astype(np.int16)


def digest(voxels: np.ndarray | list) -> np.ndarray:
    """Number of rows, a sum that depends on their order, and the first rows."""
    flat = np.asarray(voxels, dtype=np.int64).reshape(-1)
    return np.array([len(voxels), (flat * np.arange(1, flat.size + 1)).sum(), *flat[:12]])


def case() -> tuple[np.ndarray, np.ndarray, dict]:
    """A two-channel image whose border is zero, with labels."""
    data, seg = np.zeros((2, 12, 9, 14), np.float32), np.zeros((1, 12, 9, 14), np.float32)
    data[:, 2:10, 1:8, 3:12] = wave((2, 8, 7, 9))
    seg[:, 3:9, 1:8, 3:11] = labels((1, 6, 7, 8), 2)
    return data, seg, {"spacing": [1.0, 2.5, 0.7]}


def resampled() -> dict[str, np.ndarray]:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

    results = {}
    for name, spacing, new_shape in (
        ("iso", [1, 1, 1], (8, 5, 9)),
        ("z0", [5, 1, 1], (7, 8, 5)),
        ("z2", [1, 1, 4], (4, 8, 9)),
    ):
        image, seg = wave((1, 5, 6, 7)).astype(np.float32), labels((1, 5, 6, 7), 4)
        for order in (0, 3):
            results[f"image {name} {order}"] = resample_data_or_seg_to_shape(
                image, new_shape, spacing, [1, 1, 1], is_seg=False, order=order, order_z=0, force_separate_z=None
            )
        for order_z in (0, 1):
            results[f"seg {name} {order_z}"] = resample_data_or_seg_to_shape(
                seg, new_shape, spacing, [1, 1, 1], is_seg=True, order=1, order_z=order_z, force_separate_z=None
            )
        for lean in (False, True):
            results[f"torch seg {name} {lean}"] = resample_torch_fornnunet(
                seg, new_shape, spacing, [1, 1, 1], is_seg=True, num_threads=1, memefficient_seg_resampling=lean
            )
        results[f"torch image {name}"] = resample_torch_fornnunet(image, new_shape, spacing, [1, 1, 1], num_threads=1)
    return results


def preprocessed() -> dict[str, np.ndarray]:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    results = {}
    plans = PlansManager(PLANS)
    for configuration, (name, dataset_json) in itertools.product(("3d_fullres", "2d"), DATASET_JSONS.items()):
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            *case(), plans, plans.get_configuration(configuration), dataset_json
        )
        locations = properties.pop("class_locations")
        results[f"{configuration} data"] = data[:, ::2, ::2]
        results[f"{configuration} seg"] = seg
        results[f"{configuration} properties"] = np.array(json.dumps(properties, default=float))
        for key, voxels in locations.items():
            results[f"{configuration} {name} {key}"] = digest(voxels)
    return results


def chunk_shapes() -> dict[str, np.ndarray]:
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

    images = [(1, 64, 156, 162), (3, 1, 256, 256), (1, 123, 423, 645), (4, 7, 30, 31), (1, 1000, 90, 512)]
    patches = [(80, 160, 160), (256, 256), (1, 96, 96), (16, 64, 64), (128, 128, 128), (20, 512)]
    shapes = [
        comp_blosc2_params(image, patch, size, **extra)
        for image in images
        for patch in patches
        for size in (2, 4)
        for extra in ({}, {"max_chunk_to_patch_ratio_per_axis": None}, {"grow_singleton_patch_axes": True})
    ]
    return {"chunk shapes": np.array(shapes, dtype=np.int16)}


def drawn_locations() -> dict[str, np.ndarray]:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    drawn = DefaultPreprocessor._sample_foreground_locations(
        labels((1, 20, 21, 22), 5, 0.011), [1, (2, 4), [9, 3], 7], seed=77, min_num_samples=40
    )
    return {f"drawn {key}": digest(voxels) for key, voxels in drawn.items()}


def everything() -> dict[str, np.ndarray]:
    return {**resampled(), **preprocessed(), **chunk_shapes(), **drawn_locations()}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **everything())
