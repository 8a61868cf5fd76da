"""Runs upstream nnU-Net's variant trainers on this repository's base class.

    python benchmarks/upstream_variants.py UPSTREAM_SITE_PACKAGES [TRAINER ...]

UPSTREAM_SITE_PACKAGES is the folder that contains upstream's `nnunetv2`. Its `variants` and `primus` are copied to a
temporary folder and found through `nnUNet_extTrainer`. Only the names of classes and modules are changed, because they
would otherwise resolve to those of this repository. Every class trains two iterations on synthetic volumes on the CPU,
saves, is resumed for two more, and its model predicts. Prints one line per class and N of N.

Primus networks are reduced to one block of 24 features. Upstream's benchmark trainers require a GPU, so one is faked;
they save nothing to resume. The Adan trainers need the package adan-pytorch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = ("variants", "primus")
PREFIX = "Upstream_"
ABSTRACT = {"AbstractPrimus"}


def copy_renamed(site_packages: Path, target: Path) -> list[str]:
    """Copies upstream's variant trainers below `target` with `PREFIX` before their class names; returns the names."""
    root = site_packages / "nnunetv2" / "training" / "nnUNetTrainer"
    sources = {path: path.read_text(encoding="utf-8") for part in PARTS for path in (root / part).rglob("*.py")}
    names = sorted({name for text in sources.values() for name in re.findall(r"^class (\w+)", text, re.MULTILINE)})
    if not names:
        raise SystemExit(f"{root} holds no trainers of upstream; give the folder that upstream is installed in")
    class_name = re.compile(rf"\b({'|'.join(names)})\b")
    package = re.compile(rf"\bnnunetv2\.training\.nnUNetTrainer\.({'|'.join(PARTS)})\b")
    for path, text in sources.items():
        part, *folders, file = path.relative_to(root).parts
        copy = target.joinpath(f"{part}_of_upstream", *folders, class_name.sub(rf"{PREFIX}\1", file))
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(class_name.sub(rf"{PREFIX}\1", package.sub(r"\1_of_upstream", text)), encoding="utf-8")
    return names


@contextlib.contextmanager
def surroundings(site_packages: Path) -> Iterator[list[str]]:
    """Sets up roots with tiny volumes and the renamed trainers in `nnUNet_extTrainer`; yields the original names."""
    from tests.training.tiny_volumes import tiny_primus, write_tiny_volumes

    with tempfile.TemporaryDirectory() as folder, tiny_primus():
        trainers = Path(folder, "trainers")
        names = copy_renamed(site_packages, trainers)
        settings = {name: f"{folder}/{name}" for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        write_tiny_volumes(Path(settings["nnUNet_preprocessed"]))
        settings |= {"nnUNet_extTrainer": str(trainers), "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
        with mock.patch.dict(os.environ, settings), mock.patch.object(sys, "path", list(sys.path)):
            yield names


def outcome(name: str) -> str:
    """Runs one trainer; returns "ok", what it lacks, or how it failed."""
    from tests.training import short_training

    if name in ABSTRACT:
        return "no trainer: it has no network"
    if "Adan" in name and importlib.util.find_spec("adan_pytorch") is None:
        return "not run: the package adan-pytorch is not installed"
    try:
        trained = short_training.train(PREFIX + name)
        if "Benchmark" in name:
            return "ok (it saves no checkpoint to resume)"
        short_training.resume(trained)
        short_training.predict(trained)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAILED: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return "ok"


def outcomes(site_packages: Path, wanted: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Yields name and outcome of each of upstream's variant trainers, or of the selected ones."""
    with surroundings(site_packages) as names, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in wanted or names:
            with contextlib.redirect_stdout(io.StringIO()):
                result = outcome(name)
            yield name, result


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("site_packages", type=Path, help="folder that upstream's package nnunetv2 lies in")
    parser.add_argument("trainers", nargs="*", help="names of classes (all)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    succeeded = failed = 0
    start = time.process_time()
    for name, result in outcomes(args.site_packages, args.trainers):
        print(f"{name:50} {result}", flush=True)
        succeeded += result.startswith("ok")
        failed += result.startswith("FAILED")
    print(f"{succeeded} of {succeeded + failed} trainers, {time.process_time() - start:.0f} CPU seconds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    sys.exit(main())
