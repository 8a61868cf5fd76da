"""The command `nnUNetv2_model_info`: reports parameters, operations and memory of models before training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.errors import UsageError
from nnunetv2.run.model_info_request import InfoRequest
from nnunetv2.run.training_run import DEFAULT_PLANS, DEFAULT_TRAINER
from nnunetv2.utilities.command_line import command

_STDOUT = "-"
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of `nnUNetv2_model_info`; `parse_request` interprets its result."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_model_info",
        usage="%(prog)s DATASET CONFIGURATION [-tr TRAINER ...] [options] [key=value ...]\n"
        "       %(prog)s -m MODEL_FOLDER [MODEL_FOLDER ...] [options]",
        description="Tell what models cost: parameters, floating-point operations (FLOPs) and memory, in total and for "
        "each part. Nothing is trained, no weights are loaded and no GPU is needed.",
        epilog="A multiply-add is two FLOPs. Memory is that of tensors in the network's forward and backward pass, "
        "without the loss, workspaces and the GPU's own context; see docs/model_info.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "words",
        nargs="*",
        metavar="DATASET CONFIGURATION",
        help="preprocessed dataset (number or name), for example 4 2d",
    )
    add("-m", nargs="+", default=[], metavar="FOLDER", help="folders of trained models instead of a dataset")
    add("-tr", nargs="+", default=[], metavar="TRAINER", help=f"class names of trainers (default: {DEFAULT_TRAINER})")
    add("-p", default=DEFAULT_PLANS, metavar="PLANS", help="name of the plans (default: %(default)s)")
    add("--config", default=None, metavar="FILE", help="settings of a vision transformer: YAML file or preset")
    add("--batch_size", type=int, default=None, metavar="N", help="patches per training step (default: as trained)")
    add("--patch_size", nargs="+", default=None, metavar="SIZE", help="size of a patch (default: as trained)")
    add(
        "--device_precision",
        choices=_PRECISIONS,
        default="auto",
        help="number format of the forward and backward pass (default: what the trainer uses on a GPU)",
    )
    add("--json", default=None, metavar="FILE", help="also write the numbers to a file; - writes only them, to stdout")
    return parser


def parse_request(argv: Sequence[str] | None = None) -> InfoRequest:
    """Parses a command line with `key=value` words at any position.

    Raises:
        UsageError: arguments contradict each other, or there are too many.
    """
    args = build_parser().parse_intermixed_args(argv)
    settings: list[str] = []
    lists = {name: _plain_words(getattr(args, name), settings) for name in ("words", "m", "tr", "patch_size")}
    if len(lists["words"]) > 2:
        raise UsageError(f"{lists['words'][2]!r} is one word too many; give a dataset and a configuration")
    dataset, configuration = [*lists["words"], None, None][:2]
    return InfoRequest(
        dataset=dataset,
        configuration=configuration,
        model_folders=tuple(map(Path, lists["m"])),
        trainers=tuple(lists["tr"]),
        plans_identifier=args.p,
        config_path=args.config,
        overrides=tuple(settings),
        batch_size=None if args.batch_size is None else _positive("--batch_size", args.batch_size),
        patch_size=tuple(_positive("--patch_size", size) for size in lists["patch_size"]) or None,
        precision=args.device_precision,
        json_target=args.json,
    )


def _plain_words(words: Sequence[str] | None, settings: list[str]) -> list[str]:
    """Moves `key=value` words to `settings` and returns the rest; flags with `nargs` swallow words of both kinds."""
    settings += [word for word in words or () if "=" in word]
    return [word for word in words or () if "=" not in word]


def _positive(flag: str, text: str | int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"{flag} is {text!r}; give whole numbers from 1, for example {flag} 2")
    return number


@command
def model_info_entry(argv: Sequence[str] | None = None) -> None:
    """Console command `nnUNetv2_model_info`."""
    request = parse_request(argv)
    import torch

    from dinov3.utils.atomic_files import write_json
    from nnunetv2.run import model_info_report
    from nnunetv2.run.model_info_models import models_of_dataset, trained_models

    torch.set_num_threads(1)  # nothing is computed
    models = trained_models(request) if request.model_folders else models_of_dataset(request)
    content = model_info_report.as_json(models)
    if request.json_target == _STDOUT:
        print(model_info_report.json_text(content))
        return
    if request.json_target is not None:
        write_json(content, request.json_target, indent=2)
    print(model_info_report.as_text(models))


if __name__ == "__main__":
    sys.exit(model_info_entry())
