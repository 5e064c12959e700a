"""What a vector can ask of the rules. Rules are looked up in their modules at each call, never copied at import."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from flchain import chain, messages, orders, phases, settle, state_tree, wire
from flchain.consensus import dpos
from flchain.state import ChainState

Given = dict[str, Any]
Outcome = dict[str, Any]
"""Recorded as it is; a state under the name "after" as what has changed since the state before."""


def describe_state(after: ChainState, **more: Any) -> Outcome:
    """A state after, and its root."""
    return {"after": after, "root": state_tree.compute_state_root(after), **more}


def process_message(before: ChainState, given: Given) -> Outcome:
    """One transaction: opened, verified and processed."""
    envelope = wire.open_envelope(given["raw"], before.chain)
    message = chain.verify_transaction(before, envelope)
    return describe_state(chain.process_transaction(before, message, envelope.sender))


def process_order(before: ChainState, given: Given) -> Outcome:
    """One order: opened, verified and processed."""
    envelope = wire.open_envelope(given["raw"], before.chain)
    message = orders.verify_order(before, envelope)
    return describe_state(orders.process_order(before, message, envelope.sender))


def apply_block(before: ChainState, given: Given) -> Outcome:
    """A block as a peer sends it."""
    block, after = chain.apply_block(before, given["header"], given["body"])
    return describe_state(after, hash=block.hash)


def build_block(before: ChainState, given: Given) -> Outcome:
    """A block made of messages in any order: its bytes, and the state after it."""
    given_parts = given["proposer"], given["transactions"], given["orders"], given["clock_ms"]
    block, after = chain.build_block(before, *given_parts)
    return describe_state(after, header=block.header_bytes, body=block.body_bytes)


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
    settlement = settle.compute_settlement(before)
    return describe_state(settle.process_settlement(before, settlement), accepted=settlement.accepted)


def process_settlement(before: ChainState, given: Given) -> Outcome:
    """The state after a given settlement."""
    return describe_state(settle.process_settlement(before, messages.Settlement(given["accepted"])))


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
    **dict.fromkeys(("scale_stakes", "cap_powers", "split_reward", "compute_slashed", "elect"), dpos),
}
"""The module that each function is in."""

OPERATIONS: dict[str, Callable[[ChainState, Given], Outcome]] = {
    "process_message": process_message,
    "process_order": process_order,
    "apply_block": apply_block,
    "build_block": build_block,
    "describe_phase": describe_phase,
    "settle_round": settle_round,
    "process_settlement": process_settlement,
    "elect": elect,
    "mature": mature,
    "call": call,
}
