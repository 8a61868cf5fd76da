"""Documents that tests follow as a reader would: files are written, commands run in a shell, outside the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.docs.command_server import CLIENT

_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./]+\.(?:py|yaml))\n")
_LONGEST_BLOCK = 600  # seconds


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    """`sh`, `python`, `yaml` or `text`."""
    remark: str
    """What stands behind the language, such as `fails`."""
    text: str

    @property
    def file(self) -> str | None:
        """Path of the file that the first line names."""
        match = _FILE.match(self.text)
        return match and match[1]


def blocks_of(document: str, section: str | None = None) -> list[Block]:
    """The fenced blocks of a file in `docs/`, or of the section with a title."""
    text = (REPOSITORY / "docs" / document).read_text(encoding="utf-8")
    if section is not None:
        text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)[1]
    return [Block(*(part.strip(" ") for part in match.groups())) for match in _BLOCK.finditer(text)]


@dataclass
class Reader:
    """Somebody who follows a document in an empty folder.

    Attributes:
        folder: where files are written and commands run.
        changes: strings of the document and what this reader writes instead, such as another number of a dataset.
        environment: of the commands; `export` changes it for those that follow.
        output: what the last commands printed, both streams.
        socket: of a `command_server` that runs the commands of this package; without one, each starts its own Python.
    """

    folder: Path
    changes: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    output: str = ""
    socket: Path | None = None

    def __post_init__(self) -> None:
        commands = self.folder / "bin"
        commands.mkdir(parents=True)
        _write_commands(commands, self.socket)
        self.environment["PATH"] = f"{commands}{os.pathsep}{self.environment['PATH']}"
        self.environment["PYTHONPATH"] = str(REPOSITORY)

    def follow(self, blocks: list[Block], after: Callable[[Block, str], None] = lambda block, output: None) -> None:
        """Writes the files and runs the commands; `after` gets each block with commands and what it printed."""
        for block in blocks:
            text = block.text
            for written, instead in self.changes.items():
                text = text.replace(written, instead)
            if block.file is not None:
                path = self.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            elif block.language == "sh":
                self.run(text, fails=block.remark == "fails")
                after(block, self.output)
            elif block.language == "text":
                assert text.strip() in self.output

    def run(self, commands: str, *, fails: bool = False) -> None:
        """Runs lines in a shell, which end at the first that fails."""
        # The shell tells its variables at the end, as a terminal that stays open keeps what was exported.
        told = self.folder / ".environment"
        script = f"set -e\n{commands}\nenv -0 > '{told}'\n"
        result = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST_BLOCK,
            check=False,
        )
        self.output = result.stdout
        assert (result.returncode != 0) == fails, f"{commands}\nended with {result.returncode}:\n{result.stdout}"
        if not fails:
            entries = told.read_text().split("\0")
            self.environment = dict(entry.split("=", 1) for entry in entries if entry)


def _write_commands(folder: Path, socket: Path | None) -> None:
    """Each console command as an installation makes it, for this checkout, or as a client of the server."""
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        path = folder / name
        if socket is None:
            text = (
                f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
                f"if __name__ == '__main__':\n    sys.exit({function}())\n"
            )
        else:
            client = CLIENT.format(socket=str(socket), module=module, function=function)
            text = f"#!{sys.executable} -SE\n{client}"
        path.write_text(text)
        path.chmod(0o755)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
