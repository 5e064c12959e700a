"""Vectors of orders about money and stake: payments, candidates, delegation, the way back, and leaving jail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flchain.base.crypto import Identity
from flchain.ledger.state import Unbonding
from flchain.wire.messages import AnyMessage, Delegate, Phase, Register, Reveal, Transfer, Undelegate, Unjail
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    BOTH,
    DEVICES,
    HOLDERS,
    MINERS,
    PLAIN_DEVICES,
    ROUND,
    STRANGER,
    WORLD,
    get_account,
    seal,
    untyped,
    with_account,
    with_candidate,
    with_params,
    with_round,
)

OP = "process_order"
FEE, BOND_MIN, STAKE_MIN = 7, 811, 47
"""As in the world's parameters, written out here."""
ACCOUNTS_MAX, CANDIDATES_MAX, DELEGATIONS_MAX = 4_096, 256, 4_096
NOT_A_KEY = bytes(31) + b"\x80"
REFUSED, POOR = "refused-order", "insufficient-funds"


def build(to: Recorder) -> None:
    """All vectors of orders except evidence."""
    _build_turns(to)
    _build_transfers(to)
    _build_registers(to)
    _build_delegates(to)
    _build_undelegates(to)
    _build_unjails(to)


def order(key: Identity, kind: type[AnyMessage], *fields: Any, ahead: int = 0) -> bytes:
    """A signed order under the sender's next sequence number in the world, or one `ahead` of it."""
    return seal(kind(get_account(WORLD, key).sequence + ahead, *fields), key)


def _build_turns(to: Recorder) -> None:
    """What all orders share: a known account, its signature, its next number, the fee."""
    pay = HOLDERS[1], Transfer, HOLDERS[2].public_key, 1_001
    good = order(*pay)
    claim = "An order's number is the next one of its sender."
    for name, ahead in (("repeated", -1), ("skipping one", 1)):
        raw = order(*pay, ahead=ahead)
        to.add(f"turn, {name}", claim, OP, WORLD, raw=raw, error="wrong-sequence")
    stranger = seal(Transfer(0, HOLDERS[2].public_key, 1_001), STRANGER)
    to.add("turn, of no account", "Only accounts order.", OP, WORLD, raw=stranger, error="unknown-sender")
    broken = good[:-1] + bytes((good[-1] ^ 1,))
    to.add("turn, bad signature", "An order is signed.", OP, WORLD, raw=broken, error="bad-signature")
    update = seal(Reveal(ROUND, bytes(16), 1, b""), DEVICES[0])
    to.add("turn, an update", "A transaction is no order.", OP, WORLD, raw=update, error="malformed")
    foreign = seal(Transfer(get_account(WORLD, HOLDERS[1]).sequence, HOLDERS[2].public_key, 1), HOLDERS[1], bytes(32))
    to.add("turn, of another chain", "Orders name their chain.", OP, WORLD, raw=foreign, error="wrong-chain")
    claim = "The fee is taken first, and burned: what it does not leave cannot be paid."
    for name, balance, error in (("just enough", 1_001 + FEE, None), ("one too few", 1_000 + FEE, POOR)):
        before = with_account(WORLD, HOLDERS[1], balance=balance)
        to.add(f"turn, {name}", claim, OP, before, raw=good, error=error)
    broke = with_account(WORLD, MINERS[5], balance=FEE - 1)
    claim = "Even an order that moves no money costs its fee."
    to.add("turn, no fee left", claim, OP, broke, raw=order(MINERS[5], Unjail), error=POOR)
    free = with_params(WORLD, order_fee=0)
    to.add("turn, without a fee", "A chain may ask for no fee.", OP, free, raw=good)


