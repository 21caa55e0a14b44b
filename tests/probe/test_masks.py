"""What a report must not tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_flymachines.probe.masks import Leak, Mask
from pytest_flymachines.probe.registry import Check
from pytest_flymachines.probe.report import Outcome, Report
from pytest_flymachines.probe.trial import Comparison, shape
from pytest_flymachines.probe.wire import Answer

TOKEN = "fm2_aSecretPermission,fm2_aSecretDischarge"


@pytest.fixture
def mask() -> Mask:
    made = Mask(f"FlyV1 {TOKEN}", {"DEPLOY_PASSWORD": "correct-horse"})
    for label, value in (("org", "acme"), ("org name", 'Acme "Rockets" Ltd'), ("number", 4711)):
        made.hide(label, value)
    return made


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("lease held by joe@acme.example, expires", "lease held by <e-mail>, expires"),
        ("/v1/orgs/acme/machines acmeism", "/v1/orgs/<org>/machines acmeism"),
        (json.dumps({"name": 'Acme "Rockets" Ltd'}), '{"name": "<org name>"}'),
        ("fdaa:0:18:a7b:7d:f066:e83a:2 and 10.0.0.1", "<ip> and <ip>"),
        (
            "2026-07-30T12:00:00Z 12:30:59 1.1 fly.io a::b",
            "2026-07-30T12:00:00Z 12:30:59 1.1 fly.io <ip>",
        ),
        ('{"internal_numeric_id":99,"a":4711}', '{"internal_numeric_id":"<masked>","a":<number>}'),
        ('{"owner":"x","nonce": "5c35"}', '{"owner":"<masked>","nonce": "<masked>"}'),
        ("01JJRPZ859TZM6BZ1A9RN4AZ5N-fra", "<request id>"),
    ],
)
def test_what_tells_whose_account_it_was_is_masked(mask: Mask, text: str, masked: str) -> None:
    assert mask.text(text) == masked
    mask.check(masked)


@pytest.mark.parametrize("secret", ["aSecretPermission", "aSecretDischarge", "correct-horse"])
def test_tokens_and_secrets_of_the_environment_are_masked(mask: Mask, secret: str) -> None:
    part = f"fm2_{secret}" if secret.startswith("a") else secret
    assert secret not in mask.text(f"it said {part}!")
    assert mask.value({part: [part, 4711, True]}) != {part: [part, 4711, True]}
    with pytest.raises(Leak):
        mask.check(f"still {part}")


@pytest.mark.parametrize("name", ["r.json", "r.md"])
def test_report_shows_differences_raw_and_masked(mask: Mask, tmp_path: Path, name: str) -> None:
    check = Check("area.name", "a title", "seen", "4.3", lambda trial: None)
    answer = Answer("GET", "/v1/apps/acme", "", 500, {"fly-region": "ord"}, "joe@acme.example", 0.1)
    compared = Comparison("status", 200, 500, holds=False)
    report = Report(server="https://api.machines.dev", started="2026-01-01T00:00:00+00:00")
    report.outcomes.append(Outcome(check, "differs", "", [compared], {"note": "acme"}, [answer]))
    report.write(tmp_path / name, mask)
    text = (tmp_path / name).read_text()
    assert "a title" in text
    assert "<e-mail>" in text
    assert "acme" not in text
    assert "500" in text
    assert report.differences(mask) == ["area.name: status: expected 200, observed 500"]


def test_no_report_is_written_that_would_leak(tmp_path: Path) -> None:
    class Careless(Mask):
        def text(self, text: str) -> str:
            return text

    check = Check("area.name", "a title", "unknown", "4.3", lambda trial: None)
    report = Report(server="https://api.machines.dev", started="2026")
    report.outcomes.append(Outcome(check, "recorded", notes={"said": "fm2_aSecretDischarge"}))
    with pytest.raises(Leak, match="token"):
        report.write(tmp_path / "r.json", Careless(TOKEN, {}))
    assert list(tmp_path.iterdir()) == []


def test_shape_has_keys_and_types_only() -> None:
    value = {"tokens": [{"user": "joe", "apps": []}, {}], "n": 1, "x": None}
    assert shape(value) == {"n": "int", "tokens": [{"apps": [], "user": "str"}], "x": "NoneType"}
