"""The light client: follow headers with certificates and keep the model whose hash they hold.

A full device gathers a round's updates and computes the model itself; a light one takes the payload to which the miners
compressed the settled change, which is much shorter, and whose result must have the same hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flchain.base.crypto import compute_address
from flchain.base.errors import (
    InvalidBlock,
    InvalidMessage,
    MalformedMessage,
    ModelMismatch,
    OversizedMessage,
    WrongHeight,
)
from flchain.base.fixedpoint import decode_vector
from flchain.base.frozen import replace
from flchain.base.types import EARLIEST, Address, Hash, Height, ModelVector, Round, UnixMillis
from flchain.codecs import Carried, decode_carried
from flchain.ledger.block import compute_body_root, is_body_for_devices, is_settling
from flchain.ledger.genesis import Genesis
from flchain.ledger.limits import PAYLOADS_MAX, compute_body_bytes_max, compute_light_body_bytes_max
from flchain.ledger.params import ChainParams
from flchain.ledger.snapshot import verify_carried_proof
from flchain.ledger.state import ChainState, RevealedUpdate, Validator, build_genesis_state, hash_model, start_carried
from flchain.light.body import LightBody, decode_light_body
from flchain.light.trust import CertifiedHeader, Trust, build_trust, decode_sets, verify_final
from flchain.rules.model_step import apply_payload, compute_step
from flchain.wire.envelope import BODY_BYTES_MAX, HEADER_BYTES_MAX, decode_struct, open_envelope, verify_envelope
from flchain.wire.messages import Body, Header, Phase, Reveal

HEADERS_WANTED_MAX = 64
"""Most headers whose bodies are awaited. Newer ones displace the lowest, which a snapshot then replaces."""
BODIES_WAITING_MAX = 8
"""Most bodies that wait for their header or for a lower body; beyond that the highest is dropped."""


@dataclass(frozen=True, eq=False)
class LightState:
    """What a device knows: the newest final header, the model it has computed, and the open round's updates."""

    params: ChainParams
    trust: Trust
    """Trust in the newest final header."""
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
    is_full: bool
    """True for a device that takes bodies and computes each model itself; a light one takes light bodies."""
    carried: Carried | None = field(default=None, repr=False)
    """What the downstream rule carries into the open round; None if unknown. Only full devices need it."""
    reveals: dict[Address, RevealedUpdate] = field(default_factory=dict)
    accepted: tuple[bytes, ...] = ()
    """The accepted set of the newest settlement applied."""
    wanted: dict[Height, Header] = field(default_factory=dict)
    """Headers whose bodies are needed to compute the next model."""
    waiting: dict[Height, bytes] = field(default_factory=dict)
    """Bodies that came before their header or before a lower height's body: they are applied in order of height."""
    is_gapless: bool = False
    """True if no header was missed since the open round stopped taking commitments. Then every body with updates is
    known to be wanted, and no update can be missing once these are here."""

    @property
    def chain(self) -> Hash:
        """The chain's name."""
        return self.trust.chain

    @property
    def height(self) -> Height:
        """The height of the newest final header."""
        return self.trust.height

    @property
    def validators(self) -> tuple[Validator, ...]:
        """The validators of the next block."""
        return self.trust.validators

    @property
    def updates(self) -> tuple[RevealedUpdate, ...]:
        """The known updates of the open round, in order of device."""
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
        """True if this device's own model is that of the newest final header, and its round the open one."""
        return self.model_hash == self.chain_model_hash and self.model_round == self.round - 1


