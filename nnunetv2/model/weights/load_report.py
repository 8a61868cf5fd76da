"""One line for the log about the weights that a backbone was filled with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_WRAPPERS = ("module", "backbone", "model")
_SHOWN_KINDS = 4


@dataclass(frozen=True)
class LoadedWeights:
    """What was taken from a file; as text, the line for the log."""

    path: Path
    entry: str
    """Of the dictionary in the file, such as `teacher`; empty if the tensors are all it holds."""
    prefix: str
    """In front of the backbone's names, such as `module.backbone.`."""
    num_taken: int
    """Tensors of the file that are now in the backbone."""
    left_out: tuple[str, ...]
    """Names of the other ones."""
    resampled: str | None
    """Patches of the position embedding before and after, such as `37x37 to 16x16`, if that was resampled."""

    def __str__(self) -> str:
        places = [f"entry {self.entry}"] if self.entry else []
        places += [f"prefix {self.prefix}"] if self.prefix else []
        place = f" ({', '.join(places)})" if places else ""
        kinds = f" ({_kinds(self.left_out)})" if self.left_out else ""
        resampled = f"1 resampled (pos_embed, {self.resampled} patches)" if self.resampled else "0 resampled"
        counts = f"{self.num_taken} tensors taken, {len(self.left_out)} left out{kinds}, {resampled}"
        return f"Backbone weights from {self.path}{place}: {counts}"


def _kinds(names: Iterable[str]) -> str:
    """The modules that the names belong to, without numbers of blocks, and how many names there are of each."""
    counts = Counter(map(_kind, names))
    kinds = [kind if number == 1 else f"{number} {kind}" for kind, number in counts.items()]
    more = f" and {len(kinds) - _SHOWN_KINDS} other kinds" if len(kinds) > _SHOWN_KINDS else ""
    return ", ".join(kinds[:_SHOWN_KINDS]) + more


def _kind(name: str) -> str:
    if in_block := re.search(r"(?:^|\.)(?:blocks|layer)\.\d+\.(.+)", name):
        return in_block[1]
    words = name.split(".")
    while len(words) > 1 and words[0] in _WRAPPERS:
        words = words[1:]
    is_alone = len(words) == 1 or (len(words) == 2 and words[1] not in ("weight", "bias"))
    return ".".join(words) if is_alone else f"{words[0]}.*"
