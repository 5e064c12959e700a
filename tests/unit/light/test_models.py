"""The light client: it computes the chain's model from certified headers and bodies, and trusts nobody's word."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from flchain.base.errors import (
    BadCertificate,
    ConfigError,
    InvalidBlock,
    MalformedMessage,
    MalformedUpdate,
    ModelMismatch,
)
from flchain.codecs import CODECS
from flchain.light.follow import (
    BODIES_WAITING_MAX,
    LightState,
    build_light_state,
    process_body,
    process_head,
    process_snapshot,
)
from flchain.light.trust import CertifiedHeader
from flchain.wire.messages import Phase
from tests.support.builders.chain import NO_CLOCK, BuiltChain, Driver, build_chain
from tests.support.light.driver import (
    GARBAGE,
    ROUNDS,
    as_value,
    build_three_rounds,
    certify_header,
    end_of_round,
    feed_all,
    feed_body,
    feed_head,
    heights_of,
    snapshot_of,
)

driver = pytest.fixture(scope="module")(build_three_rounds)


@pytest.fixture
def light(driver: Driver) -> LightState:
    return build_light_state(driver.chain.genesis, driver.chain.model)


# ----------------------------------------------------------------------------------------------- follow


def test_following_gives_the_chains_model_after_each_block(driver: Driver, light: LightState) -> None:
    """With every header and body the device's own model is the chain's after every block."""
    for height in heights_of(driver):
        light = feed_body(feed_head(light, driver, height), driver, height)
        state = driver.states[height]
        assert light.is_synced
        assert light.model.tolist() == state.model.tolist()
        assert (light.height, light.trust.head) == (state.height, state.head)
        assert (light.round, light.phase) == (state.round.number, state.round.phase)
    assert light.model_round == ROUNDS
    assert light.accepted == tuple(device.address for device in driver.chain.devices)
    assert (light.wanted, light.waiting, light.reveals) == ({}, {}, {})


@pytest.mark.parametrize("codec", CODECS)
def test_a_device_decodes_every_codec_as_miners_do(codec: str) -> None:
    """Two rounds with each codec: what is drawn for an update is drawn alike by device, miners and readers."""
    made = Driver(build_chain(codec=codec, codec_level=CODECS[codec].level_default))
    light = build_light_state(made.chain.genesis, made.chain.model)
    for _ in range(2):
        made.run_round()
    for height in heights_of(made):
        light = feed_body(feed_head(light, made, height), made, height)
    assert light.is_synced
    assert light.model_round == 2
    assert light.model.tolist() == made.state.model.tolist() != made.chain.model.tolist()


def test_only_updates_and_settlements_are_needed(driver: Driver, light: LightState) -> None:
    """Without any other body than those of the reveal and settlement blocks the model is the chain's."""
    for height in heights_of(driver):
        light = feed_head(light, driver, height)
        header = driver.blocks[height - 1].header
        if header.phase is Phase.REVEAL or header.next_round > header.round:
            assert not light.is_synced or header.phase is Phase.REVEAL
            light = feed_body(light, driver, height)
    assert light.is_synced
    assert light.model_round == ROUNDS


def test_a_header_may_be_skipped(driver: Driver, light: LightState) -> None:
    """Headers of commit and score blocks can be missed: a certificate proves a header alone."""
    for height in heights_of(driver):
        header = driver.blocks[height - 1].header
        if header.phase is Phase.REVEAL or header.next_round > header.round:
            light = feed_body(feed_head(light, driver, height), driver, height)
    assert light.is_synced
    assert light.model_round == ROUNDS


def test_bodies_may_come_in_any_order(driver: Driver, light: LightState) -> None:
    """The bodies of a round give the model in every order, before or after their headers."""
    end = end_of_round(driver, 1)
    needed = [h for h in range(1, end + 1) if driver.blocks[h - 1].header.phase in (Phase.REVEAL, Phase.SETTLE)]
    heads = light
    for height in range(1, end + 1):
        heads = feed_head(heads, driver, height)
    for order in itertools.permutations(needed):
        after, before = heads, light
        for height in order:
            after, before = feed_body(after, driver, height), feed_body(before, driver, height)
        for height in range(1, end + 1):
            before = feed_head(before, driver, height)
        assert after.is_synced
        assert before.is_synced
        assert after.model_hash == before.model_hash == driver.states[end].model_hash


def test_a_missing_body_keeps_the_old_model(driver: Driver, light: LightState) -> None:
    """Without a round's updates the device knows that it is behind, keeps its model, and catches up with the body."""
    end = end_of_round(driver, 1)
    missing = next(h for h in range(1, end) if driver.blocks[h - 1].header.phase is Phase.REVEAL)
    for height in range(1, end + 1):
        light = feed_head(light, driver, height)
        light = feed_body(light, driver, height) if height != missing else light
    assert not light.is_synced
    assert light.model_round == 0
    assert light.model_hash == driver.states[0].model_hash
    assert list(light.wanted) == [missing, end]
    assert feed_body(light, driver, missing).is_synced


