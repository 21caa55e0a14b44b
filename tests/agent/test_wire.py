"""The server's small parts, alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_flymachines.agent.server.messages import unquote
from pytest_flymachines.agent.server.spool import MEMORY_BYTES, Spool
from pytest_flymachines.agent.server.wire import BadRequest, pack, unpack, whole_characters


@given(data=st.binary(max_size=50))
def test_packed_bytes_are_unpacked(data: bytes) -> None:
    assert unpack(pack(data), "x") == data


@given(text=st.text(max_size=20), cut=st.integers(0, 100))
def test_a_cut_leaves_whole_characters(text: str, cut: int) -> None:
    data = text.encode()[:cut]
    kept = whole_characters(data)
    assert data[:kept].decode() == data.decode(errors="ignore")


@given(data=st.binary(max_size=20))
def test_at_most_three_bytes_are_held_back(data: bytes) -> None:
    assert len(data) - 3 <= whole_characters(data) <= len(data)


def test_paths_are_percent_decoded() -> None:
    assert unquote(b"a%2Fb%ff%25") == b"a/b\xff%"
    with pytest.raises(BadRequest, match="two hex digits"):
        unquote(b"%zz")


@given(sizes=st.lists(st.integers(0, MEMORY_BYTES), max_size=6), offset=st.integers(0, 1 << 21))
def test_a_spool_gives_back_what_it_took(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], offset: int
) -> None:
    spool = Spool(str(tmp_path_factory.getbasetemp()))
    data = b""
    for number, size in enumerate(sizes):
        piece = bytes([number]) * size
        spool.append(piece)
        data += piece
    assert spool.size == len(data)
    assert spool.read_all(offset) == data[offset:]
    assert spool.read_all(offset, 1000) == data[offset : offset + 1000]
    spool.close()


def test_a_spool_stops_at_its_limit(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), limit=10)
    spool.append(b"12345678")
    spool.append(b"9abcdef")
    spool.append(b"g")
    assert (spool.read_all(), spool.size, spool.truncated) == (b"123456789a", 10, True)
