"""The protocol of a fold, item by item: the conditions of its training and scoring, from whatever files exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dinov3.utils.atomic_files import read_json
from nnunetv2.training.protocol.augmentation import augmentation_steps
from nnunetv2.training.protocol.hashes import cases_description, content_hash, fingerprint_hash, rounded

Facts = Mapping[str, Any]
"""Plain data by name; None if no file records it."""

_PLANNED = (
    "spacing",
    "preprocessor_name",
    "normalization_schemes",
    "use_mask_for_norm",
    *(f"resampling_fn_{what}{part}" for what in ("data", "seg", "probabilities") for part in ("", "_kwargs")),
)
_PLANNED_FOR_ALL = ("transpose_forward", "image_reader_writer", "foreground_intensity_properties_per_channel")
_NO_MIRRORING = "none"
_SHORT = 12  # digits of a hash


class Sources(Protocol):
    """Records of a fold: its files, or a trainer that is about to train it; empty where nothing is recorded."""

    @property
    def model_folder(self) -> Path: ...

    @property
    def run_line(self) -> Mapping[str, Any]: ...

    @property
    def validation_line(self) -> Mapping[str, Any]: ...

    @property
    def debug(self) -> Mapping[str, Any]: ...

    def debug_value(self, name: str) -> Any: ...

    @property
    def plans(self) -> Mapping[str, Any]: ...

    @property
    def configuration(self) -> Mapping[str, Any]: ...

    @property
    def dataset_json(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class FoldProtocol:
    """One fold of a run."""

    fold: str
    cases: Sequence[str]
    """validated cases"""
    sources: Sources


@dataclass(frozen=True)
class ProtocolItem:
    """A property that has to match across all folds of all runs."""

    name: str
    meaning: str
    facts: Callable[[FoldProtocol], Facts]


def short_hash(content: Any) -> str:
    """Shortened hash of plain data."""
    return content_hash(content)[:_SHORT]


def _fingerprint(fold: FoldProtocol) -> Facts:
    recorded = fold.sources.run_line.get("fingerprint_sha256")
    path = fold.sources.model_folder / "dataset_fingerprint.json"
    if recorded is None and path.is_file():
        recorded = fingerprint_hash(read_json(path))
    return {"fingerprint": recorded and recorded[:_SHORT]}


def _labels(fold: FoldProtocol) -> Facts:
    description = fold.sources.dataset_json
    if "labels" not in description:
        return {"labels": None}
    return {"labels": description["labels"], "order": description.get("regions_class_order", "none")}


def _splits(fold: FoldProtocol) -> Facts:
    recorded = fold.sources.run_line.get("split") or {}
    # Cases missing from the validation are reported separately; see `cases`.
    validation = recorded.get("validation") or cases_description(fold.cases)
    parts = {"training": recorded.get("training"), "validation": validation}
    return {
        f"{part} cases of fold {fold.fold}": cases and f"{cases['num_cases']}, {cases['sha256'][:_SHORT]}"
        for part, cases in parts.items()
    }


def _plans(fold: FoldProtocol) -> Facts:
    configuration, plans = fold.sources.configuration, fold.sources.plans
    if not configuration:
        return {name: None for name in (*_PLANNED, *_PLANNED_FOR_ALL)}
    absent = "not in the plans"
    return {
        **{name: configuration.get(name, absent) for name in _PLANNED},
        **{name: plans.get(name, absent) if plans else None for name in _PLANNED_FOR_ALL},
    }


def _patch_size(fold: FoldProtocol) -> Sequence[int] | None:
    return fold.sources.run_line.get("patch_size") or fold.sources.configuration.get("patch_size")


def _patch(fold: FoldProtocol) -> Facts:
    size = _patch_size(fold)
    return {"patch": size and " x ".join(map(str, size))}


def _augmentation(fold: FoldProtocol) -> Facts:
    recorded = fold.sources.run_line.get("augmentation")
    if recorded is not None:
        return {"transforms": recorded["transforms"]}
    description = fold.sources.debug.get("dataloader_train.generator.transforms")
    return {"transforms": None if description is None else augmentation_steps(description)}


def _sampling(fold: FoldProtocol) -> Facts:
    recorded = {**_of_one_process(fold), **fold.sources.run_line}
    names = {"foreground": "oversample_foreground_percent", "drawn one by one": "probabilistic_oversampling"}
    return {name: recorded.get(key) for name, key in names.items()}


def _of_one_process(fold: FoldProtocol) -> dict[str, Any]:
    """Sampling settings from debug.json; empty with DDP, where it holds those of the first process only."""
    if fold.sources.debug.get("is_ddp") != "False":
        return {}
    names = ("oversample_foreground_percent", "probabilistic_oversampling")
    return {name: fold.sources.debug_value(name) for name in names}


def _recorded(fold: FoldProtocol, name: str) -> Any:
    found = fold.sources.run_line.get(name)
    return fold.sources.debug_value(name) if found is None else found


def _iterations(fold: FoldProtocol) -> Facts:
    epochs, iterations = (_recorded(fold, name) for name in ("num_epochs", "num_iterations_per_epoch"))
    return {"iterations": None if epochs is None or iterations is None else f"{epochs} x {iterations}"}


def _batch(fold: FoldProtocol) -> Facts:
    size, patch = fold.sources.run_line.get("batch_size"), _patch_size(fold)
    size = fold.sources.configuration.get("batch_size") if size is None else size
    return {"batch": f"{size} x {math.prod(patch)} pixels" if size and patch else None}


def _precision(fold: FoldProtocol) -> Facts:
    return {"precision": recorded_precision(fold.sources)}


def recorded_precision(sources: Sources) -> str | None:
    """`fp32`, `bf16` or `fp16`: the number format of a training; None if its files do not record it."""
    recorded = sources.run_line.get("precision")
    if recorded is None and "grad_scaler" in sources.debug:  # upstream always uses fp16 autocast on CUDA, else fp32
        is_scaled, device = sources.debug["grad_scaler"] != "None", sources.debug.get("device", "")
        recorded = "fp16" if is_scaled else ("fp32" if device.startswith("cpu") else None)
    return recorded


def _mirroring(fold: FoldProtocol) -> Facts:
    axes = fold.sources.run_line.get("mirror_axes")
    text = fold.sources.debug.get("inference_allowed_mirroring_axes")
    if axes is None and text is not None:
        axes = () if text == "None" else fold.sources.debug_value("inference_allowed_mirroring_axes")
    return {"axes": None if axes is None else ", ".join(map(str, axes)) or _NO_MIRRORING}


def _tile_step(fold: FoldProtocol) -> Facts:
    return {"step": fold.sources.run_line.get("tile_step_size")}


def _checkpoint(fold: FoldProtocol) -> Facts:
    line, num_epochs = fold.sources.validation_line, fold.sources.run_line.get("num_epochs")
    recorded, trained = line.get("checkpoint"), line.get("epochs_trained")
    if recorded is None and None not in (trained, num_epochs):  # the checkpoint of the last epoch is the final one
        recorded = "final" if trained >= num_epochs else "best"
    return {"checkpoint": recorded}


def _postprocessing(fold: FoldProtocol) -> Facts:
    return {"postprocessing": "off"}  # validation folders hold raw predictions; postprocessed ones live elsewhere


ITEMS = (
    ProtocolItem("fingerprint", "dataset fingerprint, numbers to six digits", _fingerprint),
    ProtocolItem("labels", "labels or regions of the dataset", _labels),
    ProtocolItem("splits", "training and validation cases of each fold", _splits),
    ProtocolItem("plans", "spacing, normalisation, resampling; not the network", _plans),
    ProtocolItem("patch", "size of a patch in pixels or voxels", _patch),
    ProtocolItem("augmentation", "transforms of the training and their parameters", _augmentation),
    ProtocolItem("sampling", "share of samples that must show foreground", _sampling),
    ProtocolItem("iterations", "epochs x training steps per epoch", _iterations),
    ProtocolItem("batch", "samples x pixels or voxels in a training step", _batch),
    ProtocolItem("precision", "number format of the training", _precision),
    ProtocolItem("mirroring", "axes along which predictions are mirrored and averaged", _mirroring),
    ProtocolItem("tile_step", "distance of neighbouring tiles as a fraction of the tile", _tile_step),
    ProtocolItem("checkpoint", "rule by which the checkpoint is chosen", _checkpoint),
    ProtocolItem("postprocessing", "changes to the predictions of the network", _postprocessing),
)


def facts_of(item: ProtocolItem, fold: FoldProtocol) -> Facts:
    """Recorded facts of a fold about an item, as JSON data with numbers rounded to six digits."""
    return rounded(dict(item.facts(fold)))
