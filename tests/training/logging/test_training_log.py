"""The text log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from nnunetv2.training.logging.training_log import duration_in_words, log_file_name, time_left, write_line


def test_log_file_is_named_as_upstream_names_it() -> None:
    assert log_file_name(datetime(2025, 3, 9, 7, 5, 1)) == "training_log_2025_3_9_07_05_01.txt"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h")],
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_time_left_follows_the_last_durations() -> None:
    assert time_left([100.0] + [2.0] * 10, 5) == 10.0
    assert time_left([], 5) == 0.0


def test_line_goes_to_file_and_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "new" / "log.txt"
    write_line(log, ("Epoch", 3), timestamp=False, console=True)
    write_line(log, ("silent",), timestamp=False, console=False)
    assert log.read_text() == "Epoch 3\nsilent\n"
    assert capsys.readouterr().out == "Epoch 3\n"


def test_log_that_cannot_be_written_does_not_end_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_line(tmp_path, ("lost",), timestamp=False, console=False)  # a folder is in the file's place
    assert "could not write" in capsys.readouterr().err
