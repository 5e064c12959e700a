"""ChainState: all that the chain knows after a block. Frozen; its root is in every header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from flchain.base.crypto import compute_address, hash_tagged
from flchain.base.errors import ConfigError
from flchain.base.fixedpoint import encode_vector
from flchain.base.frozen import replace
from flchain.base.types import Address, BasisPoints, Hash, Height, ModelVector, Power, Round, Stake, UnixMillis
from flchain.codecs import DOWNSTREAM_RULES, Carried, encode_carried
from flchain.codecs.decoded import DecodedUpdate
from flchain.consensus.dpos import cap_powers, elect, scale_stakes
from flchain.ledger.genesis import Genesis
from flchain.ledger.params import ChainParams
from flchain.wire.envelope import encode
from flchain.wire.messages import Phase

REPUTATION_START = BasisPoints(5_000)
KNOWLEDGE_START = BasisPoints(5_000)
NOTHING = Stake(0)
NO_SHARE = BasisPoints(0)
NO_ROUND = Round(0)
NO_HEIGHT = Height(0)


@dataclass(frozen=True)
class Account:
    """What a key owns. `sequence` is the number of its next order. Every device and candidate has an account."""

    address: Address
    public_key: bytes
    balance: Stake = NOTHING
    sequence: int = 0


@dataclass(frozen=True)
class Device:
    """A registered device.

    `absent` counts the rounds it has missed in a row, `unscored` the rounds since the last election that it should have
    scored and did not.
    """

    address: Address
    public_key: bytes
    home: Address
    reputation: BasisPoints = REPUTATION_START
    absent: int = 0
    unscored: int = 0


@dataclass(frozen=True)
class Validator:
    """A miner with voting power: what a certificate is checked against."""

    address: Address
    public_key: bytes
    power: Power


@dataclass(frozen=True)
class Candidate(Validator):
    """A miner that can be elected; power 0 means that it has no seat.

    `knowledge` is its PoK standing, `priority` its place in the order of proposers while it has a seat, `absent` the
    rounds in a row that it has not scored. Before round `jailed_until` it cannot be elected, and while `is_jailed` not
    before it asks to be. Offences up to height `judged_height` have been punished.
    """

    commission_bp: BasisPoints = NO_SHARE
    knowledge: BasisPoints = KNOWLEDGE_START
    reputation: BasisPoints = REPUTATION_START
    priority: int = 0
    absent: int = 0
    is_jailed: bool = False
    jailed_until: Round = NO_ROUND
    judged_height: Height = NO_HEIGHT


@dataclass(frozen=True)
class Delegation:
    """Stake behind a candidate. The candidate's own is its bond."""

    delegator: Address
    candidate: Address
    amount: Stake


@dataclass(frozen=True)
class Unbonding:
    """Stake on its way back: paid out with the first settlement at or after `due_ms`, and slashed like other stake
    until then.

    The delay begins with the next election, and `due_ms` is None until then: until the election this stake gives a seat
    its power, and none may be paid out that devices could still trust.
    """

    delegator: Address
    candidate: Address
    amount: Stake
    due_ms: UnixMillis | None = None


@dataclass(frozen=True)
class RevealedUpdate:
    """An update of the open round: the codec's payload and the weight it claims, already capped."""

    sender: Address
    samples: int
    update: bytes
    decoded: DecodedUpdate | None = field(default=None, repr=False, compare=False)
    """The decoded payload, if it is kept."""


@dataclass(frozen=True)
class RevealedScores:
    """A scorer's scores of the open round: of the base model, of each revealed update in their order, and of each
    aggregate.

    There is one aggregate for each miner whose devices revealed updates, in order of address.
    """

    scorer: Address
    base_score: int
    scores: tuple[int, ...]
    aggregates: tuple[int, ...]


