"""The Python examples of the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
TEXTS = [(REPOSITORY / "docs" / name).read_text() for name in ("custom_trainers.md", "trainers.md")]
EXAMPLES = re.findall(r"```python\n(.*?)```", "\n".join(TEXTS), flags=re.DOTALL)


def trainer_of(example: str) -> type[nnUNetTrainer]:
    names: dict[str, object] = {}
    exec(compile(example, "docs", "exec"), names)
    return next(v for k, v in names.items() if k.startswith("nnUNetTrainer_"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.search(r"class (\w+)", example)[1])
def test_example_trainers_can_take_a_step(example: str, nnunet_folders: dict[str, Path], seeded: int) -> None:
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = make_trainer(trainer_of(example))
    trainer.precision = "fp32"
    trainer.on_train_start()
    before = [weight.clone() for weight in trainer.network.parameters()]
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.train_step(next(trainer.dataloader_train))
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.network.parameters(), strict=True))


def test_the_dropout_of_the_example_reaches_the_network(nnunet_folders: dict[str, Path]) -> None:
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    example = next(example for example in EXAMPLES if "dropout" in example)
    trainer = make_trainer(trainer_of(example), dropout=0.25)
    trainer.initialize()
    assert {module.p for module in trainer.network.modules() if isinstance(module, torch.nn.Dropout2d)} == {0.25}


def test_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (REPOSITORY / "README.md").read_text())
    assert targets
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []
