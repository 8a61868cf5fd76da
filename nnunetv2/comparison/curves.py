"""Learning curves of trained models."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.comparison.protocol_sources import FoldSources
from nnunetv2.comparison.results import LearningCurve
from nnunetv2.comparison.runs import fold_folder, folds_of, run_names
from nnunetv2.comparison.runs_log import epochs_of_fold
from nnunetv2.comparison.scores import Run


def learning_curves(runs: Sequence[Run]) -> tuple[LearningCurve, ...]:
    """The curve of every fold of every run that left a log."""
    curves = []
    for run, name in zip(runs, run_names(runs), strict=True):
        for fold in folds_of(run):
            records = epochs_of_fold(FoldSources(fold_folder(run, fold)))
            if records:
                curves.append(
                    LearningCurve(
                        method=run.method,
                        run=name,
                        fold=fold,
                        epochs=tuple(record.epoch for record in records),
                        pseudo_dice=tuple(record.pseudo_dice for record in records),
                        val_loss=tuple(record.val_loss for record in records),
                    )
                )
    return tuple(curves)
