"""Measures what commands cost before they work: CPU seconds and imported modules, from the shell to a first forward.

    python benchmarks/start_up.py [--beside PYTHON] [--before FOLDER] [--repeats 3] [--only TEXT]

PYTHON is the interpreter of an environment with upstream nnU-Net, FOLDER the root of an earlier checkout. All run the
same commands on the same small dataset and model, in turn, on the CPU. Worker processes are counted. Prints a Markdown
table: medians, and the ratio of the others' CPU seconds to ours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
DATASET, UNKNOWN = "Dataset901_StartUp", "902"
SIDE = 256  # pixels
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
MODEL = f"{DATASET}/nnUNetTrainer__nnUNetPlans__2d"
TRAIN = "nnunetv2.run.run_training:run_training_entry"
TRAIN_VIT = "nnunetv2.run.run_training_vit:run_training_entry"
PREDICT = "nnunetv2.inference.predict_entry_points:predict_entry_point_modelfolder"

UPSTREAMS_PREDICT = "nnunetv2.inference.predict_from_raw_data:predict_entry_point_modelfolder"

# Runs an entry point. It reports the number of modules at its end or, if asked to, after the first forward of a network
# with parameters, where it waits to be measured and ended.
PROBE = """
import sys
module, function, stops = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
sys.argv = [module, *sys.argv[4:]]
def report(place):
    print("MODULES", len(sys.modules), place, flush=True)
    sys.stdin.read()
if stops:
    import torch
    depth, call = [0], torch.nn.Module.__call__
    def counted(self, *args, **kwargs):
        depth[0] += 1
        result = call(self, *args, **kwargs)
        depth[0] -= 1
        if depth[0] == 0 and next(self.parameters(), None) is not None:
            report("forward")
        return result
    torch.nn.Module.__call__ = counted
if __name__ == "__main__":
    import importlib
    try:
        getattr(importlib.import_module(module), function)()
    finally:
        report("end")
"""


@dataclass(frozen=True)
class EntryPoint:
    """A command as users type it, up to its end or to the first forward."""

    name: str
    function: str
    words: tuple[str, ...]
    to_first_forward: bool = False
    is_upstreams: bool = True

    def function_of(self, checkout: Path | None) -> str:
        """Module and function; upstream, which is no checkout, defines the one of prediction elsewhere."""
        return UPSTREAMS_PREDICT if checkout is None and self.function == PREDICT else self.function


ENTRY_POINTS = (
    EntryPoint("training: unknown dataset", TRAIN, (UNKNOWN, "2d", "0", "-device", "cpu")),
    EntryPoint("training of a head: unknown dataset", TRAIN_VIT, (UNKNOWN, "2d", "0"), is_upstreams=False),
    EntryPoint("prediction: unknown model", PREDICT, ("-i", "images", "-o", "out", "-m", "none", "-f", "0")),
    EntryPoint("first training forward, U-Net", TRAIN, (DATASET, "2d", "0", "-device", "cpu"), to_first_forward=True),
    EntryPoint(
        "first training forward, linear head with LoRA",
        TRAIN_VIT,
        (
            DATASET,
            "2d",
            "0",
            "-device",
            "cpu",
            "model.head=linear",
            "model.backbone_size=tiny",
            "model.pretrained=false",
        ),
        to_first_forward=True,
        is_upstreams=False,
    ),
    EntryPoint(
        "first predicted forward, U-Net",
        PREDICT,
        ("-i", "images", "-o", "out", "-m", MODEL, "-f", "0", "-device", "cpu"),
        to_first_forward=True,
    ),
    EntryPoint(
        "two PNGs predicted",
        PREDICT,
        ("-i", "images", "-o", "out", "-m", MODEL, "-f", "0", "-device", "cpu", "--disable_tta"),
    ),
)


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a command with its worker processes, and modules that it had imported."""

    cpu: float
    modules: int


def make_dataset(root: Path) -> None:
    """Creates a preprocessed dataset of six pictures below `root`, an untrained model of it, and two images."""
    random = np.random.default_rng(0)
    raw = root / "nnUNet_raw" / DATASET
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    (root / "images").mkdir()
    for number in range(6):
        pixels = random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(raw / "imagesTr" / f"case{number}_0000.png")
        Image.fromarray(np.eye(SIDE, dtype=np.uint8)).save(raw / "labelsTr" / f"case{number}.png")
    for number in range(2):
        shutil.copy(raw / "imagesTr" / f"case{number}_0000.png", root / "images")
    channels = {str(channel): name for channel, name in enumerate("RGB")}
    description = {"channel_names": channels, "labels": {"background": 0, "line": 1}, "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": 6}), encoding="utf-8")
    words = ["-d", "901", "-c", "2d", "-np", "1"]
    _here(
        root,
        "from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as commands\n"
        f"raise SystemExit(commands.plan_and_preprocess_entry({words}))\n",
    )
    _make_small(root / "nnUNet_preprocessed" / DATASET / "nnUNetPlans.json")
    _here(
        root,
        "import os, torch\n"
        "from nnunetv2.run.trainer_setup import get_trainer_from_args\n"
        f"trainer = get_trainer_from_args('{DATASET}', '2d', 0, device=torch.device('cpu'))\n"
        "trainer.initialize()\n"
        "os.makedirs(trainer.output_folder, exist_ok=True)\n"
        "trainer.save_checkpoint(trainer.output_folder + '/checkpoint_final.pth')\n",
    )
    model = root / "nnUNet_results" / MODEL
    for name in ("nnUNetPlans.json", "dataset.json"):
        shutil.copy(root / "nnUNet_preprocessed" / DATASET / name, model / name.replace("nnUNetPlans", "plans"))


