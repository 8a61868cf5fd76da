"""Versions of Python and packages, and whether the packages can be imported.

Nothing here imports a package that may be broken: a child process does.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from nnunetv2.doctor.finding import Finding, error, ok, warning

DISTRIBUTION = "nnunetv2"
IMPORTED = ("torch", "torchvision", "timm", "transformers", "peft", "monai", "SimpleITK", "nibabel", "blosc2")
_TIME_TO_IMPORT = 300  # seconds; a cold network file system is slow

_PROBE = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
def answer(name, content):
    print("\\n" + json.dumps([name, content]), flush=True)
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as err:
        answer(name, " ".join(f"{type(err).__name__}: {err}".split())[:300])
    else:
        answer(name, None)
if "torch" in sys.modules:
    import torch
    cuda = {"built_for": torch.version.cuda, "available": torch.cuda.is_available(), "devices": []}
    if cuda["available"]:
        cuda["architectures"] = torch.cuda.get_arch_list()
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            cuda["devices"].append([device.name, device.total_memory, device.major, device.minor])
    answer("cuda", cuda)
"""


def check_python() -> Finding:
    """Which Python runs; pip checks its version."""
    return ok("Python", f"{platform.python_version()} at {sys.executable}")


def check_requirements() -> Iterator[Finding]:
    """Compares the installed versions with the ones that this package requires."""
    try:
        words = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield error("packages", f"{DISTRIBUTION} is not installed", "run pip install -e . in the folder of setup.py")
        return
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield error("packages", "packaging is not installed", "run pip install packaging")
        return
    needed = [need for need in map(Requirement, words) if need.marker is None or need.marker.evaluate({"extra": ""})]
    problems = [problem for need in needed if (problem := _problem_of(need)) is not None]
    yield from problems
    if not problems:
        yield ok("packages", f"{len(needed)} required packages are installed, nnunetv2 {version(DISTRIBUTION)}")


def _problem_of(need: Any) -> Finding | None:
    try:
        installed = version(need.name)
    except PackageNotFoundError:
        return error("packages", f"{need.name} is not installed", f'run pip install "{need}"')
    if need.specifier.contains(installed, prereleases=True):
        return None
    return error("packages", f"{need.name} {installed} is installed, {need} is required", f'run pip install "{need}"')


def check_torch_pair() -> Finding | None:
    """Whether torchvision was built for the installed torch; None if one of them is missing."""
    try:
        torch, torchvision = version("torch"), version("torchvision")
        words = requires("torchvision") or []
    except PackageNotFoundError:
        return None
    built_for = next((match[1] for word in words if (match := re.match(r"torch\s*\(?==\s*([\d.]+)", word))), None)
    text = f"torch {torch}, torchvision {torchvision}"
    if built_for is not None and _release(torch) != _release(built_for):
        cure = f"run pip install torch=={built_for} torchvision=={_release_text(torchvision)}, or the pair of your CUDA"
        return error("torch pair", f"{text}, which was built for torch {built_for}", cure)
    builds = [each.partition("+")[2] for each in (torch, torchvision)]
    if all(builds) and builds[0] != builds[1]:
        return error("torch pair", f"{text} are builds for different CUDA versions", "install both from one index")
    return ok("torch pair", text)


def _release_text(word: str) -> str:
    return word.partition("+")[0]


