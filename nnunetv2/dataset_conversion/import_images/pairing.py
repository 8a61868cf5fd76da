"""Find the mask of each picture by their names."""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.pictures import PICTURE_ENDINGS, is_picture
from nnunetv2.utilities.message_parts import counted

SUFFIXES = (
    "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation", "_manual", "_manual1",
    "_manual2", "_1stHO", "_2ndHO", "_AVmanual", "_training", "_test", "_av", "_0000",
)  # fmt: skip
"""Ends of names that say what a file is, not which case it belongs to; compared without regard to case."""

_SUFFIX = re.compile(f"(?:{'|'.join(SUFFIXES)})$", re.IGNORECASE)
_SHOWN = 5

Key = Callable[[Path], str | None]


@dataclass(frozen=True)
class Pairs:
    """Each picture with its mask."""

    masks: Mapping[Path, Path]
    """mask of each picture that has one"""
    names: Mapping[Path, str]
    """name of the case of every picture"""
    rule: str
    """how they were found, for the log"""
    unpaired: tuple[Path, ...] = ()
    """pictures without mask"""
    unused: tuple[Path, ...] = ()
    """masks without picture"""


def pictures_in(folder: Path) -> list[Path]:
    """Pictures of a folder, sorted by name.

    Raises:
        UsageError: there is no such folder.
        DataError: it has no picture.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; correct the path")
    found = list_pictures(folder)
    if not found:
        others = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        there = (
            f"it has {', '.join(others[:_SHOWN])}{', ...' if len(others) > _SHOWN else ''}" if others else "it is empty"
        )
        raise DataError(f"There is no picture ({', '.join(PICTURE_ENDINGS)}) in {folder}; {there}")
    return found


def list_pictures(folder: Path) -> list[Path]:
    """Pictures of a folder, sorted by name; empty if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_picture(path) and path.is_file() and path.name[0] != ".")


def without_suffixes(stem: str) -> str:
    """Takes all `SUFFIXES` off the end of a name: `21` of `21_training_mask`."""
    while (shorter := _SUFFIX.sub("", stem)) != stem and shorter:
        stem = shorter
    return stem


def _only_number(path: Path) -> str | None:
    numbers = re.findall(r"\d+", path.stem)
    return numbers[0].lstrip("0") or "0" if len(numbers) == 1 else None


_RULES: tuple[tuple[str, Key], ...] = (
    ("rule 1, equal names", lambda path: path.stem),
    ("rule 2, equal names without endings such as _mask and _training", lambda path: without_suffixes(path.stem)),
    ("rule 3, the only number in each name", _only_number),
)


def pair(
    images: Sequence[Path],
    masks: Sequence[Path],
    *,
    pattern: str | None = None,
    may_lack_masks: bool = False,
    what: str = "mask",
) -> Pairs:
    """Pairs pictures and masks by the first rule that finds exactly one mask for every picture.

    The rules are: equal names; equal names after taking off `SUFFIXES`; the only number in each name.

    Args:
        pattern: regular expression whose first group in both names is the case; replaces the rules. Masks that it does
            not match are not used.
        may_lack_masks: pictures without mask are accepted; the rule that pairs most is used.
        what: name of the masks in messages.

    Raises:
        UsageError: the pattern is no regular expression with a group, or does not match a picture.
        DataError: a picture has several masks or none.
    """
    rules = _RULES if pattern is None else ((f"--pair {pattern!r}", _key_of_pattern(pattern)),)
    attempts = [_attempt(rule, key, images, masks) for rule, key in rules]
    for each in attempts:
        if each.is_complete:
            return each.pairs(images)
    best = max(attempts, key=lambda each: len(each.matches))  # the first of equals
    if pattern is not None and (unnamed := [image for image in images if image not in best.keys]):
        raise UsageError(
            f"{best.rule} does not match {_listed(unnamed)}; its group 1 must be the case of every picture"
        )
    best.refuse_doubles(what)
    if not may_lack_masks:
        raise _lacking(best, images, masks, what)
    return best.pairs(images)


