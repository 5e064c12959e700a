"""The light client: follow headers with certificates, gather a round's updates, compute the model, compare its hash."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flchain.chain import compute_body_root, is_body_for_devices
from flchain.crypto import compute_address
from flchain.errors import (
    InvalidBlock,
    InvalidMessage,
    MalformedMessage,
    ModelMismatch,
    OversizedMessage,
    WrongRound,
)
from flchain.fixedpoint import vector_from_bytes
from flchain.genesis import Genesis
from flchain.limits import compute_body_bytes_max
from flchain.messages import Body, Header, Phase, Reveal
from flchain.params import ChainParams
from flchain.settle import compute_next_model
from flchain.state import (
    ChainState,
    RevealedUpdate,
    Validator,
    build_genesis_state,
    hash_model,
)
from flchain.trust import Head, Trust, build_trust, decode_sets, verify_final
from flchain.types import EARLIEST, Address, Hash, Height, ModelVector, Round, UnixMillis
from flchain.wire import BODY_BYTES_MAX, HEADER_BYTES_MAX, decode_struct, open_envelope, verify_envelope

HEADERS_WANTED_MAX = 64
"""Headers whose bodies are awaited; the lowest are given up for newer ones, a snapshot then stands in."""
BODIES_WAITING_MAX = 8
"""Bodies that wait for their header or for a lower body; the highest is dropped for a ninth."""


@dataclass(frozen=True, eq=False)
class LightState:
    """What a device knows: the newest final header, the model it has computed, and the open round's updates."""

    params: ChainParams
    trust: Trust
    """The newest final header and who signs the next."""
    device_keys: dict[Address, bytes]
    homes: dict[Address, Address]
    """The miner that each device is associated with."""
    round: Round
    phase: Phase
    chain_model_hash: Hash
    """The model hash in the newest header; differs from `model_hash` while bodies are missing."""
    model_round: Round
    """The newest round whose model this device holds."""
    reveals_round: Round
    """The round that `reveals` are of."""
    model: ModelVector = field(repr=False)
    model_hash: Hash
    reveals: dict[Address, RevealedUpdate] = field(default_factory=dict)
    accepted: tuple[bytes, ...] = ()
    """The accepted set of the newest settlement applied."""
    wanted: dict[Height, Header] = field(default_factory=dict)
    """Headers whose bodies are needed to compute the next model."""
    waiting: dict[Height, bytes] = field(default_factory=dict)
    """Bodies that came before their header or before a lower height's body: they are taken in order of height."""
    is_gapless: bool = False
    """True if no header was missed since the commitments of the open round were closed: then every update is known to
    be wanted, and none can be missing once its body is here."""

    @property
    def chain(self) -> Hash:
        """The chain's name."""
        return self.trust.chain

    @property
    def height(self) -> Height:
        """That of the newest final header."""
        return self.trust.height

    @property
    def validators(self) -> tuple[Validator, ...]:
        """Who signs the next block."""
        return self.trust.validators

    @property
    def updates(self) -> tuple[RevealedUpdate, ...]:
        """What is known of the open round's updates, in order of device."""
        known = self.reveals if self.reveals_round == self.round else {}
        return tuple(known[address] for address in sorted(known))

    @property
    def has_all_updates(self) -> bool:
        """True if `updates` are all that the open round will have."""
        is_closed = self.phase in (Phase.SCORE, Phase.SETTLE)
        are_there = not any(header.phase is Phase.REVEAL for header in self.wanted.values())
        return is_closed and self.is_gapless and are_there and bool(self.updates)

    @property
    def is_synced(self) -> bool:
        """True if this device's own model is the one the newest final header names, and its round the open one."""
        return self.model_hash == self.chain_model_hash and self.model_round == self.round - 1


def build_light_state(genesis: Genesis, initial_model: ModelVector, checkpoint: Hash | None = None) -> LightState:
    """Start from the genesis, which is the trust anchor; `checkpoint` is the hash of a header that is believed as well.

    Raises ConfigError if the model is not the genesis's.
    """
    state: ChainState = build_genesis_state(genesis, initial_model)
    return LightState(
        params=state.params,
        trust=build_trust(state, checkpoint),
        device_keys={compute_address(entry.public_key): entry.public_key for entry in genesis.devices},
        homes={device.address: device.home for device in state.devices},
        round=state.round.number,
        phase=state.round.phase,
        chain_model_hash=state.model_hash,
        model_round=Round(0),
        reveals_round=Round(0),
        model=state.model,
        model_hash=state.model_hash,
    )


def process_head(light: LightState, head: Head, clock_ms: UnixMillis) -> LightState:
    """Follow a newer final header; heights may be skipped, since the certificate proves it alone (see `trust`).

    Raises WrongRound for one that is not newer, InvalidMessage's subclasses for one that does not check.
    """
    header = decode_struct(head.header, Header, HEADER_BYTES_MAX)
    if header.height <= light.height:
        raise WrongRound(f"height {header.height} is not newer than {light.height}")
    return _follow(light, *verify_final(light.trust, head, clock_ms))


def _follow(light: LightState, header: Header, trust: Trust) -> LightState:
    wanted = dict(light.wanted)
    if is_body_for_devices(header):
        wanted[Height(header.height)] = header
    waiting = {h: body for h, body in light.waiting.items() if h != header.height or _is_body_of(header, body)}
    is_first = header.phase is Phase.COMMIT and header.next_phase is Phase.REVEAL
    light = replace(
        light,
        trust=trust,
        round=Round(header.next_round),
        phase=Phase(header.next_phase),
        chain_model_hash=Hash(header.model_hash),
        wanted=dict(sorted(wanted.items())[-HEADERS_WANTED_MAX:]),
        waiting=waiting,
        is_gapless=is_first or (light.is_gapless and header.height == light.height + 1),
    )
    return _process_waiting(light)


