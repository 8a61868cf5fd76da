"""Console commands in forks of one process that has imported the packages, which saves seconds of each command.

    with command_server() as socket:
        Reader(folder, socket=socket)

A command gets the environment, the working folder, the words and the streams of its caller, as if it had been started
there.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parents[2]

_IMPORTED = (  # what most commands load, besides torch
    "timm",
    "peft",
    "sklearn.model_selection",
    "scipy.stats",
    "skimage.io",
    "skimage.measure",
    "scipy.ndimage",
    "matplotlib.pyplot",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit",
    "nnunetv2.experiment_planning.plan_and_preprocess_api",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.comparison.compare",
    "nnunetv2.dataset_conversion.import_images.import_dataset",
    "nnunetv2.study.run_study",
)
_PATIENCE = 120  # seconds until the server has imported everything

CLIENT = """\
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({socket!r})
words = [{module!r}, {function!r}, sys.argv, os.getcwd(), dict(os.environ)]
socket.send_fds(connection, [b"!"], [0, 1, 2])
connection.sendall(json.dumps(words).encode())
connection.shutdown(socket.SHUT_WR)
sys.exit(int(connection.recv(8) or b"70"))
"""


@contextmanager
def command_server() -> Iterator[Path]:
    """Path of the socket at which commands are run."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:  # paths of sockets have at most 107 characters
        path = Path(folder, "commands")
        server = subprocess.Popen([sys.executable, "-m", "tests.docs.command_server", str(path)], env=environment)
        try:
            end = time.monotonic() + _PATIENCE
            while not path.exists():
                assert server.poll() is None
                assert time.monotonic() < end, "the server of commands does not start"
                time.sleep(0.05)
            yield path
        finally:
            server.terminate()
            server.wait()


def serve(path: str) -> NoReturn:
    """Runs one command after the other, each in a fork."""
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # so that forks do not copy the memory of what was imported
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.starting")
    listening.listen()
    os.rename(f"{path}.starting", path)  # a client that finds the file can connect
    while True:
        connection, _ = listening.accept()
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as sent:
            request = json.load(sent)
        child = os.fork()
        if child == 0:
            listening.close()
            connection.close()
            _run(request, streams)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
        connection.close()


def _run(request: list, streams: list[int]) -> NoReturn:
    module, function, words, folder, environment = request
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    code = 1
    try:
        code = getattr(importlib.import_module(module), function)() or 0
    except SystemExit as err:  # of argparse
        code = err.code if isinstance(err.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        # The end of an interpreter would visit all modules, which takes longer than most commands.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
