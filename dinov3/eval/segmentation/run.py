"""Trains a segmentation head on DINOv3 features, or evaluates one.

    python -m dinov3.eval.segmentation.run config=FILE output_dir=DIR [key=value ...]

On N GPUs: torchrun --nproc_per_node=N -m dinov3.eval.segmentation.run config=FILE output_dir=DIR [key=value ...]
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov3.utils.command_line import command
from dinov3.utils.errors import UsageError
from dinov3.utils.processes.stop_signals import ended_by_signals

if TYPE_CHECKING:
    from torch import nn

    from dinov3.eval.segmentation.config import SegmentationConfig

logger = logging.getLogger("dinov3.eval.segmentation.run")  # as a command, this module's name is __main__

EXAMPLES = """
FILE is a path, or one of {shipped}.
Words override the file, and the file overrides the defaults below.

Train:
    config=config-ade20k-m2f-training model.dino_hub=dinov3_vitl16 datasets.root=ADEChallengeData2016 output_dir=run
Resume an interrupted training:
    config=run/segmentation_config.yaml resume=true
Evaluate a trained model:
    config=run/segmentation_config.yaml load_from=run/model_final.pth output_dir=run/evaluation

Settings and their defaults:
"""


@command
@ended_by_signals("The same command with resume=true goes on from the last checkpoint, if there is one")
def main(argv: Sequence[str] | None = None) -> int:
    """The command; `-h` lists all settings."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        sys.stdout.write(help_text())
        return 0
    from dinov3.eval.segmentation.config import load_segmentation_config

    launch(load_segmentation_config(words))
    return 0


def help_text() -> str:
    """Returns the text of `-h`."""
    from dinov3.eval.segmentation.config import SegmentationConfig, shipped_configs
    from dinov3.utils.settings_help import settings_help

    examples = EXAMPLES.format(shipped=", ".join(shipped_configs()))
    return f"{__doc__}{examples}\n{settings_help(SegmentationConfig)}\n"


def launch(config: SegmentationConfig) -> dict[str, Any]:
    """Runs a training or evaluation, as a single process or as one of those started by `torchrun`.

    The first process writes settings, log and results to `config.output_dir`.

    Returns:
        Metrics by name.

    Raises:
        UsageError: Required settings are missing, or the folder contains another run.
        LockedError: Another run is writing into the folder.
    """
    from dinov3.eval.segmentation.training.run_folder import (
        CONFIG_FILE,
        check_run_folder,
        logging_to_folder,
    )
    from dinov3.utils.devices import resolve_device
    from dinov3.utils.folder_lock import locked_folder
    from dinov3.utils.processes.process_group import process_group_from_environment, rank_and_world_size, wait_for_all
    from dinov3.utils.yaml_config import save_config

    _check_request(config)
    with process_group_from_environment(resolve_device(config.device, "device=")):
        rank, world_size = rank_and_world_size()
        settled = _settled(config, world_size)
        goes_on = check_run_folder(settled)
        wait_for_all()  # the first process may write to the folder only after all have checked it
        folder = Path(config.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        lock = locked_folder(folder, "writing", can_force=False) if rank == 0 else nullcontext()
        with lock, logging_to_folder(folder, rank):
            _log_settings(settled, meant_for=config.n_gpus)
            # A resumed training saves the settings after its checkpoint was verified, an evaluation with its
            # results.
            if rank == 0 and not goes_on and not config.load_from:
                save_config(settled, folder / CONFIG_FILE)
            results = _run(settled)
            if rank == 0:
                if config.load_from:
                    save_config(settled, folder / CONFIG_FILE)
                _write_results(results, folder)
            wait_for_all()
    return results


def run_segmentation_with_dinov3(backbone: nn.Module | None, config: SegmentationConfig) -> dict[str, Any]:
    """Evaluates `config.load_from` if given; else trains the head `config.decoder_head.type`.

    Args:
        backbone: Backbone with loaded weights; None if `config.load_from` includes its own.
        config: All settings.

    Returns:
        Metrics by name.
    """
    if config.load_from:
        from dinov3.eval.segmentation.eval import test_segmentation

        return test_segmentation(backbone=backbone, config=config)
    if config.decoder_head.type == "linear":
        from dinov3.eval.segmentation.train import train_segmentation

        return train_segmentation(backbone=backbone, config=config)
    from dinov3.eval.segmentation.train_m2f import train_m2f_segmentation

    return train_m2f_segmentation(backbone=backbone, config=config)


def _check_request(config: SegmentationConfig) -> None:
    """Rejects missing settings early, instead of after minutes or hours."""
    from dinov3.eval.segmentation.config import RELEASED_SEGMENTOR
    from dinov3.eval.segmentation.data.dataset import dataset_of

    if not config.output_dir:
        raise UsageError("No output_dir was given; write output_dir=DIR, the folder for all results")
    if config.model is None and config.load_from != RELEASED_SEGMENTOR:
        raise UsageError("No backbone was given; write model.dino_hub=NAME, for example model.dino_hub=dinov3_vitl16")
    is_file = config.load_from and config.load_from != RELEASED_SEGMENTOR and "://" not in config.load_from
    if is_file and not Path(config.load_from).expanduser().exists():
        raise UsageError(
            f"load_from={config.load_from}: there is no such file; give model_final.pth of a training, its URL, "
            f"or {RELEASED_SEGMENTOR}"
        )
    for split in ("val",) if config.load_from else ("train", "val"):
        dataset_of(config, split)


def _settled(config: SegmentationConfig, world_size: int) -> SegmentationConfig:
    """Returns the settings with the actual number of processes, and with one device for backbone and head."""
    model = config.model
    if model is not None and config.device is not None:
        model = dataclasses.replace(model, device=config.device)
    return dataclasses.replace(config, model=model, n_gpus=world_size)


def _log_settings(config: SegmentationConfig, meant_for: int) -> None:
    from dinov3.utils.yaml_config import config_as_yaml

    logger.info("Settings:\n%s", config_as_yaml(config))
    if not config.load_from:
        batch = f"Batch: {config.bs * config.n_gpus} images (bs={config.bs}, processes: {config.n_gpus})"
        if meant_for != config.n_gpus:
            batch += f"; n_gpus={meant_for} is for {config.bs * meant_for} images, to which lr and total_iter belong"
        logger.info(batch)


def _run(config: SegmentationConfig) -> dict[str, Any]:
    import random

    import numpy as np
    import torch

    from dinov3.eval.segmentation.config import RELEASED_SEGMENTOR
    from dinov3.eval.setup import load_model_and_context

    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    backbone = None
    if config.model is not None and config.load_from != RELEASED_SEGMENTOR:
        backbone, _ = load_model_and_context(config.model, output_dir=config.output_dir)
    return run_segmentation_with_dinov3(backbone, config)


def _write_results(results: dict[str, Any], folder: Path) -> None:
    from dinov3.eval.segmentation.evaluation.results import write_results

    write_results(results, folder)
    logger.info("Results are in %s", folder)


if __name__ == "__main__":
    sys.exit(main())
