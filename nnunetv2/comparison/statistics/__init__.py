"""The statistics of a comparison: from the scores of all runs to summaries, tests, intervals and ranks."""

from nnunetv2.comparison.statistics.pairs import pairs
from nnunetv2.comparison.statistics.ranking import ranks
from nnunetv2.comparison.statistics.summaries import detection, summaries

__all__ = ["detection", "pairs", "ranks", "summaries"]
