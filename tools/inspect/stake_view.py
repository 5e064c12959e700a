"""What a ledger says about stake: candidates, and one account. Read from the file alone, with every block checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flchain.base.types import MS_PER_S, Address
from flchain.ledger.genesis import Genesis
from flchain.ledger.state import Candidate, ChainState, find_account, get_delegation, get_stake
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct
from flchain.wire.messages import Body
from miner.edge.ledger.file import open_ledger_file
from miner.edge.ledger.ledger import replay_block


class LedgerView:
    """The newest state in a ledger to which its miner may be writing; `read_on` continues with what has come since."""

    def __init__(self, path: Path) -> None:
        """Read the whole ledger. Raise ConfigError or LedgerCorrupt."""
        self.path = path
        with open_ledger_file(path) as ledger:
            genesis, start = ledger.load_start()
        self.genesis: Genesis = genesis
        self.state: ChainState = start.chain
        self.read_on()

    def read_on(self, order: bytes | None = None) -> int | None:
        """Go to the newest block; return the height of the one with `order`, if it is among the new ones."""
        found = None
        with open_ledger_file(self.path) as ledger:
            for row in ledger.iterate_blocks(self.state.height + 1):
                self.state = replay_block(self.state, row)
                if order is not None and order in decode_struct(row.body, Body, BODY_BYTES_MAX).orders:
                    found = int(self.state.height)
        return found


def _to_candidate_json(state: ChainState, candidate: Candidate) -> dict[str, Any]:
    total = sum(validator.power for validator in state.validators)
    return {
        "address": candidate.address.hex(),
        "stake": get_stake(state, candidate.address),
        "bond": get_delegation(state, candidate.address, candidate.address),
        "power": candidate.power,
        "power_percent": round(100 * candidate.power / total, 2),
        "commission_percent": candidate.commission_bp / 100,
        "knowledge": candidate.knowledge,
        "reputation": candidate.reputation,
        "is_jailed": candidate.is_jailed,
        "jailed_until_round": candidate.jailed_until if candidate.is_jailed else None,
    }


def _to_account_json(state: ChainState, address: Address) -> dict[str, Any] | None:
    account = find_account(state, address)
    if account is None:
        return None
    return {
        "address": address.hex(),
        "balance": account.balance,
        "sequence": account.sequence,
        "delegations": [
            {"candidate": d.candidate.hex(), "amount": d.amount} for d in state.delegations if d.delegator == address
        ],
        "unbondings": [
            {"candidate": u.candidate.hex(), "amount": u.amount, "due_ms": u.due_ms}
            for u in state.unbondings
            if u.delegator == address
        ],
    }


def to_json(name: str, state: ChainState, address: Address | None) -> dict[str, Any]:
    """Return everything that `show` prints, for programs; amounts are in the chain's smallest unit."""
    ranked = sorted(state.candidates, key=lambda c: (-c.power, -get_stake(state, c.address), c.address))
    params = state.params
    return {
        "chain": name,
        "height": state.height,
        "round": state.round.number,
        "election_after_round": -(-state.round.number // params.epoch_rounds) * params.epoch_rounds,
        "seats": params.seats,
        "bond_min": params.bond_min,
        "stake_min": params.stake_min,
        "order_fee": params.order_fee,
        "unbonding_s": params.unbonding_s,
        "time_ms": state.time_ms,
        "candidates": [_to_candidate_json(state, candidate) for candidate in ranked],
        "account": _to_account_json(state, address) if address is not None else None,
    }


def format_view(found: dict[str, Any], asked: Address | None) -> str:
    """Return `to_json`'s result as lines for people."""
    lines = [
        f"{found['chain']}, height {found['height']}, round {found['round']}; the next election ends round "
        f"{found['election_after_round']}",
        f"{found['seats']} seats, a bond of at least {found['bond_min']}, an order costs {found['order_fee']}",
        "",
        f"{'candidate':<40} {'stake':>12} {'own':>12} {'power':>7} {'comm.':>6} {'knowl.':>6} {'reput.':>6}  jail",
    ]
    for c in found["candidates"]:
        power = f"{c['power_percent']:.1f} %" if c["power"] else "-"
        jail = f"until round {c['jailed_until_round']}, then unjail" if c["is_jailed"] else "-"
        lines.append(
            f"{c['address']:<40} {c['stake']:>12} {c['bond']:>12} {power:>7} {c['commission_percent']:>4.0f} % "
            f"{c['knowledge']:>6} {c['reputation']:>6}  {jail}"
        )
    if asked is not None:
        lines += ["", *_format_account(found, asked)]
    return "\n".join(lines)


def _format_account(found: dict[str, Any], asked: Address) -> list[str]:
    account = found["account"]
    if account is None:
        return [f"account {asked.hex()}: none yet; the first transfer to its public key makes it"]
    lines = [f"account {account['address']}: balance {account['balance']}, next order {account['sequence']}"]
    lines += [f"  {d['amount']:>12} behind {d['candidate']}" for d in account["delegations"]]
    for item in account["unbondings"]:
        hours = found["unbonding_s"] / 3_600
        when = f"due {hours:.1f} h after the next election"
        if item["due_ms"] is not None:
            when = f"due in {max(0, item['due_ms'] - found['time_ms']) / (MS_PER_S * 3_600):.1f} h"
        lines.append(f"  {item['amount']:>12} being returned from {item['candidate']}, {when}")
    return lines
