"""What the emulator does as Fly does, where that is known from, and which test shows it.

`docs/fidelity.md` is made from this: `python -m tests.emulator.fidelity`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.emulator import surprises
from tests.emulator.schema import OPERATIONS

F = TypeVar("F", bound=Callable[..., object])

#: Where facts come from; the key is what stands in the table.
SOURCES = {
    "docs": "Fly's documentation, https://fly.io/docs/machines/ and pages below",
    "openapi": "the API's own OpenAPI document",
    "fly-go": "what superfly/fly-go sends and can decode",
    "flyctl": "what superfly/flyctl sends and can decode",
    "init": "superfly/init-snapshot, Fly's guest server of 2021",
    "seen": "answers of the live API that users have published",
    "guess": "not known; the choice is ours",
    "ours": "a feature of the emulator that Fly does not have",
}

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"


@dataclass(frozen=True)
class Behaviour:
    """One thing that a test shows."""

    area: str
    text: str
    source: str
    test: str


BEHAVIOURS: list[Behaviour] = []


def shows(area: str, text: str, source: str) -> Callable[[F], F]:
    """Say what a test shows.

    Args:
        area: An operation such as `POST M/exec`, or a topic.
        text: What the emulator does.
        source: One of `SOURCES`.
    """
    assert source in SOURCES

    def register(function: F) -> F:
        test = f"{function.__module__.removeprefix('tests.emulator.')}.{function.__name__}"
        BEHAVIOURS.append(Behaviour(area, text, source, test))
        return function

    return register


#: What is not emulated, or not as on Fly.
GAPS = (
    (
        "`A/certificates`, and all below",
        "501: issued for names that lead to Fly; the proxy here has an authority of its own",
    ),
    ("`A/secretkeys`, and all below", "501: keys of a service of Fly's that no machine reads"),
    ("`/v1/postgres`, and all below", "501: clusters, which are no machines of the user's"),
    (
        "`POST /v1/tokens/oidc`",
        "501: nobody could verify a token that Fly has not signed; also at `/.fly/api`",
    ),
    (
        "`POST /v1/tokens/kms`, `authenticate`, `authorize`",
        "501: they take macaroons apart, and tokens here are opaque",
    ),
    (
        "`files.image_config`",
        "400 with engines without images; with docker without the history of the image",
    ),
    (
        "`config.volumes` of an image",
        "400: no document says what of an image a container sees, nor whether it may write to it",
    ),
    (
        "`config.containers`",
        (
            "with the engines bubblewrap and process each sees this computer's own files; with "
            "docker the limit of memory is that of all together where the daemon is root's with "
            "the cgroupfs driver, else each one's, and cpus are always each one's; a `temp_dir` "
            "is on disk whatever its `storage_type`, and for an ordinary user its `size_mb` is no "
            "limit; defaults of healthchecks and `stop` are guessed"
        ),
    ),
    (
        "more than one entry in `config.processes`",
        "with docker, those after the first need a shell at /bin/sh in the image",
    ),
    (
        "`image` with the engines bubblewrap and process",
        "accepted and shown, but this computer's own files are the image",
    ),
    (
        "`rootfs.size_gb`",
        (
            "only root's machines with the engine bubblewrap have no more room, without what "
            "containers write; for an ordinary user only root could mount a disk, and most of "
            "Docker's storage drivers take no size"
        ),
    ),
    (
        "`init.kernel_args`, `guest.kernel_args`",
        "accepted and shown: machines have this computer's kernel, which runs already",
    ),
    ("`spot`", "accepted and shown: nothing is paid here, and nobody outbids"),
    (
        "`cache_drive`",
        "accepted and shown: no document says where a machine would find it",
    ),
    (
        "metrics",
        (
            "of Fly's own series (`fly_*`, `pg_*`) there is none; of Prometheus's API no ranges, "
            "operators, functions, lists of labels or series"
        ),
    ),
    (
        "`statics[].tigris_bucket`, `statics[].index_document`",
        "without effect: there is no object storage, and only there an index has a meaning",
    ),
    (
        "`init.swap_size_mb`",
        (
            "keeps a machine from being suspended, and is how much of this computer's swap it may "
            "use, if that has any: there is none of its own, and `swapon` does not show it"
        ),
    ),
    ("GPU machines", "422 `insufficient_capacity`"),
    (
        "sizes of guests and volumes",
        (
            "checked and shown; whether memory and CPUs are limited depends on the engine; a "
            "volume of root's is a disk of its size, an ordinary user's a directory without limit"
        ),
    ),
    ("volumes with `fstype` `raw`", "have ext4, or are directories, as the others"),
    (
        "`extend_threshold_percent`, `add_size_gb`, `size_gb_limit` of a mount",
        "accepted and shown; volumes are extended only by `extend`",
    ),
    (
        "6PN between machines, `.internal` names, `_api.internal`",
        (
            "whole with the engine bubblewrap where the user may open /dev/net/tun; with docker "
            "who connects to a suspended machine is told after 1 s and not at once, to one that "
            "does not run, and by an ordinary user's suspended one, after 3 to 8 s; where the "
            "emulator may not listen on port 53 of a bridge (not root), and with podman, there "
            "are no TXT records and no `top<n>.nearest.of`, names are as of the machine's start, "
            "and there is no `_api.internal` or it is at an IPv4 address; with process not at all"
        ),
    ),
    (
        "flycast",
        (
            "with the engines bubblewrap, where it has the private network, and docker, where the "
            "emulator is root on the daemon's computer (not podman's; a port that nobody serves "
            "at an address without services is not refused); else `private_v6` addresses lead "
            "nowhere, and the proxy takes `<app>.flycast` as a `Host`: with process there is no "
            "network of machines in which such an address could be"
        ),
    ),
    ("WireGuard, `dns_forward_rules`, static egress addresses", "not there"),
    (
        "services with protocol `udp`",
        (
            "programs see another address than the visitor's, one for each; with docker "
            "`fly-global-services` is 0.0.0.0, with process there is no such name, and any "
            "program of this computer that is bound to that port of 0.0.0.0 may get a "
            "datagram; no autostart"
        ),
    ),
    (
        "compression by the proxy",
        "gzip and deflate; not br and zstd; which types of content Fly compresses is guessed",
    ),
    (
        "`http_options.h2_backend`",
        "one request at a time on each connection, and no WebSockets to such a program",
    ),
    (
        "`tls_options.default_self_signed`",
        "without effect: there is a certificate for every name, of an authority of the emulator",
    ),
    (
        "`services[].force_instance_key` and `force_instance_description`",
        "accepted and shown; they are not documented, and do nothing",
    ),
    ("the handler `edge_http`", "accepted and shown; it is not documented, and does nothing"),
    (
        "`fly-src`, `fly-src-signature`, `/.fly/fly-src.pub`",
        (
            "signed with a key of the emulator's, which `/.fly/fly-src.pub` has; only on requests "
            "by flycast: machines reach the proxy in no other way, so `fly-src-optin` is not needed"
        ),
    ),
    (
        "the Unix socket `/.fly/api` in the machine",
        "serves the machine's own paths without a token, the rest with one",
    ),
    (
        "`M/ps`, `M/memory` while a machine is not started",
        "412 as of an exec, which is seen; what Fly answers to these is not known",
    ),
    ("snapshots of volumes", "copies, at once and not once a day"),
    (
        "host failures",
        (
            "only by the fault `host-failure`, each machine having a host of its own; no move, "
            "no `unknown` host"
        ),
    ),
    ("deploy, launch, ssh, console, proxy, logs of flyctl", "their services are not here"),
    ("organizations", "one springs into being with its first app; there are no roles"),
    ("trial limits, billing, quotas", "none"),
    (
        "memory of a suspended machine",
        (
            "stays in this computer's memory; lost when the emulator "
            "ends, and then the machine boots cold with its files kept"
        ),
    ),
    (
        "`schedule`",
        "the interval is exact: how fuzzy it is on Fly is not known, and no test could wait for it",
    ),
)


#: Where clients and live answers say something else than the OpenAPI document: they win.
DEVIATIONS = (
    ("a lease", "flat", "in an envelope `{status, data}`", "docs, fly-go"),
    ("keys of `/platform/regions` and `placements`", "small", "in capitals", "seen"),
    ("`services[].autostop`", "a text", "a boolean, unless it is `suspend`", "fly-go"),
    ("`services[].force_instance_key`", "a text", "null when there is none", "fly-go"),
    ("`attached_machine_id`, `attached_alloc_id`", "a text", "null when there is none", "docs"),
    ("`config` of a machine whose host does not answer", "an object", "null", "fly-go"),
    ("`status` of an error", "two values", "also `name_taken` and others", "fly-go"),
    ("the body of a snapshot's creation", "none", "`{Msg: {backup: ...}}`", "docs"),
)


def short(path: str) -> str:
    """A path with Fly's common prefixes cut to `A` and `M`."""
    path = re.sub(r"^/v1/apps/\{app\}/machines/\{machine\}", "M", path)
    path = re.sub(r"^/v1/apps/\{app\}", "A", path)
    return path.replace(":path", "")


