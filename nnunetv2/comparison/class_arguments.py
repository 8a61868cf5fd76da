"""Arguments of the commands that score segmentations: regions, classes, what decides, fields of view."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_class_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags --regions, --classes, --primary, --among and -fov."""
    add = parser.add_argument
    add(
        "--regions",
        nargs="+",
        default=[],
        metavar="NAME=LABELS",
        help='score these unions of labels instead: "artery=1,3" "vein=2,3" "vessel=1,2,3"',
    )
    add("--classes", nargs="+", default=[], metavar="CLASS", help="score only these classes (default: all)")
    add(
        "--primary",
        nargs="+",
        default=[],
        metavar="NAME",
        help="what decides: a metric, or the classes whose mean does, or both (default: first metric, all classes)",
    )
    add(
        "--among",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="classes that AccFound, AccAll, SensFound and SensAll tell apart (default: those that contain no other)",
    )
    add("-fov", default=None, metavar="FOLDER", help="fields of view, one mask per case: what lies outside is ignored")


def metric_names(words: Sequence[str]) -> tuple[str, ...]:
    """Names of metrics that are separated by spaces or commas, each once."""
    return tuple(dict.fromkeys(name for word in words for name in word.split(",") if name))
