"""Tells before a training that structures are thinner than the head can draw, and what to set."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunetv2.training.dataloading.splits import read_or_generate_splits
from nnunetv2.training.nnUNetTrainer.vit_config import ViTnnUNetConfig, patch_size_for_scale
from nnunetv2.utilities.label_handling.thin_structures import (
    MARGIN,
    ceilings,
    evenly_chosen,
    labelled_slice,
    scale_for,
    structures_of,
    thinnest_structure,
)

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit

logger = logging.getLogger(__name__)

_LARGEST_SCALE = 16  # of model.input_scale


def advise_on_resolution(trainer: nnUNetTrainer) -> None:
    """Adds one line to the log of a training that starts, if structures are thinner than 1.5 strides of the head.

    A few cases are measured, and only for heads that answer at less than the resolution of the image. Nothing is
    written yet: the training may still be refused.
    """
    # Known by its settings: the class of these trainers takes seconds to import, which U-Nets need not spend.
    if not isinstance(getattr(trainer, "config", None), ViTnnUNetConfig) or trainer.local_rank != 0:
        return
    try:
        advice = resolution_advice(trainer)
    except Exception as err:  # of any kind: what is wrong with the cases is reported by the training itself
        logger.debug("The calibre of the structures cannot be measured: %r", err)
        return
    if advice is not None:
        trainer.start_notes.append(advice)


def resolution_advice(trainer: nnUNetTrainer_vit) -> str | None:
    """Returns the line; None if the head can draw all structures."""
    model = trainer.config.model
    own_stride = model.head_config().logit_stride(model.backbone_row.shape)
    if own_stride is None or model.detail_branch or own_stride <= model.input_scale:
        return None
    stride = own_stride / model.input_scale
    identifiers = sorted(trainer._cases_of_fold(read_or_generate_splits)[0])
    cases = evenly_chosen(identifiers)
    dataset = trainer._open_cases(cases)
    ignored = trainer.label_manager.ignore_label
    slices = [labelled_slice(dataset.load_case(case)[1][0], ignored) for case in cases]
    structures = structures_of(trainer.label_manager.label_dict)
    thin = thinnest_structure(slices, structures, stride)
    if thin is None:
        return None
    scale = min(_LARGEST_SCALE, scale_for(thin.calibre, own_stride))
    then = ceilings(slices, {thin.name: structures[thin.name]}, own_stride / scale)[thin.name]
    return (
        f"{thin.name} is {thin.calibre:.2g} pixels wide (median of {len(cases)} cases), less than {MARGIN} times the "
        f"stride of the head {model.head_name}, {stride:.2g} pixels. Perfect shares per cell reach a Dice of "
        f"{thin.ceiling:.2f} on it, and {then:.2f} with {_setting(trainer, scale)}; model.detail_branch=true costs less"
    )


def _setting(trainer: nnUNetTrainer_vit, scale: int) -> str:
    """The setting for a scale, with its cost; networks are not counted, which takes many seconds."""
    before = [int(side) for side in trainer.configuration_manager.patch_size]
    after = patch_size_for_scale(before, scale)
    side = trainer.config.model.backbone_row.shape.patch_size
    tokens = _tokens(after, scale, side), _tokens(before, trainer.config.model.input_scale, side)
    size = ",".join(map(str, after))
    return (
        f"model.input_scale={scale} training.patch_size=[{size}] ({tokens[0]} tokens per patch instead of {tokens[1]}; "
        "nnUNetv2_model_info tells memory and operations)"
    )


def _tokens(patch_size: Sequence[int], scale: int, side: int) -> int:
    *depth, height, width = patch_size
    return math.prod(depth) * math.prod(math.ceil(length * scale / side) for length in (height, width))
