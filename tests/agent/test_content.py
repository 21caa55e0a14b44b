"""Bodies that go up, and what is said of them ahead."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from pytest_flymachines.agent.content import WHOLE_BYTES, Upload
from pytest_flymachines.agent.server.digests import HEADER, HEX_BYTES, digest_of
from pytest_flymachines.sandbox.local_tree import LocalFile, LocalTree

SIZE = WHOLE_BYTES + 5


def body(upload: Upload) -> bytes:
    content = upload.content
    return b"".join(content()) if callable(content) else bytes(content)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    (tmp_path / "large").write_bytes(os.urandom(SIZE))
    return tmp_path / "large"


def test_the_length_of_a_file_is_announced(large: Path) -> None:
    with closing(Upload(LocalFile(large))) as upload:
        data = large.read_bytes()
        for _ in range(2):  # it may have to be sent again
            sent = body(upload)
            assert sent == data + digest_of(data).encode()
            assert upload.headers["content-length"] == str(len(sent))


def test_so_is_that_of_an_iterator_which_was_read_to_its_end() -> None:
    with closing(Upload(iter([bytes(SIZE)]))) as upload:
        assert upload.headers["content-length"] == str(SIZE + HEX_BYTES) == str(len(body(upload)))


def test_that_of_a_tree_and_of_compressed_bytes_is_not_known(large: Path) -> None:
    with closing(Upload(LocalTree(large.parent))) as upload:
        assert "content-length" not in upload.headers
    large.write_bytes(bytes(SIZE))
    with closing(Upload(LocalFile(large))) as upload:
        upload.compress_if_it_pays()
        assert upload.headers["content-encoding"] == "gzip"
        assert "content-length" not in upload.headers


def test_holes_are_compressed_whatever_is_before_them(large: Path) -> None:
    os.truncate(large, 10 * SIZE)
    with closing(Upload(LocalFile(large))) as upload:
        upload.compress_if_it_pays()
        assert len(body(upload)) < 1.1 * SIZE


def test_what_is_sent_whole_has_its_digest_ahead(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("content")
    with closing(Upload(LocalFile(tmp_path / "small"))) as upload:
        assert upload.headers[HEADER] == digest_of(b"content")
        assert body(upload) == b"content"


def test_a_file_of_proc_has_no_size_to_go_by() -> None:
    file = LocalFile(Path("/proc/self/status"))
    assert file.size is None
    assert b"".join(file).startswith(b"Name:")
