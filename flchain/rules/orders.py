"""Orders: payments, candidates and their bonds, delegation, evidence.

An order names the next sequence number of its sender, so that none is processed twice or out of order. Evidence needs
none: an offence is punished once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from flchain.base.crypto import compute_address, is_public_key
from flchain.base.errors import (
    BadEvidence,
    InsufficientFunds,
    InvalidMessage,
    MalformedMessage,
    RefusedOrder,
    UnknownSender,
    WrongHeight,
    WrongSequence,
)
from flchain.base.frozen import replace
from flchain.base.types import MS_PER_S, Address, BasisPoints, Height, Power, Round, Stake, UnixMillis
from flchain.consensus.dpos import cap_powers, compute_slashed
from flchain.ledger.limits import STATE_ROWS_MAX
from flchain.ledger.params import DEVICES_MAX
from flchain.ledger.state import (
    Account,
    Candidate,
    ChainState,
    Delegation,
    Unbonding,
    compute_elected,
    find_account,
    find_candidate,
    get_delegation,
)
from flchain.wire.envelope import Known, Letter, Verified, know_nothing, open_known, verify_letter
from flchain.wire.fields import SMALL_BYTES_MAX, Kind
from flchain.wire.messages import AnyMessage, Delegate, Evidence, Proposal, Register, Transfer, Undelegate, Unjail, Vote

ACCOUNTS_MAX = 4_096
CANDIDATES_MAX = 256
DELEGATIONS_MAX = 4_096
"""Beyond these limits an order is refused; what exists can always be taken back or spent."""
UNBONDINGS_PER_ACCOUNT_MAX = 8
"""A limit per account, not in total: otherwise one account could fill the table with dust and keep everybody's stake
bonded."""
NO_POWER = Power(0)
assert STATE_ROWS_MAX >= (
    ACCOUNTS_MAX * (1 + UNBONDINGS_PER_ACCOUNT_MAX)
    + CANDIDATES_MAX
    + DELEGATIONS_MAX
    + 2 * DEVICES_MAX
    + SMALL_BYTES_MAX
), "a state whose tables are full can be read"

Words: TypeAlias = tuple[Verified, Verified]
"""What an accused candidate has signed."""
OrderKey = tuple[Address, int, Kind, bytes]


def get_order_key(letter: Letter) -> OrderKey:
    """Return the place of an order in a block: by sender, sequence, kind and digest, strictly rising."""
    return letter.sender, letter.number, letter.kind, letter.digest()


def verify_order(state: ChainState, letter: Letter, known: Known = know_nothing) -> Verified:
    """Return the order of a known account, evidence with the words of the accused; its rule is applied later.

    `known` finds messages that this node has verified before. Raises InvalidMessage's subclasses.
    """
    if letter.kind not in ORDER_RULES:
        raise MalformedMessage(f"a {letter.kind.name} is not an order")
    account = find_account(state, letter.sender)
    if account is None:
        raise UnknownSender(f"{letter.sender.hex()} has no account")
    said = verify_letter(letter, state.chain, account.public_key)
    if isinstance(said.message, Evidence) and said.words is None:
        return msgspec.structs.replace(said, words=_verify_words(state, said.message, known))
    return said


def process_order(state: ChainState, message: AnyMessage, sender: Address, words: Words | None = None) -> ChainState:
    """Return the state after one verified order. Raises InvalidMessage's subclasses; then nothing has changed.

    `words` are those of evidence, if they were verified before.
    """
    if isinstance(message, Evidence) and words is not None:
        return _punish(state, _judge(state, message, words))
    if isinstance(message, Transfer | Register | Delegate | Undelegate | Unjail):
        state = _take_turn(state, sender, message.sequence)
    return ORDER_RULES[message.kind](state, message, sender)


def _take_turn(state: ChainState, sender: Address, sequence: int) -> ChainState:
    account = state.accounts_by_address[sender]
    if sequence != account.sequence:
        raise WrongSequence(f"order {sequence} of {sender.hex()}, the next is {account.sequence}")
    fee = state.params.order_fee
    state = _pay(replace(state, burned=state.burned + fee), sender, -fee)
    return _put_account(state, replace(state.accounts_by_address[sender], sequence=sequence + 1))


# --- payments --------------------------------------------------------------------------------------------------------


def _process_transfer(state: ChainState, message: AnyMessage, sender: Address) -> ChainState:
    assert isinstance(message, Transfer)
    if not is_public_key(message.to_key):
        raise RefusedOrder("no account can have this public key")
    to = compute_address(message.to_key)
    state = _pay(state, sender, -message.amount)
    if find_account(state, to) is None:
        _check_dust(state, message.amount)
        _check_room(len(state.accounts), ACCOUNTS_MAX, "accounts")
        accounts = sorted((*state.accounts, Account(to, message.to_key)), key=lambda account: account.address)
        state = replace(state, accounts=tuple(accounts))
    return _pay(state, to, message.amount)


# --- candidates and delegation ---------------------------------------------------------------------------------------


def _process_register(state: ChainState, message: AnyMessage, sender: Address) -> ChainState:
    assert isinstance(message, Register)
    if find_candidate(state, sender) is not None:
        raise RefusedOrder(f"{sender.hex()} is already a candidate")
    if message.amount < state.params.bond_min:
        raise RefusedOrder(f"a bond of {message.amount}, at least {state.params.bond_min} is needed")
    _check_room(len(state.candidates), CANDIDATES_MAX, "candidates")
    commission = BasisPoints(message.commission_bp)
    key = state.accounts_by_address[sender].public_key
    new = Candidate(sender, key, NO_POWER, commission, judged_height=state.height)
    candidates = sorted((*state.candidates, new), key=lambda candidate: candidate.address)
    return _add_stake(replace(state, candidates=tuple(candidates)), sender, sender, message.amount)


def _process_delegate(state: ChainState, message: AnyMessage, sender: Address) -> ChainState:
    assert isinstance(message, Delegate)
    if find_candidate(state, message.candidate) is None:
        raise RefusedOrder(f"{message.candidate.hex()} is not a candidate")
    _check_dust(state, message.amount)
    return _add_stake(state, sender, Address(message.candidate), message.amount)


def _process_undelegate(state: ChainState, message: AnyMessage, sender: Address) -> ChainState:
    assert isinstance(message, Undelegate)
    candidate = Address(message.candidate)
    left = get_delegation(state, sender, candidate) - message.amount
    if left < 0:
        raise InsufficientFunds(f"{left + message.amount} is delegated, not {message.amount}")
    if left:
        _check_dust(state, left)
    own = sum(item.delegator == sender for item in state.unbondings)
    _check_room(own, UNBONDINGS_PER_ACCOUNT_MAX, "unbondings of this account")
    unbonding = Unbonding(sender, candidate, Stake(message.amount))
    return replace(_set_delegation(state, sender, candidate, left), unbondings=(*state.unbondings, unbonding))


def _process_unjail(state: ChainState, message: AnyMessage, sender: Address) -> ChainState:
    assert isinstance(message, Unjail)
    candidate = find_candidate(state, sender)
    if candidate is None or not candidate.is_jailed:
        raise RefusedOrder(f"{sender.hex()} is not in jail")
    if state.round.number < candidate.jailed_until:
        raise RefusedOrder(f"{sender.hex()} is in jail until round {candidate.jailed_until}")
    return _put_candidate(state, replace(candidate, is_jailed=False))


def process_matured(state: ChainState) -> ChainState:
    """Pay out the unbondings that are due, and drop candidates with nothing left behind them."""
    due: dict[Address, int] = {}
    waiting: list[Unbonding] = []
    for item in state.unbondings:
        if item.due_ms is None or item.due_ms > state.time_ms:
            waiting.append(item)
        else:
            due[item.delegator] = due.get(item.delegator, 0) + item.amount
    state = replace(credit(state, due), unbondings=tuple(waiting))
    backed = {d.candidate for d in state.delegations} | {u.candidate for u in state.unbondings}
    backed |= {device.home for device in state.devices}
    return replace(state, candidates=tuple(c for c in state.candidates if c.power or c.address in backed))


def process_election(state: ChainState) -> ChainState:
    """Give the seats to the candidates with the most stake.

    Stake that was taken back gives no power from now on: its unbonding delay begins.
    """
    due_ms = UnixMillis(state.time_ms + state.params.unbonding_s * MS_PER_S)
    unbondings = (replace(u, due_ms=due_ms) if u.due_ms is None else u for u in state.unbondings)
    return replace(state, candidates=compute_elected(state), unbondings=tuple(unbondings))


# --- offences --------------------------------------------------------------------------------------------------------


def _process_evidence(state: ChainState, message: AnyMessage, sender: Address) -> ChainState:
    assert isinstance(message, Evidence)
    return _punish(state, verify_evidence(state, message))


def _punish(state: ChainState, guilty: Candidate) -> ChainState:
    """Slash all stake behind the guilty validator, take its seat if others are left, and put it in jail."""
    judged = Height(state.height + 1)
    until = Round(state.round.number + state.params.jail_rounds)
    has_others = any(validator.address != guilty.address for validator in state.validators)
    power = NO_POWER if has_others else guilty.power
    jailed = replace(guilty, power=power, is_jailed=True, jailed_until=until, judged_height=judged)
    return _slash(_cap_again(_put_candidate(state, jailed)), guilty.address)


def _cap_again(state: ChainState) -> ChainState:
    """Cap the powers anew: with one validator fewer the others' shares grow, and none may exceed the cap."""
    powers = cap_powers([validator.power for validator in state.validators], state.params.power_cap_bp)
    by_address = {validator.address: power for validator, power in zip(state.validators, powers, strict=True)}
    candidates = tuple(replace(c, power=by_address.get(c.address, NO_POWER)) for c in state.candidates)
    return replace(state, candidates=candidates)