def test_a_body_nobody_wants_changes_nothing(driver: Driver, light: LightState) -> None:
    """A body of the past, or of a block without updates and settlement, is not kept."""
    followed = feed_all(light, driver, heights_of(driver))
    for height in (-1, 0, *heights_of(driver)):
        assert as_value(process_body(followed, height, b"junk")) == as_value(followed)


def test_another_body_than_the_headers_is_refused(driver: Driver, light: LightState) -> None:
    """A body that is not the one the wanted header names is refused, whatever it is."""
    reveal = next(b.header.height for b in driver.blocks if b.header.phase is Phase.REVEAL)
    for height in range(1, reveal + 1):
        light = feed_head(light, driver, height)
    with pytest.raises(InvalidBlock):
        process_body(light, reveal, driver.blocks[0].body_bytes)
    for body in (b"", b"junk", driver.blocks[reveal - 1].body_bytes[:-1], driver.blocks[reveal - 1].body_bytes + b"\0"):
        with pytest.raises(MalformedMessage):
            process_body(light, reveal, body)


def test_an_early_body_cannot_keep_its_header_out(driver: Driver, light: LightState) -> None:
    """Junk sent as the body of the next blocks is dropped when their headers come; the true bodies then do."""
    end = end_of_round(driver, 1)
    for height in range(1, end + 1):
        light = process_body(light, height, b"junk")
    for height in range(1, end + 1):
        light = feed_head(light, driver, height)
    assert (light.height, light.waiting) == (end, {})
    for height in range(1, end + 1):
        light = feed_body(light, driver, height)
    assert light.is_synced


def test_early_bodies_are_bounded(light: LightState) -> None:
    """However many bodies come before their headers, only the lowest few are kept."""
    for height in range(100, 1, -1):
        light = process_body(light, height, b"junk")
    assert list(light.waiting) == list(range(2, 2 + BODIES_WAITING_MAX))


# ---------------------------------------------------------------------------------- updates of the open round


def test_a_device_knows_when_it_has_all_updates_of_the_open_round(driver: Driver, light: LightState) -> None:
    """Once the phase is closed and every body is there, they are the chain's; never before, and not after."""
    for height in heights_of(driver):
        light = feed_head(light, driver, height)
        state, is_reveal = driver.states[height], driver.blocks[height - 1].header.phase is Phase.REVEAL
        assert light.has_all_updates is (state.round.phase is Phase.SETTLE)
        light = feed_body(light, driver, height)
        assert light.has_all_updates is (is_reveal or state.round.phase is Phase.SETTLE)
        assert light.updates == state.round.reveals
        assert light.homes == {device.address: device.home for device in state.devices}


@pytest.mark.parametrize("missed", [2, 3])
def test_a_missed_header_leaves_it_unknown_whether_updates_are_missing(missed: int) -> None:
    """A header of REVEAL, or the one that opened it, was missed: more updates may be there than are known."""
    made = Driver(build_chain(phase_heights_max=3))
    reveals = Driver(made.chain).go_to(Phase.REVEAL)
    made.open()
    made.commit(reveals)
    for number, reveal in reveals.items():
        made.reveal({number: reveal})
    light = build_light_state(made.chain.genesis, made.chain.model)
    assert feed_all(light, made, heights_of(made)).has_all_updates
    for height in heights_of(made):
        light = light if height == missed else feed_all(light, made, range(height, height + 1))
    assert light.updates and light.phase is Phase.SCORE and not light.has_all_updates


# ------------------------------------------------------------------------------------------- mismatches


def test_a_mismatch_keeps_the_old_model(driver: Driver, light: LightState) -> None:
    """If the certified hash is not the model computed here, ModelMismatch is raised and nothing has changed."""
    end = end_of_round(driver, 1)
    light = feed_all(light, driver, range(1, end))
    light = process_head(light, CertifiedHeader(*certify_header(driver, end, model_hash=b"x" * 32)), NO_CLOCK)
    before = as_value(light)
    with pytest.raises(ModelMismatch):
        feed_body(light, driver, end)
    assert as_value(light) == before
    assert light.model_round == 0
    assert not light.is_synced


