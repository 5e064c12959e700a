"""Bad input that is only wrong because of what was said before; and seals of proof of work, which simulations use."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from flchain.base.types import Hash, Height
from flchain.consensus.pow import NONCE_BYTES, TARGET_MAX, verify_seal
from flchain.wire.envelope import seal
from flchain.wire.fields import Kind
from flchain.wire.messages import Commit, Evidence, Phase, Transfer, Vote
from miner.core import values as mv
from miner.core.machine import step
from miner.core.pools.order_pool import ORDERS_PER_SENDER_MAX
from miner.core.state import MinerState
from tests.support.bad_fields.messages import get_round_message, get_stake_miner
from tests.support.bad_fields.nodes import CHAIN, DEVICE, HOLDER, MINER, NOW, TOPICS, ask_miner, build_miner, say
from tests.support.bad_fields.table import OTHER_32, Bench, Effect, Outcome, Row, always, attempt
from tests.support.builders.chain import NO_CLOCK
from tests.support.builders.pow import find_seal

UP = "up, to a miner"
RECEIPT = Effect.RECEIPT


def _play(state: MinerState, *said: tuple[str, bytes]) -> MinerState:
    for topic, payload in said:
        state, effects = step(state, mv.PacketReceived(topic, payload), NOW, NO_CLOCK)
        assert not [effect for effect in effects if isinstance(effect, mv.Refuse)]
    return state


@lru_cache
def get_committed() -> MinerState:
    """A miner whose pool holds device 0's commitment."""
    right = get_round_message(Kind.COMMIT, DEVICE)
    return _play(build_miner(Phase.COMMIT), (TOPICS.device_up(DEVICE.address), say(right, DEVICE)))


def _send_commit(message: Commit) -> Outcome:
    return ask_miner(get_committed(), TOPICS.device_up(DEVICE.address), say(message, DEVICE))


def _order(sequence: int) -> bytes:
    return say(Transfer(sequence, CHAIN.holders[1].public_key, 20), HOLDER)


@lru_cache
def get_full() -> MinerState:
    """A miner that keeps as many orders of the holder as it may."""
    topic = TOPICS.device_up(HOLDER.address)
    return _play(get_stake_miner(), *((topic, _order(number)) for number in range(ORDERS_PER_SENDER_MAX)))


def _send_order(sequence: int) -> Outcome:
    state = get_full() if sequence >= ORDERS_PER_SENDER_MAX else get_ordered()
    return ask_miner(state, TOPICS.device_up(HOLDER.address), _order(sequence))


@lru_cache
def get_ordered() -> MinerState:
    """A miner whose chain has carried out the holder's first two orders."""
    before = get_stake_miner()
    accounts = (replace(a, sequence=2) if a.address == HOLDER.address else a for a in before.chain.accounts)
    return replace(before, chain=replace(before.chain, accounts=tuple(accounts)))


@lru_cache
def get_judged() -> MinerState:
    """A miner whose chain has punished miner 1 for the second height."""
    before = get_stake_miner()
    judged = (replace(c, judged_height=Height(2)) if c.address == MINER.address else c for c in before.chain.candidates)
    return replace(before, chain=replace(before.chain, candidates=tuple(judged)))


def _send_evidence(is_judged: bool, height: int) -> Outcome:
    state = get_judged() if is_judged else get_stake_miner()
    words = sorted(seal(Vote(height, 0, 2, h), CHAIN.id, MINER) for h in (None, OTHER_32))
    return ask_miner(state, TOPICS.device_up(HOLDER.address), say(Evidence(height, *words), HOLDER))


BLOCK_HASH = Hash(OTHER_32)


def _get_seal() -> bytes:
    found = find_seal(BLOCK_HASH, TARGET_MAX // 256, 0, 10_000)
    assert found is not None
    return found


def _check_seal(data: bytes) -> Outcome:
    return attempt(lambda: verify_seal(BLOCK_HASH, TARGET_MAX // 256, data))


def _is_bad(data: bytes) -> bool:
    return _check_seal(data).code != ""


def build_repeat_rows() -> list[Row]:
    """Repeats that contradict, orders out of turn, offences that are judged or too old."""
    commit = Bench("Commit", UP, lambda: get_round_message(Kind.COMMIT, DEVICE), _repeat_commit)
    order = Bench("Transfer", UP, lambda: 2, _send_order)
    evidence = Bench("Evidence", UP, lambda: (False, 2), lambda item: _send_evidence(*item))
    pow_seal = Bench("Seal of proof of work", "in simulations", _get_seal, _check_seal)
    wrong_seal = next(nonce for n in range(100) if _is_bad(nonce := n.to_bytes(NONCE_BYTES, "big")))
    return [
        Row(commit, "commitment", "another than its first", always(Commit(1, OTHER_32, False)), "duplicate", RECEIPT),
        Row(order, "sequence", "one that is done", always(1), "wrong-sequence", RECEIPT),
        Row(order, "sequence", "a 17th that waits", always(ORDERS_PER_SENDER_MAX), "pool-full", RECEIPT),
        Row(evidence, "height", "one it was judged for", always((True, 2)), "wrong-round", RECEIPT),
        Row(evidence, "height", "one to come", always((False, 3)), "wrong-round", RECEIPT),
        Row(pow_seal, "nonce", "7 bytes", lambda data: data[1:], "truncated", Effect.DROPPED),
        Row(pow_seal, "nonce", "9 bytes", lambda data: data + b"\0", "oversized", Effect.DROPPED),
        Row(pow_seal, "nonce", "proves no work", always(wrong_seal), "bad-seal", Effect.DROPPED),
    ]


def _repeat_commit(message: Commit) -> Outcome:
    right = get_round_message(Kind.COMMIT, DEVICE)
    if message == right:  # the very same again is answered with a receipt
        return ask_miner(build_miner(Phase.COMMIT), TOPICS.device_up(DEVICE.address), say(message, DEVICE))
    return _send_commit(message)
