"""Every field of dataset.json is checked, and each message shows the right form."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from nnunetv2.errors import DataError
from nnunetv2.utilities.dataset_json import channel_names, check_dataset_json, read_dataset_json

VALID = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "liver": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
BRATS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
KITS = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"description": ["anything"], "licence": None, "tensorImageSize": 3},
        {"modality": {"0": "CT", "1": "PET"}},
        {"channel_names": {"0000": "CT", "0001": "PET"}},
        {"overwrite_image_reader_writer": "SimpleITKIO"},
        {"overwrite_image_reader_writer": None},
        {"labels": BRATS, "regions_class_order": [1, 2, 3]},
        {"labels": KITS, "regions_class_order": [1, 3, 2]},
        {"labels": {"background": 0, "Größe, 大小": 1, "ignore": 2}},
        {"regions_class_order": None},
        {"dataset": {"a": {"images": ["/elsewhere/a.png"], "label": "labels/a.png"}}},
    ],
)
def test_valid_descriptions_pass_unchanged(changes: dict) -> None:
    content = {**VALID, **changes}
    assert check_dataset_json(content) is content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": {"R": 0}}, r'"channel_names" is .*: write \{"0": "R"\}$'),
        ({"channel_names": {"CT": "0", "PET": "1"}}, r'write \{"0": "CT", "1": "PET"\}$'),
        ({"channel_names": {"PET": 1, "CT": 0}}, r'write \{"0": "CT", "1": "PET"\}$'),
        ({"channel_names": {"1": "PET", "0": "CT"}}, r'write \{"0": "CT", "1": "PET"\}$'),
        ({"channel_names": {"1": "CT"}}, r'write \{"0": "CT"\}$'),
        ({"channel_names": ["CT"]}, r'write \{"0": "CT"\}$'),
        ({"channel_names": {"0": None}}, r'like \{"0": "CT", "1": "PET"\}$'),
        ({"channel_names": {"0": ["CT"]}}, r'like \{"0": "CT", "1": "PET"\}$'),
        ({"channel_names": {"0": 4}}, r'like \{"0": "CT", "1": "PET"\}$'),
        ({"channel_names": {}}, r'"channel_names" is \{\}'),
        ({"channel_names": "CT"}, "\"channel_names\" is 'CT'"),
        ({"channel_names": {"0": "CT "}}, "channel 0 .* 'CT '; .* spaces around it"),
        ({"modality": {"0": "CT"}}, '2 "channel_names" and 1 entries in "modality"'),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "'a' and 'b' in \"labels\" are both 1"),
        ({"labels": {"background": 0}}, "no class besides the background"),
        ({"labels": {"background": 0, "a": True}}, "label 'a' .* is True"),
        ({"labels": {"background": 0, "a": [1, [2]]}}, "label 'a' .* is "),
        ({"labels": {"background": 0, "a": 10**30}}, "from 0 to 32767"),
        ({"labels": BRATS}, r"whole tumor, tumor core, enhancing tumor .*: \[1, 2, 3\]$"),
        (
            {"labels": BRATS, "regions_class_order": [3, 2, 1]},
            r"loses tumor core, enhancing tumor, .* write \[1, 2, 3\]",
        ),
        ({"labels": BRATS, "regions_class_order": "123"}, "\"regions_class_order\" is '123'; it must be a list"),
        ({"labels": BRATS, "regions_class_order": [1, 2]}, "has 2 entries; it needs one for each of the 3 regions"),
        ({"numTraining": "5"}, "\"numTraining\" is '5'; .* without quotes: 5$"),
        ({"numTraining": 5.0}, '"numTraining" is 5.0; it must be an integer'),
        ({"numTraining": True}, '"numTraining" is True'),
        ({"numTraining": 0}, '"numTraining" is 0'),
        ({"file_ending": "nii.gz"}, "\"file_ending\" is 'nii.gz'; .* with its dot"),
        ({"file_ending": [".png"]}, r"\"file_ending\" is \['.png'\]"),
        ({"file_ending": "./../../x.png"}, "cannot be the name of files"),
        ({"overwrite_image_reader_writer": "os.system"}, "\"overwrite_image_reader_writer\" is 'os.system'"),
        ({"dataset": []}, r'"dataset" is \[\]; it maps each case to its files'),
        ({"dataset": {"a": {"images": "a.png", "label": "b.png"}}}, "case 'a' in \"dataset\""),
        ({"dataset": {"../a": {"images": ["a.png"], "label": "b.png"}}}, "'../a' cannot be the name of a case"),
    ],
)
def test_wrong_fields_are_refused_with_the_right_form(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        check_dataset_json({**VALID, **changes}, "the/dataset.json")
    assert str(refused.value).startswith("the/dataset.json") or "cannot be the name of" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", VALID)
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(DataError, match=f'no key "{key}"'):
        check_dataset_json({name: value for name, value in VALID.items() if name != key})


def test_regions_without_any_order_are_explained() -> None:
    labels = {"background": 0, "a": [1, 2], "b": [2, 3]}
    with pytest.raises(DataError, match="loses a, .* no order keeps them, .*overlap as one more region"):
        check_dataset_json({**VALID, "labels": labels, "regions_class_order": [1, 3]})
    with_overlap = {**labels, "both": 2}
    check_dataset_json({**VALID, "labels": with_overlap, "regions_class_order": [1, 3, 2]})


def test_regions_in_a_sequence_that_hides_them_are_reordered() -> None:
    labels = {"background": 0, "enhancing": 1, "whole": [1, 2, 3], "core": [1, 2]}
    with pytest.raises(DataError, match=r"list the regions .* as whole, core, enhancing, .* write \[3, 2, 1\]"):
        check_dataset_json({**VALID, "labels": labels, "regions_class_order": [1, 3, 2]})


def test_models_with_a_lossy_order_predict_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    content = {**VALID, "labels": BRATS, "regions_class_order": [3, 2, 1]}
    del content["numTraining"]
    with caplog.at_level(logging.WARNING):
        check_dataset_json(content, trained=True)
    assert "loses tumor core, enhancing tumor" in caplog.text


def test_channels_may_have_their_older_name() -> None:
    content = {**VALID, "modality": {"0": "MRI"}}
    del content["channel_names"]
    assert channel_names(check_dataset_json(content)) == {"0": "MRI"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_files_are_read(tmp_path: Path, encoding: str) -> None:
    content = {**VALID, "description": "Größe"}
    path = tmp_path / "dataset.json"
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert read_dataset_json(path) == content


def test_keys_given_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(VALID).replace('"liver": 1', '"liver": 1, "liver": 2'))
    with pytest.raises(DataError, match="the key 'liver' twice"):
        read_dataset_json(path)
