"""The page about fidelity says what the tests show, and no operation is without a test."""

from __future__ import annotations

import re

from starlette.routing import compile_path

from pytest_flymachines.emulator.api import MODULES
from tests.emulator import fidelity, surprises
from tests.emulator.openapi import document
from tests.emulator.schema import OPERATIONS


def test_every_operation_has_a_shape_and_a_test() -> None:
    served = {
        (method, path)
        for module in MODULES
        for method, path, _ in module.routes
        if module.__name__.rpartition(".")[2] != "unsupported"
    }
    normalized = {(method, fidelity.short(path)) for method, path in served}
    assert normalized == {(method, fidelity.short(path)) for method, path in OPERATIONS}
    shown = {behaviour.area for behaviour in fidelity.collect()}
    assert set(fidelity.operations()) <= shown


def test_every_operation_of_flys_document_is_answered() -> None:
    served = [
        (method, compile_path(path)[0]) for module in MODULES for method, path, _ in module.routes
    ]
    documented = [
        (method.upper(), "/v1" + re.sub(r"{\w+}", "x", path))
        for path, operations in document()["paths"].items()
        for method in operations
        if method in ("get", "put", "post", "delete", "patch")
    ]
    assert len(documented) == 76
    for method, path in documented:
        assert any(method == one and regex.match(path) for one, regex in served), (method, path)


def test_every_surprise_is_shown_or_left_out_with_a_reason() -> None:
    fidelity.collect()
    numbers = [number for number, _, _ in surprises.SURPRISES]
    assert numbers == list(range(1, 35))
    assert set(surprises.SHOWN) == set(numbers) - set(surprises.LEFT_OUT)
    assert surprises.missing() == []


def test_the_page_is_up_to_date() -> None:
    text = fidelity.PAGE.read_text()
    assert text == fidelity.page(), "run: python -m tests.emulator.fidelity"
