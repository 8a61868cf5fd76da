"""The command that trains and evaluates: what it starts, what it writes, what it refuses."""

from __future__ import annotations

import csv
import logging
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from dinov3.eval.segmentation.config import SegmentationConfig, load_segmentation_config
from dinov3.eval.segmentation.run import help_text, launch, main, run_segmentation_with_dinov3
from dinov3.utils.config_layers import dotted_keys
from dinov3.utils.errors import DataError, LockedError, UsageError
from tests.dinov3.tiny_ade20k_folder import make_tiny_ade20k_folder

RESULTS = "results-semantic-segmentation"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return make_tiny_ade20k_folder(tmp_path_factory.mktemp("ade20k"))


@pytest.fixture
def words(dataset, tmp_path) -> list[str]:
    return ["config=config-tiny", f"datasets.root={dataset}", f"output_dir={tmp_path / 'run'}", "device=cpu"]


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, torch.nn.Module | None, SegmentationConfig]]:
    """Stands in for the three functions that do the work, and tells what they were called with."""
    from dinov3.eval.segmentation import eval as evaluation
    from dinov3.eval.segmentation import train, train_m2f

    made = []

    def stand_in(name):
        def function(backbone, config):
            made.append((name, backbone, config))
            return {"mIoU": 50.0}

        return function

    monkeypatch.setattr(train, "train_segmentation", stand_in("linear"))
    monkeypatch.setattr(train_m2f, "train_m2f_segmentation", stand_in("m2f"))
    monkeypatch.setattr(evaluation, "test_segmentation", stand_in("test"))
    return made


def read_csv(path: Path) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8") as file:
        return next(csv.DictReader(file))


def test_help_lists_every_setting_with_its_default_and_the_shipped_files():
    text = help_text()
    sections = {key.rpartition(".")[0] for key in dotted_keys(SegmentationConfig)}
    sections |= {field.name for field in fields(SegmentationConfig) if f"\n{field.name}.*" in text}
    for key in dotted_keys(SegmentationConfig):
        assert key in sections or f"\n  {key}=" in text
    assert "decoder_head.hidden_dim=2048" in text
    assert "config-ade20k-m2f-training" in text


def test_help_needs_no_heavy_package():
    code = (
        "import sys; from dinov3.eval.segmentation.run import main; assert main(['-h']) == 0;"
        "print([m for m in ('torch', 'numpy', 'timm', 'transformers', 'PIL') if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert "\n  scheduler.total_iter=40000\n" in result.stdout


@pytest.mark.parametrize(
    ("extra", "expected"),
    [([], "m2f"), (["decoder_head.type=linear"], "linear"), (["load_from=WEIGHTS"], "test")],
)
def test_the_settings_choose_what_is_done(words, calls, tmp_path, extra, expected):
    weights = tmp_path / "model.pth"
    weights.touch()
    extra = [word.replace("WEIGHTS", str(weights)) for word in extra]
    assert main([*words, *extra]) == 0
    [(name, backbone, config)] = calls
    assert name == expected
    assert backbone.embed_dim == 64
    assert config.model.device == "cpu"
    assert read_csv(tmp_path / "run" / f"{RESULTS}.csv") == {"mIoU": "50.0"}


def test_the_released_segmentor_needs_no_backbone(calls, dataset, tmp_path):
    words = ["config=config-ade20k-m2f-inference", f"datasets.root={dataset}", f"output_dir={tmp_path}", "device=cpu"]
    assert main([*words, "load_from=dinov3_vit7b16_ms"]) == 0
    assert calls[0][:2] == ("test", None)


def test_run_segmentation_with_dinov3_takes_backbone_and_settings(calls):
    assert run_segmentation_with_dinov3(backbone=None, config=load_segmentation_config([])) == {"mIoU": 50.0}
    assert calls[0][0] == "m2f"


def test_settings_and_log_are_written_with_the_real_number_of_processes(words, calls, tmp_path):
    main([*words, "n_gpus=8", "optimizer.lr=3e-4"])
    stored = load_segmentation_config([f"config={tmp_path / 'run' / 'segmentation_config.yaml'}"])
    assert stored == calls[0][2]
    assert (stored.n_gpus, stored.optimizer.lr) == (1, 3e-4)
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "lr: 0.0003" in log
    assert "Batch: 2 images (bs=2, processes: 1); n_gpus=8 is for 16 images" in log
    assert not logging.getLogger("dinov3").handlers


def test_equal_seeds_give_equal_random_backbones(words, calls, tmp_path):
    for seed in (1, 1, 2):
        launch(load_segmentation_config([*words, f"seed={seed}"]))
    first, second, third = (next(backbone.parameters()) for _, backbone, _ in calls)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"output_dir": ""}, "No output_dir was given; write output_dir=DIR"),
        ({"model": "null"}, "No backbone was given; write model.dino_hub=NAME"),
        ({"load_from": "absent.pth"}, "load_from=absent.pth: there is no such file; give model_final.pth"),
        ({"datasets.train": ""}, "No datasets.train was given; write for example datasets.train=ADE20K:split=TRAIN"),
        ({"datasets.val": ""}, "No datasets.val was given"),
        ({"datasets.root": "absent"}, "absent"),
        (
            {"model.dino_hub": "dinov3_vits61"},
            "model.dino_hub='dinov3_vits61' is not known; did you mean dinov3_vits16",
        ),
    ],
)
def test_what_a_run_needs_is_checked_at_once(words, calls, replaced, message):
    config = load_segmentation_config([*words, *(f"{key}={value}" for key, value in replaced.items())])
    with pytest.raises(UsageError, match=message):
        launch(config)
    assert not calls


