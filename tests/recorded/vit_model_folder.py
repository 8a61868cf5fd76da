"""Model folders that `make_vit_models.py` recorded without their weights: rebuilt, and used to predict and to train.

`formula` makes the weights from their names and shapes, so that none have to be stored.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.class_lookup import find_by_name

HERE = Path(__file__).parent
CPU = torch.device("cpu")
FOLD = "fold_0"
CHECKPOINT = "checkpoint_final.pth"
CASE = "case"
SIZE = (44, 36)  # pixels of the image to predict: more than one window, and no multiple of 14 or 16
LOGITS = (slice(18, 26), slice(14, 22))  # the part of the logits that is recorded
BATCHES_TRACKED = 2  # by batch norms
_SMALLEST_SCALE = 0.05  # position embeddings have a large "fan-in", and should count
_READER = NaturalImage2DIO()


@dataclass(frozen=True)
class Recorded:
    """One recorded model.

    Attributes:
        record: what `vit_models.json` holds of it.
        arrays: what `vit_models.npz` holds: `labels`, `logits`, and tensors that are no weights, by their names.
    """

    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Of all tensors of the network, by their names, in its order."""
        return flattened(self.record["tensors"])

    @property
    def optimized(self) -> list[list[str]]:
        """Names of the parameters of each group of the optimiser, in its order."""
        names = list(self.shapes)
        return [[names[number] for number in group] for group in self.record["optimizer"]["parameters"]]


def read_recorded() -> dict[str, Recorded]:
    """All recorded models, by their names."""
    records = json.loads((HERE / "vit_models.json").read_text(encoding="utf-8"))
    with np.load(HERE / "vit_models.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    return {
        name: Recorded(record, {k.removeprefix(f"{name}: "): v for k, v in arrays.items() if k.startswith(f"{name}: ")})
        for name, record in records.items()
    }


def formula(name: str, shape: Sequence[int], gain: float = 1.0) -> Tensor:
    """A float32 tensor that depends on the arguments alone, the same on every platform.

    u is uniform in [-sqrt(3), sqrt(3)], so of variance 1, drawn by `RandomState`, whose stream numpy has frozen:

        running variances: 1 + u / 4
        scales, which are vectors called `weight` or `gamma...`: 1 + u / 4
        other vectors: u / 20
        matrices with `query` in their name, of which each row is one query: u
        all else: gain * u / sqrt(product of the sizes after the first), at least u / 20
    """
    draw = np.random.RandomState(zlib.crc32(name.encode())).uniform(-math.sqrt(3), math.sqrt(3), tuple(shape))
    last = name.rpartition(".")[2]
    if last == "running_var" or (len(shape) == 1 and (last == "weight" or last.startswith("gamma"))):
        values = 1 + draw / 4
    elif len(shape) <= 1:
        values = draw / 20
    elif len(shape) == 2 and "query" in name:
        values = draw
    else:
        values = draw * max(gain / math.sqrt(math.prod(shape[1:])), _SMALLEST_SCALE)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def weights(model: Recorded) -> OrderedDict[str, Tensor]:
    """The tensors of a recorded network, in the recorded order."""
    tensors = OrderedDict()
    for name, shape in model.shapes.items():
        if name in model.arrays:
            tensors[name] = torch.from_numpy(model.arrays[name])
        elif name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(BATCHES_TRACKED)
        else:
            tensors[name] = formula(name, shape, model.record["gain"])
    return tensors


def optimizer_state(model: Recorded) -> dict[str, Any]:
    """The state of AdamW for the recorded parameters: moments by the formula, numbers as recorded."""
    recorded, shapes = decoded(model.record["optimizer"]), model.shapes
    names = [name for group in model.optimized for name in group]
    state = {
        number: {
            "step": torch.tensor(recorded["step"]),
            "exp_avg": formula(f"exp_avg of {name}", shapes[name]) / 100,
            "exp_avg_sq": formula(f"exp_avg_sq of {name}", shapes[name]).square() + 1e-4,
        }
        for number, name in enumerate(names)
        if number not in recorded["without_state"]
    }
    numbers = iter(range(len(names)))
    groups = [
        {**group, "params": [next(numbers) for _ in of_group]}
        for group, of_group in zip(recorded["param_groups"], model.optimized, strict=True)
    ]
    return {"state": state, "param_groups": groups}


def checkpoint(model: Recorded) -> dict[str, Any]:
    """Content of the recorded checkpoint, with the weights and moments of the formula."""
    content = decoded(model.record["checkpoint"])
    content["init_args"] |= {name: deepcopy(model.record[name]) for name in ("plans", "dataset_json")}
    return {"network_weights": weights(model), "optimizer_state": optimizer_state(model), **content}


def write_model(model: Recorded, results: Path) -> Path:
    """Writes a trained model with one fold below the root of results; returns the folder of the model."""
    trainer, plans = model.record["checkpoint"]["trainer_name"], model.record["plans"]
    folder = results / plans["dataset_name"] / f"{trainer}__{plans['plans_name']}__2d"
    (folder / FOLD).mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(model.record["dataset_json"]))
    for file, text in model.record["settings"].items():
        (folder / FOLD / file).write_text(text)
    torch.save(checkpoint(model), folder / FOLD / CHECKPOINT)
    return folder


