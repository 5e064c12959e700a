"""What a vector can ask of a device that follows the chain, and of a genesis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flchain.base import errors
from flchain.ledger import genesis, state, state_tree
from flchain.light import follow as light
from flchain.light import trust
from tests.vectors.transitions import packing

Given = dict[str, Any]
Outcome = dict[str, Any]
PLAIN_FIELDS = (
    *("round", "phase", "chain_model_hash", "model_round", "reveals_round", "model", "model_hash", "carried"),
    *("accepted", "is_gapless", "is_synced", "has_all_updates"),
)
TRUST_FIELDS = ("height", "head", "time_ms")


def begin(_before: Any, given: Given) -> Outcome:
    """The first state of a chain, by its genesis and its first model."""
    try:
        begun = state.build_genesis_state(genesis.decode_genesis(given["genesis"]), given["model"])
    except errors.ConfigError as error:
        return {"problems": len(error.problems)}
    return {"after": begun, "root": state_tree.compute_state_root(begun)}


def write_sets(before: state.ChainState, _given: Given) -> Outcome:
    """Two sets of validators as they travel: the state's, and of these all but the first."""
    return {"sets": trust.encode_sets(before.validators, before.validators[1:])}


def follow(_before: Any, given: Given) -> Outcome:
    """A device that starts from a genesis and is told one thing after the other: what each changes, or its refusal."""
    made = genesis.decode_genesis(given["genesis"])
    device = light.build_light_state(made, given["model"], given.get("checkpoint"), given["is_full"])
    steps: list[dict[str, Any]] = []
    known = packing.pack(describe(device))
    for event in given["events"]:
        try:
            device = EVENTS[event["kind"]](device, event)
        except errors.InvalidMessage as error:
            steps.append({"error": error.code})
        except errors.ModelMismatch:
            steps.append({"error": "ModelMismatch"})
        else:
            now = describe(device)
            steps.append({name: value for name, value in now.items() if packing.pack(value) != known[name]})
            known = packing.pack(now)
    return {"steps": steps}


def describe(device: light.LightState) -> dict[str, Any]:
    """Every field of a device's state."""
    fields = {name: getattr(device, name) for name in PLAIN_FIELDS}
    fields |= {name: getattr(device.trust, name) for name in TRUST_FIELDS}
    for name, signers in (("signing", device.trust.signing), ("validators", device.trust.validators)):
        fields[name] = [(v.address, v.public_key, v.power) for v in signers]
    fields["reveals"] = [(r.sender, r.samples, r.update) for _, r in sorted(device.reveals.items())]
    fields["updates"] = [reveal.sender for reveal in device.updates]
    fields["wanted"], fields["waiting"] = sorted(device.wanted), sorted(device.waiting)
    return fields


def _get_head(event: Mapping[str, Any]) -> trust.CertifiedHeader:
    return trust.CertifiedHeader(event["header"], event["certificate"], event["sets"])


EVENTS: dict[str, Callable[[light.LightState, Mapping[str, Any]], light.LightState]] = {
    "head": lambda device, event: light.process_head(device, _get_head(event), event["clock_ms"]),
    "body": lambda device, event: light.process_body(device, event["height"], event["body"]),
    "snapshot": lambda device, event: light.process_snapshot(
        device, _get_head(event), event["vector"], event["carried"], event["clock_ms"]
    ),
    "deltas": lambda device, event: light.process_payloads(
        device, _get_head(event), event["first"], list(event["deltas"]), event["clock_ms"]
    ),
    "restore": lambda device, event: light.restore(device, _get_head(event), event["vector"], event["carried"]),
}
OPERATIONS: dict[str, Callable[[Any, Given], Outcome]] = {"begin": begin, "follow": follow, "write_sets": write_sets}
