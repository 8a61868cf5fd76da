"""Everything that needs a GPU, in one run of under nine minutes: is it right, how fast is it, what holds it back?

    python -m benchmarks.on_gpu [--device cuda] [--minutes 8.5] [--only SECTION ...] [--tiny] [--output FOLDER]

Writes `on_gpu.json` and `on_gpu.md`. Sections, in this order; one that would begin after `--minutes` is left out, and
named as such:

- correctness: logits and the loss of a step of every head and U-Net as miniatures, against the CPU, in fp32;
- precisions: ten steps of each of them in fp32, bf16 and fp16, two with `--tiny`;
- steps: milliseconds, images per second, host waits and peak memory of a training step of ViT-L with LoRA on
  512 x 512 pixels and of U-Nets; beside it the memory that `nnUNetv2_model_info` names, and the share of the card's
  bf16 arithmetic (`--tflops`) that a step uses;
- prediction: windows and mirrored copies of an image; images per second, forward passes, peak memory;
- augmentation: CPU milliseconds of a worker per batch with -augmentation_device cpu and cuda, and what a batch costs
  the device with cuda: milliseconds, peak memory, megabytes that are copied to it;
- nccl: a step of one process with DistributedDataParallel;
- profile: the operations that take most of the time of a Mask2Former step;
- compile: the same steps with torch.compile, and how long compiling takes.

`--tiny` measures miniatures in every section: it shows that the script runs, on any device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks import batch_augmentation
from benchmarks.gpu_models import Model, every_model, make_folders, measured_models
from benchmarks.step_times import cuda_figures, medians
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.cost.trainer_cost import trainer_cost
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

Row = dict[str, Any]
CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of logits in fp32, relative to the largest
GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """Where and on what to measure.

    Attributes:
        device: of the measurement.
        is_tiny: miniatures only.
        repeats: rounds in which steps are timed.
        tflops: bf16 arithmetic that the card reaches, in TFLOP/s.
        deadline: of `time.monotonic()`; long sections look at it between models.
    """

    device: torch.device
    is_tiny: bool
    repeats: int
    tflops: float
    deadline: float

    def models(self) -> Iterator[Model]:
        for model in measured_models(self.is_tiny):
            if time.monotonic() > self.deadline:
                return
            yield model


def correctness(machine: Machine) -> list[Row]:
    """Compares logits and the loss of a training step with the CPU's, in fp32 without TF32."""
    rows = []
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for model in every_model():
        plain = model.with_precision("fp32")
        expected, found = plain.trainer(CPU), plain.trainer(machine.device)
        # Trainers may choose TF32 for fp32; this comparison wants all digits.
        torch.set_float32_matmul_precision("highest")
        found.network.load_state_dict(expected.network.state_dict())
        batch = plain.batch(expected)
        logits = [dense_logits(trainer, batch["data"]) for trainer in (expected, found)]
        difference = ((logits[0] - logits[1]).abs().max() / logits[0].abs().max()).item()
        losses = [step_of(trainer, batch)() for trainer in (expected, found)]
        rows.append(
            {
                "model": model.name,
                "logits": float(f"{difference:.1e}"),
                "loss": round(losses[1], 5),
                "loss, CPU": round(losses[0], 5),
                "equal": difference < TOLERANCE and abs(losses[0] - losses[1]) < TOLERANCE * max(1, abs(losses[0])),
            }
        )
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    return rows


def precisions(machine: Machine) -> list[Row]:
    """Trains ten steps on one batch in each precision; two of miniatures."""
    rows = []
    for model in every_model():
        row: Row = {"model": model.name}
        for precision in ("fp32", "bf16", "fp16"):
            trainer = model.with_precision(precision).trainer(machine.device)
            step = step_of(trainer, model.batch(trainer))
            losses = [step() for _ in range(2 if machine.is_tiny else 10)]
            row[precision] = f"{losses[0]:.3f} to {losses[-1]:.3f}"
            row["finite"] = row.get("finite", True) and all(torch.tensor(losses).isfinite())
        rows.append(row)
    return rows


def steps(machine: Machine) -> list[Row]:
    """Times training steps, and counts waits and memory."""
    return [_step_row(model, machine, is_compiled=False) for model in machine.models()]


def compiled(machine: Machine) -> list[Row]:
    """Times training steps with torch.compile."""
    return [_step_row(model, machine, is_compiled=True) for model in machine.models()]


