"""Equal specs share a machine, and a spec refuses what Fly would refuse later."""

from __future__ import annotations

import pytest

from pytest_flymachines import SandboxSpec, SettingsError


def test_equal_specs_have_the_same_key_and_hash() -> None:
    one = SandboxSpec(env={"A": "1", "B": "2"}, ports=(80,))
    two = SandboxSpec(env={"B": "2", "A": "1"}, ports=(80,))
    assert one == two
    assert hash(one) == hash(two)
    assert one.key == two.key


@pytest.mark.parametrize("change", [{"image": "debian:12"}, {"env": {"A": "1"}}, {"ref": "v1"}])
def test_any_difference_is_another_key(change: dict[str, object]) -> None:
    assert SandboxSpec().replace(**change).key != SandboxSpec().key


def test_where_a_machine_runs_does_not_change_the_name_of_its_cassette() -> None:
    there = SandboxSpec(app="other", org="acme", regions=("ams", "lhr"))
    assert there.key != SandboxSpec().key
    assert there.cassette_key == SandboxSpec().cassette_key


def test_a_misspelt_field_names_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"no field 'memory'; did you mean 'memory_mb'\?"):
        SandboxSpec().replace(memory=512)


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("memory_mb", 0, "a multiple of 256 from 256 to 2048"),
        ("memory_mb", 4096, "a multiple of 256 from 256 to 2048"),
        ("cpus", 3, "one of 1, 2, 4, 6, 8"),
        ("cpu_kind", "fast", "shared or performance"),
        ("regions", (), "region codes"),
        ("ports", (0,), "ports from 1 to 65535"),
        ("env", {"A=B": "x"}, "names without '='"),
        ("depth", 0, "a number of commits from 1"),
        ("volume_gb", 501, "0 .none. to 500"),
        ("workdir", "work", "an absolute path"),
        ("image", "a b", "an OCI image reference"),
        ("agent_expose", "yes", "token or public"),
    ],
)
def test_what_fly_would_refuse_is_refused_at_once(field: str, value: object, accepted: str) -> None:
    with pytest.raises(SettingsError, match=accepted):
        SandboxSpec().replace(**{field: value})


def test_a_single_region_or_command_may_be_given_without_a_tuple() -> None:
    spec = SandboxSpec().replace(regions="ams", setup="make")
    assert (spec.regions, spec.setup) == (("ams",), ("make",))
