"""EoMT: the contract of all networks, equality with transformers, and the annealing of its masks."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head_config import head_config_class
from nnunetv2.model.mask_resolution import default_upscale_blocks, unnamed_upscale_blocks
from nnunetv2.model.model_eomt import EoMTSegmentationModel, annealed_probabilities, without_rotation
from tests.model.heads.small import small_architecture, small_network
from tests.model.model_contract import ModelContract

TINY = {"backbone_size": "tiny", "tuning": "full", "num_queries": 8}


class TestEoMT(ModelContract):
    network_class = EoMTSegmentationModel
    arch_kwargs = TINY

    def loss(self, network, image):
        outputs = network(image, return_queries=True)
        return sum(
            (part[key] * torch.randn_like(part[key])).sum()
            for part in (outputs, *outputs["aux_outputs"])
            for key in ("pred_logits", "pred_masks")
        )

    def test_the_gradient_reaches_every_trainable_parameter(self):
        network = self.build().train()
        self.loss(network, torch.randn(2, 2, 64, 64)).backward()
        without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_the_gradient_goes_through_frozen_blocks_to_the_queries(tuning: str) -> None:
    network = EoMTSegmentationModel(3, 2, **TINY | {"tuning": tuning})
    network(torch.randn(1, 3, 32, 32)).sum().backward()
    assert network.head.query.weight.grad.abs().sum() > 0
    trained = [p.grad is not None for p in network.backbone.parameters() if p.requires_grad]
    assert any(trained) == (tuning != "frozen")


def filled(network: EoMTSegmentationModel) -> None:
    """Random weights with which masks are positive in some places and negative in others."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.15 if parameter.ndim > 1 else 0.3)
        network.head.query.weight.normal_()
        network.head.upscale[-1][-1].bias.zero_()


def transformers_twin(network: EoMTSegmentationModel, size: int) -> torch.nn.Module:
    """The model of transformers with the same weights."""
    from transformers import EomtDinov3Config
    from transformers.models.eomt_dinov3.modeling_eomt_dinov3 import EomtDinov3ForUniversalSegmentation

    vit = network.backbone.vit
    config = EomtDinov3Config(
        hidden_size=vit.embed_dim,
        num_hidden_layers=len(vit.blocks),
        num_attention_heads=vit.blocks[0].attn.num_heads,
        intermediate_size=vit.blocks[0].mlp.fc1.out_features,
        num_register_tokens=4,
        layer_norm_eps=1e-5,
        image_size=size,
        patch_size=16,
        num_queries=network.head.query.num_embeddings,
        num_blocks=len(network.head.mask_probability),
        num_upscale_blocks=len(network.head.upscale),
        num_labels=network.head.class_head.out_features - 1,
        rope_parameters={"rope_theta": 100.0, "rope_type": "default"},
        query_bias=False,
        value_bias=False,
    )
    twin = EomtDinov3ForUniversalSegmentation(config)
    missing, unexpected = twin.load_state_dict(transformers_state(network), strict=False)
    assert not unexpected
    assert all("criterion" in name or "attention.k_proj.bias" in name for name in missing), missing
    return twin


OUTSIDE_BLOCKS = {
    "encoder.vit.cls_token": "embeddings.cls_token",
    "encoder.vit.reg_token": "embeddings.register_tokens",
    "encoder.vit.patch_embed.proj.": "embeddings.patch_embeddings.",
    "encoder.vit.norm.": "layernorm.",
    "query.": "query.",
    "class_head.": "class_predictor.",
    "mask_probability": "attn_mask_probs",
    "mask_head.0.": "mask_head.fc1.",
    "mask_head.2.": "mask_head.fc2.",
    "mask_head.4.": "mask_head.fc3.",
}
IN_BLOCKS = {
    "attn.proj.": "attention.o_proj.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
    "mlp.fc1.": "mlp.up_proj.",
    "mlp.fc2.": "mlp.down_proj.",
    "gamma_1": "layer_scale1.lambda1",
    "gamma_2": "layer_scale2.lambda1",
}
IN_STAGES = {"0.": "conv1.", "2.": "conv2.", "3.": "layernorm2d."}


def transformers_state(network: EoMTSegmentationModel) -> dict[str, torch.Tensor]:
    names = dict(OUTSIDE_BLOCKS)
    for block in range(network.backbone.num_blocks):
        names |= {f"encoder.vit.blocks.{block}.{mine}": f"layers.{block}.{other}" for mine, other in IN_BLOCKS.items()}
    for stage in range(len(network.head.upscale)):
        names |= {
            f"upscale.{stage}.{mine}": f"upscale_block.block.{stage}.{other}" for mine, other in IN_STAGES.items()
        }
    state = {}
    for key, tensor in network.state_dict().items():
        if key.endswith("attn.qkv.weight"):
            block = key.split(".")[3]
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                state[f"layers.{block}.attention.{part}_proj.weight"] = third
        else:
            mine = next(prefix for prefix in names if key.startswith(prefix))
            state[names[mine] + key.removeprefix(mine)] = tensor
    return state


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_equals_transformers(probability: float) -> None:
    torch.manual_seed(0)
    network = EoMTSegmentationModel(3, 4, **TINY, num_joint_blocks=2).eval()
    filled(network)
    network.head.mask_probability.fill_(probability)
    twin = transformers_twin(network, 64).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours = network(image, return_queries=True)
        theirs = twin(pixel_values=image)
    assert 0.1 < (ours["aux_outputs"][0]["pred_masks"] > 0).float().mean() < 0.9
    for mine, other in (
        (ours["pred_logits"], theirs.class_queries_logits),
        (ours["pred_masks"], theirs.masks_queries_logits),
    ):
        assert (mine - other).abs().max() <= 1e-5 * other.abs().max()