def test_a_wrong_setting_is_one_line_and_exit_code_2(capsys):
    assert main(["decoder_head.typ=m2f"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: There is no setting 'decoder_head.typ'; did you mean decoder_head.type?\n"


def test_the_folder_of_another_training_is_not_touched(words, calls, tmp_path):
    main(words)
    folder = tmp_path / "run"
    (folder / "checkpoint_latest.pth").touch()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for extra, message in (
        ([], r"holds a training already \(checkpoint_latest.pth\); go on with it by resume=true"),
        ([f"load_from={folder / 'checkpoint_latest.pth'}"], "an evaluation would replace; give another folder"),
        (
            ["resume=true", "optimizer.lr=5", "lora.r=3"],
            "lora.r was 8 and is 3; optimizer.lr was 0.001 and is 5.0. To go on",
        ),
        (["resume=true", "scheduler.total_iter=30"], "scheduler.total_iter was 20 and is 30"),
        (["resume=true", "bs=4"], "bs times the number of processes was 2 and is 4"),
    ):
        with pytest.raises(UsageError, match=message):
            launch(load_segmentation_config([*words, *extra]))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert len(calls) == 1


LOCKED = """
import fcntl, sys
file = open(sys.argv[1], 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
print('locked', flush=True)
input()
"""


def test_a_second_run_is_kept_out_of_the_folder_of_the_first(words, calls, tmp_path):
    config = load_segmentation_config(words)
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", LOCKED, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(LockedError, match="Another process is writing in .*run; wait until it has ended$"):
            launch(config)
        other.kill()
    assert calls == []
    launch(config)
    assert len(calls) == 1


def test_a_failed_evaluation_leaves_the_settings_of_an_earlier_one(words, calls, tmp_path, monkeypatch):
    from dinov3.eval.segmentation import eval as evaluation

    (tmp_path / "model.pth").touch()
    words = [*words, f"load_from={tmp_path / 'model.pth'}"]
    launch(load_segmentation_config(words))
    kept = (tmp_path / "run" / "segmentation_config.yaml").read_text()

    def fail(backbone, config):
        raise DataError("does not fit")

    monkeypatch.setattr(evaluation, "test_segmentation", fail)
    with pytest.raises(DataError, match="does not fit"):
        launch(load_segmentation_config([*words, "seed=7"]))
    assert (tmp_path / "run" / "segmentation_config.yaml").read_text() == kept


def test_a_training_goes_on_with_the_settings_of_its_folder(words, calls, tmp_path):
    main(words)
    (tmp_path / "run" / "checkpoint_latest.pth").touch()
    stored = f"config={tmp_path / 'run' / 'segmentation_config.yaml'}"
    assert main([stored, "resume=true", "num_workers=1", "eval.eval_interval=5", "checkpoint_interval=7"]) == 0
    assert calls[1][2].resume
    assert calls[1][2].checkpoint_interval == 7


def test_resuming_with_another_backbone_leaves_the_settings_of_the_folder(words, tmp_path):
    short = ["decoder_head.type=linear", "scheduler.total_iter=1", "scheduler.constructor_kwargs.warmup_iters=0"]
    assert main([*words, *short]) == 0
    stored = (tmp_path / "run" / "segmentation_config.yaml").read_bytes()
    with pytest.raises(UsageError, match="other backbone weights"):
        launch(load_segmentation_config([*words, *short, "resume=true", "model.kwargs.pos_embed_rope_base=50"]))
    assert (tmp_path / "run" / "segmentation_config.yaml").read_bytes() == stored


def test_metrics_of_classes_and_weights_of_every_file_come_out_of_a_training(words, tmp_path):
    short = ["decoder_head.type=linear", "scheduler.total_iter=1", "scheduler.constructor_kwargs.warmup_iters=0"]
    assert main([*words, *short, "ema.enabled=true"]) == 0
    trained = read_csv(tmp_path / "run" / f"{RESULTS}.csv")
    assert read_csv(tmp_path / "run" / f"{RESULTS}-classes.csv")["class"] == "0"
    for name in ("model_best.pth", "model_final.pth", "checkpoint_latest.pth"):
        weights = (tmp_path / "run" / name).as_uri()
        assert main([*words, *short, f"load_from={weights}", f"output_dir={tmp_path / name}"]) == 0
        assert read_csv(tmp_path / name / f"{RESULTS}.csv") == trained


def test_a_training_without_its_checkpoint_is_not_started_anew_by_resume(words, calls, tmp_path):
    main(words)
    (tmp_path / "run" / "model_final.pth").touch()
    with pytest.raises(UsageError, match="but no checkpoint_latest.pth to go on from; put it back"):
        launch(load_segmentation_config([*words, "resume=true"]))


def test_resume_starts_a_training_where_there_is_none(words, calls):
    assert main([*words, "resume=true"]) == 0
    assert calls


@pytest.mark.slow
@pytest.mark.parametrize("head", ["m2f", "linear"])
def test_a_tiny_training_learns_and_its_model_can_be_evaluated(words, tmp_path, head):
    assert main([*words, f"decoder_head.type={head}"]) == 0
    folder = tmp_path / "run"
    written = {path.name for path in folder.iterdir()}
    assert written >= {"segmentation_config.yaml", "checkpoint_latest.pth", "model_final.pth", "log.txt"}
    trained = read_csv(folder / f"{RESULTS}.csv")
    assert float(trained["mIoU"]) > 40  # only background: 28

    best = f"load_from={folder / 'model_best.pth'}"
    settings = f"config={folder / 'segmentation_config.yaml'}"
    assert main([settings, best, f"output_dir={tmp_path / 'evaluation'}"]) == 0
    evaluated = read_csv(tmp_path / "evaluation" / f"{RESULTS}.csv")
    assert float(evaluated["mIoU"]) == pytest.approx(float(trained["mIoU"]), abs=0.2)


@pytest.mark.slow
@pytest.mark.integration
def test_processes_that_torchrun_starts_share_a_batch_and_one_log(words, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [
        "-m",
        "dinov3.eval.segmentation.run",
        *words,
        "decoder_head.type=linear",
        "bs=1",
        "scheduler.total_iter=4",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count("Batch: 2 images (bs=1, processes: 2)") == 1
    assert result.stdout.count("Settings:") == 1
    assert float(read_csv(tmp_path / "run" / f"{RESULTS}.csv")["mIoU"]) > 0
