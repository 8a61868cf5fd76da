"""Read access to a plans file: the values of its configurations, and the classes that they name."""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.label_handling.label_declaration import check_declaration, has_any_region, reason_of_loss
from nnunetv2.utilities.plans_handling.legacy_plans import with_architecture
from nnunetv2.utilities.plans_handling.plans_schema import check_plans, read_plans

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager


class ConfigurationManager:
    """One configuration of the plans, for example `3d_fullres`, with its inheritance resolved.

    `configuration` is the resolved dictionary. Configurations from before the `architecture` entry get one derived from
    their old keys; the given dictionary is not modified.
    """

    def __init__(self, configuration_dict: dict) -> None:
        self.configuration = with_architecture(configuration_dict)

    def __repr__(self) -> str:
        return f"ConfigurationManager({self.configuration!r})"

    def _get(self, key: str) -> Any:
        return _required(self.configuration, key, "This configuration of the plans")

    @property
    def data_identifier(self) -> str:
        """Name of the folder with the preprocessed cases."""
        return self._get("data_identifier")

    @property
    def preprocessor_name(self) -> str:
        return self._get("preprocessor_name")

    @functools.cached_property
    def preprocessor_class(self) -> type:
        return find_by_name("preprocessor", self.preprocessor_name)

    @property
    def batch_size(self) -> int:
        return self._get("batch_size")

    @property
    def patch_size(self) -> list[int]:
        """Voxels per axis, in transposed order; two entries for 2D configurations."""
        return self._get("patch_size")

    @property
    def median_image_size_in_voxels(self) -> list[float]:
        return self._get("median_image_size_in_voxels")

    @property
    def spacing(self) -> list[float]:
        """Target spacing in mm per axis, in transposed order; two entries for 2D configurations."""
        spacing = self._get("spacing")
        if None in spacing:
            raise DataError('The "spacing" of this configuration of the plans is null; set it to numbers above 0 (mm)')
        return spacing

    @property
    def normalization_schemes(self) -> list[str]:
        """Class names, one per channel."""
        return self._get("normalization_schemes")

    @property
    def use_mask_for_norm(self) -> list[bool]:
        return self._get("use_mask_for_norm")

    @property
    def network_arch_class_name(self) -> str:
        """Dotted path of the network class."""
        return self._of_architecture("network_class_name")

    @property
    def network_arch_init_kwargs(self) -> dict:
        return self._of_architecture("arch_kwargs")

    @property
    def network_arch_init_kwargs_req_import(self) -> list[str]:
        """Keywords whose values are dotted paths, to be replaced by the objects that they name."""
        return self._of_architecture("_kw_requires_import") or []

    def _of_architecture(self, key: str) -> Any:
        return _required(self._get("architecture"), key, "The `architecture` of this configuration of the plans")

    @property
    def pool_op_kernel_sizes(self) -> list[list[int]]:
        """Strides of the network stages. Only for architectures that have them as keyword argument."""
        return _required(self.network_arch_init_kwargs, "strides", "The `arch_kwargs` of this architecture")

    @functools.cached_property
    def resampling_fn_data(self) -> Callable:
        return self._resampling("resampling_fn_data")

    @functools.cached_property
    def resampling_fn_seg(self) -> Callable:
        return self._resampling("resampling_fn_seg")

    @functools.cached_property
    def resampling_fn_probabilities(self) -> Callable:
        return self._resampling("resampling_fn_probabilities")

    def _resampling(self, key: str) -> Callable:
        function, keywords = find_by_name("resampling function", self._get(key)), self._get(f"{key}_kwargs")
        try:
            inspect.signature(function).bind_partial(**keywords)
        except TypeError as err:
            raise DataError(f'"{key}_kwargs" in the plans do not fit {function.__name__}: {err}') from err
        return functools.partial(function, **keywords)

    @property
    def batch_dice(self) -> bool:
        return self._get("batch_dice")

    @property
    def next_stage_names(self) -> list[str] | None:
        """Next cascade stages, which use the predictions of this configuration."""
        names = self.configuration.get("next_stage")
        return [names] if isinstance(names, str) else names

    @property
    def previous_stage_name(self) -> str | None:
        """Previous cascade stage, whose predictions are an additional input."""
        return self.configuration.get("previous_stage")


