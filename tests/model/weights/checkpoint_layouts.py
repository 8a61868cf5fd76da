"""Files of weights as their authors write them: the names, entries and prefixes of each, around miniature networks.

Each layout is a function that writes a file or folder and returns a function from images (B, 3, H, W) to the normalised
tokens (B, 1 + N, D) of class and patches that the library of the layout, or the program that it stands for, computes.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov3.models.vision_transformer import DinoVisionTransformer

Oracle = Callable[[Tensor], Tensor]
WIDTH, DEPTH, HEADS = 128, 4, 4
HF_SIZE = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
GRID = 5  # patches along a side of the images that the layouts with learned positions are for


def perturbed(model: nn.Module, *fixed: str) -> nn.Module:
    """Adds noise to all parameters except some, for norms, scales and biases would otherwise be ones and zeros."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not any(part in name for part in fixed):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def timm_vit(name: str, **options: Any) -> nn.Module:
    """A miniature of one of timm's plain models, for images of `GRID` patches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
    patch = 14 if "patch14" in name else 16
    size = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "img_size": GRID * patch}
    return perturbed(timm.create_model(name, num_classes=0, **size, **options))


def timm_tokens(model: nn.Module) -> Oracle:
    """Class and patch tokens of a timm model, without its registers."""

    def tokens(image: Tensor) -> Tensor:
        everything = model.forward_features(image)
        return torch.cat([everything[:, :1], everything[:, model.num_prefix_tokens :]], dim=1)

    return tokens


def hf_tokens(model: nn.Module, registers: int = 0) -> Oracle:
    """Class and patch tokens of a transformers model."""

    def tokens(image: Tensor) -> Tensor:
        everything = model(image).last_hidden_state
        return torch.cat([everything[:, :1], everything[:, 1 + registers :]], dim=1)

    return tokens


def head(prefix: str, *layers: str) -> dict[str, Tensor]:
    """A projection head as DINO and iBOT have it."""
    layers = layers or ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "last_layer.weight")
    return {f"{prefix}.{layer}": torch.ones(3, 3) for layer in layers}


def below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def timm_dinov2(path: Path) -> Oracle:
    """What timm's hub holds: a flat safetensors file."""
    from safetensors.torch import save_file

    model = timm_vit("vit_small_patch14_dinov2")
    save_file(model.state_dict(), path)
    return timm_tokens(model)


def meta_dinov2(path: Path) -> Oracle:
    """`dinov2_vits14_pretrain.pth`: timm's names and a mask token."""
    model = timm_vit("vit_small_patch14_dinov2")
    torch.save(model.state_dict() | {"mask_token": torch.ones(1, WIDTH)}, path)
    return timm_tokens(model)


