"""Write a trained model to a zip file that `install_model_from_zip_file` of this fork or of upstream can unpack."""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.yaml_text import read_yaml_text
from nnunetv2.errors import UsageError
from nnunetv2.evaluation.inference_instructions import previous_stage_of
from nnunetv2.model_sharing.exported_files import (
    SETTINGS_PATTERN,
    ExportedModel,
    Selection,
    files_of_dataset,
    find_model,
)
from nnunetv2.model_sharing.private_text import private_folders, shareable_text, without_folders
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.plans_handling.plans_schema import read_plans

logger = logging.getLogger(__name__)

_COMPRESSION_LEVEL = 1  # weights hardly compress, and higher levels take several times longer
_TRAINING_STATE = ("optimizer_state", "grad_scaler_state", "lr_scheduler_state", "trained_with")
_WITH_PATHS = ("init_args", "trainer_config")
_OF_THE_NETWORK_IN_TRAINING = ("debug.json", "network_architecture.txt", "network_architecture.pdf")


def export_pretrained_model(
    dataset_name_or_id: int | str,
    output_file: str | os.PathLike,
    configurations: Sequence[str] = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"),
    trainer: str = "nnUNetTrainer",
    plans_identifier: str = "nnUNetPlans",
    folds: Sequence[int | str] = (0, 1, 2, 3, 4),
    strict: bool = True,
    save_checkpoints: Sequence[str] = ("checkpoint_final.pth",),
    export_crossval_predictions: bool = False,
    merge_lora: bool = False,
    without_optimizer: bool = False,
) -> None:
    """Write the models of one trainer and one plans file to a zip file, which appears once it is complete.

    Folders of this machine and its host name are removed from text files.

    Args:
        strict: reject missing configurations, folds or checkpoints; otherwise skip them.
        save_checkpoints: file names of the checkpoints to export from each fold.
        export_crossval_predictions: also export the segmentations of validations and ensembles.
        merge_lora: merge LoRA adapters into the weights of the backbone. Predictions stay the same; training cannot be
            resumed.
        without_optimizer: drop the optimizer state, half to two thirds of a checkpoint. Training cannot be resumed.

    Raises:
        UsageError: something to export, or the folder of the output, is missing.
        DataError: a checkpoint is damaged.
    """
    dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
    output = Path(output_file)
    if not output.parent.is_dir():
        raise UsageError(f"There is no folder {output.parent} for the zip file; make it, or choose another one (-o)")
    if output.is_dir():
        raise UsageError(f"{output} is a folder; give the name of the zip file in it (-o)")
    selection = Selection(folds, save_checkpoints, strict, export_crossval_predictions)
    models: dict[str, ExportedModel] = {}
    for configuration in dict.fromkeys(configurations):
        model = find_model(Path(get_output_folder(dataset, trainer, plans_identifier, configuration)), selection)
        if model is not None:
            models[configuration] = model
    if not models:
        raise UsageError(f"There is nothing to export of {dataset}, {trainer}, {plans_identifier} (-d, -tr, -p)")
    _warn_of_missing_stages(models)
    private = private_folders()
    with (
        tempfile.TemporaryDirectory(prefix=".export_", dir=output.parent) as scratch,
        replace_when_complete(output) as temporary,
        _Archive(temporary) as archive,
    ):
        for configuration, model in models.items():
            logger.info("Exporting %s", model.folder.name)
            changes = _changes(model, configuration, private, merge_lora, without_optimizer)
            for path in model.checkpoints:
                archive.add_checkpoint(path, changes.checkpoint(path), Path(scratch))
            for path in itertools.filterfalse(changes.leaves_out, model.others):
                archive.add(path, changes.text(path))
        folder, predictions = Path(nnUNet_results, dataset), export_crossval_predictions
        for path in files_of_dataset(folder, trainer, plans_identifier, list(models), predictions=predictions):
            archive.add(path, shareable_text(path, private))
    logger.info("Wrote %s", output)