def operations() -> list[str]:
    """Every operation, in the form of an area."""
    return [f"{method} {short(path)}" for method, path in OPERATIONS]


def collect() -> list[Behaviour]:
    """All behaviours that the tests beside this module, and those of the proxy, show."""
    for name in ("tests.emulator", "tests.emulator.proxy"):
        for module in pkgutil.iter_modules(importlib.import_module(name).__path__):
            if module.name.startswith("test_"):
                importlib.import_module(f"{name}.{module.name}")
    # The order of import differs from run to run, that within a module does not.
    return sorted(BEHAVIOURS, key=lambda item: item.test.rpartition(".")[0])


def page() -> str:
    """The text of the page."""
    behaviours = collect()
    lines = [
        "# How close the emulator is to Fly",
        "",
        "Made by `python -m tests.emulator.fidelity`; every row is shown by the test that it names",
        "(in `tests/emulator/`). Every answer of every test is also checked against a written",
        "shape (`tests/emulator/schema.py`). `A` is `/v1/apps/{app}`, `M` is",
        "`A/machines/{machine}`.",
        "",
        "| source | is |",
        "|---|---|",
        *(f"| {key} | {text} |" for key, text in SOURCES.items()),
        "",
        "## Operations",
        "",
    ]
    order = operations()
    areas = list(dict.fromkeys(order + [item.area for item in behaviours]))
    for area in areas:
        rows = [item for item in behaviours if item.area == area]
        if area == areas[len(order)] if len(areas) > len(order) else False:
            lines += ["## Behaviour across operations", ""]
        lines += [f"### {area}", "", "| behaviour | source | test |", "|---|---|---|"]
        lines += [f"| {item.text} | {item.source} | `{item.test}` |" for item in rows]
        lines.append("")
    lines += [
        "## Surprises",
        "",
        "What surprises whoever writes against the API: each is reproduced here and survived by",
        "our client, by the tests that are named, or left out.",
        "",
        "| # | surprise | source | here | tests |",
        "|---|---|---|---|---|",
        *surprises.rows(),
        "",
    ]
    lines += [
        "## Where the OpenAPI document is not followed",
        "",
        "| what | the document | here | source |",
        "|---|---|---|---|",
        *(
            f"| {what} | {document} | {here} | {source} |"
            for what, document, here, source in DEVIATIONS
        ),
        "",
        "## Gaps",
        "",
        "What is not emulated, or not as on Fly. A 501 has Fly's error shape.",
        "",
        "| what | here |",
        "|---|---|",
    ]
    lines += [f"| {what} | {here} |" for what, here in GAPS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    # Imported under its package name, where the tests register what they show.
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(importlib.import_module("tests.emulator.fidelity").page())
