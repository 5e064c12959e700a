"""What the light client takes for final: headers that follow on each other under good certificates."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from flchain.base.errors import BadCertificate, InvalidBlock, InvalidMessage, WrongHeight
from flchain.base.types import Height, Power, View
from flchain.ledger.certificate import build_certificate, verify_certificate
from flchain.ledger.state import ChainState, compute_validators_hash
from flchain.light.follow import LightState, build_light_state, process_head
from flchain.light.trust import CertifiedHeader
from flchain.wire.envelope import decode_struct, encode_struct
from flchain.wire.messages import Certificate, Phase
from tests.support.builders.chain import NO_CLOCK, Driver, build_chain, certify, replace_header
from tests.support.light.driver import build_three_rounds, certify_header, feed_head

driver = pytest.fixture(scope="module")(build_three_rounds)


@pytest.fixture
def light(driver: Driver) -> LightState:
    return build_light_state(driver.chain.genesis, driver.chain.model)


# ---------------------------------------------------------------------------------------------- headers


def test_a_header_that_is_not_newer(driver: Driver, light: LightState) -> None:
    """A header at a height that is known already, repeats included, is refused."""
    light = feed_head(feed_head(light, driver, 1), driver, 2)
    for height in (1, 2):
        with pytest.raises(WrongHeight):
            feed_head(light, driver, height)


def test_a_changed_header_is_not_certified(driver: Driver, light: LightState) -> None:
    """A header with any field changed is refused under the certificate of the true one."""
    block, certificate = driver.blocks[0], driver.certificates[0]
    changes: dict[str, object] = {
        "chain": b"x" * 32,
        "height": 2,
        "time_ms": 2,
        "round": 2,
        "phase": Phase.SETTLE,
        "next_round": 2,
        "next_phase": Phase.SETTLE,
        "previous": b"x" * 32,
        "proposer": driver.chain.miners[1].address,
        "body_root": b"x" * 32,
        "state_root": b"x" * 32,
        "model_hash": b"x" * 32,
        "validators_hash": b"x" * 32,
        "next_validators_hash": b"x" * 32,
    }
    assert set(changes) == set(block.header.__struct_fields__) - {"version"}
    for name, value in changes.items():
        with pytest.raises(InvalidBlock if name == "chain" else BadCertificate):
            process_head(light, CertifiedHeader(replace_header(block, **{name: value}), certificate), NO_CLOCK)


def test_a_fork_of_the_known_head_is_refused(driver: Driver, light: LightState) -> None:
    """A header, though certified, that does not extend the head one below it is refused."""
    light = feed_head(light, driver, 1)
    with pytest.raises(InvalidBlock):
        process_head(light, CertifiedHeader(*certify_header(driver, 2, previous=b"x" * 32)), NO_CLOCK)


def test_another_chains_certified_header_is_refused(driver: Driver, light: LightState) -> None:
    """A header certified on a twin chain with the same miners is refused."""
    other = Driver(build_chain(reward_per_update=7))
    other.open()
    assert [m.address for m in other.chain.miners] == [m.address for m in driver.chain.miners]
    with pytest.raises(InvalidBlock):
        process_head(light, CertifiedHeader(other.blocks[0].header_bytes, other.certificates[0]), NO_CLOCK)


def test_validators_this_device_does_not_know(driver: Driver) -> None:
    """A header certified by other miners than the genesis's is refused."""
    strangers = build_chain(seed=99)
    light = build_light_state(strangers.genesis, strangers.model)
    light = replace(light, trust=replace(light.trust, chain=driver.chain.id))
    with pytest.raises(BadCertificate):
        feed_head(light, driver, 1)


# ----------------------------------------------------------------------------------------- certificates


def signatures_of(certificate: bytes) -> list[tuple[int, bytes]]:
    return list(decode_struct(certificate, Certificate, 8_192).signatures)


def verify(driver: Driver, certificate: bytes) -> Certificate:
    state, block = driver.states[0], driver.blocks[0]
    height = Height(block.header.height)
    return verify_certificate(driver.chain.id, state.validators, height, block.hash, certificate)


