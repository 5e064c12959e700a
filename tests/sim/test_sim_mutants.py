"""Deliberate bugs in the protocol, each of which the simulator must catch: otherwise a run without a violation would
mean nothing.

Each mutant names the seeds that are tried; FLCHAIN_MUTANT_SEEDS=0-500 tries these instead and says which one caught it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import pytest

from agent.core import machine as agent_machine
from agent.core import transitions
from agent.core import values as av
from flchain.base.errors import BadCertificate
from flchain.base.types import Address
from flchain.consensus import bft, message_log
from flchain.consensus.bft import ValidatorSet, VoteType
from flchain.ledger import certificate
from flchain.ledger.state import find_validator, hash_model
from flchain.light import follow
from flchain.rules import blocks, orders, settlement, transactions
from flchain.rules import score_words as scores_of_all
from flchain.wire import messages
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct, verify_letter
from flchain.wire.fields import Kind
from flchain.wire.messages import Header, Phase
from miner.core import agreement, consensus_intake, scoring
from miner.core import machine as miner_machine
from miner.core import values as mv
from tools.sim.faults import FAULTS
from tools.sim.run import Options, run

Patch = Callable[[pytest.MonkeyPatch], None]
CALM = frozenset[str]()
ALL = frozenset(FAULTS)


@dataclass(frozen=True)
class Mutant:
    """A bug, the runs that should show it, and the violation that is expected: without one, a bug that only crashes
    because an argument is missing would count as caught."""

    patch: Patch
    said: str
    options: Options
    seeds: range = range(10)


def make_lenient(monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[bytes, object], object]) -> None:
    """The miners' rules of a block with one part replaced; the checker keeps the true ones."""
    apply_block, process_block = blocks.apply_block, blocks.process_block

    def apply_leniently(state, header_bytes, *rest):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(blocks, name, make(header_bytes, getattr(blocks, name)))
            return apply_block(state, header_bytes, *rest)

    def process_leniently(state, block, *rest):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(blocks, name, make(block.header_bytes, getattr(blocks, name)))
            return process_block(state, block, *rest)

    monkeypatch.setattr(agreement, "apply_block", apply_leniently)
    monkeypatch.setattr(agreement, "process_block", process_leniently)


def accept_just_two_thirds(monkeypatch):
    monkeypatch.setattr(ValidatorSet, "is_quorum", lambda self, power: 3 * power >= 2 * self.total_power)


def precommit_with_one_third(monkeypatch):
    def is_enough(state, view, vote_type, block_hash):
        power = message_log._compute_power_for(state, view, vote_type, block_hash)
        is_prevote = vote_type is VoteType.PREVOTE
        return (state.config.validators.is_one_honest if is_prevote else state.config.validators.is_quorum)(power)

    monkeypatch.setattr(bft, "is_quorum_for", is_enough)


def vote_before_disk(monkeypatch):
    true = miner_machine.step

    def step(state, event, *clocks):
        after, effects = true(state, event, *clocks)
        return after, tuple(sorted(effects, key=lambda effect: isinstance(effect, mv.SaveVote)))

    monkeypatch.setattr(miner_machine, "step", step)


def keep_the_first_validators(monkeypatch):
    true = agreement.build_bft_config
    first: dict[bytes, ValidatorSet] = {}

    def build(config, state):
        made = true(config, state)
        return replace(made, validators=first.setdefault(state.chain, made.validators))

    monkeypatch.setattr(agreement, "build_bft_config", build)


def forget_votes_on_restart(monkeypatch):
    true = miner_machine.build_miner_state
    monkeypatch.setattr(miner_machine, "build_miner_state", lambda config, standing, *own: true(config, standing))


def do_not_count_a_certificates_power(monkeypatch):
    true = certificate.verify_certificate

    def verify(*arguments, **known):
        try:
            return true(*arguments, **known)
        except BadCertificate as error:
            if "only power" not in str(error):
                raise
            return None

    monkeypatch.setattr(agreement, "verify_certificate", verify)


def do_not_check_a_certificates_signatures(monkeypatch):
    true = certificate.verify_certificate

    def verify(*arguments, **known):
        try:
            return true(*arguments, **known)
        except BadCertificate as error:
            if "the signature of" not in str(error):
                raise
            return None

    monkeypatch.setattr(agreement, "verify_certificate", verify)


def accept_any_proposer(monkeypatch):
    true = bft.on_proposal

    def on_proposal(state, proposal, *is_good):
        config = replace(state.config, proposer_of=lambda view: proposal.proposer)
        after, effects = true(replace(state, config=config), proposal, *is_good)
        return replace(after, config=state.config), effects

    monkeypatch.setattr(bft, "on_proposal", on_proposal)


def skip_the_proof_of_lock(monkeypatch):
    true = message_log.is_quorum_for

    def is_quorum_for(state, view, vote_type, block_hash):
        is_proof = vote_type is VoteType.PREVOTE and view < state.view
        return is_proof or true(state, view, vote_type, block_hash)

    monkeypatch.setattr(bft, "is_quorum_for", is_quorum_for)