def write_image(model: Recorded, folder: Path) -> None:
    """Writes the image to predict, one gray PNG for each channel: coarse squares and noise."""
    folder.mkdir()
    draws = np.random.RandomState(model.record["image"])
    for channel in range(len(model.record["dataset_json"]["channel_names"])):
        coarse = draws.randint(0, 200, (SIZE[0] // 4, SIZE[1] // 4)).repeat(4, axis=0).repeat(4, axis=1)
        image = (coarse + draws.randint(0, 56, SIZE)).astype(np.uint8)
        _READER.write_seg(image[None], str(folder / f"{CASE}_{channel:04d}.png"), {"spacing": [999.0, 1.0, 1.0]})


def predict(model: Recorded, model_folder: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicts the image with the model in a folder, as `nnUNetv2_predict` does.

    Args:
        model: tells the image.
        model_folder: where the model is.
        folder: where the image and the prediction are written.

    Returns:
        The labels (H, W) and probabilities (K, H, W) that were written, and a part of the logits (K, h, w) of the
        network for the preprocessed image as one window. These are computed in double precision: a mask of attention
        turns the rounding errors of one machine into other numbers.
    """
    images, predicted = folder / "images", folder / "predicted"
    write_image(model, images)
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model_folder), (0,), CHECKPOINT)
    predictor.predict_from_files_sequential(str(images), str(predicted), save_probabilities=True)
    labels = _READER.read_seg(str(predicted / f"{CASE}.png"))[0][0, 0]
    with np.load(predicted / f"{CASE}.npz") as stored:
        probabilities = stored["probabilities"][:, 0]
    image, properties = _READER.read_images(sorted(map(str, images.iterdir())))
    (case,) = predictor.get_data_iterator_from_raw_npy_data(image, None, properties, None, 1)
    with torch.no_grad():
        logits = predictor.network.double().eval()(torch.as_tensor(case["data"])[:, 0][None].double())
    return labels.astype(np.uint8), probabilities, logits[0][(slice(None), *LOGITS)].float().numpy()


def write_empty_dataset(plans: Mapping[str, Any], preprocessed: Path) -> None:
    """Just enough of a preprocessed dataset for a trainer, which tells the format by the endings of file names."""
    cases = preprocessed / plans["dataset_name"] / plans["configurations"]["2d"]["data_identifier"]
    cases.mkdir(parents=True)
    (cases / "case.b2nd").touch()


def make_trainer(model: Recorded, model_folder: Path) -> Any:
    """The trainer of a recorded model, not initialised, with the plans and settings of its folder."""
    (settings,) = model.record["settings"]
    arguments = checkpoint(model)["init_args"]
    path, words = (next(name for name in arguments if name.endswith(end)) for end in ("_config_path", "_overrides"))
    arguments |= {path: str(model_folder / FOLD / settings), words: ()}  # the file holds what the words said
    return find_by_name("trainer", model.record["checkpoint"]["trainer_name"])(**arguments)


def make_batch(dataset_json: Mapping[str, Any], patch_size: Sequence[int]) -> dict[str, Tensor]:
    """Two images of left and right squares, and the target that the loaders make of their labels."""
    labels = torch.zeros(2, 1, *patch_size)
    labels[0, :, 4:20, :12] = labels[1, :, 8:, :16] = 1
    labels[0, :, 8:28, -12:] = labels[1, :, :16, -12:-4] = 2
    draws = np.random.RandomState(0)
    channels = len(dataset_json["channel_names"])
    noise = torch.from_numpy(draws.uniform(-0.2, 0.2, (2, channels, *patch_size)).astype(np.float32))
    target = labels
    if "regions_class_order" in dataset_json:  # {whole: [1, 2], right: [2]}
        target = torch.cat((labels >= 1, labels == 2), dim=1)
    elif "ignore" in dataset_json["labels"]:
        target = labels.clone()
        target[..., -4:] = dataset_json["labels"]["ignore"]
    return {"data": labels - 0.5 + noise, "target": target}


def two_losses(trainer: Any) -> list[float]:
    """Losses of the next two steps of a trainer that goes on from a checkpoint; the second one knows the first."""
    batch = make_batch(trainer.dataset_json, trainer.configuration_manager.patch_size)
    torch.manual_seed(0)
    trainer.on_train_epoch_start()
    return [float(trainer.train_step(batch)["loss"]) for _ in range(2)]


def optimized_names(trainer: Any) -> list[list[str]]:
    """Names that the state dict gives the parameters of each group of the optimiser, in its order."""
    names = {id(parameter): name for name, parameter in trainer.network.state_dict(keep_vars=True).items()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in trainer.optimizer.param_groups]


def nested(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Dotted names as dictionaries in dictionaries, which are shorter; `flattened` gives the names back."""
    tree: dict[str, Any] = {}
    for name, shape in shapes.items():
        *parents, last = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = list(shape)
    return tree


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, list[int]]:
    """Shapes by dotted names, in the order of the tree."""
    shapes = {}
    for name, below in tree.items():
        shapes |= flattened(below, f"{prefix}{name}.") if isinstance(below, Mapping) else {f"{prefix}{name}": below}
    return shapes


def encoded(value: Any) -> Any:
    """Plain data for JSON, from which `decoded` makes an equal value of equal types."""
    if isinstance(value, torch.device):
        return {"__device__": str(value)}
    if isinstance(value, (np.floating, np.integer)):
        return {"__numpy__": value.dtype.name, "value": value.item()}
    if isinstance(value, tuple):
        return {"__tuple__": [encoded(item) for item in value]}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"JSON would turn some of the keys {list(value)} into text")
        return {key: encoded(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be recorded")


def decoded(value: Any) -> Any:
    """The value that `encoded` was given."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "__device__" in value:
        return torch.device(value["__device__"])
    if "__numpy__" in value:
        return np.dtype(value["__numpy__"]).type(value["value"])
    if "__tuple__" in value:
        return tuple(decoded(item) for item in value["__tuple__"])
    return {key: decoded(item) for key, item in value.items()}
