"""The page at `/` of the control port: apps, machines, events and requests, as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.model import App, Event, Machine, Volume
from pytest_flymachines.emulator.wiretime import rfc3339_ms

__all__ = ["POLICY", "live_page", "login_page"]

SHOWN = 50
STYLE = Path(__file__).with_suffix(".css").read_text("utf-8")
SCRIPT = Path(__file__).with_suffix(".js").read_text("utf-8")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
#: How a state of a machine looks; any other is on the way to another.
LOOKS = {"started": "good", "failed": "bad", "launch_failed": "bad"} | dict.fromkeys(
    ("stopped", "suspended", "created", "destroyed"), ""
)


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Row = Sequence[object]


def login_page() -> str:
    """What a browser without the token gets: no data, a field for the token."""
    return _page(
        "<form><label>Token of this emulator "
        "<input name=token type=password size=50 autofocus></label> <button>Show</button></form>"
        "<main></main>"
    )


def live_page(emulator: Emulator, about: dict[str, Any], forwards: list[dict[str, object]]) -> str:
    """Everything, for who has the token."""
    store = emulator.store
    machines = sorted(store.machines.values(), key=lambda machine: -machine.created_ms)
    apps = sorted(store.apps.values(), key=lambda app: app.name)
    parts = [
        _about(about),
        _table("Apps", "name organization machines volumes network", _apps(emulator, apps)),
        _table(
            "Machines", "state name id app region size image checks updated", _machines(machines)
        ),
        _table("Events", "time machine app event status source note", _events(machines)),
        _table("Requests", "time method path status ms error", _requests(emulator)),
        _table("Volumes", "state name id app GB machine", _volumes(store.volumes.values())),
        _table("Faults", "id kind method path app machine hits count", _faults(emulator)),
        _table("Forwards", "from to", ((item["local_port"], _to(item)) for item in forwards)),
    ]
    return _page(f"<main>{''.join(parts)}</main>")


def _about(about: dict[str, Any]) -> str:
    names = (("API", "api_url"), ("proxy", "proxy_url"), ("engine", "engine"))
    facts = [f"{name} <code>{escape(str(about.get(key)))}</code>" for name, key in names]
    notes = [escape(str(note)) for note in about.get("notes", ())]
    return f"<p class=about>{' · '.join(facts + notes)}</p>"


def _apps(emulator: Emulator, apps: Iterable[App]) -> Iterable[Row]:
    for app in apps:
        alive = [one for one in emulator.store.machines_of(app.name) if not one.destroyed_ms]
        volumes = list(emulator.store.volumes_of(app.name))
        yield app.name, app.org, len(alive), len(volumes), app.network


def _machines(machines: Iterable[Machine]) -> Iterable[Row]:
    for machine in machines:
        guest = machine.config.guest
        size = f"{guest.cpu_kind}-{guest.cpus}x, {guest.memory_mb} MB" if guest else ""
        checks = [check.status for check in machine.checks.values()]
        passing = f"{checks.count('passing')}/{len(checks)}" if checks else ""
        state = _badge(machine.state, LOOKS.get(machine.state, "busy"))
        if machine.cordoned:
            state = Html(state + " cordoned")
        yield (
            *(state, machine.name, _code(machine.id), machine.app, machine.region, size),
            *(machine.config.image, passing, _clock(machine.updated_ms)),
        )


def _events(machines: Iterable[Machine]) -> Iterable[Row]:
    found = [(event, machine) for machine in machines for event in machine.events[:SHOWN]]
    found.sort(key=lambda pair: pair[0].id, reverse=True)
    for event, machine in found[:SHOWN]:
        yield (
            *(_clock(event.timestamp), machine.name, machine.app, event.type, event.status),
            *(event.source, _note(event)),
        )


def _note(event: Event) -> str:
    request = event.request or {}
    exited = request.get("exit_event")
    if not exited:
        return str(request.get("error", ""))
    return f"exit code {exited['exit_code']}" + "".join(
        text
        for text, told in (
            (", out of memory", exited["oom_killed"]),
            (", as requested", exited["requested_stop"]),
            (", restarting", exited["restarting"]),
        )
        if told
    )


def _requests(emulator: Emulator) -> Iterable[Row]:
    for text in emulator.requests.newest(SHOWN):
        line = msgspec.json.decode(text)
        query = f"?{line['query']}" if line["query"] else ""
        status: int = line["status"]  # 0 when the connection was dropped on purpose
        look = "good" if 0 < status < 400 else "bad"
        yield (
            *(str(line["time"])[11:23], line["method"], _code(line["path"] + query)),
            *(_badge(str(status or "none"), look), line["duration_ms"], line["error"]),
        )


def _volumes(volumes: Iterable[Volume]) -> Iterable[Row]:
    for one in volumes:
        yield _badge(one.state, ""), one.name, _code(one.id), one.app, one.size_gb, one.machine


def _faults(emulator: Emulator) -> Iterable[Row]:
    for one in emulator.faults.all():
        yield one.id, one.kind, one.method, one.path, one.app, one.machine, one.hits, one.count


def _to(forward: dict[str, object]) -> str:
    return f"{forward['machine']}:{forward['port']}"


def _clock(ms: int) -> str:
    return rfc3339_ms(ms)[11:23]


def _code(text: str) -> Html:
    return Html(f"<code>{escape(text)}</code>")


def _badge(text: str, look: str) -> Html:
    return Html(f'<span class="badge {look}">{escape(text)}</span>')


def _table(title: str, names: str, rows: Iterable[Row]) -> str:
    cells = ["".join(_cell(value) for value in row) for row in rows]
    heading = f"<h2>{title}<small>{len(cells) or ''}</small></h2>"
    head = "".join(f"<th>{name}</th>" for name in names.split())
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    table = f"<table><tr>{head}</tr>{body}</table>" if cells else "<p class=none>none</p>"
    return f"<section id={title.lower()}>{heading}{table}</section>"


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f"<td class=n>{value}</td>"
    text = value if isinstance(value, Html) else escape("" if value is None else str(value))
    return f"<td class=wide>{text}</td>" if len(text) > 60 else f"<td>{text}</td>"


def _page(content: str) -> str:
    return (
        '<!doctype html><html lang=en><meta charset=utf-8><link rel=icon href="data:,">'
        '<meta name=viewport content="width=device-width">'
        f"<title>pytest-flymachines emulator</title><style>{STYLE}</style>"
        "<header><h1>pytest-flymachines emulator</h1><span id=contact></span></header>"
        f"{content}<script>{SCRIPT}</script></html>"
    )
