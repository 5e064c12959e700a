"""Devices that follow lightly: they take the settled change of the model, and never more than they can prove."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from flchain.base.errors import InvalidBlock, InvalidMessage, MalformedMessage, MalformedUpdate, OversizedMessage
from flchain.base.fixedpoint import VALUE_BYTES, add
from flchain.base.types import Round
from flchain.codecs import CODECS, DOWNSTREAM_RULES
from flchain.codecs.adaptive import pack_level
from flchain.ledger.limits import PAYLOADS_MAX
from flchain.light.body import LightBody
from flchain.light.follow import LightState, build_light_state, process_body, process_payloads, process_snapshot
from flchain.rules.model_step import apply_payload, compute_delta, compute_step
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct, encode_struct
from miner.core.tip import PAYLOAD_FRAME_BYTES, Payloads, add_payload
from tests.support.builders.chain import NO_CLOCK, Driver, build_chain
from tests.support.light.driver import (
    ROUNDS,
    as_value,
    build_three_rounds,
    end_of_round,
    feed_all,
    feed_body,
    feed_head,
    feed_light_body,
    heights_of,
    light_body_of,
    snapshot_of,
)

driver = pytest.fixture(scope="module")(build_three_rounds)


@pytest.fixture
def light(driver: Driver) -> LightState:
    return build_light_state(driver.chain.genesis, driver.chain.model, is_full=False)


def payloads_of(driver: Driver, first: int, last: int = ROUNDS) -> list[object]:
    return [driver.states[end_of_round(driver, number)].payload for number in range(first, last + 1)]


# ----------------------------------------------------------------------------------------- round by round


def test_headers_and_changes_give_the_chains_model_and_who_was_accepted(driver: Driver, light: LightState) -> None:
    """Without one body a device has the model of every round, and knows whose updates are in it as a full one does."""
    full = build_light_state(driver.chain.genesis, driver.chain.model)
    for height in heights_of(driver):
        light, full = feed_head(light, driver, height), feed_body(feed_head(full, driver, height), driver, height)
        if driver.states[height].round.number > driver.states[height - 1].round.number:
            assert not light.is_synced
            light = feed_light_body(light, driver, height)
        assert light.is_synced
        assert light.model.tolist() == driver.states[height].model.tolist() == full.model.tolist()
        assert light.accepted == full.accepted
    assert light.model_round == ROUNDS


def test_changes_before_their_headers_wait(driver: Driver, light: LightState) -> None:
    """All changes first, in any order, then the headers: the same model."""
    for number in (2, 1, 3):
        light = feed_light_body(light, driver, end_of_round(driver, number))
    for height in heights_of(driver):
        light = feed_head(light, driver, height)
    assert light.is_synced
    assert light.model_round == ROUNDS


def test_a_full_device_and_a_light_one_take_nothing_of_each_others(driver: Driver, light: LightState) -> None:
    """A body is no change and a change is no body: refused, and the true one is taken afterwards."""
    end = end_of_round(driver, 1)
    light = feed_head(light, driver, end)
    before = as_value(light)
    with pytest.raises(InvalidMessage):
        feed_body(light, driver, end)
    assert as_value(light) == before
    full = feed_all(build_light_state(driver.chain.genesis, driver.chain.model), driver, range(1, end))
    full = feed_head(full, driver, end)
    with pytest.raises(InvalidMessage):
        feed_light_body(full, driver, end)
    assert feed_body(full, driver, end).is_synced
    assert feed_light_body(light, driver, end).is_synced


@pytest.mark.parametrize("wrong", ["settlement", "root", "payload", "empty", "garbage", "trailing"])
def test_a_forged_change_is_refused_and_the_true_one_still_taken(driver: Driver, light: LightState, wrong: str) -> None:
    """Whoever is named as accepted, and what the model becomes, is proved by the header; before it comes, too."""
    end = end_of_round(driver, 2)
    light = feed_light_body(feed_head(light, driver, end_of_round(driver, 1)), driver, end_of_round(driver, 1))
    change = decode_struct(light_body_of(driver, end), LightBody, BODY_BYTES_MAX)
    fewer = msgspec.structs.replace(change.settlement, accepted=change.settlement.accepted[1:])
    forged = {
        "settlement": encode_struct(msgspec.structs.replace(change, settlement=fewer)),
        "root": encode_struct(msgspec.structs.replace(change, orders_root=b"r" * 32)),
        "payload": encode_struct(msgspec.structs.replace(change, payload=payloads_of(driver, 1, 1)[0])),
        "empty": encode_struct(msgspec.structs.replace(change, payload=b"")),
        "garbage": encode_struct(msgspec.structs.replace(change, payload=b"\xff" * 20)),
        "trailing": light_body_of(driver, end) + b"\0",
    }[wrong]
    early = feed_head(process_body(light, end, forged), driver, end)
    assert not early.is_synced
    assert feed_light_body(early, driver, end).is_synced
    light = feed_head(light, driver, end)
    before = as_value(light)
    with pytest.raises((InvalidBlock, MalformedMessage, MalformedUpdate)):
        process_body(light, end, forged)
    assert as_value(light) == before
    assert feed_light_body(light, driver, end).is_synced


# ------------------------------------------------------------------------------------------ after an absence


def test_the_changes_since_a_round_lead_to_the_newest_model(driver: Driver, light: LightState) -> None:
    """A device that missed rounds takes their changes at once, from its own round on or from an earlier one."""
    end = end_of_round(driver, 1)
    behind = feed_light_body(feed_head(light, driver, end), driver, end)
    head = driver.get_head(len(driver.blocks))
    for first in (1, 2):
        after = process_payloads(behind, head, first, payloads_of(driver, first), NO_CLOCK)
        assert after.is_synced
        assert after.model_round == ROUNDS
        assert after.accepted == ()
    assert process_payloads(after, head, 1, payloads_of(driver, 1), NO_CLOCK) is after


def test_changes_that_do_not_lead_to_the_headers_model_are_refused(driver: Driver, light: LightState) -> None:
    """One missing, one too many, one of another type, one that is empty, or from a round that is not reached."""
    head, right = driver.get_head(len(driver.blocks)), payloads_of(driver, 1)
    for first, wrong in (
        (1, right[:-1]),
        (1, [*right, b""]),
        (1, [*right[:-1], 7]),
        (1, [*right[:-1], b""]),
        (2, right[1:]),
        (-(2**62), right),
    ):
        with pytest.raises((MalformedMessage, MalformedUpdate)):
            process_payloads(light, head, first, wrong, NO_CLOCK)
    full = build_light_state(driver.chain.genesis, driver.chain.model)
    with pytest.raises(MalformedMessage):
        process_payloads(full, head, 1, right, NO_CLOCK)


def test_more_changes_than_miners_keep_are_refused_unread(
    driver: Driver, light: LightState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that was away for long gets a model: a liar's many short payloads, each as long as the model once it is
    decoded, would keep a board busy for minutes."""
    monkeypatch.setattr("flchain.light.follow.apply_payload", lambda params, base, payload: pytest.fail("read"))
    head, away = driver.get_head(len(driver.blocks)), PAYLOADS_MAX - ROUNDS + 1
    long_away = replace(light, model_round=Round(-away))
    empty = CODECS[light.params.downstream_codec].encode(light.model * 0, light.model * 0, 10).payload
    with pytest.raises(OversizedMessage):
        process_payloads(long_away, head, 1 - away, [empty] * (PAYLOADS_MAX + 1), NO_CLOCK)


