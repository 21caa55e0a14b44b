"""What users hand in, and what is said of what cannot be."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

import pytest

from pytest_flymachines.sandbox.exec import Output, make_command
from pytest_flymachines.sandbox.text import argv_of, check_env, encode_data, encode_path

LONE = "\ud800"


@pytest.mark.parametrize("command", [None, 3, True, b"true", {"a": 1}, object(), iter(["true"])])
def test_a_command_is_text_or_a_list(command: Any) -> None:
    with pytest.raises(TypeError, match="expected a str for the shell, or a list") as caught:
        argv_of(command)
    assert repr(command) in str(caught.value)


def test_arguments_are_words() -> None:
    assert argv_of(["a", b"b", PurePosixPath("c"), -1]) == [b"a", b"b", b"c", b"-1"]  # type: ignore[list-item]
    for argument in (None, 1.5, ["x"]):
        with pytest.raises(TypeError, match="expected str, bytes or a path"):
            argv_of(["true", argument])  # type: ignore[list-item]


@pytest.mark.parametrize("data", [3, -1, 3.5, {}, ["a"], None, object()])
def test_data_are_text_or_bytes(data: Any) -> None:
    with pytest.raises(TypeError, match="expected text or bytes, not") as caught:
        encode_data(data)
    assert repr(data) in str(caught.value)


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x"), "x"])
def test_all_kinds_of_bytes_are_data(data: Any) -> None:
    assert encode_data(data) == b"x"


@pytest.mark.parametrize("env", [3, "A=1", ["A"], b"A"])
def test_variables_are_a_mapping(env: Any) -> None:
    with pytest.raises(TypeError, match="expected a dict of names and values"):
        check_env(env)


@pytest.mark.parametrize("env", [{"PORT": 80}, {1: "x"}, {"A": None}, {"A": b"x"}])
def test_names_and_values_of_variables_are_text(env: Any) -> None:
    with pytest.raises(TypeError, match="expected names and values of type str"):
        check_env(env)


@pytest.mark.parametrize("timeout", ["5", b"5", [1], {}])
def test_a_timeout_is_a_number(timeout: Any) -> None:
    with pytest.raises(TypeError, match="expected seconds above 0, or None for no limit"):
        make_command("true", timeout_s=timeout)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, -math.inf])
def test_a_timeout_is_above_0_and_has_an_end(timeout: float) -> None:
    with pytest.raises(ValueError, match="expected seconds above 0, or None for no limit"):
        make_command("true", timeout_s=timeout)


def test_who_is_told_of_output_can_be_called() -> None:
    with pytest.raises(TypeError, match="on_output='x': expected a function"):
        Output("x")  # type: ignore[arg-type]


def test_what_no_byte_can_be_made_of_is_named() -> None:
    for use in (argv_of, encode_data, encode_path):
        with pytest.raises(ValueError, match="stands for no byte") as caught:
            use(LONE)
        assert not isinstance(caught.value, UnicodeError)
    assert encode_data("\udc80") == b"\x80"
