"""What a light device knows as a flat table of paths and values, field by field, and back; as `transitions.state_form`.

The form shares no code with the rules that the vectors pin, and names every field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flchain.ledger.params import ChainParams
from flchain.ledger.state import RevealedUpdate, Validator
from flchain.light.follow import LightState
from flchain.light.trust import Trust
from flchain.wire.messages import Header, Phase
from tests.vectors.transitions import packing
from tests.vectors.transitions.state_form import NAMES_AND_NUMBERS, Flat, read_vector, write_vector

PLACE = ("chain", "trusting_s", "height", "head", "time_ms")
SETS = ("signing", "validators")
TRUST = (*PLACE, *SETS, "checkpoint")
ROUND = ("round", "phase", "chain_model_hash", "model_round", "reveals_round", "model_hash", "is_full", "is_gapless")
TABLES = ("device_keys", "homes", "reveals", "accepted", "wanted", "waiting")
LIGHT = ("params", "trust", *ROUND, "model", "carried", *TABLES)
HEADER = (
    *("version", "chain", "height", "time_ms", "round", "phase", "next_round", "next_phase", "previous", "proposer"),
    *("body_root", "state_root", "model_hash", "validators_hash", "next_validators_hash"),
)
NONE = "none"


def flatten(light: LightState) -> Flat:
    """Every field by its path, in a fixed order."""
    trust = light.trust
    flat: Flat = {f"params/{name}": packing.pack(getattr(light.params, name)) for name in NAMES_AND_NUMBERS}
    flat |= {f"trust/{name}": packing.pack(getattr(trust, name)) for name in PLACE}
    flat["trust/checkpoint"] = NONE if trust.checkpoint is None else packing.pack(trust.checkpoint)
    for name in SETS:
        rows = (list_validator(validator) for validator in getattr(trust, name))
        flat |= {f"trust/{name}/{i}": packing.pack(row) for i, row in enumerate(rows)}
    flat |= {name: packing.pack(getattr(light, name)) for name in ROUND}
    flat["model"] = write_vector(light.model)
    flat["carried"] = NONE if light.carried is None else [write_vector(part) for part in light.carried]
    for name in ("device_keys", "homes"):
        flat |= {f"{name}/{address.hex()}": packing.pack(value) for address, value in getattr(light, name).items()}
    for address, update in light.reveals.items():
        flat[f"reveals/{address.hex()}"] = packing.pack((update.sender, update.samples, update.update))
    flat |= {f"accepted/{i}": packing.pack(address) for i, address in enumerate(light.accepted)}
    for height, header in light.wanted.items():
        flat[f"wanted/{height}"] = packing.pack([getattr(header, name) for name in HEADER])
    flat |= {f"waiting/{height}": packing.pack(body) for height, body in light.waiting.items()}
    return flat


def list_validator(validator: Validator) -> tuple[bytes, bytes, int]:
    """The fields of a validator."""
    return validator.address, validator.public_key, validator.power


def unflatten(flat: Mapping[str, Any]) -> LightState:
    """What `flatten` has written."""
    place = {name: packing.unpack(flat[f"trust/{name}"]) for name in PLACE}
    checkpoint = flat["trust/checkpoint"]
    sets: dict[str, Any] = {name: tuple(Validator(*row) for row in _list(flat, f"trust/{name}")) for name in SETS}
    trust = Trust(**place, **sets, checkpoint=None if checkpoint == NONE else packing.unpack(checkpoint))
    fields = {name: packing.unpack(flat[name]) for name in ROUND}
    fields["phase"] = Phase(fields["phase"])
    carried = flat["carried"]
    wanted = {int(height): _read_header(row) for height, row in _read(flat, "wanted").items()}
    return LightState(
        **fields,
        params=ChainParams(**{name: packing.unpack(flat[f"params/{name}"]) for name in NAMES_AND_NUMBERS}),
        trust=trust,
        model=read_vector(flat["model"]),
        carried=None if carried == NONE else tuple(read_vector(part) for part in carried),
        device_keys=_read_by_address(flat, "device_keys"),
        homes=_read_by_address(flat, "homes"),
        reveals={sender: RevealedUpdate(*row) for sender, row in _read_by_address(flat, "reveals").items()},
        accepted=_list(flat, "accepted"),
        wanted=_untyped(wanted),
        waiting=_untyped({int(height): body for height, body in _read(flat, "waiting").items()}),
    )


def _read(flat: Mapping[str, Any], table: str) -> dict[str, Any]:
    start = f"{table}/"
    return {path[len(start) :]: packing.unpack(value) for path, value in flat.items() if path.startswith(start)}


def _list(flat: Mapping[str, Any], table: str) -> tuple[Any, ...]:
    rows = _read(flat, table)
    return tuple(rows[str(i)] for i in range(len(rows)))


def _read_by_address(flat: Mapping[str, Any], table: str) -> dict[Any, Any]:
    return {bytes.fromhex(address): value for address, value in _read(flat, table).items()}


def _read_header(row: Sequence[Any]) -> Header:
    named = dict(zip(HEADER, row, strict=True))
    return Header(**named | {"phase": Phase(named["phase"]), "next_phase": Phase(named["next_phase"])})


def _untyped(value: Any) -> Any:
    return value
