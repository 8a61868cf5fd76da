"""How often the picture of a training is drawn."""

from __future__ import annotations

from nnunetv2.training.logging import picture_schedule
from nnunetv2.training.logging.picture_schedule import PictureSchedule


def moments_of_pictures(monkeypatch, num_epochs: int, epoch_seconds: float, picture_seconds: float) -> list[int]:
    """The epochs after which it was drawn, on a clock of its own."""
    now, drawn = [1000.0], []
    monkeypatch.setattr(picture_schedule.time, "monotonic", lambda: now[0])
    schedule = PictureSchedule()

    def draw() -> None:
        drawn.append(epoch)
        now[0] += picture_seconds

    for epoch in range(num_epochs):
        now[0] += epoch_seconds
        schedule.draw(draw, is_last=epoch == num_epochs - 1)
    return drawn


def test_long_epochs_each_have_their_picture(monkeypatch):
    assert moments_of_pictures(monkeypatch, 5, epoch_seconds=60, picture_seconds=0.5) == [0, 1, 2, 3, 4]


def test_of_short_epochs_pictures_take_a_twentieth(monkeypatch):
    drawn = moments_of_pictures(monkeypatch, 200, epoch_seconds=1, picture_seconds=0.5)
    assert drawn[0] == 0 and drawn[-1] == 199
    assert drawn[1:-1] == list(range(10, 199, 10))  # at least 9.5 s of training for 0.5 s of drawing


def test_a_single_epoch_has_one_picture(monkeypatch):
    assert moments_of_pictures(monkeypatch, 1, epoch_seconds=1, picture_seconds=100) == [0]
