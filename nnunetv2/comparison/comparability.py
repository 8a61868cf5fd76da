"""Check one by one the equalities that a fair comparison needs: were the runs trained and scored alike?"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov3.utils.config_layers import nearest
from nnunetv2.comparison.cases import ALLOW_ALL, CASES, PREFIX, REFERENCES, SPLITS, CaseProblem, case_problems
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.protocol import ITEMS, FoldProtocol, ProtocolItem, facts_of, short_hash
from nnunetv2.comparison.protocol_sources import FoldSources
from nnunetv2.comparison.results import DIFFERS, EQUAL, NOT_RECORDED, Comparability, Equality
from nnunetv2.comparison.runs import fold_folder, folds_of, listed, run_names
from nnunetv2.comparison.scores import Run
from nnunetv2.errors import UsageError
from nnunetv2.training.protocol.augmentation import parts_of_step

ITEM_NAMES = (CASES, REFERENCES, *(item.name for item in ITEMS))
"""items that `--allow` accepts"""

_LONGEST_VALUE = 60  # characters; a longer value is shown as a hash
_LONGEST_LIST = 300  # characters

_Folds = Mapping[str, Mapping[str, Any]]  # facts by fold


def comparability(runs: Sequence[Run], references: Mapping[str, Path], allowed: Sequence[str] = ()) -> Comparability:
    """Compare the recorded training and scoring of the runs.

    Args:
        references: reference file of each case.
        allowed: items that may differ, or `all`.

    Raises:
        UsageError: an allowed item does not exist.
    """
    for item in allowed:
        if item not in (*ITEM_NAMES, ALLOW_ALL):
            raise UsageError(
                f"--allow is {item!r}; accepted are {', '.join(ITEM_NAMES)}, or no name for all of them"
                f"{nearest(item, ITEM_NAMES)}"
            )
    names = run_names(runs)
    problems = {problem.item for problem in case_problems(runs, references)}
    protocols = {
        name: [_fold_protocol(run, fold) for fold in folds_of(run)] for run, name in zip(runs, names, strict=True)
    }
    trained = protocol_equalities(protocols, ITEMS, problems)
    return Comparability((*_scored_alike(runs, names, references, problems), *trained), tuple(allowed))


def protocol_equalities(
    protocols: Mapping[str, Sequence[FoldProtocol]], items: Sequence[ProtocolItem], broken: Collection[str] = ()
) -> list[Equality]:
    """Check whether the trainings agree in each item.

    Args:
        protocols: folds of each training.
        broken: items already known to differ for another reason.
    """
    return [_equality(item, protocols, is_broken=item.name in broken) for item in items]


def require_comparable(found: Comparability, problems: Sequence[CaseProblem] = ()) -> None:
    """Reject runs that differ in anything that is not allowed to differ.

    Args:
        problems: of the cases; they replace the less specific equalities of the same name.

    Raises:
        NotComparableError: lists one line per problem and per broken equality.
    """
    told = {problem.item for problem in problems}
    lines = [(problem.item, problem.text) for problem in problems]
    lines += [(equality.item, in_words(equality)) for equality in found.broken if equality.item not in told]
    refused = [f"{PREFIX}{item}: {text}" for item, text in lines if not {item, ALLOW_ALL} & set(found.allowed)]
    if refused:
        raise NotComparableError("\n".join(refused))


def in_words(equality: Equality) -> str:
    """Describe which runs have which value: `1000 x 250 (unet, m2f) against 20 x 50 (segformer)`."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in equality.values.items():
        if value != NOT_RECORDED:
            owners[value].append(name)
    return " against ".join(f"{value} ({', '.join(names)})" for value, names in owners.items())


def _fold_protocol(run: Run, fold: str) -> FoldProtocol:
    cases = [case for case, place in run.fold_of.items() if place == fold]
    return FoldProtocol(fold, cases, FoldSources(fold_folder(run, fold)))


