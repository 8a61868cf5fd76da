"""Whether trained models differ on the cases at hand: signed-rank tests over cases, adjusted within their family."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.metric import Metric
from nnunetv2.comparison.results import NO_DIFFERENCE, NOT_TESTABLE, Interval, TrainedModelsTest
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.holm import holm
from nnunetv2.comparison.statistics.signed_rank import hodges_lehmann, rank_biserial, signed_rank_p
from nnunetv2.comparison.statistics.trainings import DECIMALS
from nnunetv2.comparison.statistics.verdicts import verdict_of_ranks


def signed_rank_family(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p-values of the pairs of a family, plain and adjusted; NaN where there is no case.

    Args:
        differences: (N, P) first - second on each case, for each pair.
    """
    p_values = np.array([signed_rank_p(column) for column in differences.T])
    return p_values, holm(p_values)


def smallest_p(num_cases: int, num_pairs: int) -> float:
    """The adjusted p-value where one model is better in every case and all other pairs show nothing."""
    return min(1.0, num_pairs * 2.0 ** (1 - num_cases))


def trained_verdict(advantages: np.ndarray, p_holm: float, alpha: float) -> str:
    """What is said about the first of two trained models by its advantages (N,), positive where it is better."""
    if not len(advantages):
        return NOT_TESTABLE
    return verdict_of_ranks(rank_biserial(advantages), round(float(advantages.mean()), DECIMALS), p_holm, alpha)


def trained_models_tests(
    differences: np.ndarray, intervals: tuple[Interval, ...], metric: Metric, settings: CompareSettings
) -> list[TrainedModelsTest]:
    """The tests of a family of pairs; see `signed_rank_family`.

    A verdict follows the signed ranks, that is what happens in most cases. It is mixed where the mean difference has
    the other sign because few cases differ much. Where there are too few cases for any verdict, models that differ are
    not testable.
    """
    sign = 1 if metric.higher_is_better else -1
    p_values, adjusted = signed_rank_family(differences)
    is_testable = smallest_p(*differences.shape) < settings.alpha
    tests = []
    for column, interval, p, p_holm in zip(differences.T, intervals, p_values, adjusted, strict=True):
        found = trained_verdict(sign * column, float(p_holm), settings.alpha)
        if found == NO_DIFFERENCE and not is_testable and np.any(column):
            found = NOT_TESTABLE
        tests.append(
            TrainedModelsTest(
                p=float(p),
                p_holm=float(p_holm),
                interval=interval,
                hodges_lehmann=hodges_lehmann(column),
                rank_biserial=rank_biserial(sign * column),
                verdict=found,
            )
        )
    return tests
