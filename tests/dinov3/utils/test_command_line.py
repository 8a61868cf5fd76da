from __future__ import annotations

from pathlib import Path

import pytest

from dinov3.utils.command_line import EXIT_INTERRUPTED, command
from dinov3.utils.errors import DataError, DivergedError, UsageError, UserError


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError, 2), (DataError, 3), (DivergedError, 5), (UserError, 1)], ids=lambda x: str(x)
)
def test_an_error_for_the_user_is_one_line_and_an_exit_code(
    error: type[UserError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main(argv: object) -> None:
        raise error("first\n   second")

    assert main([]) == code
    assert capsys.readouterr().err == "error: first second\n"


@pytest.mark.parametrize(
    ("world_size", "local_rank", "speaks"), [("1", "1", True), ("2", "0", True), ("2", "1", False)]
)
def test_of_processes_with_one_command_line_the_first_of_a_machine_speaks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    world_size: str,
    local_rank: str,
    speaks: bool,
) -> None:
    @command
    def main(argv: object) -> None:
        raise UsageError("wrong")

    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert main([]) == UsageError.exit_code
    assert capsys.readouterr().err == ("error: wrong\n" if speaks else "")


def test_what_the_operating_system_says_of_a_path_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(lambda argv: Path("/proc/no/such/folder/file").write_text(""))([]) == 1
    assert "No such file or directory: /proc/no/such/folder/file" in capsys.readouterr().err


def test_success_is_zero_and_other_codes_pass_through() -> None:
    assert command(lambda argv: None)([]) == 0
    assert command(lambda argv: 4)([]) == 4


def test_a_defect_keeps_its_traceback() -> None:
    @command
    def main(argv: object) -> None:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        main([])


def test_the_traceback_of_a_user_error_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    @command
    def main(argv: object) -> None:
        raise UsageError("wrong")

    monkeypatch.setenv("DINOV3_TRACEBACK", "1")
    with pytest.raises(UsageError):
        main([])


def test_interruption_has_its_own_code() -> None:
    @command
    def main(argv: object) -> None:
        raise KeyboardInterrupt

    assert main([]) == EXIT_INTERRUPTED


def test_a_tilde_before_a_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    @command
    def main(argv: list[str]) -> None:
        found.extend(argv)

    found: list[str] = []
    words = ["-o", "~/out", "~", "model.checkpoint=~/w.pth", "--file=~/f", "unet=~/runs/a"]
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("sys.argv", ["program", *words])
    expected = ["-o", "/home/ada/out", "/home/ada", "model.checkpoint=/home/ada/w.pth", "--file=/home/ada/f"]
    assert main() == 0
    assert main([*words, "~ada/x", "a~/b", "lr=~1"]) == 0
    expected.append("unet=/home/ada/runs/a")
    assert found == [*expected, *expected, "~ada/x", "a~/b", "lr=~1"]
