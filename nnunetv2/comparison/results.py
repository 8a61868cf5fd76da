"""What a comparison finds: plain data between the statistics, the sheets, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings

MIN_SEEDS = 3  # of each method, below which nothing is said about methods
FEW_CASES = 20  # below which intervals cover less than they say

# Verdicts. The first method of a pair is better or worse than the second. Mixed, of trained models alone: they differ,
# but the one that does better by the ranks of the differences is not the one with the better mean.
BETTER, WORSE, MIXED, NO_DIFFERENCE, NOT_TESTABLE = "better", "worse", "mixed", "no difference", "not testable"
DIFFERENT = (BETTER, WORSE, MIXED)  # verdicts that a difference is shown

ALL_CLASSES = None  # stands for the mean over the classes


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class MethodSummary:
    """Scores of one method in one metric, over the cases; each case is the mean over the runs."""

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
    """standard deviation of the means of the runs; None of fewer than two"""


@dataclass(frozen=True)
class TrainedModelsTest:
    """Whether two trained models differ on these cases: paired over cases, each the mean over the runs."""

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
    """Whether two methods differ: what to expect of other trainings and other cases of the same kind."""

    p: float | None
    """None where it is not testable"""
    p_holm: float | None
    interval: Interval | None
    """of the mean difference over cases and trainings"""
    degrees_of_freedom: float | None
    num_seeds: tuple[int, int]
    verdict: str
    reason: str = ""
    """why it is not testable"""


@dataclass(frozen=True)
class PairResult:
    """Two methods in one metric and class."""

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
    """whether the first is worse than the second by less than the margin, and the second than the first; by the ends of
    the interval of the methods, or that of the trained models where there is none; None: not asked"""


@dataclass(frozen=True)
class RankResult:
    """Ranks of one method in one metric, 1 is best; ties share the mean rank."""

    method: str
    metric: str
    mean_then_rank: float
    """rank of the mean over cases"""
    rank_then_mean: float
    """mean over cases of the rank in a case"""
    test_based: float
    """rank by the number of methods that it is significantly better than"""
    frequencies: tuple[float, ...]
    """share of bootstrap samples of the cases in which `mean_then_rank` is 1, 2, ...; a tie counts for its best rank"""


@dataclass(frozen=True)
class RankStability:
    """How far the order of the methods depends on the cases and on the ranking scheme."""

    metric: str
    kendall_tau: Interval
    """2.5th and 97.5th percentile of the agreement of bootstrap rankings with the ranking"""
    schemes_agree: bool
    """whether the three schemes put the methods into one order"""


@dataclass(frozen=True)
class DetectionResult:
    """A method on classes that are, or are not, in a case at all; the mean over its runs."""

    method: str
    class_name: str
    num_absent: int
    """cases whose reference lacks the class"""
    false_positive_rate: float | None
    """share of those in which it is predicted; None where there are none"""
    false_positive_volume: float | None
    """mean volume predicted in those, in mm^3 or mm^2"""
    num_present: int
    missed_rate: float | None
    """share of the cases with the class in which nothing is predicted"""


@dataclass(frozen=True)
class MethodCost:
    """What a method costs; None is what is not known."""

    method: str
    num_parameters: int | None = None
    num_trained_parameters: int | None = None
    gflops_per_patch: float | None = None
    """to predict one patch; a multiply-add is two operations"""
    training_gflops_per_patch: float | None = None
    peak_memory_mib: float | None = None
    """highest of a training on a GPU, of its first process"""
    estimated_memory_mib: float | None = None
    """of a training, counted without a GPU"""
    seconds_per_iteration: float | None = None
    seconds_per_case: float | None = None
    """to predict a validation case, with its tiles and mirrored copies, without reading and writing"""
    gpu_hours: float | None = None
    """of one training of all folds, the mean over the runs"""
    device: str | None = None
    pretrained: str | None = None
    """weights that the training started from"""
    patch_size: tuple[int, ...] | None = None


# States of an equality.
EQUAL, DIFFERS, NOT_RECORDED = "equal", "differs", "not recorded"


@dataclass(frozen=True)
class Equality:
    """One thing that has to be the same for all runs."""

    item: str
    """short name, for example `splits`; `--allow` takes it"""
    meaning: str
    state: str
    values: Mapping[str, str]
    """what each run has, by its name: short text, or the beginning of a hash"""


@dataclass(frozen=True)
class Comparability:
    """Whether the runs may be compared."""

    equalities: tuple[Equality, ...]
    allowed: tuple[str, ...] = ()
    """items that may differ because the user said so"""

    @property
    def broken(self) -> tuple[Equality, ...]:
        return tuple(equality for equality in self.equalities if equality.state == DIFFERS)


@dataclass(frozen=True)
class LearningCurve:
    """Pseudo Dice of one fold of one run over its epochs."""

    method: str
    run: str
    fold: str
    epochs: tuple[int, ...]
    pseudo_dice: tuple[float, ...]
    """NaN where an epoch has none"""
    val_loss: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that the report shows."""

    dataset: str
    settings: CompareSettings
    scores: ScoreTable
    summaries: tuple[MethodSummary, ...]
    """of every method, metric and class, and of the mean over the classes"""
    pairs: tuple[PairResult, ...]
    """of every metric and class, and of the mean over the classes"""
    ranks: tuple[RankResult, ...]
    stability: tuple[RankStability, ...]
    detection: tuple[DetectionResult, ...]
    costs: tuple[MethodCost, ...]
    comparability: Comparability
    curves: tuple[LearningCurve, ...]

    def pairs_of(self, metric: str, class_name: str | None = ALL_CLASSES) -> list[PairResult]:
        """The pairs in one metric and class."""
        return [pair for pair in self.pairs if (pair.metric, pair.class_name) == (metric, class_name)]

    def summaries_of(self, metric: str, class_name: str | None = ALL_CLASSES) -> list[MethodSummary]:
        """The summaries in one metric and class."""
        return [each for each in self.summaries if (each.metric, each.class_name) == (metric, class_name)]
