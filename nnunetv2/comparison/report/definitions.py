"""Definitions of the numbers in a report, and the package versions that computed them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from nnunetv2.comparison.metric import (
    AS_DISTANCE,
    AS_OVERLAP,
    COMPUTED,
    DIAGONAL,
    DISTANCES,
    METRICS,
    SKELETONS,
    EmptyMasks,
    Metric,
)
from nnunetv2.comparison.report.formatting import coverage, listed, unit_of
from nnunetv2.comparison.results import MIN_SEEDS
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings

_PACKAGES = ("nnunetv2", "numpy", "scipy", "scikit-image", "monai")
_SHOWN_DIGITS = 12  # of a hash
_EMPTY = {
    "exclude": "A class that the reference of a case lacks is left out of that case, for all models alike; what was "
    "predicted of it is in the detection table.",
    "one": "Of a class that the reference of a case lacks, overlap metrics are 1 for an empty prediction and 0 for any "
    "other; distances leave the case out. Both for all models alike.",
}


def definitions(settings: CompareSettings, scores: ScoreTable) -> Iterator[tuple[str, str]]:
    """Yield terms with their definitions, for scores with these settings."""
    length_unit = scores.length_unit
    for name in settings.metrics:
        yield name, _meaning(METRICS[name], settings, length_unit)
    if any(DISTANCES in METRICS[name].reads for name in settings.metrics):
        yield (
            "Edges",
            "Edge voxels have a face on the background; distances are Euclidean, "
            + (
                "in pixels (px), since these files have no spacing."
                if length_unit == "px"
                else "in mm, by the spacing of the case. Where files have no spacing, as PNG, a pixel is taken to be 1 "
                "mm wide."
            ),
        )
    if any(SKELETONS in METRICS[name].reads for name in settings.metrics):
        yield (
            "Centrelines",
            f"Skeletons by skeletonize of scikit-image {version('scikit-image')}; another skeletoniser gives slightly "
            "other values. Ignored voxels are removed before.",
        )
    yield "Empty masks", _EMPTY[settings.empty] + _missed(settings) + _own_rules(settings)
    averaged = "the classes" if scores.averaged is None else f"those of {listed(list(scores.averaged))}"
    yield "Mean over classes", f"In each case over {averaged} that count in it; then over the cases."
    if scores.has_fields:
        yield "Field of view", "Voxels outside of the field of view of a case are left out of all scores."
    yield "Primary metric", f"{settings.metrics[0]} decides the verdict; all others are secondary."
    yield "Intervals", _intervals(settings)
    yield (
        "Trained models",
        "Wilcoxon signed-rank test, two-sided, paired over cases, each the mean over the trainings of a method; cases "
        "without a difference are left out (zero_method=wilcox). "
        f"Holm-adjusted over the pairs of methods within a metric; a difference is stated at {settings.alpha:g}. "
        "Where the models differ, but the mean difference does not point where the ranks do, the verdict is mixed.",
    )
    yield (
        "Methods",
        f"A test of the mean difference that counts both cases and trainings as drawn by chance; at least {MIN_SEEDS} "
        "trainings of each method with different seeds, otherwise not testable. Holm-adjusted likewise.",
    )
    yield "Effect", "Matched-pairs rank-biserial correlation, from −1 to 1; above 0 where the first method is better."
    yield "Hodges-Lehmann", "Pseudo-median of the differences between the cases of both methods."
    if settings.baseline is not None:
        yield "Baseline", f"All methods are compared with {settings.baseline} alone."
    if settings.margin is not None:
        unit = unit_of(settings.metrics[0], length_unit)
        yield (
            "Margin",
            f"{settings.margin:g}{' ' + unit if unit else ''} in {settings.metrics[0]}. One method is not "
            "inferior to another if it is worse by less than that even at the worse end of the interval of their "
            "difference: that of the methods, or of the trained models where the methods are not testable.",
        )


def _meaning(metric: Metric, settings: CompareSettings, length_unit: str) -> str:
    text = metric.definition.replace("{tolerance} mm", f"{{tolerance}} {length_unit}")
    text = text.replace("{tolerance}", f"{settings.nsd_tolerance:g}")
    direction = "Higher is better." if metric.higher_is_better else "Lower is better."
    meaning = f"{metric.meaning[0].upper()}{metric.meaning[1:]}: {text} {direction}"
    if metric.origin is None:
        return meaning
    return f"{meaning} Computed by {metric.origin.path.name}, SHA-256 {metric.origin.sha256[:_SHOWN_DIGITS]}."


def _missed(settings: CompareSettings) -> str:
    if not any(METRICS[name].is_distance for name in settings.metrics):
        return ""
    return (
        " Where a class is there and nothing is predicted of it, a distance is the diagonal of the image, and counted."
    )


def _own_rules(settings: CompareSettings) -> str:
    """Describe empty-mask rules other than the standard ones for overlaps and distances."""
    text = ""
    for name in settings.metrics:
        rule = METRICS[name].empty_masks
        if rule not in (AS_OVERLAP, AS_DISTANCE):
            text += f" {name}: where nothing is predicted of a class that is there, {_missed_value(rule)}"
            text += f"; of a class that the reference lacks, {_absent_value(rule)}." if settings.empty == "one" else "."
    return text


def _missed_value(rule: EmptyMasks) -> str:
    if rule.missed == COMPUTED:
        return "what is computed of the empty mask"
    return "the diagonal of the image" if rule.missed == DIAGONAL else f"{rule.missed:g}"


def _absent_value(rule: EmptyMasks) -> str:
    if rule.absent == COMPUTED:
        return "what is computed of the empty mask"
    if rule.absent is None:
        return "the case is left out"
    return f"{rule.absent[0]:g} for an empty prediction and {rule.absent[1]:g} for any other"


def _intervals(settings: CompareSettings) -> str:
    return (
        f"{coverage(settings)}: bias-corrected and accelerated bootstrap (BCa) over the cases, "
        f"{settings.num_resamples} resamples, seed {settings.seed}. They cover less than they say where cases are few. "
        "Those of the methods come from the test of the methods. Intervals of a difference are those of its mean, for "
        "each pair alone and not adjusted, so that they need not agree with a test that is."
    )


def package_versions() -> Iterator[tuple[str, str]]:
    """Yield names and versions of the packages that compute the numbers."""
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"
