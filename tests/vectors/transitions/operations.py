"""What a vector can ask of the rules. Rules are looked up in their modules at each call, never copied at import."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any

import cbor2

from flchain import privacy
from flchain.base import fixedpoint, merkle
from flchain.base.types import View
from flchain.consensus import dpos, pok, proposer
from flchain.incentives import reputation, rewards
from flchain.ledger import block as block_form
from flchain.ledger import certificate, snapshot, state, state_tree
from flchain.ledger.state import ChainState
from flchain.rules import blocks, model_step, orders, phases, scores, settlement, transactions
from flchain.rules.phases import PHASE_KINDS
from flchain.wire import envelope, messages
from tests.vectors.transitions import state_form

Given = dict[str, Any]
Outcome = dict[str, Any]
"""Recorded as it is; a state under the name "after" as what has changed since the state before."""


def describe_state(after: ChainState, **more: Any) -> Outcome:
    """A state after, and its root."""
    return {"after": after, "root": state_tree.compute_state_root(after), **more}


def open_all(state: ChainState, raws: Iterable[bytes]) -> list[envelope.Envelope]:
    """Messages opened, nothing of them verified."""
    return [envelope.open_envelope(raw, state.chain) for raw in raws]


def process_message(before: ChainState, given: Given) -> Outcome:
    """One transaction: opened, verified and processed."""
    said = transactions.verify_transaction(before, envelope.open_envelope(given["raw"], before.chain))
    said = transactions.check_transaction(before, said)
    return describe_state(replace(before, round=transactions.add_transactions(before, said.kind, (said,))))


def process_order(before: ChainState, given: Given) -> Outcome:
    """One order: opened, verified and processed."""
    said = orders.verify_order(before, envelope.open_envelope(given["raw"], before.chain))
    return describe_state(orders.process_order(before, said.message, said.sender))


def apply_block(before: ChainState, given: Given) -> Outcome:
    """A block as a peer sends it. With a clock it is also built, of its own messages in another order."""
    block, after = blocks.apply_block(before, given["header"], given["body"])
    outcome = describe_state(after, hash=block.hash)
    if "clock_ms" in given:
        said, listed, _ = cbor2.loads(given["body"])
        mixed = open_all(before, said[::-1]), open_all(before, listed[::-1])
        parts = given["proposer"], *mixed, given["clock_ms"]
        built, state_built = blocks.build_block(before, *parts)
        outcome |= {
            "built_header": built.header_bytes,
            "is_body_alike": built.body_bytes == given["body"],
            "is_state_alike": state_form.flatten(state_built) == state_form.flatten(after),
        }
    return outcome


def is_in_chain(before: ChainState, given: Given) -> Outcome:
    """Whether a message is in the open round already."""
    letter = envelope.open_envelope(given["raw"], before.chain)
    said = envelope.verify_envelope(letter, before.chain, given["public_key"])
    return {"is_in_chain": transactions.is_in_chain(before, said.message, said.sender)}


def propose(before: ChainState, given: Given) -> Outcome:
    """Who proposes in each of the first views."""
    return {"proposers": [blocks.get_proposer(before, View(view)) for view in range(given["views"])]}


def select(before: ChainState, given: Given) -> Outcome:
    """What of the messages that wait goes into the next block."""
    chosen = blocks.select_transactions(before, open_all(before, given["transactions"]))
    listed = blocks.select_orders(before, open_all(before, given["orders"]))
    after = replace(before, round=transactions.add_transactions(before, PHASE_KINDS[before.round.phase], chosen))
    return describe_state(after, transactions=[one.raw for one in chosen], orders=[one.raw for one in listed])


def describe_phase(before: ChainState, _given: Given) -> Outcome:
    """Whom the phase waits for, who is there, and what is over."""
    return {
        "expected": phases.get_expected(before),
        "present": phases.get_present(before),
        "is_phase_complete": phases.is_phase_complete(before),
        "is_phase_over": phases.is_phase_over(before),
        "is_round_over": phases.is_round_over(before),
    }


def settle_round(before: ChainState, _given: Given) -> Outcome:
    """The settlement that the scores give, and the state after it."""
    made = settlement.compute_settlement(before)
    return describe_state(settlement.process_settlement(before, made), accepted=made.accepted)


def judge_round(before: ChainState, _given: Given) -> Outcome:
    """What the scorers weigh, in general and where each miner is judged; the medians; and who is too far from them."""
    medians = scores.compute_round_scores(before)
    return {
        "weights": scores.get_scorer_weights(before),
        "weights_without": {c.address: scores.get_scorer_weights(before, c.address) for c in before.candidates},
        "base": medians.base,
        "medians": medians.updates,
        "outliers": scores.find_outlying_scorers(before),
    }


def judge_and_settle(before: ChainState, given: Given) -> Outcome:
    """Both: what the scores say, and what settlement makes of it."""
    return judge_round(before, given) | settle_round(before, given)


def process_settlement(before: ChainState, given: Given) -> Outcome:
    """The state after a given settlement."""
    return describe_state(settlement.process_settlement(before, messages.Settlement(given["accepted"])))


def step(before: ChainState, given: Given) -> Outcome:
    """What a settled round does to the model, and the same from the payload alone."""
    parts = before.params, before.model, before.carried, before.round.reveals, given["accepted"]
    taken = model_step.compute_step(*parts, chain=before.chain, number=before.round.number)
    applied = model_step.apply_payload(before.params, before.model, taken.payload)
    return {"model": taken.model, "delta": taken.payload, "carried": taken.carried, "by_delta": applied}


def privatise(_before: ChainState, given: Given) -> Outcome:
    """What a device does to its change before the codec."""
    clip, noise = given["clip_thousandths"] / 1_000, given["noise_thousandths"] / 1_000
    return {"result": privacy.MECHANISMS[given["mechanism"]](given["delta"], clip, noise, given["normals"])}


def list_leaves(before: ChainState, _given: Given) -> Outcome:
    """The leaves, the root, the path of the last leaf; and what is owned, and stands behind each candidate."""
    leaves = state_tree.get_leaves(before)
    path = merkle.build_proof(leaves, len(leaves) - 1)
    stakes = [state.get_stake(before, candidate.address) for candidate in before.candidates]
    sums = {"owned": state.get_owned(before), "stakes": stakes}
    return {"leaves": leaves, "root": state_tree.compute_state_root(before), "path": path, **sums}


def write_snapshot(before: ChainState, _given: Given) -> Outcome:
    """A state as it travels."""
    return {"data": snapshot.encode_state(before)}


def read_snapshot(before: ChainState, given: Given) -> Outcome:
    """A state that has travelled; `before` gives the parameters."""
    return describe_state(snapshot.decode_state(given["data"], given["header"], before.params, given["bytes_max"]))


def write_carried(before: ChainState, _given: Given) -> Outcome:
    """What is carried, as it travels."""
    return {"data": snapshot.build_carried_proof(before)}


def read_carried(before: ChainState, given: Given) -> Outcome:
    """What is carried after it has travelled."""
    header = envelope.decode_struct(given["header"], messages.Header, envelope.HEADER_BYTES_MAX)
    return {"carried": snapshot.verify_carried_proof(given["data"], header, before.params)}


def verify_certificate(before: ChainState, given: Given) -> Outcome:
    """Whether a certificate of the state's validators makes a block final."""
    parts = given["height"], given["block"], given["certificate"]
    found = certificate.verify_certificate(before.chain, before.validators, *parts)
    return {"view": found.view, "signers": [index for index, _ in found.signatures]}


