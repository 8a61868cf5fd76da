"""What holds for every model, however it is tuned, whatever the channels and labels: tests that train ten steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tests.contracts.cases import Combination, expected_trainable, grid, lora_names
from tests.contracts.ten_steps import TenSteps, logits, train_ten_steps

NUM_OUTPUTS = {"labels": 3, "regions": 2, "ignore": 3}
ODD_SIZES = [(33, 47), (7, 5), (64, 32)]
# The output of the U-Net at the lowest resolution has weight 0 in the loss of deep supervision, as upstream.
NEVER_TRAINED = {"unet": {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"}}
# The few hidden units of a squeeze-excitation can all be dead for one batch; test_fapm.py sees them learn.
MAY_REST = {"fapm": ".5.fc."}


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, folders: Path) -> TenSteps:
    """Trained once for all tests of a combination."""
    return train_ten_steps(request.param, folders)


def learning(run: TenSteps) -> set[str]:
    """Names of the parameters that must learn."""
    expected = expected_trainable(run.combination, run.network) - NEVER_TRAINED.get(run.combination.model, set())
    return without_resting(run, expected)


def without_resting(run: TenSteps, names: set[str]) -> set[str]:
    part = MAY_REST.get(run.combination.model)
    return {name for name in names if part is None or part not in name}


def in_backbone(name: str, combination: Combination) -> bool:
    return combination.backbone is not None and f"{name}.".startswith(combination.backbone)


@pytest.mark.parametrize("run", grid(), indirect=True, scope="module")
class TestTrainingContract:
    def test_logits_have_a_channel_per_class_or_region(self, run):
        run.network.eval()
        result = logits(run.network, run.image)
        assert result.shape == (2, NUM_OUTPUTS[run.combination.labels], *run.combination.patch)
        assert result.isfinite().all()
        assert result.dtype == torch.float32

    def test_images_of_any_size_are_segmented(self, run):
        run.network.eval()
        for size in ODD_SIZES:
            image = torch.randn(1, run.combination.channels, *size)
            # The U-Net needs sizes that it can halve, and meets others in the sliding window alone.
            result = in_windows(run, image) if run.combination.model == "unet" else logits(run.network, image)
            assert result.shape == (1, NUM_OUTPUTS[run.combination.labels], *size)
            assert result.isfinite().all()

    def test_gradients_reach_exactly_what_should_train(self, run):
        assert all(without_resting(run, there) == learning(run) for there in run.gradients.there)
        assert run.gradients.not_finite == set()
        assert without_resting(run, set.union(*run.gradients.nonzero)) == learning(run)
        if run.combination.tuning == "lora":  # B is 0 at the start, through which alone A is seen
            assert run.gradients.nonzero[0] & lora_names(run.combination) == lora_names(run.combination, "B")

    def test_the_optimiser_holds_each_of_these_once(self, run):
        names = {id(parameter): name for name, parameter in run.network.named_parameters()}
        held = [names[id(p)] for group in run.trainer.optimizer.param_groups for p in group["params"]]
        assert sorted(held) == sorted(expected_trainable(run.combination, run.network))

    def test_ten_steps_change_exactly_these_and_leave_the_rest_bit_equal(self, run):
        parameters = {name for name, _ in run.network.named_parameters()}
        assert without_resting(run, run.changed() & parameters) == learning(run)
        assert [name for name in run.changed() - parameters if in_backbone(name, run.combination)] == []

    def test_only_a_frozen_backbone_stays_in_eval_mode(self, run):
        run.network.train()
        is_frozen = run.combination.tuning == "frozen"
        wrong = [
            name
            for name, module in run.network.named_modules()
            if module.training == (is_frozen and in_backbone(name, run.combination))
        ]
        assert wrong == []

    def test_loaded_weights_predict_what_the_saved_ones_did(self, run):
        torch.testing.assert_close(run.logits_when_loaded, run.logits_when_saved, rtol=0, atol=0)

    def test_a_resumed_training_goes_on_as_if_never_interrupted(self, run):
        resumed, uninterrupted = run.resumed, run.uninterrupted
        for part in ("weights", "moments"):
            assert resumed[part].keys() == uninterrupted[part].keys()
            assert [n for n, value in uninterrupted[part].items() if not torch.equal(resumed[part][n], value)] == []
        for part in ("rates", "epoch", "iteration"):
            assert resumed[part] == uninterrupted[part]


def in_windows(run: TenSteps, image: torch.Tensor) -> torch.Tensor:
    """Logits (1, K, H, W) of an image (1, C, H, W), as prediction makes them."""
    trainer = run.trainer
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(use_mirroring=False, device=trainer.device, allow_tqdm=False)
    managers = (trainer.plans_manager, trainer.configuration_manager)
    predictor.manual_initialization(trainer.network, *managers, None, trainer.dataset_json, "nnUNetTrainer", None)
    result = predictor.predict_sliding_window_return_logits(image.transpose(0, 1))
    trainer.set_deep_supervision_enabled(True)
    return result.transpose(0, 1).float()
