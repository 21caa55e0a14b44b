"""What a person who has started an emulator in a terminal is told."""

from __future__ import annotations

from typing import Any

__all__ = ["greeting"]


def greeting(about: dict[str, Any]) -> str:
    """Where everything is, and the lines that lead curl, flyctl and this plugin there.

    Args:
        about: The ready line: addresses, token, engine, notes.
    """
    api, token = about["api_url"], about["token"]
    notes = "".join(f"  - {note}\n" for note in about["notes"])
    return (
        f"Machines API  {api}\n"
        f"proxy         {about['proxy_url']}\n"
        f"page          {about['control_url']}/#token={token}\n"
        f"engine        {about['engine']}\n{notes}"
        "\n"
        f"export FLY_API_HOSTNAME={api} FLY_FLAPS_BASE_URL={api}\n"
        f"export FLY_API_BASE_URL={api} FLY_UIEX_BASE_URL={api}\n"
        f"export FLY_API_TOKEN={token} FLY_ACCESS_TOKEN={token}\n"
        "\n"
        "Ctrl-C ends it with all its machines.\n"
    )
