"""Sends batches from one process to another through shared memory.

A batch that was sent can be received even if its sender has been killed since. Queues of torch and `multiprocessing`
ask the sender for the memory, and cannot.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import torch

_LENGTH = struct.Struct("!Q")
_ALIGNMENT = 64  # bytes; vector instructions work on aligned arrays
_HAS_MEMORY_FILES = hasattr(os, "memfd_create")  # Linux; not limited by the size of /dev/shm


def send(channel: socket.socket, value: Any) -> None:
    """Sends a value with its tensors and arrays; blocks while the receiver has not made room.

    Args:
        channel: stream socket; with file descriptors in its messages on Linux.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    contents = [buffer.raw() for buffer in buffers]
    sizes = [len(content) for content in contents]
    head = pickle.dumps((stream.getvalue(), sizes))
    length = _LENGTH.pack(len(head))
    if not _HAS_MEMORY_FILES:
        channel.sendall(length + head)
        for content in contents:
            channel.sendall(content)
        return
    file = os.memfd_create("batch")
    try:
        _fill(file, contents)
        socket.send_fds(channel, [length], [file])
    finally:
        os.close(file)
    channel.sendall(head)


def receive(channel: socket.socket) -> Any:
    """Receives what `send` sent.

    Raises:
        EOFError: the sender has ended.
    """
    try:
        return _receive(channel)
    except ConnectionError as err:  # it ended before it read all that was sent to it
        raise EOFError from err


class _Pickler(pickle.Pickler):
    """Takes the content of CPU tensors out of the stream, as numpy does for its arrays."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout is not torch.strided:
            return NotImplemented
        content = value.detach().contiguous().flatten().view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(content), value.dtype, tuple(value.shape))


def _tensor(content: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if len(memoryview(content)) == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=torch.uint8).view(dtype).view(shape)


def _slices(sizes: Sequence[int]) -> Iterator[slice]:
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += -(-size // _ALIGNMENT) * _ALIGNMENT


def _map(file: int, size: int) -> mmap.mmap:
    # One call for all pages is cheaper than a page fault for each.
    return mmap.mmap(file, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))


def _fill(file: int, contents: Sequence[memoryview]) -> None:
    places = list(_slices([len(content) for content in contents]))
    size = max([1, *(place.stop for place in places)])
    os.ftruncate(file, size)
    with _map(file, size) as memory:
        for place, content in zip(places, contents, strict=True):
            memory[place] = content


def _receive(channel: socket.socket) -> Any:
    file = None
    try:
        if _HAS_MEMORY_FILES:
            length, files, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
            file = files[0] if files else None
            length += _exactly(channel, _LENGTH.size - len(length)) if length else b""
        else:
            length = _exactly(channel, _LENGTH.size)
        if len(length) < _LENGTH.size:
            raise EOFError
        stream, sizes = pickle.loads(_exactly(channel, _LENGTH.unpack(length)[0]))
        if file is None:
            return pickle.loads(stream, buffers=[_exactly(channel, size) for size in sizes])
        places = list(_slices(sizes))
        memory = memoryview(_map(file, max([1, *(place.stop for place in places)])))
        return pickle.loads(stream, buffers=[memory[place] for place in places])
    finally:
        if file is not None:
            os.close(file)  # the mapping keeps the memory


def _exactly(channel: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while len(view):
        number = channel.recv_into(view)
        if number == 0:
            raise EOFError
        view = view[number:]
    return content
