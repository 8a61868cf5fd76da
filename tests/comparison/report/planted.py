"""Comparisons with planted scores, names that want escaping, and statistics by simple formulas."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.results import (
    BETTER,
    DIFFERS,
    EQUAL,
    MIN_SEEDS,
    NO_DIFFERENCE,
    NOT_RECORDED,
    NOT_TESTABLE,
    WORSE,
    Comparability,
    Comparison,
    DetectionResult,
    Equality,
    Interval,
    LearningCurve,
    MethodCost,
    MethodsTest,
    MethodSummary,
    PairResult,
    RankResult,
    RankStability,
    TrainedModelsTest,
)
from nnunetv2.comparison.scores import Run, ScoreTable
from nnunetv2.comparison.settings import CompareSettings

METHODS = (
    "nnUNetTrainer__nnUNetPlans__2d",
    "nnUNetTrainer_segformer__nnUNetPlans__2d",
    "nnUNetTrainer_m2f__nnUNetResEncUNetLPlans__2d",
    "nnUNetTrainer_mymodel__nnUNetPlans__2d",
    "EoMT & friends $x_1$ 100 %",
    "nnUNetTrainer_100epochs__nnUNetPlans__2d",
    "nnUNetTrainerNoDeepSupervision_mymodel__nnUNetPlans__2d",
    "a method whose name has forty characters",
    "U-Net",
    "nnUNetTrainer__nnUNetResEncUNetXLPlans__3d_cascade_fullres",
)
CLASSES = ("<b>nucleus</b>", "cytoplasm, outer", "mitochondria")
SCRIPT_CASE = "<script>alert(1)</script>"


def planted(
    num_methods: int = 5,
    num_seeds: int = 3,
    num_cases: int = 30,
    classes: tuple[str, ...] = CLASSES,
    *,
    metrics: tuple[str, ...] = ("Dice", "NSD", "HD95", "ASSD"),
    gap: float = 0.015,
    is_known: bool = True,
    equalities: tuple[Equality, ...] | None = None,
    **settings: object,
) -> Comparison:
    """Each method is `gap` worse than the one before it; the costs and curves of some are known if `is_known`."""
    methods = METHODS[:num_methods]
    table = score_table(methods, num_seeds, num_cases, classes, metrics, gap)
    choice = CompareSettings(metrics=metrics, **settings)
    wanted = [None, *classes]
    if equalities is None:
        equalities = _equalities(table, is_known)
    return Comparison(
        dataset="Dataset004_<Cells & more>",
        settings=choice,
        scores=table,
        summaries=tuple(
            _summary(table, method, metric, name) for metric in metrics for name in wanted for method in methods
        ),
        pairs=tuple(
            _pair(table, pair, metric, name, choice)
            for metric in metrics
            for name in wanted
            for pair in combinations(methods, 2)
        ),
        ranks=tuple(_rank(position, len(methods), metric) for metric in metrics for position in range(len(methods))),
        stability=tuple(RankStability(metric, Interval(0.6, 1.0), metric != "NSD") for metric in metrics),
        detection=tuple(
            DetectionResult(method, name, 4 * number, (0.25 if number else None), (12.5 if number else None),
                            num_cases - 4 * number, 0.1)
            for method in methods
            for number, name in enumerate(classes)
        ),
        costs=tuple(_cost(place, method) if is_known else MethodCost(method) for place, method in enumerate(methods)),
        comparability=Comparability(equalities, tuple(each.item for each in equalities if each.state == DIFFERS)),
        curves=_curves(methods[:-1], num_seeds) if is_known else (),
    )  # fmt: skip


def score_table(
    methods: tuple[str, ...],
    num_seeds: int,
    num_cases: int,
    classes: tuple[str, ...],
    metrics: tuple[str, ...],
    gap: float,
) -> ScoreTable:
    generator = np.random.default_rng(0)
    cases = tuple(sorted([SCRIPT_CASE, *(f"case_{number:03d}" for number in range(1, num_cases))]))
    runs = tuple(
        Run(
            method,
            Path(f"/machine/{number}/{method[:5]}"),
            {case: Path(f"/machine/{number}/{case}.nii.gz") for case in cases},
            {case: str(position % 2) for position, case in enumerate(cases)},
            number,
            number,
        )
        for method in methods
        for number in range(num_seeds)
    )
    shape = (len(runs), num_cases, len(classes))
    difficulty = generator.beta(2, 8, size=shape[1:])
    shift = np.array([gap * methods.index(run.method) for run in runs])[:, None, None]
    noise = generator.normal(0, 0.01, size=shape) + generator.normal(0, 0.004, size=(len(runs), 1, 1))
    overlap = np.clip(0.97 - difficulty - shift + noise * (gap > 0), 0, 1)
    absent = np.zeros(shape[1:], dtype=bool)
    absent[: num_cases // 8, len(classes) - 1] = len(classes) > 1
    overlap[:, absent] = np.nan
    scale = {"Dice": 1, "IoU": 0.9, "NSD": 0.95}
    values = {name: overlap * scale[name] if name in scale else 60 * (1 - overlap) ** 2 + 1 for name in metrics}
    reference = np.where(absent, 0, generator.integers(200, 9000, size=shape[1:]))
    predicted = np.rint(np.nan_to_num(overlap, nan=0.0) * reference[None]).astype(np.int64)
    predicted[-1, -1, 0] = 0
    return ScoreTable(
        runs, cases, classes, values, reference, predicted, np.full(num_cases, 0.5), 2,
        {name: (predicted == 0).sum(axis=1) for name in metrics if name not in scale},
    )  # fmt: skip


def _case_means(table: ScoreTable, method: str, metric: str, name: str | None) -> np.ndarray:
    return table.scores_of(method, metric, name).mean(axis=0)


def _interval(values: np.ndarray, z: float = 1.96) -> Interval:
    half = z * values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half))


def _summary(table: ScoreTable, method: str, metric: str, name: str | None) -> MethodSummary:
    values = _case_means(table, method, metric, name)
    runs = table.scores_of(method, metric, name).mean(axis=1)
    return MethodSummary(
        method, metric, name, len(values), len(runs), float(values.mean()), _interval(values),
        float(values.std(ddof=1)), float(np.median(values)), tuple(np.quantile(values, (0.25, 0.75)).tolist()),
        float(runs.std(ddof=1)) if len(runs) > 1 else None,
    )  # fmt: skip


def _p_of(differences: np.ndarray) -> float:
    spread = differences.std(ddof=1) / math.sqrt(len(differences))
    return math.erfc(abs(differences.mean()) / spread / math.sqrt(2)) if spread > 0 else 1.0


def _pair(
    table: ScoreTable, pair: tuple[str, str], metric: str, name: str | None, settings: CompareSettings
) -> PairResult:
    first, second = (_case_means(table, method, metric, name) for method in pair)
    differences = first - second
    sign = 1 if METRICS[metric].higher_is_better else -1
    p = _p_of(differences)
    advantage = sign * float(differences.mean())
    verdict = NO_DIFFERENCE if p > settings.alpha else BETTER if advantage > 0 else WORSE
    trained = TrainedModelsTest(
        p, min(1.0, 3 * p), _interval(differences), float(np.median(differences)),
        float(np.sign(sign * differences).mean()), verdict,
    )  # fmt: skip
    seeds = tuple(len(table.runs_of(method)) for method in pair)
    if min(seeds) >= MIN_SEEDS:
        methods = MethodsTest(min(1.0, 2 * p), min(1.0, 4 * p), _interval(differences, 2.5), 3.7, seeds, verdict)
    else:
        reason = f"{pair[0]} has {seeds[0]} trainings and {pair[1]} has {seeds[1]}; each needs {MIN_SEEDS}"
        methods = MethodsTest(None, None, None, None, seeds, NOT_TESTABLE, reason)
    non_inferior = None
    if settings.margin is not None and metric == settings.metrics[0]:
        non_inferior = (advantage > -settings.margin, advantage < settings.margin)
    return PairResult(
        *pair, metric, name, len(differences), (float(first.mean()), float(second.mean())), float(differences.mean()),
        float(np.median(differences)), trained, methods, non_inferior,
    )  # fmt: skip


def _rank(position: int, num_methods: int, metric: str) -> RankResult:
    weights = np.array([0.5 ** (2 * abs(rank - position)) for rank in range(num_methods)])
    shares = tuple(float(share) for share in weights / weights.sum())
    return RankResult(METHODS[position], metric, position + 1.0, position + 1.2, position + 1.0, shares)


def _cost(position: int, method: str) -> MethodCost:
    if position == 3:
        return MethodCost(method)
    return MethodCost(
        method, 31_200_000 * (position + 1), 30_000_000, 112.5 * (position + 1), 337.5 * (position + 1),
        None if position == 1 else 9_100.0 + 500 * position, 8_000.0, 0.123 * (position + 1), 1.5 + position,
        None if position == 2 else 9.5 + position,
        "NVIDIA A100-SXM4-40GB", "timm/vit_small_patch16_dinov3.lvd1689m" if position == 2 else None, (512, 512),
    )  # fmt: skip


def _equalities(table: ScoreTable, is_known: bool) -> tuple[Equality, ...]:
    names = [f"{run.method}, seed {run.seed}" for run in table.runs]
    if not is_known:
        return (Equality("splits", "which cases each fold was validated on", NOT_RECORDED, dict.fromkeys(names, "")),)
    return (
        Equality("splits", "which cases each fold was validated on", EQUAL, dict.fromkeys(names, "3f2a9c01")),
        Equality("iterations", "steps of the training", EQUAL, dict.fromkeys(names, "250000")),
        Equality("augmentation", "transforms of the training data", NOT_RECORDED, dict.fromkeys(names, "")),
    )


def iterations_differ(*names: str) -> Equality:
    """A broken equality of two groups of runs."""
    half = len(names) // 2
    values = {name: "250000" if position < half else "25000" for position, name in enumerate(names)}
    return Equality("iterations", "steps of the training", DIFFERS, values)


def _curves(methods: tuple[str, ...], num_seeds: int) -> tuple[LearningCurve, ...]:
    generator = np.random.default_rng(1)
    curves = []
    for position, method in enumerate(methods):
        for seed in range(num_seeds):
            for fold in ("0", "1"):
                epochs = tuple(range(50 + 100 * position))
                dice = 0.9 - 0.02 * position - 0.8 * np.exp(-np.array(epochs) / 15)
                dice = dice + generator.normal(0, 0.01, len(epochs))
                dice[7] = np.nan
                loss = (1 + 20 * (position == 2)) * (0.2 - dice)
                curves.append(LearningCurve(method, f"seed {seed}", fold, epochs, tuple(dice), tuple(loss)))
    return tuple(curves)
