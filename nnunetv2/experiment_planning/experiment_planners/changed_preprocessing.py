"""Says that cases were preprocessed by plans that are being replaced: a training would read them without a word."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nnunetv2.errors import NNUNetError
from nnunetv2.utilities.message_parts import preprocessing_command
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_OF_CONFIGURATION = (
    "data_identifier",
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
_WITHOUT_DATASET_STATISTICS = (
    "NoNormalization",
    "RGBTo01Normalization",
    "RescaleTo01Normalization",
    "ZScoreNormalization",
)
_DIGITS = 6  # statistics of another machine may differ in the last ones

logger = logging.getLogger(__name__)


def warn_of_outdated_cases(older: dict[str, Any], newer: dict[str, Any], plans_name: str, folder: Path) -> None:
    """Warns, in one line, if cases are there that the newer plans would have preprocessed differently.

    Args:
        older, newer: plans of the same name.
        plans_name: of the plans file, without ending.
        folder: of the preprocessed dataset.
    """
    outdated: dict[str, str] = {}  # by folder: configurations of a cascade share one
    for name in newer["configurations"]:
        before, after = _preprocessing(older, name), _preprocessing(newer, name)
        if before is None or after is None or before == after:
            continue
        identifier = after["data_identifier"]
        if identifier is not None and (folder / identifier).is_dir():
            outdated.setdefault(identifier, name)
    if outdated:
        logger.warning(
            "The cases in %s of %s were preprocessed with other settings; unless nnUNetv2_plan_and_preprocess does it "
            "next, run %s before you train",
            ", ".join(outdated),
            folder,
            preprocessing_command(folder.name, plans_name, list(outdated.values())),
        )


def _preprocessing(plans: dict[str, Any], configuration: str) -> dict[str, Any] | None:
    """What decides how cases look after preprocessing; None if the plans do not say."""
    try:
        entry = PlansManager(plans).get_configuration(configuration).configuration
    except NNUNetError:
        return None
    settings = {key: entry.get(key) for key in _OF_CONFIGURATION}
    settings["transpose_forward"] = plans.get("transpose_forward")
    if not set(entry.get("normalization_schemes") or ()) <= set(_WITHOUT_DATASET_STATISTICS):
        settings["statistics"] = plans.get("foreground_intensity_properties_per_channel")
    return _rounded(settings)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
