"""Tells an installation that is broken from a bug: a required package that cannot be imported."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

OURS = ("dinov3", "nnunetv2")


def describe_broken_package(err: BaseException) -> str | None:
    """Describes the import of another package that failed; None if the error has another cause.

    A torchvision that was built for another torch, for example, raises RuntimeError while it is imported, and libraries
    that import it lazily raise errors of their own from that one.
    """
    for cause in reversed(list(_chain(err))):
        if isinstance(cause, ModuleNotFoundError) and cause.name and _top(cause.name) not in OURS:
            return f"The package {_top(cause.name)} is not installed ({_text(err)})"
        package = _imported_package(cause.__traceback__)
        if package is not None and package not in OURS:
            return f"The package {package} cannot be imported ({_text(cause)})"
    return None


def _chain(err: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = err
    while following is not None and id(following) not in seen:
        yield following
        seen.add(id(following))
        following = following.__cause__ or following.__context__


def _imported_package(trace: TracebackType | None) -> str | None:
    """Package of the innermost module whose import was in progress; None if there was none, or it has no package."""
    package = None
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "<module>":
            name = frame.f_globals.get("__name__", "")
            is_script = name == "__main__" or "__file__" not in frame.f_globals
            package = None if is_script or not _is_installed(frame.f_code.co_filename) else _top(name)
        trace = trace.tb_next
    return package


def _is_installed(file: str) -> bool:
    """False for files of users, such as trainers and heads of their own."""
    return "site-packages" in file or "dist-packages" in file


def _top(name: str) -> str:
    return name.partition(".")[0]


def _text(err: BaseException) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())[:200]}"
