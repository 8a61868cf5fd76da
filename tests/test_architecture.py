"""The layers of the house: imports run downwards only, and opening a file never runs code."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.source_tree import REPOSITORY, imported_modules, module_name, source_files

# Longest matching prefix wins. A module may import its own package and every package of a lower layer.
LAYERS = {
    "dinov3.utils": 0,
    "dinov3.layers": 1,
    "dinov3.models": 2,
    "dinov3.eval.segmentation.settings": 1,
    "dinov3.eval.segmentation.models": 3,
    "dinov3.hub": 4,
    "dinov3.eval": 5,
    "nnunetv2.errors": 2,
    "nnunetv2.upstream_names": 2,
    "nnunetv2.paths": 3,
    "nnunetv2.configuration": 3,
    "nnunetv2.configs": 3,
    "nnunetv2.utilities": 5,
    "nnunetv2.imageio": 6,
    "nnunetv2.model": 6,
    "nnunetv2.pretraining": 6,
    "nnunetv2.preprocessing": 7,
    "nnunetv2.training.loss": 7,
    "nnunetv2.training.lr_scheduler": 7,
    "nnunetv2.training.logging": 7,
    "nnunetv2.experiment_planning": 8,
    "nnunetv2.evaluation": 8,
    "nnunetv2.training.dataloading": 9,
    "nnunetv2.training.data_augmentation": 8,
    "nnunetv2.utilities.overlays": 8,
    "nnunetv2.utilities.overlay_plots": 9,
    "nnunetv2.inference": 9,
    "nnunetv2.postprocessing": 9,
    "nnunetv2.ensembling": 9,
    "nnunetv2.evaluation.find_best_configuration": 10,
    "nnunetv2.evaluation.evaluate_entry_points": 17,
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
    "nnunetv2.doctor": 17,
}


def package_of(module: str) -> str | None:
    """The entry of LAYERS that a dotted module name belongs to."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in LAYERS:
            return prefix
    return None


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


def file_graph() -> dict[str, set[str]]:
    """The modules that each module imports, at its top, inside a function or for type checking."""
    files = {module_name(path): path for path in source_files()}
    graph = {}
    for module, path in files.items():
        names = imported_modules(path)
        graph[module] = {target for name in names for target in (name, name.rpartition(".")[0]) if target in files}
    return graph


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of nodes each of which reaches every other one of its group (or itself, if alone)."""
    reached = {node: reachable(graph, node) for node in graph}
    return {
        frozenset(other for other in reached[node] if node in reached[other]) for node in graph if node in reached[node]
    }


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph[node]
    return found


KNOWN_CIRCLES: set[frozenset[str]] = set()


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(file_graph()) == KNOWN_CIRCLES


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"e"}, "e": {"f"}, "f": {"d"}, "g": {"g", "a"}}
    assert circles(graph) == {frozenset("bc"), frozenset("def"), frozenset("g")}
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == set()


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
MAY_UNPICKLE = {
    "nnunetv2/utilities/restricted_pickle.py",
    "nnunetv2/training/dataloading/batch_channel.py",  # no file: what a worker of this process sends
}


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
        "nnunetv2.run.run_training_vit",
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
        "nnunetv2.dataset_conversion.import_images.entry_point",
        "nnunetv2.utilities.overlays.entry_point",
        "nnunetv2.study.entry_point",
    ],
)
def test_modules_with_commands_import_nothing_heavy(script: str) -> None:
    heavy = ("torch", "numpy", "timm", "transformers", "scipy")
    code = f"import sys, {script}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
