"""Vision transformers on 3-D configurations: steps of a training, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from tests.contracts.cases import LABELS, write_empty_dataset
from tests.model.heads.small import small_words
from tests.training.tiny_dataset import tiny_plans

PATCH = [4, 32, 24]


def plans(channels: int = 1, **changes: Any) -> dict[str, Any]:
    content = tiny_plans()
    content["configurations"]["2d"] |= {
        "patch_size": PATCH,
        "normalization_schemes": ["NoNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        **changes,
    }
    return content


def make_trainer(
    head: str = "segformer", *words: str, channels: int = 1, labels: str = "labels", **changes: Any
) -> nnUNetTrainer_vit:
    names = {str(channel): f"channel {channel}" for channel in range(channels)}
    dataset_json = {"channel_names": names, "labels": LABELS[labels], "numTraining": 1, "file_ending": ".nii.gz"}
    if "regions" in labels:
        dataset_json["regions_class_order"] = [1, 2]
    settings = [*small_words(head, tuning="lora"), *words]
    arguments = (plans(channels, **changes), "2d", 0, dataset_json, torch.device("cpu"))
    return nnUNetTrainer_vit(*arguments, overrides=settings)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    write_empty_dataset(tmp_path / "nnUNet_preprocessed")


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(
    ("head", "channels", "labels", "depth"),
    [
        ("segformer", 1, "labels", 4),
        ("eomt", 2, "regions", 1),
        ("segformer", 4, "regions_ignore", 5),
        ("m2f", 1, "ignore", 3),
    ],
)
def test_steps_on_volumes(head: str, channels: int, labels: str, depth: int) -> None:
    trainer = make_trainer(head, "training.lr=1e-3", channels=channels, labels=labels, patch_size=[depth, 32, 24])
    trainer.initialize()
    torch.manual_seed(0)
    target = (
        torch.randint(0, 3, (2, 1, depth, 2, 3), dtype=torch.int16).repeat_interleave(16, 3).repeat_interleave(8, 4)
    )
    image = torch.randn(2, channels, depth, 32, 24) + 2 * target
    if "regions" in labels:
        own = torch.cat([target > 0, target == 2], dim=1)
        ignored = torch.zeros_like(own[:, :1])
        ignored[..., :5] = True
        target = torch.cat([own, ignored], dim=1) if "ignore" in labels else own
    elif "ignore" in labels:
        target[:, :, 1:] = 3  # one slice of each volume is annotated
    batch = {"data": image, "target": target}
    trainer.network.train()
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(15)]
    assert sum(losses[-3:]) < sum(losses[:3])
    trainer.network.eval()
    with torch.no_grad():
        assert torch.isfinite(torch.as_tensor(trainer.validation_step(batch)["loss"]))
        assert trainer.network(batch["data"]).shape == (2, trainer.label_manager.num_segmentation_heads, depth, 32, 24)


def test_adapters_between_slices_have_the_rate_of_the_head() -> None:
    trainer = make_trainer("segformer", "training.lr=0.25")
    trainer.num_input_channels = 1
    trainer.initial_lr = 0.25
    trainer.network = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, False
    )
    adapters = {id(parameter) for parameter in trainer.network.fusion.parameters()}
    rates = {group["lr"] for group in trainer.parameter_groups() for one in group["params"] if id(one) in adapters}
    assert rates == {0.25}
    assert not any(name.startswith("fusion") for name, _ in trainer.network.backbone.named_parameters())


def test_mirrored_axes_can_be_chosen() -> None:
    geometry = "configure_rotation_dummyDA_mirroring_and_inital_patch_size"
    for words, expected in (
        ([], (0, 1, 2)),
        (["training.mirror_axes=[1,2]"], (1, 2)),
        (["training.mirror_axes=[]"], ()),
    ):
        trainer = make_trainer("segformer", *words)
        assert getattr(trainer, geometry)()[-1] == expected
        assert trainer.inference_allowed_mirroring_axes == expected
    with pytest.raises(
        UsageError, match=r"training.mirror_axes=\[1, 3\] must be different axes of the patch, of \[0, 1, 2\]"
    ):
        getattr(make_trainer("segformer", "training.mirror_axes=[1,3]"), geometry)()


def test_unfit_configurations_are_refused() -> None:
    with pytest.raises(UsageError, match="configuration 2d is the second stage of a cascade"):
        make_trainer("segformer", previous_stage="other")
    with pytest.raises(UsageError, match=r"patch_size=\[32, 32\] has 2 axes, and the patch of the plans, .* has 3"):
        make_trainer("segformer", "training.patch_size=[32,32]")
