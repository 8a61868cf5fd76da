"""Row 34: the seed of a training without one is drawn and recorded, and repeats the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nnunetv2.run.run_training import run_training_entry
from nnunetv2.utilities.checkpoint_io import load_checkpoint

pytestmark = pytest.mark.integration


def test_drawn_seed_repeats_a_training_on_the_cpu(
    tiny_images: Path, nnunet_folders: dict[str, Path], short_training, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_training(epochs=2)
    results = nnunet_folders["nnUNet_results"]

    def train(workers: int, *words: str) -> tuple[dict[str, torch.Tensor], dict]:
        monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
        code, errors = run(run_training_entry, "777", "2d", "0", "-device", "cpu", *words)
        assert code == 0, errors
        (fold,) = results.glob("*/*/fold_0")
        lines = map(json.loads, (fold / "metrics.jsonl").read_text().splitlines())
        line = next(line for line in lines if line["type"] == "run")
        content = load_checkpoint(fold / "checkpoint_final.pth")
        assert content.get("drawn_seed") == line["drawn_seed"]
        text = next(fold.glob("training_log_*")).read_text()
        assert (f"Drawn seed {line['drawn_seed']}: " in text) is (line["seed"] is None)
        assert "used before an earlier one" not in text
        fold.parents[1].rename(results.parent / f"{fold.parents[1].name}_{len(list(results.parent.iterdir()))}")
        return content["network_weights"], line

    first, line = train(0)
    other, line_of_other = train(1)
    assert line["seed"] is line_of_other["seed"] is None
    assert line["drawn_seed"] != line_of_other["drawn_seed"]
    for weights, described in ((first, line), (other, line_of_other)):
        again, line_of_repetition = train(0, "--seed", str(described["drawn_seed"]))
        assert (line_of_repetition["seed"], line_of_repetition["drawn_seed"]) == (described["drawn_seed"], None)
        assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
