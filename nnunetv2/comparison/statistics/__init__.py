"""Statistics of a comparison: summaries, tests, intervals and ranks from the scores of all runs."""

from nnunetv2.comparison.statistics.pairs import pairs
from nnunetv2.comparison.statistics.ranking import ranks
from nnunetv2.comparison.statistics.summaries import detection, summaries, summaries_of

__all__ = ["detection", "pairs", "ranks", "summaries", "summaries_of"]
