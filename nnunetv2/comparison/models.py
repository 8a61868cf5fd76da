"""Resolve the `-m` arguments to runs: folder, method, seed and folds."""

from __future__ import annotations

import difflib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinov3.utils.visible_files import visible_files
from nnunetv2.comparison.protocol_sources import recorded_seed
from nnunetv2.comparison.runs import fold_order, listed
from nnunetv2.comparison.scores import Run
from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.crossval_folds import validated_segmentations
from nnunetv2.evaluation.picture_cure import other_pictures
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

_NUM_HINTS = 3
_ALL = "all"
_READER = "reader"  # default name of a second reader


@dataclass(frozen=True)
class _Word:
    """One parsed `-m` argument."""

    method: str | None
    model: str
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.resolve().name if self.method is None else self.method


def find_runs(dataset: str, models: Sequence[str], folds: Sequence[str] | None = None) -> tuple[Run, ...]:
    """Resolve the arguments `[METHOD=]MODEL` to runs.

    Methods keep the order of the arguments; runs of a method are sorted by seed.

    Args:
        dataset: number or name.
        models: each a folder of the dataset in `nnUNet_results` (TRAINER__PLANS__CONFIGURATION), the path of a model
            folder, or the path of a folder with segmentations. Text before `=` that has a path separator is part of
            the path, not a method.
        folds: of the models; None selects every fold that any of them has validated.

    Raises:
        UsageError: a model is missing or given twice, the name or the seeds of a method are not unique, or a fold is
            invalid.
        DataError: a model lacks the validation of one of `folds`, or has a case in two folds.
    """
    name = maybe_convert_to_dataset_name(dataset)
    words = [_parse(word, name) for word in models]
    if not words:
        raise UsageError("No model is given; name at least one with -m")
    _require_distinct(words)
    runs = [_run(word, name, [each.folder for each in words], _checked(folds)) for word in words]
    if folds is not None and not any(run.is_model for run in runs):
        raise UsageError("-f chooses folds of trained models, and folders of predictions have none; leave it out")
    ordered = tuple(run for method in dict.fromkeys(run.method for run in runs) for run in _numbered(method, runs))
    _require_distinct_seeds(ordered)
    return ordered


def find_reader(dataset: str, word: str, methods: Collection[str], folders: Sequence[Path] = ()) -> Run:
    """Resolve `--reader [NAME=]FOLDER` to a run; its name is `reader` by default.

    Args:
        dataset: number or name.
        word: `[NAME=]FOLDER`.
        methods: names of the methods that it stands beside.
        folders: of these methods; the description of the dataset is read from a model if the dataset is not here.

    Raises:
        UsageError: the folder does not exist, has no segmentations, or the name is that of a method.
    """
    name = maybe_convert_to_dataset_name(dataset)
    parsed = _parse(word, name, "--reader")
    method = _READER if parsed.method is None else parsed.method
    if method in methods:
        raise UsageError(f"--reader is called {method} like a method; give another name: --reader NAME=FOLDER")
    return replace(_run(replace(parsed, method=method), name, [parsed.folder, *folders], None), method=method)


