"""What the line `run` tells about the conditions of a training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nnunetv2.training.logging.metric_lines import read_metrics
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.protocol.augmentation import augmentation_steps
from nnunetv2.training.protocol.conditions import protocol_information
from nnunetv2.training.protocol.hashes import cases_description, content_hash
from nnunetv2.training.protocol.weights import pretrained_weights
from tests.training.tiny_dataset import CASES, Schedule, make_trainer, write_tiny_dataset

PIPELINE = (
    "ComposeTransforms( transforms = [SpatialTransform( patch_size = (56, 40), rotation = (-1.5, 1.5), mode = 'a, b', "
    "_grid_cache = {(56, 40): tensor([[[-27.5, 1.0],\n  [2.0, 3.0]]])} ), RandomTransform(p=0.2, "
    "transform=GaussianBlurTransform( blur_sigma = (0.5, 1.0), benchmark = True, benchmark_use_fft = {2: {}}, "
    "p_per_channel = 1.0, hook = <function f at 0x7f00aa> )), DownsampleSegForDSTransform( ds_scales = [[1.0]] )] )"
)


def test_an_augmentation_is_told_without_caches_addresses_and_what_the_network_asks_for():
    assert augmentation_steps(PIPELINE) == [
        "SpatialTransform(rotation=(-1.5, 1.5), mode='a, b')",
        "RandomTransform(p=0.2, transform=GaussianBlurTransform(blur_sigma=(0.5, 1), p_per_channel=1, "
        "hook=<function f>))",
    ]


def test_an_augmentation_of_another_form_is_one_step():
    assert augmentation_steps("<my.Pipeline object at 0x7f0011>") == ["<my.Pipeline object>"]


def test_hashes_do_not_mind_order_last_digits_and_how_numbers_are_written():
    here = {"a": 358.44494664267205, "b": (1.0, math.nan), 2: "x"}
    there = {"2": "x", "b": [1, math.nan], "a": 358.4449462890625}
    assert content_hash(here) == content_hash(there)
    assert content_hash(here) != content_hash({**there, "a": 358.45})
    assert cases_description(["b", "a"]) == cases_description(("a", "b")) != cases_description(["a"])


def test_pretrained_weights_are_named_by_file_size_and_head(tmp_path):
    model = {"backbone": "dinov3", "backbone_size": "base", "pretrained": True, "checkpoint": None}
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"abc")
    assert pretrained_weights({"model": model}) == "dinov3 base, released weights"
    assert pretrained_weights({"model": {**model, "pretrained": False}}) == "dinov3 base, random weights"
    from_file = pretrained_weights({"model": {**model, "checkpoint": str(path)}})
    assert from_file == "dinov3 base, w.safetensors (3 bytes, head ba7816bf8f01)"  # SHA-256 of FIPS 180's example
    path.unlink()
    assert pretrained_weights({"model": {**model, "checkpoint": str(path)}}) == "dinov3 base, w.safetensors"
    assert pretrained_weights(None) == pretrained_weights({"length": 3}) == "none given"
    path.write_bytes(b"abc")
    assert pretrained_weights(None, path) == pretrained_weights({"model": model}, path) == from_file.split(", ", 1)[1]


class _OwnValidation(nnUNetTrainer):
    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        pass


def test_a_validation_of_a_trainers_own_is_unknown(nnunet_folders):
    told = protocol_information(make_trainer(_OwnValidation)._conditions())
    assert told["mirror_axes"] is told["tile_step_size"] is told["split"] is told["fingerprint_sha256"] is None


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_a_training_tells_its_conditions(nnunet_folders, monkeypatch, num_workers):
    monkeypatch.setenv("nnUNet_n_proc_DA", num_workers)
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = make_trainer(nnUNetTrainer, Schedule(epochs=1))
    trainer.run_training()
    training, validation = trainer.do_split()
    (run,) = [line for line in read_metrics(Path(trainer.output_folder) / "metrics.jsonl") if line["type"] == "run"]
    assert run["split"] == {"training": cases_description(training), "validation": cases_description(validation)}
    assert run["split"]["training"]["num_cases"] + run["split"]["validation"]["num_cases"] == len(CASES)
    names = " ".join(run["augmentation"]["transforms"])
    assert "SpatialTransform(" in names and "GammaTransform(" in names
    assert "tensor" not in names and "0x" not in names and "Downsample" not in names
    assert run["augmentation"]["sha256"] == content_hash(run["augmentation"]["transforms"])
    assert run["oversample_foreground_percent"] == 0.33 and run["probabilistic_oversampling"] is False
    assert run["mirror_axes"] == [0, 1] and run["tile_step_size"] == 0.5
    assert run["fingerprint_sha256"] == content_hash({})
    assert (run["optimizer"], run["initial_lr"]) == ("SGD", 0.01)