def test_masks_matter_while_they_are_probable() -> None:
    torch.manual_seed(0)
    network = EoMTSegmentationModel(3, 2, **TINY, num_joint_blocks=3).eval()
    filled(network)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs = []
        for probability in (1.0, 0.6, 0.4, 0.0):
            network.head.mask_probability.fill_(probability)
            outputs.append(network(image, return_queries=True)["pred_masks"])
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[2], outputs[3])
    assert (outputs[1] - outputs[2]).abs().max() > 1e-2 * outputs[2].abs().max()


def test_blocks_are_annealed_one_after_the_other() -> None:
    assert annealed_probabilities(4, 0.0) == [1.0] * 4
    assert annealed_probabilities(4, 0.3)[0] == 0.0
    assert annealed_probabilities(4, 0.3)[1] == pytest.approx(0.5**0.9)
    assert annealed_probabilities(4, 0.3)[2:] == [1.0, 1.0]
    assert annealed_probabilities(4, 0.8) == pytest.approx([0.0] * 4, abs=1e-12)
    network = EoMTSegmentationModel(3, 2, **TINY, num_joint_blocks=2)
    network.set_training_progress(0.2)
    torch.testing.assert_close(network.head.mask_probability, torch.tensor([0.5**0.9, 1.0]))


def test_queries_are_not_rotated() -> None:
    rotation = without_rotation(torch.randn(6, 8), 2)
    assert rotation.shape == (8, 8)
    assert rotation[6:].tolist() == [[0.0] * 4 + [1.0] * 4] * 2


def test_predictions_are_made_before_each_joint_block_and_after_the_last() -> None:
    network = EoMTSegmentationModel(3, 2, **TINY, num_joint_blocks=3)
    outputs = network(torch.randn(1, 3, 32, 48), return_queries=True)
    assert len(outputs["aux_outputs"]) == 3
    assert outputs["pred_masks"].shape == (1, 8, 8, 12)
    assert outputs["pred_logits"].shape == (1, 8, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_queries": 1}, "below the number of classes, 2"),
        ({"num_joint_blocks": 5}, "num_joint_blocks=5 must be 1 to 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EoMTSegmentationModel(3, 2, **TINY | settings)


@pytest.mark.parametrize(("backbone", "patch"), [("dinov3", 16), ("dinov2", 14)])
def test_masks_have_a_quarter_of_the_resolution_whatever_the_patch(backbone: str, patch: int) -> None:
    network = small_network("eomt", backbone=backbone).eval()
    with torch.no_grad():
        masks = network(torch.randn(1, 1, 8 * patch, 4 * patch), return_queries=True)["pred_masks"]
    assert masks.shape[-2:] == (8 * 4, 4 * 4)


@pytest.mark.parametrize(("patch", "number"), [(4, 1), (8, 1), (14, 2), (16, 2), (32, 3)])
def test_the_number_of_doublings_leads_to_a_quarter_or_finer(patch: int, number: int) -> None:
    assert default_upscale_blocks(patch) == number
    assert patch / 2**number <= 4


def test_plans_name_the_number_only_where_the_version_before_had_another() -> None:
    kwargs = {
        backbone: small_architecture("eomt", backbone=backbone)["arch_kwargs"] for backbone in ("dinov3", "dinov2")
    }
    assert "num_upscale_blocks" not in kwargs["dinov3"]
    assert kwargs["dinov2"]["num_upscale_blocks"] == 2
    assert small_architecture("eomt", num_upscale_blocks=3)["arch_kwargs"]["num_upscale_blocks"] == 3
    assert (
        "num_upscale_blocks" not in small_architecture("eomt", num_upscale_blocks=1, backbone="dinov2")["arch_kwargs"]
    )


def test_plans_without_the_number_build_the_network_of_the_version_before() -> None:
    assert [unnamed_upscale_blocks(patch) for patch in (8, 14, 16)] == [1, 1, 2]
    for backbone, stages in (("dinov3", 2), ("dinov2", 1)):
        network = EoMTSegmentationModel(3, 2, backbone=backbone, **TINY)
        assert len(network.head.upscale) == stages


def test_a_trained_folder_keeps_its_number() -> None:
    config = head_config_class("eomt")()
    patch14 = BackboneShape(width=64, depth=4, patch_size=14)
    trained_before = {"num_joint_blocks": None}
    assert "num_upscale_blocks" not in config.network_settings(patch14, trained_before)
    assert config.network_settings(patch14, {"num_upscale_blocks": 3})["num_upscale_blocks"] == 3
    assert config.network_settings(patch14, {})["num_upscale_blocks"] == 2


def test_a_number_out_of_range_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"model\.num_upscale_blocks=5 is out of range"):
        small_architecture("eomt", num_upscale_blocks=5)
