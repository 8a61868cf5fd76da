"""Every head: a trained model folder is all that a prediction, an ensemble or another installation needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry, install_from_zip_entry_point
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from nnunetv2.utilities.class_lookup import find_by_name
from tests.training.tiny_dataset import DATASET_JSON, NAME, SIZE, Schedule, make_trainer, write_tiny_dataset

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

CPU = torch.device("cpu")
READER = NaturalImage2DIO()
SETTINGS = """
model: {{backbone_size: tiny, checkpoint: {weights}, {model}}}
training: {{lr: 1e-2, num_epochs: 1, num_iterations_per_epoch: 2, num_val_iterations_per_epoch: 1}}
"""
# Predictions in a process that has no network and no cache of a hub. Each argument is one command line.
ISOLATED = """
import socket, sys

def refuse(*args, **kwargs):
    raise RuntimeError("a prediction asked for the network")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from nnunetv2.inference.predict_entry_points import predict_entry_point
sys.exit(max(predict_entry_point(words.split()) for words in sys.argv[1:]))
"""


@dataclass(frozen=True)
class Head:
    """One head, and how to train a small one."""

    fold: int
    trainer: str
    settings: str | None = None
    """`m2f` for the trainer's argument `m2f_config_path`"""
    model: str = ""
    """what its settings say about the model"""


HEADS = {
    "unet": Head(0, "nnUNetTrainer"),
    "upernet": Head(1, "nnUNetTrainer_mymodel", "vit", "tuning: frozen, hidden_size: 16"),
    "segformer": Head(2, "nnUNetTrainer_segformer", "segformer", "tuning: lora, decoder_hidden_size: 16"),
    "m2f": Head(
        3,
        "nnUNetTrainer_m2f",
        "m2f",
        "tuning: lora, num_queries: 5, hidden_dim: 64, num_heads: 2, dim_feedforward: 32, num_encoder_layers: 1, "
        "num_decoder_layers: 3",
    ),
    "eomt": Head(4, "nnUNetTrainerNoDeepSupervision_m2f", "m2f", "type: eomt, tuning: full, num_queries: 5"),
}
WITH_LORA = ("segformer", "m2f")
FLOAT16 = 5e-4  # of probabilities: a last digit of a logit between 1 and 2


@dataclass(frozen=True)
class Trained:
    """One model of each head and fold, an image, and what the networks made of it while they were in memory."""

    root: Path
    in_memory: dict[str, tuple[np.ndarray, np.ndarray]]
    """for each head: labels (1, Y, X) and probabilities (K, 1, Y, X)"""

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def results(self) -> Path:
        return self.root / "nnUNet_results"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as environment:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir()
            environment.setenv(variable, str(root / variable))
        environment.setenv("nnUNet_n_proc_DA", "0")
        environment.setenv("nnUNet_compile", "f")
        torch.manual_seed(0)
        np.random.seed(0)
        write_tiny_dataset(root / "nnUNet_preprocessed")
        (root / "images").mkdir()
        image = np.random.default_rng(3).integers(0, 3, (1, 1, SIZE, SIZE), dtype=np.uint8)
        READER.write_seg(image[0], str(root / "images" / "new_0000.png"), {"spacing": [999.0, 1.0, 1.0]})
        weights = root / "backbone.pth"
        torch.save(create_backbone("dinov3", "tiny").vit.state_dict(), weights)
        predictions = {name: train_and_predict(head, root, weights) for name, head in HEADS.items()}
        # what the trainings started from is gone, and nothing but the model folders remains
        weights.unlink()
        shutil.rmtree(root / "nnUNet_preprocessed")
        for settings in root.rglob("*_config.yaml"):
            settings.unlink()
        environment.delenv("nnUNet_raw")
        environment.delenv("nnUNet_preprocessed")
        yield Trained(root, predictions)


def train_and_predict(head: Head, root: Path, weights: Path) -> tuple[np.ndarray, np.ndarray]:
    arguments: dict[str, Any] = {}
    if head.settings is not None:
        settings = root / f"my_{head.trainer}_config.yaml"
        settings.write_text(SETTINGS.format(weights=weights, model=head.model))
        arguments[f"{head.settings}_config_path"] = str(settings)
    schedule = Schedule(epochs=1) if head.settings is None else None
    trainer = make_trainer(find_by_name("trainer", head.trainer), schedule, fold=head.fold, **arguments)
    trainer.run_training()
    predictor = new_predictor()
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        DATASET_JSON,
        head.trainer,
        trainer.inference_allowed_mirroring_axes,
    )
    return predict_image(predictor, root / "images")


def new_predictor() -> nnUNetPredictor:
    return nnUNetPredictor(device=CPU, allow_tqdm=False)


