"""ChainState: all that the chain knows after a block. Frozen; its root is in every header."""

from __future__ import annotations

from dataclasses import dataclass, field

from flchain import merkle
from flchain.crypto import compute_address, hash_tagged
from flchain.errors import ConfigError
from flchain.fixedpoint import vector_bytes
from flchain.genesis import Genesis
from flchain.messages import Phase
from flchain.params import ChainParams
from flchain.types import Address, BasisPoints, Hash, Height, ModelVector, Power, Round
from flchain.wire import encode

REPUTATION_START = BasisPoints(5_000)
KNOWLEDGE_START = BasisPoints(5_000)


@dataclass(frozen=True)
class Device:
    """A registered device. `absent` counts the rounds it has missed in a row; `balance` is what it has earned."""

    address: Address
    public_key: bytes
    home: Address
    balance: int = 0
    reputation: BasisPoints = REPUTATION_START
    absent: int = 0


@dataclass(frozen=True)
class Validator:
    """A miner with voting power. `knowledge` is its PoK standing, `priority` its place in the order of proposers."""

    address: Address
    public_key: bytes
    power: Power
    knowledge: BasisPoints = KNOWLEDGE_START
    priority: int = 0
    absent: int = 0


@dataclass(frozen=True)
class RevealedUpdate:
    """An update of the open round: the codec's payload and the weight it claims, already capped."""

    sender: Address
    samples: int
    update: bytes


@dataclass(frozen=True)
class RevealedScores:
    """A scorer's word on the open round: the base model's score, and one score per revealed update in their order."""

    scorer: Address
    base_score: int
    scores: tuple[int, ...]


@dataclass(frozen=True)
class RoundState:
    """The open round. Tuples are in order of address; `heights` counts the blocks of the present phase."""

    number: Round
    phase: Phase
    heights: int = 0
    commits: tuple[tuple[Address, Hash], ...] = ()
    reveals: tuple[RevealedUpdate, ...] = ()
    score_commits: tuple[tuple[Address, Hash], ...] = ()
    score_reveals: tuple[RevealedScores, ...] = ()


@dataclass(frozen=True, eq=False)
class ChainState:
    """Everything after block `height`. `devices` and `validators` are in order of address."""

    chain: Hash
    params: ChainParams
    height: Height
    head: Hash
    devices: tuple[Device, ...]
    validators: tuple[Validator, ...]
    round: RoundState
    model: ModelVector = field(repr=False)
    model_hash: Hash
    minted: int = 0


def hash_model(model: ModelVector) -> Hash:
    """The hash of a model vector's canonical bytes."""
    return hash_tagged("model", vector_bytes(model))


def build_genesis_state(genesis: Genesis, initial_model: ModelVector) -> ChainState:
    """The state at height 0. Raises ConfigError if `initial_model` is not the model the genesis names."""
    model_hash = hash_model(initial_model)
    if len(initial_model) != genesis.params.parameters_count or model_hash != genesis.params.initial_model_hash:
        raise ConfigError(("genesis: the initial model is not the one whose hash the genesis holds",))
    devices = [Device(compute_address(e.public_key), e.public_key, Address(e.home)) for e in genesis.devices]
    validators = [Validator(compute_address(e.public_key), e.public_key, Power(e.power)) for e in genesis.validators]
    chain = genesis.chain_id()
    return ChainState(
        chain=chain,
        params=genesis.params,
        height=Height(0),
        head=chain,
        devices=tuple(sorted(devices, key=lambda device: device.address)),
        validators=tuple(sorted(validators, key=lambda validator: validator.address)),
        round=RoundState(Round(1), Phase.OPEN),
        model=initial_model,
        model_hash=model_hash,
    )


def compute_validators_hash(validators: tuple[Validator, ...]) -> Hash:
    """The hash of who may sign: addresses, keys and powers, in order of address."""
    return hash_tagged("validators", encode([[v.address, v.public_key, v.power] for v in validators]))


def compute_state_root(state: ChainState) -> Hash:
    """RFC 6962 root over one leaf per device and validator and one for the round; proofs of a leaf fit in a message."""
    round_ = state.round
    leaves = [
        encode(["device", d.address, d.public_key, d.home, d.balance, d.reputation, d.absent]) for d in state.devices
    ]
    leaves += [
        encode(["validator", v.address, v.public_key, v.power, v.knowledge, v.priority, v.absent])
        for v in state.validators
    ]
    leaves.append(
        encode(
            [
                "round",
                [round_.number, int(round_.phase), round_.heights],
                [list(item) for item in round_.commits],
                [[r.sender, r.samples, hash_tagged("update", r.update)] for r in round_.reveals],
                [list(item) for item in round_.score_commits],
                [[s.scorer, s.base_score, list(s.scores)] for s in round_.score_reveals],
            ]
        )
    )
    leaves.append(encode(["model", state.model_hash, "minted", state.minted]))
    return merkle.compute_root(leaves)


def find_device(state: ChainState, address: bytes) -> Device | None:
    """The device with this address, or None."""
    return next((device for device in state.devices if device.address == address), None)


def find_validator(state: ChainState, address: bytes) -> Validator | None:
    """The validator with this address, or None."""
    return next((validator for validator in state.validators if validator.address == address), None)


def has_two_thirds(state: ChainState, addresses: frozenset[Address]) -> bool:
    """True if these validators hold more than two thirds of the power."""
    total = sum(validator.power for validator in state.validators)
    return 3 * sum(validator.power for validator in state.validators if validator.address in addresses) > 2 * total


def get_expected(state: ChainState) -> frozenset[Address]:
    """Who the present phase waits for: those not long absent, and of them those who did the phase before."""
    limit = state.params.absent_rounds_max
    round_ = state.round
    match round_.phase:
        case Phase.COMMIT:
            return frozenset(device.address for device in state.devices if device.absent < limit)
        case Phase.REVEAL:
            committed = frozenset(address for address, _ in round_.commits)
            # Who commits and never reveals must not delay every round; if nobody else has committed, all are awaited.
            usual = frozenset(device.address for device in state.devices if device.absent < limit)
            return committed & usual or committed
        case Phase.SCORE:
            return frozenset(validator.address for validator in state.validators if validator.absent < limit)
        case Phase.SETTLE:
            return frozenset(address for address, _ in round_.score_commits)
        case Phase.OPEN:
            return frozenset()


def get_present(state: ChainState) -> frozenset[Address]:
    """Who has already done what the present phase asks for."""
    round_ = state.round
    match round_.phase:
        case Phase.COMMIT:
            return frozenset(address for address, _ in round_.commits)
        case Phase.REVEAL:
            return frozenset(reveal.sender for reveal in round_.reveals)
        case Phase.SCORE:
            return frozenset(address for address, _ in round_.score_commits)
        case Phase.SETTLE:
            return frozenset(reveal.scorer for reveal in round_.score_reveals)
        case Phase.OPEN:
            return frozenset()
