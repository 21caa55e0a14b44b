"""Fly's regions, and how a region is chosen.

Source: https://fly.io/docs/reference/regions/ as of August 2026.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from pytest_flymachines.emulator.answers import Problem

__all__ = ["REGIONS", "Region", "choose_region", "distance", "known_regions", "regions_of"]


@dataclass(frozen=True)
class Region:
    """One region; the area is what the aliases of `region` go by."""

    code: str
    name: str
    latitude: float
    longitude: float
    area: str
    gateway_available: bool = True


REGIONS = {
    region.code: region
    for region in (
        Region("ams", "Amsterdam, Netherlands", 52.374, 4.890, "eu"),
        Region("arn", "Stockholm, Sweden", 59.651, 17.941, "eu"),
        Region("bom", "Mumbai, India", 19.097, 72.874, "apac"),
        Region("cdg", "Paris, France", 48.860, 2.352, "eu"),
        Region("dfw", "Dallas, Texas (US)", 32.778, -96.797, "na"),
        Region("ewr", "Secaucus, NJ (US)", 40.789, -74.056, "na"),
        Region("fra", "Frankfurt, Germany", 50.117, 8.683, "eu"),
        Region("gru", "Sao Paulo, Brazil", -23.549, -46.634, "sa", gateway_available=False),
        Region("iad", "Ashburn, Virginia (US)", 39.021, -77.488, "na"),
        Region("jnb", "Johannesburg, South Africa", -26.202, 28.044, "af", gateway_available=False),
        Region("lax", "Los Angeles, California (US)", 33.944, -118.405, "na"),
        Region("lhr", "London, United Kingdom", 51.517, -0.110, "eu"),
        Region("nrt", "Tokyo, Japan", 35.622, 139.775, "apac"),
        Region("ord", "Chicago, Illinois (US)", 41.892, -87.606, "na"),
        Region("sin", "Singapore, Singapore", 1.300, 103.867, "apac"),
        Region("sjc", "San Jose, California (US)", 37.352, -121.892, "na"),
        Region("syd", "Sydney, Australia", -33.868, 151.207, "apac"),
        Region("yyz", "Toronto, Canada", 43.644, -79.384, "na"),
    )
}

NOT_US = ("yyz",)


def regions_of(text: str) -> list[str]:
    """The regions that a code, a comma list or an alias names; unknown ones are left out."""
    codes: list[str] = []
    for part in (part.strip().lower() for part in text.split(",")):
        if part in REGIONS:
            codes.append(part)
        elif part == "any":
            codes += REGIONS
        else:
            area = "na" if part in ("us", "usa") else part
            found = [region.code for region in REGIONS.values() if region.area == area]
            codes += [code for code in found if area == part or code not in NOT_US]
    return codes


def choose_region(asked: str, nearest: str) -> str:
    """Where a machine or volume goes.

    Args:
        asked: The `region` of the request; empty takes the nearest.
        nearest: The region that this emulator claims to be near to.

    Raises:
        Problem: 400 for a region that does not exist.
    """
    if not asked:
        return nearest
    codes = known_regions(asked)
    return nearest if nearest in codes else codes[0]


def known_regions(text: str) -> list[str]:
    """The regions that a code, a comma list or an alias names, at least one.

    Raises:
        Problem: 400 when there is none of them.
    """
    codes = regions_of(text)
    if not codes:
        raise Problem(400, f"invalid_argument: region {text} not found")
    return codes


@lru_cache(maxsize=1024)
def distance(one: str, other: str) -> float:
    """How far two regions are apart, as a number to compare."""
    if one == other:
        return 0.0
    here, there = REGIONS.get(one), REGIONS.get(other)
    if here is None or there is None:
        return math.inf
    a, b = math.radians(here.latitude), math.radians(there.latitude)
    east = math.radians(here.longitude - there.longitude)
    cosine = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(east)
    return math.acos(max(-1.0, min(1.0, cosine)))
