"""Vectors of the state's tree, of what proves itself by its root, of certificates and of how a chain begins."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import cbor2

from flchain import codecs
from flchain.base import merkle
from flchain.ledger import certificate, snapshot, state_tree
from flchain.ledger.state import ChainState, RevealedScores, RevealedUpdate
from flchain.wire.envelope import encode_struct, get_signature
from flchain.wire.messages import Header, Phase, Vote
from tests.vectors.transitions.builders.phases import set_powers
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    CHAIN,
    DEVICES,
    HEIGHT,
    MINERS,
    TIME_MS,
    WORLD,
    make_vector,
    seal,
    untyped,
    with_account,
    with_params,
    with_round,
)

BYTES_MAX = 100_000
BAD = "malformed"


def build(to: Recorder) -> None:
    """All vectors of trees, snapshots and certificates."""
    _build_leaves(to)
    _build_merkle(to)
    _build_snapshots(to)
    _build_damaged(to)
    _build_carried(to)
    _build_certificates(to)


def make_full() -> ChainState:
    """The world with every table of its round filled."""
    return with_round(
        WORLD,
        phase=Phase.SETTLE,
        heights=2,
        commits=tuple((DEVICES[i].address, bytes((i + 1,)) * 32) for i in range(3)),
        reveals=tuple(RevealedUpdate(DEVICES[i].address, 90 + i, b"update %d" % i) for i in range(2)),
        score_commits=tuple((MINERS[i].address, bytes((i + 9,)) * 32) for i in range(4)),
        score_reveals=tuple(
            RevealedScores(MINERS[i].address, 6_000 + i, (10 + i, 20 + i), (30 + i, 40 + i, 50 + i)) for i in range(3)
        ),
        pledges=(DEVICES[1].address, DEVICES[2].address),
    )


def _build_leaves(to: Recorder) -> None:
    states = {
        "the world": WORLD,
        "a full round": make_full(),
        "much burned": replace(WORLD, burned=WORLD.minted, minted=WORLD.burned),
        "swapped hashes": replace(WORLD, model_hash=WORLD.carried_hash, carried_hash=WORLD.model_hash),
        "no stake": replace(WORLD, delegations=(), unbondings=()),
    }
    for name, before in states.items():
        to.add(f"leaves, {name}", "One leaf for each row, in order.", "list_leaves", before)


def _build_merkle(to: Recorder) -> None:
    def ask(name: str, claim: str, function: str, *arguments: Any) -> None:
        to.add(name, claim, "call", function=function, arguments=arguments)

    leaves = tuple(b"leaf %d" % i for i in range(9))
    for count in range(10):
        ask(f"root, {count} leaves", "The tree of RFC 6962.", "compute_root", leaves[:count])
    for count, index in ((1, 0), (2, 1), (3, 2), (5, 4), (6, 3), (7, 6), (9, 8)):
        root, path = merkle.compute_root(leaves[:count]), merkle.build_proof(leaves[:count], index)
        ask(f"path, {index} of {count}", "The path of RFC 6962.", "build_proof", leaves[:count], index)
        cases: dict[str, tuple[Any, ...]] = {
            "right": (root, leaves[index], index, count, path),
            "another leaf": (root, b"leaf", index, count, path),
            "another place": (root, leaves[index], index - 1, count, path),
            "beyond": (root, leaves[index], count, count, path),
            "another root": (leaves[0].ljust(32), leaves[index], index, count, path),
            "too long": (root, leaves[index], index, count, (*path, root)),
            "too short": (root, leaves[index], index, count, path[:-1]),
            "cut": (root, leaves[index], index, count, tuple(step[:-1] for step in path)),
        }
        for name, arguments in cases.items():
            ask(
                f"proof, {index} of {count}, {name}", "A path proves one leaf at one place.", "verify_proof", *arguments
            )


def make_header(after: ChainState, **changes: Any) -> bytes:
    """A header whose state is this one."""
    fields: dict[str, Any] = {
        "version": 1,
        "chain": CHAIN,
        "height": HEIGHT + 1,
        "time_ms": TIME_MS + 77,
        "round": 17,
        "phase": Phase.SETTLE,
        "next_round": 17,
        "next_phase": Phase.SETTLE,
        "previous": WORLD.head,
        "proposer": MINERS[0].address,
        "body_root": bytes(32),
        "state_root": state_tree.compute_state_root(after),
        "model_hash": after.model_hash,
        "validators_hash": b"v" * 32,
        "next_validators_hash": b"w" * 32,
    }
    return encode_struct(Header(**(fields | changes)))


def _build_snapshots(to: Recorder) -> None:
    bare = replace(WORLD, carried=codecs.DOWNSTREAM_RULES["identity"].start(7, 5))
    bare = replace(bare, carried_hash=_hash_carried(bare))
    for name, before in (("the world", WORLD), ("a full round", make_full()), ("nothing carried", bare)):
        to.add(f"snapshot, {name}", "A state as it travels.", "write_snapshot", before)
        given: dict[str, Any] = {
            "data": snapshot.encode_state(before),
            "header": make_header(before),
            "bytes_max": BYTES_MAX,
        }
        claim = "A state is what it was, at the header's height, but for the newest payload."
        to.add(f"snapshot, {name}, read", claim, "read_snapshot", before, **given)


def _hash_carried(before: ChainState) -> Any:
    """By hand: the tagged hash of the vectors' bytes."""
    name = b"flchain/v1/carried"
    data = b"".join(part.astype("<i4").tobytes() for part in before.carried)
    return hashlib.sha256(bytes((len(name),)) + name + data).digest()


