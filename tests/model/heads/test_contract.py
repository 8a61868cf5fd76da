"""What holds for every registered head, whoever wrote it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
import torch

from dinov3.utils.settings_help import field_docstrings
from nnunetv2.errors import UsageError
from nnunetv2.model.cost.model_cost import model_cost
from nnunetv2.model.head_config import head_config_class, setting_names
from nnunetv2.model.query_network import dense_logits
from nnunetv2.utilities import extensions
from tests.model.heads.small import HEADS, SMALL, loss_of, small_architecture, small_network

pytestmark = pytest.mark.parametrize("head", HEADS)

BATCH_OF_TWO = {"upernet"}  # normalises over a batch of single pixels


def test_small_settings_are_known_and_there_is_nothing_else(head):
    assert set(SMALL) == {name for name in HEADS if not extensions.find("head", name).is_external}
    assert set(SMALL.get(head, {})) <= set(setting_names(head_config_class(head)))


@pytest.mark.parametrize("backbone", ["dinov3", "dinov2"])
@pytest.mark.parametrize(("size", "num_classes"), [((50, 71), 1), ((7, 5), 5), ((64, 32), 3)])
def test_images_of_any_size_are_segmented(head, backbone, size, num_classes, seeded):
    network = small_network(head, num_classes, backbone=backbone).eval()
    image = torch.randn(2, 1, *size)
    with torch.no_grad():
        logits = network(image)
        assert logits.shape == (2, num_classes, *size)
        assert logits.isfinite().all()
        torch.testing.assert_close(network(image), logits, rtol=0, atol=0)
        assert not torch.allclose(network(image.flip(0)), logits)  # the image matters


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_all_that_is_trained_gets_a_gradient_and_nothing_else(head, tuning, seeded):
    network = small_network(head, 3, tuning=tuning)
    loss_of(network, torch.randn(2, 1, 64, 48)).backward()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    of_backbone = {id(parameter) for parameter in network.backbone.parameters()}
    in_backbone = {name for name, parameter in network.named_parameters() if id(parameter) in of_backbone}
    assert trained - reached <= (in_backbone if tuning == "full" else set())  # pretraining's tokens, later blocks
    assert reached <= trained
    assert (trained & in_backbone == set()) == (tuning == "frozen")


def test_a_single_image_can_be_trained_with(head, seeded):
    network = small_network(head, 3)
    if head in BATCH_OF_TWO:
        with pytest.raises(UsageError, match="batch_size of at least 2"):
            loss_of(network, torch.randn(1, 1, 32, 48))
    else:
        assert loss_of(network, torch.randn(1, 1, 32, 48)).isfinite()


def test_plans_rebuild_the_same_network(head, seeded):
    network = small_network(head, 3, channels=2, regions=True, tuning="lora").eval()
    again = small_network(head, 3, channels=2, regions=True, tuning="lora").eval()
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 2, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(again(image), network(image), rtol=0, atol=0)


def test_bf16_is_finite(head, seeded):
    network = small_network(head, 3).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.randn(1, 1, 64, 64)).isfinite().all()


@pytest.mark.parametrize("progress", [0.0, 1.0])  # of the training: masked attention everywhere, nowhere
def test_prediction_is_what_the_loss_sees(head, progress, seeded):
    if head_config_class(head).kind != "queries":
        pytest.skip("a dense head has one output")
    network = small_network(head, 3).eval()
    network.set_training_progress(progress)
    image = torch.randn(2, 1, 50, 71)
    with torch.no_grad():
        queries = network(image, return_queries=True)
        expected = dense_logits(queries, image.shape[-2:], network.image_multiple, regions=False)
        torch.testing.assert_close(network(image), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("progress", "num_predictions"), [(0.0, None), (1.0, 1)])
def test_prediction_skips_intermediate_masks_that_nothing_reads(head, progress, num_predictions, seeded):
    if head not in ("eomt", "pmt"):
        pytest.skip("the head's attention is always masked, or it has no queries")
    network = small_network(head, 3).eval()
    network.set_training_progress(progress)
    made = []
    network.head.mask_head.register_forward_hook(lambda *_: made.append(1))
    with torch.no_grad():
        num_layers = len(network(torch.zeros(1, 1, 32, 32), return_queries=True)["aux_outputs"]) + 1
        assert len(made) == num_layers > 1
        made.clear()
        network(torch.zeros(1, 1, 32, 32))
    assert len(made) == (num_predictions or num_layers)


def test_the_classifier_is_what_depends_on_the_number_of_classes(head):
    three, five = (small_network(head, num_classes).state_dict() for num_classes in (3, 5))
    assert three.keys() == five.keys()
    sized = {name for name in three if three[name].shape != five[name].shape}
    network = small_network(head, 3)
    assert sized
    assert sized == {name for name in three if network.is_classifier(name)}


def test_its_cost_is_counted_part_by_part(head):
    cost = model_cost(lambda: small_network(head, 3), 1, (64, 64))
    parts = {part.name: part.parameters for part in cost.parts}
    network = small_network(head, 3)
    assert sum(parts.values()) == sum(parameter.numel() for parameter in network.parameters())
    assert parts["backbone"] == sum(parameter.numel() for parameter in network.backbone.parameters())
    assert len(parts) > 1


def test_every_setting_says_what_it_means(head):
    config = head_config_class(head)
    texts = field_docstrings(config)
    assert all(texts[field.name] for field in fields(config))
    assert extensions.find("head", head).summary


def test_its_settings_are_read_without_torch(head):
    code = (
        "import sys; from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig; "
        f"AnyHeadConfig.load(None, ['model.head={head}']); "
        "print([m for m in ('torch', 'timm', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_its_section_of_plans_is_plain_data(head):
    architecture = small_architecture(head)
    assert architecture["_kw_requires_import"] == []
    assert architecture["network_class_name"].startswith("nnunetv2.model.")
    assert "pretrained" not in architecture["arch_kwargs"]
