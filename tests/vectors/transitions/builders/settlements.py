"""Vectors of settlement: what scores weigh, their medians, who is accepted, and how a round ends otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from flchain.base.crypto import Identity
from flchain.ledger.state import ChainState, RevealedScores, RevealedUpdate
from flchain.wire.messages import Phase
from tests.vectors.transitions.builders.phases import set_powers
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    BOTH,
    BOTH_PLACE,
    DEVICES,
    MINERS,
    STRANGER,
    WORLD,
    make_payload,
    untyped,
    with_candidate,
    with_device,
    with_params,
    with_round,
)

SEATED = (*MINERS[:4], BOTH)
MINING = tuple(i for i in (0, 2, 4, 6) if i != BOTH_PLACE)
"""Places of devices that score in many of these vectors."""
MARGIN = 431
"""As in the world's parameters."""


@dataclass(frozen=True)
class Said:
    """A scorer's word: of the base model, by place of device, by place of miner. What is not named is as the base."""

    key: Identity
    base: int = 6_000
    of_devices: Mapping[int, int] = field(default_factory=dict)
    of_miners: Mapping[int, int] = field(default_factory=dict)


def make_round(before: ChainState, updates: Sequence[int], said: Sequence[Said]) -> ChainState:
    """The state at the end of a round with updates of the devices at these places and these scores."""
    reveals = tuple(RevealedUpdate(DEVICES[i].address, 101 + 67 * i, make_payload(i)) for i in sorted(updates))
    homes = sorted({before.devices[i].home for i in updates})
    miners = [next(i for i, key in enumerate(MINERS) if key.address == home) for home in homes]
    words = tuple(
        RevealedScores(
            word.key.address,
            word.base,
            tuple(word.of_devices.get(i, word.base) for i in sorted(updates)),
            tuple(word.of_miners.get(i, word.base) for i in miners),
        )
        for word in sorted(said, key=lambda word: word.key.address)
    )
    commits = tuple((word.scorer, b"s" * 32) for word in words)
    return with_round(
        before, phase=Phase.SETTLE, heights=1, reveals=reveals, score_reveals=words, score_commits=commits
    )


def agree(keys: Sequence[Identity], base: int = 6_000, devices: Mapping[int, int] | None = None) -> list[Said]:
    """The same word of many."""
    return [Said(key, base, devices or {}) for key in keys]


def list_varied(keys: Sequence[Identity]) -> list[Said]:
    """Words that all differ, near each other."""
    return [
        Said(
            key,
            6_000 + 37 * n,
            {i: 5_700 + 41 * n + 97 * i - (800 if i == 3 else 0) for i in range(8)},
            {i: 6_050 + 53 * n - 71 * i for i in range(7)},
        )
        for n, key in enumerate(keys)
    ]


def settle(to: Recorder, name: str, claim: str, before: ChainState) -> None:
    """What the scores say, and what settlement makes of it."""
    to.add(name, claim, "judge_and_settle", before)


def build(to: Recorder) -> None:
    """All vectors of scores, acceptance and rounds that end otherwise."""
    _build_usual(to)
    _build_medians(to)
    _build_weights(to)
    _build_own_words(to)
    _build_outliers(to)
    _build_ends(to)


def _build_usual(to: Recorder) -> None:
    scorers = [*SEATED, *(DEVICES[i] for i in MINING)]
    full = make_round(WORLD, range(8), list_varied(scorers))
    pledges = tuple(sorted(DEVICES[i].address for i in (0, 1, 3, 5, 6)))
    claim = "A round in which all revealed and all that may score did, each with a word of its own."
    settle(to, "usual, all", claim, with_round(full, pledges=pledges))
    some = make_round(WORLD, (0, 2, 3, 5), list_varied([MINERS[0], MINERS[1], MINERS[3], BOTH, DEVICES[2]]))
    claim = "Validators and devices that kept silent are judged for it; who committed to scores or pledged them."
    commits = tuple(
        sorted((*some.round.score_commits, (MINERS[2].address, b"s" * 32), (DEVICES[7].address, b"s" * 32)))
    )
    settle(to, "usual, some silent", claim, with_round(some, pledges=pledges, score_commits=commits))
    claim = "Of one validator alone the word is all."
    alone = set_powers(WORLD, (0, 0, 5, 0, 0, 0, 0))
    settle(to, "usual, one validator", claim, make_round(alone, (1, 3), list_varied([MINERS[2]])))


