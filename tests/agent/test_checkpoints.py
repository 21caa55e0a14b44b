"""Checkpoints of the base directory and private copies of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flymachines.agent.channel import AgentChannel
from pytest_flymachines.errors import ApiError
from pytest_flymachines.sandbox.channel import Command
from tests.agent.running import RunningAgent, eventually, open_channel, running_agent
from tests.agent.test_trees import fill, snapshot


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[RunningAgent, AgentChannel]]:
    """An agent with a base full of things, for one test."""
    (tmp_path / "base").mkdir()
    with running_agent(tmp_path) as agent, open_channel(agent) as channel:
        fill(agent.base / "tree")
        (agent.base / ".hidden").write_text("1")
        yield agent, channel


def test_a_checkpoint_brings_back_everything(own: tuple[RunningAgent, AgentChannel]) -> None:
    agent, channel = own
    before = snapshot(agent.base)
    inode = agent.base.stat().st_ino
    channel.save_checkpoint("clean")
    (agent.base / "new").write_text("new")
    (agent.base / ".hidden").unlink()
    (agent.base / "tree" / "none").write_text("changed")
    channel.restore_checkpoint("clean")
    assert snapshot(agent.base) == before
    # whoever works in the directory is still in it
    assert agent.base.stat().st_ino == inode
    channel.restore_checkpoint("clean")
    assert channel.checkpoints() == ["clean"]


def test_a_checkpoint_can_be_saved_anew_and_deleted(
    own: tuple[RunningAgent, AgentChannel],
) -> None:
    agent, channel = own
    channel.save_checkpoint("b")
    channel.save_checkpoint("a")
    (agent.base / "more").write_text("")
    channel.save_checkpoint("b")
    assert channel.checkpoints() == ["a", "b"]
    channel.restore_checkpoint("a")
    assert not (agent.base / "more").exists()
    channel.restore_checkpoint("b")
    assert (agent.base / "more").exists()
    channel.delete_checkpoint("b")
    assert channel.checkpoints() == ["a"]
    for call in (channel.restore_checkpoint, channel.delete_checkpoint, channel.make_workspace):
        with pytest.raises(LookupError, match="'b'"):
            call("b")


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a\0b"])
def test_a_name_must_be_a_file_name(own: tuple[RunningAgent, AgentChannel], name: str) -> None:
    with pytest.raises(ApiError, match="file name"):
        own[1].save_checkpoint(name)


def test_a_workspace_is_private(own: tuple[RunningAgent, AgentChannel]) -> None:
    agent, channel = own
    channel.save_checkpoint("clean")
    paths = [channel.make_workspace("clean") for _ in range(3)]
    assert len(set(paths)) == 3
    content = snapshot(agent.base)
    first, second = (channel.with_base(path) for path in paths[:2])
    assert {p.name for p in map(Path, map(os.fsdecode, paths))} == {"w1", "w2", "w3"}
    assert snapshot(Path(os.fsdecode(paths[0]))) == content
    first.write(b"tree/none", [b"changed"], mode=None, parents=False)
    first.remove(b"tree/sub", recursive=True, missing_ok=False)
    update = first.start(Command(argv=[b"pwd"]), wait_s=30, forget=True)
    assert update.stdout == paths[0] + b"\n"
    assert b"".join(second.read(b"tree/none")) == b""
    assert snapshot(agent.base) == content
    for path in paths:
        channel.drop_workspace(path)
        assert not Path(os.fsdecode(path)).exists()
    assert [p.name for p in (agent.state / "workspaces").iterdir()] == []
    with pytest.raises(LookupError, match="w1"):
        channel.drop_workspace(paths[0])
    channel.restore_checkpoint("clean")
    assert snapshot(agent.base) == content


def test_a_workspace_outlives_its_checkpoint(own: tuple[RunningAgent, AgentChannel]) -> None:
    """Also when it is an overlay of it."""
    agent, channel = own
    before = snapshot(agent.base)
    channel.save_checkpoint("clean")
    first = channel.make_workspace("clean")
    (agent.base / "tree" / "none").write_text("changed")
    channel.save_checkpoint("clean")
    second = channel.make_workspace("clean")
    channel.delete_checkpoint("clean")
    assert snapshot(Path(os.fsdecode(first))) == before
    assert snapshot(Path(os.fsdecode(second))) == snapshot(agent.base)
    channel.drop_workspace(first)
    channel.drop_workspace(second)
    assert list((agent.state / "checkpoints").iterdir()) == []


def test_the_base_of_a_checkpoint_is_the_channels(own: tuple[RunningAgent, AgentChannel]) -> None:
    agent, channel = own
    tree = channel.with_base(b"tree")
    tree.save_checkpoint("tree")
    (agent.base / "tree" / "none").unlink()
    (agent.base / "stays").write_text("")
    tree.restore_checkpoint("tree")
    assert (agent.base / "tree" / "none").exists()
    assert (agent.base / "stays").exists()
    path = channel.make_workspace("tree")
    assert snapshot(Path(os.fsdecode(path))) == snapshot(agent.base / "tree")
    channel.drop_workspace(path)


class TestSpares:
    """Where a workspace has to be a copy, one is made ahead."""

    @pytest.fixture
    def copying(self, tmp_path: Path) -> Iterator[tuple[RunningAgent, AgentChannel, Path]]:
        """An agent that cannot mount overlays, and where it keeps spares."""
        state = tmp_path / "no,overlay"  # such a name cannot be an option of mount
        (tmp_path / "base").mkdir()
        with running_agent(tmp_path, state=state) as agent, open_channel(agent) as channel:
            fill(agent.base / "tree")
            channel.save_checkpoint("clean")
            yield agent, channel, state / "spares"

    @staticmethod
    def spare(spares: Path, content: object) -> Path:
        """The one that there is, once it is whole."""
        eventually(lambda: [snapshot(path) for path in spares.iterdir()] == [content])
        (path,) = spares.iterdir()
        return path

    def test_the_next_workspace_is_there_before_it_is_asked_for(
        self, copying: tuple[RunningAgent, AgentChannel, Path]
    ) -> None:
        agent, channel, spares = copying
        content = snapshot(agent.base)
        channel.make_workspace("clean")

        def renamed() -> bool:
            inode = self.spare(spares, content).stat().st_ino
            path = Path(os.fsdecode(channel.make_workspace("clean")))
            assert snapshot(path) == content
            return path.stat().st_ino == inode

        for _ in range(2):
            eventually(renamed)

    def test_a_spare_goes_with_its_checkpoint(
        self, copying: tuple[RunningAgent, AgentChannel, Path]
    ) -> None:
        agent, channel, spares = copying
        channel.make_workspace("clean")
        self.spare(spares, snapshot(agent.base))
        (agent.base / "new").write_text("")
        channel.save_checkpoint("clean")
        path = Path(os.fsdecode(channel.make_workspace("clean")))
        assert snapshot(path) == snapshot(agent.base)
        self.spare(spares, snapshot(agent.base))
        channel.delete_checkpoint("clean")
        eventually(lambda: list(spares.iterdir()) == [])

    def test_what_is_dropped_is_gone_at_once_and_removed_soon(
        self, copying: tuple[RunningAgent, AgentChannel, Path]
    ) -> None:
        agent, channel, spares = copying
        path = channel.make_workspace("clean")
        self.spare(spares, snapshot(agent.base))
        channel.drop_workspace(path)
        assert not Path(os.fsdecode(path)).exists()
        self.spare(spares, snapshot(agent.base))