def test_a_light_device_takes_a_snapshot_without_what_was_left_out(driver: Driver, light: LightState) -> None:
    """It needs the model alone."""
    head, vector, _ = snapshot_of(driver, len(driver.blocks))
    assert process_snapshot(light, head, vector, b"", NO_CLOCK).is_synced


def test_a_full_device_takes_no_snapshot_without_the_proof_of_what_was_left_out(driver: Driver) -> None:
    """It could not compute the next model: none, another round's, or one that was changed is refused."""
    full = build_light_state(driver.chain.genesis, driver.chain.model)
    end = end_of_round(driver, 2)
    head, vector, carried = snapshot_of(driver, end)
    flipped = bytes((*carried[:20], carried[20] ^ 1, *carried[21:]))
    for wrong in (b"", snapshot_of(driver, end - 4)[2], flipped, carried + b"\0"):
        with pytest.raises(InvalidMessage):
            process_snapshot(full, head, vector, wrong, NO_CLOCK)
    joined = process_snapshot(full, head, vector, carried, NO_CLOCK)
    assert feed_all(joined, driver, range(end + 1, len(driver.blocks) + 1)).model_round == ROUNDS


# ------------------------------------------------------------------------------------------ the rule itself


@pytest.mark.parametrize("codec", sorted(DOWNSTREAM_RULES.keys() - {"count-sketch"}))
def test_what_is_left_out_comes_later(codec: str) -> None:
    """Model and carried together are what exact rounds would give: nothing is lost, only late."""
    level = pack_level(60, 14) if codec == "adaptive" else 10
    made = Driver(build_chain(downstream_codec=codec, downstream_level=level))
    exact = made.state.model
    for _ in range(4):
        before = made.state
        made.run_round()
        reveals = next(s.round.reveals for s in reversed(made.states) if len(s.round.reveals) == len(before.devices))
        exact = add(exact, compute_delta(before.params, before.chain, before.round.number, reveals))
        assert add(made.state.model, made.state.carried[0]).tolist() == exact.tolist()
        assert apply_payload(before.params, before.model, made.state.payload).tolist() == made.state.model.tolist()
    assert made.state.carried[0].any() == (codec != "identity")


def test_a_round_with_nothing_accepted_changes_neither_model_nor_residual(driver: Driver) -> None:
    """Its change is empty."""
    state = driver.state
    fields = (state.params, state.model, state.carried, driver.states[3].round.reveals, ())
    step = compute_step(*fields, chain=state.chain, number=Round(4))
    assert step.payload == b""
    assert step.model is state.model
    assert step.carried is state.carried


def test_changes_are_kept_while_they_are_shorter_than_the_model(driver: Driver) -> None:
    """So a device that asks gets what is smaller; they are those of consecutive rounds up to the newest."""
    before = driver.states[0]
    payloads: Payloads = ()
    model_bytes = VALUE_BYTES * before.params.parameters_count
    for number in range(1, 2 * PAYLOADS_MAX):
        at = replace(before, round=replace(before.round, number=Round(number)))
        length = int(np.random.default_rng(number).integers(0, 40))
        payloads = add_payload(
            payloads, at, replace(at, round=replace(at.round, number=Round(number + 1)), payload=bytes(length))
        )
        numbers = [each for each, _ in payloads]
        assert numbers == list(range(number - len(numbers) + 1, number + 1))
        assert sum(len(payload) + PAYLOAD_FRAME_BYTES for _, payload in payloads) <= model_bytes
    assert add_payload(payloads, before, before) is payloads
