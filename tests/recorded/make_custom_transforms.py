"""Fingerprints of the batchgenerators-style transforms on fixed input, of whichever nnunetv2 the interpreter finds.

Recorded with upstream 2.8.1:
    UPSTREAM/bin/python tests/recorded/make_custom_transforms.py tests/recorded/custom_transforms.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def batch() -> dict[str, np.ndarray]:
    """Two volumes with one image channel, a label map (-1 outside) and a previous stage with labels 0 to 2."""
    number, z, y, x = np.indices((2, 8, 14, 16))
    image = np.sin(0.5 * x + number) * np.cos(0.4 * y)
    labels = (image > 0.2).astype(np.int16) + (image > 0.6) - (z + y < 4)
    previous = (np.roll(image, 2, axis=3) > 0.1).astype(np.int16) + (image * np.cos(z) > 0.5)
    return {"data": image[:, None].astype(np.float32), "seg": np.stack([labels, previous], axis=1)}


def fingerprint(array: np.ndarray) -> list[Any]:
    flat = array.astype(np.float64).ravel()
    return [
        list(array.shape),
        str(array.dtype),
        round(float(flat.sum()), 3),
        round(float(flat @ np.cos(np.arange(len(flat)))), 3),
    ]


def pipelines() -> dict[str, list[Any]]:
    from nnunetv2.training.data_augmentation.custom_transforms import cascade_transforms as cascade
    from nnunetv2.training.data_augmentation.custom_transforms import deep_supervision_donwsampling as downsampling
    from nnunetv2.training.data_augmentation.custom_transforms import masking, region_based_training
    from nnunetv2.training.data_augmentation.custom_transforms import transforms_for_dummy_2d as dummy_2d

    move = cascade.MoveSegAsOneHotToData(1, [1, 2])
    change = cascade.ApplyRandomBinaryOperatorTransform
    remove = cascade.RemoveRandomConnectedComponentFromOneHotEncodingTransform
    return {
        "one-hot previous stage": [move],
        "one-hot, kept": [cascade.MoveSegAsOneHotToData(1, (0, 2), remove_from_origin=False)],
        "morphology": [move, change([-2, -1], p_per_sample=1, strel_size=(1, 3))],
        "morphology, some": [
            move,
            change([1, 2], 0.6, strel_size=(1, 4), p_per_label=0.5),
        ],
        "components": [move, remove([1, 2], p_per_sample=1)],
        "components, replaced": [move, remove([1, 2], "data", 1, 1, 0.5, 0.7)],
        "targets": [downsampling.DownsampleSegForDSTransform2([1, 0.5, (0.5, 0.25, 1)])],
        "targets, linear": [downsampling.DownsampleSegForDSTransform2([0.5], order=1, output_key="targets")],
        "mask": [masking.MaskTransform([0], set_outside_to=-3)],
        "regions": [region_based_training.ConvertSegmentationToRegionsTransform([(1, 2), 2])],
        "folded": [dummy_2d.Convert3DTo2DTransform()],
        "folded and unfolded": [dummy_2d.Convert3DTo2DTransform(), dummy_2d.Convert2DTo3DTransform()],
    }


def compute() -> dict[str, list[Any]]:
    results = {}
    for seed, (name, transforms) in enumerate(pipelines().items()):
        np.random.seed(seed)
        data = batch()
        for transform in transforms:
            data = transform(**data)
        arrays = [
            data["data"],
            *(data["seg"] if isinstance(data["seg"], list) else [data["seg"]]),
            *data.get("targets", []),
        ]
        results[name] = [fingerprint(array) for array in arrays]
    return results


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in compute().items()]
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
