"""Every variant trainer trains, saves, and its model predicts; upstream's own do on our base class."""

from __future__ import annotations

import ast
import json
import os
import warnings
from pathlib import Path

import pytest

from benchmarks import upstream_variants
from tests.recorded import make_variants
from tests.training import short_training
from tests.training.tiny_volumes import tiny_primus, write_tiny_volumes

RECORDED = json.loads(Path(make_variants.__file__).with_name("variants.json").read_text())["variants"]
NUMBERS = {"num_epochs", "initial_lr", "forced_share", "label_smoothing"}


def differs_in_numbers_only(cls: type) -> bool:
    """Whether a class says nothing but numbers, and its base class is a variant too, or the base of all."""
    own = {name for name in vars(cls) if not name.startswith("__")}
    return len(cls.__bases__) == 1 and own <= NUMBERS and cls.__bases__[0].__name__ in {"nnUNetTrainer", *RECORDED}


@pytest.mark.slow
def test_every_variant_trains_saves_and_predicts(nnunet_folders: dict[str, Path]) -> None:
    classes = {name: make_variants.load(name, entry["module"]) for name, entry in RECORDED.items()}
    chosen = [name for name, cls in classes.items() if not differs_in_numbers_only(cls)]
    assert len(chosen) > 40
    write_tiny_volumes(nnunet_folders["nnUNet_preprocessed"])
    with tiny_primus(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in chosen:
            if name == "AbstractPrimus" or "Adan" in name:
                continue
            trained = short_training.train(name)
            if "Benchmark" not in name:
                short_training.predict(trained)


@pytest.mark.slow
def test_upstreams_variants_train_save_resume_and_predict(capsys: pytest.CaptureFixture[str]) -> None:
    site_packages = os.environ.get("NNUNET_UPSTREAM")
    if site_packages is None:
        pytest.skip("needs upstream nnU-Net: NNUNET_UPSTREAM names the folder that holds its package")
    results = dict(upstream_variants.outcomes(Path(site_packages)))
    failed = {name: result for name, result in results.items() if result.startswith("FAILED")}
    succeeded = [name for name, result in results.items() if result.startswith("ok")]
    with capsys.disabled():
        print(f" {len(succeeded)} of {len(succeeded) + len(failed)} of upstream's trainers ", end="")
    assert not failed
    assert len(succeeded) >= 70


def test_copies_of_upstreams_trainers_differ_in_names_only(tmp_path: Path) -> None:
    source = tmp_path / "nnunetv2" / "training" / "nnUNetTrainer"
    for name, text in {
        "variants/a/one.py": "class One(nnUNetTrainer):\n    number = 1\n",
        "variants/b/Two.py": "from nnunetv2.training.nnUNetTrainer.variants.a.one import One\nclass Two(One): pass\n",
        "primus/p.py": "from nnunetv2.training.nnUNetTrainer.variants.b.Two import Two\nclass P(Two): pass\n",
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    assert upstream_variants.copy_renamed(tmp_path, tmp_path / "copy") == ["One", "P", "Two"]
    copies = {str(p.relative_to(tmp_path / "copy")): p.read_text() for p in (tmp_path / "copy").rglob("*.py")}
    assert copies == {
        "variants_of_upstream/a/one.py": "class Upstream_One(nnUNetTrainer):\n    number = 1\n",
        "variants_of_upstream/b/Upstream_Two.py": (
            "from variants_of_upstream.a.one import Upstream_One\nclass Upstream_Two(Upstream_One): pass\n"
        ),
        "primus_of_upstream/p.py": (
            "from variants_of_upstream.b.Upstream_Two import Upstream_Two\nclass Upstream_P(Upstream_Two): pass\n"
        ),
    }
    assert all(ast.parse(text) for text in copies.values())
