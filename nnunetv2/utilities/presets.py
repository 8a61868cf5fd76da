"""Settings files that come with the package, which commands take by name: `--config fundus_vessels`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from nnunetv2.errors import UsageError
from nnunetv2.utilities.training_commands import WITH_SETTINGS

_PREFIXES = tuple(command.prefix for command in WITH_SETTINGS if command.prefix)  # of files for that command alone
_TEMPLATES = ("study", "m2f_default", "segformer_default", "vit_default")  # of files that users write


def preset_names(prefix: str = "") -> tuple[str, ...]:
    """Returns the names of a command's presets, sorted.

    Args:
        prefix: of the command's flag `--{prefix}config`.
    """
    stems = {Path(file.name).stem for file in files("nnunetv2.configs").iterdir() if file.name.endswith(".yaml")}
    own = (s for s in stems - {*_TEMPLATES} if (s.startswith(prefix) if prefix else not s.startswith(_PREFIXES)))
    return tuple(sorted(own))


def settings_file(name: str, prefix: str = "") -> str:
    """Returns the path of a settings file that a user named: a path, or the name of a preset.

    A bare name means the preset only if there is no file of that name.

    Raises:
        UsageError: a name without folder is neither a file nor a preset of the command.
    """
    path, presets = Path(name), preset_names(prefix)
    if path.is_file() or path.name != name:
        return name
    if path.suffix:
        if path.stem in presets:
            raise UsageError(f"There is no file {name} in this folder; the preset is called {path.stem}")
        return name
    if name in presets:
        return str(files("nnunetv2.configs").joinpath(f"{name}.yaml"))
    owner = next((command for command in WITH_SETTINGS if name in preset_names(command.prefix)), None)
    elsewhere = f"; {owner.program} {owner.config_flag} has it" if owner else ""
    known = f"; presets: {', '.join(presets)}" if presets else ""
    raise UsageError(f"There is no settings file or preset {name!r}{known}{elsewhere}")
