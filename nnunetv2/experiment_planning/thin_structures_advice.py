"""Tells when a dataset is planned that structures are too thin for heads of a low resolution, and what to set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nnunetv2.errors import NNUNetError
from nnunetv2.imageio.checked_reading import read_seg
from nnunetv2.utilities.label_handling.thin_structures import (
    evenly_chosen,
    labelled_slice,
    scale_for,
    structures_of,
    thinnest_structure,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

logger = logging.getLogger(__name__)

_STRIDE = 4  # pixels; of Mask2Former, SegFormer, EoMT and PMT


def advise_on_thin_structures(
    plans: dict[str, Any], dataset_json: dict[str, Any], dataset: Mapping[str, Mapping[str, Any]]
) -> None:
    """Logs one line if structures of a dataset of 2-D images are too thin for heads at a quarter of the resolution.

    The label maps of a few cases are measured, at their own resolution, at which 2-D images are trained.

    Args:
        plans: of the dataset.
        dataset_json: of the dataset.
        dataset: files of each case, `label` among them.
    """
    manager = PlansManager(plans)
    if "2d" not in manager.available_configurations or plans["original_median_shape_after_transp"][0] != 1:
        return
    labels, reader = dataset_json["labels"], manager.image_reader_writer_class()
    files = [dataset[case]["label"] for case in evenly_chosen(sorted(dataset))]
    try:
        slices = [labelled_slice(read_seg(reader, file)[0][0], labels.get("ignore")) for file in files]
    except (NNUNetError, OSError) as err:
        logger.debug("The calibre of the structures cannot be measured: %r", err)  # preprocessing reports the file
        return
    thin = thinnest_structure(slices, structures_of(labels), _STRIDE)
    if thin is None:
        return
    scale = scale_for(thin.calibre, _STRIDE)
    logger.info(
        "%s is %.2g pixels wide (median of %d cases), and perfect shares per cell of %d pixels reach a Dice of %.2f on "
        "it. Of the vision transformers choose one whose head answers for every pixel (docs/heads.md), or set "
        "model.input_scale=%d (%d times the tokens) or model.detail_branch=true",
        thin.name,
        thin.calibre,
        len(files),
        _STRIDE,
        thin.ceiling,
        scale,
        scale**2,
    )
