"""Records which configuration upstream finds best among the models in `crossval_cases.py`, and all that it writes.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_best_configuration.py

`best_configuration.json` holds for each kind of labels what `snapshot` says of `nnUNet_results`, and as
`postprocessing` the steps in postprocessing.pkl. `best_configuration_labels.pkl` is upstream's postprocessing.pkl of
one kind.
"""

import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

from crossval_cases import CONFIGURATIONS, FOLDS, KINDS, dataset_name, snapshot, write_experiment

HERE = Path(__file__).parent
PICKLED = "labels"


class SerialPool:
    """Stands for a pool of processes; upstream starts a dozen of them, which takes far longer than the work."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def starmap(self, function, jobs):
        return list(itertools.starmap(function, jobs))


def main():
    from nnunetv2.evaluation.find_best_configuration import (
        dumb_trainer_config_plans_to_trained_models_dict,
        find_best_configuration,
    )

    recorded = {}
    for kind in KINDS:
        folders = {name: Path(os.environ[name]) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        write_experiment(folders, kind)
        models = dumb_trainer_config_plans_to_trained_models_dict(["nnUNetTrainer"], CONFIGURATIONS, ["nnUNetPlans"])
        find_best_configuration(dataset_name(kind), models, True, 1, True, FOLDS)
        recorded[kind] = snapshot(folders)
        (pkl,) = folders["nnUNet_results"].rglob("postprocessing.pkl")
        functions, kwargs = pickle.loads(pkl.read_bytes())
        recorded[kind]["postprocessing"] = [
            [function.__name__, json.loads(json.dumps(keywords, default=int))]
            for function, keywords in zip(functions, kwargs, strict=True)
        ]
        if kind == PICKLED:
            shutil.copyfile(pkl, HERE / f"best_configuration_{kind}.pkl")
    text = json.dumps(recorded, indent=0, sort_keys=True)
    (HERE / "best_configuration.json").write_text(text)


if __name__ == "__main__":
    multiprocessing.get_context = lambda *_: SimpleNamespace(Pool=SerialPool)
    with tempfile.TemporaryDirectory() as temporary:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = f"{temporary}/{variable}"
        main()
