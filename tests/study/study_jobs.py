"""Trainings of a study that are no trainings: a module of a few lines in place of a training command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.study.jobs import Job

MODULE = "stand_in_for_a_training"


def make_job(folder: Path, source: str = "", **changes: Any) -> Job:
    """A job whose command runs `source` as the body of `run_training_entry(words)`; `fold` is the fold's folder."""
    job = Job(
        **{
            "method": "unet",
            "seed": 0,
            "fold": 1,
            "program": "nnUNetv2_train",
            "module": MODULE,
            "words": ("4", "2d", "1", "--seed", "0"),
            "start_words": ("-pretrained_weights", "a b.pth"),
            "num_epochs": 10,
            "study_folder": folder / "study",
            "model_folder": folder / "study" / "trainings" / "unet" / "seed_0" / "Dataset004_X" / "T__P__2d",
            "working_folder": folder,
            "environment": {"PYTHONPATH": str(folder / "modules")},
            **changes,
        }
    )
    body = "\n    ".join(source.strip().splitlines())
    text = (
        "import os, signal, subprocess, sys, time\nfrom pathlib import Path\n\n\ndef run_training_entry(words):\n"
        f"    fold = Path({str(job.fold_folder)!r})\n    fold.mkdir(parents=True, exist_ok=True)\n"
        f"    {body or 'pass'}\n"
    )
    (folder / "modules").mkdir(exist_ok=True)
    (folder / "modules" / f"{MODULE}.py").write_text(text)
    return job


FINISH = """
(fold / "checkpoint_final.pth").touch()
(fold / "validation").mkdir()
(fold / "validation" / "summary.json").write_text("{}")
print(words, os.getcwd(), os.environ["nnUNet_results"])
"""


def mark(job: Job, *names: str) -> None:
    """Puts files into the folder of a fold."""
    for name in names:
        path = job.fold_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else "")