def _scored_alike(
    runs: Sequence[Run], names: Sequence[str], references: Mapping[str, Path], problems: set[str]
) -> tuple[Equality, Equality]:
    everything = {case for run in runs for case in run.predictions}
    hashes = {case: _file_hash(references[case]) for case in sorted(everything & references.keys())}
    cases, files = {}, {}
    for run, name in zip(runs, names, strict=True):
        count, missing = f"{len(run.predictions)} cases", sorted(everything - run.predictions.keys())
        cases[name] = f"{count} without {listed(missing)}" if missing else f"{count}, {short_hash(sorted(everything))}"
        own = {case: hashes[case] for case in sorted(run.predictions.keys() & hashes.keys())}
        unknown = sorted(run.predictions.keys() - hashes.keys())
        files[name] = f"{len(own)} files, " + (f"none of {listed(unknown)}" if unknown else short_hash(own))
    same_cases = DIFFERS if CASES in problems else EQUAL
    same_files = DIFFERS if REFERENCES in problems else EQUAL
    return (
        Equality(CASES, "cases that were predicted", same_cases, cases),
        Equality(REFERENCES, "references of these cases, byte by byte", same_files, files),
    )


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _equality(item: ProtocolItem, protocols: Mapping[str, Sequence[FoldProtocol]], *, is_broken: bool) -> Equality:
    facts = {name: {fold.fold: facts_of(item, fold) for fold in folds} for name, folds in protocols.items()}
    if item.name == SPLITS:  # folds differ by design, so their facts are merged under names that carry the fold
        facts = {name: {"": _merged(folds)} for name, folds in facts.items()}
    known, is_complete = _known_values(facts)
    differing = {leaf for leaf, values in known.items() if len({short_hash(value) for value in values}) > 1}
    state = DIFFERS if differing or is_broken else (EQUAL if is_complete else NOT_RECORDED)
    wording = _Wording(differing or set(known), bool(differing), *_common_parts(known), len(known) == 1)
    return Equality(item.name, item.meaning, state, {name: wording.of_run(folds) for name, folds in facts.items()})


def _merged(folds: _Folds) -> dict[str, Any]:
    return {leaf: value for facts in folds.values() for leaf, value in facts.items()}


def _known_values(facts: Mapping[str, _Folds]) -> tuple[dict[str, list[Any]], bool]:
    """Recorded values of each fact over all folds and runs, and whether every fold records every fact."""
    owners = [fold for folds in facts.values() for fold in (folds.values() or [{}])]
    leaves = dict.fromkeys(leaf for owner in owners for leaf in owner)
    known = {leaf: [owner[leaf] for owner in owners if owner.get(leaf) is not None] for leaf in leaves}
    return known, bool(leaves) and all(len(values) == len(owners) for values in known.values())


def _common_parts(known: Mapping[str, Sequence[Any]]) -> tuple[set[str], bool]:
    """Parts that all lists of steps share, and whether the lists have no others (so only their order differs)."""
    lists = [value for values in known.values() for value in values if isinstance(value, list)]
    parts = [{part for entry in each for part in _parts(str(entry))} for each in lists]
    common = set.intersection(*parts) if parts else set()
    return common, all(each == common for each in parts)


def _parts(step: str) -> list[str]:
    name, parameters = parts_of_step(step)
    return [f"{name}({parameter})" for parameter in parameters] or [step]


def _own_parts(step: str, common: set[str]) -> str:
    """A step reduced to the parameters that the others lack; empty if there are none."""
    name, parameters = parts_of_step(step)
    own = [parameter for parameter in parameters if f"{name}({parameter})" not in common]
    if parameters:
        return f"{name}({', '.join(own)})" if own else ""
    return "" if step in common else step


@dataclass(frozen=True)
class _Wording:
    """Formats the values of one equality: as text if short enough, otherwise as a shortened hash."""

    leaves: set[str]
    """facts to show"""
    is_difference: bool
    common: set[str]
    """shared parts of lists, not worth showing"""
    is_order: bool
    """True if lists share all parts, so that only their order differs"""
    is_single: bool
    """True if there is a single fact, whose name adds nothing"""

    def of_run(self, folds: _Folds) -> str:
        texts = {fold: self._of_fold(facts) for fold, facts in folds.items()}
        if len(set(texts.values())) <= 1:
            return next(iter(texts.values()), NOT_RECORDED)
        return "; ".join(f"fold {fold}: {text}" for fold, text in texts.items())

    def _of_fold(self, facts: Mapping[str, Any]) -> str:
        known = {leaf: facts[leaf] for leaf in facts if leaf in self.leaves and facts[leaf] is not None}
        if not known or (len(known) < len(self.leaves) and not self.is_difference):
            return NOT_RECORDED
        if self.is_single:
            return self._value(next(iter(known.values())))
        if not self.is_difference and len(str(known)) > _LONGEST_VALUE:
            return short_hash(known)
        return ", ".join(f"{leaf} {self._value(value)}" for leaf, value in known.items())

    def _value(self, value: Any) -> str:
        text = str(value)
        if len(text) <= _LONGEST_VALUE:
            return text
        if not (isinstance(value, list) and self.is_difference):
            return short_hash(value)
        steps = list(map(str, value))
        parts = (parts_of_step(step)[0] if self.is_order else _own_parts(step, self.common) for step in steps)
        own = "; ".join(filter(None, parts)) or "only what all have"
        return own if len(own) <= _LONGEST_LIST else f"{own[:_LONGEST_LIST]}... ({short_hash(value)})"