def _verify_words(state: ChainState, message: Evidence, known: Known = know_nothing) -> Words:
    """Return the two messages of one candidate that evidence is made of. Raises BadEvidence."""
    try:
        first, second = (open_known(raw, state.chain, known) for raw in (message.first, message.second))
    except InvalidMessage as error:
        raise BadEvidence(f"not two signed messages: {error}") from error
    guilty = find_candidate(state, first.sender)
    if guilty is None or first.sender != second.sender:
        raise BadEvidence("not two messages of one candidate")
    try:
        key = guilty.public_key
        return verify_letter(first, state.chain, key), verify_letter(second, state.chain, key)
    except InvalidMessage as error:
        raise BadEvidence(f"not signed by the accused: {error}") from error


def verify_evidence(state: ChainState, message: Evidence) -> Candidate:
    """Return the candidate that signed two things that exclude each other.

    Raises BadEvidence, or WrongHeight if the offence is too old or has been judged.
    """
    return _judge(state, message, _verify_words(state, message))


def _judge(state: ChainState, message: Evidence, said: Words) -> Candidate:
    """Return the candidate that these verified words convict. Raises what `verify_evidence` does."""
    guilty = find_candidate(state, said[0].sender)
    if guilty is None:
        raise BadEvidence("not two messages of one candidate")
    words = [word.message for word in said]
    if words[0] == words[1] or _get_slot(words[0]) != _get_slot(words[1]):
        raise BadEvidence("the two do not exclude each other")
    if _get_slot(words[0])[1] != message.height:
        raise BadEvidence("the messages are of another height than the evidence says")
    if message.height <= guilty.judged_height:
        raise WrongHeight(f"{guilty.address.hex()} has been judged for height {message.height}")
    if not state.height - state.params.evidence_heights_max <= message.height <= state.height + 1:
        raise WrongHeight(f"an offence at height {message.height} is too old or in the future")
    return guilty


