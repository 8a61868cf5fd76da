"""Fuzzed headers of all image formats: only errors of this package come out, each of one line, with little memory."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetv2.errors import NNUNetError
from tests.faults.images import FORMATS, Sample, write_sample
from tests.faults.injection import times

HEADER = 400  # bytes
MEMORY = 2**30  # bytes beyond what the process has

# Sizes and signs at which arithmetic breaks, as text and as numbers of both byte orders.
TOKENS = [b"0", b"-1", b"99999999999", b"nan", b"1e400", b"%d", b"../a", b"LIST", b"", b"\n\n", b" "]
NUMBERS = [0, 1, 2**7, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1]


@pytest.fixture(scope="module", params=FORMATS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, bytes]:
    made = write_sample(tmp_path_factory.mktemp("fuzz"), request.param, is_label=False)
    return made, made.path.read_bytes()


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[float, bytes, int]]:
    """Changes of a header: a position (0 to 1), new bytes, and the number of old ones that they replace."""
    number = st.tuples(st.sampled_from(NUMBERS), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["little", "big"]))
    as_bytes = number.map(lambda n: (n[0] % 256 ** n[1]).to_bytes(n[1], n[2]))
    content = st.one_of(as_bytes, st.sampled_from(TOKENS), st.binary(max_size=8))
    one = st.tuples(st.floats(0, 1), content, st.integers(0, 8))
    return draw(st.lists(one, min_size=1, max_size=4))


def edited(content: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    for where, new, length in changes:
        position = int(where * min(HEADER, len(content)))
        content = content[:position] + new + content[position + max(length, len(new) if length else 0) :]
    return content


@settings(
    max_examples=times(25, 1000),
    deadline=times(20_000, 20_000),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(changes=edits())
def test_only_errors_for_users_come_out(sample: tuple[Sample, bytes], changes: list) -> None:
    made, whole = sample
    made.path.write_bytes(edited(whole, changes))
    limit = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limit[1]))
    try:
        made.read()
    except NNUNetError as err:
        assert "\n" not in str(err)
        assert "MemoryError" not in str(err)
        assert len(str(err)) < 2000
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
        made.path.write_bytes(whole)
