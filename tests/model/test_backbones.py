"""timm's vision transformers behind the project's interface, compared with Hugging Face's DINOv3."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbones import create_backbone, find_backbone
from nnunetv2.model.weights.backbone_weights import load_backbone_weights

META_NAMES = {  # Hugging Face's part of a key -> Meta's
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "storage_tokens",
    "embeddings.patch_embeddings": "patch_embed.proj",
    "model.layer.": "blocks.",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    torch.manual_seed(0)
    return create_backbone("dinov3", "tiny").eval()


def transformers_model() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.DINOv3ViTConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_register_tokens=4,
        query_bias=False,
        value_bias=False,
    )
    model = transformers.DINOv3ViTModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms, scales and biases would otherwise be all ones or zeros
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def with_meta_names(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a Hugging Face model in the format of Meta's files, with the extra tensors that those have."""
    given = model.state_dict()
    weights = {}
    for key, tensor in given.items():
        if "attention.q_proj" in key:
            thirds = [given[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            key, tensor = key.replace("attention.q_proj", "attn.qkv"), torch.cat(thirds)
        elif "attention.k_proj" in key or "attention.v_proj" in key:
            continue
        for theirs, metas in META_NAMES.items():
            key = key.replace(theirs, metas)
        weights[key.replace("embeddings.mask_token", "mask_token")] = tensor.clone()
    for block in range(4):
        weights[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(3 * 128)
        weights[f"blocks.{block}.attn.qkv.bias_mask"] = torch.zeros(3 * 128)
    weights["rope_embed.periods"] = torch.ones(8)
    return weights


def test_features_equal_those_of_transformers_from_a_file_in_metas_format(tmp_path, tiny):
    reference = transformers_model()
    torch.save(with_meta_names(reference), tmp_path / "meta.pth")
    load_backbone_weights(tiny, tmp_path / "meta.pth")
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = reference(image, output_hidden_states=True)
        raw = tiny.get_intermediate_layers(image, n=[1, 3], return_class_token=True, norm=False)
        last, class_token = tiny.get_intermediate_layers(image, n=1, return_class_token=True)[0]
    for (patches, token), block in zip(raw, (1, 3), strict=True):
        torch.testing.assert_close(patches, expected.hidden_states[block + 1][:, 5:], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(token, expected.hidden_states[block + 1][:, 0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(last, expected.last_hidden_state[:, 5:], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(class_token, expected.pooler_output, atol=2e-5, rtol=1e-4)


def test_reshaped_features_are_the_tokens_row_by_row(tiny):
    image = torch.randn(1, 3, 32, 64)
    tokens = tiny.get_intermediate_layers(image, n=[2])[0]
    maps = tiny.get_intermediate_layers(image, n=[2], reshape=True)[0]
    assert maps.shape == (1, 128, 2, 4)
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), tokens)


def test_features_come_in_ascending_order_of_the_blocks(tiny):
    image = torch.randn(1, 3, 32, 32)
    unordered = tiny.get_intermediate_layers(image, n=[3, 0])
    torch.testing.assert_close(unordered, tiny.get_intermediate_layers(image, n=[0, 3]))
    assert not torch.allclose(unordered[0], unordered[1])


def test_a_number_means_the_last_blocks(tiny):
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(tiny.get_intermediate_layers(image, n=2), tiny.get_intermediate_layers(image, n=[2, 3]))


@pytest.mark.parametrize("blocks", [[4], [-1, 2], [], 5])
def test_blocks_that_do_not_exist_are_refused(tiny, blocks):
    with pytest.raises(ValueError, match="blocks 0 to 3"):
        tiny.get_intermediate_layers(torch.zeros(1, 3, 32, 32), n=blocks)


def test_a_frozen_backbone_stays_in_eval_mode_and_records_no_gradient():
    backbone = create_backbone("dinov3", "tiny")
    backbone.freeze()
    nn.ModuleList([backbone]).train()
    assert not any(module.training for module in backbone.modules())
    assert not backbone.get_intermediate_layers(torch.zeros(1, 3, 32, 32))[0].requires_grad


def test_a_frozen_backbone_passes_the_gradient_of_its_input():
    backbone = create_backbone("dinov3", "tiny")
    backbone.freeze()
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    backbone.get_intermediate_layers(image)[0].square().sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_a_trainable_backbone_follows_train_and_gets_gradients():
    backbone = create_backbone("dinov3", "tiny").eval()
    assert backbone.train().vit.training
    features = backbone.get_intermediate_layers(torch.randn(1, 3, 32, 32))[0]
    (features * torch.randn_like(features)).sum().backward()  # the plain sum of a normalised token is constant
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_unknown_names_are_refused_with_those_that_exist():
    with pytest.raises(
        UsageError, match="'dinov4' is not known; choose one of dinov2, .* in nnUNet_extensions; did you mean dinov3"
    ):
        find_backbone("dinov4", "large")
    with pytest.raises(UsageError, match="'larg': dinov3 has tiny, small, .* did you mean large"):
        find_backbone("dinov3", "larg")
