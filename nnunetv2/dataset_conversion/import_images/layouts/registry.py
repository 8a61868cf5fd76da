"""All layouts by their names in `--layout`, and the choice of `auto`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nnunetv2.dataset_conversion.import_images.layouts import (
    ade20k,
    channels,
    coco,
    labelme,
    pairs,
    per_class,
    roboflow,
    voc,
    yolo,
)
from nnunetv2.dataset_conversion.import_images.layouts.layout import Export, Options, Place
from nnunetv2.errors import UsageError

AUTO = "auto"


@dataclass(frozen=True)
class Layout:
    """How one kind of export is recognised and read."""

    fits: Callable[[Place], bool]
    collect: Callable[[Place, Place | None, Options], Export]
    """place of the training data, of `-ti` and `-tm`, and the options"""
    has_folders: bool = False
    """pictures and masks lie in folders of their own, so that `-ti` and `-tm` may name others for the test"""


LAYOUTS = {
    "pairs": Layout(pairs.fits, pairs.collect, has_folders=True),
    "ade20k": Layout(ade20k.fits, ade20k.collect),
    "voc": Layout(voc.fits, voc.collect),
    "cvat": Layout(voc.fits, voc.collect),
    "roboflow": Layout(roboflow.fits, roboflow.collect),
    "coco": Layout(coco.fits, coco.collect),
    "labelme": Layout(labelme.fits, labelme.collect),
    "yolo": Layout(yolo.fits, yolo.collect),
    "per_class": Layout(per_class.fits, per_class.collect, has_folders=True),
    "channels": Layout(channels.fits, channels.collect, has_folders=True),
}
_SAME = {"cvat": "voc"}


def find_layout(name: str, place: Place) -> tuple[str, Layout]:
    """Returns the layout of that name, or the only one that fits.

    Raises:
        UsageError: none or several fit; the message names them.
    """
    if name != AUTO:
        return name, LAYOUTS[name]
    fitting = [each for each, layout in LAYOUTS.items() if each not in _SAME and layout.fits(place)]
    if len(fitting) == 1:
        return fitting[0], LAYOUTS[fitting[0]]
    where = f"{place.images}" + (f" and {place.masks}" if place.masks else "")
    if fitting:
        raise UsageError(f"{where} could be {' or '.join(fitting)}; choose one with --layout")
    raise UsageError(
        f"{where} has no layout that is known ({', '.join(LAYOUTS)}); name the folder of pictures (-i) and that of "
        f"masks (-m), or choose one with --layout"
    )