def meta_dinov2_with_registers(path: Path) -> Oracle:
    """`dinov2_vits14_reg4_pretrain.pth`: positions have a slot for the class token, which timm adds to that token.

    timm reads such a file itself, which is the oracle.
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    model = timm_vit("vit_small_patch14_reg4_dinov2")
    weights = dict(model.state_dict())
    weights["register_tokens"] = weights.pop("reg_token")
    weights["pos_embed"] = torch.randn(1, 1 + GRID**2, WIDTH)
    weights["mask_token"] = torch.ones(1, WIDTH)
    torch.save(weights, path)
    model.load_state_dict(checkpoint_filter_fn(dict(weights), model))
    return timm_tokens(model)


def dinov2_training(path: Path) -> Oracle:
    """`teacher_checkpoint.pth` of DINOv2's training, whose blocks are kept in chunks."""
    model = timm_vit("vit_small_patch14_dinov2")
    weights = {}
    for name, tensor in model.state_dict().items():
        words = name.split(".")
        chunk = [str(int(words[1]) // 2)] if words[0] == "blocks" else []
        weights[".".join([words[0], *chunk, *words[1:]])] = tensor
    weights["mask_token"] = torch.ones(1, WIDTH)
    torch.save({"teacher": below("backbone.", weights) | head("dino_head") | head("ibot_head")}, path)
    return timm_tokens(model)


def hf_dinov2(path: Path) -> Oracle:
    from transformers import Dinov2Config, Dinov2Model

    model = perturbed(Dinov2Model(Dinov2Config(**HF_SIZE, patch_size=14, image_size=14 * GRID)))
    model.save_pretrained(path)
    return hf_tokens(model)


def hf_dinov2_with_registers(path: Path) -> Oracle:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

    config = Dinov2WithRegistersConfig(**HF_SIZE, patch_size=14, image_size=14 * GRID, num_labels=3)
    model = perturbed(Dinov2WithRegistersForImageClassification(config))
    model.save_pretrained(path)
    return hf_tokens(model.base_model, config.num_register_tokens)


def hf_dinov3(path: Path) -> Oracle:
    """As released: biases of queries and values are there, and zero."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(**HF_SIZE, intermediate_size=4 * WIDTH, num_register_tokens=4)
    model = perturbed(DINOv3ViTModel(config), "q_proj.bias", "v_proj.bias")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.bias", "v_proj.bias")):
                parameter.zero_()
    model.save_pretrained(path)
    return hf_tokens(model, registers=4)


def hf_mae(path: Path) -> Oracle:
    """`vit.` and a decoder, as `ViTMAEForPreTraining` has them."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    size = {"intermediate_size": 4 * WIDTH, "image_size": 16 * GRID, "layer_norm_eps": 1e-6, "mask_ratio": 0.0}
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    model = perturbed(ViTMAEForPreTraining(ViTMAEConfig(**HF_SIZE, **size, **decoder)))
    model.save_pretrained(path)

    def tokens(image: Tensor) -> Tensor:
        in_order = torch.arange(GRID**2).expand(len(image), -1).float()  # MAE shuffles the patches by this noise
        return model.vit(image, noise=in_order).last_hidden_state

    return tokens


def _dinov3(**options: Any) -> DinoVisionTransformer:
    size = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "n_storage_tokens": 4, "layerscale_init": 0.1}
    model = DinoVisionTransformer(**size, norm_layer="layernormbf16", pos_embed_rope_dtype="fp32", **options)
    model.init_weights()
    return perturbed(model, "qkv.bias")


def _dinov3_tokens(model: DinoVisionTransformer) -> Oracle:
    def tokens(image: Tensor) -> Tensor:
        features = model.forward_features(image)
        return torch.cat([features["x_norm_clstoken"][:, None], features["x_norm_patchtokens"]], dim=1)

    return tokens


def meta_dinov3(path: Path) -> Oracle:
    """`dinov3_vits16_pretrain_lvd1689m.pth`: flat, with masked biases, of which the mask is zero too."""
    model = _dinov3(qkv_bias=True, mask_k_bias=True)
    for name, buffer in model.named_buffers():
        if name.endswith("bias_mask"):
            buffer.zero_()
    torch.save(model.state_dict(), path)
    return _dinov3_tokens(model)


def meddinov3(path: Path) -> Oracle:
    """`model.pth` of MedDINOv3: the teacher of a training without biases of queries, keys and values."""
    model = _dinov3(qkv_bias=False)
    heads = head("dino_head") | head("ibot_head")
    torch.save({"teacher": below("backbone.", model.state_dict()) | heads, "iteration": 100}, path)
    return _dinov3_tokens(model)


def satellite_dinov3(path: Path) -> Oracle:
    """`dinov3_vitl16_pretrain_sat493m.pth`: with the norm that pretraining applies to local crops."""
    model = _dinov3(qkv_bias=False, untie_global_and_local_cls_norm=True)
    torch.save(model.state_dict(), path)
    return _dinov3_tokens(model)


def dinov3_with_biased_keys(path: Path) -> Oracle:
    """A model of one's own, trained without a mask of the biases."""
    model = _dinov3(qkv_bias=True, mask_k_bias=False)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.bias.normal_()
    torch.save(model.state_dict(), path)
    return _dinov3_tokens(model)


def retfound_mae(path: Path) -> Oracle:
    """`RETFound_mae_natureCFP.pth`: a checkpoint of MAE with decoder, optimiser and arguments."""
    model = timm_vit("vit_large_patch16_224")
    decoder = {"mask_token": torch.ones(1, 1, 32), "decoder_pos_embed": torch.ones(1, 1 + GRID**2, 32)}
    modules = ["decoder_embed", "decoder_norm", "decoder_pred"]
    inner = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    modules += [f"decoder_blocks.{block}.{module}" for block in range(2) for module in inner]
    decoder |= {f"{module}.{kind}": torch.ones(2) for module in modules for kind in ("weight", "bias")}
    arguments = argparse.Namespace(model="mae_vit_large_patch16", mask_ratio=0.75, output_dir="out")
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-3}]}
    content = {"model": model.state_dict() | decoder, "optimizer": optimizer, "epoch": 799, "args": arguments}
    torch.save(content, path)
    return timm_tokens(model)


def retfound_classifier(path: Path) -> Oracle:
    """`checkpoint-best.pth` of a classifier fine-tuned from it: a head and its norm beside the encoder."""
    model = timm_vit("vit_large_patch16_224")
    classifier = {f"{module}.{kind}": torch.ones(2) for module in ("head", "fc_norm") for kind in ("weight", "bias")}
    torch.save({"model": model.state_dict() | classifier, "args": argparse.Namespace(nb_classes=2)}, path)
    return timm_tokens(model)


def retfound_dinov2(path: Path) -> Oracle:
    """`RETFound_dinov2_meh.pth`: the teacher of a training with DINOv2."""
    model = timm_vit("vit_large_patch14_dinov2", init_values=0.1)
    weights = model.state_dict() | {"mask_token": torch.ones(1, WIDTH)}
    torch.save({"teacher": below("backbone.", weights) | head("dino_head") | head("ibot_head")}, path)
    return timm_tokens(model)


def visionfm(path: Path) -> Oracle:
    """`VFM_Fundus_weights.pth`: an iBOT training; the student differs and has a mask token."""
    model = timm_vit("vit_base_patch16_224")
    projection = head("module.head", "mlp.0.weight", "mlp.0.bias", "last_layer.weight_g", "last_layer2.weight_v")
    student = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    student["masked_embed"] = torch.ones(1, WIDTH)
    content = {
        "student": below("module.backbone.", student) | projection,
        "teacher": below("module.backbone.", model.state_dict()) | projection,
        "epoch": 400,
        "args": argparse.Namespace(arch="vit_base", modality="Fundus"),
    }
    torch.save(content, path)
    return timm_tokens(model)


def visionfm_student(path: Path) -> Oracle:
    """The student alone."""
    model = timm_vit("vit_base_patch16_224")
    weights = model.state_dict() | {"masked_embed": torch.ones(1, WIDTH)}
    torch.save({"student": below("module.backbone.", weights) | head("module.head")}, path)
    return timm_tokens(model)
