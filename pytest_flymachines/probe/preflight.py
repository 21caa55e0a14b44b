"""Before anything is made: is the token good, is there an app, what will it cost."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from pytest_flymachines.api import App, MachinesClient
from pytest_flymachines.errors import (
    ApiUnreachable,
    FlyMachinesError,
    NotFound,
    SettingsError,
    Unauthorized,
)
from pytest_flymachines.prices import SOURCE, hourly_usd
from pytest_flymachines.probe.ground import GUEST, TTL_S
from pytest_flymachines.probe.masks import Mask

__all__ = ["Cost", "Place", "look", "loopback"]

#: Machines of a whole probe, how long one of them runs on average (most a few seconds), and how
#: many run at once.
MACHINES = 45
MINUTES = 1.5
AT_ONCE = 12
#: Where Fly may place them, machines cost the most here.
DEAREST = "gru"


@dataclass(frozen=True)
class Place:
    """Where the probe works.

    Attributes:
        app: Name of the app.
        own: It does not exist yet: the probe makes it, and deletes it.
        org: Slug of its organization, where it is known.
        emulated: The server says that it is this plugin's emulator.
    """

    app: str
    own: bool
    org: str
    emulated: bool


@dataclass(frozen=True)
class Cost:
    """What a probe costs at Fly, in USD; estimates, on the high side."""

    usual: float
    at_most: float

    def __str__(self) -> str:
        return (
            f"about ${self.usual:.4f} at Fly's prices ({MACHINES} of its smallest machines, "
            f"{MINUTES:g} minutes each, and a few volumes of 1 GB); if this computer dies "
            f"meanwhile, its machines end themselves within {TTL_S // 60} minutes: at most "
            f"${self.at_most:.4f}. Source of the prices: {SOURCE}"
        )


def cost() -> Cost:
    """The estimate."""
    guest = (str(GUEST["cpu_kind"]), int(str(GUEST["cpus"])), int(str(GUEST["memory_mb"])))
    hourly = hourly_usd(*guest, region=DEAREST) or 0.0
    usual = MACHINES * MINUTES / 60 * hourly
    return Cost(usual, usual + AT_ONCE * TTL_S / 3600 * hourly)


def look(client: MachinesClient, mask: Mask, *, app: str, org: str, emulated: bool) -> Place:
    """Whether the probe can work there; only reads.

    Args:
        client: Of the API.
        mask: Told every name that must not get into a report.
        app: An app that exists, or a name for the probe's own; empty makes a name.
        org: Organization in which an app may be made.
        emulated: The server says that it is this plugin's emulator.

    Raises:
        SettingsError: It cannot; the text says what to do.
    """
    name = app or f"ptfm-probe-{secrets.token_hex(8)}"
    mask.hide("app", name)
    mask.hide("org", org)
    try:
        found = _find(client, name) if app or org else None
        if found is None:
            _may_make(client, app, org)
    except Unauthorized as error:
        what = f"app {app}" if app else f"organization {org}"
        raise SettingsError(
            f"the token is not good for {what}: {error}\n"
            "`fly tokens create deploy -a APP` makes one for one app (give it with --app), "
            "`fly tokens create org ORG` one that can make apps (give it with --org)."
        ) from error
    except ApiUnreachable as error:
        raise SettingsError(f"{error}\nCheck the network, or --api-url.") from error
    except FlyMachinesError as error:
        raise SettingsError(f"the API refused to be looked at: {error}") from error
    if found is None:
        return Place(name, True, org, emulated)
    slug = found.organization.slug if found.organization else ""
    hide_app(mask, found)
    return Place(name, False, slug or org, emulated)


def hide_app(mask: Mask, app: App) -> None:
    """Tell the mask what an app says of itself and its organization."""
    mask.hide("app", app.name)
    mask.hide("app id", app.id)
    mask.hide("app number", app.internal_numeric_id or "")
    if app.organization:
        mask.hide("org", app.organization.slug)
        mask.hide("org name", app.organization.name)
        mask.hide("org number", app.organization.internal_numeric_id or "")


def loopback(url: str) -> bool:
    """Whether a URL leads to this computer."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _find(client: MachinesClient, app: str) -> App | None:
    try:
        found = client.get_app(app)
    except NotFound:
        return None
    if found.name != app:
        raise SettingsError(
            f"this is no server of the Machines API: asked for app {app!r}, it answered with "
            f"app {found.name!r}; it may answer anything with 200. Check --api-url."
        )
    return found


def _may_make(client: MachinesClient, app: str, org: str) -> None:
    """Look at the organization in which an app is to be made."""
    if not org:
        raise SettingsError(
            f"app {app!r} does not exist, and without --org none can be made"
            if app
            else "say where: --org SLUG (an app is made there, and deleted) or --app NAME (one "
            "that exists; only what the probe makes in it is touched)"
        )
    try:
        client.list_apps(org)
    except NotFound as error:
        raise SettingsError(
            f"organization {org!r} does not exist, or the token cannot see it: {error}\n"
            "`fly orgs list` shows the slugs."
        ) from error
