"""A coalition below a third of the power, with any devices: what it cannot move, and that a larger one can."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flchain.base.types import Address, BasisPoints
from flchain.ledger.state import KNOWLEDGE_START, ChainState, RevealedScores, find_candidate
from flchain.rules.scores import compute_round_scores, get_homes, get_scorer_weights, is_round_scored
from flchain.rules.settlement import compute_settlement, process_settlement
from flchain.wire.messages import Phase
from tests.support.builders.chain import BuiltChain, Driver, build_chain

SCORES = st.integers(0, 10_000)
CAP_BP = 3_333
many = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def go_to_settle(chain: BuiltChain) -> ChainState:
    driver = Driver(chain)
    driver.go_to(Phase.SETTLE)
    return driver.state


STATES = [
    go_to_settle(build_chain(miners, devices, powers=powers, power_cap_bp=CAP_BP, mining_weight_bp=share))
    for miners, devices, powers, share in (
        (4, 3, [10, 10, 10, 10], 3_333),
        (4, 4, [40, 30, 20, 10], 1_000),
        (5, 3, [400, 300, 300, 2, 1], 2_000),
        (7, 4, [7, 6, 5, 4, 3, 2, 1], 3_333),
    )
]


@dataclass(frozen=True)
class Scene:
    """A round before its settlement, and who of its scorers belongs to the coalition."""

    state: ChainState
    coalition: frozenset[Address]

    @property
    def honest(self) -> tuple[RevealedScores, ...]:
        """What the others have said."""
        return tuple(r for r in self.state.round.score_reveals if r.scorer not in self.coalition)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Any scores of any validators and mining devices, any of whom are in the coalition (often all devices),
    any of whom keep silent; with validators of more than two thirds of the power among those who spoke."""
    state = draw(st.sampled_from(STATES))
    names = [v.address for v in state.validators] + [d.address for d in state.devices]
    coalition = frozenset(name for name in names if draw(st.integers(0, 3)) == 0)
    coalition |= {d.address for d in state.devices} if draw(st.booleans()) else set()
    reputations = {d.address: draw(st.integers(0, 10_000)) for d in state.devices}
    state = replace(
        state, devices=tuple(replace(d, reputation=BasisPoints(reputations[d.address])) for d in state.devices)
    )
    spoken = [name for name in names if draw(st.integers(0, 5)) > 0]
    updates, homes = len(state.round.reveals), len(get_homes(state))
    words = tuple(
        RevealedScores(
            name,
            draw(SCORES),
            tuple(draw(SCORES) for _ in range(updates)),
            tuple(draw(SCORES) for _ in range(homes)),
        )
        for name in sorted(spoken)
    )
    state = replace(state, round=replace(state.round, score_reveals=words))
    assume(is_round_scored(state))
    return Scene(state, coalition)


def is_below_a_third(scene: Scene) -> bool:
    """Of the power: devices cost nothing to make, so it does not matter how many of them are in the coalition."""
    liars = sum(v.power for v in scene.state.validators if v.address in scene.coalition)
    return 3 * liars < sum(v.power for v in scene.state.validators)


@many
@given(scenes())
def test_a_coalition_below_a_third_cannot_move_a_knowledge_value(scene: Scene) -> None:
    """Less than a third of the power, with any mining devices, moves no miner's knowledge out of the range of what the
    honest others scored it, its standing among them if a validator kept silent."""
    assume(is_below_a_third(scene))
    state = scene.state
    after = process_settlement(state, compute_settlement(state))
    spoken = {reveal.scorer for reveal in state.round.score_reveals}
    for place, home in enumerate(get_homes(state)):
        weights = get_scorer_weights(state)
        values = [r.aggregates[place] for r in scene.honest if r.scorer != home and r.scorer in weights]
        if {v.address for v in state.validators} - spoken - {home}:
            values.append(KNOWLEDGE_START)
        miner = find_candidate(after, home)
        assert miner is not None
        assert max(1, min(values)) <= miner.knowledge <= max(1, *values)


@many
@given(scenes())
def test_a_coalition_below_a_third_cannot_move_what_is_accepted(scene: Scene) -> None:
    """Nor can it move the median of the base model's scores, or of any update's, out of the honest scorers' range."""
    assume(is_below_a_third(scene))
    medians, weights = compute_round_scores(scene.state), get_scorer_weights(scene.state)
    honest = [reveal for reveal in scene.honest if reveal.scorer in weights]
    assert min(r.base_score for r in honest) <= medians.base <= max(r.base_score for r in honest)
    for index, update in enumerate(scene.state.round.reveals):
        values = [reveal.scores[index] for reveal in honest]
        assert min(values) <= medians.updates[update.sender] <= max(values)


