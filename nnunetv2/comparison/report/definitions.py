"""What the numbers of a report mean, and what they were computed with."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from nnunetv2.comparison.report.formatting import coverage
from nnunetv2.comparison.results import MIN_SEEDS
from nnunetv2.comparison.settings import METRICS, CompareSettings

_PACKAGES = ("nnunetv2", "numpy", "scipy", "monai")
_DETAILS = {
    "Dice": "twice the voxels that both masks share, divided by the voxels of both.",
    "IoU": "voxels that both masks share, divided by those that any of them has.",
    "NSD": "share of the edge voxels of both masks that lie within {tolerance} mm (the tolerance) of the edge of the "
    "other mask; voxels are counted, not the area of the surface around them.",
    "HD95": "the 95th percentile (interpolated linearly) of the distances from the edge voxels of one mask to those of "
    "the other; the larger of both directions.",
    "ASSD": "mean of the distances from the edge voxels of each mask to those of the other, both together.",
}
_EMPTY = {
    "exclude": "A class that the reference of a case lacks is left out of that case, for all models alike; what was "
    "predicted of it is in the detection table.",
    "one": "Of a class that the reference of a case lacks, overlap metrics are 1 for an empty prediction and 0 for any "
    "other; distances leave the case out. Both for all models alike.",
}


def definitions(settings: CompareSettings) -> Iterator[tuple[str, str]]:
    """Terms and what they mean here."""
    for name in settings.metrics:
        metric = METRICS[name]
        detail = _DETAILS[name].format(tolerance=f"{settings.nsd_tolerance:g}")
        direction = "Higher is better." if metric.higher_is_better else "Lower is better."
        yield name, f"{metric.meaning[0].upper()}{metric.meaning[1:]}: {detail} {direction}"
    if any(METRICS[name].unit for name in settings.metrics) or "NSD" in settings.metrics:
        yield (
            "Edges",
            "Edge voxels have a face on the background; distances are Euclidean, in mm, by the spacing of the case. "
            "Where files have no spacing, as PNG, a pixel is taken to be 1 mm wide.",
        )
    yield "Empty masks", _EMPTY[settings.empty] + _missed(settings)
    yield "Mean over classes", "In each case over the classes that count in it; then over the cases."
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
        unit = settings.primary.unit
        yield (
            "Margin",
            f"{settings.margin:g}{' ' + unit if unit else ''} in {settings.metrics[0]}. One method is not "
            "inferior to another if it is worse by less than that even at the worse end of the interval of their "
            "difference: that of the methods, or of the trained models where the methods are not testable.",
        )


def _missed(settings: CompareSettings) -> str:
    if not any(METRICS[name].unit for name in settings.metrics):
        return ""
    return (
        " Where a class is there and nothing is predicted of it, a distance is the diagonal of the image, and counted."
    )


def _intervals(settings: CompareSettings) -> str:
    return (
        f"{coverage(settings)}: bias-corrected and accelerated bootstrap (BCa) over the cases, "
        f"{settings.num_resamples} resamples, seed {settings.seed}. They cover less than they say where cases are few. "
        "Those of the methods come from the test of the methods. Intervals of a difference are those of its mean, for "
        "each pair alone and not adjusted, so that they need not agree with a test that is."
    )


def package_versions() -> Iterator[tuple[str, str]]:
    """Names and versions of what computes the numbers."""
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"
