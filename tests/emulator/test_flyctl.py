"""What flyctl asks, request by request and in its order, with the queries of superfly/fly-go."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_flymachines.emulator.queries import QueryError, parse_query
from tests.emulator.conftest import App, Fly, Machine
from tests.emulator.fidelity import shows

APP_COMPACT = """
    query ($appName: String!) {
        appcompact:app(name: $appName) {
            id internalNumericId name hostname deployed status appUrl platformVersion
            organization { id internalNumericId slug paidPlan }
            postgresAppRole: role { name }
        }
    }
"""
APP_BASIC = """
    query ($appName: String!) {
        appbasic:app(name: $appName) {
            id name platformVersion organization { id internalNumericId slug rawSlug paidPlan }
        }
    }
"""
APP_NETWORK = "query ($appName: String!) { app(name: $appName) { network } }"
IMAGE = """
    query ($appName: String!, $imageRef: String!) {
        app(name: $appName) {
            id
            image(ref: $imageRef) { id digest ref compressedSize: compressedSizeFull manifest }
        }
    }
"""
APPS = """
    query($org: ID, $role: String, $after: String) {
        apps(type: "container", first: 200, after: $after, organizationId: $org, role: $role) {
            pageInfo { hasNextPage endCursor }
            nodes {
                id name deployed hostname platformVersion organization { slug name }
                currentRelease { createdAt status } status
            }
        }
    }
"""
ORGANIZATION = """
    query($slug: String!) {
        organization(slug: $slug) { id internalNumericId slug rawSlug name type billable }
    }
"""
ORGANIZATIONS = """
    query($admin: Boolean!) {
        organizations(admin: $admin) {
            nodes { id slug rawSlug name type paidPlan billable viewerRole internalNumericId }
        }
    }
"""
ADD_ONS = """
    query ListOrganizationAddOns($slug: String!) {
        organization(slug: $slug) { addOns { nodes { ... AddOnData } } }
    }
    fragment AddOnData on AddOn { id name }
"""
MACHINE = """
    query ($machineId: String!) {
        gqlmachine:machine(machineId: $machineId) { id name app { name organization { id slug } } }
    }
"""
VOLUME = """
    query($id: ID!) { volume: node(id: $id) { ... on Volume { app { name } state } } }
"""
VIEWER = """
    query { viewer { ... on User { id email enablePaidHobby } ... on Macaroon { email } } }
"""
IPS = """
    query ($appName: String!) {
        app(name: $appName) {
            ipAddresses {
                nodes {
                    id address type region createdAt
                    network { name organization { slug } } serviceName
                }
            }
            sharedIpAddress
        }
    }
"""
ALLOCATE = """
    mutation($input: AllocateIPAddressInput!) {
        allocateIpAddress(input: $input) {
            ipAddress { id address type region createdAt } app { sharedIpAddress }
        }
    }
"""
RELEASE = """
    mutation($input: ReleaseIPAddressInput!) {
        releaseIpAddress(input: $input) { clientMutationId }
    }
"""
SET_SECRETS = """
    mutation($input: SetSecretsInput!) {
        setSecrets(input: $input) {
            release { id version reason description user { id email name } createdAt }
        }
    }
"""
UNSET_SECRETS = """
    mutation($input: UnsetSecretsInput!) {
        unsetSecrets(input: $input) { release { id version } }
    }
"""
SECRETS = "query ($appName: String!) { app(name: $appName) { secrets { name digest createdAt } } }"
REGIONS = """
    query {
        platform {
            requestRegion
            regions { name code latitude longitude gatewayAvailable requiresPaidPlan }
        }
    }
"""
NEAREST = "query { nearestRegion { code name gatewayAvailable deprecated } }"
EGRESS = """
    query ($appName: String!) {
        app(name: $appName) { egressIpAddresses { nodes { id ip version region updatedAt } } }
    }
"""
HOST_ISSUES = """
    query($appName: String!) {
        apphostissues:app(name: $appName) {
            hostIssues { nodes { internalId message createdAt updatedAt } }
        }
    }
