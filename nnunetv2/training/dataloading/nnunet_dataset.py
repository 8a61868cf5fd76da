"""Upstream's import path; the code is in `nnunetv2.preprocessing.stored_cases`."""

from nnunetv2.preprocessing.stored_cases import (
    comp_blosc2_params,
    file_ending_dataset_mapping,
    infer_dataset_class,
    nnUNetBaseDataset,
    nnUNetDatasetBlosc2,
    nnUNetDatasetNumpy,
)

__all__ = [
    "comp_blosc2_params",
    "file_ending_dataset_mapping",
    "infer_dataset_class",
    "nnUNetBaseDataset",
    "nnUNetDatasetBlosc2",
    "nnUNetDatasetNumpy",
]
