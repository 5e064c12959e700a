"""Bad input, first room: each kind of signed message, sent to the machine that is to take it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

from agent.core.state import AgentState
from flchain.base.crypto import Identity
from flchain.base.types import Round, Stake
from flchain.ledger.state import Delegation
from flchain.wire.envelope import open_envelope, seal, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.fleet import Status
from flchain.wire.messages import (
    AnyMessage,
    Ask,
    Commit,
    Delegate,
    Evidence,
    Phase,
    Proposal,
    Receipt,
    Register,
    Resume,
    Reveal,
    ScoreCommit,
    ScoreReveal,
    Transfer,
    Undelegate,
    Unjail,
    Vote,
    Want,
    compute_score_commitment,
    compute_update_commitment,
)
from flchain.wire.release import Release
from miner.core.state import MinerState
from tests.support.bad_fields.nodes import (
    CHAIN,
    DEVICE,
    HOLDER,
    KIND_PHASES,
    MINER,
    TOPICS,
    ask_agent,
    ask_miner,
    build_agent,
    build_miner,
    drive,
    say,
    to_miner,
)
from tests.support.bad_fields.table import OTHER_20, OTHER_32, Bench, Effect, Line, Outcome, Row, attempt, build_rows
from tests.support.bad_fields.table import build_shape_rows as shape_rows
from tests.support.builders.chain import build_identity, make_reveal, make_scores
from tests.support.builders.stake import STRANGER_HASH, seal_vote
from tests.support.builders.wire import build_word

DROPPED, RECEIPT, IGNORED, TAKEN = Effect.DROPPED, Effect.RECEIPT, Effect.IGNORED, Effect.TAKEN
UP, BFT = "up, to a miner", "bft, to a miner"
TO = "to, to a device"
MOST = 2**53
STRANGER = build_identity(9, 9)
SHAPES: dict[type[AnyMessage], dict[str, str]] = {
    Commit: {"round": "number", "commitment": "hash", "will_score": "flag"},
    Reveal: {"round": "number", "salt": "salt", "samples": "samples", "update": "bytes"},
    ScoreCommit: {"round": "number", "commitment": "hash"},
    ScoreReveal: {"round": "number", "salt": "salt", "base_score": "share", "scores": "scores", "aggregates": "scores"},
    Proposal: {"height": "number", "view": "counter", "valid_view": "valid view", "block_hash": "hash"},
    Vote: {"height": "number", "view": "counter", "step": "step", "block_hash": "hash or null"},
    Receipt: {"round": "number", "digest": "hash", "code": "text of 32"},
    Status: {
        "round": "number",
        "model_hash": "hash",
        "is_mismatch": "flag",
        "training_ms": "counter",
        "bytes_up": "counter",
        "bytes_down": "counter",
        "written_ms": "counter",
        "up_s": "counter",
        "report_s": "counter",
        "name": "name of 32",
        "labels": "labels",
        "task": "title or none",
        "version": "version of 32",
        "suite": "system",
        "architecture": "system",
        "health": "health",
        "reason": "reason",
        "battery_percent": "percent or null",
        "temperature_c": "degrees or null",
        "release": "counter",
        "update": "update",
    },
    Ask: {"height": "number", "to": "address", "want": "want", "model_round": "counter"},
    Resume: {"height": "number", "to": "address", "digest": "hash", "ranges": "ranges"},
    Transfer: {"sequence": "number", "to_key": "hash", "amount": "positive"},
    Register: {"sequence": "number", "commission_bp": "share", "amount": "positive"},
    Delegate: {"sequence": "number", "candidate": "address", "amount": "positive"},
    Undelegate: {"sequence": "number", "candidate": "address", "amount": "positive"},
    Unjail: {"sequence": "number"},
    Evidence: {"height": "number", "first": "bytes", "second": "bytes"},
    Release: {
        "sequence": "number",
        "version": "version of a release",
        "packages": "packages",
        "share_bp": "share",
        "state": "release state",
        "window_s": "window",
        "issued_s": "counter",
    },
}
"""The shape of every field of every kind."""


# --- a round's messages, of a device and of miners -----------------------------------------------------------------


@lru_cache
def get_round_message(kind: Kind, sender: Identity) -> AnyMessage:
    """What this sender may say in the phase that the kind is for."""
    state = drive(KIND_PHASES[kind]).state
    reveal, scores = make_reveal(CHAIN, 0), make_scores(state)
    match kind:
        case Kind.COMMIT:
            return Commit(1, compute_update_commitment(CHAIN.id, sender.address, reveal), False)
        case Kind.REVEAL:
            return reveal
        case Kind.SCORE_COMMIT:
            return ScoreCommit(1, compute_score_commitment(CHAIN.id, sender.address, scores))
    return scores


def build_round_bench(message: type[AnyMessage], sender: Identity, where: str) -> Bench:
    topic = TOPICS.device_up(sender.address) if where == UP else TOPICS.miner_bft(sender.address)
    get_state = partial(build_miner, KIND_PHASES[message.kind])
    get_right = partial(get_round_message, message.kind, sender)
    return Bench(message.__name__, where, get_right, to_miner(get_state, topic, sender))


def shift(pairs: tuple[tuple[bytes, int], ...]) -> tuple[tuple[bytes, int], ...]:
    return tuple((address, score + 1) for address, score in pairs)


def build_round_lines(effect: Effect, kind: Kind) -> list[Line]:
    """`effect` is what a fault gets that will never do."""
    numbers: list[Line] = [
        ("round", "0, or one that is over", 0, "wrong-round", effect),
        ("round", "two ahead", 3, "wrong-round", DROPPED),
        ("round", "the next one", 2, "", TAKEN),
    ]
    if kind is Kind.REVEAL:
        return [
            *numbers,
            ("salt", "another", b"another salt 16b", "bad-commitment", effect),
            ("samples", "others than committed", 101, "bad-commitment", effect),
            ("update", "another than committed", lambda m: m.update + b"\0", "bad-commitment", effect),
            ("update", "longer than the codec writes", bytes(2_000), "malformed-update", effect),
        ]
    if kind is Kind.SCORE_REVEAL:
        return [
            *numbers,
            ("salt", "another", b"another salt 16b", "bad-commitment", effect),
            ("base_score", "another than committed", 6_999, "bad-commitment", effect),
            ("scores", "others than committed", lambda m: shift(m.scores), "bad-commitment", effect),
            ("aggregates", "others than committed", lambda m: shift(m.aggregates), "bad-commitment", effect),
        ]
    return numbers


def build_committed(kind: Kind, change: dict[str, object]) -> tuple[AnyMessage, MinerState]:
    """A message wrong in its own right, under a commitment that fits it: only the rule on its content can refuse it."""
    before = build_miner(KIND_PHASES[kind])
    right, chain = get_round_message(kind, DEVICE), before.chain
    wrong = type(right)(**({f: getattr(right, f) for f in right.__struct_fields__} | change))
    if isinstance(wrong, Reveal):
        word = (DEVICE.address, compute_update_commitment(CHAIN.id, DEVICE.address, wrong))
        commits = tuple(sorted({**dict(chain.round.commits), word[0]: word[1]}.items()))
        return wrong, replace(before, chain=replace(chain, round=replace(chain.round, commits=commits)))
    assert isinstance(wrong, ScoreReveal)
    said = (DEVICE.address, compute_score_commitment(CHAIN.id, DEVICE.address, wrong))
    commits = tuple(sorted({**dict(chain.round.score_commits), said[0]: said[1]}.items()))
    return wrong, replace(before, chain=replace(chain, round=replace(chain.round, score_commits=commits)))


def build_committed_rows() -> list[Row]:
    reveal = Bench("Reveal", UP, partial(dict[str, object]), partial(send_committed, Kind.REVEAL))
    scores = Bench("ScoreReveal", UP, partial(dict[str, object]), partial(send_committed, Kind.SCORE_REVEAL))
    first = make_scores(drive(Phase.SETTLE).state)
    cases: list[tuple[Bench, str, str, dict[str, object], str]] = [
        (reveal, "update", "no payload of the codec, though committed", {"update": b"\xff" * 20}, "malformed-update"),
        (reveal, "update", "empty, though committed", {"update": b""}, "malformed-update"),
        (scores, "scores", "one missing, though committed", {"scores": first.scores[1:]}, "malformed"),
        (scores, "scores", "in another order, though committed", {"scores": first.scores[::-1]}, "malformed"),
        (scores, "scores", "of a stranger, though committed", {"scores": ((OTHER_20, 1),)}, "malformed"),
        (scores, "aggregates", "one missing, though committed", {"aggregates": first.aggregates[1:]}, "malformed"),
        (
            scores,
            "aggregates",
            "in another order, though committed",
            {"aggregates": first.aggregates[::-1]},
            "malformed",
        ),
        (scores, "aggregates", "of a stranger, though committed", {"aggregates": ((OTHER_20, 1),)}, "malformed"),
    ]
    rows = []
    for bench, field, wrong, change, code in cases:
        effect = RECEIPT if code == "malformed-update" else DROPPED
        rows.append(Row(bench, field, wrong, lambda right, change=change: change, code, effect))  # type: ignore[misc]
    return rows


def send_committed(kind: Kind, change: dict[str, object]) -> Outcome:
    message, state = build_committed(kind, change)
    return ask_miner(state, TOPICS.device_up(DEVICE.address), say(message, DEVICE))


# --- agreement -----------------------------------------------------------------------------------------------------


VOTER = next(key for key in CHAIN.miners[:4] if key is not CHAIN.miners[0])
VOTE = Bench(
    "Vote",
    BFT,
    lambda: Vote(2, 0, 1, STRANGER_HASH),
    to_miner(partial(build_miner, Phase.COMMIT), TOPICS.miner_bft(VOTER.address), VOTER),
)
VOTE_LINES: list[Line] = [
    ("height", "one that is final", 1, "", IGNORED),
    ("height", "the next one", 3, "", TAKEN),
    ("height", "two ahead", 4, "wrong-round", DROPPED),
    ("view", "far ahead", MOST, "", TAKEN),
    ("block_hash", "of a block that nobody has", OTHER_32, "", TAKEN),
]

# --- receipts, questions, status ------------------------------------------------------------------------------------


@lru_cache
def get_waiting_agent() -> AgentState:
    """Device 0 with a commitment of round 1 in its outbox."""
    raw = seal(get_round_message(Kind.COMMIT, DEVICE), CHAIN.id, DEVICE)
    digest = open_envelope(raw, CHAIN.id).digest()
    return replace(build_agent(), outbox={digest: (Round(1), raw)})


def send_receipt(message: AnyMessage) -> Outcome:
    topic = TOPICS.miner_to(CHAIN.miners[0].address, DEVICE.address)
    return ask_agent(get_waiting_agent(), topic, say(message, CHAIN.miners[0]))


def read_status(message: AnyMessage) -> Outcome:
    raw = seal(message, CHAIN.id, DEVICE)
    return attempt(lambda: verify_envelope(open_envelope(raw, CHAIN.id), CHAIN.id, DEVICE.public_key))


def get_receipt() -> Receipt:
    return Receipt(1, next(iter(get_waiting_agent().outbox)), "ok")


RECEIPT_BENCH = Bench("Receipt", TO, get_receipt, send_receipt)
RECEIPT_LINES: list[Line] = [
    ("round", "of another round than the message", 2, "wrong-round", DROPPED),
    ("digest", "of no message that waits", OTHER_32, "", IGNORED),
    ("code", "one that this device does not know", "no-such-code", "", TAKEN),
]
STATUS_BENCH = Bench("Status", "status, to an onlooker", build_word, read_status)


def build_ask_bench(where: str) -> Bench:
    sender = DEVICE if where == UP else MINER
    topic = TOPICS.device_up(sender.address) if where == UP else TOPICS.miner_bft(sender.address)
    get_right = partial(Ask, 2, CHAIN.miners[0].address, Want.HEAD, 0)
    return Bench("Ask", where, get_right, to_miner(partial(build_miner, Phase.COMMIT), topic, sender))


def build_ask_lines(where: str) -> list[Line]:
    lines: list[Line] = [
        ("height", "0: there is no such block", 0, "malformed", DROPPED, "$[0]"),
        ("to", "another miner", OTHER_20, "", IGNORED),
    ]
    if where == UP:
        lines += [("want", f"{want.name}, of a device", want, "", IGNORED) for want in (Want.BLOCKS, Want.STATE)]
    return lines


RESUME_RIGHT = Resume(2, CHAIN.miners[0].address, b"d" * 32, ((0, 2), (5, 1)))
RESUME = Bench(
    "Resume",
    UP,
    lambda: RESUME_RIGHT,
    to_miner(partial(build_miner, Phase.COMMIT), TOPICS.device_up(DEVICE.address), DEVICE),
)


def hear_resume(message: AnyMessage) -> Outcome:
    topic = TOPICS.miner_to(CHAIN.miners[0].address, DEVICE.address)
    return ask_agent(get_waiting_agent(), topic, say(message, CHAIN.miners[0]))


HEARD_RESUME = Bench("Resume", TO, lambda: Resume(2, DEVICE.address, b"d" * 32, ((0, 2), (5, 1))), hear_resume)
RESUME_LINES: list[Line] = [
    ("height", "0: there is no such block", 0, "malformed", DROPPED, "$[0]"),
    ("to", "another node", OTHER_20, "", IGNORED),
    ("digest", "of no packet that is kept: nothing is sent", OTHER_32, "", TAKEN),
    ("ranges", "beyond the packet's end: nothing is sent", ((2**50, 1),), "", TAKEN),
]


# --- orders --------------------------------------------------------------------------------------------------------


@lru_cache
def get_stake_miner() -> MinerState:
    """The holder has 60 behind miner 0; miner 3 was jailed, its time is over."""
    before = build_miner(Phase.COMMIT)
    chain, jailed = before.chain, CHAIN.miners[3].address
    delegations = (*chain.delegations, Delegation(HOLDER.address, CHAIN.miners[0].address, Stake(60)))
    delegations = tuple(sorted(delegations, key=lambda d: (d.delegator, d.candidate)))
    candidates = tuple(replace(c, is_jailed=c.address == jailed) for c in chain.candidates)
    accounts = tuple(replace(a, balance=Stake(9)) if a.address == jailed else a for a in chain.accounts)
    after = replace(chain, delegations=delegations, candidates=candidates, accounts=accounts)
    return replace(before, chain=after)


def build_order_bench(message: AnyMessage, sender: Identity, where: str) -> Bench:
    topic = TOPICS.device_up(sender.address) if where == UP else TOPICS.miner_bft(MINER.address)
    return Bench(type(message).__name__, where, lambda: message, to_miner(get_stake_miner, topic, sender))


def build_order_lines(effect: Effect) -> dict[type[AnyMessage], list[Line]]:
    """`effect` is a receipt for the sender of an order."""
    turns: list[Line] = [
        ("sequence", "a later one: it waits for those before it", 1, "", TAKEN),
    ]
    poor: Line = ("amount", "more than is owned: it waits for money", 5_000, "", TAKEN)
    return {
        Transfer: [
            *turns,
            ("to_key", "no public key", b"\xff" * 32, "refused-order", effect),
            ("to_key", "a point of small order", bytes((1, *bytes(31))), "refused-order", effect),
            ("amount", "dust, to a new account", 9, "refused-order", effect),
            poor,
        ],
        Register: [*turns, ("amount", "less than the least bond", 49, "refused-order", effect), poor],
        Delegate: [
            *turns,
            ("candidate", "none", OTHER_20, "refused-order", effect),
            ("amount", "dust", 9, "refused-order", effect),
            poor,
        ],
        Undelegate: [
            *turns,
            ("candidate", "nothing is behind it: it waits", OTHER_20, "", TAKEN),
            ("amount", "more than is delegated: it waits", 61, "", TAKEN),
            ("amount", "leaves dust", 55, "refused-order", effect),
        ],
        Unjail: turns,
        Evidence: [
            ("height", "another than the votes'", 1, "bad-evidence", effect),
            ("first", "no signed message", b"x", "bad-evidence", effect),
            ("first", "of another validator", seal_other_vote(), "bad-evidence", effect),
            ("first", "with a wrong signature", lambda m: m.first[:-1] + b"\0", "bad-evidence", effect),
            ("first", "the same as the second", lambda m: m.second, "bad-evidence", effect),
            ("second", "no signed message", b"", "bad-evidence", effect),
            ("second", "of another step", seal_step_vote(), "bad-evidence", effect),
            ("second", "of another chain", seal(Vote(2, 0, 2, None), OTHER_32, MINER), "bad-evidence", effect),
            ("second", "no vote and no proposal", seal(Unjail(2), CHAIN.id, MINER), "bad-evidence", effect),
        ],
    }


def seal_other_vote() -> bytes:
    return seal_vote(drive(Phase.COMMIT).state, CHAIN.miners[2], None)


def seal_step_vote() -> bytes:
    return seal_vote(drive(Phase.COMMIT).state, MINER, STRANGER_HASH, step=1)


def build_orders() -> list[tuple[AnyMessage, Identity]]:
    chain = drive(Phase.COMMIT).state
    words = sorted((seal_vote(chain, MINER, None), seal_vote(chain, MINER, STRANGER_HASH)))
    return [
        (Transfer(0, STRANGER.public_key, 20), HOLDER),
        (Register(0, 1_000, 50), HOLDER),
        (Delegate(0, CHAIN.miners[0].address, 20), HOLDER),
        (Undelegate(0, CHAIN.miners[0].address, 20), HOLDER),
        (Unjail(0), CHAIN.miners[3]),
        (Evidence(2, *words), HOLDER),
    ]


# --- the rows ------------------------------------------------------------------------------------------------------


def build_message_rows() -> list[Row]:
    """All rows of signed messages except proposals, which come with their block (see `blocks`)."""
    rows: list[Row] = []
    for message in (Commit, Reveal, ScoreCommit, ScoreReveal):
        rooms = [(DEVICE, UP, RECEIPT)]
        if message in (ScoreCommit, ScoreReveal):
            rooms.append((MINER, BFT, DROPPED))
        for sender, where, effect in rooms:
            bench = build_round_bench(message, sender, where)
            rows += build_rows(bench, build_round_lines(effect, message.kind))
            rows += shape_rows(bench, message, SHAPES[message])
    rows += build_committed_rows()
    rows += [*build_rows(VOTE, VOTE_LINES), *shape_rows(VOTE, Vote, SHAPES[Vote])]
    rows += [*build_rows(RECEIPT_BENCH, RECEIPT_LINES), *shape_rows(RECEIPT_BENCH, Receipt, SHAPES[Receipt])]
    rows += [*shape_rows(STATUS_BENCH, Status, SHAPES[Status])]
    for where in (UP, BFT):
        rows += build_rows(build_ask_bench(where), build_ask_lines(where))
        rows += shape_rows(build_ask_bench(where), Ask, SHAPES[Ask])
    for bench in (RESUME, HEARD_RESUME):
        rows += [*build_rows(bench, RESUME_LINES), *shape_rows(bench, Resume, SHAPES[Resume])]
    for where, effect in ((UP, RECEIPT), (BFT, DROPPED)):
        lines = build_order_lines(effect)
        for order, sender in build_orders():
            bench = build_order_bench(order, sender, where)
            rows += build_rows(bench, lines[type(order)])
            rows += shape_rows(bench, type(order), SHAPES[type(order)])
    return rows
