import os

import numpy as np
import pytest
import torch
from torch import nn

from dinov3.utils import devices
from dinov3.utils.host_copies import LateScalar, LateValues
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.helpers import dummy_context, empty_cache, softmax_helper_dim0, softmax_helper_dim1
from nnunetv2.utilities.network_initialization import InitWeights_He
from tests.utilities.recorded_answers import recorded


@pytest.mark.parametrize("num_cases", [5, 13])
def test_splits_are_upstreams(num_cases):
    splits = generate_crossval_split([f"case_{i:02d}" for i in range(num_cases)])
    assert splits == recorded("splits")[str(num_cases)]


def test_each_case_validates_once():
    splits = generate_crossval_split([str(i) for i in range(7)], seed=1, n_splits=3)
    assert sorted(case for split in splits for case in split["val"]) == [str(i) for i in range(7)]
    assert all(
        not set(split["train"]) & set(split["val"]) and len(split["train"] + split["val"]) == 7 for split in splits
    )
    assert {type(case) for case in splits[0]["train"]} == {str}


def test_too_few_cases_for_the_folds_are_refused():
    with pytest.raises(
        DataError,
        match="4 training cases cannot be split into 5 folds; .*--num_folds 4.* splits_final.json",
    ):
        generate_crossval_split(list("abcd"))


def test_outputs_of_steps_are_joined():
    steps = [{"loss": np.float32(i), "tp": np.array([i, i + 1]), "keys": [f"k{i}"]} for i in range(3)]
    joined = collate_outputs(steps)
    assert joined["loss"] == [0, 1, 2]
    assert joined["tp"].tolist() == [[0, 1], [1, 2], [2, 3]]
    assert joined["keys"] == ["k0", "k1", "k2"]
    late = [{"loss": LateScalar(LateValues(torch.tensor([value])))} for value in (0.5, 1.5)]
    assert collate_outputs(late)["loss"].tolist() == [0.5, 1.5]
    with pytest.raises(TypeError, match="output 'x' is a dict; a step may return scalars"):
        collate_outputs([{"x": {}}])


@pytest.mark.parametrize(
    ("value", "expected"), [("0", 0), ("1", 1), ("100000", os.cpu_count()), (None, min(12, os.cpu_count()))]
)
def test_number_of_augmentation_processes(monkeypatch, value, expected):
    if value is None:
        monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    else:
        monkeypatch.setenv("nnUNet_n_proc_DA", value)
    assert get_allowed_n_proc_DA() == expected


@pytest.mark.parametrize("value", ["-1", "many", "", "1.5"])
def test_wrong_number_of_augmentation_processes_is_refused(monkeypatch, value):
    monkeypatch.setenv("nnUNet_n_proc_DA", value)
    with pytest.raises(UsageError, match="nnUNet_n_proc_DA is .*; it must be a whole number"):
        get_allowed_n_proc_DA()


def test_cpu_is_always_there():
    assert devices.resolve_device("cpu") == torch.device("cpu")


def test_absent_device_names_those_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="has no cuda device that torch can use; it has cpu: -device cpu$"):
        devices.resolve_device("cuda")


def test_present_device_is_returned(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.resolve_device("cuda") == torch.device("cuda")


def test_unknown_device_is_refused():
    with pytest.raises(UsageError, match="-device 'gpu' is not known; it must be one of cpu, cuda, mps"):
        devices.resolve_device("gpu")


def test_softmax_sums_to_one_over_its_axis(seeded):
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(softmax_helper_dim0(x).sum(0), torch.ones(4, 5))
    torch.testing.assert_close(softmax_helper_dim1(x).sum(1), torch.ones(3, 5))


def test_dummy_context_lets_errors_through():
    with dummy_context():
        pass
    with pytest.raises(KeyError), dummy_context():
        raise KeyError


@pytest.mark.parametrize(("kind", "called"), [("cpu", []), ("cuda", ["cuda"]), ("mps", ["mps"])])
def test_cache_of_the_device_is_emptied(monkeypatch, kind, called):
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: calls.append("mps"))
    empty_cache(torch.device(kind))
    assert calls == called


def test_he_initialisation_has_the_right_spread(seeded):
    network = nn.Sequential(nn.Conv2d(64, 128, 3), nn.InstanceNorm2d(128, affine=True), nn.ConvTranspose2d(128, 64, 2))
    norm_before = network[1].weight.clone()
    network.apply(InitWeights_He(0.01))
    expected = (2 / (1 + 0.01**2) / (64 * 9)) ** 0.5
    assert network[0].weight.std().item() == pytest.approx(expected, rel=0.02)
    assert network[0].bias.abs().max() == 0
    assert network[2].bias.abs().max() == 0
    torch.testing.assert_close(network[1].weight, norm_before)
    InitWeights_He()(nn.Conv3d(2, 2, 1, bias=False))