def _build_damaged(to: Recorder) -> None:
    before = make_full()
    leaves, updates, vector, carried = cbor2.loads(snapshot.encode_state(before))
    header = make_header(before)

    def refuse(name: str, parts: list[Any], error: str = BAD, head: bytes | None = None) -> None:
        root = merkle.compute_root(parts[0])
        fitting = make_header(before, state_root=root) if head is None else head
        given: dict[str, Any] = {"data": cbor2.dumps(parts, canonical=True), "header": fitting, "bytes_max": BYTES_MAX}
        claim = "What the header does not name, or what no state is, is refused."
        to.add(f"damaged, {name}", claim, "read_snapshot", before, error=error, **given)

    richer = state_tree.get_leaves(with_account(before, MINERS[0], balance=10**9))
    refuse("another root", [richer, updates, vector, carried], head=header)
    refuse("no totals", [leaves[:-1], updates, vector, carried])
    refuse("totals twice", [[*leaves, leaves[-1]], updates, vector, carried])
    refuse("no round", [[*leaves[:-2], leaves[-1]], updates, vector, carried])
    refuse("a leaf of nothing", [[cbor2.dumps(["nothing", 1]), *leaves], updates, vector, carried])
    for name, leaf in {"a number": 5, "an empty": [], "a numbered": [5, 6], "a nested": [["totals"]]}.items():
        refuse(f"{name} leaf", [[cbor2.dumps(leaf), *leaves], updates, vector, carried])
    short = cbor2.dumps(["delegation", b"a" * 20, b"b" * 20])
    refuse("a leaf too short", [[short, *leaves], updates, vector, carried])
    negative = cbor2.dumps(["delegation", b"a" * 20, b"b" * 20, -1])
    refuse("a negative amount", [[negative, *leaves], updates, vector, carried])
    refuse("updates swapped", [leaves, updates[::-1], vector, carried])
    refuse("an update missing", [leaves, updates[:1], vector, carried])
    refuse("another model", [leaves, updates, vector[:-1] + b"\1", carried])
    refuse("a model too short", [leaves, updates, vector[:-4], carried], "malformed-update")
    refuse("something else carried", [leaves, updates, vector, carried[:-1] + b"\1"])
    refuse("nothing carried", [leaves, updates, vector, b""])
    data = snapshot.encode_state(before)
    for bytes_max, error in ((len(data), None), (len(data) - 1, "oversized")):
        given: dict[str, Any] = {"data": data, "header": header, "bytes_max": bytes_max}
        name, claim = f"snapshot, at most {len(data) - bytes_max} less", "No longer than it may be."
        to.add(name, claim, "read_snapshot", before, error=error, **given)


