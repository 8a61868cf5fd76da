"""What a program makes the host wait for, and where."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_OWN = tuple(str(_REPOSITORY / package) for package in ("nnunetv2", "dinov3"))


@dataclass
class HostLog:
    """Events since the last `reset`.

    Attributes:
        waits: places at which the host waits until the device has done everything it was given, with their kind.
        staged: copies of pageable memory to the device that ask not to wait. The driver stages small ones.
        late_reads: per event that the host waited for: what it had launched since, so what the device has left to do.
        bytes_to_host: size of all copies from the device to the host.
        launches: operations that start a kernel or a copy on the device.
        all_launches: also those before the last `reset`.
    """

    waits: list[str] = field(default_factory=list)
    staged: list[str] = field(default_factory=list)
    late_reads: list[int] = field(default_factory=list)
    bytes_to_host: int = 0
    launches: int = 0
    all_launches: int = 0

    def reset(self) -> None:
        self.waits, self.staged, self.late_reads, self.launches, self.bytes_to_host = [], [], [], 0, 0

    def launch(self) -> None:
        self.launches += 1
        self.all_launches += 1

    def wait(self, kind: str) -> None:
        self.waits.append(f"{kind} at {_place()}")

    def copy_to_host(self, num_bytes: int) -> None:
        self.bytes_to_host += num_bytes

    def stage(self) -> None:
        self.staged.append(_place())


def _place() -> str:
    """The innermost line of this project that led here."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(_OWN):
            return f"{Path(frame.filename).relative_to(_REPOSITORY)}:{frame.lineno}: {frame.line}"
    return "no line of this project"
