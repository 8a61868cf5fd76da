"""Results of a comparison: plain data passed from the statistics to tables and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings

MIN_SEEDS = 3  # per method; with fewer, methods are not testable
FEW_CASES = 20  # below it, intervals cover less than their nominal level

# Verdicts on the first method of a pair relative to the second. MIXED applies to trained models only: they differ, but
# the one that is better by ranks does not have the better mean.
BETTER, WORSE, MIXED, NO_DIFFERENCE, NOT_TESTABLE = "better", "worse", "mixed", "no difference", "not testable"
DIFFERENT = (BETTER, WORSE, MIXED)  # verdicts that state a difference

ALL_CLASSES = None  # stands for the mean over the classes


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class MethodSummary:
    """Scores of one method in one metric over the cases; each case is the mean over the runs."""

    method: str
    metric: str
    class_name: str | None
    num_cases: int
    num_runs: int
    mean: float
    interval: Interval
    """of the mean over cases"""
    standard_deviation: float
    """over cases"""
    median: float
    quartiles: tuple[float, float]
    seed_deviation: float | None
    """standard deviation of the means of the runs; None for fewer than two"""


@dataclass(frozen=True)
class TrainedModelsTest:
    """Test whether two trained models differ on these cases: paired over cases, each the mean over the runs."""

    p: float
    """Wilcoxon signed-rank, two-sided"""
    p_holm: float
    """adjusted over the pairs of methods within the metric and class"""
    interval: Interval
    """BCa bootstrap over cases, of the mean difference"""
    hodges_lehmann: float
    """pseudo-median of the differences"""
    rank_biserial: float
    """matched pairs, from -1 to 1; positive where the first method is better"""
    verdict: str


@dataclass(frozen=True)
class MethodsTest:
    """Test whether two methods differ, generalising to other trainings and to other cases of the same kind."""

    p: float | None
    """None if not testable"""
    p_holm: float | None
    interval: Interval | None
    """of the mean difference over cases and trainings"""
    degrees_of_freedom: float | None
    num_seeds: tuple[int, int]
    verdict: str
    reason: str = ""
    """why the pair is not testable"""


@dataclass(frozen=True)
class PairResult:
    """Comparison of two methods in one metric and class."""

    first: str
    second: str
    metric: str
    class_name: str | None
    num_cases: int
    means: tuple[float, float]
    mean_difference: float
    """first - second, in the unit of the metric"""
    median_difference: float
    trained: TrainedModelsTest
    methods: MethodsTest
    non_inferior: tuple[bool, bool] | None = None
    """whether the first is worse than the second by less than the margin, and vice versa; judged by the interval of the
    methods, falling back to that of the trained models; None without a margin"""


@dataclass(frozen=True)
class RankResult:
    """Ranks of one method in one metric; 1 is best, ties share the mean rank."""

    method: str
    metric: str
    mean_then_rank: float
    """rank of the mean over cases"""
    rank_then_mean: float
    """mean over cases of the rank within a case"""
    test_based: float
    """rank by the number of significantly worse methods"""
    frequencies: tuple[float, ...]
    """share of bootstrap samples of the cases in which `mean_then_rank` is 1, 2, ...; ties take their best rank"""


@dataclass(frozen=True)
class RankStability:
    """How much the order of the methods depends on the cases and on the ranking scheme."""

    metric: str
    kendall_tau: Interval
    """2.5th and 97.5th percentile of Kendall's tau between bootstrap rankings and the ranking"""
    schemes_agree: bool
    """whether the three schemes order the methods alike"""


@dataclass(frozen=True)
class DetectionResult:
    """Detection of a class by one method, mean over its runs: false positives where absent, misses where present."""

    method: str
    class_name: str
    num_absent: int
    """cases whose reference lacks the class"""
    false_positive_rate: float | None
    """share of the absent cases in which it is predicted; None if there are none"""
    false_positive_volume: float | None
    """mean predicted volume in the absent cases, in mm^3 or mm^2"""
    num_present: int
    missed_rate: float | None
    """share of the cases with the class in which nothing is predicted; None if there are none"""


@dataclass(frozen=True)
class MethodCost:
    """Costs of a method; None where unknown."""

    method: str
    num_parameters: int | None = None
    num_trained_parameters: int | None = None
    gflops_per_patch: float | None = None
    """prediction of one patch; a multiply-add counts as two operations"""
    training_gflops_per_patch: float | None = None
    peak_memory_mib: float | None = None
    """measured maximum of the first process in a training on GPU"""
    estimated_memory_mib: float | None = None
    """of a training, computed without a GPU"""
    seconds_per_iteration: float | None = None
    seconds_per_case: float | None = None
    """prediction of a validation case including tiles and mirroring, excluding reading and writing"""
    gpu_hours: float | None = None
    """one training of all folds, mean over the runs"""
    device: str | None = None
    pretrained: str | None = None
    """initial weights"""
    patch_size: tuple[int, ...] | None = None


# States of an equality.
EQUAL, DIFFERS, NOT_RECORDED = "equal", "differs", "not recorded"


@dataclass(frozen=True)
class Equality:
    """A property that has to match across all runs."""

    item: str
    """short name as accepted by `--allow`, for example `splits`"""
    meaning: str
    state: str
    values: Mapping[str, str]
    """value per run name: short text or a shortened hash"""


@dataclass(frozen=True)
class Comparability:
    """Result of all comparability checks."""

    equalities: tuple[Equality, ...]
    allowed: tuple[str, ...] = ()
    """items that the user allowed to differ"""

    @property
    def broken(self) -> tuple[Equality, ...]:
        return tuple(equality for equality in self.equalities if equality.state == DIFFERS)


@dataclass(frozen=True)
class LearningCurve:
    """Pseudo Dice and validation loss of one fold of one run over its epochs."""

    method: str
    run: str
    fold: str
    epochs: tuple[int, ...]
    pseudo_dice: tuple[float, ...]
    """NaN for epochs without one"""
    val_loss: tuple[float, ...]


@dataclass(frozen=True)
class ReaderAgreement:
    """Agreement of a second human reader with the references."""

    name: str
    summaries: tuple[MethodSummary, ...]
    """of the reader, per class that it has and for the mean over classes, nested in them by metric"""
    pairs: tuple[PairResult, ...]
    """each method against the reader, which is always the second"""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that the report shows."""

    dataset: str
    settings: CompareSettings
    scores: ScoreTable
    summaries: tuple[MethodSummary, ...]
    """per method, metric and class, and for the mean over classes"""
    pairs: tuple[PairResult, ...]
    """per pair, metric and class, and for the mean over classes"""
    ranks: tuple[RankResult, ...]
    stability: tuple[RankStability, ...]
    detection: tuple[DetectionResult, ...]
    costs: tuple[MethodCost, ...]
    comparability: Comparability
    curves: tuple[LearningCurve, ...]
    reader: ReaderAgreement | None = None

    def pairs_of(self, metric: str, class_name: str | None = ALL_CLASSES) -> list[PairResult]:
        """Select the pairs in one metric and class."""
        return [pair for pair in self.pairs if (pair.metric, pair.class_name) == (metric, class_name)]

    def summaries_of(self, metric: str, class_name: str | None = ALL_CLASSES) -> list[MethodSummary]:
        """Select the summaries in one metric and class."""
        return [each for each in self.summaries if (each.metric, each.class_name) == (metric, class_name)]
