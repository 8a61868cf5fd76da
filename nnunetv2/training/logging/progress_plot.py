"""Plot of the training progress: losses and pseudo Dice, epoch durations, learning rate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov3.utils.atomic_files import replace_when_complete

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_IN_INCHES = (12, 16)
# Fixed margins: a layout engine would draw each picture twice.
_MARGINS = {"left": 0.07, "right": 0.93, "bottom": 0.04, "top": 0.97, "hspace": 0.15}


def plot_progress(history: Mapping[str, Sequence[Any]], output_folder: str | os.PathLike) -> None:
    """Writes `progress.png` to `output_folder`, using the epochs for which every key of `history` has a value.

    Args:
        history: history of a `LocalLogger`.
        output_folder: an existing folder.
    """
    num_epochs = min(len(values) for values in history.values())
    figure = draw_progress({key: values[:num_epochs] for key, values in history.items()})
    with replace_when_complete(Path(output_folder) / "progress.png") as temporary:
        figure.savefig(temporary, format="png")


def draw_progress(history: Mapping[str, Sequence[Any]]) -> Figure:
    """Draws equally long series into a figure with three stacked axes; does not touch matplotlib's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN_INCHES)
    figure.subplots_adjust(**_MARGINS)
    loss_axes, duration_axes, rate_axes = figure.subplots(3, 1)
    _draw_losses_and_dice(loss_axes, history)

    durations = [
        end - start
        for start, end in zip(history["epoch_start_timestamps"], history["epoch_end_timestamps"], strict=True)
    ]
    duration_axes.plot(durations, color="tab:blue")
    duration_axes.set_ylabel("epoch duration [s]")
    duration_axes.set_ylim(bottom=0)

    rate_axes.plot(history["lrs"], color="tab:blue")
    rate_axes.set_ylabel("learning rate")

    for axes in (loss_axes, duration_axes, rate_axes):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    return figure


def _draw_losses_and_dice(axes: Axes, history: Mapping[str, Sequence[Any]]) -> None:
    axes.plot(history["train_losses"], color="tab:blue", label="training loss")
    axes.plot(history["val_losses"], color="tab:red", label="validation loss")
    axes.set_ylabel("loss")
    dice_axes = axes.twinx()
    dice_axes.plot(history["mean_fg_dice"], color="tab:green", linestyle="dotted", label="pseudo Dice")
    dice_axes.plot(history["ema_fg_dice"], color="tab:green", label="pseudo Dice (moving average)")
    dice_axes.set_ylabel("pseudo Dice")
    lines = [*axes.get_lines(), *dice_axes.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