def process_body(light: LightState, height: int, body_bytes: bytes) -> LightState:
    """Take the body of a block; computes the new model when the round's last one is there.

    A body that comes too early waits; one that nobody wants changes nothing. Raises InvalidMessage's subclasses, and
    ModelMismatch if the model computed here is not the chain's.
    """
    height = Height(height)
    header = light.wanted.get(height)
    if header is None and height <= light.height:
        return light
    bytes_max = compute_body_bytes_max(light.params, len(light.device_keys), len(light.validators))
    if len(body_bytes) > bytes_max:
        raise OversizedMessage(f"a body of {len(body_bytes)} bytes, at most {bytes_max} can be honest")
    if header is not None:
        _decode_body(header, body_bytes)
    waiting = dict(sorted({**light.waiting, height: body_bytes}.items())[:BODIES_WAITING_MAX])
    return _process_waiting(replace(light, waiting=waiting))


def _decode_body(header: Header, body_bytes: bytes) -> Body:
    body = decode_struct(body_bytes, Body, BODY_BYTES_MAX)
    if compute_body_root(body) != header.body_root:
        raise InvalidBlock("the body is not the one the header names")
    return body


def _is_body_of(header: Header, body_bytes: bytes) -> bool:
    """A body that came before its header may be anybody's invention: it must not keep the header out."""
    try:
        _decode_body(header, body_bytes)
    except InvalidMessage:
        return False
    return True


def _process_waiting(light: LightState) -> LightState:
    """Apply the bodies that are there, from the lowest wanted height on, and forget those below it."""
    while light.wanted and (height := min(light.wanted)) in light.waiting:
        header, body_bytes = light.wanted[height], light.waiting[height]
        light = replace(
            light,
            wanted={h: other for h, other in light.wanted.items() if h != height},
            waiting={h: other for h, other in light.waiting.items() if h != height},
        )
        body = _decode_body(header, body_bytes)
        if header.phase is Phase.REVEAL:
            light = _take_updates(light, header, body)
        if body.settlement is not None:
            light = _settle(light, header, body)
    lowest = min(light.wanted, default=Height(light.height + 1))
    return replace(light, waiting={h: body for h, body in light.waiting.items() if h >= lowest})


def _take_updates(light: LightState, header: Header, body: Body) -> LightState:
    """The block is final, so its signatures were checked by the validators; this device checks them once more."""
    reveals = dict(light.reveals) if light.reveals_round == header.round else {}
    for raw in body.transactions:
        envelope = open_envelope(raw, light.chain)
        key = light.device_keys.get(envelope.sender)
        if key is None or envelope.number != header.round:
            raise InvalidBlock("a final block holds an update that is no update")
        message = verify_envelope(envelope, light.chain, key)
        if not isinstance(message, Reveal):
            raise InvalidBlock("a final block holds an update that is no update")
        samples = min(message.samples, light.params.samples_cap)
        reveals[envelope.sender] = RevealedUpdate(envelope.sender, samples, message.update)
    return replace(light, reveals=reveals, reveals_round=Round(header.round))


def _settle(light: LightState, header: Header, body: Body) -> LightState:
    assert body.settlement is not None
    accepted = body.settlement.accepted
    known = light.reveals if light.reveals_round == header.round else {}
    is_usable = light.model_round == header.round - 1 and all(address in known for address in accepted)
    after = replace(light, reveals={}, accepted=accepted)
    if not is_usable:
        return replace(light, reveals={})  # behind by more than this round: a snapshot will come
    reveals = tuple(light.reveals[Address(address)] for address in sorted(light.reveals))
    try:
        model = compute_next_model(light.params, light.model, reveals, accepted)
    except InvalidMessage as error:
        raise ModelMismatch(f"round {header.round}: a final block's update does not decode: {error}") from error
    model_hash = hash_model(model)
    if model_hash != header.model_hash:
        raise ModelMismatch(
            f"round {header.round}: computed model {model_hash.hex()}, the chain says {header.model_hash.hex()}"
        )
    return replace(after, model=model, model_hash=model_hash, model_round=Round(header.round))


def process_snapshot(light: LightState, head: Head, vector: bytes, clock_ms: UnixMillis) -> LightState:
    """Take a whole model from a certified header, for a device that missed rounds. Raises InvalidMessage's subclasses.

    The vector is not trusted: its hash must be the one the header holds.
    """
    header, trust = verify_final(light.trust, head, clock_ms)
    model = vector_from_bytes(vector, light.params.parameters_count)
    if hash_model(model) != header.model_hash:
        raise MalformedMessage("the snapshot is not the model the header names")
    if header.next_round - 1 <= light.model_round:
        return light
    if header.height > light.height:
        light = _follow(light, header, trust)
    # Of the bodies that are awaited only those of later rounds, and of the round then open, still matter.
    wanted = {height: other for height, other in light.wanted.items() if other.round >= header.next_round}
    light = replace(
        light,
        model=model,
        model_hash=Hash(header.model_hash),
        model_round=Round(header.next_round - 1),
        accepted=(),  # a model alone does not say whose updates are in it
        wanted=wanted,
    )
    return _process_waiting(light)


def restore(light: LightState, head: Head, vector: bytes) -> LightState:
    """Where this device stood before a restart, from its own disk, which is believed as to who the validators are.

    Raises InvalidMessage's subclasses if what was stored is damaged.
    """
    header = decode_struct(head.header, Header, HEADER_BYTES_MAX)
    signing, _ = decode_sets(header, head.sets)
    before = replace(light.trust, height=Height(header.height - 1), head=Hash(header.previous), validators=signing)
    return process_snapshot(replace(light, trust=before), head, vector, EARLIEST)
