"""The combinations of model, tuning, channels and labels that a contract holds for, and how each is made and fed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.model.head_config import head_config_class
from nnunetv2.training.dataloading import batches
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_mymodel import nnUNetTrainer_mymodel
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.utilities import extensions
from tests.model.heads.small import SMALL
from tests.training.tiny_dataset import NAME, tiny_plans

PATCH = (32, 24)  # 24 is no multiple of 16: the transformers pad it
# The coarsest map has 1/32 of the image, and instance norm makes 0 of a single value, without a gradient.
PATCHES = {"fapm": (64, 56)}
NUM_BLOCKS = 4  # of the tiny backbone
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Model:
    """One of the models, by the trainer that users run.

    Attributes:
        trainer: its class.
        keyword: constructor argument that takes the file of settings; None: the U-Net, which has none.
        settings: sections of that file, which make the model small.
        backbone: where the backbone stands in the network; None: there is none.
    """

    trainer: type[nnUNetTrainer]
    keyword: str | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    backbone: str | None = None


# The usual weight of "no object", 0.1, is meant for a hundred queries of which few find one. Of these ten a third does,
# and with it two queries could stay with one label, each right in one image and wrong in the other.
_LOSS = {"num_points": 256, "no_object_coefficient": 1.0}
_SMALL_M2F = {
    "num_queries": 10,
    "hidden_dim": 64,
    "num_heads": 2,
    "dim_feedforward": 32,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}
MODELS = {
    "unet": Model(nnUNetTrainer),
    "upernet": Model(nnUNetTrainer_mymodel, "vit_config_path", {"model": {"hidden_size": 16}}, "encoder."),
    "segformer": Model(
        nnUNetTrainer_segformer, "segformer_config_path", {"model": {"decoder_hidden_size": 16}}, "encoder."
    ),
    "m2f": Model(
        nnUNetTrainer_m2f,
        "m2f_config_path",
        {"model": _SMALL_M2F, "m2f_train": _LOSS},
        "head.decoder.segmentation_model.0.backbone.",
    ),
    "eomt": Model(
        nnUNetTrainer_m2f,
        "m2f_config_path",
        {"model": {"type": "eomt", "num_queries": 10}, "m2f_train": _LOSS},
        "head.encoder.",
    ),
}


def model_of_head(head: str) -> Model:
    """A head that has no trainer of its own name."""
    sections = {"model": {"head": head, **SMALL[head]}}
    if head_config_class(head).kind == "queries":
        sections |= {"model": {**sections["model"], "num_queries": 10}, "m2f_train": _LOSS}
    owned = {label: path for path, label in extensions.find("head", head).load().part_labels.items()}
    backbone = f"head.{owned['backbone']}." if "backbone" in owned else "encoder."
    return Model(nnUNetTrainer_vit, "config_path", sections, backbone)


HEADS = tuple(head for head in extensions.names("head") if head not in MODELS)  # those of the trainer of any head
MODELS |= {head: model_of_head(head) for head in HEADS}
TRANSFORMERS = tuple(name for name in MODELS if name != "unet")
TUNINGS = ("frozen", "lora", "full")
# Every rule by which channels become those of the backbone occurs.
CHANNEL_RULES = {1: "repeat", 2: "conv1x1", 3: "repeat", 4: "inflate"}
LABELS: dict[str, dict[str, Any]] = {
    "labels": {"background": 0, "left": 1, "right": 2},
    "regions": {"background": 0, "whole": [1, 2], "right": [2]},
    "ignore": {"background": 0, "left": 1, "right": 2, "ignore": 3},
    "regions_ignore": {"background": 0, "whole": [1, 2], "right": [2], "ignore": 3},
}
IGNORED = 3  # value of the ignore label


@dataclass(frozen=True)
class Combination:
    """One model trained in one way on one kind of data.

    Attributes:
        model: key of `MODELS`.
        tuning: what of the backbone is trained; the U-Net is always trained in full.
        channels: of the images.
        labels: key of `LABELS`.
    """

    model: str
    tuning: str
    channels: int
    labels: str

    def __str__(self) -> str:
        return f"{self.model}-{self.tuning}-{self.channels}ch-{self.labels}"

    @property
    def has_ignored_pixels(self) -> bool:
        return "ignore" in LABELS[self.labels]

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of the images."""
        return PATCHES.get(self.model, PATCH)

    @property
    def backbone(self) -> str | None:
        """First part of the names of the backbone's tensors; None: the model has no backbone."""
        return MODELS[self.model].backbone

    def trainer(self, folder: Path, loss: dict[str, Any] | None = None, **training: Any) -> nnUNetTrainer:
        """A new trainer, not yet initialised.

        Args:
            folder: where its file of settings is written.
            loss: settings of the loss of a head with queries.
            training: settings of the section `training`; the U-Net takes over those that it has as attributes.
        """
        model = MODELS[self.model]
        arguments = (self.plans(training.get("patch_size", self.patch)), "2d", 0, self.dataset_json(), CPU)
        if model.keyword is None:
            attributes = {name: value for name, value in training.items() if hasattr(model.trainer, name)}
            return type(model.trainer.__name__, (model.trainer,), attributes)(*arguments)
        path = folder / f"{self}.yaml"
        of_loss = {} if loss is None else {"m2f_train": loss}
        path.write_text(json.dumps(self.settings(training) | of_loss))
        return model.trainer(*arguments, **{model.keyword: str(path)})

    def settings(self, training: dict[str, Any]) -> dict[str, Any]:
        """Content of the file of settings."""
        sections = MODELS[self.model].settings
        common = {
            "backbone_size": "tiny",
            "pretrained": False,
            "tuning": self.tuning,
            "channel_adaptation": CHANNEL_RULES[self.channels],
        }
        if self.model == "m2f":  # both ways of its backward pass occur
            common["gradient_checkpointing"] = self.channels == 1
        lora = {"lora": {"r": 2}} if self.tuning == "lora" else {}
        return {**sections, **lora, "model": common | sections["model"], "training": training}

    def plans(self, patch_size: Sequence[int]) -> dict[str, Any]:
        plans = tiny_plans()
        plans["configurations"]["2d"] |= {
            "patch_size": list(patch_size),
            "normalization_schemes": ["NoNormalization"] * self.channels,
            "use_mask_for_norm": [False] * self.channels,
        }
        return plans

    def dataset_json(self) -> dict[str, Any]:
        names = {str(channel): f"channel {channel}" for channel in range(self.channels)}
        content = {"channel_names": names, "labels": LABELS[self.labels], "numTraining": 1, "file_ending": ".png"}
        return content | ({"regions_class_order": [1, 2]} if "regions" in self.labels else {})


