"""The page at `/` of the control port: machines, requests and faults, as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import msgspec

from pytest_flymachines.emulator.emulator import Emulator
from pytest_flymachines.emulator.wiretime import rfc3339

__all__ = ["POLICY", "live_page", "login_page"]

SHOWN_REQUESTS = 50

STYLE = """
body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222}
h1{font-size:1.3em}h2{font-size:1.05em;margin-top:1.6em}
table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left}
th{color:#777;font-weight:normal}code{font-family:ui-monospace,monospace}
.started{color:#080}.failed,.bad{color:#b00}.none{color:#999}
"""

# The token comes after the #, which a browser never sends, or from the field.
SCRIPT = """
const given=new URLSearchParams(location.hash.slice(1)).get('token');
if(given){sessionStorage.token=given;history.replaceState(null,'',location.pathname)}
async function show(){
  if(!sessionStorage.token)return;
  const answer=await fetch('/',{headers:{authorization:'Bearer '+sessionStorage.token}});
  if(answer.ok){
    const page=new DOMParser().parseFromString(await answer.text(),'text/html');
    document.querySelector('main').replaceWith(page.querySelector('main'));
  }else{delete sessionStorage.token}
}
const form=document.querySelector('form');
if(form)form.onsubmit=e=>{e.preventDefault();sessionStorage.token=form.token.value;show()};
show();setInterval(show,1000);
"""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


def login_page() -> str:
    """What a browser without the token gets: no data, a field for the token."""
    return _page(
        "<form><label>Token of this emulator "
        "<input name=token type=password size=50 autofocus></label> <button>Show</button></form>"
    )


def live_page(emulator: Emulator, about: dict[str, Any], forwards: list[dict[str, object]]) -> str:
    """Everything, for who has the token."""
    machines = sorted(emulator.store.machines.values(), key=lambda machine: -machine.created_ms)
    lines = [msgspec.json.decode(line) for line in emulator.requests.lines().splitlines()]
    urls = [(key, about.get(key)) for key in ("api_url", "proxy_url", "control_url", "engine")]
    parts = [
        _table("", (), urls),
        "".join(f"<p>{escape(str(note))}</p>" for note in about.get("notes", ())),
        _table(
            "Machines",
            ("id", "name", "app", "state", "region", "image", "last event", "updated"),
            (
                (
                    machine.id,
                    machine.name,
                    machine.app,
                    machine.state,
                    machine.region,
                    machine.config.image,
                    f"{machine.events[0].type} {machine.events[0].status}"
                    if machine.events
                    else "",
                    rfc3339(machine.updated_ms),
                )
                for machine in machines
            ),
        ),
        _table(
            "Volumes",
            ("id", "name", "app", "state", "GB", "machine"),
            (
                (item.id, item.name, item.app, item.state, item.size_gb, item.machine)
                for item in emulator.store.volumes.values()
            ),
        ),
        _table("Forwards", ("to", "from"), ((_to(item), item["local_port"]) for item in forwards)),
        _table(
            "Faults",
            ("id", "kind", "method", "path", "app", "machine", "hits", "count"),
            (
                (
                    fault.id,
                    fault.kind,
                    fault.method,
                    fault.path,
                    fault.app,
                    fault.machine,
                    fault.hits,
                    fault.count,
                )
                for fault in emulator.faults.all()
            ),
        ),
        _table(
            "Last requests",
            ("time", "method", "path", "status", "ms", "error"),
            (
                (
                    line["time"],
                    line["method"],
                    line["path"] + ("?" + line["query"] if line["query"] else ""),
                    line["status"],
                    line["duration_ms"],
                    line["error"] or "",
                )
                for line in reversed(lines[-SHOWN_REQUESTS:])
            ),
        ),
    ]
    return _page("".join(parts))


def _to(forward: dict[str, object]) -> str:
    return f"{forward['machine']}:{forward['port']}"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    if not body:
        return f"{heading}<p class=none>none</p>"
    return f"{heading}<table><tr>{names}</tr>{body}</table>"


def _cell(value: object) -> str:
    text = escape("" if value is None else str(value))
    return f'<span class="{text}">{text}</span>' if text in ("started", "failed") else text


def _page(main: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>pytest-flymachines emulator</title><style>{STYLE}</style>"
        f"<h1>pytest-flymachines emulator</h1><main>{main}</main>"
        f"<script>{SCRIPT}</script></html>"
    )
