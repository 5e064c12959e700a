"""Helpers that feed a built chain to a light client."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from flchain.base.fixedpoint import encode_vector
from flchain.codecs import encode_carried
from flchain.ledger.snapshot import build_carried_proof
from flchain.light.body import build_light_body
from flchain.light.follow import LightState, process_body, process_head
from flchain.light.trust import CertifiedHeader
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct, encode_struct
from flchain.wire.messages import Body, Certificate
from tests.support.builders.chain import NO_CLOCK, Driver, build_chain, certify, replace_header

GARBAGE = encode_struct(Certificate(0, ()))


ROUNDS = 3


def build_three_rounds() -> Driver:
    """A chain of three rounds; in the second one device is absent."""
    made = Driver(build_chain())
    made.run_round()
    made.run_round([0, 2])
    made.run_round()
    return made


def feed_head(light: LightState, driver: Driver, height: int) -> LightState:
    return process_head(light, driver.get_head(height), NO_CLOCK)


def feed_body(light: LightState, driver: Driver, height: int) -> LightState:
    return process_body(light, height, driver.blocks[height - 1].body_bytes)


def feed_all(light: LightState, driver: Driver, heights: range) -> LightState:
    for height in heights:
        light = feed_body(feed_head(light, driver, height), driver, height)
    return light


def heights_of(driver: Driver) -> range:
    return range(1, len(driver.blocks) + 1)


def end_of_round(driver: Driver, number: int) -> int:
    """The height that settles a round."""
    return next(b.header.height for b in driver.blocks if b.header.round == number and b.header.next_round > number)


def snapshot_of(driver: Driver, height: int) -> tuple[CertifiedHeader, bytes, bytes]:
    state = driver.states[height]
    return driver.get_head(height), encode_vector(state.model), build_carried_proof(state)


def feed_light_body(light: LightState, driver: Driver, height: int) -> LightState:
    return process_body(light, height, light_body_of(driver, height))


def light_body_of(driver: Driver, height: int) -> bytes:
    """Return what a light device downloads instead of a settled block's body."""
    body = decode_struct(driver.blocks[height - 1].body_bytes, Body, BODY_BYTES_MAX)
    return build_light_body(body, driver.states[height].payload)


def certify_header(driver: Driver, height: int, **changes: object) -> tuple[bytes, bytes]:
    """A header with some fields changed, that more than two thirds of the power did sign."""
    block = driver.blocks[height - 1]
    header_bytes = replace_header(block, **changes)
    changed = replace(block, header=msgspec.structs.replace(block.header, **changes), header_bytes=header_bytes)
    return header_bytes, certify(driver.chain, driver.states[height - 1], changed)


def as_value(light: LightState) -> tuple[object, ...]:
    """All of a state, to compare."""
    fields = {name: getattr(light, name) for name in LightState.__dataclass_fields__}
    fields["model"] = encode_vector(light.model)
    fields["carried"] = None if light.carried is None else encode_carried(light.carried)
    return tuple(repr(item) if isinstance(item, dict) else item for item in fields.values())
