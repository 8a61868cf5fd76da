"""Upstream's home of the stored-case format, which is in `nnunetv2.preprocessing.stored_cases`."""

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