def _release(word: str) -> tuple[int, ...]:
    """Numbers of a version without trailing zeros: 2.11 and 2.11.0 are the same release."""
    numbers = [int(part) for part in re.findall(r"\d+", _release_text(word).split("rc")[0].split(".dev")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def probe(packages: Sequence[str] = IMPORTED) -> dict[str, Any]:
    """Imports packages in a child process, which may crash or hang.

    Returns:
        `imports`: the error of each package, None if it can be imported, up to the first one that ends the process;
        `cuda`: what torch says about GPUs.
    """
    command = [sys.executable, "-c", _PROBE, *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_TO_IMPORT, check=False)
    except subprocess.TimeoutExpired as err:
        output, end = err.stdout or b"", f"the import does not end within {_TIME_TO_IMPORT} s"
        output = output.decode(errors="replace") if isinstance(output, bytes) else output
    else:
        output, end = done.stdout, f"the import ends the process with code {done.returncode}"
    answers = dict(_answers(output))
    cuda = answers.pop("cuda", None)
    unknown = [name for name in packages if name not in answers]
    if unknown:
        answers[unknown[0]] = end
    return {"imports": answers} if cuda is None else {"imports": answers, "cuda": cuda}


def _answers(output: str) -> Iterator[tuple[str, Any]]:
    """Lines that the child wrote; packages may print others."""
    for line in output.splitlines():
        with contextlib.suppress(ValueError):
            name, content = json.loads(line)
            yield name, content


def check_imports(answer: dict[str, Any]) -> Iterator[Finding]:
    """Findings about the packages that `probe` tried to import."""
    failed = {name: problem for name, problem in answer["imports"].items() if problem is not None}
    for name, problem in failed.items():
        yield error("imports", f"import {name} fails ({problem})", _cure_of_import(name, problem))
    if not failed:
        yield ok("imports", ", ".join(answer["imports"]))


def _cure_of_import(name: str, problem: str) -> str:
    missing = re.search(r"No module named '([\w]+)", problem)
    if missing:
        return f"run pip install {missing[1]}"
    if "torchvision" in problem:
        return "install the torchvision that belongs to your torch"
    library = re.search(r"(lib[\w.+-]+\.so[\w.]*)", problem)
    if library:
        return f"the system library {library[1]} is missing: install its package, or another build of {name}"
    return f"run pip install --force-reinstall {name}"


def check_cuda(answer: dict[str, Any], driver: str | None) -> Iterator[Finding]:
    """Findings about GPUs.

    Args:
        answer: of `probe`.
        driver: version of the NVIDIA driver, None if there is none.
    """
    cuda = answer.get("cuda")
    if cuda is None:
        if answer["imports"].get("torch", "not tried") is None:
            yield error("CUDA", "torch crashes or hangs when asked for GPUs", "see whether nvidia-smi answers")
        return
    if not cuda["available"]:
        if driver is None:
            yield warning("CUDA", "no NVIDIA driver is loaded", "train and predict with -device cpu, which is slow")
        elif cuda["built_for"] is None:
            cure = "install a CUDA build of torch and torchvision (pytorch.org lists the command)"
            yield error("CUDA", f"driver {driver} is loaded, but torch is built without CUDA", cure)
        else:
            cure = "update the driver, or install a torch for an older CUDA; check CUDA_VISIBLE_DEVICES, too"
            yield error("CUDA", f"torch for CUDA {cuda['built_for']} finds no GPU with driver {driver}", cure)
        return
    for name, memory, major, minor in cuda["devices"]:
        text = f"{name}, {memory / 2**30:.0f} GiB, CUDA {cuda['built_for']}, driver {driver or 'unknown'}"
        if not _is_supported(major, minor, cuda["architectures"]):
            cure = "install a torch that supports it (older GPUs need older builds)"
            yield error("CUDA", f"{text}: torch has no kernels for compute capability {major}.{minor}", cure)
        elif memory < 4 * 2**30:
            yield warning("CUDA", text, "plan with a smaller -gpu_memory_target; foundation models need more memory")
        else:
            yield ok("CUDA", text)


def _is_supported(major: int, minor: int, architectures: Sequence[str]) -> bool:
    """Kernels run on GPUs of the same major version and an equal or higher minor one; PTX on all newer ones."""
    for word in architectures:
        kind, _, number = word.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            continue
        built = (int(digits[0]) // 10, int(digits[0]) % 10)
        if (kind == "sm" and built[0] == major and built[1] <= minor) or (
            kind == "compute" and built <= (major, minor)
        ):
            return True
    return not architectures
