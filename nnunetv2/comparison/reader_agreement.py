"""Agreement of a second human reader with the references: what the methods are measured against, not one of them."""

from __future__ import annotations

from dataclasses import replace

from nnunetv2.comparison import statistics
from nnunetv2.comparison.declared_classes import declared_lacks
from nnunetv2.comparison.lacking_classes import masked, never_predicted
from nnunetv2.comparison.results import ReaderAgreement
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings


def reader_agreement(
    methods: ScoreTable, everything: ScoreTable, reader: str, settings: CompareSettings
) -> ReaderAgreement:
    """Score the reader like a method, and test every method against it.

    Args:
        methods: scores of the methods.
        everything: scores of the methods and the reader, of the same cases, before classes that they lack are removed.
        reader: name of the reader in `everything`.
    """
    names = (*methods.methods, reader)
    own = declared_lacks(settings.lacks, names, everything.classes).get(reader)
    if own is None:
        own = never_predicted(everything.of_methods([reader])).get(reader, frozenset())
    lacks = {**methods.lacks, reader: own}
    table = replace(masked(everything, lacks), averaged=methods.averaged)
    alone = table.of_methods([reader])
    known = [name for name in (None, *table.classes) if alone.methods_of(name)]
    return ReaderAgreement(
        name=reader,
        summaries=tuple(each for name in known for each in statistics.summaries_of(alone, name, settings)),
        pairs=statistics.pairs(table, replace(settings, baseline=reader, margin=None)),
    )
