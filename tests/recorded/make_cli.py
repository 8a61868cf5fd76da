"""Records the flags of upstream's console commands for tests/test_command_line.py.

Run with an interpreter that has upstream nnunetv2 2.8.1 (and not this project):

    UPSTREAM/bin/python tests/recorded/make_cli.py

It writes cli.json beside itself.
"""

from __future__ import annotations

import json
import os
from importlib.metadata import distribution
from pathlib import Path

from command_flags import describe_flags, parser_of

CONFIGURED = ("nnUNet_def_n_proc", "nnUNet_npp", "nnUNet_nps")  # environment variables that change defaults


def main() -> None:
    for variable in CONFIGURED:
        os.environ.pop(variable, None)
    scripts = [entry for entry in distribution("nnunetv2").entry_points if entry.group == "console_scripts"]
    recorded = {script.name: describe_flags(parser_of(script.value)) for script in scripts}
    commands = (f"{json.dumps(name)}: {json.dumps(recorded[name])}" for name in sorted(recorded))
    (Path(__file__).parent / "cli.json").write_text("{" + ",\n".join(commands) + "}\n")
    print(f"{len(recorded)} commands, {sum(map(len, recorded.values()))} flags")


if __name__ == "__main__":
    main()
