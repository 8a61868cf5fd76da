"""Trains a vision transformer with any head: YAML settings, pretrained backbone, AdamW, per-iteration schedule."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dinov3.eval.segmentation.schedulers import WarmupOneCycleLR, WarmupPolyLR
from dinov3.eval.segmentation.training.parameter_groups import group_report, parameter_groups
from dinov3.layers.joint_casts import JointCasts
from dinov3.layers.lora import trainable_report
from dinov3.utils.half_weights import halve_frozen_weights, restore_frozen_weights
from dinov3.utils.host_copies import on_host
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.precision import HALF_PRECISIONS
from dinov3.utils.yaml_config import plain_config, save_config
from nnunetv2.errors import UsageError
from nnunetv2.model.head_config import head_config_class
from nnunetv2.model.query_network import dense_logits
from nnunetv2.model.vit_network import padded_size
from nnunetv2.model.weights.backbone_weights import find_weights
from nnunetv2.training.data_augmentation import resize_crop_flip
from nnunetv2.training.loss.dense_terms import DenseTerms, LossWithTerms, additional_terms
from nnunetv2.training.loss.loss_config import LabelTask, loss_config_class, main_loss, own_terms
from nnunetv2.training.loss.mask_targets import mask_targets
from nnunetv2.training.loss.tubes import without_tubes
from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.vit_config import ViTnnUNetConfig
from nnunetv2.training.setup.budget import Budget
from nnunetv2.training.setup.fitting_configuration import require_intensities_for, require_place_for_labels
from nnunetv2.training.setup.volume_notes import volume_notes
from nnunetv2.training.state.architecture_check import require_same_architecture, trained_configuration
from nnunetv2.training.state.model_folder import run_folders
from nnunetv2.utilities import extensions
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

if TYPE_CHECKING:
    from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

_SCHEDULERS = {"WarmupOneCycleLR": WarmupOneCycleLR, "poly": WarmupPolyLR}
_SHORTEST_TRAINING_IN_WARMUPS = 10
_CUDA = torch.device("cuda")
_VOLUME = 3  # axes of a patch


class nnUNetTrainer_vit(nnUNetTrainer):
    """nnU-Net's training with a vision transformer and the head selected in the settings.

    Args:
        plans: content of a plans file.
        configuration: name of one of its configurations.
        fold: number of the split, or "all".
        dataset_json: content of the dataset's dataset.json.
        device: where to train.
        config_path: YAML file of settings; None: the defaults.
        overrides: `key=value` words that take precedence over the file.

    Attributes:
        config_class: class of the settings, see `ViTnnUNetConfig`; a subclass may define its own.
        supervise_all_layers: for query heads: compute the loss after every layer instead of only the last.

    Raises:
        UsageError: wrong settings, or a configuration that is the second stage of a cascade.
    """

    config_class: ClassVar[type[ViTnnUNetConfig]] = AnyHeadConfig
    supervise_all_layers = True
    _terms: DenseTerms | None = None
    _casts: JointCasts | None = None
    enable_deep_supervision = False
    scheduler_step_per_iteration = True

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = _CUDA,
        config_path: str | os.PathLike | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        self.config, _ = self.config_class.load(config_path, overrides)
        self.config.load_classes()
        self._words = frozenset(word.partition("=")[0] for word in overrides)
        self.trainer_config = plain_config(self.config)
        self.dataset_json = dataset_json  # adapt_plans reads the kind of labels from it
        self._needs_backbone_weights = True
        super().__init__(plans, configuration, fold, dataset_json, device)
        self._take_over_settings()

    def _take_over_settings(self) -> None:
        """Applies the settings, except where a subclass overrides them by its own class attribute."""
        training = self.config.training
        settings = {
            "initial_lr": training.lr,
            "weight_decay": training.weight_decay,
            "gradient_clip_norm": training.gradient_clip,
            "oversample_foreground_percent": training.oversample_foreground_percent,
            "num_epochs": training.epochs(),
            "num_iterations_per_epoch": training.num_iterations_per_epoch,
            "num_val_iterations_per_epoch": training.num_val_iterations_per_epoch,
            "save_every": training.save_every,
            "precision": training.precision_on(self.device.type),
        }
        self.context_slices = self.config.model.context_slices
        self.needs_tubes = self.config.loss.skeleton_recall > 0
        subclasses = type(self).__mro__[: type(self).__mro__.index(nnUNetTrainer_vit)]
        for name, value in settings.items():
            if not any(name in vars(subclass) for subclass in subclasses):
                setattr(self, name, value)

    def follow_budget(self, values: Mapping[str, int | str]) -> None:
        """Applies the flags of the command to the settings; flags override the file.

        Raises:
            UsageError: a `key=value` word contradicts a flag.
        """
        for name, value in values.items():
            said = getattr(self.config.training, name)
            if f"training.{name}" in self._words and said != value:
                raise UsageError(
                    f"training.{name}={said} contradicts --{name} {value}, which was set now or when the training "
                    f"was started; leave out the setting"
                )
        self.config = replace(self.config, training=replace(self.config.training, **values))
        self.trainer_config = plain_config(self.config)

    def _resume_budget(self, content: Mapping[str, Any], source: str) -> None:
        if "training.num_epochs" in self._words:  # as good as the flag
            self.keep_to_budget(Budget(num_epochs=self.config.training.num_epochs))
        super()._resume_budget(content, source)

    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        manager = PlansManager(plans)
        chosen = manager.get_configuration(configuration)
        require_place_for_labels(manager, configuration, self.config.model.channel_adaptation)
        require_intensities_for(self.config.model.input_norm, chosen)
        labels = manager.get_label_manager(self.dataset_json)
        folder = run_folders(type(self).__name__, manager, configuration, 0).model
        trained = trained_configuration(folder, configuration) or {}
        planned = chosen.patch_size
        changes = {
            "patch_size": self.config.patch_size(planned, trained.get("patch_size")),
            "batch_size": self.config.training.batch_size,
            "architecture": self.config.architecture(
                regions=labels.has_regions,
                trained=trained.get("architecture"),
                num_axes=len(planned),
                num_channels=determine_num_input_channels(manager, chosen, self.dataset_json),
                label_channels=0 if chosen.previous_stage_name is None else len(labels.foreground_labels),
            ),
        }
        plans["configurations"][configuration].update(
            {key: value for key, value in changes.items() if value is not None}
        )
        return plans

    def initialize(self) -> None:
        # Names the settings that differ from the other folds, before their weights fail to load.
        require_same_architecture(self.output_folder_base, self.configuration_name, self.configuration_manager)
        # Missing weights are reported before the network is built.
        weights = self._find_backbone_weights() if self._needs_backbone_weights else None
        super().initialize()
        network, model = unwrap(self.network), self.config.model
        if weights is not None:
            self.print_to_log_file(str(network.load_backbone_weights(weights)), also_print_to_console=False)
        report = trainable_report(network)
        self.print_to_log_file(f"Backbone {model.backbone} {model.backbone_size}, tuning {model.tuning}: {report}")
        self.start_notes += self._volume_notes()
        for group in self.optimizer.param_groups:
            self.print_to_log_file(f"Parameter group {group_report(group)}", also_print_to_console=False)

    def _volume_notes(self) -> list[str]:
        chosen, model = self.configuration_manager, self.config.model
        if len(chosen.patch_size) != _VOLUME:
            repeats = self.context_slices > 1 and self.plans_manager.original_median_shape_after_transp[0] == 1
            return [f"model.context_slices={self.context_slices} repeats the one slice of each case"] if repeats else []
        settings = {"token": model.backbone_row.shape.patch_size, "scale": model.input_scale}
        return volume_notes(chosen.patch_size, chosen.spacing, self.plans_manager.transpose_forward, **settings)

    def _find_backbone_weights(self) -> Path | None:
        model = self.config.model
        return find_weights(
            model.backbone,
            model.backbone_size,
            pretrained=model.pretrained,
            checkpoint=model.checkpoint,
            tuning=model.tuning,
        )

    def load_checkpoint(self, filename_or_checkpoint: dict | str | os.PathLike) -> None:
        """Extends the base class: learning rates, weight decay and length keep the values of the settings."""
        self._needs_backbone_weights = False  # the checkpoint contains the whole network
        self.initialize_for(filename_or_checkpoint)
        groups = [{key: group[key] for key in ("initial_lr", "weight_decay")} for group in self.optimizer.param_groups]
        try:
            super().load_checkpoint(filename_or_checkpoint)
        except UsageError:  # a ValueError, too, but it already explains itself
            raise
        except ValueError as err:  # raised by torch for the optimiser
            raise UsageError(
                f"The optimiser in the checkpoint has other groups of parameters ({err}); continue with the "
                f"training.layer_decay and model.tuning of the training that wrote it"
            ) from err
        self.lr_scheduler.total_iter = self._num_iterations()  # a prolonged training uses the longer schedule
        # The optimiser's state has brought the rates of the checkpoint; those of the settings are put back.
        self.lr_scheduler.base_lrs = [group["initial_lr"] for group in groups]
        for group, settings, rate in zip(self.optimizer.param_groups, groups, self.lr_scheduler.get_lr(), strict=True):
            group.update(settings, lr=rate)

    def on_train_start(self) -> None:
        super().on_train_start()
        network = unwrap(self.network)
        halve_frozen_weights(network, self.precision, self.device)
        is_plain = network is self.network  # compiled networks and parallel processes cast as autocast does
        if is_plain and self.device.type == "cuda" and self.precision in HALF_PRECISIONS:
            self._casts = JointCasts(network, HALF_PRECISIONS[self.precision])
        if self.local_rank == 0:
            save_config(self.config, Path(self.output_folder) / self.config.file_name)

    def casting_weights(self) -> AbstractContextManager:
        return super().casting_weights() if self._casts is None else self._casts.step()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        restore_frozen_weights(unwrap(self.network))  # prediction adds LoRA's updates to them
        super().perform_actual_validation(save_probabilities)

    def parameter_groups(self) -> list[dict[str, Any]]:
        network, training = unwrap(self.network), self.config.training
        is_full = self.config.model.tuning == "full"
        return parameter_groups(
            network,
            network.backbone,
            lr=self.initial_lr,
            lora_lr=training.lora_lr_multiplier * self.initial_lr,
            backbone_lr=training.backbone_lr_multiplier * self.initial_lr,
            weight_decay=self.weight_decay,
            layer_decay=training.layer_decay if is_full else 1.0,
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        training = self.config.training
        groups, fused = self.parameter_groups(), self.device.type == "cuda"
        if training.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, self.initial_lr, momentum=self.momentum, nesterov=True, fused=fused)
        else:
            optimizer = torch.optim.AdamW(groups, self.initial_lr, fused=fused)
        iterations = self._num_iterations()
        warmup = min(training.warmup_iters, iterations // _SHORTEST_TRAINING_IN_WARMUPS)
        return optimizer, _SCHEDULERS[training.scheduler](optimizer, iterations, warmup_iters=warmup)

    def _build_loss(self) -> Any:
        batch_dice = self.configuration_manager.batch_dice
        task = LabelTask.of(self.label_manager, batch_dice=batch_dice, is_ddp=self.is_ddp)
        settings, name = self.config.loss_settings, self.config.training.loss
        own = own_terms(loss_config_class(name, self._kind))
        terms = additional_terms(self.config.loss, own, task)
        if not self._has_queries and name is None:
            loss = super()._build_loss()
        else:
            extension = extensions.find("loss", main_loss(name, self._kind))
            # A loss may hold tensors, such as weights of classes, which belong beside the logits.
            loss = extension.load()(settings, task).to(self.device)
        if self._has_queries:  # such losses know no dense logits, see `forward_loss`
            self._terms = terms
            return loss
        if terms is None:
            return loss
        return LossWithTerms(loss, terms, task, reads_tubes="skeleton_recall" in own)

    @property
    def _kind(self) -> str:
        return head_config_class(self.config.model.head_name).kind

    @property
    def _has_queries(self) -> bool:
        return self._kind == "queries"

    @property
    def reads_targets_on_host(self) -> bool:
        return self._has_queries  # their targets are the masks of the labels that occur

    def forward_loss(self, data: Tensor, target: Tensor) -> tuple[Tensor, Any]:
        network = unwrap(self.network)
        network.set_training_progress(self.lr_scheduler.last_epoch / self._num_iterations())
        if not self._has_queries:
            return super().forward_loss(data, target)
        output = self.network(data, return_queries=True)
        if not self.supervise_all_layers:
            output = {**output, "aux_outputs": []}
        labels, task = self.label_manager, LabelTask.of(self.label_manager)
        targets, valid = mask_targets(
            without_tubes(target, task),
            labels.num_segmentation_heads,
            regions=labels.has_regions,
            ignore_label=labels.ignore_label,
            size=padded_size(data.shape[-2:], network.image_multiple),  # masks are predicted for the padded image
            on_host=without_tubes(on_host(target), task),
        )
        loss = self.loss.total(self.loss(output, targets, valid))
        if self._terms is not None:
            multiple, regions = network.image_multiple, labels.has_regions
            loss = loss + self._terms(dense_logits(output, data.shape[-2:], multiple, regions=regions), target)
        return loss, output

    def dense_logits(self, output: Any) -> Tensor:
        if not self._has_queries:
            return super().dense_logits(output)
        multiple = unwrap(self.network).image_multiple
        size, regions = self.configuration_manager.patch_size[-2:], self.label_manager.has_regions
        return dense_logits(output, size, multiple, regions=regions)

    def _num_iterations(self) -> int:
        return self.num_epochs * self.num_iterations_per_epoch

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        if self.config.use_nnunet_augmentation:
            *settings, planned = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            axes = self.config.training.chosen_mirror_axes(planned)
            self.inference_allowed_mirroring_axes = axes
            return *settings, axes
        settings = resize_crop_flip.resize_crop_flip_geometry(self.configuration_manager.patch_size)
        self.inference_allowed_mirroring_axes = settings.mirror_axes
        return settings

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        if self.config.use_nnunet_augmentation:
            return super().get_training_transforms(*args, **kwargs)
        return resize_crop_flip.resize_crop_flip_transforms(*args, **kwargs)
