"""Compiles `guard.cpp` once per machine and version of torch, and installs it in this process."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("guard.cpp")


def reason_to_skip() -> str | None:
    """Why a CUDA device cannot be pretended here; None: it can."""
    if torch.cuda.is_available():
        return "there is a real CUDA device"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if shutil.which("g++") is None:
        return "g++ is missing"
    if platform.system() != "Linux":
        return f"guard.cpp is written for Linux, this is {platform.system()}"
    return None


def install() -> None:
    """Makes autograd accept CUDA tensors in this process, for good."""
    ctypes.CDLL(str(_compiled())).pretend_cuda_install()


def _compiled() -> Path:
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nnunetv2_tests"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home that can be written to
        cache = Path(tempfile.gettempdir())
    library = cache / f"pretend_cuda_{torch.__version__}_{digest}.so"
    if not library.exists():
        folder = Path(torch.__file__).parent
        unfinished = library.with_suffix(f".{os.getpid()}")
        flags = ["-std=c++20", "-O1", "-fPIC", "-shared", f"-I{folder / 'include'}", f"-L{folder / 'lib'}"]
        subprocess.run(["g++", *flags, str(_SOURCE), "-o", str(unfinished), "-lc10", "-ltorch_cpu"], check=True)
        unfinished.replace(library)
    return library
