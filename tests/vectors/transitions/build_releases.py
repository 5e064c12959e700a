"""Vectors of an operator's releases: whose word counts, which board takes part when, and what it installs."""

from __future__ import annotations

from typing import Any

from flchain.base.crypto import Identity
from flchain.base.types import Address
from flchain.rules.releases import compute_place
from flchain.wire.envelope import seal
from flchain.wire.messages import AnyMessage, Unjail
from tests.vectors.transitions.operations_releases import make_release
from tests.vectors.transitions.recorder import Recorder

CHAIN, OTHER_CHAIN = bytes(range(32)), bytes(range(1, 33))
OPERATOR, STRANGER = Identity.from_seed(b"o" * 32), Identity.from_seed(b"s" * 32)
BOARDS = tuple(bytes((number,)) * 20 for number in range(40))
PACKAGES = (
    *(("bookworm", "amd64", b"1" * 32, 10), ("bookworm", "arm64", b"2" * 32, 20)),
    *(("trixie", "amd64", b"3" * 32, 30), ("trixie", "arm64", b"4" * 32, 40)),
)


def build(to: Recorder) -> None:
    """All vectors of releases."""
    _build_readings(to)
    _build_sequences(to)
    _build_tranches(to)
    _build_versions(to)
    _build_obstacles(to)


def describe(**changes: Any) -> dict[str, Any]:
    """A release, with some fields changed."""
    plain = {"sequence": 7, "version": "0.2.0", "packages": PACKAGES, "share_bp": 2_500, "state": 0, "window_s": 900}
    return plain | changes


def _build_readings(to: Recorder) -> None:
    def read(name: str, claim: str, message: AnyMessage, error: str | None = None, **changes: Any) -> None:
        raw = seal(message, changes.get("chain", CHAIN), changes.get("signer", OPERATOR))
        given: dict[str, Any] = {"raw": raw, "chain": CHAIN, "operator_key": OPERATOR.public_key}
        to.add(f"read, {name}", claim, "read_release", error=error, **given)

    right = make_release(describe())
    read("the operator's", "A release that the operator signed for this chain is taken.", right)
    read("a stranger's", "Another's word is none.", right, "unknown-sender", signer=STRANGER)
    read("another chain's", "It is for one chain.", right, "wrong-chain", chain=OTHER_CHAIN)
    late = CHAIN[:31] + b"\0"
    read("of a chain whose id begins alike", "It is signed for the whole id.", right, "bad-signature", chain=late)
    read("another kind", "It is a release.", Unjail(7), "malformed")
    for name, packages in {
        "out of order": PACKAGES[::-1],
        "one twice": (PACKAGES[0], PACKAGES[0]),
        "two for one kind of board": (PACKAGES[0], ("bookworm", "amd64", b"9" * 32, 11)),
    }.items():
        claim = "Each kind of board has one package, and the packages have one order."
        read(f"packages {name}", claim, make_release(describe(packages=packages)), "malformed")


def _build_sequences(to: Recorder) -> None:
    claim = "The highest sequence counts; another release under a known number does not."
    known = describe()
    cases: dict[str, tuple[dict[str, Any] | None, dict[str, Any], str | None]] = {
        "the first": (None, known, None),
        "the next": (known, describe(sequence=8, share_bp=0), None),
        "an older one": (known, describe(sequence=6, version="9.0.0"), "wrong-sequence"),
        "the same again": (known, known, None),
        "another under its number": (known, describe(share_bp=10_000), "wrong-sequence"),
    }
    for name, (before, heard, error) in cases.items():
        to.add(f"sequence, {name}", claim, "process_release", error=error, known=before, heard=heard)


def _build_tranches(to: Recorder) -> None:
    shares: dict[str, dict[str, Any]] = {
        "none": {"share_bp": 0},
        "a quarter": {},
        "another version": {"version": "0.2.1"},
        "another sequence": {"sequence": 8},
        "all": {"share_bp": 10_000},
    }
    for name, changes in shares.items():
        claim = "A board's place follows from chain, version and address; it takes part in every share above its place."
        to.add(f"tranche, {name}", claim, "find_tranche", release=describe(**changes), chain=CHAIN, boards=BOARDS)
    given: dict[str, Any] = {"release": describe(), "chain": OTHER_CHAIN, "boards": BOARDS}
    to.add("tranche, another chain", "Each chain tries its own boards first.", "find_tranche", **given)
    # Found by trying: the place of this board is exactly the share.
    place, board = _find_place(2_500)
    for name, share in (("its place", place), ("one above its place", place + 1)):
        claim = "A share that is a board's place does not reach it; one basis point more does."
        given = {"release": describe(share_bp=share), "chain": CHAIN, "boards": (board,)}
        to.add(f"tranche, {name}", claim, "find_tranche", **given)


def _find_place(most: int) -> tuple[int, bytes]:
    board = next(board for board in BOARDS if compute_place(CHAIN, "0.2.0", Address(board)) <= most)
    return compute_place(CHAIN, "0.2.0", Address(board)), board


def _build_versions(to: Recorder) -> None:
    claim = "Versions are compared number by number."
    for version, than in (
        *(("0.2.0", "0.1.9"), ("0.1.9", "0.2.0"), ("0.2.0", "0.2.0"), ("0.10.0", "0.9.0"), ("0.9.0", "0.10.0")),
        *(("1.0.0", "0.99.99"), ("0.0.10", "0.0.9"), ("0.2.1", "0.2.0"), ("2.0.0", "10.0.0")),
    ):
        to.add(f"version, {version} after {than}", claim, "compare_versions", version=version, than=than)
    for than in ("1.0", "1.0.0.0", "1.0.x", "", "1.0.0-1", "1..0", "\u0661.0.0"):
        name = than.encode().hex()
        claim = "What has another form cannot be compared."
        to.add(f"version, no form {name}", claim, "compare_versions", error="malformed", version="1.0.0", than=than)


def _build_obstacles(to: Recorder) -> None:
    board = {"version": "0.1.0", "suite": "trixie", "architecture": "arm64", "bad": ()}
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "none": ({}, {}),
        "on another board": ({}, {"suite": "bookworm", "architecture": "amd64"}),
        "halted": ({"state": 1}, {}),
        "the same version": ({"version": "0.1.0"}, {}),
        "an older version": ({"version": "0.0.9"}, {}),
        "known bad": ({}, {"bad": ("0.2.0", "0.1.5")}),
        "another is known bad": ({}, {"bad": ("0.1.5",)}),
        "no package of this suite": ({}, {"suite": "noble"}),
        "no package of this architecture": ({}, {"architecture": "armhf"}),
        "halted and old": ({"state": 1, "version": "0.1.0"}, {}),
        "old and known bad": ({"version": "0.0.9"}, {"bad": ("0.0.9",)}),
        "known bad and no package": ({}, {"bad": ("0.2.0",), "suite": "noble"}),
    }
    for name, (release, changes) in cases.items():
        claim = "The first obstacle is named: halted, not newer, known as bad, no package."
        given: dict[str, Any] = {"release": describe(**release), "board": board | changes}
        to.add(f"obstacle, {name}", claim, "find_obstacle", **given)