def _step_row(model: Model, machine: Machine, *, is_compiled: bool) -> Row:
    release(machine.device)
    trainer = model.trainer(machine.device, is_compiled=is_compiled)
    batch = model.batch(trainer)
    step = lambda: trainer.train_step(batch)  # noqa: E731 - the loss is not read, as in a training
    started = time.monotonic()
    for _ in range(3):  # kernels are chosen, the optimiser's state is made
        step()
    synchronise(machine.device)
    first = time.monotonic() - started
    if machine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    milliseconds = medians({"step": step}, machine.device, machine.repeats)["step"]["ms"]
    row = {"model": model.name, "batch": model.batch_size, "ms": milliseconds}
    row["images/s"] = round(1000 * model.batch_size / milliseconds, 1)
    if is_compiled:
        return row | {"s for three steps": round(first, 1)}
    cost = trainer_cost(trainer, trainer.plans_manager, precision=model.precision)
    flops = model.batch_size * cost.total("training_flops")
    row["TFLOP"] = round(flops / 1e12, 2)
    row["of peak"] = f"{100 * flops / (milliseconds / 1000) / (machine.tflops * 1e12):.0f} %"
    row["GiB, model_info"] = round(cost.memory.training_peak / GIB, 2)
    if machine.device.type == "cuda":
        row["GiB"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
        row |= {name: value for name, value in cuda_figures(step, machine.device).items() if name != "peak_MB"}
    return row


def prediction(machine: Machine) -> list[Row]:
    """Predicts an image of five by five overlapping windows (miniatures: three by three) with all mirrored copies."""
    rows = []
    for model in machine.models():
        release(machine.device)
        trainer = model.trainer(machine.device)
        trainer.set_deep_supervision_enabled(False)
        predictor = nnUNetPredictor(device=machine.device, allow_tqdm=False)
        managers = (trainer.plans_manager, trainer.configuration_manager)
        axes = tuple(range(len(model.patch_size)))
        weights = [trainer.network.state_dict()]
        predictor.manual_initialization(
            trainer.network, *managers, weights, trainer.dataset_json, type(trainer).__name__, axes
        )
        forwards = Counter()
        handle = trainer.network.register_forward_hook(lambda *_, counts=forwards: counts.update(["forward"]))
        image = model.image(tiles=2 if machine.is_tiny else 3)
        predict = lambda predictor=predictor, image=image: predictor.predict_logits_from_preprocessed_data(image)  # noqa: E731
        predict()  # kernels are chosen, batches are found
        forwards.clear()
        if machine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        milliseconds = medians({"image": predict}, machine.device, 1 if machine.is_tiny else 3)["image"]["ms"]
        handle.remove()
        row = {"model": model.name, "image": "x".join(map(str, image.shape[-2:])), "ms": milliseconds}
        row["images/s"] = round(1000 / milliseconds, 2)
        row["forward passes"] = forwards["forward"] // (2 if machine.is_tiny else 4)  # with the round of warming up
        if machine.device.type == "cuda":
            row["GiB"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
        rows.append(row)
    return rows


def augmentation(machine: Machine) -> list[Row]:
    """Compares what a batch costs with both settings of -augmentation_device."""
    release(machine.device)
    return batch_augmentation.rows(machine.device, 2 if machine.is_tiny else 12, is_tiny=machine.is_tiny)


def nccl(machine: Machine) -> list[Row]:
    """Trains as one process of DistributedDataParallel, on CUDA with NCCL, and compares with a training without."""
    if machine.device.type != "cuda":
        return [{"left out": "needs a GPU"}]
    rows = []
    models = [model for model in every_model() if model.name in ("m2f", "eomt", "segformer", "U-Net 2-D")]
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=os.environ.get("MASTER_PORT", "29555"))
    expected = {}
    for model in models:
        trainer = model.trainer(machine.device)
        step = step_of(trainer, model.batch(trainer))
        expected[model.name] = [step() for _ in range(3)]
    torch.distributed.init_process_group("nccl", rank=0, world_size=1)
    try:
        for model in models:
            trainer = model.trainer(machine.device)
            step = step_of(trainer, model.batch(trainer))
            losses = [step() for _ in range(3)]
            close = all(abs(a - b) < 1e-2 * max(1, abs(b)) for a, b in zip(losses, expected[model.name], strict=True))
            rows.append(
                {
                    "model": model.name,
                    "network": type(trainer.network).__name__,
                    "losses": " ".join(f"{loss:.4f}" for loss in losses),
                    "without DDP": " ".join(f"{loss:.4f}" for loss in expected[model.name]),
                    "equal": close,
                }
            )
    finally:
        torch.distributed.destroy_process_group()
    return rows


def profiled(machine: Machine) -> list[Row]:
    """Lists the operations that take most of the time of a Mask2Former step."""
    release(machine.device)
    model = next(model for model in measured_models(machine.is_tiny) if model.name == "m2f")
    trainer = model.trainer(machine.device)
    batch = model.batch(trainer)
    for _ in range(3):
        trainer.train_step(batch)
    on_gpu = machine.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        trainer.train_step(batch)
        synchronise(machine.device)
    kind = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, kind))
    total = sum(getattr(event, kind) for event in events)
    return [
        {
            "operation": event.key[:90],
            "calls": event.count,
            "ms": round(getattr(event, kind) / 1000, 2),
            "share": f"{100 * getattr(event, kind) / total:.1f} %",
        }
        for event in events[:20]
    ]