def build_light_state(
    genesis: Genesis, initial_model: ModelVector, checkpoint: Hash | None = None, is_full: bool = True
) -> LightState:
    """Return the state at the genesis, which is the trust anchor.

    A header with the hash `checkpoint` is believed as well.

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
        is_full=is_full,
        carried=state.carried if is_full else None,
    )


def process_head(light: LightState, certified: CertifiedHeader, clock_ms: UnixMillis) -> LightState:
    """Follow a newer final header. Heights may be skipped, since the certificate alone proves it (see `trust`).

    Raises WrongHeight for a header that is not newer, InvalidMessage's subclasses for one that is wrong.
    """
    header = decode_struct(certified.header, Header, HEADER_BYTES_MAX)
    if header.height <= light.height:
        raise WrongHeight(f"height {header.height} is not newer than {light.height}")
    return _follow(light, *verify_final(light.trust, certified, clock_ms))


def _follow(light: LightState, header: Header, trust: Trust) -> LightState:
    wanted = dict(light.wanted)
    if is_settling(header) or (light.is_full and is_body_for_devices(header)):
        wanted[Height(header.height)] = header
    waiting = {h: body for h, body in light.waiting.items() if h != header.height or _is_body_of(light, header, body)}
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
    """Take the body of a block, or its light body. With the round's last one, compute the new model.

    A body that comes too early waits; one that is not wanted changes nothing. Raises InvalidMessage's subclasses, and
    ModelMismatch if the model computed here from updates is not the chain's.
    """
    height = Height(height)
    header = light.wanted.get(height)
    if header is None and height <= light.height:
        return light
    bytes_max = _compute_bytes_max(light)
    if len(body_bytes) > bytes_max:
        raise OversizedMessage(f"a body of {len(body_bytes)} bytes, at most {bytes_max} can be honest")
    if header is not None:
        _check_body(light, header, body_bytes)
    waiting = dict(sorted({**light.waiting, height: body_bytes}.items())[:BODIES_WAITING_MAX])
    after = _process_waiting(replace(light, waiting=waiting))
    if height in after.wanted and height not in after.waiting and height in waiting:
        raise MalformedMessage("not the payload that leads to the model the header names")
    return after


def _compute_bytes_max(light: LightState) -> int:
    if light.is_full:
        return compute_body_bytes_max(light.params, len(light.device_keys), len(light.validators))
    return compute_light_body_bytes_max(light.params)


def _check_body(light: LightState, header: Header, body_bytes: bytes) -> None:
    """Raise InvalidMessage's subclasses for a body that is not the header's."""
    if light.is_full:
        _decode_body(header, body_bytes)
    else:
        decode_light_body(header, body_bytes)


def _decode_body(header: Header, body_bytes: bytes) -> Body:
    body = decode_struct(body_bytes, Body, BODY_BYTES_MAX)
    if compute_body_root(body) != header.body_root:
        raise InvalidBlock("the body is not the one the header names")
    return body


def _is_body_of(light: LightState, header: Header, body_bytes: bytes) -> bool:
    """Return False for a body that came before its header and is not the header's.

    Anybody may have made it up: it must not keep the header out.
    """
    try:
        _check_body(light, header, body_bytes)
    except InvalidMessage:
        return False
    return True


def _process_waiting(light: LightState) -> LightState:
    """Apply the bodies that are here, from the lowest wanted height on, and drop those below it."""
    while light.wanted and (height := min(light.wanted)) in light.waiting:
        header, body_bytes = light.wanted[height], light.waiting[height]
        light = replace(light, waiting={h: other for h, other in light.waiting.items() if h != height})
        wanted = {h: other for h, other in light.wanted.items() if h != height}
        if not light.is_full:
            try:
                light = replace(_take_light_body(light, header, decode_light_body(header, body_bytes)), wanted=wanted)
            except InvalidMessage:
                break  # anybody may have made it up, as no header holds the payload: the true one is still wanted
            continue
        light = replace(light, wanted=wanted)
        body = _decode_body(header, body_bytes)
        if header.phase is Phase.REVEAL:
            light = _take_updates(light, header, body)
        if body.settlement is not None:
            light = _take_settlement(light, header, body)
    lowest = min(light.wanted, default=Height(light.height + 1))
    return replace(light, waiting={h: body for h, body in light.waiting.items() if h >= lowest})


def _take_updates(light: LightState, header: Header, body: Body) -> LightState:
    """Keep the updates of a block.

    The block is final, so the validators have checked the signatures; this device checks them once more.
    """
    reveals = dict(light.reveals) if light.reveals_round == header.round else {}
    for raw in body.transactions:
        envelope = open_envelope(raw, light.chain)
        key = light.device_keys.get(envelope.sender)
        if key is None or envelope.number != header.round:
            raise InvalidBlock("a final block holds an update that is no update")
        message = verify_envelope(envelope, light.chain, key).message
        if not isinstance(message, Reveal):
            raise InvalidBlock("a final block holds an update that is no update")
        samples = min(message.samples, light.params.samples_cap)
        reveals[envelope.sender] = RevealedUpdate(envelope.sender, samples, message.update)
    return replace(light, reveals=reveals, reveals_round=Round(header.round))


def _take_light_body(light: LightState, header: Header, body: LightBody) -> LightState:
    """Take the next model from a payload.

    Raises MalformedMessage for a payload that does not lead to the header's model, MalformedUpdate for garbage.
    """
    if light.model_round != header.round - 1:
        return light  # more than one round behind: later payloads or a snapshot will come
    model = apply_payload(light.params, light.model, body.payload)
    if hash_model(model) != header.model_hash:
        raise MalformedMessage("not the payload that leads to the model the header names")
    return replace(
        light,
        model=model,
        model_hash=Hash(header.model_hash),
        model_round=Round(header.round),
        accepted=body.settlement.accepted,
    )


def _take_settlement(light: LightState, header: Header, body: Body) -> LightState:
    assert body.settlement is not None
    accepted = body.settlement.accepted
    known = light.reveals if light.reveals_round == header.round else {}
    is_usable = light.model_round == header.round - 1 and all(address in known for address in accepted)
    after = replace(light, reveals={}, accepted=accepted)
    if not is_usable or light.carried is None:
        return replace(light, reveals={})  # more than one round behind: a snapshot will come
    reveals = tuple(light.reveals[Address(address)] for address in sorted(light.reveals))
    try:
        step = compute_step(
            light.params,
            light.model,
            light.carried,
            reveals,
            accepted,
            chain=light.chain,
            number=Round(header.round),
        )
    except InvalidMessage as error:
        raise ModelMismatch(f"round {header.round}: a final block's update does not decode: {error}") from error
    model_hash = hash_model(step.model)
    if model_hash != header.model_hash:
        raise ModelMismatch(
            f"round {header.round}: computed model {model_hash.hex()}, the chain's is {header.model_hash.hex()}"
        )
    round_number = Round(header.round)
    return replace(after, model=step.model, model_hash=model_hash, model_round=round_number, carried=step.carried)


def process_snapshot(
    light: LightState, certified: CertifiedHeader, vector: bytes, carried: bytes, clock_ms: UnixMillis
) -> LightState:
    """Take a whole model from a certified header, for a device that missed rounds. Raises InvalidMessage's subclasses.

    The vector is not trusted: its hash must be the one in the header. A full device also needs what is carried, with
    the proof that `snapshot.build_carried_proof` gives.
    """
    header, trust = verify_final(light.trust, certified, clock_ms)
    model = decode_vector(vector, light.params.parameters_count)
    proved = verify_carried_proof(carried, header, light.params) if light.is_full else None
    return _take_model(light, header, trust, model, proved)


def process_payloads(
    light: LightState, certified: CertifiedHeader, first: int, payloads: list[object], clock_ms: UnixMillis
) -> LightState:
    """Take the payloads of all rounds from `first` to the one before a certified header's open round.

    Raises InvalidMessage's subclasses: the last model must be the header's; those on the way prove nothing.
    """
    header, trust = verify_final(light.trust, certified, clock_ms)
    if light.is_full:
        raise MalformedMessage("payloads alone do not say what is carried")
    if header.next_round - 1 <= light.model_round:
        return light
    skipped = light.model_round + 1 - first
    if skipped < 0 or first + len(payloads) != header.next_round:
        raise MalformedMessage(f"{len(payloads)} payloads from round {first} on do not lead from the model here")
    if len(payloads) - skipped > PAYLOADS_MAX:
        raise OversizedMessage(f"{len(payloads) - skipped} payloads, at most {PAYLOADS_MAX} replace a model")
    model = light.model
    for payload in payloads[skipped:]:
        if not isinstance(payload, bytes):
            raise MalformedMessage("a payload is bytes")
        model = apply_payload(light.params, model, payload)
    return _take_model(light, header, trust, model, None)


def _take_model(
    light: LightState, header: Header, trust: Trust, model: ModelVector, carried: Carried | None
) -> LightState:
    """Take a model that skips rounds, if it is the one the header names and newer than the one here."""
    if hash_model(model) != header.model_hash:
        raise MalformedMessage("the snapshot is not the model the header names")
    if header.next_round - 1 <= light.model_round:
        return light
    if header.height > light.height:
        light = _follow(light, header, trust)
    # Of the awaited bodies only those of the round then open and of later ones still matter.
    wanted = {height: other for height, other in light.wanted.items() if other.round >= header.next_round}
    light = replace(
        light,
        model=model,
        model_hash=Hash(header.model_hash),
        model_round=Round(header.next_round - 1),
        carried=carried,
        accepted=(),  # a model alone does not say whose updates are in it
        wanted=wanted,
    )
    return _process_waiting(light)


def restore(light: LightState, certified: CertifiedHeader, vector: bytes, carried: bytes) -> LightState:
    """Return where this device stood before a restart, from its own disk.

    Raises InvalidMessage's subclasses if it is damaged.

    The disk is believed as to the validators and what is carried (empty: unknown).
    """
    header = decode_struct(certified.header, Header, HEADER_BYTES_MAX)
    signing, _ = decode_sets(header, certified.sets)
    before = replace(light.trust, height=Height(header.height - 1), head=Hash(header.previous), validators=signing)
    header, trust = verify_final(before, certified, EARLIEST)
    model = decode_vector(vector, light.params.parameters_count)
    kept = decode_carried(carried, start_carried(light.params)) if carried and light.is_full else None
    return _take_model(replace(light, trust=before), header, trust, model, kept)
