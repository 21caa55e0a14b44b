"""Cassettes: what a run asked of machines and was answered, replayed without any."""

from pytest_flymachines.cassettes.frames import FrameSocket
from pytest_flymachines.cassettes.keys import CassetteKey
from pytest_flymachines.cassettes.misses import CassetteMissing
from pytest_flymachines.cassettes.recorder import Recorder
from pytest_flymachines.cassettes.scopes import Scope
from pytest_flymachines.cassettes.scrub import Scrubber

__all__ = ["CassetteKey", "CassetteMissing", "FrameSocket", "Recorder", "Scope", "Scrubber"]
