"""Our tar streams and those of others: tarfile's and GNU tar's read as ours, and the reverse."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_flymachines.agent.server import pax
from pytest_flymachines.agent.server.packing import pack, scan
from pytest_flymachines.agent.server.pax import BadTar, Member
from pytest_flymachines.agent.server.unpacking import unpack_tree
from tests.agent.test_files import names
from tests.agent.test_trees import fill, snapshot

COMMON = settings(max_examples=150, deadline=None)

Content = list[tuple[Member, bytes]]

paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
times = st.one_of(
    st.integers(0, 8**11 * 10**9 - 1),
    st.integers(0, 8**11 - 1).map(lambda s: s * 10**9),
    st.integers(-(2**62), 2**70),
)
modes = st.integers(0, 0o7777)
files = st.builds(
    lambda name, mode, ns, data: (Member(name, pax.FILE, mode, len(data), ns), data),
    paths,
    modes,
    times,
    st.binary(max_size=1500),
)
links = st.builds(
    lambda name, kind, mode, ns, target: (Member(name, kind, mode, 0, ns, target), b""),
    paths,
    st.sampled_from([pax.SYMLINK, pax.HARD_LINK]),
    modes,
    times,
    paths,
)
devices = st.builds(
    lambda name, kind, mode, ns, device: (Member(name, kind, mode, 0, ns, device=device), b""),
    paths,
    st.sampled_from([pax.CHAR, pax.BLOCK]),
    modes,
    times,
    st.tuples(st.integers(0, 8**7 - 1), st.integers(0, 8**7 - 1)),
)
others = st.builds(
    lambda name, kind, mode, ns: (Member(name, kind, mode, 0, ns), b""),
    paths,
    st.sampled_from([pax.DIRECTORY, pax.FIFO]),
    modes,
    times,
)
trees = st.lists(st.one_of(files, links, devices, others), max_size=6)


def written(tree: Content) -> bytes:
    parts = [pax.header(m) + data + pax.padding(len(data)) for m, data in tree]
    return b"".join(parts) + pax.END


def read(pieces: Iterable[bytes]) -> Content:
    return [(member, b"".join(content)) for member, content in pax.members(pieces)]


def by_tarfile(tar: bytes) -> Content:
    """What the standard library finds; times from the records, which it makes floats of."""
    found = []
    with tarfile.open(
        fileobj=io.BytesIO(tar), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            seconds, _, fraction = info.pax_headers.get("mtime", str(int(info.mtime))).partition(
                "."
            )
            ns = abs(int(seconds)) * 10**9 + int(fraction[:9].ljust(9, "0"))
            member = Member(
                info.name.encode("utf-8", "surrogateescape"),
                pax.FILE if info.isreg() else info.type,
                info.mode & 0o7777,
                info.size if info.isreg() else 0,
                -ns if seconds.startswith("-") else ns,
                info.linkname.encode("utf-8", "surrogateescape")
                if info.issym() or info.islnk()
                else b"",
                (info.devmajor, info.devminor) if info.isdev() and not info.isfifo() else (0, 0),
            )
            found.append((member, file.read() if file else b""))
    return found


@COMMON
@given(tree=trees)
@example(tree=[(Member(b"n" * 100, pax.DIRECTORY, 0o755, 0, 0), b"")]).via("a slash too many")
@example(tree=[(Member(b"n" * 999, pax.SYMLINK, 0o777, 0, -1, b"\xff" * 999), b"")])
def test_tarfile_reads_what_we_write(tree: Content) -> None:
    assert by_tarfile(written(tree)) == tree


def test_a_size_beyond_octal_digits_is_a_record() -> None:
    tar = pax.header(Member(b"n" * 100, pax.FILE, 0o644, 8**11, 10**18 + 1))
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert (info := archive.next()) is not None
        assert (info.name, info.size) == ("n" * 100, 8**11)
    member, _ = next(pax.members([tar]))
    assert member == Member(b"n" * 100, pax.FILE, 0o644, 8**11, 10**18 + 1)


@COMMON
@given(tree=trees, size=st.integers(1, 2000))
def test_we_read_what_we_write_in_pieces_of_any_size(tree: Content, size: int) -> None:
    tar = written(tree)
    pieces = [tar[at : at + size] for at in range(0, len(tar), size)]
    assert read(pieces) == tree
    assert [m for m, _ in pax.members(pieces)] == [m for m, _ in tree], "contents left unread"


@COMMON
@given(
    tree=trees,
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
)
def test_we_read_what_tarfile_writes(tree: Content, form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member, data in tree:
            info = tarfile.TarInfo(os.fsdecode(member.name))
            info.type, info.mode, info.size = member.kind, member.mode, len(data)
            info.mtime = member.mtime_ns // 10**9
            info.linkname = os.fsdecode(member.target)
            info.devmajor, info.devminor = member.device
            try:
                archive.addfile(info, io.BytesIO(data))
            except (ValueError, OverflowError):  # more than the older formats can say
                continue
    tar = buffer.getvalue()
    assert read([tar]) == by_tarfile(tar)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    fill(top)
    (top / "deep" / ("d" * 90) / ("e" * 90)).mkdir(parents=True)
    (top / "deep" / ("d" * 90) / ("e" * 90) / ("f" * 90)).write_bytes(b"far")
    (top / "far").symlink_to("t" * 150)
    (top / "before").write_text("")
    os.utime(top / "before", ns=(0, -1_500_000_000))
    os.utime(top / "none", ns=(0, 1_700_000_000_123_456_789))
    return top


gnu = pytest.mark.skipif(
    b"GNU"
    not in subprocess.run(
        [shutil.which("tar") or "false", "--version"], capture_output=True
    ).stdout,
    reason="needs GNU tar",
)


def exact(top: Path) -> dict[bytes, tuple[object, ...]]:
    """A snapshot with times to the nanosecond."""
    root = os.fsencode(top)
    found = snapshot(top)
    return {
        name: (*facts, os.lstat(os.path.join(root, name)).st_mtime_ns)
        for name, facts in found.items()
    }


@gnu
def test_gnu_tar_unpacks_what_we_pack(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    tar = b"".join(pack(scan(os.fsencode(tree), lambda _: False), links=True))
    command = ["tar", "-C", str(tmp_path / "there"), "--warning=no-unknown-keyword", "-xpf", "-"]
    done = subprocess.run(
        command, input=tar, capture_output=True, env={**os.environ, "LC_ALL": "C"}
    )
    assert done.returncode == 0, done.stderr
    assert exact(tmp_path / "there") == exact(tree)
    hard = (tmp_path / "there" / "hard").stat()
    assert hard.st_ino == (tmp_path / "there" / "sub" / "script").stat().st_ino


@gnu
@pytest.mark.parametrize("form", ["pax", "gnu", "oldgnu"])
def test_we_unpack_what_gnu_tar_packs(tree: Path, tmp_path: Path, form: str) -> None:
    command = ["tar", "-C", str(tree), f"--format={form}", "--sort=name", "-cf", "-", "."]
    done = subprocess.run(command, capture_output=True, check=True)
    unpack_tree(os.fsencode(tmp_path / "there"), iter([done.stdout]))
    if form == "pax":
        assert exact(tmp_path / "there") == exact(tree)
    else:
        found, wanted = snapshot(tmp_path / "there"), snapshot(tree)
        assert {n: f[:2] for n, f in found.items()} == {n: f[:2] for n, f in wanted.items()}
    hard = (tmp_path / "there" / "hard").stat()
    assert hard.st_ino == (tmp_path / "there" / "sub" / "script").stat().st_ino


def test_a_global_record_holds_for_all_that_follow() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"mtime": "5.5"}
    ) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        archive.addfile(tarfile.TarInfo("b"))
    assert [m.mtime_ns for m, _ in pax.members([buffer.getvalue()])] == [5_500_000_000] * 2


WHOLE = written([
    (Member(b"some/where", pax.FILE, 0o644, 700, 1_500_000_000), b"x" * 700),
    (Member("ü".encode() * 60, pax.SYMLINK, 0o777, 0, 1, b"t" * 120), b""),
])  # fmt: skip


@pytest.mark.parametrize("end", [0, 1, 512, 1000, 1536, 2000, 2560, len(WHOLE) - 1024])
def test_a_stream_that_is_cut_off_is_none(end: int) -> None:
    with pytest.raises(BadTar, match="ends before its end mark"):
        read([WHOLE[:end]])


def test_a_header_with_another_sum_is_none() -> None:
    for at in itertools.chain(range(1024, 1175), range(1180, 1420, 7)):
        damaged = bytearray(WHOLE)
        damaged[at] ^= 0x55
        with pytest.raises(BadTar):
            read([bytes(damaged)])


@pytest.mark.parametrize(
    "records", [b"30 mtime=17", b"7 a=b\n", b"0 a=b\n", b"x a=b\n", b"99 a=b\n", b"6 ab c\n", b""]
)
def test_records_that_are_none_are_refused(records: bytes) -> None:
    block = pax.header(Member(b"r", b"x", 0, len(records), 0))
    with pytest.raises(BadTar):
        read([block, records, pax.padding(len(records)), WHOLE])


@pytest.mark.parametrize("key", [b"size", b"mtime"])
@pytest.mark.parametrize("value", [b"x", b"", b"-", b"1.x", b"1" + b"\0"])
def test_values_of_records_that_mean_nothing_are_refused(key: bytes, value: bytes) -> None:
    record = b"%d %b=%b\n" % (len(key) + len(value) + 5, key, value)
    record = record if len(record) >= 10 else b"%d" % len(record) + record[1:]
    block = pax.header(Member(b"r", b"x", 0, len(record), 0))
    member = pax.header(Member(b"a", pax.FILE, 0o644, 0, 0))
    with pytest.raises(BadTar):
        read([block + record + pax.padding(len(record)) + member + pax.END])


@gnu
@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_a_sparse_file_is_refused_and_named(tmp_path: Path, form: str) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 20)
    command = ["tar", "-C", str(tmp_path), f"--format={form}", "-Scf", "-", "holes"]
    tar = subprocess.run(command, capture_output=True, check=True).stdout
    with pytest.raises(BadTar, match=r"holes.* is sparse"):
        read([tar])


@COMMON
@given(
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8),
    repair=st.booleans(),
)
def test_whatever_comes_is_members_or_refused(changes: list[tuple[int, int]], repair: bool) -> None:
    damaged = bytearray(WHOLE)
    for at, byte in changes:
        damaged[at] = byte
    if repair:  # so that the reader gets further than the sums
        for at in range(0, len(damaged), 512):
            block = damaged[at : at + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                damaged[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    with contextlib.suppress(BadTar):
        read([bytes(damaged)])
