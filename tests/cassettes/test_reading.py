"""The quick reader says what vcrpy's own says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from vcr.serializers import yamlserializer

from pytest_flymachines.cassettes.files import Serializer
from pytest_flymachines.cassettes.reading import read_yaml

TRICKY = (
    "yes No null ~ 1 0x1F 1e5 1_000 2026-01-02 01 - = << 12:30:45 .5 1. +1 -0 .inf true a:b #x "
    "35aad688aa5eed1b 0o7"
)
TEXTS = st.text(max_size=60) | st.sampled_from(TRICKY.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_any_value_reads_as_vcrpy_reads_it(value: Any) -> None:
    text = yamlserializer.serialize({"interactions": [value]})
    assert read_yaml(text) == yamlserializer.deserialize(text)


@given(st.lists(TEXTS, max_size=4))
def test_any_text_survives_a_cassette(texts: list[str]) -> None:
    """As bodies, in the layout for people."""
    texts = [text for text in texts if text.isprintable() or text.isascii()]
    interactions = [
        {
            "request": {"method": "GET", "uri": "http://x", "body": text, "headers": {}},
            "response": {"status": {"code": 200}, "headers": {}, "body": {"string": text}},
        }
        for text in texts
    ]
    serializer = Serializer({"test": "a", "run": "0123"})
    text = serializer.serialize({"version": 1, "interactions": interactions})
    assert yamlserializer.deserialize(text)["interactions"] == interactions
    assert Serializer().deserialize(text)["interactions"] == interactions


LINES = (
    "a: 1",
    "b: 'it''s'",
    "c: |-",
    "d: |+",
    "e: !!binary |",
    "f:",
    "- g",
    "- h: 1",
    "- i:",
    "- |",
    "- - j",
    "YWJj",
    "k: l: m",
    "n: o #p",
    "q#r: s#t",
    "u: {}",
    "- []",
    "v: -",
    "yes: no",
    'w: "x"',
    "",
    " ",
    "---",
    "...",
)
EXCHANGE = (
    "interactions:",
    "- request:",
    "    method: GET",
    "    headers:",
    "      a:",
    "      - b",
    "    body: |-",
    "    body: null",
    "      response:",
    "        body:",
    "  response:",
    "    status:",
    "      code: 200",
    "    body:",
    "      string: |-",
    "        - request:",
    "      string: 'a'",
    "    recorded:",
    "      layout: b",
    "metadata:",
    "  c: 1",
    "",
)
LAID_OUT = st.tuples(st.sampled_from(["", "  ", "    ", "      ", " "]), st.sampled_from(LINES))


@settings(max_examples=1000)
@given(st.lists(LAID_OUT.map("".join), max_size=12), st.sampled_from(["\n", "\n\n", ""]))
def test_lines_in_any_order_read_as_vcrpy_reads_them(lines: list[str], end: str) -> None:
    _read_alike("\n".join(lines) + end)


@settings(max_examples=1000)
@given(
    st.lists(st.sampled_from(EXCHANGE), max_size=20),
    st.lists(st.sampled_from(EXCHANGE), max_size=3),
    st.integers(0, len(EXCHANGE)),
    st.sampled_from(["\n", "\n\n", ""]),
)
def test_parts_of_exchanges_in_any_order_read_as_vcrpy_reads_them(
    lines: list[str], more: list[str], left_out: int, end: str
) -> None:
    _read_alike("\n".join(lines) + end)
    whole = [*EXCHANGE[:8], *EXCHANGE[10:18], *EXCHANGE[6:8], *more]
    del whole[left_out : left_out + 1]
    _read_alike("\n".join(whole) + end)


def test_what_exchanges_share_is_not_one_object_to_change() -> None:
    interaction = {
        "request": {"method": "GET", "uri": "http://x", "body": None, "headers": {"a": ["b"]}},
        "response": {"status": {"code": 200}, "headers": {"c": ["d"]}, "body": {"string": "e"}},
    }
    text = Serializer().serialize({"version": 1, "interactions": [interaction, interaction]})
    first, second = read_yaml(text)["interactions"]
    first["request"]["body"] = "f"
    first["response"]["body"]["string"] = "g"
    assert second == interaction == read_yaml(text)["interactions"][0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a:\nb: 1\n",
        "a: 1٣\n",
        "a: x\u2028y\n",
        "a: |-\n  x\x07\n",
        "a: !!binary |\n  x\n",
        "a: &x [1, 2]\nb: *x\n",
        "a: !!str 1\n",
        "{a: [1, {b: c}], ? [1] : 2}",
        "a: 2026-01-02\n",
        "a: 0b101\nb: 1e3\nc: .inf\n",
        "? - a\n: 1\n",
        "'a': \"b\\n\"\nc: 'd'\n",
        "a: YES\nb: Off\n",
        "- a\n---\n- b\n",
        "a: |\n  x\n   y\nb: >-\n  x\n  y\n",
    ],
)
def test_whatever_yaml_holds_is_read_as_vcrpy_reads_it(text: str) -> None:
    _read_alike(text)


def _read_alike(text: str) -> None:
    try:
        expected = yamlserializer.deserialize(text)
    except yaml.YAMLError as error:
        with pytest.raises(type(error)):
            assert read_yaml(text) is None
    else:
        assert read_yaml(text) == expected
