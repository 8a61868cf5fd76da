"""Measures time and peak memory of fingerprint extraction, ours and, if its interpreter is given, upstream's.

    python benchmarks/fingerprint_memory.py RAW_FOLDER DATASET_ID [--upstream PYTHON] [--processes 8]

Runs `nnUNetv2_extract_fingerprint` on a raw dataset into a temporary folder. Memory is the proportional set size (PSS)
of the whole process tree: shared pages count once. Prints one line per program, their ratio, and the difference of the
two fingerprints.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

_ENTRY = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
_CALL = f"""
import sys
from {_ENTRY} import extract_fingerprint_entry
if __name__ == "__main__":
    sys.exit(extract_fingerprint_entry())
"""
_SECONDS_BETWEEN_SAMPLES = 0.05


def tree_pss(process: psutil.Process) -> int:
    """Returns the proportional set size of a process and its descendants in bytes."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            rollup = Path(f"/proc/{member.pid}/smaps_rollup").read_text()
        except OSError:  # the process has just ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total


class PeakMemory(threading.Thread):
    """Samples a process tree until the process ends; `peak` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.peak = 0

    def run(self) -> None:
        while True:
            try:
                if self.process.status() == psutil.STATUS_ZOMBIE:
                    return
                self.peak = max(self.peak, tree_pss(self.process))
            except psutil.NoSuchProcess:
                return
            time.sleep(_SECONDS_BETWEEN_SAMPLES)


def measure(python: str, raw: Path, dataset_id: int, num_processes: int) -> tuple[dict[str, float], dict]:
    """Extracts a fingerprint with one interpreter; returns seconds and MB, and the fingerprint."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch, "extract.py")  # a file, because spawned workers import the main module
        script.write_text(_CALL)
        environment = {
            **os.environ,
            "nnUNet_raw": str(raw),
            "nnUNet_preprocessed": scratch,
            "nnUNet_results": scratch,
            "OMP_NUM_THREADS": "1",
        }
        command = [python, str(script), "-d", str(dataset_id), "-np", str(num_processes), "--clean", "--no_pbar"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        memory = PeakMemory(process.pid)
        memory.start()
        if process.wait():
            raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
        wall = time.perf_counter() - started
        memory.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (fingerprint_file,) = Path(scratch).glob("*/dataset_fingerprint.json")
        fingerprint = json.loads(fingerprint_file.read_text())
    return {"wall s": wall, "CPU s": cpu, "peak MB": memory.peak / 2**20}, fingerprint


def largest_difference(ours: dict, theirs: dict) -> float:
    """Returns the largest relative difference of the intensity statistics of two fingerprints."""
    key = "foreground_intensity_properties_per_channel"
    return max(
        abs(ours[key][channel][name] - value) / max(abs(value), 1e-12)
        for channel, statistics in theirs[key].items()
        for name, value in statistics.items()
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, help="folder of raw datasets")
    parser.add_argument("dataset_id", type=int)
    parser.add_argument("--upstream", metavar="PYTHON", help="interpreter of an environment with upstream nnunetv2")
    parser.add_argument("--processes", type=int, default=8)
    args = parser.parse_args(argv)
    ours, our_fingerprint = measure(sys.executable, args.raw, args.dataset_id, args.processes)
    print("ours     " + "  ".join(f"{name} {value:8.1f}" for name, value in ours.items()))
    if args.upstream:
        theirs, their_fingerprint = measure(args.upstream, args.raw, args.dataset_id, args.processes)
        print("upstream " + "  ".join(f"{name} {value:8.1f}" for name, value in theirs.items()))
        print("ratio    " + "  ".join(f"{name} {theirs[name] / ours[name]:8.1f}" for name in ours))
        print(f"largest relative difference {largest_difference(our_fingerprint, their_fingerprint):.1e}")


if __name__ == "__main__":
    main()