def _build_transfers(to: Recorder) -> None:
    def pay(key: Identity, amount: int) -> bytes:
        return order(HOLDERS[1], Transfer, key.public_key, amount)

    to.add("transfer, to a device", "A payment to an account.", OP, WORLD, raw=pay(DEVICES[2], 1_001))
    to.add("transfer, of one", "A known account may be paid any amount.", OP, WORLD, raw=pay(DEVICES[2], 1))
    to.add("transfer, to oneself", "A payment to oneself costs the fee.", OP, WORLD, raw=pay(HOLDERS[1], 1_001))
    all_of_it = get_account(WORLD, HOLDERS[1]).balance - FEE
    to.add("transfer, of everything", "All can be paid.", OP, WORLD, raw=pay(DEVICES[2], all_of_it))
    claim = "More than all cannot."
    to.add("transfer, of more", claim, OP, WORLD, raw=pay(DEVICES[2], all_of_it + 1), error=POOR)
    to.add("transfer, to a new account", "An account is made for a new key.", OP, WORLD, raw=pay(STRANGER, STAKE_MIN))
    claim = "Nobody fills the state with dust."
    to.add("transfer, dust", claim, OP, WORLD, raw=pay(STRANGER, STAKE_MIN - 1), error=REFUSED)
    raw = order(HOLDERS[1], Transfer, NOT_A_KEY, 1_001)
    to.add("transfer, to no key", "No account for what is no key.", OP, WORLD, raw=raw, error=REFUSED)
    for name, count, error in (("last", ACCOUNTS_MAX - 1, None), ("one too many", ACCOUNTS_MAX, REFUSED)):
        claim = "There are at most so many accounts."
        to.add(f"transfer, {name}", claim, OP, WORLD, fill={"accounts": count}, raw=pay(STRANGER, 555), error=error)
    claim = "To a known account anybody can pay when the table is full."
    to.add("transfer, in a full table", claim, OP, WORLD, fill={"accounts": ACCOUNTS_MAX}, raw=pay(DEVICES[2], 3))
    none = order(HOLDERS[1], Transfer, DEVICES[2].public_key, 0)
    to.add("transfer, of nothing", "A payment is of something.", OP, WORLD, raw=none, error="malformed")
    claim = "Orders are carried out in every phase of a round."
    for phase in Phase:
        before = with_round(WORLD, phase=phase)
        to.add(f"transfer, in {phase.name}", claim, OP, before, raw=pay(DEVICES[2], 1_001))


def _build_registers(to: Recorder) -> None:
    new = HOLDERS[1]
    for name, amount, error in (("least bond", BOND_MIN, None), ("one too few", BOND_MIN - 1, REFUSED)):
        claim = "A candidate bonds at least the minimum; judged up to the height it came at, known by its own key."
        to.add(f"register, {name}", claim, OP, WORLD, raw=order(new, Register, 1_234, amount), error=error)
    raw = order(PLAIN_DEVICES[1], Register, 0, 5_005)
    to.add("register, a device", "A device may stand as well, without commission.", OP, WORLD, raw=raw)
    for share, error in ((10_000, None), (10_001, "malformed")):
        raw = order(new, Register, share, 5_005)
        to.add(f"register, commission {share}", "At most all is commission.", OP, WORLD, raw=raw, error=error)
    for key, name in ((MINERS[0], "seated"), (MINERS[4], "unseated"), (MINERS[5], "jailed")):
        raw = order(key, Register, 1_234, 5_005)
        to.add(f"register, {name} already", "Nobody stands twice.", OP, WORLD, raw=raw, error=REFUSED)
    rich = order(new, Register, 1_234, get_account(WORLD, new).balance - FEE)
    to.add("register, with everything", "All may be bonded.", OP, WORLD, raw=rich)
    richer = order(new, Register, 1_234, get_account(WORLD, new).balance - FEE + 1)
    to.add("register, with more", "Not more than all.", OP, WORLD, raw=richer, error=POOR)
    raw = order(new, Register, 1_234, 5_005)
    for name, count, error in (("last", CANDIDATES_MAX - 1, None), ("one too many", CANDIDATES_MAX, REFUSED)):
        claim = "There are at most so many candidates."
        to.add(f"register, {name}", claim, OP, WORLD, fill={"candidates": count}, raw=raw, error=error)
    full = {"delegations": DELEGATIONS_MAX}
    claim = "A bond is a delegation: in a full table there is no room for it."
    to.add("register, no room for the bond", claim, OP, WORLD, fill=full, raw=raw, error=REFUSED)