def _warn_of_missing_stages(models: Mapping[str, ExportedModel]) -> None:
    """Warn about cascade models that cannot predict alone because their previous stage is not exported."""
    for configuration, model in models.items():
        previous = previous_stage_of(model.folder, configuration)
        if previous is not None and previous not in models:
            logger.warning(
                "%s starts from the predictions of %s, which is not exported: whoever installs the archive cannot "
                "predict with it alone; export both (-c %s %s)",
                configuration,
                previous,
                previous,
                configuration,
            )


class _Archive(zipfile.ZipFile):
    """A zip file of results, with paths relative to `nnUNet_results`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL, strict_timestamps=False)

    def add(self, path: Path, text: str | None = None) -> None:
        """Add a file, or `text` under its name."""
        name = path.relative_to(nnUNet_results).as_posix()
        if text is None:
            self.write(path, name)
        else:
            self.writestr(name, text)

    def add_checkpoint(self, path: Path, content: dict[str, Any] | None, scratch: Path) -> None:
        """Add a file, or `content` under its name, saved to `scratch` first."""
        if content is None:
            self.add(path)
            return
        from nnunetv2.utilities.checkpoint_io import save_checkpoint  # imports torch

        save_checkpoint(content, scratch / path.name)
        self.write(scratch / path.name, path.relative_to(nnUNet_results).as_posix())


def _changes(
    model: ExportedModel, configuration: str, private: Mapping[str, str], merge_lora: bool, without_optimizer: bool
) -> _ContentChanges:
    plans = read_plans(model.folder / "plans.json")
    dataset_json = read_dataset_json(model.folder / "dataset.json", trained=True)
    if merge_lora:
        from nnunetv2.model_sharing.lora_merging import has_adapters

        merge_lora = has_adapters(plans, configuration)
        logger.info(
            "Its LoRA adapters are merged; the exported training cannot be continued"
            if merge_lora
            else "It has no LoRA adapters to merge"
        )
    return _ContentChanges(plans, dataset_json, configuration, private, merge_lora, without_optimizer)


@dataclass(frozen=True)
class _ContentChanges:
    """Changes to the files of one model folder on export."""

    plans: Mapping[str, Any]
    dataset_json: dict
    configuration: str
    private: Mapping[str, str]
    """replacements for folders in texts, see `private_folders`"""
    merge_lora: bool
    """merge the network's LoRA adapters, and drop the optimizer state, which belongs to them"""
    without_optimizer: bool

    def leaves_out(self, path: Path) -> bool:
        """Whether a file describes the network with adapters, which is not exported."""
        return self.merge_lora and path.name in _OF_THE_NETWORK_IN_TRAINING

    def text(self, path: Path) -> str | None:
        """Changed text of a file other than a checkpoint; None to store the file unchanged."""
        if self.merge_lora and path.name == "plans.json":
            from nnunetv2.model_sharing.lora_merging import merged_plans

            return json.dumps(merged_plans(self.plans, self.configuration), indent=4)
        if self.merge_lora and path.match(SETTINGS_PATTERN):
            return without_folders(_merged_settings(path), self.private)
        return shareable_text(path, self.private)

    def checkpoint(self, path: Path) -> dict[str, Any] | None:
        """Changed content of a checkpoint; None to store the file unchanged.

        Raises:
            DataError: the checkpoint is damaged, or does not match the plans.
        """
        from nnunetv2.utilities.checkpoint_io import load_checkpoint  # imports torch

        content = load_checkpoint(path)
        described = {name: content[name] for name in _WITH_PATHS if name in content}
        shareable = without_folders(described, self.private)
        exported = {**content, **shareable}
        if self.merge_lora:
            from nnunetv2.model_sharing.lora_merging import merge_checkpoint

            exported = merge_checkpoint(exported, self.plans, self.dataset_json, str(path))
        if self.merge_lora or self.without_optimizer:
            exported = {name: value for name, value in exported.items() if name not in _TRAINING_STATE}
        is_same = exported.keys() == content.keys() and shareable == described
        return None if is_same and not self.merge_lora else exported


def _merged_settings(path: Path) -> str:
    from omegaconf import OmegaConf

    from nnunetv2.model_sharing.lora_merging import merged_settings

    return OmegaConf.to_yaml(
        OmegaConf.create(merged_settings(OmegaConf.to_container(OmegaConf.create(read_yaml_text(path)))))
    )