def _build_carried(to: Recorder) -> None:
    for name, before in (("the world", WORLD), ("a full round", make_full())):
        to.add(f"carried, {name}", "What is carried, with its proof.", "write_carried", before)
    data, header = snapshot.build_carried_proof(WORLD), make_header(WORLD)
    given: dict[str, Any] = {"data": data, "header": header}
    to.add("carried, read", "What is carried, as it was.", "read_carried", WORLD, **given)
    carried, totals, count, path = cbor2.loads(data)
    leaves = state_tree.get_leaves(WORLD)
    first = merkle.build_proof(leaves, 0)
    cases = {
        "something else": [carried[:-1] + b"\1", totals, count, path],
        "nothing": [b"", totals, count, path],
        "another leaf": [carried, leaves[0], count, list(first)],
        "another count": [carried, totals, count - 1, path],
        "no path": [carried, totals, count, path[:-1]],
    }
    for name, parts in cases.items():
        given = {"data": cbor2.dumps(parts, canonical=True), "header": header}
        to.add(f"carried, {name}", "Nothing else is proved.", "read_carried", WORLD, error=BAD, **given)
    # An account whose key is what is to be proved: of another table, at the place of the totals.
    nothing = codecs.DOWNSTREAM_RULES["identity"].start(7, 5)
    key = _hash_carried(replace(WORLD, carried=nothing))
    false = [*leaves[:-1], cbor2.dumps(["account", b"a" * 20, key, 1, 1])]
    last = len(false) - 1
    parts = [b"", false[last], len(false), list(merkle.build_proof(false, last))]
    fitting = make_header(WORLD, state_root=merkle.compute_root(false))
    given = {"data": cbor2.dumps(parts, canonical=True), "header": fitting}
    claim = "The totals prove it, no other leaf."
    to.add("carried, by an account", claim, "read_carried", WORLD, error=BAD, **given)
    for name, leaf in (("totals", leaves[-1]), ("an account", leaves[0])):
        error = None if name == "totals" else BAD
        claim = "The totals hold both hashes."
        given = {"function": "get_totals_hashes", "arguments": (leaf,)}
        to.add(f"hashes, of {name}", claim, "call", error=error, **given)
    sketched = with_params(WORLD, downstream_codec="count-sketch", downstream_level=1)
    two = replace(sketched, carried=(make_vector(3, 5), make_vector(4, 5)))
    two = replace(two, carried_hash=_hash_carried(two))
    given = {"data": snapshot.build_carried_proof(two), "header": make_header(two)}
    to.add("carried, two tables", "Momentum and error, each its own.", "read_carried", two, **given)


def _build_certificates(to: Recorder) -> None:
    """Powers 6, 5, 4, 3 and 3: of 21 more than 14 have to sign."""
    before = set_powers(WORLD, (6, 5, 4, 3, 0, 0, 3))
    block, view, height = b"b" * 32, 3, HEIGHT + 1
    signed = {"14 of 21": (0, 1, 3), "15 of 21": (0, 1, 2), "all": (0, 1, 2, 3, 6), "one": (0,), "nobody": ()}

    def sign(places: tuple[int, ...], vote: Vote | None = None) -> bytes:
        word = vote or Vote(height, view, 2, block)
        listed = [(MINERS[i].address, get_signature(seal(word, MINERS[i]))) for i in places]
        return certificate.build_certificate(before.validators, untyped(view), listed)

    def ask(name: str, claim: str, data: bytes, error: str | None = None) -> None:
        given: dict[str, Any] = {"height": height, "block": block, "certificate": data}
        to.add(f"certificate, {name}", claim, "verify_certificate", before, error=error, **given)

    for name, places in signed.items():
        error = None if name in ("15 of 21", "all") else "bad-certificate"
        ask(name, "More than two thirds of the power sign.", sign(places), error)
    wrong = {
        "prevotes": Vote(height, view, 1, block),
        "another block": Vote(height, view, 2, b"c" * 32),
        "nil": Vote(height, view, 2, None),
        "another height": Vote(height - 1, view, 2, block),
        "another view": Vote(height, view + 1, 2, block),
    }
    for name, vote in wrong.items():
        ask(name, "They sign precommits for this block.", sign((0, 1, 2), vote), "bad-certificate")
    number, listed = cbor2.loads(sign((0, 1, 2)))
    damaged = [[i, sig[:-1] + bytes((sig[-1] ^ 1,)) if i == 2 else sig] for i, sig in listed]
    doubled = [listed[0], listed[0], *listed[1:]]
    extra = [*cbor2.loads(sign((0, 1, 2, 3)))[1][:3], [3, listed[0][1]]]
    cases = {
        "one badly signed": damaged,
        "one twice": doubled,
        "out of order": [listed[1], listed[0], listed[2]],
        "one badly signed beyond need": extra,
        "an index too high": [*listed, [5, listed[0][1]]],
    }
    for name, given in cases.items():
        data = cbor2.dumps([number, given], canonical=True)
        ask(name, "Every signature is valid, in order, once.", data, "bad-certificate")
    claim, data = "The most powerful are kept, as many as are needed.", sign((0, 1, 2, 3, 6))
    for powers in ((6, 5, 4, 3, 0, 0, 3), (2, 3, 8, 6, 0, 0, 2), (2, 3, 8, 7, 0, 0, 1), (3, 3, 3, 3, 0, 0, 3)):
        name = f"certificate, trimmed, powers {powers}"
        to.add(name, claim, "trim_certificate", set_powers(WORLD, powers), certificate=data)
    signatures = [(MINERS[i].address, bytes((i,)) * 64) for i in (3, 0, 6, 1)]
    claim = "Signatures are listed in order of the set."
    to.add("certificate, built", claim, "build_certificate", before, view=7, signatures=signatures)
    for phase in Phase:
        for next_round in (17, 18):
            header, claim = (
                make_header(WORLD, phase=phase, next_round=next_round),
                "Devices need updates and settlements.",
            )
            to.add(f"header, {phase.name}, next {next_round}", claim, "describe_header", header=header)
