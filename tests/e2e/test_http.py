"""A server in the machine, asked over HTTP; recorded, then replayed without any network."""

from __future__ import annotations

import pytest

from .conftest import Run


def test_http_to_a_server_in_the_machine_is_recorded_and_replayed(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        import sys
        import urllib.request

        def test_it(fly_sandbox):
            fly_sandbox.write_file("page.txt", "served\\n")
            with fly_sandbox.popen("exec python3 -u -m http.server 8123") as server:
                server.wait_for_port(8123, timeout=30)
                with fly_sandbox.http(8123) as http:
                    answer = http.get("/page.txt")
                    assert (answer.status_code, answer.text) == (200, "served\\n")
                    assert http.get("/nowhere").status_code == 404

        def test_url(fly_sandbox):
            if not sys.modules["os"].environ.get("REPLAYING"):
                fly_sandbox.write_file("page.txt", "served\\n")
                with fly_sandbox.popen("exec python3 -u -m http.server 8124") as server:
                    server.wait_for_port(8124, timeout=30)
                    with urllib.request.urlopen(fly_sandbox.url(8124) + "/page.txt") as answer:
                        assert answer.read() == b"served\\n"
        """
    )
    run("--fly-record=all").assert_outcomes(passed=2)
    run("-k", "test_it", mode="").assert_outcomes(passed=1, deselected=1)