def predict_image(predictor: nnUNetPredictor, images: Path) -> tuple[np.ndarray, np.ndarray]:
    image, properties = READER.read_images([str(images / "new_0000.png")])
    return predictor.predict_single_npy_array(image, properties, save_or_return_probabilities=True)


def predict_with_model_in(results: Path, head: Head, images: Path) -> tuple[np.ndarray, np.ndarray]:
    predictor = new_predictor()
    predictor.initialize_from_trained_model_folder(results / NAME / f"{head.trainer}__nnUNetPlans__2d", (head.fold,))
    return predict_image(predictor, images)


@pytest.fixture(scope="module")
def predicted(trained: Trained) -> dict[str, Path]:
    """For each head the folder of what a new process predicted, with probabilities."""
    folders = {name: trained.root / f"predicted_{name}" for name in HEADS}
    commands = [
        f"-i {trained.images} -o {folders[name]} -d {NAME} -c 2d -f {head.fold} -tr {head.trainer} "
        "-device cpu -npp 0 -nps 0 --save_probabilities"
        for name, head in HEADS.items()
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(trained.root / "empty"),
        "TORCH_HOME": str(trained.root / "empty"),
    }
    done = subprocess.run(
        [sys.executable, "-c", ISOLATED, *commands], env=environment, cwd=trained.root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folders


def read_prediction(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    labels, _ = READER.read_seg(str(folder / "new.png"))
    with np.load(folder / "new.npz") as content:
        return labels[0], content["probabilities"]


def assert_predicts_as_in_memory(trained: Trained, name: str, labels: np.ndarray, probabilities: np.ndarray) -> None:
    """With LoRA up to float16's rounding of logits: the network in memory adds updates to features, not to weights."""
    np.testing.assert_array_equal(labels, trained.in_memory[name][0])
    np.testing.assert_allclose(
        probabilities, trained.in_memory[name][1], rtol=0, atol=FLOAT16 if name in WITH_LORA else 0
    )


@pytest.mark.parametrize("name", HEADS)
def test_a_new_process_predicts_with_the_model_folder_alone_what_the_network_in_memory_did(trained, predicted, name):
    assert_predicts_as_in_memory(trained, name, *read_prediction(predicted[name]))


def test_models_of_different_heads_are_ensembled(trained, predicted):
    output = trained.root / "ensembled"
    folders = [str(folder) for folder in predicted.values()]
    assert entry_point_ensemble_folders(["-i", *folders, "-o", str(output), "-np", "1", "--save_npz"]) == 0
    mean = np.mean([probabilities for _, probabilities in trained.in_memory.values()], axis=0)
    labels, probabilities = read_prediction(output)
    np.testing.assert_allclose(probabilities, mean, rtol=0, atol=FLOAT16)
    np.testing.assert_array_equal(labels, mean.argmax(0))
    alone = [prediction[1] for prediction in trained.in_memory.values()]
    assert all(np.abs(probabilities - other).max() > 1e-3 for other in alone)  # each of them counts


def export_and_install(
    trained: Trained, head: Head, target: Path, environment: pytest.MonkeyPatch, *flags: str
) -> None:
    archive = target.with_suffix(".zip")
    words = f"-d {NAME} -o {archive} -tr {head.trainer} -c 2d -f {head.fold} --not_strict".split()
    assert export_pretrained_model_entry([*words, *flags]) == 0
    with environment.context() as elsewhere:
        elsewhere.setenv("nnUNet_results", str(target))
        assert install_from_zip_entry_point([str(archive)]) == 0


@pytest.mark.parametrize("name", HEADS)
def test_an_installed_model_predicts_the_same(trained, name, tmp_path, monkeypatch):
    head, target = HEADS[name], tmp_path / "elsewhere"
    export_and_install(trained, head, target, monkeypatch)
    assert_predicts_as_in_memory(trained, name, *predict_with_model_in(target, head, trained.images))


@pytest.mark.parametrize("name", WITH_LORA)
def test_a_model_whose_adapters_were_merged_predicts_the_same(trained, name, tmp_path, monkeypatch):
    head, target = HEADS[name], tmp_path / "elsewhere"
    export_and_install(trained, head, target, monkeypatch, "--merge_lora")
    assert_predicts_as_in_memory(trained, name, *predict_with_model_in(target, head, trained.images))

    checkpoint = Path(NAME, f"{head.trainer}__nnUNetPlans__2d", f"fold_{head.fold}", "checkpoint_final.pth")
    before = load_checkpoint(trained.results / checkpoint)["network_weights"]
    after = load_checkpoint(target / checkpoint)["network_weights"]
    assert not any("lora" in key or "base_layer" in key for key in after)
    adapted = [key for key in before if key.endswith("base_layer.weight")]
    assert adapted
    assert all((after[key.replace(".base_layer", "")] - before[key]).abs().max() > 1e-4 for key in adapted)
