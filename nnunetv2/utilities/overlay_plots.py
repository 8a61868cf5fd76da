"""Upstream's import path; the code is in `nnunetv2.utilities.overlays`."""

from nnunetv2.utilities.overlays.case_overlays import (
    multiprocessing_plot_overlay,
    multiprocessing_plot_overlay_preprocessed,
    plot_overlay,
    plot_overlay_preprocessed,
)
from nnunetv2.utilities.overlays.dataset_overlays import generate_overlays_from_preprocessed, generate_overlays_from_raw
from nnunetv2.utilities.overlays.entry_point import entry_point_generate_overlay
from nnunetv2.utilities.overlays.image_overlay import color_cycle, generate_overlay, hex_to_rgb
from nnunetv2.utilities.overlays.slice_choice import select_slice_to_plot, select_slice_to_plot2

__all__ = [
    "color_cycle",
    "entry_point_generate_overlay",
    "generate_overlay",
    "generate_overlays_from_preprocessed",
    "generate_overlays_from_raw",
    "hex_to_rgb",
    "multiprocessing_plot_overlay",
    "multiprocessing_plot_overlay_preprocessed",
    "plot_overlay",
    "plot_overlay_preprocessed",
    "select_slice_to_plot",
    "select_slice_to_plot2",
]
