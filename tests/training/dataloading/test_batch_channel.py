"""Batches between processes: what arrives is what was sent, also from a sender that is gone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nnunetv2.training.dataloading import batch_channel

BATCH = {
    "data": torch.arange(24, dtype=torch.float32).view(2, 3, 4).transpose(1, 2),
    "target": [torch.tensor([[True], [False]]), torch.zeros((0, 3), dtype=torch.int16), torch.tensor(2.5).bfloat16()],
    "keys": np.array(["case_1", "case_22"]),
    "locations": np.arange(6).reshape(2, 3).T,
    "properties": {"spacing": (1.0, 2.0), "name": None},
}


@pytest.fixture(params=["memory file", "stream"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, ...]]:
    if request.param == "stream":
        monkeypatch.setattr(batch_channel, "_HAS_MEMORY_FILES", False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("needs Linux")
    pair = socket.socketpair()
    yield pair
    for end in pair:
        end.close()


def test_a_batch_arrives_as_it_was_sent_after_the_sender_has_gone(ends: tuple[socket.socket, ...]) -> None:
    parent, child = ends
    batch_channel.send(child, BATCH)
    batch_channel.send(child, {})
    child.close()
    received = batch_channel.receive(parent)
    assert received.keys() == BATCH.keys()
    assert torch.equal(received["data"], BATCH["data"])
    for ours, theirs in zip(received["target"], BATCH["target"], strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert torch.equal(ours, theirs)
    np.testing.assert_array_equal(received["keys"], BATCH["keys"])
    np.testing.assert_array_equal(received["locations"], BATCH["locations"])
    assert received["properties"] == BATCH["properties"]
    received["data"] += 1  # the memory is the receiver's
    assert batch_channel.receive(parent) == {}
    with pytest.raises(EOFError):
        batch_channel.receive(parent)


def test_half_a_batch_is_the_end_of_the_sender(ends: tuple[socket.socket, ...]) -> None:
    parent, child = ends
    copy_of_parent, copy = socket.socketpair()
    with copy_of_parent, copy:
        batch_channel.send(copy, {"text": "x" * 100})
        half = copy_of_parent.recv(60)
    child.sendall(half)
    child.close()
    with pytest.raises(EOFError):
        batch_channel.receive(parent)


def test_no_file_stays_open(ends: tuple[socket.socket, ...]) -> None:
    def number_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    parent, child = ends
    before = number_open()
    for _ in range(5):
        batch_channel.send(child, {"data": torch.zeros(7)})
        kept = batch_channel.receive(parent)["data"]
    del kept
    assert number_open() == before
