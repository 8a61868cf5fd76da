"""Records the public names of upstream with their parameters and defaults, for tests/test_public_api.py.

Run with an interpreter that has upstream nnunetv2 2.8.1 (and not this project):

    UPSTREAM/bin/python tests/recorded/make_api.py

It writes api.json beside itself.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import pkgutil
from pathlib import Path

from api_signatures import describe_module

HERE = Path(__file__).parent
DEVELOPERS = (  # scripts for the authors' cluster and data sets, and upstream's own tests
    "nnunetv2.batch_running.",
    "nnunetv2.dataset_conversion.Dataset",
    "nnunetv2.dataset_conversion.datasets_for_integration_tests.",
    "nnunetv2.inference.examples",
    "nnunetv2.tests.",
)


def public_modules() -> list[str]:
    import nnunetv2

    found = (module.name for module in pkgutil.walk_packages(nnunetv2.__path__, "nnunetv2.") if not module.ispkg)
    return sorted(name for name in found if not name.startswith(DEVELOPERS))


def assigned_names(source: str) -> list[str]:
    """Public names that a module binds to values at its top level."""
    assignments = (statement for statement in ast.parse(source).body if isinstance(statement, ast.Assign))
    targets = (target for assignment in assignments for target in assignment.targets)
    return sorted({t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_")})


def describe(name: str) -> dict:
    with contextlib.redirect_stdout(io.StringIO()):
        module = importlib.import_module(name)
    definitions = describe_module(module)
    values = [value for value in assigned_names(Path(module.__file__).read_text()) if value not in definitions]
    return {"definitions": definitions, "values": values}


def main() -> None:
    os.environ.pop("nnUNet_def_n_proc", None)
    os.environ.pop("nnUNet_n_proc_DA", None)
    recorded = {name: described for name in public_modules() if any((described := describe(name)).values())}
    lines = (f"{json.dumps(name)}:{json.dumps(described)}" for name, described in recorded.items())
    (HERE / "api.json").write_text("{" + ",\n".join(lines) + "}\n")
    num_names = sum(len(described["definitions"]) for described in recorded.values())
    print(f"{len(recorded)} modules, {num_names} functions and classes")


if __name__ == "__main__":
    main()