def _build_medians(to: Recorder) -> None:
    for gain in (-MARGIN + 1, -MARGIN, -MARGIN - 1):
        claim = "An update is accepted at most the margin below the base model."
        before = make_round(WORLD, (0, 3), agree(SEATED, 6_000, {0: 6_000 + gain, 3: 5_000}))
        settle(to, f"margin, {gain}", claim, before)
    low = make_round(WORLD, (0, 3), agree(SEATED, 400, {0: 0, 3: 1}))
    settle(to, "margin, below nothing", "Below the margin no score is too low.", low)
    claim = "The median is the least value with half the weight at or below it: at just half it is the lower one."
    for powers in ((4, 3, 3, 4, 0, 0, 0), (4, 3, 4, 4, 0, 0, 0), (4, 3, 3, 5, 0, 0, 0), (3, 3, 3, 5, 0, 0, 0)):
        words = [Said(MINERS[i], 6_000 + 10 * i, {1: 5_000 + 700 * i, 2: 9_000 - 700 * i}) for i in range(4)]
        name = f"median, powers {powers[:4]}"
        settle(to, name, claim, make_round(set_powers(WORLD, powers), (1, 2), words))
    equal = [Said(MINERS[i], 6_000, {1: 5_000 if i % 2 else 7_000}) for i in range(4)]
    claim = "Equal values of several scorers weigh together."
    settle(to, "median, equal values", claim, make_round(set_powers(WORLD, (5, 3, 4, 3, 0, 0, 0)), (1,), equal))


def _build_weights(to: Recorder) -> None:
    """Powers 7, 5, 3, 3, 0, 0, 2: of 20 more than 13 have to speak; what devices weigh shows in single units."""
    small = set_powers(WORLD, (7, 5, 3, 3, 0, 0, 2))
    mining = [DEVICES[i] for i in MINING]
    claim = "Mining devices share a part of all power by reputation, and less where few validators speak."
    for silent in ((), (3,), (2,), (0,), (1,), (2, 3)):
        speaking = [key for i, key in enumerate(MINERS[:4]) if i not in silent] + [BOTH]
        before = make_round(small, (0, 2, 3), list_varied([*speaking, *mining]))
        settle(to, f"weight, silent {silent}", claim, before)
    for share in (0, 1, 1_708, 1_710, 3_333):
        before = make_round(with_params(small, mining_weight_bp=share), (0, 3), list_varied([*SEATED, *mining]))
        settle(to, f"weight, share {share}", "The share is agreed.", before)
    for powers in ((7, 5, 3, 3, 0, 0, 1), (7, 5, 3, 3, 0, 0, 3), (4, 4, 4, 1, 0, 0, 0)):
        before = make_round(set_powers(WORLD, powers), (0, 3), list_varied([*MINERS[:3], mining[0]]))
        settle(to, f"weight, powers {powers}", "The room of devices ends at two thirds, rounded up.", before)
    none = small
    for key in mining:
        none = with_device(none, key, reputation=0)
    before = make_round(none, (0, 3), list_varied([*SEATED, *mining]))
    settle(to, "weight, no reputation", "Devices without reputation weigh nothing.", before)
    one = with_device(none, mining[1], reputation=1)
    before = make_round(one, (0, 3), list_varied([*SEATED, *mining]))
    settle(to, "weight, the least reputation", "One with the least has all of the share.", before)
    claim = "The words of a validator that lost its seat, and of a candidate, count for nothing."
    lost = with_candidate(make_round(small, (0, 3), list_varied([*SEATED, MINERS[4]])), MINERS[3], power=0)
    settle(to, "weight, a seat lost", claim, lost)
    big = set_powers(WORLD, (13, 3, 2, 2, 0, 0, 0))
    before = make_round(big, (0, 2, 3), list_varied([*MINERS[:4], *mining]))
    claim = "Where the largest is judged, the others weigh alone, and devices nothing beside few."
    settle(to, "weight, the largest judged", claim, before)
    stranger = make_round(small, (0,), [*list_varied(SEATED), Said(STRANGER, 1)])
    settle(to, "weight, a stranger", "Nobody else's word counts.", stranger)


def _build_own_words(to: Recorder) -> None:
    heavy = with_params(WORLD, mining_weight_bp=3_333)
    small, even = set_powers(heavy, (7, 5, 5, 5, 0, 0, 5)), set_powers(heavy, (5, 4, 5, 5, 0, 0, 5))
    device = MINING[1]
    words = agree(MINERS[:2], 6_000, {device: 5_000}) + agree(MINERS[2:4], 6_000, {device: 6_000})
    for score in (0, 10_000):
        claim = "A mining device's word on its own update does not count."
        praised = [*words, Said(DEVICES[device], 6_000, {device: score, 1: score})]
        settle(to, f"own word, a device {score}", claim, make_round(small, (1, device), praised))
        claim = "That of a validator that is a device does."
        praised = [*agree(MINERS[:2], 6_000, {BOTH_PLACE: 5_000}), *agree(MINERS[2:3], 6_000, {BOTH_PLACE: 6_000})]
        praised.append(Said(BOTH, 6_000, {BOTH_PLACE: score}))
        settle(to, f"own word, a validator {score}", claim, make_round(even, (1, BOTH_PLACE), praised))