@many
@given(scenes(), st.booleans())
def test_where_the_honest_agree_the_coalition_changes_nothing(scene: Scene, is_good: bool) -> None:
    """If every honest scorer finds all updates good, all are accepted; if bad, none is: whatever the others say."""
    assume(is_below_a_third(scene))
    state = scene.state
    margin = state.params.score_margin_bp
    said = tuple(
        r
        if r.scorer in scene.coalition
        else replace(r, base_score=5_000, scores=(5_000 - margin - (not is_good),) * len(r.scores))
        for r in state.round.score_reveals
    )
    state = replace(state, round=replace(state.round, score_reveals=said))
    accepted = compute_settlement(state).accepted
    assert accepted == (tuple(update.sender for update in state.round.reveals) if is_good else ())


# ------------------------------------------------------------------------------------------- sharpness


def settle_with(powers: list[int], liars: int, low: bool, silent: int = 0) -> tuple[int, int]:
    """Knowledge of the first miner, and the median of the first update, where the last `liars` validators lie about
    both, the honest all say 6,000, and the first `silent` after the scored one say nothing."""
    state = go_to_settle(build_chain(len(powers), 1, powers=powers))
    home = get_homes(state)[0]
    ranked = [home, *(v.address for v in state.validators if v.address != home)]
    assert ranked == [v.address for v in state.validators], "the only device's home is the first miner"
    lie = 0 if low else 10_000
    words = []
    for place, name in enumerate(ranked):
        score = lie if place >= len(ranked) - liars else 6_000
        if not 1 <= place <= silent:
            words.append(RevealedScores(name, 6_000, (score,), (score,)))
    state = replace(state, round=replace(state.round, score_reveals=tuple(words)))
    assert is_round_scored(state)
    after = process_settlement(state, compute_settlement(state))
    miner = find_candidate(after, home)
    assert miner is not None
    return miner.knowledge, compute_round_scores(state).updates[state.round.reveals[0].sender]


def test_exactly_a_third_can_move_knowledge() -> None:
    """The bound is sharp: where the scored miner itself has a third, another third is half of the other scorers, and
    pulls it down to nothing; one unit of power less does not."""
    assert settle_with([10, 10, 10], liars=1, low=True)[0] == 1
    assert settle_with([11, 11, 10], liars=1, low=True)[0] == 6_000


@pytest.mark.parametrize("is_low", [True, False])
def test_with_some_silent_a_third_moves_what_is_accepted(is_low: bool) -> None:
    """Where just over two thirds have spoken, a little more than a third decides; below a third it does not."""
    powers = [34, 30, 3, 33]  # the last lies; the second keeps silent
    assert settle_with(powers, liars=1, low=is_low, silent=1)[1] == 6_000
    powers = [33, 30, 3, 37]
    assert settle_with(powers, liars=1, low=is_low, silent=1)[1] == (0 if is_low else 10_000)


def test_silence_is_what_the_standing_is_for() -> None:
    """If the silent did not count, a third would be the majority of the few others that spoke: they do count."""
    knowledge, _ = settle_with([33, 30, 4, 33], liars=1, low=True, silent=1)
    assert 5_000 <= knowledge <= 6_000


def test_the_bound_needs_a_cap_of_a_third() -> None:
    """Where one miner holds more than a third, less than a third is half of those who may score it."""
    assert settle_with([34, 30, 3, 33], liars=1, low=True, silent=1)[0] == 1


def test_one_mining_device_has_all_devices_weight_and_no_more() -> None:
    """A single lying device, all others silent, moves nothing, nor with less than a third of the power besides."""
    state = go_to_settle(build_chain(4, 2, powers=[30, 20, 20, 20], mining_weight_bp=3_333))
    home, device = get_homes(state)[0], state.devices[0].address
    names = [v.address for v in state.validators]

    def settle(liars: set[Address]) -> int:
        words = tuple(
            RevealedScores(name, 6_000, (6_000,) * 2, ((0 if name in liars else 6_000),) * 2)
            for name in sorted((*names, device))
        )
        said = replace(state, round=replace(state.round, score_reveals=words))
        miner = find_candidate(process_settlement(said, compute_settlement(said)), home)
        assert miner is not None
        return miner.knowledge

    assert settle({device}) == 6_000
    others = [name for name in names if name != home]
    assert settle({device, others[0]}) == 6_000
    assert settle({device, *others[:2]}) == 1, "here two of the others have more than a third"
