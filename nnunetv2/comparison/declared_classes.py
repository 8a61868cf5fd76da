"""Classes as the call declares them: regions made of labels, a choice of classes, and classes that a method lacks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from dinov3.utils.config_layers import nearest
from nnunetv2.errors import UsageError

LabelOrRegion = int | tuple[int, ...]

_SEPARATORS = re.compile(r"[,+]")  # between the labels of a region


def declared_regions(words: Sequence[str], labels: Mapping[str, int], ignore_label: int | None = None) -> dict:
    """Parse `--regions`: a label or tuple of labels per name, in the given order.

    Args:
        words: each `NAME=LABEL,LABEL,...`, with numbers or names of labels.
        labels: number of each label by its name; empty if labels have no names.
        ignore_label: cannot be part of a region.

    Raises:
        UsageError: a word has another form, a name is given twice, or a label is unknown, background or ignored.
    """
    regions: dict[str, LabelOrRegion] = {}
    for word in words:
        name, _, entries = word.partition("=")
        parts = [part.strip() for part in _SEPARATORS.split(entries) if part.strip()]
        if not name.strip() or not parts:
            raise UsageError(f"--regions is {word!r}; write NAME=LABEL,LABEL,..., for example vessel=1,2,3")
        if name.strip() in regions:
            raise UsageError(f"--regions has {name.strip()} twice; give each region a name of its own")
        numbers = sorted({_label(part, word, labels, ignore_label) for part in parts})
        regions[name.strip()] = numbers[0] if len(numbers) == 1 else tuple(numbers)
    return regions


def _label(part: str, word: str, labels: Mapping[str, int], ignore_label: int | None) -> int:
    number = int(part) if part.isdecimal() else labels.get(part)
    is_known = number is not None and (not labels or number in labels.values())
    if not is_known or number == 0 or number == ignore_label:
        known = [f"{name} ({value})" for name, value in labels.items() if value not in (0, ignore_label)]
        accepted = f"accepted are {', '.join(known)}" if known else "accepted are numbers from 1 upwards"
        raise UsageError(f"--regions {word}: {part} is no label of a class; {accepted}")
    return number


def chosen(flag: str, names: Sequence[str], classes: Collection[str]) -> tuple[str, ...]:
    """Names of classes in the given order, each once.

    Raises:
        UsageError: one is no class.
    """
    for name in names:
        if name not in classes:
            raise UsageError(f"{flag} is {name!r}; the classes are {', '.join(classes)}{nearest(name, tuple(classes))}")
    return tuple(dict.fromkeys(names))


def declared_lacks(words: Sequence[str], methods: Sequence[str], classes: Collection[str]) -> dict[str, frozenset[str]]:
    """Parse `--lacks`: classes per method; empty for a method of which `METHOD:` says that it lacks none.

    Raises:
        UsageError: a word is not METHOD:CLASS,CLASS,..., a method or class is unknown, or a method lacks every class.
    """
    lacks: dict[str, frozenset[str]] = {}
    for word in words:
        method, separator, names = word.rpartition(":")
        if not separator:
            raise UsageError(f"--lacks is {word!r}; write METHOD:CLASS,CLASS,..., for example human:artery,vein")
        if method not in methods:
            accepted = f"the methods are {', '.join(methods)}{nearest(method, tuple(methods))}"
            raise UsageError(f"--lacks {word}: there is no method {method}; {accepted}")
        own = chosen(f"--lacks {method}", [name for name in names.split(",") if name], classes)
        lacks[method] = lacks.get(method, frozenset()) | frozenset(own)
        if lacks[method] >= set(classes):
            raise UsageError(
                f"--lacks {word}: {method} lacks every class, so nothing of it can be scored; leave it out"
            )
    return lacks