def _make_small(plans_file: Path) -> None:
    """Narrows the network: what it computes is not measured here."""
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    configuration = plans["configurations"]["2d"]
    features = configuration["architecture"]["arch_kwargs"]["features_per_stage"]
    configuration["architecture"]["arch_kwargs"]["features_per_stage"] = [8] * len(features)
    configuration["batch_size"] = 2
    plans_file.write_text(json.dumps(plans), encoding="utf-8")


def _here(root: Path, code: str) -> None:
    environment = _environment(root, REPOSITORY)
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=True, capture_output=True)


def _environment(root: Path, checkout: Path | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    folders = {name: str(root / name) for name in FOLDERS}
    paths = {"PYTHONPATH": str(checkout)} if checkout else {}
    return kept | folders | paths | {"nnUNet_n_proc_DA": "0", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}


def measure(entry: EntryPoint, python: str, checkout: Path | None, root: Path) -> Cost:
    """Runs a command in a process of its own."""
    shutil.rmtree(root / "out", ignore_errors=True)
    # A file, because spawned workers import the main module again.
    probe = root / "probe.py"
    probe.write_text(PROBE, encoding="utf-8")
    words = [root / "nnUNet_results" / word if word == MODEL else word for word in entry.words]
    command = [python, probe, *entry.function_of(checkout).split(":"), str(entry.to_first_forward), *words]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=root,
        env=_environment(root, checkout),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        _, modules, place = next(line.split() for line in process.stdout if line.startswith("MODULES"))
        if (place == "forward") != entry.to_first_forward:
            raise RuntimeError(f"{entry.name}: {python} did not get to a forward")
        return Cost(cpu_seconds(process.pid), int(modules))
    finally:
        _end(process)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, its descendants, and those that have ended."""
    main = psutil.Process(pid)
    total = 0.0
    for process in (main, *main.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _end(process: subprocess.Popen) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.communicate()


def table(measured: dict[str, dict[str, list[Cost]]]) -> str:
    """Formats medians as a Markdown table; ratios are of CPU seconds, to `here`."""
    sides = list(dict.fromkeys(side for costs in measured.values() for side in costs))
    heads = [f"{side}: CPU s (modules)" for side in sides] + [f"{side} / here" for side in sides if side != "here"]
    lines = [f"| from the shell to | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, costs in measured.items():
        seconds = {side: statistics.median(cost.cpu for cost in runs) for side, runs in costs.items()}
        modules = {side: round(statistics.median(cost.modules for cost in runs)) for side, runs in costs.items()}
        cells = [f"{seconds[side]:.2f} ({modules[side]})" if side in seconds else "-" for side in sides]
        cells += [
            f"{seconds[side] / seconds['here']:.1f}" if side in seconds else "-" for side in sides if side != "here"
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def compare(sides: dict[str, tuple[str, Path | None]], repeats: int, is_chosen: Callable[[str], bool]) -> str:
    """Measures all sides in turn and returns the table."""
    entries = [entry for entry in ENTRY_POINTS if is_chosen(entry.name)]
    measured: dict[str, dict[str, list[Cost]]] = {entry.name: {} for entry in entries}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_dataset(root)
        for _ in range(repeats):
            for entry in entries:
                for side, (python, checkout) in sides.items():
                    if checkout is not None or entry.is_upstreams:
                        cost = measure(entry, python, checkout, root)
                        measured[entry.name].setdefault(side, []).append(cost)
    return table(measured)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="PYTHON")
    parser.add_argument("--before", metavar="FOLDER", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", metavar="TEXT", default="", help="entry points whose name contains TEXT")
    options = parser.parse_args(argv)
    sides: dict[str, tuple[str, Path | None]] = {"here": (sys.executable, REPOSITORY)}
    if options.before:
        sides["before"] = (sys.executable, options.before.resolve())
    if options.beside:
        sides["upstream"] = (options.beside, None)
    print(compare(sides, options.repeats, lambda name: options.only in name))


if __name__ == "__main__":
    main()
