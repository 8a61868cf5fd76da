"""Heads, losses and backbones of users that are wrong: said with their file before anything is built."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.model.backbones import create_backbone
from nnunetv2.run.run_training_vit import run_training_entry
from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

HEAD = """
from dataclasses import dataclass
from torch import nn
from nnunetv2.model.head import DenseHead, QueryHead, register_head
from nnunetv2.model.head_config import DenseHeadConfig, QueryHeadConfig

@register_head("mine")
class Mine(DenseHead):
    @dataclass
    class Config(DenseHeadConfig):
        width: int = 3

    def __init__(self, config, spec, num_classes):
        super().__init__(config, spec, num_classes)
        self.classify = nn.Conv2d(spec.embed_dim, num_classes, 1)

    def forward(self, features):
        return self.classify(features.maps[-1])
"""
CONFIG = "    @dataclass\n    class Config(DenseHeadConfig):\n        width: int = 3\n\n"
LOSS = """
from dataclasses import dataclass
from nnunetv2.training.loss.loss_config import DenseLossConfig, QueryLossConfig
from nnunetv2.training.loss.named_loss import DenseLoss, register_loss

@register_loss("mine")
class Mine(DenseLoss):
    @dataclass
    class Config(DenseLossConfig):
        weight: float = 1.0

    def forward(self, logits, target):
        return logits.mean()
"""
BACKBONE = """
from nnunetv2.model.backbone_families import ANY_IMAGE_SIZE, BackboneSize
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.backbones import TimmBackbone, register_backbone

@register_backbone("mine")
class Mine(TimmBackbone):
    class Sizes:
        rows = {
            "tiny": BackboneSize(
                timm_name="vit_tiny_patch16_224",
                weights=None,
                shape=BackboneShape(width=192, depth=2, patch_size=16),
                options={"depth": 2, **ANY_IMAGE_SIZE},
            )
        }
"""
TINY = ["model.backbone_size=tiny", "model.pretrained=false", "model.tuning=full"]
WITH_HEAD = [*TINY, "model.head=mine"]
WITH_LOSS = [*TINY, "model.head=linear", "training.loss=mine"]
WITH_BACKBONE = [*TINY, "model.head=linear", "model.backbone=mine"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, named by the variable; what its files change in the interpreter is undone."""
    found = tmp_path / "mine"
    found.mkdir()
    monkeypatch.setenv("nnUNet_extensions", str(found))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if str(tmp_path) in f"{name} {getattr(sys.modules[name], '__file__', '')}":
            del sys.modules[name]


def write(folder: Path, text: str, *changes: tuple[str, str]) -> None:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "wrong_file.py").write_text(text)


def load(words: list[str]) -> None:
    """What a trainer does before anything is built."""
    AnyHeadConfig.load(None, words)[0].load_classes()


