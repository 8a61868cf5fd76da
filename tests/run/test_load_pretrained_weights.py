"""Weights of another training as the start of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from tests.model.test_model_m2f import small_model


class _Network(nn.Module):
    def __init__(self, features: int = 4, num_classes: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(1, features, 3)
        self.decoder = nn.Module()
        self.decoder.seg_layers = nn.ModuleList([nn.Conv2d(features, num_classes, 1)])


def _saved(network: nn.Module, path: Path) -> str:
    torch.save({"network_weights": network.state_dict()}, path)
    return str(path)


def test_all_but_the_segmentation_layers_are_copied(tmp_path: Path) -> None:
    source, target = _Network(num_classes=5), _Network(num_classes=2)
    head = target.decoder.seg_layers[0].weight.detach().clone()
    load_pretrained_weights(target, _saved(source, tmp_path / "a.pth"), verbose=True)
    torch.testing.assert_close(target.encoder.weight, source.encoder.weight)
    torch.testing.assert_close(target.decoder.seg_layers[0].weight, head)


def test_mask2former_of_other_classes_is_copied_up_to_its_classifier(tmp_path: Path) -> None:
    source, target = small_model(classes=5), small_model(classes=2)
    classifier = ".predictor.class_embed."
    before = {name: value.clone() for name, value in target.state_dict().items() if classifier in name}
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1)
    load_pretrained_weights(target, _saved(source, tmp_path / "a.pth"))
    expected = {name: value for name, value in source.state_dict().items() if classifier not in name} | before
    torch.testing.assert_close(dict(target.state_dict()), expected, rtol=0, atol=0)


def test_other_network_is_refused_with_the_tensors_that_differ(tmp_path: Path) -> None:
    path = _saved(_Network(features=8), tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"encoder\.weight has shape \(8, 1, 3, 3\) instead of \(4, 1, 3, 3\)"):
        load_pretrained_weights(_Network(features=4), path)


def test_file_that_is_absent_or_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no file .*absent\.pth"):
        load_pretrained_weights(_Network(), str(tmp_path / "absent.pth"))
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"no network_weights, only \['state_dict'\]"):
        load_pretrained_weights(_Network(), str(tmp_path / "other.pth"))