def accept_any_settlement(monkeypatch):
    make_lenient(monkeypatch, "_verify_settlement", lambda header, true: lambda after, body: None)


def accept_any_state_root(monkeypatch):
    def make(header_bytes, true):
        root = decode_struct(header_bytes, Header, HEADER_BYTES_MAX).state_root
        return lambda *arguments: msgspec.structs.replace(true(*arguments), state_root=root)

    make_lenient(monkeypatch, "_build_header", make)


def pay_twice_what_is_minted(monkeypatch):
    true = orders.credit
    monkeypatch.setattr(settlement, "credit", lambda state, amounts: true(true(state, amounts), amounts))


def count_votes_of_past_heights(monkeypatch):
    true, true_other = consensus_intake._verify, consensus_intake._on_other_height

    def verify(state, letter):
        validator = find_validator(state.chain, letter.sender)
        if letter.kind is not Kind.VOTE or letter.number > state.chain.height or validator is None:
            return true(state, letter)
        said = verify_letter(letter, state.chain.chain, validator.public_key)
        message = msgspec.structs.replace(said.message, height=state.chain.height + 1)
        return msgspec.structs.replace(said, message=message)

    def on_other_height(state, letter, packet):
        is_past = letter.kind is Kind.VOTE and letter.number <= state.chain.height
        is_validators = find_validator(state.chain, letter.sender) is not None
        is_taken = is_past and is_validators
        return consensus_intake.on_vote(state, letter) if is_taken else true_other(state, letter, packet)

    monkeypatch.setattr(consensus_intake, "_verify", verify)
    monkeypatch.setattr(consensus_intake, "_on_other_height", on_other_height)


def say_nothing_twice(monkeypatch):
    monkeypatch.setattr(agreement, "on_gossip_timer", lambda state: (state, ()))
    monkeypatch.setattr(scoring, "repeat_scores", lambda state: ())


def stay_in_the_first_view(monkeypatch):
    true = bft.on_timeout
    step = bft.Step.PRECOMMIT
    monkeypatch.setattr(bft, "on_timeout", lambda s, timeout: (s, ()) if timeout.step is step else true(s, timeout))


def vote_for_blocks_that_break_a_rule(monkeypatch):
    true = bft.on_proposal
    monkeypatch.setattr(bft, "on_proposal", lambda state, proposal, *is_good: true(state, proposal, True))


def never_lock(monkeypatch):
    def unlock(true: Callable[..., bft.Transition]) -> Callable[..., bft.Transition]:
        def on_event(*arguments: object) -> bft.Transition:
            after, effects = true(*arguments)
            return replace(after, locked_hash=None, locked_view=-1), effects

        return on_event

    for name in ("on_start", "on_value", "on_proposal", "on_vote", "on_timeout"):
        monkeypatch.setattr(bft, name, unlock(getattr(bft, name)))


def open_a_lock_without_a_proof(monkeypatch):
    true = bft.is_lock_open
    monkeypatch.setattr(bft, "is_lock_open", lambda state, proposal: proposal.valid_view == -1 or true(state, proposal))


def open_a_lock_by_an_older_proof(monkeypatch):
    true = bft.is_lock_open
    monkeypatch.setattr(bft, "is_lock_open", lambda state, proposal: proposal.valid_view >= 0 or true(state, proposal))


def never_release_a_lock(monkeypatch):
    def is_lock_open(state, proposal):
        return state.locked_hash is None or state.locked_hash == proposal.block_hash

    monkeypatch.setattr(bft, "is_lock_open", is_lock_open)


def say_scores_before_disk(monkeypatch):
    true = agent_machine.step

    def step(state, event, *clocks):
        after, effects = true(state, event, *clocks)
        return after, tuple(sorted(effects, key=lambda effect: isinstance(effect, av.SaveScores)))

    monkeypatch.setattr(agent_machine, "step", step)


def score_what_is_there(monkeypatch):
    def has_any(state):
        return state.phase in (Phase.SCORE, Phase.SETTLE) and bool(state.updates)

    monkeypatch.setattr(follow.LightState, "has_all_updates", property(has_any))


def leave_the_scorer_out_of_its_commitment(monkeypatch):
    true = messages.compute_score_commitment
    for module in (transactions, scores_of_all):
        monkeypatch.setattr(module, "compute_score_commitment", lambda name, sender, reveal: true(name, NOBODY, reveal))


