"""Makes vit_models.json and vit_models.npz: what a training of each transformer leaves behind, and what it predicts.

Recorded at 6d5a276, before the heads were rebuilt:

    OMP_NUM_THREADS=1 python -m tests.recorded.make_vit_models

Each model is trained for a few steps and killed. Its files and its checkpoint are recorded, weights and moments of the
optimiser left out: `vit_model_folder.formula` takes their place. Then the folder is rebuilt from the record, predicts,
and goes on training.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2.utilities.checkpoint_io import load_checkpoint
from nnunetv2.utilities.class_lookup import find_by_name
from tests.recorded import vit_model_folder
from tests.training.tiny_dataset import tiny_plans

PATCH = (32, 24)  # 24 is no multiple of 16: the transformers pad it
STEPS = 2  # of an epoch
SMALLEST_MARGIN = 3e-4  # in probability; sums of logits are stored in half precision
MANY = 20  # pixels that a label needs to count
NUM_IMAGES = 20  # to choose from

LABELS: dict[str, dict[str, Any]] = {
    "labels": {"labels": {"background": 0, "left": 1, "right": 2}},
    "regions": {"labels": {"background": 0, "whole": [1, 2], "right": [2]}, "regions_class_order": [1, 2]},
    "ignore": {"labels": {"background": 0, "left": 1, "right": 2, "ignore": 3}},
}
SMALL_M2F = {
    "num_queries": 3,
    "hidden_dim": 64,
    "num_heads": 2,
    "dim_feedforward": 32,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
}


@dataclass(frozen=True)
class Case:
    """One model, and how it is trained.

    Attributes:
        trainer: name of its class.
        keyword: `vit` for the arguments `vit_config_path` and `vit_overrides`.
        model: section of that name of its settings.
        other: further sections; `training` is added to what all cases have.
        words: settings that are given as words instead.
        channels: of the images.
        labels: key of `LABELS`.
        normalization: of all channels.
        gain: of the formula for weights, see `vit_model_folder.formula`; such that predictions are not constant.
        epochs: that are trained before the training is killed; three are planned where `other` gives no number.
    """

    trainer: str
    keyword: str
    model: dict[str, Any]
    other: dict[str, dict[str, Any]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    channels: int = 1
    labels: str = "labels"
    normalization: str = "ZScoreNormalization"
    gain: float = 1.5
    epochs: int = 1

    def dataset_json(self) -> dict[str, Any]:
        names = {str(channel): f"channel {channel}" for channel in range(self.channels)}
        return {"channel_names": names, **LABELS[self.labels], "numTraining": 1, "file_ending": ".png"}

    def plans(self) -> dict[str, Any]:
        plans = tiny_plans()
        plans["configurations"]["2d"] |= {
            "patch_size": list(PATCH),
            "normalization_schemes": [self.normalization] * self.channels,
            "use_mask_for_norm": [False] * self.channels,
        }
        intensities = {"max": 255.0, "mean": 128.0, "min": 0.0, "std": 60.0}
        properties = {str(channel): intensities for channel in range(self.channels)}
        return plans | {"foreground_intensity_properties_per_channel": properties}

    def settings(self) -> dict[str, Any]:
        schedule = {"num_epochs": 3, "num_iterations_per_epoch": STEPS, "num_val_iterations_per_epoch": 1}
        training = {**schedule, "lr": 1e-2, "save_every": 1, **self.other.get("training", {})}
        model = {"backbone_size": "tiny", "pretrained": False, **self.model}
        return {**self.other, "model": model, "training": training}


def _upernet(tuning: str, **model: Any) -> dict[str, Any]:
    return {"trainer": "nnUNetTrainer_mymodel", "keyword": "vit", "model": {"tuning": tuning, **model}}


def _segformer(tuning: str, **model: Any) -> dict[str, Any]:
    small = {"tuning": tuning, "decoder_hidden_size": 16, **model}
    return {"trainer": "nnUNetTrainer_segformer", "keyword": "segformer", "model": small}


def _m2f(tuning: str, **model: Any) -> dict[str, Any]:
    return {"trainer": "nnUNetTrainer_m2f", "keyword": "m2f", "model": {"tuning": tuning, **SMALL_M2F, **model}}


def _eomt(tuning: str, **model: Any) -> dict[str, Any]:
    small = {"tuning": tuning, "type": "eomt", "num_queries": 10, **model}
    return {"trainer": "nnUNetTrainer_m2f", "keyword": "m2f", "model": small}


LORA = {"lora": {"r": 2}}
POINTS = {"m2f_train": {"num_points": 64}}
CASES = {
    "upernet": Case(**_upernet("frozen", hidden_size=16)),
    "upernet-plain-regions": Case(
        **_upernet("full", hidden_size=16, use_progressive_upsample=False, backbone_out_layers="FOUR_LAST"),
        other={"training": {"layer_decay": 0.75}},
        labels="regions",
    ),
    "upernet-whole-images": Case(
        **_upernet("lora", hidden_size=16, input_norm="imagenet"),
        other=LORA,
        words=("use_sliding_window_inference=false", "use_nnunet_augmentation=false", "lora.target_modules=[fc1]"),
        channels=3,
        normalization="RGBTo01Normalization",
    ),
    "segformer": Case(**_segformer("lora"), other=LORA),
    "segformer-layers-conv1x1": Case(
        **_segformer("frozen", feature_strategy="layers", channel_adaptation="conv1x1"), channels=2
    ),
    "segformer-progressive-ignore": Case(
        **_segformer("full", feature_strategy="progressive"),
        other={"training": {"scheduler": "poly"}},
        channels=4,
        labels="ignore",
    ),
    "m2f": Case(**_m2f("lora"), other=LORA | POINTS, gain=0.7),
    "m2f-patch14": Case(**_m2f("frozen", backbone="dinov2"), other=POINTS, gain=0.7),
    "m2f-native-regions": Case(
        **_m2f("full", backbone="dinov3_native", gradient_checkpointing=False), other=POINTS, labels="regions", gain=1.0
    ),
    "eomt": Case(**_eomt("full"), other=POINTS),
    # Half of the training is done: the first joint block does without masks, the second one still has them.
    "eomt-mid-training": Case(
        **_eomt("lora", num_joint_blocks=2, input_scale=2, num_queries=3),
        other={**LORA, **POINTS, "training": {"num_epochs": 4}},
        epochs=2,
        gain=1.2,
    ),
    "eomt-patch14-regions": Case(
        **_eomt("frozen", backbone="dinov2", backbone_size="tiny_reg", num_queries=3)
        | {"trainer": "nnUNetTrainerNoDeepSupervision_m2f"},
        other=POINTS,
        labels="regions",
    ),
}


def train_until_killed(case: Case) -> tuple[Any, dict[str, Any]]:
    """Trains in the current folder; returns the trainer and the content of its checkpoint."""
    Path("settings.yaml").write_text(json.dumps(case.settings()))
    settings = {f"{case.keyword}_config_path": "settings.yaml", f"{case.keyword}_overrides": case.words}
    arguments = (case.plans(), "2d", 0, case.dataset_json(), vit_model_folder.CPU)
    trainer = find_by_name("trainer", case.trainer)(*arguments, **settings)
    batch = vit_model_folder.make_batch(case.dataset_json(), PATCH)

    def batches() -> Iterator[dict[str, Any]]:
        yield from itertools.repeat(batch, case.epochs * STEPS)
        raise KeyboardInterrupt

    def dataloaders() -> tuple[Iterator[Any], Iterator[Any]]:
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # decides on mirroring in prediction
        return batches(), itertools.repeat(batch)

    trainer.get_dataloaders = dataloaders
    try:
        trainer.run_training()
    except KeyboardInterrupt:
        return trainer, load_checkpoint(Path(trainer.output_folder) / "checkpoint_latest.pth")
    raise RuntimeError("the training was not killed")


def record_training(case: Case) -> vit_model_folder.Recorded:
    """What the training wrote."""
    trainer, content = train_until_killed(case)
    fold = Path(trainer.output_folder)
    plans, dataset_json = (json.loads((fold.parent / f"{name}.json").read_text()) for name in ("plans", "dataset"))
    arguments = content["init_args"]
    assert (arguments.pop("plans"), arguments.pop("dataset_json")) == (plans, dataset_json)
    for name, times in content["logging"].items():
        if name.endswith("timestamps"):
            times[:] = map(float, range(len(times)))
    tensors = content.pop("network_weights")
    shapes = {name: list(value.shape) for name, value in tensors.items()}
    tree = vit_model_folder.nested(shapes)
    assert list(vit_model_folder.flattened(tree).items()) == list(shapes.items())
    weights = {name for name, _ in trainer.network.named_parameters()}
    by_rule = ("running_mean", "running_var", "num_batches_tracked")
    arrays = {
        name: value.numpy() for name, value in tensors.items() if name not in weights and not name.endswith(by_rule)
    }
    record = {
        "gain": case.gain,
        "plans": plans,
        "dataset_json": dataset_json,
        "settings": {path.name: path.read_text() for path in fold.glob("*_config.yaml")},
        "tensors": tree,
        "optimizer": record_optimizer(trainer, content.pop("optimizer_state"), list(shapes)),
        "checkpoint": vit_model_folder.encoded(content),
    }
    return vit_model_folder.Recorded(record, arrays)


def record_optimizer(trainer: Any, state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The optimiser's state without moments; parameters are numbered as the tensors `names` of the network are."""
    groups = vit_model_folder.optimized_names(trainer)
    params = [number for group in state["param_groups"] for number in group.pop("params")]
    assert params == list(range(sum(map(len, groups))))
    (step,) = {float(of_one["step"]) for of_one in state["state"].values()}
    assert all(set(of_one) == {"step", "exp_avg", "exp_avg_sq"} for of_one in state["state"].values())
    return {
        "parameters": [[names.index(name) for name in group] for group in groups],
        "without_state": [number for number in params if number not in state["state"]],
        "step": step,
        "param_groups": vit_model_folder.encoded(state["param_groups"]),
    }