@pytest.mark.parametrize(("text", "words"), [(HEAD, WITH_HEAD), (LOSS, WITH_LOSS), (BACKBONE, WITH_BACKBONE)])
def test_what_is_right_is_taken(folder, text, words):
    write(folder, text)
    load(words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("forward(self, features)", "forwards(self, features)"),
            r"line 7: Mine must define forward\(self, features\)",
        ),
        (
            ("forward(self, features)", "forward(self)"),
            r"Mine.forward\(self\) must accept .* \(self, features\) of Den",
        ),
        (
            ("Mine(DenseHead)", "Mine(nn.Module)"),
            "line 7: Mine must be a class that derives from DenseHead of nnunetv2",
        ),
        (("Config(DenseHeadConfig)", "Config"), "Mine.Config must derive from DenseHeadConfig or QueryHeadConfig"),
        (
            ("Config(DenseHeadConfig)", "Config(QueryHeadConfig)"),
            "line 7: Mine.Config must derive from DenseHeadConfig",
        ),
        (("import nn\n", "import nn\nNN = nn.Nothing\n"), "line 4: AttributeError: .*Nothing"),
        (("width: int = 3", "width: int = 3 / 0"), "line 11: ZeroDivisionError: division by zero; correct this file"),
    ],
)
def test_a_head_that_is_wrong(folder, change, message):
    write(folder, HEAD, change)
    with pytest.raises(UsageError, match=f"wrong_file.py.*{message}"):
        load(WITH_HEAD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("def forward", "def loss"), r"line 6: Mine must define forward\(self, logits, target\), see DenseLoss"),
        (("logits, target)", "logits)"), r"Mine.forward\(self, logits\) must accept the arguments"),
        (("Config(DenseLossConfig)", "Config"), "Mine.Config must derive from DenseLossConfig or QueryLossConfig"),
        (("Config(DenseLossConfig)", "Config(QueryLossConfig)"), "does not fit the head, which classifies pixels"),
        (("    @dataclass\n", ""), "put @dataclass on Mine.Config"),
    ],
)
def test_a_loss_that_is_wrong(folder, change, message):
    write(folder, LOSS, change)
    with pytest.raises(UsageError, match=message):
        load(WITH_LOSS)
    load([*TINY, "model.head=linear"])  # a loss that is not asked for stops nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("class Sizes", "class Others"), "wrong_file.py, line 6: Mine needs a class Sizes with rows"),
        (("rows =", "table ="), "wrong_file.py: Mine.Sizes must have the class attribute rows"),
        (("width=192, ", ""), r"wrong_file.py, line 13: TypeError: .*missing 1 required .*'width'; correct this file"),
        (("width=192", "size=192"), "wrong_file.py, line 13: TypeError: .*unexpected keyword argument 'size'"),
        (("width=192", "width='192'"), r"Mine.Sizes.rows\['tiny'\].shape.width is '192'; it must be a whole number"),
        (("depth=2,", "depth=0,"), "shape.depth is 0; it must be a whole number above 0"),
        (("shape=BackboneShape(width=192, depth=2, patch_size=16)", "shape=(192, 2, 16)"), "whose shape is a Backbone"),
        (("Mine(TimmBackbone)", "Mine"), "wrong_file.py, line 6: Mine must be a class that derives from Backbone of"),
    ],
)
def test_a_backbone_that_is_wrong(folder, change, message):
    write(folder, BACKBONE, change)
    with pytest.raises(UsageError, match=message):
        load(WITH_BACKBONE)
    load([*TINY, "model.head=linear"])


@pytest.mark.slow
def test_a_backbone_is_built_as_its_table_says(folder):
    write(folder, BACKBONE)
    assert create_backbone("mine", "tiny").num_blocks == 2
    write(folder, BACKBONE, ("depth=2,", "depth=3,"))
    (folder / "wrong_file.py").rename(folder / "other_file.py")
    with pytest.raises(UsageError, match="other_file.py: Mine is built with num_blocks=2, .* in Sizes says depth=3; "):
        create_backbone("mine", "tiny")


@pytest.mark.parametrize("base", ["DenseHead", "QueryHead"])
def test_a_head_without_settings_has_those_of_its_base(folder, base):
    write(folder, HEAD, (CONFIG, ""), ("Mine(DenseHead)", f"Mine({base})"))
    config = AnyHeadConfig.load(None, WITH_HEAD)[0]
    assert config.model.head_config().kind == {"DenseHead": "dense", "QueryHead": "queries"}[base]
    load(WITH_HEAD)


@pytest.mark.slow
def test_a_head_without_settings_trains(folder, nnunet_folders):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    write(folder, HEAD, (CONFIG, ""))
    trainer = make_trainer(nnUNetTrainer_vit, overrides=WITH_HEAD)
    trainer.initialize()
    assert trainer.network.head.name == "mine"


@pytest.mark.slow
def test_a_fast_dev_run_names_parameters_without_a_gradient(folder, nnunet_folders, capsys):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    unused = "        self.unused = nn.Conv2d(2, 2, 1)\n        self.frozen = nn.Linear(2, 2).requires_grad_(False)\n"
    write(folder, HEAD, ("    def forward", f"{unused}\n    def forward"))
    command = ["777", "2d", "0", "-device", "cpu", "--fast_dev_run", "training.patch_size=[64,64]"]
    assert run_training_entry([*command, *WITH_HEAD]) == 0
    report = capsys.readouterr().out
    assert "WARNING: no gradient reaches head.unused.weight, head.unused.bias. They are not trained" in report
    assert run_training_entry([*command, *TINY, "model.head=linear"]) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_the_command_says_it_in_one_line(folder, capsys):
    write(folder, HEAD, ("width: int = 3", "width: int = THREE"))
    assert run_training_entry(["777", "2d", "0", *WITH_HEAD]) == 2
    error = capsys.readouterr().err
    assert error.endswith("wrong_file.py, line 11: NameError: name 'THREE' is not defined; correct this file\n")
    assert error.count("\n") == 1
