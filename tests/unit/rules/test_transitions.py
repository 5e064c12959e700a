"""The recorded transitions: states before and after, roots and refusals, as bytes that no rule of today computes."""

from __future__ import annotations

import dataclasses

import pytest

from flchain.ledger.params import ChainParams
from flchain.ledger.state import (
    Account,
    Candidate,
    ChainState,
    Delegation,
    Device,
    RevealedScores,
    RevealedUpdate,
    RoundState,
    Unbonding,
)
from tests.vectors import make_transitions
from tests.vectors.transitions import check, state_form

FILES = sorted(path.stem for path in check.DATA.glob("*.json") if path != check.WORLD)


@pytest.mark.parametrize("file", FILES)
def test_the_rules_do_what_is_recorded(file):
    """Every recorded transition comes out with the same state, the same root, or the same refusal."""
    differences = {name: what for name, what in check.find_differences(f"{file}: ") if what}
    assert not differences


def test_every_builder_has_a_file():
    """No file is recorded that nothing makes, and none is missing."""
    assert sorted(make_transitions.BUILDERS) == FILES


def test_every_vector_has_a_name_of_its_own_and_a_claim():
    """A vector that fails can be found by its name, and says in one sentence what it claims."""
    vectors = check.list_vectors()
    assert len({name for name, _ in vectors}) == len(vectors)
    assert all(vector["claim"].endswith(".") for _, vector in vectors)


def test_the_form_of_states_forgets_no_field():
    """A field that is added to the state must be written down in the vectors too."""
    rows = (
        (Account, state_form.ACCOUNT),
        (Device, state_form.DEVICE),
        (Candidate, state_form.CANDIDATE),
        (Delegation, state_form.DELEGATION),
        (Unbonding, state_form.UNBONDING),
        (RevealedUpdate, state_form.REVEAL),
        (RevealedScores, state_form.SCORES),
        (RoundState, state_form.ROUND),
        (ChainState, state_form.STATE),
    )
    for kind, names in rows:
        # what is left out of comparisons is worked out of the other fields
        assert {field.name for field in dataclasses.fields(kind) if field.compare} == set(names), kind.__name__
    assert set(ChainParams.__struct_fields__) == set(state_form.NAMES_AND_NUMBERS)