class EqualToAll(bytes):
    """A hash that every comparison takes for the expected one."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def take_payloads_without_comparing(monkeypatch):
    monkeypatch.setattr(follow, "hash_model", lambda model: EqualToAll(hash_model(model)))


def forget_what_is_carried(monkeypatch):
    monkeypatch.setattr(follow, "decode_carried", lambda data, start: start)


def take_no_answers(monkeypatch):
    rules = {key: rule for key, rule in transitions.PACKET_RULES.items() if key[0] != "to"}
    monkeypatch.setattr(transitions, "PACKET_RULES", rules)


NOBODY = Address(b"")
LOCKS = Options(0, 4, 1, 1, ALL - {"stake"}, 12, ("lock-one",))
MUTANTS: dict[str, Mutant] = {
    "the lock is dropped": Mutant(never_lock, "against its lock", LOCKS),
    "a lock opens without a proof": Mutant(open_a_lock_without_a_proof, "against its lock", LOCKS),
    "a lock opens by an older proof": Mutant(open_a_lock_by_an_older_proof, "against its lock", LOCKS),
    "a lock is never released": Mutant(never_release_a_lock, "stalled", LOCKS),
    "validators are those of the genesis for ever": Mutant(
        keep_the_first_validators, "only power", Options(0, 4, 1, 0, frozenset({"stake"}), 25)
    ),
    "two thirds are a quorum": Mutant(accept_just_two_thirds, "only power", Options(0, 6, 1, 1, CALM, 4, ("score",))),
    "a third of prevotes is enough": Mutant(
        precommit_with_one_third, "without a quorum of prevotes", Options(0, 4, 1, 0, CALM, 4)
    ),
    "votes leave before they are stored": Mutant(vote_before_disk, "not on its disk", Options(0, 4, 1, 0, CALM, 4)),
    "votes are forgotten on restart": Mutant(
        forget_votes_on_restart, "contradicts itself", Options(0, 4, 1, 0, frozenset({"crash", "disk", "slow"}), 25)
    ),
    "a certificate's power is not counted": Mutant(
        do_not_count_a_certificates_power, "bad block", Options(0, 4, 1, 1, CALM, 15, ("forge",))
    ),
    "a certificate's signatures are not checked": Mutant(
        do_not_check_a_certificates_signatures, "bad block", Options(0, 4, 1, 1, CALM, 15, ("forge",))
    ),
    "anyone may propose": Mutant(
        accept_any_proposer, "accuses an honest miner", Options(0, 4, 1, 1, CALM, 15, ("invalid",))
    ),
    "a proof of lock is not looked at": Mutant(
        skip_the_proof_of_lock,
        "proof of lock that does not exist",
        Options(0, 4, 1, 1, ALL, 25, ("false-proof",)),
    ),
    "any settlement is accepted": Mutant(
        accept_any_settlement, "the settlement is not", Options(0, 4, 1, 1, CALM, 20, ("invalid",))
    ),
    "any state root is accepted": Mutant(
        accept_any_state_root, "state_root", Options(0, 4, 1, 1, CALM, 20, ("invalid",))
    ),
    "twice the reward is paid": Mutant(pay_twice_what_is_minted, "minted", Options(0, 4, 1, 0, CALM, 8)),
    "votes of past heights count": Mutant(
        count_votes_of_past_heights, "accuses an honest miner", Options(0, 4, 1, 1, ALL, 20, ("replay",))
    ),
    "nothing is said twice": Mutant(say_nothing_twice, "stalled", Options(0, 4, 1, 1, ALL, 20, ("withhold",))),
    "no view follows the first": Mutant(stay_in_the_first_view, "stalled", Options(0, 4, 1, 1, CALM, 10, ("invalid",))),
    "blocks that break a rule are voted for": Mutant(
        vote_for_blocks_that_break_a_rule,
        "consensus decides valid blocks only",
        Options(0, 4, 1, 1, CALM, 15, ("invalid",)),
    ),
    "scores leave before they are stored": Mutant(
        say_scores_before_disk, "SCORE_COMMIT that is not on its disk", Options(0, 4, 2, 0, CALM, 8)
    ),
    "a device scores though updates may be missing": Mutant(
        score_what_is_there, "scores other updates", Options(0, 4, 5, 0, ALL - {"stake"}, 25, mining=5)
    ),
    "a light device does not compare the model's hash": Mutant(
        take_payloads_without_comparing, "holds another model", Options(0, 4, 3, 1, CALM, 12, ("payload",), mining=0)
    ),
    "a full device forgets what is carried when it restarts": Mutant(
        forget_what_is_carried, "computes another model", Options(0, 4, 3, 0, frozenset({"crash"}), 25, mining=3)
    ),
    "a device that was away takes no answer": Mutant(
        take_no_answers, "stalled", Options(0, 4, 3, 0, frozenset({"crash"}), 30), range(2, 4)
    ),
    "a commitment to scores does not name its scorer": Mutant(
        leave_the_scorer_out_of_its_commitment, "copied scores", Options(0, 4, 2, 1, CALM, 8, ("device-copy",))
    ),
}


def get_seeds(mutant: Mutant) -> range:
    first, _, last = os.environ.get("FLCHAIN_MUTANT_SEEDS", "").partition("-")
    return range(int(first), int(last)) if last else mutant.seeds


@pytest.mark.parametrize("name", MUTANTS)
def test_simulator_catches_the_mutant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this bug in every honest miner one of the seeds ends with the violation that the bug leads to."""
    mutant = MUTANTS[name]
    mutant.patch(monkeypatch)
    other: list[str] = []
    for seed in get_seeds(mutant):
        violations = run(replace(mutant.options, seed=seed))[1].violations
        if any(mutant.said in violation for violation in violations):
            print(f"{name}: caught by seed {seed}: {violations[0]}")
            return
        other += violations
    raise AssertionError(f"{name}: not caught; {other[:5]}")
