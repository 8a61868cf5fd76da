"""The layers of the house: imports run downwards only, and opening a file never runs code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Longest matching prefix wins. A module may import its own package and every package of a lower layer.
LAYERS = {
    "dinov3.utils": 0,
    "dinov3.layers": 1,
    "dinov3.models": 2,
    "dinov3.eval.segmentation.models": 3,
    "dinov3.hub": 4,
    "dinov3.eval": 5,
    "nnunetv2.errors": 2,
    "nnunetv2.paths": 3,
    "nnunetv2.configuration": 3,
    "nnunetv2.configs": 3,
    "nnunetv2.utilities": 5,
    "nnunetv2.imageio": 6,
    "nnunetv2.model": 6,
    "nnunetv2.preprocessing": 7,
    "nnunetv2.training.loss": 7,
    "nnunetv2.training.lr_scheduler": 7,
    "nnunetv2.training.logging": 7,
    "nnunetv2.experiment_planning": 8,
    "nnunetv2.evaluation": 8,
    "nnunetv2.training.dataloading": 8,
    "nnunetv2.training.data_augmentation": 8,
    "nnunetv2.utilities.overlays": 8,
    "nnunetv2.utilities.overlay_plots": 9,
    "nnunetv2.inference": 9,
    "nnunetv2.postprocessing": 9,
    "nnunetv2.ensembling": 9,
    "nnunetv2.evaluation.find_best_configuration": 10,
    "nnunetv2.training.setup": 10,
    "nnunetv2.training.validation": 10,
    "nnunetv2.training.state": 11,
    "nnunetv2.training.protocol": 12,
    "nnunetv2.training.loop": 13,
    "nnunetv2.training.nnUNetTrainer": 14,
    "nnunetv2.training.cost": 15,
    "nnunetv2.run": 16,
    "nnunetv2.model_sharing": 16,
    "nnunetv2.dataset_conversion": 16,
    "nnunetv2.comparison": 16,
    "nnunetv2.study": 17,
}


def package_of(module: str) -> str | None:
    """The entry of LAYERS that a dotted module name belongs to."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in LAYERS:
            return prefix
    return None


def source_files() -> list[Path]:
    return sorted([*REPOSITORY.glob("nnunetv2/**/*.py"), *REPOSITORY.glob("dinov3/**/*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> set[str]:
    """Dotted names of all project modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("nnunetv2", "dinov3")}


def edges() -> set[tuple[str, str, str]]:
    """(importing package, imported package, example) for all imports that cross a package border."""
    found = set()
    for path in source_files():
        source = package_of(module_name(path))
        for name in imported_modules(path):
            target = package_of(name)
            if source and target and source != target:
                found.add((source, target, f"{path.relative_to(REPOSITORY)} imports {name}"))
    return found


def test_every_module_has_a_layer() -> None:
    homeless = {module_name(path) for path in source_files() if package_of(module_name(path)) is None}
    assert homeless <= {"nnunetv2", "nnunetv2.training", "dinov3", "dinov3.eval"}


def test_imports_run_downwards() -> None:
    upward = [example for source, target, example in edges() if LAYERS[target] >= LAYERS[source]]
    assert not upward, "\n".join(sorted(upward))


def test_no_function_below_the_trainer_takes_it() -> None:
    """They take values or a typed state; what works through the trainer's hooks lies in it or above."""
    found = []
    for path in source_files():
        if LAYERS.get(package_of(module_name(path)), 0) >= LAYERS["nnunetv2.training.nnUNetTrainer"]:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                names = {
                    each.arg for each in arguments if each.annotation is None or "Any" in ast.unparse(each.annotation)
                }
                found += [f"{path.relative_to(REPOSITORY)}: {node.name}" for _ in names & {"trainer", "training"}]
    assert not found, "\n".join(found)


def test_dinov3_knows_nothing_of_nnunet() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in source_files()
        if module_name(path).startswith("dinov3")
        for name in imported_modules(path)
        if name.startswith("nnunetv2")
    ]
    assert not wrong


def test_packages_are_importable_folders() -> None:
    missing = {
        str(path.parent.relative_to(REPOSITORY))
        for path in source_files()
        if not (path.parent / "__init__.py").exists()
    }
    assert not missing, f"no __init__.py in {sorted(missing)}: a wheel would leave these folders out"


# The restricted unpickler is the one place that may build on pickle; writing a pickle is harmless.
MAY_UNPICKLE = {"nnunetv2/utilities/restricted_pickle.py"}


def test_no_file_is_opened_in_a_way_that_runs_code() -> None:
    found = []
    for path in source_files():
        relative = str(path.relative_to(REPOSITORY))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            settings = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            unsafe = (
                (called in ("pickle.load", "pickle.loads", "pickle.Unpickler") and relative not in MAY_UNPICKLE)
                or (called == "torch.load" and settings.get("weights_only") != "True")
                or (called in ("np.load", "numpy.load") and settings.get("allow_pickle", "False") != "False")
                or called in ("eval", "exec", "yaml.load")
            )
            if unsafe:
                found.append(f"{relative}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "nnunetv2.run.run_training",
        "nnunetv2.run.run_training_m2f",
        "nnunetv2.run.model_info",
        "nnunetv2.run.run_training_segformer",
        "nnunetv2.run.run_training_nodeepsupervision_mymodel",
        "dinov3.eval.segmentation.run",
        "dinov3.eval.segmentation.dataset_check",
        "nnunetv2.inference.predict_entry_points",
        "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
        "nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets",
        "nnunetv2.evaluation.evaluate_entry_points",
        "nnunetv2.ensembling.ensemble",
        "nnunetv2.evaluation.find_best_configuration",
        "nnunetv2.postprocessing.entry_points",
        "nnunetv2.model_sharing.entry_points",
        "nnunetv2.dataset_conversion.convert_MSD_dataset",
        "nnunetv2.dataset_conversion.convert_raw_dataset_from_old_nnunet_format",
        "nnunetv2.utilities.overlays.entry_point",
        "nnunetv2.study.entry_point",
    ],
)
def test_modules_with_commands_import_nothing_heavy(script: str) -> None:
    heavy = ("torch", "numpy", "timm", "transformers", "scipy")
    code = f"import sys, {script}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
