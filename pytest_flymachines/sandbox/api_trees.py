"""Trees, checkpoints and private workspaces over the Machines API's exec."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.sandbox import tarless
from pytest_flymachines.sandbox.api_files import ApiFiles
from pytest_flymachines.sandbox.api_processes import located
from pytest_flymachines.sandbox.channel import no_checkpoint
from pytest_flymachines.sandbox.patterns import has_magic
from pytest_flymachines.sandbox.runner import Answer, RunnerFailed
from pytest_flymachines.sandbox.staging import stage
from pytest_flymachines.sandbox.text import decode_name, encode_text
from pytest_flymachines.sandbox.tree_meaning import TreeMeaning

__all__ = ["ApiTrees"]


class ApiTrees(ApiFiles):
    """The part of the channel that handles whole directories."""

    def put_tree(self, path: bytes, tar: Iterable[bytes]) -> None:
        """Unpack a tar stream into a directory; without `tar` in the machine by a script."""
        tools, meaning = self._runner.tools, TreeMeaning()
        tar = meaning.of(tar)
        if "t" not in tools:
            kind, content = "s", tarless.script(tar, self._runner)
        elif "g" in tools and "b" in tools:
            kind, content = "z", tarless.compressed(tar)
        else:
            kind, content = "t", tar
        staged = stage(self._runner, content, "tree")
        try:
            facts = (staged.name, staged.size, staged.sha256, kind, meaning.digest())
            arguments = (located(path), *facts)
            self._long("unpack_tree", decode_name(path), *arguments)  # which drops it
        except BaseException:
            self._runner.try_call("drop", staged.name)
            raise

    def get_tree(self, path: bytes, *, exclude: Sequence[str] = ()) -> Iterator[bytes]:
        """A directory, or a single file, as a tar stream."""
        if "t" not in self._runner.tools:
            yield from tarless.archive(self, path, exclude)
            return
        answer = self._long("pack_tree", decode_name(path), located(path), *self._left_out(exclude))
        name, size, packer, digest = answer.words
        try:
            pieces = self._spooled(name, int(size), digest)
            yield from tarless.expanded(pieces) if packer == "gzip" else pieces
        finally:
            self._runner.try_call("drop", name)

    def _left_out(self, exclude: Sequence[str]) -> list[bytes]:
        """Patterns that every tar understands in the same way; the caller filters by all."""
        plain = [p for p in exclude if "/" not in p and not has_magic(p) and "\\" not in p]
        return [encode_text(p) for p in plain]

    def _spooled(self, name: str, size: int, digest: str) -> Iterator[bytes]:
        found, offset = hashlib.sha256(), 0
        while offset < size:
            (piece,) = self._long_read("spool", name, offset).blocks
            found.update(piece)
            offset += len(piece)
            yield piece
        if digest and found.hexdigest() != digest:
            raise FlyMachinesError(
                f"the tree from machine {self._runner.machine_id} arrived with another digest "
                "than it was sent with"
            )

    def _long_read(self, verb: str, name: str, offset: int) -> Answer:
        try:
            return self._runner.call(verb, name, offset)
        except RunnerFailed as failure:
            raise failure.error(f"staged tree {name}") from failure

    def _long(self, verb: str, path: str, *arguments: str | bytes | int) -> Answer:
        try:
            return self._run(verb, *arguments)
        except RunnerFailed as failure:
            raise failure.error(path) from failure

    # checkpoints and private copies

    def save_checkpoint(self, name: str) -> None:
        """Keep a copy of the base directory under a name, replacing an older one."""
        self._named("checkpoint", name)

    def restore_checkpoint(self, name: str) -> None:
        """Make the base directory's content that of a checkpoint."""
        self._named("restore", name)

    def delete_checkpoint(self, name: str) -> None:
        """Drop a checkpoint."""
        self._named("delete", name)

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints, sorted."""
        words = self._long("checkpoints", "checkpoints").words
        return sorted(word for word in words if word)

    def make_workspace(self, checkpoint: str) -> bytes:
        """A new directory with a checkpoint's content: an overlay, a clone or a copy."""
        return encode_text(self._named("workspace", checkpoint))

    def drop_workspace(self, path: bytes) -> None:
        """Remove a directory that `make_workspace` gave."""
        self._long("unworkspace", decode_name(path), path)

    def _named(self, verb: str, name: str) -> str:
        try:
            return " ".join(self._run(verb, name).words)
        except RunnerFailed as failure:
            if failure.word == "checkpoint":
                raise no_checkpoint(name, self._runner.machine_id) from failure
            raise failure.error(f"checkpoint {name}") from failure