def test_after_a_mismatch_headers_are_still_followed(driver: Driver, light: LightState) -> None:
    """A device whose own model has gone wrong sees the mismatch, follows on, and is set right by a snapshot."""
    end = end_of_round(driver, 1)
    wrong = light.model.copy()
    wrong[0] += 1
    light = feed_all(replace(light, model=wrong), driver, range(1, end))
    light = feed_head(light, driver, end)
    with pytest.raises(ModelMismatch):
        feed_body(light, driver, end)
    light = process_snapshot(feed_head(light, driver, end + 1), *snapshot_of(driver, end + 1), NO_CLOCK)
    assert light.is_synced
    light = feed_all(light, driver, range(end + 2, len(driver.blocks) + 1))
    assert light.is_synced
    assert light.model_round == ROUNDS


# -------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_at_any_height_makes_up_for_all_before(driver: Driver, light: LightState) -> None:
    """A device that saw nothing takes a snapshot at any height and ends with the chain's model from then on."""
    for height in heights_of(driver):
        joined = process_snapshot(light, *snapshot_of(driver, height), NO_CLOCK)
        assert joined.height == height or joined.model_round == 0
        last = end_of_round(driver, ROUNDS)
        joined = feed_all(joined, driver, range(max(joined.height, 0) + 1, last + 1))
        if joined.model_round < ROUNDS:  # it joined in the middle of a round whose updates it did not see
            joined = process_snapshot(joined, *snapshot_of(driver, last), NO_CLOCK)
        assert joined.is_synced
        assert joined.model_hash == driver.states[last].model_hash


def test_an_older_snapshot_helps_a_device_that_follows(driver: Driver, light: LightState) -> None:
    """A device that has all headers but no bodies of round 1 takes round 1's snapshot and computes the later rounds."""
    end = end_of_round(driver, 1)
    for height in heights_of(driver):
        light = feed_head(light, driver, height)
        light = feed_body(light, driver, height) if height > end else light
    assert light.model_round == 0
    light = process_snapshot(light, *snapshot_of(driver, end), NO_CLOCK)
    assert light.is_synced
    assert light.model_round == ROUNDS


def test_stale_updates_are_not_taken_for_the_open_rounds(driver: Driver, light: LightState) -> None:
    """Updates of a round whose settlement was missed never stand in for those of a later round."""
    first, second = end_of_round(driver, 1), end_of_round(driver, 2)
    light = feed_all(light, driver, range(1, first))  # the updates of round 1, without its settlement
    light = process_snapshot(light, *snapshot_of(driver, first + 1), NO_CLOCK)
    light = feed_body(feed_head(light, driver, second), driver, second)  # round 2 without its updates
    assert light.model_round == 1
    assert light.model_hash == driver.states[first].model_hash
    assert process_snapshot(light, *snapshot_of(driver, second), NO_CLOCK).is_synced


def test_a_forged_snapshot_is_refused(driver: Driver, light: LightState) -> None:
    """A snapshot with one step changed, of another length, or with another round's model is refused."""
    end = end_of_round(driver, 1)
    head, vector, residual = snapshot_of(driver, end)
    forged = bytes((vector[0] ^ 1,)) + vector[1:]
    with pytest.raises(MalformedMessage):
        process_snapshot(light, head, forged, residual, NO_CLOCK)
    with pytest.raises(MalformedMessage):
        process_snapshot(light, head, snapshot_of(driver, len(driver.blocks))[1], residual, NO_CLOCK)
    for other in (b"", vector[:-1], vector + b"\0" * 4):
        with pytest.raises(MalformedUpdate):
            process_snapshot(light, head, other, residual, NO_CLOCK)
    with pytest.raises(BadCertificate):
        process_snapshot(light, replace(head, certificate=GARBAGE), vector, residual, NO_CLOCK)


def test_a_snapshot_of_what_is_known_changes_nothing(driver: Driver, light: LightState) -> None:
    """A snapshot of the device's own round or an older one leaves the state as it is."""
    followed = feed_all(light, driver, heights_of(driver))
    for height in heights_of(driver):
        assert process_snapshot(followed, *snapshot_of(driver, height), NO_CLOCK) is followed


def test_an_abandoned_round_moves_the_light_client_on() -> None:
    """A round that is abandoned leaves the device's model, and counts as known."""
    made = Driver(build_chain())
    made.go_to(Phase.REVEAL)
    while made.state.round.number == 1:
        made.extend()
    made.run_round()
    light = feed_all(build_light_state(made.chain.genesis, made.chain.model), made, heights_of(made))
    assert light.is_synced
    assert light.model_round == 2
    assert light.model_hash == made.state.model_hash != made.states[0].model_hash


def test_another_initial_model_is_a_configuration_error() -> None:
    """A device that is given another model than the genesis names does not start."""
    built: BuiltChain = build_chain()
    wrong = built.model.copy()
    wrong[0] += 1
    for model in (wrong, built.model[:-1]):
        with pytest.raises(ConfigError):
            build_light_state(built.genesis, model)
