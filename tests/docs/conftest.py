"""The server of commands that documents are followed with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.command_server import command_server


@pytest.fixture(scope="module")
def commands() -> Iterator[Path]:
    """Path of a socket at which commands run in forks of one process."""
    with command_server() as socket:
        yield socket
