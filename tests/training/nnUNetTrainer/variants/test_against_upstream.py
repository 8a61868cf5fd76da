"""Every variant trainer trains with upstream's numbers, network, augmentation, loss, optimiser and learning rates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recorded import make_variants

RECORDED = Path(make_variants.__file__).with_name("variants.json")
EXACT = 1e-6
AFTER_ARITHMETIC = 2e-4  # upstream's blur convolves or multiplies spectra, whichever was faster
# Upstream's Dice loss takes the ignore label for a class and fails in the first update.
REPAIRED = {"nnUNetTrainerDiceLoss.ignore_2d.loss.class", "nnUNetTrainerDiceLoss.ignore_2d.updates"}


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        yield f"{path}.length", len(value)
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def is_equal(path: str, ours: Any, upstreams: Any) -> bool:
    if isinstance(ours, float) and isinstance(upstreams, (int, float)):
        is_computed = ".augmentation.draws" in path or ".updates.losses" in path
        rounding = {"rel": AFTER_ARITHMETIC, "abs": AFTER_ARITHMETIC} if is_computed else {"rel": EXACT, "abs": 0}
        return ours == pytest.approx(upstreams, **rounding)
    return ours == upstreams


def differences(name: str, ours: dict[str, Any], upstreams: dict[str, Any]) -> list[str]:
    found, expected = dict(leaves(ours, name)), dict(leaves(upstreams, name))
    pairs = {path: (found.get(path), expected.get(path)) for path in sorted(found.keys() | expected.keys())}
    wrong = {path: pair for path, pair in pairs.items() if not is_equal(path, *pair)}
    unrepaired = {path: pair for path, pair in wrong.items() if not path.startswith(tuple(REPAIRED))}
    return [f"{path}: {ours} here, {upstreams} upstream" for path, (ours, upstreams) in unrepaired.items()]


@pytest.mark.slow
def test_all_variants_train_with_upstreams_settings(capsys: pytest.CaptureFixture[str]) -> None:
    upstream = make_variants.unpacked(json.loads(RECORDED.read_text()))
    modules = {name: entry["module"] for name, entry in upstream.items()}
    assert len(modules) == 76
    wrong = {}
    for name, description in make_variants.all_variants(modules):
        found = differences(name, json.loads(json.dumps(description)), upstream[name])
        if found:
            wrong[name] = found
    with capsys.disabled():
        print(f" {len(modules) - len(wrong)} of {len(modules)} trainers equal upstream's ", end="")
    assert not wrong, "\n".join(line for lines in wrong.values() for line in lines[:5])