@dataclass(frozen=True)
class RoundState:
    """The open round. Tuples are in order of address.

    `heights` counts the blocks of the present phase; in COMMIT only from the first commitment on.
    """

    number: Round
    phase: Phase
    heights: int = 0
    commits: tuple[tuple[Address, Hash], ...] = ()
    reveals: tuple[RevealedUpdate, ...] = ()
    score_commits: tuple[tuple[Address, Hash], ...] = ()
    score_reveals: tuple[RevealedScores, ...] = ()
    pledges: tuple[Address, ...] = ()
    """Devices that pledged with their commitment to score."""

    @cached_property
    def commitments(self) -> dict[Address, Hash]:
        """The devices' commitments by address."""
        return dict(self.commits)

    @cached_property
    def score_commitments(self) -> dict[Address, Hash]:
        """The scorers' commitments by address."""
        return dict(self.score_commits)


@dataclass(frozen=True, eq=False)
class ChainState:
    """Everything after block `height`.

    Accounts, devices and candidates are in order of address, delegations in order of delegator and candidate,
    unbondings oldest first. `burned` is the part of `minted` that no longer exists.
    """

    chain: Hash
    params: ChainParams
    height: Height
    head: Hash
    time_ms: UnixMillis
    accounts: tuple[Account, ...]
    devices: tuple[Device, ...]
    candidates: tuple[Candidate, ...]
    delegations: tuple[Delegation, ...]
    unbondings: tuple[Unbonding, ...]
    round: RoundState
    model: ModelVector = field(repr=False)
    model_hash: Hash
    carried: Carried = field(repr=False)
    """What the downstream rule carries into the open round: mostly what it has left out of the model so far."""
    carried_hash: Hash
    minted: int
    burned: int = 0
    payload: bytes = field(default=b"", repr=False)
    """The payload of the downstream rule by which the newest settled round changed the model. Empty if it did not, or
    if this state came without it (the model is under the state's root, the payload is not)."""

    @cached_property
    def validators(self) -> tuple[Candidate, ...]:
        """The candidates with a seat, in order of address: the validators of the next block."""
        return tuple(candidate for candidate in self.candidates if candidate.power)

    @cached_property
    def accounts_by_address(self) -> dict[Address, Account]:
        """The accounts by address."""
        return {account.address: account for account in self.accounts}

    @cached_property
    def devices_by_address(self) -> dict[Address, Device]:
        """The devices by address."""
        return {device.address: device for device in self.devices}


def hash_model(model: ModelVector) -> Hash:
    """Return the hash of a model vector's canonical bytes."""
    return hash_tagged("model", encode_vector(model))


def hash_carried(carried: Carried) -> Hash:
    """Return the hash of what the downstream rule carries."""
    return hash_tagged("carried", encode_carried(carried))


def start_carried(params: ChainParams) -> Carried:
    """Return what the chain's downstream rule carries into round 1."""
    return DOWNSTREAM_RULES[params.downstream_codec].start(params.parameters_count, params.downstream_level)


def build_genesis_state(genesis: Genesis, initial_model: ModelVector) -> ChainState:
    """Return the state at height 0. Raises ConfigError if `initial_model` is not the model the genesis names."""
    model_hash = hash_model(initial_model)
    if len(initial_model) != genesis.params.parameters_count or model_hash != genesis.params.initial_model_hash:
        raise ConfigError(("genesis: the initial model is not the one whose hash the genesis holds",))
    owned = {entry.public_key: Stake(entry.balance) for entry in genesis.holders}
    accounts = [Account(compute_address(key), key, owned.get(key, NOTHING)) for key in genesis.get_public_keys()]
    devices = [Device(compute_address(e.public_key), e.public_key, Address(e.home)) for e in genesis.devices]
    candidates = [
        Candidate(compute_address(e.public_key), e.public_key, Power(0), BasisPoints(e.commission_bp))
        for e in genesis.validators
    ]
    bonds = [(compute_address(e.public_key), Stake(e.bond)) for e in genesis.validators]
    chain = genesis.compute_id()
    state = ChainState(
        chain=chain,
        params=genesis.params,
        height=Height(0),
        head=chain,
        time_ms=UnixMillis(genesis.time_ms),
        accounts=tuple(sorted(accounts, key=lambda account: account.address)),
        devices=tuple(sorted(devices, key=lambda device: device.address)),
        candidates=tuple(sorted(candidates, key=lambda candidate: candidate.address)),
        delegations=tuple(Delegation(address, address, bond) for address, bond in sorted(bonds)),
        unbondings=(),
        round=RoundState(Round(1), Phase.OPEN),
        model=initial_model,
        model_hash=model_hash,
        carried=start_carried(genesis.params),
        carried_hash=hash_carried(start_carried(genesis.params)),
        minted=sum(bond for _, bond in bonds) + sum(account.balance for account in accounts),
    )
    return replace(state, candidates=compute_elected(state))


