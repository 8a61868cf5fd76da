"""Costs and learning curves from what trainings logged, ours and upstream's."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2.comparison.costs import method_costs
from nnunetv2.comparison.models import find_runs
from nnunetv2.comparison.results import MethodCost
from nnunetv2.comparison.training_logs import learning_curves
from tests.comparison.model_folders import (
    DATASET,
    DATASET_JSON,
    EPOCHS,
    NAME,
    RUN_LINE,
    UPSTREAM_DEBUG,
    UPSTREAM_LOG,
    Model,
    write_predictions,
)


def runs_of(place: Path, *models: Model, method: str = "m") -> tuple:
    words = [f"{method}={model.write(place / str(number) / NAME)}" for number, model in enumerate(models)]
    return find_runs(DATASET, words)


def logged_cost(runs: tuple) -> MethodCost:
    (cost,) = method_costs(runs, build_networks=False)
    return cost


def test_hours_are_those_of_all_processes_and_folds_and_the_mean_over_runs(place):
    longer = Model(epochs=[{**epoch, "seconds": 135.0, "peak_gpu_memory_mib": 700.5} for epoch in EPOCHS])
    cost = logged_cost(runs_of(place, Model(), longer))
    assert cost.gpu_hours == pytest.approx((0.1 + 0.3) / 2)  # 2 folds x 2 epochs x 45 s x 2 processes = 0.1 h
    assert cost.seconds_per_iteration == pytest.approx(4.0)
    assert cost.peak_memory_mib == 700.5
    assert (cost.num_parameters, cost.num_trained_parameters, cost.device) == (100, 90, "GPU")
    assert (cost.patch_size, cost.pretrained, cost.gflops_per_patch) == ((32, 16), None, None)


def test_seconds_per_case_are_those_of_the_validations(place):
    fast, slow = (Model(validation_line={"seconds_per_case": seconds}) for seconds in (2.0, 5.0))
    assert logged_cost(runs_of(place, fast, slow, Model())).seconds_per_case == 3.5


def test_weights_to_start_from_are_told(place):
    vit = Model(run_line={**RUN_LINE, "pretrained_weights": "dinov3 base, released weights"})
    assert logged_cost(runs_of(place / "a", vit)).pretrained == "dinov3 base, released weights"
    runs = runs_of(place / "b", Model(run_line={**RUN_LINE, "pretrained_weights": "w.pth"}))
    resumed = {"type": "run", "first_epoch": 1, **RUN_LINE, "pretrained_weights": "none given"}
    for log in runs[0].folder.glob("fold_*/metrics.jsonl"):
        log.write_text(log.read_text() + json.dumps(resumed) + "\n")
    assert logged_cost(runs).pretrained == "w.pth"


def test_upstreams_log_tells_hours_and_curve(place):
    runs = runs_of(place, Model(is_upstreams=True, folds={"0": ("a", "b")}))
    cost = logged_cost(runs)
    assert cost.gpu_hours == pytest.approx(0.03) and cost.device == "NVIDIA A100"
    assert cost.seconds_per_iteration is cost.num_parameters is cost.peak_memory_mib is None
    (curve,) = learning_curves(runs)
    assert (curve.method, curve.run, curve.fold, curve.epochs) == ("m", "m", "0", (0, 1))
    assert curve.pseudo_dice == pytest.approx((0.375, 0.5)) and curve.val_loss == (-0.0645, -0.1073)


def test_several_processes_of_upstream_have_unknown_hours(place):
    debug = {**UPSTREAM_DEBUG, "is_ddp": "True"}
    assert logged_cost(runs_of(place, Model(is_upstreams=True, debug=debug))).gpu_hours is None


def test_epochs_that_were_repeated_or_are_of_an_earlier_training_count_once(place):
    folder = Model(is_upstreams=True, folds={"0": ("a",)}).write(place / NAME) / "fold_0"
    epoch = "2026-11-22 08:00:00.0: Epoch {} \n2026-11-22 08:00:00.0: Epoch time: 360.0 s \n"
    (folder / "training_log_2026_11_9_08_00_00.txt").write_text("".join(map(epoch.format, range(5))))  # earlier
    (folder / "training_log_2026_11_22_08_00_00.txt").write_text(epoch.format(1))  # goes on with epoch 1
    (curve,) = learning_curves(find_runs(DATASET, [f"m={folder.parent}"]))
    assert curve.epochs == (0, 1) and math.isnan(curve.pseudo_dice[1])
    (cost,) = method_costs(find_runs(DATASET, [f"m={folder.parent}"]), build_networks=False)
    assert cost.gpu_hours == pytest.approx(0.11)
    assert UPSTREAM_LOG in (folder / "training_log_2026_11_21_18_51_10.txt").read_text()


def test_curves_have_gaps_where_an_epoch_has_no_value(place):
    gap = Model(epochs=[EPOCHS[0], {**EPOCHS[1], "mean_fg_dice": None}], folds={"0": ("a",)})
    (curve,) = learning_curves(runs_of(place, gap))
    assert curve.pseudo_dice[0] == 0.5 and math.isnan(curve.pseudo_dice[1])
    assert curve.val_loss == (-0.5, -0.75)


def test_predictions_made_elsewhere_have_no_costs_and_no_curves(place):
    runs = find_runs(DATASET, [str(write_predictions(place / "elsewhere", ["a"]))])
    assert method_costs(runs) == (MethodCost("elsewhere"),)
    assert learning_curves(runs) == ()


@pytest.mark.slow
def test_a_network_that_cannot_be_built_is_a_warning(place, caplog):
    (cost,) = method_costs(runs_of(place, Model()))  # its plans name a class that does not exist
    assert cost.gflops_per_patch is None and cost.gpu_hours == pytest.approx(0.1)
    assert "cannot be built" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "TrainerThatIsNotHere"])
def test_operations_are_those_that_model_info_tells(place, trainer):
    from nnunetv2.training.cost.trainer_cost import trainer_cost, trainer_of_model_folder
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from tests.training.tiny_dataset import tiny_plans

    debug = {**UPSTREAM_DEBUG, "configuration_manager": "-", "plans_manager": "-", "network": "PlainConvUNet"}
    model = Model(is_upstreams=True, debug=debug, plans=tiny_plans(), dataset_json=DATASET_JSON)
    folder = model.write(place / f"{trainer}__nnUNetPlans__2d")
    expected = trainer_cost(trainer_of_model_folder(folder, "nnUNetTrainer"), PlansManager(tiny_plans()))
    (cost,) = method_costs(find_runs(DATASET, [str(folder)]))
    assert cost.gflops_per_patch == expected.total("forward_flops") / 1e9 > 0
    assert cost.num_parameters == expected.total("parameters") > 1000
    assert cost.estimated_memory_mib == expected.memory.training_peak / 2**20


@pytest.mark.integration
def test_reading_logs_needs_no_torch():
    code = (
        "import sys, nnunetv2.comparison.costs, nnunetv2.comparison.training_logs, nnunetv2.comparison.comparability, "
        "nnunetv2.comparison.models; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