def _get_slot(message: AnyMessage) -> tuple[Kind, int, int, int]:
    """Return the slot in which a validator may say only one thing: kind, height, view, step."""
    if isinstance(message, Vote):
        return message.kind, message.height, message.view, message.step
    if isinstance(message, Proposal):
        return message.kind, message.height, message.view, 0
    raise BadEvidence(f"a {message.kind.name} is not a message of agreement")


def _slash(state: ChainState, candidate: Address) -> ChainState:
    share = BasisPoints(state.params.slash_bp)
    before = sum(d.amount for d in state.delegations) + sum(u.amount for u in state.unbondings)
    delegations = tuple(
        replace(d, amount=compute_slashed(d.amount, share)) if d.candidate == candidate else d
        for d in state.delegations
    )
    unbondings = tuple(
        replace(u, amount=compute_slashed(u.amount, share)) if u.candidate == candidate else u for u in state.unbondings
    )
    after = sum(d.amount for d in delegations) + sum(u.amount for u in unbondings)
    return replace(
        state,
        delegations=tuple(d for d in delegations if d.amount),
        unbondings=tuple(u for u in unbondings if u.amount),
        burned=state.burned + before - after,
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def credit(state: ChainState, amounts: dict[Address, int]) -> ChainState:
    """Add to several balances at once; every address has an account."""
    accounts = (replace(a, balance=Stake(a.balance + amounts.get(a.address, 0))) for a in state.accounts)
    return replace(state, accounts=tuple(accounts)) if amounts else state


def _pay(state: ChainState, address: Address, amount: int) -> ChainState:
    """Add to a balance, or take from it. Raises InsufficientFunds."""
    account = state.accounts_by_address[address]
    if account.balance + amount < 0:
        raise InsufficientFunds(f"{address.hex()} owns {account.balance}, not {-amount}")
    return _put_account(state, replace(account, balance=Stake(account.balance + amount)))


def _put_account(state: ChainState, account: Account) -> ChainState:
    return replace(state, accounts=tuple(account if a.address == account.address else a for a in state.accounts))


def _put_candidate(state: ChainState, candidate: Candidate) -> ChainState:
    candidates = tuple(candidate if c.address == candidate.address else c for c in state.candidates)
    return replace(state, candidates=candidates)


def _add_stake(state: ChainState, delegator: Address, candidate: Address, amount: int) -> ChainState:
    state = _pay(state, delegator, -amount)
    held = get_delegation(state, delegator, candidate)
    if not held:
        _check_room(len(state.delegations), DELEGATIONS_MAX, "delegations")
    return _set_delegation(state, delegator, candidate, held + amount)


def _set_delegation(state: ChainState, delegator: Address, candidate: Address, amount: int) -> ChainState:
    kept = [d for d in state.delegations if (d.delegator, d.candidate) != (delegator, candidate)]
    if amount:
        kept.append(Delegation(delegator, candidate, Stake(amount)))
    return replace(state, delegations=tuple(sorted(kept, key=lambda d: (d.delegator, d.candidate))))


def _check_dust(state: ChainState, amount: int) -> None:
    if amount < state.params.stake_min:
        raise RefusedOrder(f"{amount} is less than the smallest stake, {state.params.stake_min}")


def _check_room(count: int, count_max: int, what: str) -> None:
    if count >= count_max:
        raise RefusedOrder(f"there are already {count_max} {what}")


ORDER_RULES: dict[Kind, Callable[[ChainState, AnyMessage, Address], ChainState]] = {
    Kind.TRANSFER: _process_transfer,
    Kind.REGISTER: _process_register,
    Kind.DELEGATE: _process_delegate,
    Kind.UNDELEGATE: _process_undelegate,
    Kind.UNJAIL: _process_unjail,
    Kind.EVIDENCE: _process_evidence,
}
"""What each kind of order does; evidence alone has no sequence number."""