"""


def ask(fly: Fly, query: str, **variables: Any) -> Any:
    """The data of a query that must be answered."""
    answer = fly.ok("POST", "/graphql", {"query": query, "variables": variables})
    assert "errors" not in answer, answer
    return answer["data"]


def refused(fly: Fly, query: str, **variables: Any) -> str:
    """The message of a query that must be refused."""
    answer = fly.ok("POST", "/graphql", {"query": query, "variables": variables})
    [error] = answer["errors"]
    return str(error["message"])


@shows(
    "POST /graphql",
    "apps by the aliases of flyctl; the number of an app is a JSON number",
    "fly-go",
)
def test_app_queries(app: App) -> None:
    compact = ask(app.fly, APP_COMPACT, appName=app.name)["appcompact"]
    assert (compact["id"], compact["name"]) == (app.name, app.name)
    assert (compact["platformVersion"], compact["postgresAppRole"]) == ("machines", None)
    assert isinstance(compact["internalNumericId"], int)
    assert isinstance(compact["organization"]["internalNumericId"], str)
    assert (
        ask(app.fly, APP_BASIC, appName=app.name)["appbasic"]["organization"]["slug"] == "personal"
    )
    assert ask(app.fly, APP_NETWORK, appName=app.name)["app"]["network"] == "default"
    assert ask(app.fly, EGRESS, appName=app.name)["app"]["egressIpAddresses"] == {"nodes": []}
    assert ask(app.fly, HOST_ISSUES, appName=app.name)["apphostissues"]["hostIssues"]["nodes"] == []


@shows("POST /graphql", "an unknown app is `Could not find App`, which flyctl looks for", "flyctl")
@shows("POST /graphql", "an unknown field is an error, with status 200", "ours")
def test_what_is_not_there(fly: Fly) -> None:
    assert refused(fly, APP_COMPACT, appName="nope") == "Could not find App"
    assert refused(fly, MACHINE, machineId="nope") == "Could not find Machine"
    assert refused(fly, ORGANIZATION, slug="nope") == "Could not find Organization"
    assert refused(fly, VOLUME, id="nope") == "Could not find Volume"
    assert "deployments" in refused(fly, "{ deployments { id } }")
    assert refused(fly, "{ app(")
    assert fly("POST", "/graphql", headers={"authorization": "x"}).status_code == 401


@shows("POST /graphql", "organizations, with the number as a string", "fly-go")
@shows("POST /graphql", "regions, the viewer, a machine's and a volume's app", "fly-go")
def test_other_queries(app: App) -> None:
    fly = app.fly
    [personal, *_] = ask(fly, ORGANIZATIONS, admin=False)["organizations"]["nodes"]
    assert (personal["slug"], personal["type"]) == ("personal", "PERSONAL")
    assert ask(fly, ORGANIZATION, slug="personal")["organization"]["id"] == personal["id"]
    assert ask(fly, ADD_ONS, slug="personal")["organization"]["addOns"] == {"nodes": []}
    assert ask(fly, VIEWER)["viewer"]["__typename"] == "User"
    assert ask(fly, REGIONS)["platform"]["requestRegion"] == "ord"
    assert ask(fly, NEAREST)["nearestRegion"]["code"] == "ord"
    machine = app.create(skip_launch=True, wait=None)
    assert ask(fly, MACHINE, machineId=machine.id)["gqlmachine"]["app"]["name"] == app.name
    volume = fly.ok("POST", f"{app.path}/volumes", {"name": "data"})["id"]
    assert ask(fly, VOLUME, id=volume)["volume"]["app"]["name"] == app.name
    names = [item["name"] for item in ask(fly, APPS, org=personal["id"])["apps"]["nodes"]]
    assert app.name in names
    assert ask(fly, APPS, org="another")["apps"]["nodes"] == []


@shows("POST /graphql", "`ips list`, `allocate-v4`, `allocate-v6`, `release`", "fly-go")
def test_addresses(app: App) -> None:
    fly = app.fly
    given = {"appId": app.name, "region": ""}
    v6 = ask(fly, ALLOCATE, input={**given, "type": "v6"})["allocateIpAddress"]["ipAddress"]
    shared = ask(fly, ALLOCATE, input={**given, "type": "shared_v4"})["allocateIpAddress"]
    assert shared["ipAddress"] is None
    listed = ask(fly, IPS, appName=app.name)["app"]
    assert listed["sharedIpAddress"] == shared["app"]["sharedIpAddress"]
    assert [item["address"] for item in listed["ipAddresses"]["nodes"]] == [v6["address"]]
    ask(fly, RELEASE, input={"appId": app.name, "ip": v6["address"]})
    assert ask(fly, IPS, appName=app.name)["app"]["ipAddresses"]["nodes"] == []
    assert "invalid type" in refused(fly, ALLOCATE, input={**given, "type": "v5"})
    assert "not found" in refused(fly, RELEASE, input={"appId": app.name, "ip": "1.2.3.4"})


@shows(
    "POST /graphql",
    "`secrets set`, `unset`, `list` as fly-go asked before flaps had them",
    "fly-go",
)
def test_secrets(app: App) -> None:
    fly = app.fly
    pairs = [{"key": "A", "value": "1"}, {"key": "B", "value": "2"}]
    release = ask(fly, SET_SECRETS, input={"appId": app.name, "secrets": pairs})
    assert release["setSecrets"]["release"]["version"] == 1
    listed = ask(fly, SECRETS, appName=app.name)["app"]["secrets"]
    assert [secret["name"] for secret in listed] == ["A", "B"]
    assert fly.ok("GET", f"{app.path}/secrets/A?show_secrets=1")["value"] == "1"
    only = {"appId": app.name, "secrets": pairs[1:], "replaceAll": True}
    ask(fly, SET_SECRETS, input=only)
    assert [item["name"] for item in fly.ok("GET", f"{app.path}/secrets")["secrets"]] == ["B"]
    ask(fly, UNSET_SECRETS, input={"appId": app.name, "keys": ["B"]})
    assert fly.ok("GET", f"{app.path}/secrets")["secrets"] == []
    assert "invalid secret name" in refused(
        fly, SET_SECRETS, input={"appId": app.name, "secrets": [{"key": "a b", "value": ""}]}
    )
    for wrong in ("text", {"appId": app.name, "secrets": "A=1"}, {"secrets": pairs}):
        assert "$input" in refused(fly, SET_SECRETS, input=wrong)


@shows("flyctl", "`apps create`, `apps list`, `apps destroy`", "flyctl")
def test_apps_create_and_destroy(fly: Fly) -> None:
    nodes = ask(fly, ORGANIZATIONS, admin=False)["organizations"]["nodes"]
    assert "personal" in {org["slug"] for org in nodes}
    body = {"name": "ctl", "org_slug": "personal", "network": "", "app_role_id": ""}
    fly.ok("POST", "/v1/apps?wait=true", body)
    assert fly.ok("GET", "/v1/apps/ctl")["name"] == "ctl"
    full = ask(fly, APP_COMPACT, appName="ctl")["appcompact"]
    ask(fly, ORGANIZATION, slug=full["organization"]["slug"])
    fly.ok("DELETE", "/v1/apps/ctl")
    assert refused(fly, APP_COMPACT, appName="ctl") == "Could not find App"


@shows(
    "flyctl", "`machine run`: lookups, organization, build, image, create, wait, egress", "flyctl"
)
@shows("GET /api/v1/organizations/{org}", "the organization; 404 for an unknown one", "flyctl")
@shows("GET /api/v1/organizations", "all organizations", "flyctl")
@shows("POST /api/v1/builds", "taken note of", "flyctl")
@shows("POST /api/v1/builds/finish", "taken note of", "flyctl")
def test_machine_run(app: App) -> None:
    fly = app.fly
    ask(fly, APP_COMPACT, appName=app.name)
    ask(fly, APP_NETWORK, appName=app.name)
    shown = fly.ok("GET", app.path)
    slug = shown["organization"]["slug"]
    assert shown["internal_numeric_id"] > 0
    org = fly.ok("GET", f"/api/v1/organizations/{slug}")["organization"]
    assert (org["slug"], org["billing_status"]) == (slug, "CURRENT")
    assert fly.error("GET", "/api/v1/organizations/nope")[0] == 404
    assert org in fly.ok("GET", "/api/v1/organizations?admin=false")["organizations"]
    build = {"app_name": app.name, "builder_type": "", "machine_id": "", "strategies_available": []}
    assert fly.ok("POST", "/api/v1/builds", build)["id"] == 1
    ref = "docker.io/library/python:3.12-slim"
    image = ask(fly, IMAGE, appName=app.name, imageRef=ref)["app"]["image"]
    assert image["compressedSize"].isdigit()
    assert ask(fly, IMAGE, appName=app.name, imageRef="a:missing")["app"]["image"] is None
    fly.ok("POST", "/api/v1/builds/finish", {"build_id": 1})
    config = {
        "init": {"cmd": ["sleep", "inf"]},
        "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
        "image": image["ref"],
        "metadata": {"fly_flyctl_version": "0.3.0"},
        "restart": {"policy": "no"},
        "auto_destroy": True,
        "dns": {},
        "env": {},
        "services": None,
    }
    body = {"config": config, "region": "", "skip_launch": False, "skip_secrets": False, "name": ""}
    made = fly.ok("POST", app.machines, body)
    machine = Machine(app, made["id"])
    machine.wait("started", timeout=60)
    ask(fly, EGRESS, appName=app.name)


@shows(
    "flyctl", "`machine stop` and `start`: GET, lease, action with nonce, wait, release", "flyctl"
)
@shows("flyctl", "`machine exec`, `kill`, `destroy`", "flyctl")
@pytest.mark.parametrize("force", ["false", "true"])
def test_machine_commands(app: App, force: str) -> None:
    fly = app.fly
    machine = app.create("sleep", "inf", restart={"policy": "no"})
    machine.get()
    assert machine.post("exec", {"cmd": "echo hi"})["stdout"] == "hi\n"
    for action, body, state in (
        ("stop", {"id": machine.id, "timeout": "0s"}, "stopped"),
        ("start", None, "started"),
        ("suspend", None, "suspended"),
        ("start", None, "started"),
    ):
        shown = machine.get()
        lease = fly.ok("POST", f"{machine.path}/lease?ttl=120")["data"]
        assert lease["version"] == shown["instance_id"]
        nonce = {"fly-machine-lease-nonce": lease["nonce"]}
        machine.post(action, body, headers=nonce)
        machine.wait(state, timeout=60)
        fly.ok("DELETE", f"{machine.path}/lease", headers=nonce)
    machine.post("signal", {"signal": 9})
    machine.wait("stopped")
    lease = fly.ok("POST", f"{machine.path}/lease?ttl=120")["data"]
    nonce = {"fly-machine-lease-nonce": lease["nonce"]}
    ask(fly, APP_COMPACT, appName=app.name)
    fly.ok("DELETE", f"{machine.path}?kill={force}", headers=nonce)
    machine.wait("destroyed")
    status, text = fly.error("DELETE", f"{machine.path}/lease", headers=nonce)
    assert status == 404
    assert " lease not found" in text


@pytest.mark.parametrize(
    "text", ["", "{", "{a(", "{a{b}", "}", '{"x"}', "query", "{a(b:$c", "{" * 99]
)
def test_what_is_no_query(text: str) -> None:
    with pytest.raises(QueryError):
        parse_query(text, {})


def test_queries_are_read_to_their_fields() -> None:
    text = """
        # a comment
        query Named($v: [Int!]! = [1, 2]) @directive(if: true) {
            first: one(a: "x, y", b: {c: 1}, d: $v) @include(if: $v) { two }
            ... on Three { four }
            ...Five
            six
        }
        fragment Five on Seven { eight }
    """
    fields = parse_query(text, {"v": [3]})
    assert [(field.key, field.name) for field in fields] == [
        ("first", "one"),
        ("four", "four"),
        ("six", "six"),
    ]
    assert fields[0].arguments == {"a": "x, y", "d": [3]}
    assert fields[0].fields[0].name == "two"
