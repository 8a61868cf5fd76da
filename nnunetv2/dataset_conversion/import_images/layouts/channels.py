"""One class per colour channel, as in RRWNet's masks: R artery, G vein, B vessel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, Classes, Request, classes_of
from nnunetv2.dataset_conversion.import_images.label_sources import ChannelSource, LabelSource, channel_combinations
from nnunetv2.dataset_conversion.import_images.layouts import pairs
from nnunetv2.dataset_conversion.import_images.layouts.layout import Export, Options, Place, masks_of
from nnunetv2.errors import UsageError
from nnunetv2.imageio.pictures import read_picture

_CHANNELS = ("R", "G", "B")
_OVERLAP = "crossing"


def fits(place: Place) -> bool:
    """Never: whether colours are classes or channels is for the user to say."""
    return False


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Pairs pictures and masks, and reads which class each channel is.

    Raises:
        UsageError: `--labels` names no channels.
    """
    channels = _channels(options.requests)
    cases, notes = pairs.pair_all(place, test, options)
    classes = classes_of(options.requests)
    source = ChannelSource(Path(), {on: classes.labels[name] for on, name in channels.items()}, None)
    combinations = _combinations(masks_of(cases))
    if any(source.is_overlap(number) for number in combinations):
        named = [request.name for request in options.requests if _is_overlap(request) and request.name != BACKGROUND]
        name = options.overlap or (named[0] if named else _OVERLAP)
        classes = classes if name in classes.names else Classes((*classes.names, name), classes.has_ignore)
        source = replace(source, channels={on: classes.labels[name] for on, name in channels.items()})
        source = replace(source, overlap=classes.labels[name])
        notes.append(f"pixels with several channels are {name} (label {source.overlap})")
    warnings = []
    unused = [name for name, bit in zip(_CHANNELS, (4, 2, 1), strict=True) if _is_lost(name, bit, combinations, source)]
    if unused:
        warnings.append(
            f"pixels with {' and '.join(unused)} alone become background; name it in --labels (such as "
            f"ignore={unused[0]}) if it means something else"
        )
    painted = [case if case.source is None else replace(case, source=_of(source, case.source)) for case in cases]
    return Export(tuple(painted), classes, tuple(notes), tuple(warnings))


def _of(source: ChannelSource, mask: LabelSource) -> ChannelSource:
    return replace(source, path=mask.files[0])


def _channels(requests: Sequence[Request]) -> dict[str, str]:
    """Class of each channel or sum of channels, in the order R, G, B."""
    channels: dict[str, str] = {}
    for request in requests:
        if _is_overlap(request):
            continue
        for word in request.words:
            parts = word.upper().split("+")
            if not set(parts) <= set(_CHANNELS) or len(set(parts)) < len(parts):
                raise UsageError(f"--labels {request.name}={word}: a channel is R, G or B, or several as in R+G")
            channels["+".join(sorted(parts, key=_CHANNELS.index))] = request.name
        if request.colours or request.ranges:
            raise UsageError(f"--labels of --layout channels gives channels, like artery=R vein=G; see {request.name}")
    if not channels:
        raise UsageError("--layout channels needs --labels that name the channels, like artery=R vein=G")
    return channels


def _is_overlap(request: Request) -> bool:
    """Whether a request names the class of several channels, as `crossing` or `crossing=overlap`."""
    return request.words == ("overlap",) or not (request.words or request.colours or request.ranges)


def _combinations(masks: Sequence[Path]) -> list[int]:
    found = [np.bincount(channel_combinations(read_picture(path), path).ravel(), minlength=8) for path in masks]
    return np.flatnonzero(np.sum(found, axis=0)).tolist()


def _is_lost(name: str, bit: int, combinations: Sequence[int], source: ChannelSource) -> bool:
    is_named = any(name in on.split("+") for on in source.channels)
    return not is_named and any(number == bit for number in combinations)