def dataset_description(dataset_name: str, model_folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Read dataset.json from the preprocessed or raw dataset, falling back to the models.

    Raises:
        DataError: none of them has it.
    """
    roots = [Path(root) / dataset_name for root in (nnUNet_preprocessed, nnUNet_raw) if root.is_set()]
    candidates = [folder / "dataset.json" for folder in (*roots, *model_folders)]
    for path in candidates:
        if path.is_file():
            return read_dataset_json(path, trained=True)
    places = " nor ".join(map(str, candidates)) or "file to look in: nnUNet_preprocessed and nnUNet_raw are not set"
    raise DataError(f"The description of {dataset_name} is missing, there is no {places}")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder contains folds of a trained model."""
    return any(path.is_dir() for path in folder.glob("fold_*"))


def _parse(word: str, dataset_name: str, flag: str = "-m") -> _Word:
    method, separator, model = word.partition("=")
    separators = {os.sep, os.altsep or os.sep}
    if not separator or separators & set(method):
        return _Word(None, word, _find_folder(word, dataset_name))
    if not method or not model:
        raise UsageError(f"{flag} {word} lacks a {'model' if method else 'name'}; write METHOD=MODEL, or MODEL alone")
    return _Word(method, model, _find_folder(model, dataset_name))


def _find_folder(model: str, dataset_name: str) -> Path:
    results = Path(nnUNet_results) / dataset_name if nnUNet_results.is_set() else None
    is_name = Path(model).name == model
    if results is not None and is_name and (results / model).is_dir():
        return results / model
    if Path(model).is_dir():
        return Path(model)
    if not is_name:
        hint = f", and a METHOD in front of = has no {os.sep}" if "=" in model else ""
        raise UsageError(f"There is no folder {model}; give that of a trained model or of predictions{hint}")
    if results is None:
        raise UsageError(f"There is no folder {model}; set nnUNet_results to name models, or give paths")
    known = sorted(path.name for path in results.glob("*__*__*") if path.is_dir()) if results.is_dir() else []
    near = difflib.get_close_matches(model, known, n=_NUM_HINTS, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
    raise UsageError(f"There is no model {model} in {results}; {hint}")


def _require_distinct(words: Sequence[_Word]) -> None:
    folders: dict[Path, _Word] = {}
    for word in words:
        earlier = folders.setdefault(word.folder.resolve(), word)
        if earlier is not word:
            raise UsageError(f"{word.model} is given twice ({earlier.name} and {word.name}); give each model once")
    counts = Counter(word.name for word in words)
    for word in words:
        if word.method is None and counts[word.name] > 1:
            raise UsageError(
                f"Several models are called {word.name}; tell them apart with -m METHOD=MODEL, and give trainings of "
                f"one method with different seeds the same METHOD"
            )


def _checked(folds: Sequence[str] | None) -> list[str] | None:
    if folds is None:
        return None
    for fold in folds:
        if not (str(fold).isdecimal() or fold == _ALL):
            raise UsageError(f"fold is {fold!r}; accepted are 0, 1, 2, ... and {_ALL}")
    return list(dict.fromkeys(map(str, folds)))


def _run(word: _Word, dataset_name: str, folders: Sequence[Path], folds: Sequence[str] | None) -> Run:
    model_folders = [word.folder, *(folder for folder in folders if is_model_folder(folder))]
    own = word.folder / "dataset.json"
    description = (
        read_dataset_json(own, trained=True) if own.is_file() else dataset_description(dataset_name, model_folders)
    )
    ending = description["file_ending"]
    if not is_model_folder(word.folder):
        return Run(word.name, word.folder, _predictions(word.folder, ending), {})
    validated = _validated_folds(word.folder, ending)
    if folds is None and not validated:
        raise DataError(f"{word.folder} has no validation (fold_*/validation/*{ending}); train it to the end, or --val")
    segmentations = validated_segmentations(word.folder, validated if folds is None else folds, ending)
    predictions = {case: Path(path) for case, path in sorted(segmentations.items())}
    fold_of = {case: path.parents[1].name.removeprefix("fold_") for case, path in predictions.items()}
    seed = _common_seed([word.folder / f"fold_{fold}" for fold in sorted(set(fold_of.values()))])
    return Run(word.name, word.folder, predictions, fold_of, seed)


def _validated_folds(folder: Path, ending: str) -> list[str]:
    validations = [path for path in folder.glob("fold_*/validation") if visible_files(path, ending)]
    return sorted((path.parent.name.removeprefix("fold_") for path in validations), key=fold_order)


def _predictions(folder: Path, ending: str) -> Mapping[str, Path]:
    files = visible_files(folder, ending)
    if not files:
        raise UsageError(
            f"{folder} is neither a trained model (it has no fold_*) nor a folder of segmentations (*{ending})"
            f"{other_pictures(folder)}"
        )
    return {path.name.removesuffix(ending): path for path in files}


def _common_seed(fold_folders: Sequence[Path]) -> int | None:
    """The seed that all folds share; None if they differ or one does not record it."""
    seeds = {recorded_seed(folder) for folder in fold_folders}
    return seeds.pop() if len(seeds) == 1 else None


def _numbered(method: str, runs: Sequence[Run]) -> list[Run]:
    own = [run for run in runs if run.method == method]
    own.sort(key=lambda run: (run.seed is None, run.seed or 0, str(run.folder)))
    return [replace(run, number=number) for number, run in enumerate(own)]


def _require_distinct_seeds(runs: Sequence[Run]) -> None:
    folders: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for run in runs:
        if run.seed is not None:
            folders[run.method, run.seed].append(str(run.folder))
    for (method, seed), same in folders.items():
        if len(same) > 1:
            raise UsageError(
                f"The trainings {listed(same)} of {method} have one seed, {seed}, so they are not independent; give "
                f"trainings with different seeds, or different METHODs"
            )