def _build_outliers(to: Recorder) -> None:
    """The limit is 1,511 on average: with two updates of one miner each a scorer says four gains, so 6,044 in all."""
    for extra in (-1, 0, 1):
        off = 1_511 * 4 + extra
        claim = "A scorer whose gains are on average further from the medians than the limit is an outlier."
        for name, key in (("validator", MINERS[3]), ("device", DEVICES[MINING[2]])):
            far = Said(key, 5_000, {1: 5_000 - 3_000, 3: 5_000 - (off - 3_000 - 500)}, {0: 5_000 + 400, 2: 4_900})
            words = [*agree([k for k in SEATED if k != key], 6_000), far]
            settle(to, f"outlier, {name} {extra:+}", claim, make_round(WORLD, (1, 3), words))
    own = MINING[1]
    for off in (4_533, 4_534):
        claim = "A device's word on its own update is not held against it, nor does it thin out the others."
        far = Said(DEVICES[own], 5_000, {own: 9_999, 3: 5_000 - off}, {})
        settle(to, f"outlier, own update, {off}", claim, make_round(WORLD, (own, 3), [*agree(SEATED, 6_000), far]))
    harder = [*agree(SEATED[:4], 6_000, {1: 6_100}), Said(BOTH, 1_000, {1: 1_100}, {0: 1_000})]
    claim = "Harder data makes no outlier: gains are compared, not scores."
    settle(to, "outlier, harder data", claim, make_round(WORLD, (1,), harder))
    accepted = [*agree(SEATED, 6_000), Said(DEVICES[MINING[1]], 0, {3: 9_999}, {2: 9_999})]
    claim = "An outlier whose own update is accepted gains for it and loses for its scores, in this order."
    settle(to, "outlier, accepted", claim, make_round(WORLD, (3, MINING[1]), accepted))
    limit = with_params(WORLD, score_outlier_bp=10_000)
    settle(to, "outlier, no limit", "At the limit of all scores nobody is one.", make_round(limit, (3,), accepted))


def _build_ends(to: Recorder) -> None:
    """Rounds without updates, without acceptance, and without a quorum of scores."""
    claim = "Without updates nothing is accepted and the model stays."
    to.add("end, no updates", claim, "settle_round", make_round(WORLD, (), agree(SEATED)))
    refused = agree(SEATED, 9_000, {1: 2, 2: 3, 5: 4})
    claim = "With all refused the model stays, and they are judged."
    to.add("end, all refused", claim, "settle_round", make_round(WORLD, (1, 2, 5), refused))
    quorum = set_powers(WORLD, (6, 5, 4, 3, 0, 0, 3))
    for name, keys in (("14 of 21", (0, 1, 3)), ("15 of 21", (0, 1, 2))):
        claim = "Scores of two thirds decide nothing, of more everything."
        words = list_varied([*(MINERS[i] for i in keys), DEVICES[MINING[0]]])
        to.add(f"end, {name}", claim, "settle_round", make_round(quorum, (0, 1, 3), words))
    for phase in (Phase.REVEAL, Phase.SCORE):
        before = make_round(WORLD, (0, 3), [])
        pledges = (DEVICES[1].address,)
        commits = ((MINERS[0].address, b"s" * 32),)
        before = with_round(before, phase=phase, pledges=pledges, score_commits=commits)
        claim = "A round given up before scores: who revealed was there, nobody is judged or paid."
        to.add(f"end, in {phase.name}", claim, "settle_round", before)
    early = with_round(make_round(WORLD, (0, 3), agree(SEATED)), phase=Phase.SCORE)
    to.add("end, scores in another phase", "Only the last phase accepts.", "settle_round", early)
    twice = make_round(WORLD, (0, 2, 3), list_varied(SEATED))
    claim = "The state follows the settlement it is given."
    given = (DEVICES[0].address, DEVICES[3].address)
    to.add("end, a given settlement", claim, "process_settlement", twice, accepted=given)
    to.add("end, nothing accepted", claim, "process_settlement", twice, accepted=())
    old = replace(twice, time_ms=untyped(twice.time_ms + 5_001))
    to.add("end, with stake due", "What is due is paid out at each settlement.", "settle_round", old)
    for number in (17, 18, 24):
        before = with_round(replace(old, burned=5), number=number)
        claim = "Every sixth round ends with an election: the epoch begins anew for devices that did not score."
        to.add(f"end, round {number}", claim, "settle_round", before)
    one = with_params(old, epoch_rounds=1)
    to.add("end, an epoch of one round", "An epoch may be one round.", "settle_round", one)
