"""Everything that may differ between two runs of the same test, and why.

What is listed here is not compared when a request looks for its recorded answer. Whatever is
not listed is compared, so a request must not hold a clock, a random id, the name of this
computer or one of its paths anywhere else.

Never compared, and so not listed: scheme, host and port of the URL (live, local and replay
differ in nothing else), and every header (token, User-Agent, lease nonce, routing).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "ANSWER_FIELDS",
    "BODIES",
    "BODY_FIELDS",
    "KEPT_REQUEST_HEADERS",
    "OWN_FILES",
    "OWN_METADATA",
    "PATHS",
    "QUERY",
    "REPEATABLE",
    "REPEATABLE_VERBS",
    "RUNNER",
    "RUNNER_ARGUMENTS",
    "RUNNER_DATA",
    "RUNNER_MODE",
    "RUNNER_OFFSET",
    "RUNNER_PACK",
    "RUNNER_PACKED",
    "RUNNER_PATH",
    "RUNNER_SCRIPT",
    "RUNNER_TREE",
    "RUNNER_TREE_ARGUMENTS",
    "RUNNER_UPLOADED_MODE",
    "RUNNER_UPLOADED_TIME",
    "RUNNER_VERB",
    "RUNNER_VERB_ARGUMENTS",
    "SECRET_NAME",
    "SPEC_PLACES",
    "UNKEPT_ANSWER_HEADERS",
    "UPLOADED_MODE",
    "UPLOADED_TIME",
    "WEBSOCKET",
    "Volatile",
]

#: The service of an interaction that holds the frames of a WebSocket.
WEBSOCKET = "websocket"


@dataclass(frozen=True, eq=False)  # by identity: they are looked up for every request
class Volatile:
    """Something that is not compared.

    Attributes:
        where: Pattern of `METHOD path` with `{app}` and `{org}` in place of names.
        what: Pattern of the names it is about: of query parameters, or of the dotted way to a
            JSON field, where an entry of `files` is called by its `guest_path`.
        why: The reason.
    """

    where: str
    what: str
    why: str


PATHS = (
    (
        re.compile(r"^(/v1/apps/)[^/]+"),
        r"\1{app}",
        "everybody has an app of their own",
    ),
    (re.compile(r"^(/v1/orgs/)[^/]+"), r"\1{org}", "everybody has an organization of their own"),
)

_OURS = "our marks: run id, owner, deadline"
_TIME_LEFT = "what a loop has left until its deadline, so it depends on the clock"

QUERY = (
    Volatile(r"GET .*/wait", "timeout", _TIME_LEFT),
    Volatile(r"GET .*/wait", "version|instance_id|from_event_id", "ids that the server makes up"),
    Volatile(r"GET .*/machines", r"metadata\.pytest_flymachines_.*", _OURS),
    Volatile(r".* /v1/apps", "org_slug", "everybody has an organization of their own"),
    Volatile(r"PUT .*/agent/files", "mtime_ns", "an uploaded file's time on the user's computer"),
    Volatile(r".*/lease", "ttl", "how long we want it may change from version to version"),
)

BODY_FIELDS = (
    Volatile(r"POST .*/(exec|poll|start|stop)", r"timeout|wait_s", _TIME_LEFT),
    Volatile(r"POST /v1/apps", "name|app_name|org_slug|network", "app and organization differ"),
    Volatile(
        r"POST .*/(machines(/[^/]+)?|volumes)",
        "name",
        "made of run id, spec and time to live, and must be unique",
    ),
    Volatile(r"POST .*/(machines(/[^/]+)?|volumes)", "region", "a place, not a meaning"),
    Volatile(r"POST .*/machines(/[^/]+)?", "lease_ttl|current_version", "of the lease and version"),
    Volatile(r"POST .*/machines(/[^/]+)?", r"config\.metadata\.pytest_flymachines_.*", _OURS),
    Volatile(
        r"POST .*/machines(/[^/]+)?",
        r"config\.files\./opt/pytest-flymachines/.*",
        "our own init and agent, new in every version, and the digest of a token",
    ),
    Volatile(
        r"POST .*/machines(/[^/]+)?",
        r"config\.mounts\.\d+\.volume",
        "an id that the server makes up",
    ),
    Volatile(r"POST .*/metadata/pytest_flymachines_.*", "value|updated_at", _OURS),
    Volatile(r"(PUT|PATCH) .*/metadata", r"metadata\.pytest_flymachines_.*", _OURS),
    Volatile(r"(PUT|PATCH|POST) .*/metadata.*", "machine_version|updated_at", "guards of a write"),
    Volatile(r"POST .*/lease", "ttl|description", "of our own book-keeping"),
)

# Commands to the runner, over the Machines API alone: arguments that differ, by position. For all:
# its own text and version, new in each version of ours. By verb: what a loop has left of its
# time; a name for the request that counts all requests of the process; size and digest of what
# is compared itself, and the time of an uploaded file; and, where no verb stands ("z" and ""), a
# piece of the text of a new version.
RUNNER = "/opt/pytest-flymachines/api"
RUNNER_ARGUMENTS = frozenset({2, 4})
RUNNER_MODE = 5
RUNNER_VERB = 8
RUNNER_VERB_ARGUMENTS = {
    "start": frozenset({9, 11, 12}),
    "poll": frozenset({12}),
    "abort": frozenset({9}),
    "put": frozenset({13, 14, 15}),
    "z": frozenset({7}),
    "": frozenset({7}),
}
# Where its arguments are bytes, which is the command that is to run, and which an offset.
RUNNER_SCRIPT = 17
RUNNER_DATA = {
    "start": frozenset({RUNNER_SCRIPT, 18}),
    "write": frozenset({10}),
    "stage": frozenset({11}),
    "put": frozenset({10}),
    "append": frozenset({10}),
}
RUNNER_OFFSET = {"poll": 10, "read": 10, "spool": 10}
# A file that is uploaded has the mode that it has on the user's computer, where the umask decides
# about all but whether it may be run. Such a file is one whose time is told.
UPLOADED_TIME = "mtime_ns"
UPLOADED_MODE = "mode"
RUNNER_UPLOADED_TIME = 15
RUNNER_UPLOADED_MODE = 11
# A file that is not compared, as in `BODIES`, and what its pieces are marked with.
RUNNER_PACK = "pack"
RUNNER_PATH = 9
RUNNER_PACKED = re.compile(r".*\.pytest-flymachines\.(pack|agent)")
# A tree that is sent ahead of what unpacks it is packed anew each time, with the times of its
# files: neither offset nor bytes of its pieces are compared, nor their number. What the tree
# means is said by `unpack_tree`.
RUNNER_TREE = "tree"
RUNNER_TREE_ARGUMENTS = frozenset({10, 11})

# Requests whose body is not compared at all: the repository, packed anew by each git.
BODIES = re.compile(r"PUT .*\.pytest-flymachines\.(pack|agent).*")

# `verify` compares answers; these fields of JSON answers say when, where and under which name
# something happened, not what happened.
ANSWER_FIELDS = re.compile(
    r"(.*\.)?("
    r"id|.*_id|instance_id|version|nonce|name|region|zone|private_ip|digest|image_ref"
    r"|created_at|updated_at|exited_at|expires_at|timestamp|mtime|.*_time"
    r"|pid|uid|gid|duration_s|internal_numeric_id|config|events|checks|host_status"
    r"|org_slug|organization|network|migrated|new_host"
    r")"
)

# Asking again what was asked last changes nothing in the machine. When a test asks once more
# than it did while it was recorded, and did nothing else since, the last answer still holds.
REPEATABLE = re.compile(
    r"(\[[^]]*\] )?(GET|HEAD) .*"
    r"|POST .*/agent/(processes/[^/]+/poll|files/(read|stat|listdir|walk)|trees/get)"
)
REPEATABLE_VERBS = frozenset({"poll", "read", "stat", "list", "spool", "hello"})

# Headers that are not kept. A recorded body has no encoding and no length of its own, and the
# rest says when and by which computer a request was served.
UNKEPT_ANSWER_HEADERS = frozenset(
    [
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "fly-span-id",
        "fly-trace-id",
        "keep-alive",
        "server",
        "transfer-encoding",
        "via",
        "x-envoy-upstream-service-time",
    ]
)
KEPT_REQUEST_HEADERS = frozenset({"accept", "content-type"})

# Where a machine runs does not make it another machine.
SPEC_PLACES = frozenset({"app", "org", "regions"})

# Files of ours in a machine's config: long, the same in every cassette, and read by nobody.
OWN_FILES = "/opt/pytest-flymachines/"
# Marks of ours in a machine's metadata; they name the user and the computer that recorded.
OWN_METADATA = "pytest_flymachines_"

SECRET_NAME = re.compile(
    r"secret|password|passwd|passphrase|credential|api_?key|access_?key|private_?key"
    r"|token$|tokens$|_auth$|_pwd$",
    re.IGNORECASE,
)
