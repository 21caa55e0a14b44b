"""What is made of this computer's directories before any machine starts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pytest_flymachines.emulator.engines import host_python, layers, thin
from pytest_flymachines.emulator.engines.base_layer import Plan, fingerprint
from pytest_flymachines.emulator.engines.kept import keep

ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pytest-flymachines"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "open/deep").mkdir(parents=True)
    (source / "open/file").write_text("x")
    (source / "open/secret").write_text("x")
    (source / "open/secret").chmod(0o640)
    (source / "closed").mkdir(mode=0o750)
    (source / "closed/file").write_text("x")
    (source / "link").symlink_to("closed/file")
    return source


class TestThin:
    @pytest.mark.skipif(not ROOT, reason="as root only")
    def test_root_hides_what_is_not_for_everybody(self, source: Path, tmp_path: Path) -> None:
        made, kept = thin.make([source], tmp_path / "layers")
        assert kept == []
        found = {
            str(path.relative_to(made[source])): path.lstat().st_mode
            for path in made[source].rglob("*")
        }
        assert sorted(found) == ["closed", "open", "open/secret"]
        for name in ("closed", "open/secret"):
            assert stat.S_ISCHR(found[name])
            assert (made[source] / name).lstat().st_rdev == 0
        assert found["open"] == (source / "open").stat().st_mode

    @pytest.mark.skipif(ROOT, reason="as an ordinary user only")
    def test_ordinary_user_owns_the_directories(self, source: Path, tmp_path: Path) -> None:
        made, kept = thin.make([source], tmp_path / "layers")
        found = sorted(str(path.relative_to(made[source])) for path in made[source].rglob("*"))
        assert found == ["closed", "open", "open/deep"]
        (kept[0]).close()


class TestKept:
    def test_made_once_and_found_again(self, cache: Path, tmp_path: Path) -> None:
        made = []

        def make(path: Path) -> None:
            made.append(path)
            path.mkdir()

        one = keep("x", "aa", make, tmp_path / "otherwise")
        two = keep("x", "aa", make, tmp_path / "otherwise")
        assert one.path == two.path
        assert one.path.parent == cache
        assert len(made) == 1

    def test_old_ones_go_when_nobody_uses_them(self, tmp_path: Path) -> None:
        used = keep("x", "aa", Path.mkdir, tmp_path)
        unused = keep("x", "bb", Path.mkdir, tmp_path)
        unused.close()
        keep("x", "cc", Path.mkdir, tmp_path)
        assert used.path.exists()
        assert not unused.path.exists()

    def test_what_was_not_finished_is_made_anew(self, tmp_path: Path) -> None:
        def fail(path: Path) -> None:
            path.mkdir()
            (path / "half").touch()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            keep("x", "aa", fail, tmp_path)
        assert list(keep("x", "aa", Path.mkdir, tmp_path).path.iterdir()) == []

    def test_without_a_cache_directory_it_is_kept_elsewhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        kept = keep("x", "aa", Path.mkdir, tmp_path / "elsewhere")
        assert kept.path.parent == tmp_path / "elsewhere"


class TestSurvey:
    def test_shows_programs_and_hides_homes(self, tmp_path: Path) -> None:
        tree = layers.survey(tmp_path / "layers")
        shown = [overlay.path for overlay in tree.overlays]
        assert shown[0] == "/"
        assert any(path == "/usr" or path.startswith("/usr/") for path in shown)
        assert not [path for path in shown if path.startswith(("/home", "/root", "/run", "/tmp"))]
        base = tree.overlays[0].lower[0]
        assert list((base / "home").iterdir()) == []
        assert (base / "etc/passwd").read_bytes() == Path("/etc/passwd").read_bytes()
        for kept in tree.kept:
            kept.close()

    def test_goes_around_mounts(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = Plan()
        layers._add(plan, source, {source / "open/deep"})
        readable = [source / "closed"]
        assert plan.shown == readable
        assert source / "open" in plan.places
        assert plan.links == {source / "link": "closed/file"}

    def test_fingerprint_changes_with_etc_and_with_the_plan(self) -> None:
        assert fingerprint(Plan()) == fingerprint(Plan())
        assert fingerprint(Plan()) != fingerprint(Plan(shown=[Path("/usr")]))


class TestPython:
    def test_system_python_is_enough(self, tmp_path: Path) -> None:
        self.fake(tmp_path, "3 12")
        assert host_python.find_python(str(tmp_path)) == host_python.HostPython()

    def test_ours_is_shown_where_there_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.base_prefix", "/somewhere/python")
        found = host_python.find_python(str(tmp_path))
        assert found.prefix == Path("/somewhere/python")
        assert str(found.executable).startswith("/somewhere/python/bin/python3.")

    def test_ours_is_taken_where_the_systems_is_too_old(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fake(tmp_path, "3 8")
        monkeypatch.setattr("sys.base_prefix", "/usr")
        found = host_python.find_python(str(tmp_path))
        assert found.prefix is None
        assert found.executable is not None

    def fake(self, directory: Path, version: str) -> None:
        (directory / "python3").write_text(f"#!/bin/sh\necho {version}\n")
        (directory / "python3").chmod(0o755)
