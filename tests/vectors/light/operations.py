"""What a vector can ask of the light client. Rules are looked up in their modules at each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flchain.base import fixedpoint
from flchain.ledger import certificate, genesis
from flchain.light import body as light_body
from flchain.light import follow, trust
from flchain.light.follow import LightState
from flchain.wire import envelope, messages

Given = dict[str, Any]
Outcome = dict[str, Any]
"""Recorded as it is; a light state under the name "after" as what has changed since the one before."""
BYTES_MAX = 1_000_000


def describe(after: LightState) -> Outcome:
    """What is known after, and what follows from it."""
    return {
        "after": after,
        "is_synced": after.is_synced,
        "has_all_updates": after.has_all_updates,
        "updates": [update.sender for update in after.updates],
    }


def read_head(given: Given) -> trust.CertifiedHeader:
    """A header as it travels."""
    return trust.CertifiedHeader(given["header"], given["certificate"], given["sets"])


def verify_final(before: LightState, given: Given) -> Outcome:
    """Whether a header is the chain's and final, and what is trusted after it."""
    header, after = trust.verify_final(before.trust, read_head(given), given["clock_ms"])
    return {"after": replace(before, trust=after), "height": header.height}


def process_head(before: LightState, given: Given) -> Outcome:
    """A header that is followed."""
    return describe(follow.process_head(before, read_head(given), given["clock_ms"]))


def process_body(before: LightState, given: Given) -> Outcome:
    """A body, or a light body."""
    return describe(follow.process_body(before, given["height"], given["body"]))


def process_payloads(before: LightState, given: Given) -> Outcome:
    """The payloads of rounds that were missed."""
    parts = given["first"], list(given["payloads"]), given["clock_ms"]
    return describe(follow.process_payloads(before, read_head(given), *parts))


def process_snapshot(before: LightState, given: Given) -> Outcome:
    """A whole model, and for a full device what is carried."""
    parts = given["vector"], given["carried"], given["clock_ms"]
    return describe(follow.process_snapshot(before, read_head(given), *parts))


def restore(before: LightState, given: Given) -> Outcome:
    """What the device's own disk says."""
    return describe(follow.restore(before, read_head(given), given["vector"], given["carried"]))


def start(_before: LightState, given: Given) -> Outcome:
    """What a device knows by the genesis alone."""
    begun = genesis.decode_genesis(given["genesis"])
    model = fixedpoint.decode_vector(given["model"], begun.params.parameters_count)
    return describe(follow.build_light_state(begun, model, given["checkpoint"], given["is_full"]))


def write_light_body(_before: LightState, given: Given) -> Outcome:
    """What a light device gets of a settlement's body."""
    body = envelope.decode_struct(given["body"], messages.Body, BYTES_MAX)
    return {"data": light_body.build_light_body(body, given["payload"])}


def trim_certificate(before: LightState, given: Given) -> Outcome:
    """As few signatures as are enough of those trusted to sign next, for a slow link."""
    return {"data": certificate.trim_certificate(before.trust.validators, given["certificate"])}


def write_sets(_before: LightState, given: Given) -> Outcome:
    """Two sets of validators as they travel, after they were read."""
    header = envelope.decode_struct(given["header"], messages.Header, BYTES_MAX)
    return {"data": trust.encode_sets(*trust.decode_sets(header, given["sets"]))}


OPERATIONS: dict[str, Callable[[LightState, Given], Outcome]] = {
    "verify_final": verify_final,
    "process_head": process_head,
    "process_body": process_body,
    "process_payloads": process_payloads,
    "process_snapshot": process_snapshot,
    "restore": restore,
    "start": start,
    "write_light_body": write_light_body,
    "write_sets": write_sets,
    "trim_certificate": trim_certificate,
}
