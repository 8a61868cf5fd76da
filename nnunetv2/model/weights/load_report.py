"""Log line about the weights that were loaded into a backbone."""

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
    """Report of what was loaded from a file; its string is the log line."""

    path: Path
    entry: str
    """Key in the file's dictionary, such as `teacher`; empty if the file holds only tensors."""
    prefix: str
    """Prefix of the backbone's tensor names, such as `module.backbone.`."""
    num_taken: int
    """Number of tensors that were loaded."""
    left_out: tuple[str, ...]
    """Names of the skipped tensors."""
    resampled: str | None
    """Patch grid of a resampled position embedding, such as `37x37 to 16x16`; None: not resampled."""

    def __str__(self) -> str:
        places = [f"entry {self.entry}"] if self.entry else []
        places += [f"prefix {self.prefix}"] if self.prefix else []
        place = f" ({', '.join(places)})" if places else ""
        kinds = f" ({_kinds(self.left_out)})" if self.left_out else ""
        resampled = f"1 resampled (pos_embed, {self.resampled} patches)" if self.resampled else "0 resampled"
        counts = f"{self.num_taken} tensors taken, {len(self.left_out)} left out{kinds}, {resampled}"
        return f"Backbone weights from {self.path}{place}: {counts}"


def _kinds(names: Iterable[str]) -> str:
    """Counts the names per module, ignoring block numbers."""
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
