"""The folder of a run: checks of its content at the start, locking, and the log file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dinov3.eval.segmentation.config import SegmentationConfig
from dinov3.eval.segmentation.training.checkpoint import CHECKPOINT_LATEST, CHECKPOINT_PREVIOUS, config_differences
from dinov3.eval.segmentation.training.saved_model import MODEL_BEST, MODEL_FINAL
from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import load_config, plain_config

CONFIG_FILE = "segmentation_config.yaml"
LOG_FILE = "log.txt"
_TO_RESUME = (CHECKPOINT_LATEST, CHECKPOINT_PREVIOUS)


def check_run_folder(config: SegmentationConfig) -> bool:
    """Ensures that a run does not overwrite another one.

    Args:
        config: All settings, `n_gpus` being the number of processes.

    Returns:
        True if there is a training to resume.

    Raises:
        UsageError: `config.output_dir` contains a training that is not to be resumed, or that was started with
            incompatible settings.
    """
    folder = Path(config.output_dir)
    found = [name for name in (*_TO_RESUME, MODEL_FINAL, MODEL_BEST) if (folder / name).is_file()]
    if found and config.load_from:
        raise UsageError(
            f"{folder} holds a training ({', '.join(found)}), whose settings and results an evaluation would replace; "
            f"give another folder, for example output_dir={folder / 'evaluation'}"
        )
    if found and not config.resume:
        raise UsageError(
            f"{folder} holds a training already ({', '.join(found)}); go on with it by resume=true, or give another "
            f"output_dir"
        )
    if found and not any(name in found for name in _TO_RESUME):
        raise UsageError(
            f"{folder} holds a training ({', '.join(found)}), but no {CHECKPOINT_LATEST} to go on from; put it back, "
            f"or give another output_dir"
        )
    if found and (folder / CONFIG_FILE).is_file():
        _check_same_training(folder / CONFIG_FILE, config)
    return bool(found)


@contextmanager
def logging_to_folder(folder: Path, rank: int) -> Iterator[None]:
    """Appends this package's log to `log.txt`; processes other than the first only write warnings."""
    package = logging.getLogger("dinov3")
    level = package.level
    package.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    handler = logging.FileHandler(folder / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()
        package.setLevel(level)


def _check_same_training(path: Path, config: SegmentationConfig) -> None:
    """Compares settings before weights are loaded and the file is replaced; the checkpoint checks its own copy."""
    before = load_config(SegmentationConfig, path)
    differences = config_differences(plain_config(before), plain_config(config))
    if before.bs * before.n_gpus != config.bs * config.n_gpus:
        differences.append(
            f"bs times the number of processes was {before.bs * before.n_gpus} and is {config.bs * config.n_gpus}"
        )
    if differences:
        raise UsageError(
            f"{path.parent} holds a training with other settings: {'; '.join(differences)}. To go on with it give "
            f"config={path} resume=true; for another training give another output_dir"
        )
