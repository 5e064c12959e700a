"""Make messages.json: the exact bytes of one message of every kind, and of header, body, certificate and genesis.

Run from the repository's root: `python -m tests.vectors.make_messages`. A change of this file changes the wire format:
nodes of two versions then no longer understand each other.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from flchain.wire.envelope import encode_struct, open_envelope, seal
from flchain.wire.fleet import Health, Status, UpdateState
from flchain.wire.messages import (
    AnyMessage,
    Ask,
    Body,
    Certificate,
    Commit,
    Delegate,
    Evidence,
    Header,
    Phase,
    Proposal,
    Receipt,
    Register,
    Resume,
    Reveal,
    ScoreCommit,
    ScoreReveal,
    Settlement,
    Transfer,
    Undelegate,
    Unjail,
    Vote,
    Want,
)
from flchain.wire.release import Package, Release, ReleaseState
from tests.support.builders.chain import build_chain

CHAIN = build_chain(miners=2, devices=2, seed=7)
PATH = Path(__file__).with_name("messages.json")


def _fill(start: int, size: int) -> bytes:
    return bytes((start + i) % 256 for i in range(size))


MESSAGES: dict[str, AnyMessage] = {
    "commit": Commit(1, _fill(0, 32), False),
    "reveal": Reveal(2**32, _fill(1, 16), 1_000, _fill(2, 300)),
    "score commit": ScoreCommit(23, _fill(3, 32)),
    "score reveal": ScoreReveal(
        24, _fill(4, 16), 0, ((_fill(5, 20), 255), (_fill(6, 20), 10_000)), ((_fill(7, 20), 5_000),)
    ),
    "score reveal of nothing": ScoreReveal(255, _fill(4, 16), 9_999, (), ()),
    "proposal": Proposal(256, 0, -1, _fill(7, 32)),
    "proposal again": Proposal(65_535, 3, 2, _fill(7, 32)),
    "prevote": Vote(65_536, 1, 1, _fill(8, 32)),
    "precommit nil": Vote(2**53, 2, 2, None),
    "receipt": Receipt(3, _fill(9, 32), "bad-commitment"),
    "status": Status(
        round=5,
        model_hash=_fill(10, 32),
        is_mismatch=True,
        training_ms=0,
        bytes_up=56_789,
        bytes_down=2**40,
        written_ms=0,
        up_s=0,
        report_s=0,
        name="",
        labels=(),
        task="",
        version="",
        suite="",
        architecture="",
        health=Health.MISMATCH,
        reason="another model (~!)",
        battery_percent=None,
        temperature_c=None,
        release=0,
        update=UpdateState.NONE,
    ),
    "status in full": Status(
        round=2**16,
        model_hash=_fill(18, 32),
        is_mismatch=False,
        training_ms=1_024,
        bytes_up=1_322_000,
        bytes_down=10_022_000,
        written_ms=1_800_000_000_000,
        up_s=273_600,
        report_s=900,
        name="Roof-1.north",
        labels=("roof", "site=north"),
        task="watch_1",
        version="0.2.0+git1~rc1",
        suite="bookworm",
        architecture="arm64",
        health=Health.BATTERY_LOW,
        reason="14% left",
        battery_percent=14,
        temperature_c=-12,
        release=24,
        update=UpdateState.WAITING,
    ),
    "ask": Ask(6, _fill(11, 20), Want.CHANGES, 3),
    "transfer": Transfer(0, CHAIN.miners[0].public_key, 1),
    "register": Register(1, 10_000, 2**53),
    "delegate": Delegate(2, _fill(12, 20), 24),
    "undelegate": Undelegate(3, _fill(13, 20), 256),
    "unjail": Unjail(4),
    "evidence": Evidence(7, _fill(14, 180), _fill(15, 181)),
    "commit with a pledge": Commit(2, _fill(0, 32), True),
    "resume": Resume(8, _fill(16, 20), _fill(17, 32), ((0, 4), (24, 2**20))),
    "release": Release(
        1,
        "0.2.0",
        (Package("bookworm", "arm64", _fill(18, 32), 13_000_000), Package("trixie", "amd64", _fill(19, 32), 23)),
        500,
        ReleaseState.ROLLING,
        900,
        1_800_000_000,
    ),
    "release halted": Release(
        2**53,
        "999999.999999.999999",
        (Package("noble", "arm64", _fill(20, 32), 256_000_000),),
        10_000,
        ReleaseState.HALTED,
        86_400,
        0,
    ),
}
STRUCTS: dict[str, msgspec.Struct] = {
    "genesis": CHAIN.genesis,
    "header": Header(
        version=1,
        chain=_fill(0, 32),
        height=1_000,
        time_ms=1_800_000_000_000,
        round=12,
        phase=Phase.SETTLE,
        next_round=13,
        next_phase=Phase.COMMIT,
        previous=_fill(1, 32),
        proposer=_fill(2, 20),
        body_root=_fill(3, 32),
        state_root=_fill(4, 32),
        model_hash=_fill(5, 32),
        validators_hash=_fill(6, 32),
        next_validators_hash=_fill(7, 32),
    ),
    "body": Body((_fill(0, 3), _fill(1, 30)), (_fill(2, 5),), None),
    "settled body": Body((), (), Settlement((_fill(0, 20), _fill(1, 20)))),
    "body without acceptance": Body((_fill(0, 256),), (), Settlement(())),
    "certificate": Certificate(2, ((0, _fill(0, 64)), (3, _fill(1, 64)))),
}


def build_vectors() -> dict[str, object]:
    """The content of messages.json. Messages are signed by turns with the keys of two devices."""
    messages = []
    for place, (name, message) in enumerate(MESSAGES.items()):
        sender = CHAIN.devices[place % 2]
        raw = seal(message, CHAIN.id, sender)
        messages.append(
            {
                "name": name,
                "kind": int(message.kind),
                "seed": sender.seed.hex(),
                "public_key": sender.public_key.hex(),
                "address": sender.address.hex(),
                "payload": open_envelope(raw, CHAIN.id).get_payload().hex(),
                "raw": raw.hex(),
            }
        )
    structs = {name: encode_struct(value).hex() for name, value in STRUCTS.items()}
    return {"chain": CHAIN.id.hex(), "messages": messages, "structs": structs}


if __name__ == "__main__":
    PATH.write_text(json.dumps(build_vectors(), indent=1) + "\n")
