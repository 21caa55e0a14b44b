"""`pytest-flymachines probe`: ask a server of the Machines API how it behaves, and compare.

| module | is |
|---|---|
| `registry` | a check: what is asked, what is expected, and where that is known from |
| `areas` | the checks themselves, one module for each part of the API |
| `wire` | raw requests at Fly's pace, raw answers |
| `ground` | what the probe made on the server, and how all of it goes again |
| `trial` | what a check works with: requests, machines, comparisons |
| `preflight` | whether token, app and organization are good, and what it will cost |
| `runner` | all checks, an area a thread; whatever ends them, everything is destroyed |
| `masks`, `report` | what was found, without anything that tells whose account it was |
"""

from pytest_flymachines.probe.ground import Ground
from pytest_flymachines.probe.preflight import Place, look
from pytest_flymachines.probe.registry import CHECKS, Check, load
from pytest_flymachines.probe.report import Report
from pytest_flymachines.probe.runner import Runner

__all__ = ["CHECKS", "Check", "Ground", "Place", "Report", "Runner", "load", "look"]
