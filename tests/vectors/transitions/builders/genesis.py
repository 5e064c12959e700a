"""Vectors of how a chain begins: the first state of a genesis, and what no genesis may say."""

from __future__ import annotations

from typing import Any

import cbor2

from flchain.ledger.genesis import Genesis, encode_genesis
from flchain.wire.messages import DeviceEntry, HolderEntry, ValidatorEntry
from tests.vectors.transitions.light_story import MODEL, make_genesis
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import MINERS, PLAIN_DEVICES, STRANGER, make_vector

OP = "begin"


def build(to: Recorder) -> None:
    """All vectors of beginnings."""
    made = make_genesis()
    to.add("genesis, small", "The first state of a chain.", OP, genesis=encode_genesis(made), model=MODEL)
    few = make_genesis(seats=2, bond_min=2_500, power_cap_bp=6_000)
    to.add("genesis, an election", "The first seats are elected.", OP, genesis=encode_genesis(few), model=MODEL)
    sketch = make_genesis(codec="count-sketch", codec_level=1, downstream_codec="count-sketch", downstream_level=1)
    to.add("genesis, sketches", "What is carried begins with zeros.", OP, genesis=encode_genesis(sketch), model=MODEL)
    mixed = _change(made, validators=made.validators[::-1], devices=made.devices[::-1], holders=made.holders[::-1])
    to.add("genesis, mixed", "Tables are in order of address.", OP, genesis=encode_genesis(mixed), model=MODEL)
    other = make_vector(6, len(MODEL))
    to.add("genesis, another model", "The model is the one named.", OP, genesis=encode_genesis(made), model=other)
    _build_problems(to, made)


def _change(made: Genesis, **changes: Any) -> Genesis:
    named = {name: getattr(made, name) for name in Genesis.__struct_fields__}
    return Genesis(**(named | changes))


def _build_problems(to: Recorder, made: Genesis) -> None:
    home = MINERS[0].address
    device = DeviceEntry(PLAIN_DEVICES[0].public_key, home)
    names = ("codec", "downstream_codec", "aggregation", "privacy", "consensus", "proposer_rule", "reward_rule")
    cases: dict[str, Genesis] = {f"unknown {name}": make_genesis(**{name: "nobodys"}) for name in names}
    cases |= {
        "all unknown": make_genesis(**dict.fromkeys(names, "nobodys")),
        "trusting for too long": make_genesis(trusting_s=86_414),
        "trusting as long": make_genesis(trusting_s=86_413),
        "a level of no codec": make_genesis(codec="adaptive", codec_level=1),
        "a sketch one way": make_genesis(codec="count-sketch", codec_level=1),
        "sketches of two levels": make_genesis(
            codec="count-sketch", codec_level=1, downstream_codec="count-sketch", downstream_level=2
        ),
        "a median of sketches": make_genesis(
            aggregation="median",
            codec="count-sketch",
            codec_level=1,
            downstream_codec="count-sketch",
            downstream_level=1,
        ),
        "a model too large": make_genesis(parameters_count=4_000_001),
        "updates of more blocks than a phase has": _change(
            make_genesis(parameters_count=3_999_000, phase_heights_max=1),
            devices=tuple(DeviceEntry(key.public_key, home) for key in PLAIN_DEVICES[:7]),
        ),
        "no bond": make_genesis(bond_min=5_001),
        "a bond just so": make_genesis(bond_min=5_000),
        "a device twice": _change(made, devices=(device, device)),
        "a device that validates": _change(made, devices=(DeviceEntry(MINERS[1].public_key, home),)),
        "no key": _change(made, holders=(HolderEntry(b"k" * 32, 5),)),
        "no home": _change(made, devices=(DeviceEntry(PLAIN_DEVICES[0].public_key, STRANGER.address),)),
        "one validator": _change(made, devices=(device,), validators=(ValidatorEntry(MINERS[0].public_key, 999, 0),)),
    }
    for name, given in cases.items():
        claim = "What no chain may begin with is named, each problem once."
        to.add(f"problem, {name}", claim, OP, genesis=encode_genesis(given), model=MODEL)
    parts = cbor2.loads(encode_genesis(made))
    second = cbor2.dumps([2, *parts[1:]], canonical=True)
    to.add("problem, another version", "There is one version.", OP, genesis=second, model=MODEL)
    to.add("problem, no genesis", "And one form.", OP, genesis=b"nothing", model=MODEL)