def dense_logits(trainer: nnUNetTrainer, data: Tensor) -> Tensor:
    trainer.network.eval()
    with torch.no_grad():
        output = trainer.network(data.to(trainer.device))
    trainer.network.train()
    return (output[0] if isinstance(output, list) else output).float().cpu()


def step_of(trainer: nnUNetTrainer, batch: dict[str, Any]) -> Callable[[], float]:
    """A training step on one batch, whose randomness starts anew with the first call; returns the loss."""
    torch.manual_seed(0)
    return lambda: float(trainer.train_step(batch)["loss"])


def release(device: torch.device) -> None:
    """Gives the memory of earlier models back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


SECTIONS: dict[str, Callable[[Machine], list[Row]]] = {
    "correctness": correctness,
    "precisions": precisions,
    "steps": steps,
    "prediction": prediction,
    "augmentation": augmentation,
    "nccl": nccl,
    "profile": profiled,
    "compile": compiled,
}


def environment(device: torch.device) -> Row:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "CUDA": torch.version.cuda, "Python": platform.python_version()}


def table(rows: Sequence[Row]) -> str:
    """Formats rows as Markdown; a cell that a row lacks is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([str(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def report(found: dict[str, Any]) -> str:
    """Formats everything as Markdown."""
    parts = [f"# On the GPU\n\n{', '.join(f'{name} {value}' for name, value in found['environment'].items())}"]
    for name, section in found["sections"].items():
        text = f"FAILED: {section['failed']}" if "failed" in section else table(section["rows"])
        parts.append(f"## {name}, {section['seconds']} s\n\n{text}")
    if found["left out"]:
        parts.append(f"Left out, as the time was over: {', '.join(found['left out'])}.")
    return "\n\n".join(parts) + "\n"


def is_wrong(section: dict[str, Any]) -> bool:
    return "failed" in section or not all(row.get("equal", True) and row.get("finite", True) for row in section["rows"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--minutes", type=float, default=8.5, help="no section begins later (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="default: all")
    parser.add_argument("--tiny", action="store_true", help="measure miniatures")
    parser.add_argument("--repeats", type=int, default=10, help="rounds in which steps are timed")
    parser.add_argument("--tflops", type=float, default=790, help="bf16 arithmetic that the card reaches, in TFLOP/s")
    parser.add_argument("--output", type=Path, default=Path("on_gpu_output"))
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    machine = Machine(arguments.device, arguments.tiny, arguments.repeats, arguments.tflops, deadline)
    found: dict[str, Any] = {"environment": environment(machine.device), "sections": {}, "left out": []}
    with tempfile.TemporaryDirectory() as folder:
        make_folders(Path(folder))
        for name in arguments.only:
            started = time.monotonic()
            if started > deadline:
                found["left out"].append(name)
                continue
            try:
                section: dict[str, Any] = {"rows": SECTIONS[name](machine)}
            except Exception as error:  # noqa: BLE001 - the other sections are still wanted
                traceback.print_exc()
                section = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
            section["seconds"] = round(time.monotonic() - started, 1)
            found["sections"][name] = section
            # Written after every section: a run that is stopped keeps what it has.
            (arguments.output / "on_gpu.json").write_text(json.dumps(found, indent=2))
            (arguments.output / "on_gpu.md").write_text(report(found))
    print(report(found))
    if wrong := [name for name, section in found["sections"].items() if is_wrong(section)]:
        sys.exit(f"wrong or failed: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