def get_owned(state: ChainState) -> Stake:
    """Return all that is owned, bonded or unbonding: what was minted less what was burned."""
    staked = sum(d.amount for d in state.delegations) + sum(u.amount for u in state.unbondings)
    return Stake(sum(account.balance for account in state.accounts) + staked)


def get_stake(state: ChainState, candidate: bytes) -> Stake:
    """Return all stake behind a candidate."""
    return Stake(sum(item.amount for item in state.delegations if item.candidate == candidate))


def get_delegation(state: ChainState, delegator: bytes, candidate: bytes) -> Stake:
    """Return the stake that one account has put behind a candidate."""
    wanted = (delegator, candidate)
    return next((d.amount for d in state.delegations if (d.delegator, d.candidate) == wanted), NOTHING)


def compute_elected(state: ChainState) -> tuple[Candidate, ...]:
    """Return the candidates after an election: power for the seated, none for the others.

    A candidate is electable if it is not in jail and has bonded enough of its own. If none is, the seats stay as they
    are.
    """
    stakes: dict[Address, int] = {}
    for item in state.delegations:
        stakes[item.candidate] = stakes.get(item.candidate, 0) + item.amount
    electable = [
        (candidate.address, Stake(stakes[candidate.address]))
        for candidate in state.candidates
        if not candidate.is_jailed
        and get_delegation(state, candidate.address, candidate.address) >= state.params.bond_min
    ]
    seated = elect(electable, state.params.seats)
    if not seated:
        return state.candidates
    capped = cap_powers(scale_stakes([stake for _, stake in seated]), state.params.power_cap_bp)
    powers = {address: power for (address, _), power in zip(seated, capped, strict=True)}
    return tuple(replace(c, power=powers.get(c.address, Power(0))) for c in state.candidates)


def list_validators(validators: Sequence[Validator]) -> list[list[object]]:
    """Return the validators as they are encoded: address, key and power of each, in order of address."""
    return [[v.address, v.public_key, v.power] for v in validators]


def compute_validators_hash(validators: Sequence[Validator]) -> Hash:
    """Return the hash of a set of validators."""
    return hash_tagged("validators", encode(list_validators(validators)))


def find_account(state: ChainState, address: bytes) -> Account | None:
    """Return the account with this address, or None."""
    return state.accounts_by_address.get(Address(address))


def find_device(state: ChainState, address: bytes) -> Device | None:
    """Return the device with this address, or None."""
    return state.devices_by_address.get(Address(address))


def find_candidate(state: ChainState, address: bytes) -> Candidate | None:
    """Return the candidate with this address, seated or not, or None."""
    return next((candidate for candidate in state.candidates if candidate.address == address), None)


def find_validator(state: ChainState, address: bytes) -> Candidate | None:
    """Return the validator with this address, or None."""
    return next((validator for validator in state.validators if validator.address == address), None)


def has_two_thirds(state: ChainState, addresses: frozenset[Address]) -> bool:
    """Return True if these validators hold more than two thirds of the power."""
    total = sum(validator.power for validator in state.validators)
    return 3 * sum(validator.power for validator in state.validators if validator.address in addresses) > 2 * total