def margin(probabilities: np.ndarray, *, regions: bool) -> float:
    """How far the probabilities of the least certain pixel are from another label."""
    if regions:
        return float(np.abs(probabilities - 0.5).min())
    second, first = np.sort(probabilities, axis=0)[-2:]
    return float((first - second).min())


def length_of_borders(labels: np.ndarray) -> int:
    """Pairs of neighbouring pixels with different labels."""
    return int((labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum())


def choose_image(model: vit_model_folder.Recorded, model_folder: Path, folder: Path, *, regions: bool) -> None:
    """Adds the image of whose prediction rounding errors change nothing and which is the least trivial."""
    longest, margins = 0, []
    for image in range(NUM_IMAGES):
        model.record["image"] = image
        (folder / f"image_{image}").mkdir()
        labels, probabilities, logits = vit_model_folder.predict(model, model_folder, folder / f"image_{image}")
        margins.append(margin(probabilities, regions=regions))
        has_several_labels = (np.bincount(labels.ravel()) > MANY).sum() > 1
        if has_several_labels and margins[-1] > SMALLEST_MARGIN and length_of_borders(labels) > longest:
            longest, chosen, predicted = length_of_borders(labels), image, {"labels": labels, "logits": logits}
    if not longest:
        raise RuntimeError(f"no prediction has several labels that rounding does not change; margins {margins}")
    print(f"image {chosen}, margin {margins[chosen]}, borders {longest}, {np.bincount(predicted['labels'].ravel())}")
    model.record["image"] = chosen
    model.arrays.update(predicted)


def record(case: Case, folder: Path) -> vit_model_folder.Recorded:
    """Trains, rebuilds the model folder, predicts and goes on training in an empty folder."""
    for variable in ("preprocessed", "results"):
        os.environ[f"nnUNet_{variable}"] = str(folder / variable)
    os.chdir(folder)
    vit_model_folder.write_empty_dataset(case.plans(), folder / "preprocessed")
    model = record_training(case)
    os.environ["nnUNet_results"] = str(folder / "rebuilt")
    model_folder = vit_model_folder.write_model(model, folder / "rebuilt")
    choose_image(model, model_folder, folder, regions=case.labels == "regions")
    trainer = vit_model_folder.make_trainer(model, model_folder)
    trainer.load_checkpoint(model_folder / vit_model_folder.FOLD / vit_model_folder.CHECKPOINT)
    model.record["losses"] = vit_model_folder.two_losses(trainer)
    print(model.record["losses"])
    return model


def main() -> None:
    torch.set_num_threads(1)
    os.environ |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    lines, arrays = [], {}
    for name, case in CASES.items():
        print(name)
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            model = record(case, Path(folder))
            os.chdir(vit_model_folder.HERE)
        lines.append(f"{json.dumps(name)}: {json.dumps(model.record)}")
        arrays |= {f"{name}: {key}": value for key, value in model.arrays.items()}
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (vit_model_folder.HERE / "vit_models.json").write_text(text, encoding="utf-8")
    np.savez_compressed(vit_model_folder.HERE / "vit_models.npz", **arrays)


if __name__ == "__main__":
    main()
