"""Regions, and where there is room.

The keys are in capitals, as the live API sends them and as fly-go's structs name them.
"""

from __future__ import annotations

from msgspec import Struct
from starlette.responses import Response

from pytest_flymachines.emulator import fields
from pytest_flymachines.emulator.answers import Problem, answer
from pytest_flymachines.emulator.call import Call, Routes
from pytest_flymachines.emulator.config import Guest
from pytest_flymachines.emulator.regions import REGIONS, known_regions
from pytest_flymachines.emulator.validate import check_guest

__all__ = ["region_rows", "routes"]

routes = Routes()

#: Hosts that a region is made out to have.
CONCURRENCY = 10

GEO = {
    "na": "north_america",
    "sa": "south_america",
    "eu": "europe",
    "apac": "asia_pacific",
    "af": "africa",
}


class PlacementRequest(Struct):
    """Body of placements."""

    org_slug: str = ""
    region: str = ""
    compute: Guest | None = None
    count: int = 0
    volume_name: str = ""
    volume_size_bytes: int = 0
    weights: dict[str, int] | None = None


def region_rows() -> list[dict[str, object]]:
    """The regions, as the API shows them."""
    return [
        {
            "code": region.code,
            "name": region.name,
            "latitude": region.latitude,
            "longitude": region.longitude,
            "gateway_available": region.gateway_available,
            "requires_paid_plan": False,
            "deprecated": False,
            "geo_region": GEO[region.area],
        }
        for region in REGIONS.values()
    ]


@routes.on("GET", "/v1/platform/regions")
async def regions(call: Call) -> Response:
    """All regions."""
    return answer({"Nearest": call.emulator.region, "Regions": region_rows()})


@routes.on("POST", "/v1/platform/placements")
async def placements(call: Call) -> Response:
    """The regions with room for what is asked for; here there is always room."""
    body = call.body(PlacementRequest, "main.getPlacementsRequest")
    if not body.org_slug:
        raise Problem(400, "org_slug is required")
    if body.compute is not None:
        check_guest(body.compute)
    for field in ("org_slug", "volume_name"):
        fields.name(field, getattr(body, field))
    if body.count < 0 or body.volume_size_bytes < 0:
        raise Problem(400, "invalid count or volume_size_bytes, must not be negative")
    codes = known_regions(body.region or "any")
    count = max(body.count, 1)
    shown = [
        {"Region": code, "Count": count, "Concurrency": CONCURRENCY}
        for code in dict.fromkeys(codes)
    ]
    return answer({"Regions": shown})
