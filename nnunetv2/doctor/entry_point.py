"""The command `nnUNetv2_doctor`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from nnunetv2.doctor import folders, machine, packages
from nnunetv2.doctor.finding import Finding, Level
from nnunetv2.utilities.command_line import command


def build_parser() -> argparse.ArgumentParser:
    """Parser of `nnUNetv2_doctor`."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_doctor",
        description="Check this installation: packages, GPU, memory, environment variables, folders and weights; then "
        "plan, train and predict on a small synthetic dataset. Prints one line per finding, with its cure. The exit "
        "code is 2 if something does not work, else 0.",
        epilog="See docs/reliability.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON instead of lines")
    parser.add_argument("--no_smoke_run", action="store_true", help="skip the small experiment, which takes a minute")
    parser.add_argument("-device", default=None, choices=["cpu", "cuda", "mps"], help="device of the small experiment")
    return parser


@command
def doctor_entry(argv: Sequence[str] | None = None) -> int:
    """Console command `nnUNetv2_doctor`."""
    args = build_parser().parse_args(argv)
    found = []
    for finding in examine(with_smoke_run=not args.no_smoke_run, device=args.device):
        found.append(finding)
        if not args.json:
            sys.stdout.write(f"{finding}\n")
            sys.stdout.flush()
    if args.json:
        sys.stdout.write(f"{json.dumps([asdict(finding) for finding in found], indent=2)}\n")
    return 2 if any(finding.level is Level.ERROR for finding in found) else 0


def examine(*, with_smoke_run: bool, device: str | None = None) -> Iterator[Finding]:
    """All findings; cheap and basic checks come first.

    Args:
        device: of the small experiment; None: `cuda` if torch finds a GPU, else `cpu`.
    """
    yield packages.check_python()
    yield from packages.check_requirements()
    if (pair := packages.check_torch_pair()) is not None:
        yield pair
    answer = packages.probe()
    yield from packages.check_imports(answer)
    yield from packages.check_cuda(answer, machine.driver_version())
    yield from machine.check_machine()
    yield from folders.check_roots()
    yield from folders.check_extensions()
    if answer["imports"].get("transformers") is None:
        yield folders.check_weights()
    if with_smoke_run:
        from nnunetv2.doctor.smoke_run import smoke_run

        has_gpu = answer.get("cuda", {}).get("available", False)
        yield smoke_run(device or ("cuda" if has_gpu else "cpu"))


if __name__ == "__main__":
    sys.exit(doctor_entry())