def build_certificate(before: ChainState, given: Given) -> Outcome:
    """A certificate of signatures in any order."""
    return {"certificate": certificate.build_certificate(before.validators, given["view"], given["signatures"])}


def describe_header(_before: ChainState, given: Given) -> Outcome:
    """What a header says about its block."""
    header = envelope.decode_struct(given["header"], messages.Header, envelope.HEADER_BYTES_MAX)
    return {
        "is_settling": block_form.is_settling(header),
        "is_body_for_devices": block_form.is_body_for_devices(header),
    }


def trim_certificate(before: ChainState, given: Given) -> Outcome:
    """As few signatures as are enough."""
    return {"certificate": certificate.trim_certificate(before.validators, given["certificate"])}


def elect(before: ChainState, _given: Given) -> Outcome:
    """An election."""
    return describe_state(orders.process_election(before))


def mature(before: ChainState, _given: Given) -> Outcome:
    """What is due is paid out."""
    return describe_state(orders.process_matured(before))


def call(_before: ChainState, given: Given) -> Outcome:
    """A function of numbers alone."""
    name = given["function"]
    return {"result": getattr(FUNCTIONS[name], name)(*given["arguments"])}


FUNCTIONS: dict[str, ModuleType] = {
    **dict.fromkeys(("scale_stakes", "cap_powers", "compute_slashed", "elect"), dpos),
    **dict.fromkeys(("advance", "compute_pok_weight", "compute_pos_weight", "compute_poq_weight"), proposer),
    **dict.fromkeys(("compute_weighted_median", "compute_knowledge", "compute_idle_knowledge", "find_outliers"), pok),
    **dict.fromkeys(("to_fixed", "to_float", "divide_rounded", "saturate"), fixedpoint),
    **dict.fromkeys(("compute_root", "build_proof", "verify_proof"), merkle),
    "get_totals_hashes": state_tree,
    **dict.fromkeys(("reward_per_update", "reward_by_samples", "split_reward"), rewards),
    "compute_reputation": reputation,
}
"""The module that each function is in."""

OPERATIONS: dict[str, Callable[[ChainState, Given], Outcome]] = {
    "process_message": process_message,
    "process_order": process_order,
    "apply_block": apply_block,
    "is_in_chain": is_in_chain,
    "propose": propose,
    "select": select,
    "describe_phase": describe_phase,
    "settle_round": settle_round,
    "judge_and_settle": judge_and_settle,
    "process_settlement": process_settlement,
    "step": step,
    "privatise": privatise,
    "list_leaves": list_leaves,
    "write_snapshot": write_snapshot,
    "read_snapshot": read_snapshot,
    "write_carried": write_carried,
    "read_carried": read_carried,
    "verify_certificate": verify_certificate,
    "build_certificate": build_certificate,
    "describe_header": describe_header,
    "trim_certificate": trim_certificate,
    "elect": elect,
    "mature": mature,
    "call": call,
}
