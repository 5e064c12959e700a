"""A message is opened once on a miner: one signature check, one decoding of its update, from intake to settlement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from flchain.base import crypto
from flchain.base.types import ModelVector
from flchain.codecs import CODECS
from flchain.codecs.codec import NO_SEED
from flchain.ledger import certificate
from flchain.wire import cose, envelope
from flchain.wire.cbor_form import decode_item
from flchain.wire.fields import Kind
from miner.core import machine
from miner.core.state import MinerState
from miner.core.values import Event
from tools.sim.network import Network

CODEC = "sparse-ternary"


class Calls:
    """What each miner does with which bytes, and how often. `at` is the miner whose step it is; None is the world."""

    def __init__(self) -> None:
        self.at: bytes | None = None
        self.counts: dict[str, Counter[tuple[bytes, bytes]]] = {
            "signatures checked": Counter(),
            "messages of a round opened": Counter(),
            "updates decoded": Counter(),
        }

    def note(self, what: str, about: bytes) -> None:
        if self.at is not None:
            self.counts[what][self.at, about] += 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls that miners make in their own steps, not those of the simulator's checkers."""
    calls = Calls()
    codec, step, verify_detached = CODECS[CODEC], machine.step, envelope.verify_detached

    def count_verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
        calls.note("signatures checked", signature)
        return crypto.verify(public_key, message, signature)

    def count_split(raw: bytes) -> cose.Parts:
        parts = cose.split_sign1(raw)
        if decode_item(parts[2])[0] <= Kind.SCORE_REVEAL:  # votes of heights that are over may be looked at again
            calls.note("messages of a round opened", raw)
        return parts

    def count_decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
        calls.note("updates decoded", payload)
        return codec.decode(payload, parameters_count, level, seed)

    def count_step(state: MinerState, event: Event, *clocks: int) -> object:
        calls.at = bytes(state.config.identity.address)
        try:
            return step(state, event, *clocks)  # type: ignore[arg-type]
        finally:
            calls.at = None

    def verify_apart(*arguments: object) -> bool:
        """A certificate is a message of its own: its signatures are checked where no vote was heard before it."""
        at, calls.at = calls.at, None
        try:
            return verify_detached(*arguments)  # type: ignore[arg-type]
        finally:
            calls.at = at

    monkeypatch.setattr(envelope, "verify", count_verify)
    monkeypatch.setattr(envelope, "split_sign1", count_split)
    monkeypatch.setattr(certificate, "verify_detached", verify_apart)
    monkeypatch.setattr(machine, "step", count_step)
    monkeypatch.setitem(CODECS, CODEC, replace(codec, decode=count_decode))
    return calls


@pytest.mark.parametrize("seed", range(4))
def test_a_miner_opens_checks_and_decodes_each_message_once(calls: Calls, seed: int) -> None:
    """In two rounds of four miners and three devices; of what it has said itself the same holds."""
    network = Network(seed, rounds=2).run()
    assert network.violations == [], network.explain()
    assert len(calls.counts["updates decoded"]) == 4 * 3 * 2, "each miner, each device, each round"
    for what, counts in calls.counts.items():
        assert max(counts.values()) == 1, (what, [count for count in counts.values() if count > 1])