def test_three_of_four_are_enough_and_two_are_not(driver: Driver) -> None:
    """Every three of four equal miners make a block final; no two, one or none do."""
    for size, is_enough in ((4, True), (3, True), (2, False), (1, False), (0, False)):
        for signers in itertools.combinations(range(4), size):
            certificate = certify(driver.chain, driver.states[0], driver.blocks[0], signers)
            if is_enough:
                assert len(verify(driver, certificate).signatures) == size
            else:
                with pytest.raises(BadCertificate):
                    verify(driver, certificate)


def test_exactly_two_thirds_are_not_enough() -> None:
    """Power counts, not heads: exactly two thirds of it do not make a block final, a little more does."""
    made = Driver(build_chain(miners=3, powers=[10, 10, 10]))
    made.open()
    with pytest.raises(BadCertificate):
        verify(made, certify(made.chain, made.states[0], made.blocks[0], [0, 1]))
    made = Driver(build_chain(miners=3, powers=[1, 1, 5]))
    made.open()
    strong = next(i for i, v in enumerate(made.states[0].validators) if v.power == 5)
    verify(made, certify(made.chain, made.states[0], made.blocks[0], [strong]))
    with pytest.raises(BadCertificate):
        verify(made, certify(made.chain, made.states[0], made.blocks[0], {0, 1, 2} - {strong}))


def test_signers_rise_and_none_counts_twice(driver: Driver) -> None:
    """A signer named twice, signers out of order, and one that is no validator are refused."""
    good = signatures_of(driver.certificates[0])
    for listed in (
        [good[0], good[1], good[1]],
        [good[0], good[0], good[1], good[2]],
        [good[1], good[0], good[2]],
        good[::-1],
        [*good, (4, good[0][1])],
        [*good, (63, good[0][1])],
    ):
        with pytest.raises(BadCertificate):
            verify(driver, encode_struct(Certificate(0, tuple(listed))))


def test_one_invalid_signature_spoils_a_certificate(driver: Driver) -> None:
    """One wrong signature among four is refused, though the other three would be enough."""
    good = signatures_of(driver.certificates[0])
    for place in range(4):
        wrong = good[place][1][:-1] + bytes((good[place][1][-1] ^ 1,))
        listed = [*good[:place], (place, wrong), *good[place + 1 :]]
        with pytest.raises(BadCertificate):
            verify(driver, encode_struct(Certificate(0, tuple(listed))))
    swapped = [(0, good[1][1]), (1, good[0][1]), *good[2:]]
    with pytest.raises(BadCertificate):
        verify(driver, encode_struct(Certificate(0, tuple(swapped))))


def test_a_certificate_is_of_one_view(driver: Driver) -> None:
    """Precommits of one view under another view's number are refused; a later view's own certificate is good."""
    good = signatures_of(driver.certificates[0])
    with pytest.raises(BadCertificate):
        verify(driver, encode_struct(Certificate(1, tuple(good))))
    assert verify(driver, certify(driver.chain, driver.states[0], driver.blocks[0], view=3)).view == 3


def test_certificates_are_built_in_order(driver: Driver) -> None:
    """Whatever the order of the precommits, the certificate is the same bytes."""
    state, good = driver.states[0], signatures_of(driver.certificates[0])
    pairs = [(state.validators[i].address, signature) for i, signature in good]
    for order in itertools.permutations(pairs):
        assert build_certificate(state.validators, View(0), order) == driver.certificates[0]


def test_every_byte_of_a_certificate_counts(driver: Driver) -> None:
    """No bit of a certificate can be flipped unseen."""
    certificate = driver.certificates[0]
    for place in range(0, len(certificate) * 8, 11):
        flipped = bytearray(certificate)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(InvalidMessage):
            verify(driver, bytes(flipped))


def test_validators_hash_covers_keys_and_powers() -> None:
    """The hash of who may sign differs for another power, another key and another set."""
    state: ChainState = build_chain().state
    first = state.validators[0]
    others = (
        state.validators[1:],
        (replace(first, power=Power(first.power + 1)), *state.validators[1:]),
        (replace(first, public_key=b"k" * 32), *state.validators[1:]),
    )
    hashes = {compute_validators_hash(validators) for validators in (state.validators, *others)}
    assert len(hashes) == 4
