"""The recorded steps of light devices: what is known before and after, and refusals, as bytes that no rule computes."""

from __future__ import annotations

import dataclasses

import pytest

from flchain.light.follow import LightState
from flchain.light.trust import Trust
from flchain.wire.messages import Header
from tests.vectors import make_light
from tests.vectors.light import check, form

FILES = sorted(path.stem for path in check.DATA.glob("*.json") if path != check.BASE)


@pytest.mark.parametrize("file", FILES)
def test_devices_do_what_is_recorded(file):
    """Every recorded step comes out with the same knowledge, or the same refusal."""
    differences = {name: what for name, what in check.find_differences(f"{file}: ") if what}
    assert not differences


def test_every_builder_has_a_file():
    """No file is recorded that nothing makes, and none is missing."""
    assert sorted(make_light.BUILDERS) == FILES


def test_every_vector_has_a_name_of_its_own_and_a_claim():
    """A vector that fails can be found by its name, and says in one sentence what it claims."""
    vectors = check.list_vectors()
    assert len({name for name, _ in vectors}) == len(vectors)
    assert all(vector["claim"].endswith(".") for _, vector in vectors)


def test_the_form_forgets_no_field():
    """A field that is added to what a device knows must be written down in the vectors too."""
    for kind, names in ((LightState, form.LIGHT), (Trust, form.TRUST)):
        assert {field.name for field in dataclasses.fields(kind)} == set(names), kind.__name__
    assert set(Header.__struct_fields__) == set(form.HEADER)


def test_every_refusal_of_the_light_client_is_recorded():
    """Each way in which trust can fail has a vector that ends with its code."""
    codes = {vector["outcome"].get("error") for _, vector in check.list_vectors()}
    trust = {"bad-certificate", "unknown-validators", "untrusted-validators", "trust-expired", "invalid-block"}
    assert codes >= trust | {"wrong-round", "oversized", "malformed", "malformed-update", "ModelMismatch"}
