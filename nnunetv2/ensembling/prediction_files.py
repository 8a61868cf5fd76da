"""Match the cases of several prediction folders, and check that the folders can be averaged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import DataError, UsageError

_SHOWN_CASES = 4


def require_distinct_folders(inputs: Sequence[str | os.PathLike], output: str | os.PathLike) -> None:
    """Reject missing or repeated folders, and an output that is one of the inputs.

    Raises:
        UsageError: names the folder.
    """
    if not inputs:
        raise UsageError("No folder to ensemble was given; name at least one folder of predictions (-i)")
    seen: set[Path] = set()
    for folder in inputs:
        if not Path(folder).is_dir():
            raise UsageError(f"There is no folder {os.fspath(folder)}; -i takes folders of predictions")
        resolved = Path(folder).resolve()
        if resolved in seen:
            raise UsageError(f"The folder {os.fspath(folder)} was given twice; it would count double in the average")
        seen.add(resolved)
    if Path(output).resolve() in seen:
        raise UsageError(
            f"The output folder {os.fspath(output)} is one of the inputs, whose predictions would be overwritten; "
            f"choose another one (-o)"
        )


def probability_files(folder: str | os.PathLike) -> dict[str, str]:
    """Paths of the `.npz` files in a folder, by case, in alphabetical order.

    Raises:
        DataError: there are none.
    """
    paths = visible_files(folder, ".npz")
    if not paths:
        raise DataError(
            f"{os.fspath(folder)} has no probabilities (.npz); predict with --save_probabilities, or validate with "
            f"nnUNetv2_train ... --val --npz"
        )
    return {path.name.removesuffix(".npz"): str(path) for path in paths}


def matched(files_of_models: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Group the files of several models by case.

    Args:
        files_of_models: files by case for each model, under the name that messages use.

    Returns:
        Files of each case, in the order of the models.

    Raises:
        DataError: a model lacks cases that another one has, or the first file of a case has no `.pkl` beside it.
    """
    cases = sorted({case for files in files_of_models.values() for case in files})
    for model, files in files_of_models.items():
        missing = [case for case in cases if case not in files]
        if missing:
            raise DataError(
                f"{model} has no probabilities of {_listed(missing)}, which another folder has; all must hold the same "
                f"cases, so predict them there too or remove them from the others"
            )
    together = {case: [files[case] for files in files_of_models.values()] for case in cases}
    for case, files in together.items():
        properties = files[0].removesuffix(".npz") + ".pkl"
        if not os.path.isfile(properties):
            raise DataError(f"Case {case}: there is no {properties}, which is written with the probabilities")
    return together


def require_same_labels(dataset_jsons: Mapping[str, Mapping[str, Any]]) -> None:
    """Reject models whose outputs have another meaning than those of the first.

    Args:
        dataset_jsons: content of each model's dataset.json, under the name that messages use.

    Raises:
        DataError: shows both declarations.
    """
    (first, reference), *others = dataset_jsons.items()
    for model, dataset_json in others:
        if _meaning_of_outputs(dataset_json) != _meaning_of_outputs(reference):
            raise DataError(
                f"{model} and {first} do not belong together: their dataset.json declare {_declared(dataset_json)} and "
                f"{_declared(reference)}; only models of the same labels can be averaged"
            )


def _meaning_of_outputs(dataset_json: Mapping[str, Any]) -> Any:
    labels = {name: value for name, value in dataset_json["labels"].items() if name != "ignore"}
    if not any(isinstance(value, list) for value in labels.values()):
        return labels
    return list(labels.items()), dataset_json.get("regions_class_order")  # the declaration defines the output order


def _declared(dataset_json: Mapping[str, Any]) -> str:
    order = dataset_json.get("regions_class_order")
    return f"labels {dataset_json['labels']}" + ("" if order is None else f", regions_class_order {order}")


def _listed(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - _SHOWN_CASES} more" if len(cases) > _SHOWN_CASES else ""
    return ", ".join(cases[:_SHOWN_CASES]) + more