# Every value of every factor occurs. The whole grid is slow.
QUICK = (
    Combination("unet", "full", 4, "regions"),
    Combination("upernet", "frozen", 1, "labels"),
    Combination("segformer", "lora", 2, "regions"),
    Combination("m2f", "frozen", 3, "labels"),
    Combination("eomt", "full", 1, "ignore"),
    *(Combination(head, "lora", 1, "labels") for head in HEADS),
)


def grid() -> list[Any]:
    """Every model x tuning x labels, as parameters of pytest; those outside `QUICK` are slow.

    Channels are not multiplied with the rest, as they matter to the first layer alone: they go round so that each
    number of them meets every transformer, tuning and kind of labels.
    """
    kinds, channels = ("labels", "regions", "ignore"), tuple(CHANNEL_RULES)
    combinations = {(c.model, c.tuning, c.labels): c for c in QUICK}
    for (i, model), (j, tuning), (k, labels) in product(*map(enumerate, (MODELS, TUNINGS, kinds))):
        if model != "unet" or tuning == "full":
            turn = Combination(model, tuning, channels[(i + j + k) % len(channels)], labels)
            combinations.setdefault((model, tuning, labels), turn)
    return [pytest.param(c, id=str(c), marks=() if c in QUICK else pytest.mark.slow) for c in combinations.values()]


def write_empty_dataset(preprocessed_root: Path) -> None:
    """Just enough of a preprocessed dataset for `initialize`, which tells the format by the endings of file names."""
    folder = preprocessed_root / NAME / "nnUNetPlans_2d"
    folder.mkdir(parents=True)
    (folder / "case.b2nd").touch()


def label_maps(combination: Combination, size: Sequence[int] | None = None) -> Tensor:
    """Two label maps (2, 1, H, W), sides multiples of 8; with an ignore label, the last quarter of the rows is ignored.

    Each label keeps to its side of the image. If they changed sides, queries would have to change between labels from
    image to image, which a few steps do not teach.
    """
    size = size or combination.patch
    maps = torch.zeros(2, 1, 8, 8, dtype=torch.int16)
    maps[0, 0, 1:5, 0:3] = 1
    maps[0, 0, 2:7, 5:8] = 2
    maps[1, 0, 2:8, 0:4] = 1
    maps[1, 0, 0:4, 5:7] = 2
    if combination.has_ignored_pixels:
        maps[:, :, 6:] = IGNORED
    return maps.repeat_interleave(size[0] // 8, dim=2).repeat_interleave(size[1] // 8, dim=3)


def make_batch(trainer: nnUNetTrainer, combination: Combination, maps: Tensor | None = None) -> dict[str, Any]:
    """A batch as the loader gives it, whose images show the labels; targets are made by the pipeline of validation."""
    maps = label_maps(combination) if maps is None else maps
    scales = trainer._get_deep_supervision_scales()
    transform = trainer.get_validation_transforms(scales, **batches.label_arguments(trainer.label_manager, False))
    shown = torch.cat([maps.float()] * combination.channels, dim=1)
    images = shown + 0.1 * torch.randn(shown.shape)
    samples = [transform(image=x, segmentation=y) for x, y in zip(images, maps, strict=True)]
    targets = [sample["segmentation"] for sample in samples]
    if scales is None:
        target = torch.stack(targets)
    else:
        target = [torch.stack(resolution) for resolution in zip(*targets, strict=True)]
    return {"data": torch.stack([sample["image"] for sample in samples]), "target": target}


def expected_trainable(combination: Combination, network: nn.Module) -> set[str]:
    """Names of the parameters that the definition of the tuning lets train."""
    names = {name for name, _ in network.named_parameters()}
    if combination.tuning == "full":
        return names
    head = {name for name in names if not name.startswith(combination.backbone)}
    return head | (lora_names(combination) if combination.tuning == "lora" else set())


def lora_names(combination: Combination, matrices: str = "AB") -> set[str]:
    """Names of LoRA's matrices: two for each of qkv and proj of every block."""
    layers = product(range(NUM_BLOCKS), ("qkv", "proj"), matrices)
    return {
        f"{combination.backbone}vit.blocks.{block}.attn.{layer}.lora_{matrix}.default.weight"
        for block, layer, matrix in layers
    }
