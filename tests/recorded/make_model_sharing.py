"""Records what upstream exports, and a zip file that it wrote.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_model_sharing.py

`model_sharing.json` lists the files in each archive of `sharing_cases.CALLS`; `upstream_export.zip` is the first.
"""

import json
import os
import tempfile
import zipfile
from pathlib import Path

from sharing_cases import CALLS, DATASET, write_results

HERE = Path(__file__).parent


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.environ["nnUNet_results"] = folder
        from nnunetv2.model_sharing.model_export import export_pretrained_model

        write_results(Path(folder))
        names = {}
        for call, arguments in CALLS.items():
            output = HERE / "upstream_export.zip" if call == "one_fold" else Path(folder, "export.zip")
            export_pretrained_model(DATASET, str(output), **arguments)
            with zipfile.ZipFile(output) as archive:
                names[call] = sorted(archive.namelist())
    (HERE / "model_sharing.json").write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    main()
