"""Cloning from a URL, with a real git server on loopback that asks for a password.

The machines are the process engine's, whose network is this computer's.
"""

from __future__ import annotations

import base64
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from .conftest import Run, commit, git

TOKEN = "s3cr3t-of-the-repository"
USER = "x-access-token"
EXPECTED = "Basic " + base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()


class GitServer(http.server.BaseHTTPRequestHandler):
    """Runs `git http-backend` for whoever knows the token."""

    root: Path

    def do_GET(self) -> None:
        if self.headers.get("authorization") != EXPECTED:
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("www-authenticate", 'Basic realm="git"')
            self.send_header("content-length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": USER,
            "HTTP_GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Base URL of a git server; its repositories lie in `tmp_path/served`."""
    handler = type("Served", (GitServer,), {"root": tmp_path / "served"})
    (tmp_path / "served").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def private(server: str, tmp_path: Path, repository: Path) -> str:
    """URL of a repository with three commits, a tag and a submodule of the same server."""
    part = tmp_path / "part"
    part.mkdir()
    git(part, "init", "-q", "-b", "main")
    (part / "inner.txt").write_text("inner\n")
    commit(part, "part")
    git(tmp_path, "clone", "-q", "--bare", str(part), "served/part.git")
    (repository / ".gitmodules").write_text(
        f'[submodule "part"]\n\tpath = part\n\turl = {server}/part.git\n'
    )
    git(repository, "-c", "protocol.file.allow=always", "clone", "-q", str(part), "part")
    commit(repository, "second")
    git(repository, "tag", "v2")
    (repository / "hello.txt").write_text("third\n")
    commit(repository, "third")
    git(repository, "branch", "side", "HEAD~1")
    git(tmp_path, "clone", "-q", "--bare", str(repository), "served/private.git")
    return f"{server}/private.git"


def test_a_private_repository_is_cloned_and_the_token_is_nowhere_in_the_machine(
    pytester: pytest.Pytester, run: Run, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLY_GIT_TOKEN", TOKEN)
    pytester.makepyfile(
        f"""
        def test_it(fly_sandbox):
            assert fly_sandbox.read_text("hello.txt") == "third\\n"
            assert fly_sandbox.exec("git rev-list --count HEAD").stdout == "3\\n"
            assert fly_sandbox.exec("git remote get-url origin").stdout.strip() == {private!r}
            assert not fly_sandbox.exec("grep -r {TOKEN} .git", check=False)
            assert {TOKEN!r} not in fly_sandbox.exec("env").stdout
            machine = fly_sandbox.attachment.client.get_machine(
                fly_sandbox.app, fly_sandbox.machine_id
            )
            assert {TOKEN!r} not in repr(machine)
        """
    )
    result = run("--fly-engine=process", f"--fly-repo={private}")
    result.assert_outcomes(passed=1)


def test_ref_depth_and_submodules(
    pytester: pytest.Pytester, run: Run, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine for each choice, all in one run."""
    monkeypatch.setenv("FLY_GIT_TOKEN", TOKEN)
    pytester.makepyfile(
        f"""
        import pytest

        CHOICES = [
            (dict(ref="v2"), 2, "hello\\n"),
            (dict(ref="side", depth=1), 1, "hello\\n"),
            (dict(depth=2), 2, "third\\n"),
            (dict(ref="v2", submodules=True), 2, "hello\\n"),
        ]

        @pytest.mark.parametrize(("changes", "commits", "text"), CHOICES)
        def test_it(fly_sandbox_factory, changes, commits, text):
            sandbox = fly_sandbox_factory(repo={private!r}, **changes)
            assert sandbox.read_text("hello.txt") == text
            assert sandbox.exec("git rev-list --count HEAD").stdout == f"{{commits}}\\n"
            assert sandbox.exists("part/inner.txt") == ("submodules" in changes)
        """
    )
    run("--fly-engine=process").assert_outcomes(passed=4)


def test_a_commit_is_checked_out_by_its_digest(
    pytester: pytest.Pytester,
    run: Run,
    private: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLY_GIT_TOKEN", TOKEN)
    first = git(repository, "rev-parse", "HEAD~2")
    pytester.makepyfile(
        f"""
        def test_it(fly_sandbox):
            assert fly_sandbox.exec("git rev-parse HEAD").stdout.strip() == {first!r}
        """
    )
    options = [f"--fly-repo={private}", f"--fly-ref={first}", "--fly-engine=process"]
    run(*options).assert_outcomes(passed=1)


def test_a_wrong_token_says_what_to_set_and_does_not_show_it(
    pytester: pytest.Pytester, run: Run, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLY_GIT_TOKEN", "wrong-value-of-a-token")
    pytester.makepyfile("def test_it(fly_sandbox): pass")
    result = run("--fly-engine=process", f"--fly-repo={private}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*cloning {private} failed*", "*FLY_GIT_TOKEN*"])
    result.stdout.no_fnmatch_line("*wrong-value-of-a-token*")


def test_a_repository_of_100_mb_arrives_without_being_held_in_memory(
    pytester: pytest.Pytester, run: Run, repository: Path
) -> None:
    """The process of the tests grows by far less than what it sends."""
    git(repository, "config", "core.compression", "0")  # random bytes do not get smaller
    with (repository / "big.bin").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))
    commit(repository, "big")
    pytester.makepyfile(
        """
        import resource

        def peak_mb():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        before = peak_mb()

        def test_it(fly_sandbox):
            assert fly_sandbox.stat("big.bin").size == 100 << 20
            assert peak_mb() - before < 64
        """
    )
    run("--fly-repo=project").assert_outcomes(passed=1)
