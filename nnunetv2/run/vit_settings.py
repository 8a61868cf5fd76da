"""Settings of the ViT training commands: printing, templates, and settings of a trained fold."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import UsageError

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.vit_config import ViTnnUNetConfig

_FLAG = re.compile(r"(?<![\w-])--?[a-z]\w*")


class WordsParser(argparse.ArgumentParser):
    """Collects all positional words in `words` instead of named positional arguments, so that none is required."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        super().add_argument("words", nargs="*")

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        if names[0].startswith("-"):
            return super().add_argument(*names, **options)
        return argparse.Action([], names[0])


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `is_about_settings`."""
    parser.add_argument(
        "--print_config",
        action="store_true",
        help="only print the settings in force, with the source of each; needs no dataset",
    )
    parser.add_argument(
        "--init_config",
        metavar="FILE",
        default=None,
        help="only write a file with every setting, its default and its meaning",
    )


def is_about_settings(argv: Sequence[str]) -> bool:
    """True if a command line asks for settings instead of a training."""
    flags = {word.partition("=")[0] for word in argv}
    return bool(flags & {"--print_config", "--init_config"}) and not flags & {"-h", "--help"}


def parse(parser: argparse.ArgumentParser, argv: Sequence[str], schema: type) -> argparse.Namespace:
    """Parses flags and words in any order.

    Raises:
        UsageError: a flag is unknown; it may be meant as a setting.
    """
    from dinov3.utils.config_layers import dotted_keys, nearest

    args, unknown = parser.parse_known_intermixed_args(argv)
    if not unknown:
        return args
    flag = unknown[0].partition("=")[0]
    near = nearest(flag.strip("-").replace("-", "_"), dotted_keys(schema))
    hint = nearest(flag, sorted(set(_FLAG.findall(parser.format_help())))) or near.replace("?", "=VALUE?")
    raise UsageError(f"{flag} is no flag of {parser.prog}; settings are written without dashes, key=value{hint}")


def settings_text(schema: type[ViTnnUNetConfig], title: str, config_path: str | None, words: Sequence[str]) -> str:
    """Formats the effective settings as YAML, with the source of each as comment; loading it gives the same settings.

    Args:
        schema: class of the settings.
        title: comment at the top.
        config_path: settings file; None: no file.
        words: `key=value` words that take precedence over the file.
    """
    from dinov3.utils.annotated_yaml import config_with_sources

    config, sources = schema.load(config_path, words)
    return f"# {title}\n\n" + config_with_sources(config, sources, config.without_effect())


def template(program: str, schema: type) -> str:
    """Formats all settings of a command with defaults and descriptions as YAML."""
    from dinov3.utils.annotated_yaml import WIDTH, config_template

    title = (
        f"All settings of {program} with their defaults, which apply without a file too. A file needs only what it "
        "changes; key=value words of the command line take precedence over it: lora.r=16 training.lr=2e-4"
    )
    comment = textwrap.fill(title, WIDTH, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n\n{config_template(schema)}"


def write_new_file(path: Path, text: str) -> None:
    """Writes the file that `--init_config` names.

    Raises:
        UsageError: the file already exists, or its folder does not.
    """
    if path.exists():
        raise UsageError(f"--init_config {path} exists already and is not overwritten; give another name or remove it")
    if not path.parent.is_dir():
        raise UsageError(f"--init_config {path}: there is no folder {path.parent}; make it first")
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def settings_of_fold(folder: Path, file_name: str) -> Path | None:
    """Finds the settings file of a trained fold; restores it from the checkpoint if missing.

    Returns:
        The path of the file; None if the fold has neither.
    """
    path = folder / file_name
    if path.is_file() or not any(folder.glob("checkpoint_*.pth")):
        return path if path.is_file() else None
    from dinov3.utils.yaml_config import save_config
    from nnunetv2.training.state.checkpoint import checkpoint_to_continue, peek

    found = checkpoint_to_continue(folder)
    config = None if found is None else peek(found)[0].get("trainer_config")
    if config is None:
        return None
    save_config(config, path)
    return path
