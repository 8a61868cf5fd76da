import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.utilities import file_path_utilities as paths
from nnunetv2.utilities.processes.worker_pool import BackgroundWorkerError
from tests.utilities.recorded_answers import recorded


def test_output_folder_lies_below_results(nnunet_folders):
    root = str(nnunet_folders["nnUNet_results"])
    assert paths.get_output_folder("Dataset004_X") == f"{root}/Dataset004_X/nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert paths.get_output_folder("Dataset004_X", "T", "P", "2d", 0) == f"{root}/Dataset004_X/T__P__2d/fold_0"
    assert paths.get_output_folder("Dataset004_X", "T", "P", "2d", "all").endswith("fold_all")


@pytest.mark.parametrize(
    "path",
    [
        "/r/Dataset002_Heart/T__P__3d_fullres/fold_all",
        "Dataset002_Heart/T__P__3d_fullres",
        "/Datasets/Dataset001_Old/copy/Dataset002_Heart/T__P__3d_fullres/fold_0/validation",
        Path("/fold_1/Dataset002_Heart/T__P__3d_fullres/"),
    ],
)
def test_model_folder_is_parsed_as_upstream_does(path):
    assert list(paths.parse_dataset_trainer_plans_configuration_from_path(path)) == recorded("paths")["parsed"]


@pytest.mark.parametrize("path", ["/r/Dataset002_Heart", "/r/Dataset002_Heart/T__P", "/r/T__P__2d", ""])
def test_other_paths_are_refused(path):
    with pytest.raises(UsageError, match="does not lead through DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION"):
        paths.parse_dataset_trainer_plans_configuration_from_path(path)


def test_identifier_round_trip():
    identifier = paths.convert_trainer_plans_config_to_identifier("T", "P", "2d")
    assert paths.convert_identifier_to_trainer_plans_config(f"/r/{identifier}/") == ["T", "P", "2d"]
    with pytest.raises(UsageError, match="'ensembles' is not a model folder"):
        paths.convert_identifier_to_trainer_plans_config("ensembles")


def test_ensemble_names_are_upstreams(nnunet_folders):
    expected = recorded("paths")
    assert paths.get_ensemble_name("/r/A__P__2d/", "/r/B__P__3d_fullres", (0, 1, 4)) == expected["ensemble"]
    assert (
        paths.get_ensemble_name_from_d_tr_c("Dataset001_X", "A", "P", "2d", "B", "P", "3d_fullres", (0, 1, 4))
        == expected["ensemble"]
    )
    parts = paths.convert_ensemble_folder_to_model_identifiers_and_folds("/r/ensemble___A__P__2d___B__P__2d___0_1")
    assert list(parts) == expected["ensemble_parts"]
    with pytest.raises(UsageError, match="is not an ensemble"):
        paths.convert_ensemble_folder_to_model_identifiers_and_folds("/r/A__P__2d")


def test_folds_round_trip():
    assert paths.folds_tuple_to_string((0, 1, "all")) == "0_1_all"
    assert paths.folds_string_to_tuple("0_1_all") == recorded("paths")["folds"]


class _Result:
    def __init__(self, ready: bool) -> None:
        self._ready = ready

    def ready(self) -> bool:
        return self._ready


class _Worker:
    def __init__(self, exitcode: int | None = None) -> None:
        self.exitcode = exitcode

    def is_alive(self) -> bool:
        return self.exitcode is None


@pytest.mark.parametrize(("unfinished", "queued", "busy"), [(1, 0, False), (2, 0, True), (3, 2, False), (4, 2, True)])
def test_pool_is_busy_when_every_worker_has_work(unfinished, queued, busy):
    results = [_Result(False)] * unfinished + [_Result(True)] * 3
    assert paths.check_workers_alive_and_busy(None, [_Worker(), _Worker()], results, queued) is busy


def test_dead_worker_is_described():
    with pytest.raises(BackgroundWorkerError, match="1 of 2: ended by signal SIGKILL.*ran out of memory"):
        paths.check_workers_alive_and_busy(None, [_Worker(), _Worker(-9)], [])
    with pytest.raises(RuntimeError, match="exit code 1"):  # what upstream raises
        paths.check_workers_alive_and_busy(None, [_Worker(1)], [])


def test_killed_process_is_noticed():
    worker = get_context("fork").Process(target=time.sleep, args=(30,))
    worker.start()
    assert not paths.check_workers_alive_and_busy(None, [worker], [])
    worker.kill()
    worker.join()
    with pytest.raises(BackgroundWorkerError, match="SIGKILL"):
        paths.check_workers_alive_and_busy(None, [worker], [])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("T__P__2d", ["T", "P", "2d"]),
        (
            "PretrainedTrainer__ptPlans__cnn____Spacing__1.00_1.00_1.00___Norm__Z_Z__3d_fullres",
            ["PretrainedTrainer", "ptPlans__cnn____Spacing__1.00_1.00_1.00___Norm__Z_Z", "3d_fullres"],
        ),
        (
            "PretrainedTrainer_adam__nomirroring__ptPlans_dynamic__deep__from_scratch__3d_fullres",
            ["PretrainedTrainer_adam__nomirroring", "ptPlans_dynamic__deep__from_scratch", "3d_fullres"],
        ),
        ("PretrainedTrainer_adam__nomirroring__P__2d", ["PretrainedTrainer_adam__nomirroring", "P", "2d"]),
    ],
)
def test_plans_and_one_trainer_may_have_the_separator_in_their_names(name, parts):
    assert paths.convert_identifier_to_trainer_plans_config(name) == parts
    assert paths.parse_dataset_trainer_plans_configuration_from_path(f"/r/Dataset004_X/{name}/fold_0") == (
        "Dataset004_X",
        *parts,
    )
    ensemble = paths.get_ensemble_name(f"/r/{name}", "/r/B__P__3d_lowres", (0, 1))
    assert paths.convert_ensemble_folder_to_model_identifiers_and_folds(ensemble) == ([name, "B__P__3d_lowres"], "0_1")
    backwards = paths.get_ensemble_name("/r/B__P__3d_lowres", f"/r/{name}", ("all",))
    assert paths.convert_ensemble_folder_to_model_identifiers_and_folds(backwards) == (["B__P__3d_lowres", name], "all")
