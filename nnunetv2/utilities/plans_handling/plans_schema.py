"""Check the content of plans: type and range of every entry that is used, and that no name leads out of a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from dinov3.utils.json_files import read_json
from nnunetv2.errors import DataError
from nnunetv2.utilities.file_names import check_name, shortened

LARGEST_FILE = 2**25  # bytes; plans have 20 kB
_LARGEST_NUMBER = 2**31 - 1

Check = tuple[Callable[[Any], bool], str]
"""whether a value is valid, and the right form for the message"""


def read_plans(path: str | os.PathLike) -> dict[str, Any]:
    """Read and check a plans file.

    Raises:
        DataError: see `check_plans`.
    """
    return check_plans(read_json(path, largest=LARGEST_FILE), os.fspath(path))


def check_plans(plans: Any, source: str = "The plans") -> dict[str, Any]:
    """Check the entries that are present; unknown ones may have any content, as plans of other versions have more.

    Args:
        source: path of the file, for messages.

    Returns:
        The plans.

    Raises:
        DataError: names the entry, its value and the right form.
    """
    if not isinstance(plans, dict):
        raise DataError(
            f"{source} holds {shortened(plans)}; plans are an object, as nnUNetv2_plan_experiment writes it"
        )
    configurations = plans.get("configurations", {})
    if not isinstance(configurations, dict):
        raise DataError(
            f'{source}: "configurations" is {shortened(configurations)}; it maps names to objects, like '
            f'{{"2d": {{"batch_size": 12, ...}}}}'
        )
    for key in ("plans_name", "dataset_name"):
        if key in plans:
            check_name(plans[key], f'{"plans" if key == "plans_name" else "a dataset"} ("{key}" in {source})')
    _check_entries(plans, _OF_PLANS, source)
    _check_transposition(plans, source)
    for name, configuration in configurations.items():
        _check_configuration(name, configuration, configurations, source)
    return plans


def _check_configuration(name: str, configuration: Any, configurations: Mapping[str, Any], source: str) -> None:
    check_name(name, f'a configuration ("configurations" in {source})')
    where = f'{source}: configuration "{name}"'
    if not isinstance(configuration, dict):
        raise DataError(f"{where} is {shortened(configuration)}; it must be an object with entries like batch_size")
    if "data_identifier" in configuration:
        identifier = check_name(
            configuration["data_identifier"],
            f'a folder of preprocessed cases ("data_identifier" of configuration "{name}" in {source})',
        )
        if identifier == "gt_segmentations":
            raise DataError(
                f'{where}: "data_identifier" is {identifier!r}, the folder of the references; choose another'
            )
    stages = configuration.get("next_stage") or []
    for other in (
        configuration.get("inherits_from"),
        configuration.get("previous_stage"),
        *(stages if isinstance(stages, list) else [stages]),
    ):
        if other is not None:
            check_name(other, f'a configuration (named by configuration "{name}" in {source})')
    parent = configuration.get("inherits_from")
    if parent is not None and parent not in configurations:
        raise DataError(
            f'{where}: "inherits_from" is {shortened(parent)}; the configurations are {", ".join(configurations)}'
        )
    _check_entries(configuration, _OF_CONFIGURATION, where)
    _check_architecture(configuration.get("architecture"), where)
    _check_channels(configuration, where)


def _check_entries(mapping: Mapping[str, Any], checks: Mapping[str, Check], where: str) -> None:
    for key, (is_valid, form) in checks.items():
        if key in mapping and not is_valid(mapping[key]):
            raise DataError(f'{where}: "{key}" is {shortened(mapping[key])}; it must be {form}')


def _check_transposition(plans: Mapping[str, Any], source: str) -> None:
    forward, backward = plans.get("transpose_forward"), plans.get("transpose_backward")
    if forward is not None and backward is not None and [forward[axis] for axis in backward] != sorted(forward):
        raise DataError(
            f'{source}: "transpose_backward" is {backward}, which does not undo "transpose_forward" {forward}; it must '
            f"be {sorted(range(len(forward)), key=lambda axis: forward[axis])}"
        )


def _check_architecture(architecture: Any, where: str) -> None:
    if architecture is None:
        return
    _check_entries(architecture, _OF_ARCHITECTURE, f'{where}, "architecture"')
    keywords = architecture.get("arch_kwargs") or {}
    for name in architecture.get("_kw_requires_import") or []:
        if keywords.get(name) is not None and not _is_dotted(keywords[name]):
            raise DataError(
                f'{where}: "{name}" in "arch_kwargs" is {shortened(keywords[name])}; "_kw_requires_import" lists it, '
                f"so it must be {_DOTTED}"
            )


def _check_channels(configuration: Mapping[str, Any], where: str) -> None:
    schemes, masks = configuration.get("normalization_schemes"), configuration.get("use_mask_for_norm")
    if schemes is not None and masks is not None and len(schemes) != len(masks):
        raise DataError(
            f'{where}: "normalization_schemes" has {len(schemes)} entries and "use_mask_for_norm" {len(masks)}; both '
            f"have one for each channel"
        )


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST_NUMBER


def _list_of(is_valid: Callable[[Any], bool], lengths: range = range(1, 10**6)) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and len(value) in lengths and all(map(is_valid, value))


def _is_class_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _is_dotted(value: Any) -> bool:
    return isinstance(value, str) and all(part.isidentifier() for part in value.split("."))


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_spacing(value: Any) -> bool:
    """Plans of nnssl without resampling have null for each axis."""
    return _list_of(_is_positive, _AXES)(value) or value in ([None] * 2, [None] * 3)


def _is_list_of_keywords(value: Any) -> bool:
    """Plans of nnssl have null where nothing is imported."""
    return value is None or _list_of(_is_class_name, range(1000))(value)


def _is_keywords(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_class_name, value))


def _is_statistics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(channel, dict) and all(map(is_number, channel.values())) for channel in value.values()
    )


def _is_axes(value: Any) -> bool:
    return _list_of(lambda axis: isinstance(axis, int), range(3, 4))(value) and sorted(value) == [0, 1, 2]


_AXES = range(2, 4)
_DOTTED = "a dotted name, like torch.nn.LeakyReLU"
_CLASS = (_is_class_name, "the name of a class or function")
_KEYWORDS = (_is_keywords, 'an object of keyword arguments, like {"order": 3}')
_STAGES = (_list_of(_is_count), "a list of integers above 0, one for each stage")
_KERNELS = (_list_of(_list_of(_is_count)), "a list of lists of integers above 0, like [[3, 3], [3, 3]]")
_STATISTICS = (_is_statistics, 'an object with numbers for each channel, like {"0": {"mean": 10.5, "std": 2.0}}')

_OF_PLANS: dict[str, Check] = {
    "image_reader_writer": _CLASS,
    "label_manager": _CLASS,
    "experiment_planner_used": _CLASS,
    "transpose_forward": (_is_axes, "the axes in their new order, like [0, 1, 2]"),
    "transpose_backward": (_is_axes, "the axes in their new order, like [0, 1, 2]"),
    "original_median_spacing_after_transp": (_list_of(_is_positive), "a list of numbers above 0 (mm)"),
    "original_median_shape_after_transp": (_list_of(_is_positive), "a list of numbers above 0 (voxels)"),
    "foreground_intensity_properties_per_channel": _STATISTICS,
    "foreground_intensity_properties_by_modality": _STATISTICS,
}
_OF_CONFIGURATION: dict[str, Check] = {
    "preprocessor_name": _CLASS,
    "batch_size": (_is_count, "an integer above 0"),
    "patch_size": (_list_of(_is_count, _AXES), "a list of two or three integers above 0 (voxels)"),
    "median_image_size_in_voxels": (_list_of(_is_positive, _AXES), "a list of two or three numbers above 0"),
    "spacing": (_is_spacing, "a list of two or three numbers above 0 (mm)"),
    "normalization_schemes": (_list_of(_is_class_name), 'a list of class names, like ["ZScoreNormalization"]'),
    "use_mask_for_norm": (_list_of(lambda value: isinstance(value, bool)), "a list of true and false"),
    "batch_dice": (lambda value: isinstance(value, bool), "true or false"),
    "resampling_fn_data": _CLASS,
    "resampling_fn_seg": _CLASS,
    "resampling_fn_probabilities": _CLASS,
    "resampling_fn_data_kwargs": _KEYWORDS,
    "resampling_fn_seg_kwargs": _KEYWORDS,
    "resampling_fn_probabilities_kwargs": _KEYWORDS,
    "architecture": (lambda value: isinstance(value, dict), 'an object with "network_class_name" and "arch_kwargs"'),
    # Entries of plans from before `architecture`:
    "UNet_class_name": _CLASS,
    "UNet_base_num_features": (_is_count, "an integer above 0"),
    "unet_max_num_features": (_is_count, "an integer above 0"),
    "n_conv_per_stage_encoder": _STAGES,
    "n_conv_per_stage_decoder": _STAGES,
    "pool_op_kernel_sizes": _KERNELS,
    "conv_kernel_sizes": _KERNELS,
}
_OF_ARCHITECTURE: dict[str, Check] = {
    "network_class_name": (_is_dotted, _DOTTED),
    "arch_kwargs": (
        lambda value: value is None or _is_keywords(value),
        'an object of keyword arguments, like {"n_stages": 6}, or null for a network of a fixed size',
    ),
    "_kw_requires_import": (_is_list_of_keywords, 'a list of keywords, like ["conv_op"]'),
}