class PlansManager:
    """A plans file, or the dictionary that it holds.

    Args:
        plans_file_or_dict: path of a plans.json, or its content. A dictionary is referenced and never modified.

    Raises:
        DataError: an entry has an invalid value, see `check_plans`.
    """

    def __init__(self, plans_file_or_dict: str | os.PathLike | dict) -> None:
        if isinstance(plans_file_or_dict, dict):
            self.plans = check_plans(plans_file_or_dict)
        else:
            self.plans = read_plans(plans_file_or_dict)
        self._managers: dict[str, ConfigurationManager] = {}

    def __repr__(self) -> str:
        return f"PlansManager({self.plans!r})"

    def _get(self, key: str) -> Any:
        return _required(self.plans, key, "The plans")

    def _internal_resolve_configuration_inheritance(
        self, configuration_name: str, visited: tuple[str, ...] = ()
    ) -> dict:
        """Copy of a configuration merged over its `inherits_from` ancestors; top-level keys override."""
        if configuration_name in visited:
            chain = " -> ".join((*visited, configuration_name))
            raise DataError(f"The plans' configurations inherit in a circle ({chain}); remove one `inherits_from`")
        configuration = copy.deepcopy(self._configuration_entry(configuration_name))
        if "inherits_from" not in configuration:
            return configuration
        parent = self._internal_resolve_configuration_inheritance(
            configuration["inherits_from"], (*visited, configuration_name)
        )
        return {**parent, **configuration}

    def _configuration_entry(self, name: str) -> dict:
        known = self.available_configurations
        if name in known:
            return self.plans["configurations"][name]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"The plans {self.plans.get('plans_name', '')!r} have no configuration {name!r}; "
            f"they have {', '.join(known)}{hint}"
        )

    def get_configuration(self, configuration_name: str) -> ConfigurationManager:
        """Manager of one configuration; repeated calls return the same object.

        Raises:
            UsageError: the plans have no such configuration.
            DataError: `inherits_from` is circular, or the configuration has an unknown old format.
        """
        if configuration_name not in self._managers:
            resolved = self._internal_resolve_configuration_inheritance(configuration_name)
            self._managers[configuration_name] = ConfigurationManager(resolved)
        return self._managers[configuration_name]

    @property
    def dataset_name(self) -> str:
        return self._get("dataset_name")

    @property
    def plans_name(self) -> str:
        return self._get("plans_name")

    @property
    def original_median_spacing_after_transp(self) -> list[float]:
        """Median spacing of the raw images in mm, axes in transposed order."""
        return self._get("original_median_spacing_after_transp")

    @property
    def original_median_shape_after_transp(self) -> list[float]:
        """Median size of the raw images in voxels, axes in transposed order."""
        return self._get("original_median_shape_after_transp")

    @functools.cached_property
    def image_reader_writer_class(self) -> type:
        return find_by_name("image reader/writer", self._get("image_reader_writer"))

    @property
    def transpose_forward(self) -> list[int]:
        """Axis order of the preprocessed data in terms of the axes that the reader returns."""
        return self._get("transpose_forward")

    @property
    def transpose_backward(self) -> list[int]:
        return self._get("transpose_backward")

    @property
    def available_configurations(self) -> list[str]:
        return list(self._get("configurations"))

    @property
    def experiment_planner_name(self) -> str:
        return self._get("experiment_planner_used")

    @functools.cached_property
    def experiment_planner_class(self) -> type:
        return find_by_name("experiment planner", self.experiment_planner_name)

    @functools.cached_property
    def label_manager_class(self) -> type[LabelManager]:
        return find_by_name("label manager", self.plans.get("label_manager", "LabelManager"))

    def get_label_manager(self, dataset_json: dict, **kwargs: Any) -> LabelManager:
        """Create the label manager of a dataset; additional keyword arguments go to its constructor.

        An order that loses regions is accepted here, as trained models may have one: `check_dataset_json` rejects it
        before anything is planned or trained.
        """
        labels, order = _required(dataset_json, "labels", "dataset.json"), dataset_json.get("regions_class_order")
        if _loses_regions(labels, order):
            kwargs.setdefault("allow_lost_regions", True)
        return self.label_manager_class(
            label_dict=labels,
            regions_class_order=order,
            **kwargs,
        )

    @property
    def foreground_intensity_properties_per_channel(self) -> dict:
        """Intensity statistics of the foreground voxels of the training set, by channel number as text."""
        legacy = self.plans.get("foreground_intensity_properties_by_modality")
        if legacy is not None and "foreground_intensity_properties_per_channel" not in self.plans:
            return legacy
        return self._get("foreground_intensity_properties_per_channel")


def _loses_regions(labels: dict, order: list[int] | None) -> bool:
    try:
        check_declaration(labels, order, allow_lost_regions=True)
    except DataError:  # the label manager reports what is wrong
        return False
    return has_any_region(labels) and reason_of_loss(labels, order) is not None


def _required(mapping: dict, key: str, owner: str) -> Any:
    if key not in mapping:
        raise DataError(f"{owner} has no key {key!r}; its keys are {', '.join(map(str, mapping)) or '(none)'}")
    return mapping[key]