@dataclass(frozen=True)
class _Attempt:
    rule: str
    keys: Mapping[Path, str]
    matches: Mapping[Path, list[Path]]
    """masks of each picture that has some"""
    same_key: Mapping[str, list[Path]]
    """pictures of a key, where there are several"""
    unused: tuple[Path, ...]
    num_images: int

    @property
    def is_complete(self) -> bool:
        has_one = all(len(masks) == 1 for masks in self.matches.values())
        return len(self.matches) == self.num_images and has_one and not self.same_key

    def refuse_doubles(self, what: str) -> None:
        for image, masks in self.matches.items():
            if len(masks) > 1:
                raise DataError(
                    f"{image.name} has {len(masks)} {what}s: {_listed(masks)} ({self.rule}). Choose one with --pair, "
                    f"or put the others into another folder; a second reader is not a second label"
                )
        for images in self.same_key.values():
            if images[0] in self.matches:
                raise DataError(
                    f"{_listed(images)} have one {what}, {self.matches[images[0]][0].name} ({self.rule}); say with "
                    f"--pair what distinguishes them"
                )

    def pairs(self, images: Sequence[Path]) -> Pairs:
        names = {image: _case_name(self.rule, image, self.keys) for image in images}
        masks = {image: found[0] for image, found in self.matches.items()}
        unpaired = tuple(image for image in images if image not in masks)
        return Pairs(masks, names, self.rule, unpaired, self.unused)


def _case_name(rule: str, image: Path, keys: Mapping[Path, str]) -> str:
    if image not in keys:
        return image.stem
    if rule == _RULES[2][0]:  # with the zeros that the picture's name has
        return re.findall(r"\d+", image.stem)[0]
    return keys[image]


def _attempt(rule: str, key: Key, images: Sequence[Path], masks: Sequence[Path]) -> _Attempt:
    keys = {image: found for image in images if (found := key(image)) is not None}
    by_key = defaultdict(list)
    for image, found in keys.items():
        by_key[found].append(image)
    masks_by_key = defaultdict(list)
    for mask in masks:
        found = key(mask)
        if found is not None:
            masks_by_key[found].append(mask)
    matches = {image: masks_by_key[found] for image, found in keys.items() if found in masks_by_key}
    used = {mask for found in matches.values() for mask in found}
    return _Attempt(
        rule,
        keys,
        matches,
        {found: members for found, members in by_key.items() if len(members) > 1},
        tuple(mask for mask in masks if mask not in used),
        len(images),
    )


def _key_of_pattern(pattern: str) -> Key:
    try:
        compiled = re.compile(pattern)
    except re.error as err:
        raise UsageError(f"--pair is {pattern!r}, which is no regular expression: {err}") from err
    if not compiled.groups:
        raise UsageError(f"--pair is {pattern!r}; it needs a group that is the case, such as '^([0-9]+)_'")

    def key(path: Path) -> str | None:
        match = compiled.search(path.stem) or compiled.search(path.name)
        return match[1] if match and match[1] else None

    return key


def _lacking(best: _Attempt, images: Sequence[Path], masks: Sequence[Path], what: str) -> DataError:
    missing = [image for image in images if image not in best.matches]
    names = [mask.name for mask in masks]
    nearest = difflib.get_close_matches(missing[0].name, names, n=3, cutoff=0.3)
    there = f"the nearest names are {', '.join(nearest)}" if nearest else f"there are {_listed(masks)}"
    return DataError(
        f"{counted(len(missing), 'picture')} of {len(images)} without {what}: {_listed(missing)} ({best.rule}, which "
        f"pairs most); {there}. Say with --pair which part of both names is the case, or leave such pictures out "
        f"with --images_without_mask skip"
    )


def _listed(paths: Iterable[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
