from __future__ import annotations

import traceback

import pytest

from pytest_flymachines.api.tokens import authorization
from pytest_flymachines.errors import SettingsError


@pytest.mark.parametrize(
    ("token", "header"),
    [
        ("fo1_abc", "Bearer fo1_abc"),
        ("emu-0123", "Bearer emu-0123"),
        ("  fo1_abc\n", "Bearer fo1_abc"),
        ("Bearer fo1_abc", "Bearer fo1_abc"),
        ("bearer  FlyV1 fm2_abc", "FlyV1 fm2_abc"),
        ("FlyV1 fm2_perm,fm2_discharge", "FlyV1 fm2_perm,fm2_discharge"),
        ("fm1r_a, fm1a_b ,fm2_c", "FlyV1 fm1r_a,fm1a_b,fm2_c"),
        ("fo1_user,fm2_perm,fm2_discharge", "FlyV1 fm2_perm,fm2_discharge"),
        ("fo1_one,fo1_two,", "Bearer fo1_one,fo1_two"),
        ("Bearerfm2_x", "Bearer Bearerfm2_x"),
        ("", ""),
        ("FlyV1 ", ""),
        (" , ", ""),
    ],
)
def test_every_form_that_flys_tools_print_is_understood(token: str, header: str) -> None:
    assert authorization(token) == header


@pytest.mark.parametrize("token", ["s3cret\r\nx: y", "s3cret two", "s3crét", "s3cret\0"])
def test_a_token_that_no_header_can_hold_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(SettingsError, match="token") as caught:
        authorization(token)
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    shown = str(caught.value) + str([f.locals for f in frames if f.name == "authorization"])
    assert "s3cr" not in shown
