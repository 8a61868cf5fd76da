"""Check that a case has exactly the channels of its model, each in its place."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from nnunetv2.errors import DataError

_NUMBERED = re.compile(r"(.+)_(\d{4})(\..+)", re.DOTALL)


def check_channel_files(files: Sequence[str | os.PathLike], channels: Sequence[str]) -> None:
    """Checks the files of one case: one per channel, in order, or a single one that may hold all channels.

    Channel numbers are checked if all names have one (`CASE_0000.nii.gz`). Other names can only be counted.

    Args:
        files: in channel order.
        channels: names of the model's channels.

    Raises:
        DataError: names the missing and the unexpected channels.
    """
    numbers = _numbers_of(files)
    if numbers is None:
        if len(files) not in (1, len(channels)):
            raise DataError(f"{_case_of(files)} comes with {len(files)} files; {_needs(channels)}")
        return
    expected = list(range(len(channels)))
    if numbers in (expected, [0]):
        return
    missing = [number for number in expected if number not in numbers]
    unexpected = [f"_{number:04d}" for number in numbers if number not in expected]
    parts = [f"has no {listed_channels(missing, channels)}"] if missing else []
    parts += [f"has {', '.join(unexpected)}, which is no channel of the model"] if unexpected else []
    if not parts:
        parts = ["comes with its channels in the order " + ", ".join(f"_{number:04d}" for number in numbers)]
    raise DataError(f"{_case_of(files)} {' and '.join(parts)}; {_needs(channels)}")


def check_channels_of_file(file: str | os.PathLike, num_channels: int, channels: Sequence[str]) -> None:
    """Checks the image read from the only file of a case.

    Raises:
        DataError: it has fewer or more channels than the model.
    """
    if num_channels == len(channels):
        return
    case = _case_of([file])
    if num_channels == 1:
        missing = listed_channels(range(1, len(channels)), channels)
        raise DataError(f"{case} has no {missing}; {_needs(channels)}")
    raise DataError(f"{os.fspath(file)} has {num_channels} channels; {_needs(channels)}")


def check_numbering(files: Sequence[str]) -> None:
    """Checks that the channel files of a case in a folder are numbered from 0 without gaps.

    Raises:
        DataError: names the first missing file.
    """
    numbers = _numbers_of(files) or []
    for expected, number in enumerate(numbers):
        if number != expected:
            case, _, ending = _NUMBERED.fullmatch(os.path.basename(files[0])).groups()
            raise DataError(
                f"Case {case} has {os.path.basename(files[expected])} but no {case}_{expected:04d}{ending}; channels "
                f"are numbered from _0000 on, so add the missing file or remove the case"
            )


def listed_channels(numbers: Sequence[int], channels: Sequence[str]) -> str:
    """Formats `_0001 (T2), _0002 (FLAIR)`."""
    return ", ".join(f"_{number:04d} ({channels[number]})" for number in numbers)


def _numbers_of(files: Sequence[str | os.PathLike]) -> list[int] | None:
    matches = [_NUMBERED.fullmatch(os.path.basename(os.fspath(path))) for path in files]
    return [int(match[2]) for match in matches] if all(matches) else None


def _case_of(files: Sequence[str | os.PathLike]) -> str:
    name = os.path.basename(os.fspath(files[0]))
    match = _NUMBERED.fullmatch(name)
    return match[1] if match else name


def _needs(channels: Sequence[str]) -> str:
    names = ", ".join(map(str, channels))
    if len(channels) == 1:
        return f"one channel is needed ({names}), numbered _0000"
    return f"{len(channels)} channels are needed ({names}), numbered _0000 to _{len(channels) - 1:04d}"