def _build_delegates(to: Recorder) -> None:
    def put(candidate: Identity, amount: int, key: Identity = HOLDERS[2]) -> bytes:
        return order(key, Delegate, candidate.address, amount)

    to.add("delegate, anew", "Stake behind a candidate, in order.", OP, WORLD, raw=put(MINERS[3], 1_999))
    to.add("delegate, more", "More stake behind the same one adds up.", OP, WORLD, raw=put(MINERS[2], 1_999))
    to.add("delegate, behind oneself", "It raises the bond.", OP, WORLD, raw=put(MINERS[4], 1_999, MINERS[4]))
    to.add("delegate, to a jailed one", "Whom nobody can elect may be backed.", OP, WORLD, raw=put(MINERS[5], 1_999))
    to.add("delegate, the least", "The least stake.", OP, WORLD, raw=put(MINERS[3], STAKE_MIN))
    claim = "No dust, not even on top of more."
    to.add("delegate, dust", claim, OP, WORLD, raw=put(MINERS[3], STAKE_MIN - 1), error=REFUSED)
    to.add("delegate, dust on top", claim, OP, WORLD, raw=put(MINERS[2], STAKE_MIN - 1), error=REFUSED)
    to.add(
        "delegate, to a device", "A device is no candidate.", OP, WORLD, raw=put(PLAIN_DEVICES[0], 99), error=REFUSED
    )
    to.add("delegate, to a stranger", "Nobody unknown is.", OP, WORLD, raw=put(STRANGER, 99), error=REFUSED)
    everything = get_account(WORLD, HOLDERS[2]).balance - FEE
    to.add("delegate, everything", "All can be put behind one.", OP, WORLD, raw=put(MINERS[3], everything))
    to.add("delegate, too much", "More cannot.", OP, WORLD, raw=put(MINERS[3], everything + 1), error=POOR)
    last, full = {"delegations": DELEGATIONS_MAX - 1}, {"delegations": DELEGATIONS_MAX}
    claim = "There are at most so many delegations, and what is there may grow."
    to.add("delegate, last", claim, OP, WORLD, fill=last, raw=put(MINERS[3], 99))
    to.add("delegate, one too many", claim, OP, WORLD, fill=full, raw=put(MINERS[3], 99), error=REFUSED)
    to.add("delegate, more in a full table", claim, OP, WORLD, fill=full, raw=put(MINERS[2], 99))


def _build_undelegates(to: Recorder) -> None:
    held, bond = 5_009, 4_001 + 613 * 2

    def take(amount: int, candidate: Identity = MINERS[2], key: Identity = HOLDERS[2]) -> bytes:
        return order(key, Undelegate, candidate.address, amount)

    to.add("undelegate, a part", "What is taken back waits at the end.", OP, WORLD, raw=take(1_009))
    to.add("undelegate, all", "Nothing is left of the delegation.", OP, WORLD, raw=take(held))
    to.add("undelegate, more", "More than there is cannot come back.", OP, WORLD, raw=take(held + 1), error=POOR)
    to.add("undelegate, down to the least", "The least may stay.", OP, WORLD, raw=take(held - STAKE_MIN))
    claim = "No dust is left behind."
    to.add("undelegate, down to dust", claim, OP, WORLD, raw=take(held - STAKE_MIN + 1), error=REFUSED)
    to.add("undelegate, of nothing", "Nothing was there.", OP, WORLD, raw=take(99, MINERS[3]), error=POOR)
    to.add("undelegate, the bond", "A bond may be taken back.", OP, WORLD, raw=take(bond, MINERS[2], MINERS[2]))
    to.add("undelegate, from a jailed one", "Jail holds no stake.", OP, WORLD, raw=take(907, MINERS[5], HOLDERS[3]))
    mine = [Unbonding(HOLDERS[2].address, MINERS[i % 4].address, untyped(3 + i), None) for i in range(8)]
    others = WORLD.unbondings
    for name, count, error in (("eighth", 6, None), ("ninth", 7, REFUSED)):
        # The world has one of this account already.
        before = replace(WORLD, unbondings=(*others, *mine[:count]))
        claim = "An account has at most eight amounts on their way back, whoever else has more."
        to.add(f"undelegate, the {name}", claim, OP, before, raw=take(1_009), error=error)


def _build_unjails(to: Recorder) -> None:
    raw = order(MINERS[5], Unjail)
    for until, error in ((ROUND, None), (ROUND - 1, None), (ROUND + 1, REFUSED)):
        before = with_candidate(WORLD, MINERS[5], jailed_until=until)
        claim = "Who has served its time may ask to be elected again."
        to.add(f"unjail, until round {until}", claim, OP, before, raw=raw, error=error)
    free = order(MINERS[0], Unjail)
    to.add("unjail, free", "Nobody leaves a jail it is not in.", OP, WORLD, raw=free, error=REFUSED)
    raw = order(HOLDERS[0], Unjail)
    to.add("unjail, no candidate", "Only candidates are jailed.", OP, WORLD, raw=raw, error=REFUSED)
    both = with_candidate(WORLD, BOTH, is_jailed=True, jailed_until=ROUND)
    claim = "A validator that was jailed and kept its seat comes free with all that it has."
    to.add("unjail, with a seat", claim, OP, both, raw=order(BOTH, Unjail))
