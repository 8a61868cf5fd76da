"""Every equality that a comparison rests on, broken on purpose and named."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

from nnunetv2.comparison.cases import case_problems, reference_files
from nnunetv2.comparison.comparability import ITEM_NAMES, comparability, require_comparable
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.models import find_runs
from nnunetv2.comparison.results import DIFFERS, EQUAL, NOT_RECORDED, Comparability
from nnunetv2.errors import UsageError
from tests.comparison.model_folders import (
    DATASET,
    DATASET_JSON,
    NAME,
    PLANS,
    RUN_LINE,
    STEPS,
    UPSTREAM_DEBUG,
    Model,
    write_predictions,
)


def compared(place: Path, *models: Model, allowed: tuple[str, ...] = ()) -> Comparability:
    words = [f"m{number}={model.write(place / str(number) / NAME)}" for number, model in enumerate(models)]
    return comparability(find_runs(DATASET, words), reference_files(DATASET, ".png"), allowed)


def states(found: Comparability) -> dict[str, str]:
    return {equality.item: equality.state for equality in found.equalities}


def with_run(**changes: object) -> Model:
    return Model(run_line={**RUN_LINE, **changes})


def with_plans(**changes: object) -> Model:
    plans = deepcopy(PLANS)
    plans["configurations"]["2d"] |= changes
    return Model(plans=plans)


BROKEN = {
    "fingerprint": (Model(fingerprint={"spacings": [[2.0, 1.0, 1.0]]}), r"\w{12} \(m0\) against \w{12} \(m1\)"),
    "labels": (
        Model(dataset_json={**DATASET_JSON, "labels": {"background": 0, "left": 2, "right": 1}}),
        "labels {'background': 0, 'left': 1, 'right': 2} .m0. against labels {'background': 0, 'left': 2, 'right': 1}",
    ),
    "splits": (Model(training=("x", "z")), r"training cases of fold 0 2, \w{12}.*\(m0\) against"),
    "plans": (with_plans(spacing=[0.5, 0.25]), r"spacing \[0.5, 0.5\] \(m0\) against spacing \[0.5, 0.25\] \(m1\)"),
    "patch": (with_run(patch_size=[64, 8]), r"32 x 16 \(m0\) against 64 x 8 \(m1\)"),
    "augmentation": (
        with_run(augmentation={"transforms": ["SpatialTransform(rotation=(0, 2), scaling=2)", STEPS[1]]}),
        r"SpatialTransform\(rotation=\(0, 1\)\) \(m0\) against SpatialTransform\(rotation=\(0, 2\)\) \(m1\)",
    ),
    "sampling": (with_run(oversample_foreground_percent=0.5), r"foreground 0.33 \(m0\) against foreground 0.5 \(m1\)"),
    "iterations": (with_run(num_epochs=20, num_iterations_per_epoch=50), r"2 x 10 \(m0\) against 20 x 50 \(m1\)"),
    "batch": (with_run(batch_size=12), r"2 x 512 pixels \(m0\) against 12 x 512 pixels \(m1\)"),
    "precision": (with_run(precision="bf16"), r"fp32 \(m0\) against bf16 \(m1\)"),
    "mirroring": (with_run(mirror_axes=[]), r"0, 1 \(m0\) against none \(m1\)"),
    "tile_step": (with_run(tile_step_size=0.25), r"0.5 \(m0\) against 0.25 \(m1\)"),
    "checkpoint": (
        Model(validation_line={"epochs_trained": 2, "checkpoint": "best"}),
        r"final \(m0\) against best \(m1\)",
    ),
}


def test_equal_trainings_are_equal_in_everything(place):
    found = compared(place, Model(), Model(), Model())
    assert set(states(found).values()) == {EQUAL}
    assert tuple(states(found)) == ITEM_NAMES
    require_comparable(found)


@pytest.mark.parametrize("item", BROKEN)
def test_a_broken_equality_is_named_with_what_differs(place, item):
    other, words = BROKEN[item]
    found = compared(place, Model(), other)
    assert [equality.item for equality in found.broken] == [item]
    with pytest.raises(NotComparableError, match=f"^NOT COMPARABLE: {item}: {words}"):
        require_comparable(found)


def test_every_item_of_a_training_can_be_broken():
    assert set(ITEM_NAMES) - set(BROKEN) == {"cases", "references", "postprocessing"}


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (STEPS[::-1], r"SpatialTransform; MirrorTransform \(m0\) against MirrorTransform; SpatialTransform \(m1\)"),
        ([*STEPS, "Blur(sigma=1)"], r"only what all have \(m0\) against Blur\(sigma=1\) \(m1\)"),
    ],
)
def test_steps_in_another_order_and_steps_that_are_missing_are_told_apart(place, steps, words):
    with pytest.raises(NotComparableError, match=f"augmentation: {words}"):
        require_comparable(compared(place, Model(), with_run(augmentation={"transforms": steps})))


def test_the_order_of_the_runs_does_not_matter(place):
    first, second = Model().write(place / "1" / NAME), with_run(precision="bf16").write(place / "2" / NAME)
    words = [f"a={first}", f"b={second}"]
    references = reference_files(DATASET, ".png")
    here, there = (comparability(find_runs(DATASET, order), references) for order in (words, words[::-1]))
    assert [(each.item, each.state, dict(each.values)) for each in here.equalities] == [
        (each.item, each.state, dict(each.values)) for each in there.equalities
    ]


def test_folds_of_one_run_have_to_agree(place):
    folder = Model().write(place / "0" / NAME)
    path = folder / "fold_1" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"num_epochs": 2', '"num_epochs": 3'))
    found = comparability(find_runs(DATASET, [f"m={folder}"]), reference_files(DATASET, ".png"))
    with pytest.raises(NotComparableError, match=r"iterations: fold 0: 2 x 10; fold 1: 3 x 10 \(m\)"):
        require_comparable(found)


def test_what_upstream_does_not_tell_is_not_recorded_and_the_rest_is_compared(place):
    found = compared(place, with_run(precision="fp16"), Model(is_upstreams=True))
    unknown = {item for item, state in states(found).items() if state == NOT_RECORDED}
    assert unknown == {"splits", "augmentation", "tile_step", "checkpoint"}
    assert not found.broken
    by_item = {equality.item: equality.values for equality in found.equalities}
    assert by_item["checkpoint"] == {"m0": "final", "m1": NOT_RECORDED}
    assert by_item["iterations"] == {"m0": "2 x 10", "m1": "2 x 10"}


@pytest.mark.parametrize(
    ("item", "changes"),
    [
        ("iterations", {"num_epochs": "1000"}),
        ("mirroring", {"inference_allowed_mirroring_axes": "None"}),
        ("precision", {"grad_scaler": "None", "device": "cpu"}),
        ("sampling", {"probabilistic_oversampling": "True"}),
        ("batch", {"configuration_manager": str({**PLANS["configurations"]["2d"], "batch_size": 4})}),
    ],
)
def test_what_upstream_tells_otherwise_differs(place, item, changes):
    found = compared(place, with_run(precision="fp16"), Model(is_upstreams=True, debug=UPSTREAM_DEBUG | changes))
    assert [equality.item for equality in found.broken] == [item]


def test_text_that_is_no_plain_data_is_never_run(place):
    trap = place / "trap"
    debug = {"num_epochs": f"open({str(trap)!r}, 'w')", "plans_manager": "PlansManager({'a': print})"}
    found = compared(place, Model(is_upstreams=True, debug=debug))
    assert states(found)["iterations"] == NOT_RECORDED
    assert not trap.exists()
    assert states(found)["plans"] == EQUAL  # those beside it


def test_an_unknown_value_hides_no_difference_of_the_others(place):
    found = compared(place, Model(), with_run(tile_step_size=0.25), Model(is_upstreams=True))
    assert states(found)["tile_step"] == DIFFERS
    with pytest.raises(NotComparableError, match=r"NOT COMPARABLE: tile_step: 0.5 \(m0\) against 0.25 \(m1\)$"):
        require_comparable(compared(place / "again", Model(), with_run(tile_step_size=0.25), Model(is_upstreams=True),
                                    allowed=("precision",)))  # fmt: skip


def test_older_trainings_of_ours_tell_by_debug_json_and_their_epochs(place):
    keys = ("augmentation", "oversample_foreground_percent", "probabilistic_oversampling", "mirror_axes")
    debug = {
        "dataloader_train.generator.transforms": f"ComposeTransforms( transforms = [{', '.join(STEPS)}] )",
        "oversample_foreground_percent": "0.33",
        "probabilistic_oversampling": "False",
        "is_ddp": "False",
        "inference_allowed_mirroring_axes": "(0, 1)",
        "configuration_manager": f"ConfigurationManager({PLANS['configurations']['2d']})",
    }
    older = Model(debug=debug, validation_line={"epochs_trained": 2})
    older.run_line = {key: value for key, value in RUN_LINE.items() if key not in keys}
    assert set(states(compared(place, Model(), older)).values()) == {EQUAL}


def test_the_network_and_the_last_digits_of_statistics_are_no_part_of_the_plans(place):
    other = with_plans(architecture={"network_class_name": "other.Net", "arch_kwargs": {}})
    other.plans["foreground_intensity_properties_per_channel"] = {"0": {"mean": 1.2500001}}
    assert states(compared(place, Model(), other))["plans"] == EQUAL


def test_predictions_made_elsewhere_have_cases_and_references_alone(place):
    Model().write(place / "0" / NAME)
    folder = write_predictions(place / "elsewhere", ["a", "b", "c", "<d>"])
    found = comparability(
        find_runs(DATASET, [f"m={place / '0' / NAME}", str(folder)]), reference_files(DATASET, ".png")
    )
    known = {item for item, state in states(found).items() if state == EQUAL}
    assert known == {"cases", "references"}
    assert {equality.values["elsewhere"] for equality in found.equalities[2:]} == {NOT_RECORDED}


def test_missing_cases_are_named_with_their_markup_unchanged(place):
    shorter = Model(folds={"0": ("a", "b"), "1": ("c",)})
    runs_found = compared(place, Model(), shorter)
    with pytest.raises(NotComparableError, match="cases: 4 cases, .* against 3 cases without <d> .m1."):
        require_comparable(runs_found)
    runs = find_runs(DATASET, [f"m{number}={place / str(number) / NAME}" for number in range(2)])
    problems = case_problems(runs, reference_files(DATASET, ".png"))
    with pytest.raises(NotComparableError, match="cases: m1 has no prediction of <d>, which another model has"):
        require_comparable(runs_found, problems)


def test_a_reference_that_is_missing_is_named(place):
    longer = Model(folds={"0": ("a", "b"), "1": ("c", "<d>", "e")})
    found = compared(place, longer, Model(folds=longer.folds))
    with pytest.raises(NotComparableError, match="references: 4 files, none of e .m0, m1.$"):
        require_comparable(found)


def test_what_is_allowed_may_differ(place):
    other = with_run(precision="bf16", batch_size=12)
    found = compared(place, Model(), other, allowed=("precision",))
    with pytest.raises(NotComparableError) as caught:
        require_comparable(found)
    assert str(caught.value).splitlines() == [
        "NOT COMPARABLE: batch: 2 x 512 pixels (m0) against 12 x 512 pixels (m1)",
    ]
    require_comparable(compared(place / "again", Model(), other, allowed=("all",)))
    with pytest.raises(UsageError, match="--allow is 'patches'; accepted are cases, references, fingerprint"):
        comparability((), {}, ("patches",))
