"""Compares the files of two experiments, their names and keys, and lists every difference.

    python benchmarks/compare_experiments.py FOLDER_OF_UPSTREAM FOLDER_OF_OURS [--numbers]

The folders are those of whole_experiment.py. Compares the names of all files and the content that programs rely on:
keys of JSON files, pickles, npz archives and checkpoints; names in zip archives; shapes and types of images; the
commands in the instructions. Values may differ; `--numbers` also shows the differences of Dice scores and
segmentations. Exit code 1 if anything differs beyond the documented differences below.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import blosc2
import nibabel
import numpy as np

from nnunetv2.utilities.checkpoint_io import load_checkpoint
from nnunetv2.utilities.restricted_pickle import load_restricted

COMPARED = ("preprocessed", "results", "installed", "predictions", "predictions_of_both", "predictions_installed")
TIME_STAMP = re.compile(r"(training_log)(_\d+)+")

# Allowed differences: patterns of "file: difference", and the reasons.
DOCUMENTED = {
    "*/metrics.jsonl: file only in the second": "numbers for programs, see docs/logging.md",
    "*/metrics.csv: file only in the second": "numbers for spreadsheets, see docs/logging.md",
    "*/network_architecture.txt: file only in the second": "upstream draws a .pdf if hiddenlayer is installed",
    "model.zip: only in the second: */metrics.jsonl": "as above",
    "model.zip: only in the second: */metrics.csv": "as above",
    "model.zip: only in the second: */network_architecture.txt": "as above",
    "model.zip: only in the second: */inference_instructions.txt": "upstream looks for it under another name",
    "installed/*/inference_instructions.txt: file only in the second": "as above",
    "predictions*/ensemble/plans.json: file only in the second": "ensembles are postprocessed without further flags",
    "predictions*/OUTPUT_FOLDER/plans.json: file only in the second": "as above",
    "predictions*/OUTPUT_FOLDER_PP/*.json: file only in the second": "they can be evaluated as they are",
    "*/ensembles/*/postprocessed/*.json: file only in the second": "as above",
    "*/predict_from_raw_data_args.json: only in the second: /num_p*": "upstream leaves them out without processes",
    "*/predict_from_raw_data_args.json: only in the second: /part_id: *": "as above",
    "*/debug.json: only in *": "attributes of trainer and loaders as text, for people",
}
REMOVE_COMPONENTS = (
    "nnunetv2.postprocessing.remove_connected_components",
    "remove_all_but_largest_component_from_segmentation",
)


def json_keys(value: Any, path: str = "") -> Iterator[str]:
    """Yields key paths with value types; all numbers are one type, elements of sequences share a path."""
    if isinstance(value, dict):
        yield f"{path}{{}}"
        for key, content in value.items():
            yield from json_keys(content, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        yield f"{path}{'[]' if isinstance(value, list) else '()'}"
        for content in value:
            yield from json_keys(content, f"{path}[]")
    else:
        is_number = isinstance(value, int | float | np.number)
        yield f"{path}: {'number' if is_number else type(value).__name__}"


def pickle_keys(path: Path) -> Iterator[str]:
    """Like `json_keys`, for properties of cases and for postprocessing, whose function is represented by its name."""
    yield from json_keys(load_restricted(path, {REMOVE_COMPONENTS: ".".join(REMOVE_COMPONENTS)}))


def checkpoint_keys(path: Path) -> Iterator[str]:
    content = load_checkpoint(path)
    yield from content
    for part in ("network_weights", "logging", "init_args"):
        yield from (f"{part}/{key}" for key in content[part])


def image_shape(path: Path) -> Iterator[str]:
    image = nibabel.load(path)
    yield f"{image.get_data_dtype()} {image.shape}"


def commands_in(path: Path) -> Iterator[str]:
    """Yields the commands of inference_instructions.txt; the text between them may differ."""
    lines = (" ".join(line.split()) for line in path.read_text().splitlines())
    yield from (line for line in lines if line.startswith("nnUNetv2_"))


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".json": lambda path: json_keys(json.loads(path.read_text())),
    ".pkl": pickle_keys,
    ".npz": lambda path: (f"{name} {array.dtype} {array.shape}" for name, array in np.load(path).items()),
    ".b2nd": lambda path: (f"{a.dtype} {a.shape} chunks {a.chunks}" for a in [blosc2.open(str(path), mode="r")]),
    ".pth": checkpoint_keys,
    ".gz": image_shape,
    ".zip": lambda path: (TIME_STAMP.sub(r"\1", name) for name in zipfile.ZipFile(path).namelist()),
}


def is_instruction(path: Path) -> bool:
    return path.suffix == ".txt" and path.name.startswith("inference_")


def files_of(folder: Path) -> dict[str, Path]:
    """Maps paths below the folder to files, without time stamps in names of logs."""
    roots = [folder / root for root in COMPARED]
    found = [path for root in roots for path in root.rglob("*") if path.is_file()]
    found += folder.glob("model.zip")
    return {TIME_STAMP.sub(r"\1", str(path.relative_to(folder))): path for path in found}


def entries_of(path: Path, folder: Path) -> set[str]:
    read = commands_in if is_instruction(path) else READERS.get(path.suffix, lambda path: iter(()))
    return {entry.replace(str(folder), "FOLDER") for entry in read(path)}


def differences(theirs: Path, ours: Path) -> Iterator[tuple[str, str]]:
    """Yields (file, difference) pairs."""
    their_files, our_files = files_of(theirs), files_of(ours)
    for name in sorted(their_files.keys() | our_files.keys()):
        if name not in our_files:
            yield name, "file only in the first"
        elif name not in their_files:
            yield name, "file only in the second"
        else:
            first, second = entries_of(their_files[name], theirs), entries_of(our_files[name], ours)
            yield from ((name, f"only in the first: {entry}") for entry in sorted(first - second))
            yield from ((name, f"only in the second: {entry}") for entry in sorted(second - first))


def documented(name: str, difference: str) -> str | None:
    """Returns the pattern that allows a difference, or None."""
    return next((pattern for pattern in DOCUMENTED if fnmatchcase(f"{name}: {difference}", pattern)), None)


def print_numbers(theirs: Path, ours: Path) -> None:
    """Prints the differences between results of the same seeds."""
    their_files, our_files = files_of(theirs), files_of(ours)
    both = sorted(their_files.keys() & our_files.keys())
    for name in (name for name in both if name.endswith("summary.json")):
        first, second = (json.loads(files[name].read_text()) for files in (their_files, our_files))
        dice = [summary["foreground_mean"]["Dice"] for summary in (first, second)]
        print(f"Dice {dice[0]:.6f} {dice[1]:.6f}  {name}")
    different = total = 0
    for name in (name for name in both if name.endswith(".nii.gz")):
        first, second = (np.asarray(nibabel.load(files[name]).dataobj) for files in (their_files, our_files))
        different, total = different + int(np.sum(first != second)), total + first.size
    print(f"{different} of {total} voxels in segmentations differ")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("theirs", type=Path, help="folder of the experiment with upstream")
    parser.add_argument("ours", type=Path, help="folder of the experiment with this project")
    parser.add_argument("--numbers", action="store_true", help="also compare Dice scores and voxels")
    args = parser.parse_args(argv)
    found = list(differences(args.theirs, args.ours))
    others = [difference for difference in found if documented(*difference) is None]
    for name, difference in others:
        print(f"{name}: {difference}")
    for pattern, number in Counter(documented(*difference) for difference in found).items():
        if pattern is not None:
            print(f"documented, {number} times: {pattern} ({DOCUMENTED[pattern]})")
    num_files = len(files_of(args.theirs).keys() & files_of(args.ours).keys())
    print(f"{num_files} files in both; {len(others)} differences that are not documented")
    if args.numbers:
        print_numbers(args.theirs, args.ours)
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
