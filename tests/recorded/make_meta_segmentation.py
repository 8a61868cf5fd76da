"""Features and outputs of segmentation models with fixed weights, of whichever dinov3 the interpreter finds.

The recording was made outside this repository with Meta's public modules retyped for the CPU, without the compiled
operator. To repeat it with a checkout of facebookresearch/dinov3:
    PYTHONPATH=CHECKOUT python tests/recorded/make_meta_segmentation.py tests/recorded/meta_segmentation.json
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Record = dict[str, dict[str, Any]]

# The seeds are chosen so that masks cover part of the cells in most layers, and so that all logits which decide about
# looking at a cell differ from 0 by more than 1e-4: rounding must not decide.
SALT = "m"
NUM_SAMPLES = 12  # elements of each tensor that are recorded, evenly spread
RELEASED = {  # settings that all released transformers share
    "pos_embed_rope_rescale_coords": 2,
    "pos_embed_rope_dtype": "fp32",
    "layerscale_init": 1e-5,
    "norm_layer": "layernormbf16",
    "n_storage_tokens": 4,
    "mask_k_bias": True,
}
EMBEDDINGS = re.compile(r"(_tokens?|level_embed|level_encoding|query_feat|query_embed)(\.weight)?$")
GAINS = {"in_proj_weight": 2.0, "out_proj.weight": 0.25, "output_proj.weight": 0.5, "linear2.weight": 0.25}
CASES: dict[str, dict[str, Any]] = {
    "small": {
        "backbone": {"embed_dim": 64, "depth": 8, "num_heads": 2, "ffn_layer": "swiglu", "ffn_ratio": 6},
        "head": {"hidden_dim": 32, "num_classes": 3},
        "image": "image 23",
        "image_size": (1, 3, 64, 96),
    },
    "vits16": {
        "backbone": {"embed_dim": 384, "depth": 12, "num_heads": 6},
        "head": {"hidden_dim": 256, "num_classes": 7},
        "image": "image 6",
        "image_size": (1, 3, 128, 192),
    },
}


def fixed_numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    """Independent numbers of mean 0 and variance 1 that depend on the name only, the same on every machine."""
    uniform = np.random.RandomState(zlib.crc32(f"{SALT} {name}".encode())).random_sample(shape)
    return torch.from_numpy((2 * uniform - 1) * 3**0.5).float()


def fixed_tensor(name: str, like: Tensor) -> Tensor:
    """What one entry of a state dict becomes: of a size that keeps signals neither dying nor exploding."""
    last = name.rpartition(".")[2]
    if last in ("periods", "num_batches_tracked"):
        return like
    if last == "bias_mask":
        return torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(len(like) // 3)  # queries, keys, values
    numbers = fixed_numbers(name, tuple(like.shape))
    if last == "running_var":
        return 1 + 0.25 * numbers
    if last == "gamma":
        return 0.3 + 0.1 * numbers
    if name.endswith("sampling_offsets.bias"):
        return 2 * numbers  # cells
    if like.ndim == 1:
        return 1 + 0.2 * numbers if last == "weight" else 0.2 * numbers
    if EMBEDDINGS.search(name):
        return numbers
    # Queries would become alike if attention were even and its result as large as what it is added to.
    gain = next((gain for pattern, gain in GAINS.items() if name.endswith(pattern)), 1.0)
    return gain * numbers / like[0].numel() ** 0.5


def fill(module: nn.Module) -> nn.Module:
    """Sets every parameter and buffer, strictly, and eval mode."""
    module.load_state_dict({name: fixed_tensor(name, value) for name, value in module.state_dict().items()})
    return module.eval()


def describe(tensor: Tensor) -> dict[str, Any]:
    flat = tensor.detach().float().flatten()
    positions = torch.linspace(0, len(flat) - 1, NUM_SAMPLES).long()
    return {
        "shape": list(tensor.shape),
        "largest": float(flat.abs().max()),
        "mean": float(flat.mean()),
        "mean_size": float(flat.abs().mean()),
        "values": flat[positions].tolist(),
    }


@torch.no_grad()
def mask2former_record(backbone: nn.Module, head: dict[str, Any], image: Tensor) -> Record:
    from dinov3.eval.segmentation.models import build_segmentation_decoder

    model = fill(build_segmentation_decoder(backbone, decoder_type="m2f", **head))
    blocks = [(quarter * backbone.n_blocks) // 4 - 1 for quarter in (1, 2, 3, 4)]
    taken = backbone.get_intermediate_layers(image, n=blocks, reshape=True, return_class_token=True)
    tensors = {}
    for block, (layer, class_token) in zip(blocks, taken, strict=True):
        tensors[f"block {block}"], tensors[f"class token {block}"] = layer, class_token
    tensors |= {f"adapter {scale}": level for scale, level in model.segmentation_model[0](image).items()}
    outputs = model(image)
    for index, prediction in enumerate([*outputs["aux_outputs"], outputs]):
        tensors[f"classes {index}"], tensors[f"masks {index}"] = prediction["pred_logits"], prediction["pred_masks"]
    tensors["masks resized"] = model.predict(image, rescale_to=(50, 70))["pred_masks"]
    return {name: describe(tensor) for name, tensor in tensors.items()}


@torch.no_grad()
def linear_record(backbone: nn.Module, layers: str, num_classes: int, image: Tensor) -> Record:
    from dinov3.eval.segmentation.models import BackboneLayersSet, build_segmentation_decoder

    model = build_segmentation_decoder(
        backbone, backbone_out_layers=BackboneLayersSet[layers], decoder_type="linear", num_classes=num_classes
    )
    fill(model)
    tensors = {"logits": model(image), "logits resized": model.predict(image, rescale_to=(50, 70))}
    return {f"{layers} {name}": describe(tensor) for name, tensor in tensors.items()}


def compute(case: str) -> Record:
    from dinov3.models.vision_transformer import DinoVisionTransformer

    torch.set_num_threads(1)
    settings = CASES[case]
    backbone = DinoVisionTransformer(**RELEASED, **settings["backbone"])
    image = fixed_numbers(settings["image"], settings["image_size"])
    record = mask2former_record(backbone, settings["head"], image)
    for layers in ("LAST", "FOUR_LAST"):
        record |= linear_record(backbone, layers, settings["head"]["num_classes"], image)
    return record


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return [rounded(entry) for entry in value] if isinstance(value, list) else value


if __name__ == "__main__":
    lines = []
    for case in CASES:
        entries = {name: {key: rounded(v) for key, v in entry.items()} for name, entry in compute(case).items()}
        body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        lines.append(f"{json.dumps(case)}: {{\n{body}\n}}")
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
