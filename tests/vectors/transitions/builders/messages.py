"""Vectors of the four kinds of transactions: who may send what, when, once, and what the round then holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2

from flchain.base.crypto import Identity
from flchain.ledger.state import ChainState, RevealedScores, RevealedUpdate
from flchain.wire.messages import (
    Commit,
    Phase,
    Reveal,
    ScoreCommit,
    ScoreReveal,
    Transfer,
    Vote,
    compute_score_commitment,
    compute_update_commitment,
)
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    BOTH,
    CHAIN,
    DEVICES,
    HOLDERS,
    MINERS,
    ROUND,
    STRANGER,
    WORLD,
    make_payload,
    seal,
    with_params,
    with_round,
)

SALT = bytes(range(1, 17))
OP = "process_message"


def build(to: Recorder) -> None:
    """All vectors of transactions."""
    _build_commits(to)
    _build_letters(to)
    _build_reveals(to)
    _build_score_commits(to)
    _build_score_reveals(to)
    _build_known(to)


def _hash(byte: int) -> Any:
    return bytes((byte,)) * 31 + b"!"


# --- commitments -----------------------------------------------------------------------------------------------------


def _build_commits(to: Recorder) -> None:
    there = ((DEVICES[1].address, _hash(1)), (DEVICES[5].address, _hash(5)))
    some = with_round(WORLD, commits=there, pledges=(DEVICES[1].address, DEVICES[5].address), heights=1)
    first = seal(Commit(ROUND, _hash(3), False), DEVICES[3])
    to.add("commit, first", "A commitment opens the list.", OP, WORLD, raw=first)
    to.add("commit, in order", "A commitment takes its place by address.", OP, some, raw=first)
    pledged = seal(Commit(ROUND, _hash(3), True), DEVICES[3])
    to.add("commit, pledged", "A pledge takes its place by address too.", OP, some, raw=pledged)
    lowest = seal(Commit(ROUND, _hash(3), True), DEVICES[0])
    to.add("commit, lowest", "The lowest address goes in front.", OP, some, raw=lowest)
    absent = seal(Commit(ROUND, _hash(3), True), DEVICES[5])
    to.add("commit, of a long absent device", "Whom nobody waits for may come.", OP, WORLD, raw=absent)
    both = seal(Commit(ROUND, _hash(3), False), BOTH)
    to.add("commit, of a validator that is a device", "A validator that is a device commits.", OP, WORLD, raw=both)
    again = seal(Commit(ROUND, _hash(9), True), DEVICES[5])
    to.add("commit, twice", "Nobody commits twice.", OP, some, raw=again, error="duplicate")
    for name, number in (("last", ROUND - 1), ("next", ROUND + 1)):
        raw = seal(Commit(number, _hash(3), False), DEVICES[3])
        claim = f"A commitment to the {name} round is refused."
        to.add(f"commit, {name} round", claim, OP, WORLD, raw=raw, error="wrong-round")
    for name, key in (("stranger", STRANGER), ("miner", MINERS[0]), ("holder", HOLDERS[0])):
        raw = seal(Commit(ROUND, _hash(3), False), key)
        to.add(f"commit, {name}", "Only devices commit.", OP, WORLD, raw=raw, error="unknown-sender")
    for phase in (Phase.OPEN, Phase.REVEAL, Phase.SCORE, Phase.SETTLE):
        claim = "Commitments belong to the phase of commitments."
        other = with_round(WORLD, phase=phase)
        to.add(f"commit, in {phase.name}", claim, OP, other, raw=first, error="wrong-round")


def _build_letters(to: Recorder) -> None:
    """What is wrong with the letter itself, and which fault is named of two."""
    good = seal(Commit(ROUND, _hash(3), False), DEVICES[3])
    broken = good[:-1] + bytes((good[-1] ^ 1,))
    to.add("letter, bad signature", "One bit of the signature counts.", OP, WORLD, raw=broken, error="bad-signature")
    foreign = seal(Commit(ROUND, _hash(3), False), DEVICES[3], chain=CHAIN[:8] + bytes(24))
    claim = "The whole name of the chain is signed, not only the part that travels."
    to.add("letter, of a chain of like name", claim, OP, WORLD, raw=foreign, error="bad-signature")
    other = seal(Commit(ROUND, _hash(3), False), DEVICES[3], chain=bytes(32))
    to.add("letter, of another chain", "Another chain is named.", OP, WORLD, raw=other, error="wrong-chain")
    to.add("letter, cut off", "A part is no message.", OP, WORLD, raw=good[:-1], error="truncated")
    to.add("letter, with more", "Nothing follows.", OP, WORLD, raw=good + b"\0", error="not-canonical")
    bare = cbor2.dumps(cbor2.loads(good).value, canonical=True)
    to.add("letter, without its tag", "An untagged array is unsigned.", OP, WORLD, raw=bare, error="unsigned")
    claim = "The round is looked at before the sender, the sender before the signature."
    stranger = seal(Commit(ROUND + 1, _hash(3), False), STRANGER)
    to.add("letter, wrong round of a stranger", claim, OP, WORLD, raw=stranger, error="wrong-round")
    unsigned = seal(Commit(ROUND, _hash(3), False), STRANGER)[:-1] + b"\0"
    to.add("letter, badly signed by a stranger", claim, OP, WORLD, raw=unsigned, error="unknown-sender")
    early = with_round(WORLD, phase=Phase.REVEAL)
    claim = "The signature is looked at before the phase."
    to.add("letter, badly signed, wrong phase", claim, OP, early, raw=broken, error="bad-signature")
    claim = "A message of agreement is no transaction."
    vote = seal(Vote(ROUND, 0, 1, None), MINERS[0])
    to.add("letter, a vote", claim, OP, WORLD, raw=vote, error="unknown-sender")
    order = seal(Transfer(ROUND, STRANGER.public_key, 100), DEVICES[3])
    to.add("letter, an order", "An order is no transaction.", OP, WORLD, raw=order, error="unknown-sender")


# --- updates ---------------------------------------------------------------------------------------------------------


def make_reveal(samples: int = 500, update: bytes | None = None, number: int = ROUND) -> Reveal:
    """An update of the given weight."""
    return Reveal(number, SALT, samples, make_payload(1) if update is None else update)


def commit_to(before: ChainState, *said: tuple[Identity, Reveal]) -> ChainState:
    """The state in REVEAL, with commitments to these updates and to one more that never comes."""
    commits = [(key.address, compute_update_commitment(CHAIN, key.address, reveal)) for key, reveal in said]
    commits.append((DEVICES[7].address, _hash(7)))
    return with_round(before, phase=Phase.REVEAL, heights=1, commits=tuple(sorted(commits)))


def _build_reveals(to: Recorder) -> None:
    key, reveal = DEVICES[3], make_reveal()
    ready = commit_to(WORLD, (key, reveal))
    to.add("reveal, first", "What was committed is opened.", OP, ready, raw=seal(reveal, key))
    there = (RevealedUpdate(DEVICES[1].address, 3, b"one"), RevealedUpdate(DEVICES[5].address, 5, b"five"))
    some = with_round(ready, reveals=there)
    to.add("reveal, in order", "Updates are in order of address.", OP, some, raw=seal(reveal, key))
    for samples in (1, 996, 997, 998, 2**20 - 1):
        said = make_reveal(samples)
        claim = "A claim of weight counts as the cap at most."
        to.add(f"reveal, {samples} samples", claim, OP, commit_to(WORLD, (key, said)), raw=seal(said, key))
    late = with_round(ready, reveals=(RevealedUpdate(key.address, 3, b"mine"),))
    to.add("reveal, twice", "Nobody reveals twice.", OP, late, raw=seal(reveal, key), error="duplicate")
    wrong = {
        "another salt": Reveal(ROUND, SALT[::-1], 500, make_payload(1)),
        "another weight": make_reveal(501),
        "another update": make_reveal(update=make_payload(2)),
    }
    for name, said in wrong.items():
        claim = "What is revealed must be what was committed."
        to.add(f"reveal, {name}", claim, OP, ready, raw=seal(said, key), error="bad-commitment")
    stolen = compute_update_commitment(CHAIN, DEVICES[3].address, reveal)
    copied = with_round(ready, commits=((DEVICES[2].address, stolen),))
    claim = "A copied commitment cannot be opened by the one that copied it."
    to.add("reveal, copied", claim, OP, copied, raw=seal(reveal, DEVICES[2]), error="bad-commitment")
    claim = "Without a commitment there is nothing to reveal."
    to.add("reveal, uncommitted", claim, OP, ready, raw=seal(reveal, DEVICES[0]), error="bad-commitment")
    long = make_reveal(samples=1_001)
    of_last = commit_to(WORLD, (key, make_reveal(number=ROUND - 1)))
    claim = "An update of the last round is refused."
    to.add("reveal, last round", claim, OP, of_last, raw=seal(make_reveal(number=ROUND - 1), key), error="wrong-round")
    early = with_round(ready, phase=Phase.COMMIT)
    claim = "No update before commitments are closed."
    to.add("reveal, too early", claim, OP, early, raw=seal(reveal, key), error="wrong-round")
    closed = with_round(ready, phase=Phase.SCORE)
    to.add("reveal, too late", "No update once scoring began.", OP, closed, raw=seal(reveal, key), error="wrong-round")
    to.add("reveal, miner", "Miners reveal no update.", OP, ready, raw=seal(long, MINERS[0]), error="unknown-sender")
    _build_payloads(to, key)


def _build_payloads(to: Recorder, key: Identity) -> None:
    """Payloads that the codec refuses, and one of each codec that it takes."""
    lowest = make_payload(1)[:-4]
    for name, update in {
        "a parameter less": lowest,
        "a byte more": make_payload(1) + b"\0",
        "nothing": b"",
        "the value below the range": lowest + (2**31).to_bytes(4, "little"),
    }.items():
        said = make_reveal(update=update)
        before, claim = commit_to(WORLD, (key, said)), "A payload that the codec cannot read is refused."
        to.add(f"reveal, {name}", claim, OP, before, raw=seal(said, key), error="malformed-update")
    said = make_reveal(update=lowest + (2**31 + 1).to_bytes(4, "little"))
    claim = "The lowest value of the range is in it."
    to.add("reveal, the lowest value", claim, OP, commit_to(WORLD, (key, said)), raw=seal(said, key))
    for codec, level in CODEC_LEVELS.items():
        payload = make_payload(1, codec, level, sender=key.address)
        changes: dict[str, Any] = {"codec": codec, "codec_level": level}
        said = make_reveal(update=payload)
        before = commit_to(with_params(WORLD, **changes), (key, said))
        to.add(f"reveal, {codec}", "An update of each codec is taken.", OP, before, raw=seal(said, key))
        said = make_reveal(update=payload + b"\x01")
        before, claim = commit_to(with_params(WORLD, **changes), (key, said)), "Each codec refuses a byte too many."
        name = f"reveal, {codec}, a byte more"
        to.add(name, claim, OP, before, raw=seal(said, key), error="malformed-update")


CODEC_LEVELS = {
    "identity": 1,
    "sparse-ternary": 2,
    "top-k": 2,
    "qsgd": 3,
    "random-mask": 2,
    "count-sketch": 1,
    "delta-entropy": 3,
    "adaptive": 40_005,
}


# --- scores ----------------------------------------------------------------------------------------------------------


def _build_score_commits(to: Recorder) -> None:
    there = ((MINERS[0].address, _hash(1)), (MINERS[3].address, _hash(5)))
    before = with_round(WORLD, phase=Phase.SCORE, score_commits=tuple(sorted(there)), pledges=(DEVICES[1].address,))
    said = ScoreCommit(ROUND, _hash(4))
    senders = {"validator": MINERS[1], "device": DEVICES[1], "device without a pledge": DEVICES[0]}
    senders |= {"validator that is a device": BOTH}
    for name, key in senders.items():
        claim = "Validators and devices commit to scores, in order of address."
        to.add(f"score commit, {name}", claim, OP, before, raw=seal(said, key))
    refused = {"candidate without a seat": MINERS[4], "jailed": MINERS[5], "holder": HOLDERS[1], "stranger": STRANGER}
    for name, key in refused.items():
        claim = "Nobody else commits to scores."
        to.add(f"score commit, {name}", claim, OP, before, raw=seal(said, key), error="unknown-sender")
    again = seal(said, MINERS[0])
    to.add("score commit, twice", "Nobody commits to scores twice.", OP, before, raw=again, error="duplicate")
    old = seal(ScoreCommit(ROUND - 1, _hash(4)), MINERS[1])
    to.add("score commit, last round", "That of another round is refused.", OP, before, raw=old, error="wrong-round")
    for phase in (Phase.COMMIT, Phase.REVEAL, Phase.SETTLE):
        name, claim = f"score commit, in {phase.name}", "They belong to the phase of scores."
        to.add(name, claim, OP, with_round(before, phase=phase), raw=seal(said, MINERS[1]), error="wrong-round")


def make_scored(*updates: int) -> ChainState:
    """The state in SCORE with updates of these devices."""
    reveals = tuple(RevealedUpdate(DEVICES[i].address, 101 + 7 * i, make_payload(i)) for i in updates)
    return with_round(WORLD, phase=Phase.SCORE, reveals=reveals)


def make_word(before: ChainState, base: int = 6_001, number: int = ROUND) -> ScoreReveal:
    """Distinct scores for all that the state asks for, by who has revealed and whose home it is."""
    homes = {device.address: device.home for device in before.devices}
    senders = [update.sender for update in before.round.reveals]
    listed = tuple((bytes(sender), base + 11 * i + 1) for i, sender in enumerate(senders))
    miners = sorted({homes[sender] for sender in senders})
    return ScoreReveal(number, SALT, base, listed, tuple((bytes(home), base - 13 * i) for i, home in enumerate(miners)))


def _commit_scores(before: ChainState, *said: tuple[Identity, ScoreReveal]) -> ChainState:
    commits = [(key.address, compute_score_commitment(CHAIN, key.address, word)) for key, word in said]
    commits.append((MINERS[2].address, _hash(2)))
    return with_round(before, phase=Phase.SETTLE, heights=1, score_commits=tuple(sorted(commits)))


def _build_score_reveals(to: Recorder) -> None:
    scored = make_scored(0, 2, 3, 5)
    word = make_word(scored)
    for name, key in {"validator": MINERS[1], "device": DEVICES[3], "both": BOTH}.items():
        claim = "Scores are opened as they were committed, and kept in order of address."
        before = with_round(
            _commit_scores(scored, (key, word)),
            score_reveals=tuple(
                sorted(
                    (
                        RevealedScores(MINERS[0].address, 1, (2, 3, 4, 5), (6, 7, 8)),
                        RevealedScores(MINERS[3].address, 9, (10, 11, 12, 13), (14, 15, 16)),
                    ),
                    key=lambda said: said.scorer,
                )
            ),
        )
        to.add(f"score reveal, {name}", claim, OP, before, raw=seal(word, key))
    key = MINERS[1]
    ready = _commit_scores(scored, (key, word))
    there = with_round(ready, score_reveals=(RevealedScores(key.address, 1, (2, 3, 4, 5), (6, 7, 8)),))
    to.add("score reveal, twice", "Nobody scores twice.", OP, there, raw=seal(word, key), error="duplicate")
    to.add(
        "score reveal, uncommitted",
        "Scores that nobody committed to are refused.",
        OP,
        ready,
        raw=seal(word, MINERS[0]),
        error="bad-commitment",
    )
    shifted = ((word.scores[0][0], word.scores[0][1] + 1), *word.scores[1:])
    swapped = (word.aggregates[0], (word.aggregates[1][0], word.aggregates[1][1] - 1), *word.aggregates[2:])
    words = {
        "another salt": ScoreReveal(ROUND, SALT[::-1], word.base_score, word.scores, word.aggregates),
        "another base": ScoreReveal(ROUND, SALT, word.base_score + 1, word.scores, word.aggregates),
        "another score": ScoreReveal(ROUND, SALT, word.base_score, shifted, word.aggregates),
        "another aggregate": ScoreReveal(ROUND, SALT, word.base_score, word.scores, swapped),
        "a list moved over": ScoreReveal(
            ROUND, SALT, word.base_score, word.scores[:-1], (word.scores[-1], *word.aggregates)
        ),
    }
    for name, said in words.items():
        claim = "All parts of the scores are bound by the commitment."
        to.add(f"score reveal, {name}", claim, OP, ready, raw=seal(said, key), error="bad-commitment")
    _build_score_lists(to, scored, word)
    ends = {"early": replace(ready.round, phase=Phase.SCORE), "late": replace(ready.round, phase=Phase.COMMIT)}
    for name, round_ in ends.items():
        claim, before = "Scores are opened in the last phase.", replace(ready, round=round_)
        to.add(f"score reveal, too {name}", claim, OP, before, raw=seal(word, key), error="wrong-round")
    old = make_word(scored, number=ROUND - 1)
    before, claim = _commit_scores(scored, (key, old)), "Scores of another round are refused."
    to.add("score reveal, last round", claim, OP, before, raw=seal(old, key), error="wrong-round")


def _build_score_lists(to: Recorder, scored: ChainState, word: ScoreReveal) -> None:
    """Scores must name each update and each miner once, in order; committed to as they are here, they still fail."""
    key, scores, homes = MINERS[1], word.scores, word.aggregates
    stranger = (bytes(STRANGER.address), 5_000)
    cases = {
        "an update left out": (scores[1:], homes),
        "an update twice": ((*scores, scores[-1]), homes),
        "updates out of order": ((scores[1], scores[0], *scores[2:]), homes),
        "an update of nobody": ((*scores[:-1], stranger), homes),
        "a miner left out": (scores, homes[:-1]),
        "a miner twice": (scores, (*homes, homes[-1])),
        "miners out of order": (scores, (homes[1], homes[0], *homes[2:])),
        "a miner without updates": (scores, tuple(sorted((*homes, (bytes(MINERS[3].address), 5_000))))),
        "no scores": ((), ()),
    }
    for name, (listed, aggregates) in cases.items():
        said = ScoreReveal(ROUND, SALT, word.base_score, listed, aggregates)
        before, claim = _commit_scores(scored, (key, said)), "Scores name each update and each miner once, in order."
        to.add(f"score reveal, {name}", claim, OP, before, raw=seal(said, key), error="malformed")
    for base, error in ((0, None), (10_000, None), (10_001, "malformed")):
        said = ScoreReveal(ROUND, SALT, base, scores, homes)
        before, claim = _commit_scores(scored, (key, said)), "A score is a share in basis points."
        to.add(f"score reveal, base {base}", claim, OP, before, raw=seal(said, key), error=error)


# --- what is there already -------------------------------------------------------------------------------------------


def _build_known(to: Recorder) -> None:
    """Each kind of message in a round that holds it, and in one that holds another of the same sender."""
    device, miner, op = DEVICES[3], MINERS[1], "is_in_chain"
    scored = make_scored(0, 2, 3, 5)
    update, word = make_reveal(333), make_word(scored)
    revealed = RevealedUpdate(device.address, 333, update.update)
    scores = tuple(score for _, score in word.scores), tuple(score for _, score in word.aggregates)
    said = RevealedScores(miner.address, word.base_score, *scores)
    bound, bound_word = commit_to(WORLD, (device, update)), _commit_scores(scored, (miner, word))
    commitment = compute_update_commitment(CHAIN, device.address, update)
    word_commitment = compute_score_commitment(CHAIN, miner.address, word)
    other = make_reveal(334)
    cases: dict[str, tuple[ChainState, Any, Identity]] = {
        "a commitment": (bound, Commit(ROUND, commitment, True), device),
        "another commitment": (bound, Commit(ROUND, _hash(3), True), device),
        "a commitment of another": (bound, Commit(ROUND, commitment, True), DEVICES[2]),
        "a commitment of another round": (bound, Commit(ROUND + 1, commitment, True), device),
        "an update": (with_round(bound, reveals=(revealed,)), update, device),
        "an update to come": (bound, update, device),
        "another update": (with_round(bound, reveals=(revealed,)), other, device),
        "scores bound": (bound_word, ScoreCommit(ROUND, word_commitment), miner),
        "other scores bound": (bound_word, ScoreCommit(ROUND, _hash(2)), miner),
        "scores": (with_round(bound_word, score_reveals=(said,)), word, miner),
        "scores to come": (bound_word, word, miner),
        "other scores": (with_round(bound_word, score_reveals=(said,)), make_word(scored, 5_000), miner),
        "an order": (bound, Transfer(ROUND, STRANGER.public_key, 5), device),
    }
    for name, (before, message, key) in cases.items():
        claim = "A message is in the chain if the open round holds this very one of its sender."
        to.add(f"known, {name}", claim, op, before, raw=seal(message, key), public_key=key.public_key)
