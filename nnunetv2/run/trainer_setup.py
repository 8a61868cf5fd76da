"""Creates a ready-to-run trainer from the arguments of a training command."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.training_run import DEFAULT_PLANS, DEFAULT_TRAINER, parse_fold
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.plans_handling import plans_schema
from nnunetv2.utilities.plans_handling.plans_files import listed_plans, name_of_models

if TYPE_CHECKING:
    import torch

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

logger = logging.getLogger(__name__)

_OLD_ARGUMENT = "unpack_dataset"


def get_trainer_from_args(
    dataset_name_or_id: int | str,
    configuration: str,
    fold: int | str,
    trainer_name: str = DEFAULT_TRAINER,
    plans_identifier: str = DEFAULT_PLANS,
    continue_training: bool = False,
    device: torch.device | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> nnUNetTrainer:
    """Creates the trainer of a preprocessed dataset; nothing is written yet.

    Args:
        dataset_name_or_id: `Dataset004_Hippocampus`, `4` or `"4"`.
        device: None means CUDA.
        trainer_kwargs: further arguments of the trainer's constructor.

    Raises:
        UsageError: dataset, plans, configuration, fold, trainer or an argument are unknown.
    """
    trainer_class = find_by_name("trainer", trainer_name)
    arguments = (dataset_name_or_id, configuration, fold, plans_identifier, continue_training, device, trainer_kwargs)
    return make_trainer(trainer_class, *arguments)


def make_trainer(
    trainer_class: type[nnUNetTrainer],
    dataset_name_or_id: int | str,
    configuration: str,
    fold: int | str,
    plans_identifier: str = DEFAULT_PLANS,
    continue_training: bool = False,
    device: torch.device | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> nnUNetTrainer:
    """Like `get_trainer_from_args`, for a given class."""
    import torch

    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    trainer_kwargs = dict(trainer_kwargs or {})
    _require_arguments(trainer_class, trainer_kwargs)
    folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(dataset_name_or_id)
    plans = read_plans(folder, plans_identifier)
    plans["continue_training"] = continue_training
    with _explained_old_signature(trainer_class):
        return trainer_class(
            plans=plans,
            configuration=configuration,
            fold=parse_fold(fold),
            dataset_json=read_dataset_json(folder / "dataset.json"),
            device=device or torch.device("cuda"),
            **trainer_kwargs,
        )


@contextmanager
def _explained_old_signature(trainer_class: type) -> Iterator[None]:
    """Names what to delete from trainers written for nnU-Net before 2.6, which had a sixth argument."""
    try:
        yield
    except TypeError as err:
        owner = next((c for c in trainer_class.__mro__ if _OLD_ARGUMENT in _parameters(c)), None)
        if owner is None:
            raise
        raise UsageError(
            f"The trainer {owner.__name__} ({inspect.getfile(owner)}) was written for nnU-Net before 2.6: delete "
            f"{_OLD_ARGUMENT} from the arguments of its __init__ and from its call of super().__init__"
        ) from err


def _parameters(some_class: type) -> Mapping[str, inspect.Parameter]:
    init = vars(some_class).get("__init__")
    return {} if init is None else inspect.signature(init).parameters


def read_plans(preprocessed_folder: Path, plans_identifier: str) -> dict[str, Any]:
    """Reads `{plans_identifier}.json` of a preprocessed dataset; warns if models get another name.

    Raises:
        UsageError: the file is missing; the message lists the available plans.
    """
    path = preprocessed_folder / f"{check_name(plans_identifier, 'plans', UsageError)}.json"
    if path.is_file():
        name = name_of_models(preprocessed_folder, plans_identifier)
        if name != plans_identifier:
            logger.warning(
                '%s has "plans_name": "%s", so its models are named TRAINER__%s__CONFIGURATION, like those of -p %s; '
                'set "plans_name": "%s" in the file to keep them apart',
                *(path, name, name, name, plans_identifier),
            )
        return plans_schema.read_plans(path)
    if not preprocessed_folder.is_dir():
        raise UsageError(
            f"{preprocessed_folder} does not exist; run nnUNetv2_plan_and_preprocess for this dataset first"
        )
    raise UsageError(
        f"There are no plans {plans_identifier} in {preprocessed_folder} (only: {listed_plans(preprocessed_folder)}); "
        f"choose with -p or run nnUNetv2_plan_and_preprocess"
    )


def _require_arguments(trainer_class: type, trainer_kwargs: Mapping[str, Any]) -> None:
    parameters = inspect.signature(trainer_class.__init__).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = sorted(set(trainer_kwargs) - set(parameters))
    if unknown:
        raise UsageError(
            f"The trainer {trainer_class.__name__} takes no argument {', '.join(unknown)}; choose another one with -tr"
        )


def maybe_load_checkpoint(
    nnunet_trainer: nnUNetTrainer,
    continue_training: bool,
    validation_only: bool,
    pretrained_weights_file: str | None = None,
    validate_best: bool = False,
    *,
    allow_config_change: bool = False,
) -> None:
    """Loads the initial state of a run: the most advanced or the final checkpoint, pretrained weights, or nothing.

    Args:
        continue_training: load the most advanced checkpoint; without one, the training starts anew with a warning.
        validation_only: require the final checkpoint, or the best one with `validate_best`.
        allow_config_change: continue also if plans, cases, labels or settings have changed.

    Raises:
        UsageError: arguments contradict each other, a required checkpoint is missing, weights do not fit, or something
            has changed.
        DataError: all checkpoints are damaged.
    """
    from nnunetv2.training.protocol.training_record import RECORD, require_same_training
    from nnunetv2.training.state import checkpoint

    if continue_training and pretrained_weights_file is not None:
        raise UsageError("A training that continues has its weights already; leave out the pretrained weights")
    if validation_only:
        wanted = checkpoint.BEST if validate_best else checkpoint.FINAL
        path = checkpoint.require_checkpoint(Path(nnunet_trainer.output_folder), wanted, "Validation")
        nnunet_trainer.load_checkpoint(str(path))
    elif continue_training:
        path = checkpoint.checkpoint_to_continue(Path(nnunet_trainer.output_folder))
        if path is None:
            logger.warning("There is no checkpoint in %s; a new training starts", nnunet_trainer.output_folder)
        else:
            logger.info("Continuing from %s", path)
            content, source = checkpoint.peek(path)
            if RECORD in content:  # upstream's checkpoints have none
                require_same_training(content, nnunet_trainer.training_record(), source, allowed=allow_config_change)
            nnunet_trainer.load_checkpoint(str(path))
    elif pretrained_weights_file is not None:
        if not nnunet_trainer.was_initialized:
            nnunet_trainer.initialize()
        load_pretrained_weights(nnunet_trainer.network, pretrained_weights_file)
        nnunet_trainer.pretrained_file = pretrained_weights_file  # recorded in the metrics
