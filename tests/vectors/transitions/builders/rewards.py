"""Vectors of what a settled round pays and of what becomes of reputations and knowledge; also on numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flchain.ledger.state import ChainState
from tests.vectors.transitions.builders.elections import ADDRESSES
from tests.vectors.transitions.builders.phases import set_powers
from tests.vectors.transitions.builders.settlements import MINING, SEATED, Said, agree, list_varied, make_round
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    BOTH,
    BOTH_PLACE,
    DEVICES,
    MINERS,
    WORLD,
    with_candidate,
    with_device,
    with_params,
)

OP = "settle_round"


def build(to: Recorder) -> None:
    """All vectors of rewards, reputations and knowledge."""
    _build_purses(to)
    _build_reputations(to)
    _build_knowledge(to)
    _build_functions(to)


def _build_purses(to: Recorder) -> None:
    everybody = [*SEATED, *(DEVICES[i] for i in MINING)]
    full = make_round(WORLD, (0, 1, 3, 6), list_varied(everybody))
    for rule in ("per-update", "by-samples"):
        for reward in (0, 1, 1_009):
            before = with_params(full, reward_rule=rule, reward_per_update=reward, reward_for_scores=0)
            claim = "Accepted updates are paid by the agreed rule, rounded down."
            to.add(f"purse, {rule} {reward}", claim, OP, before)
    for purse in (1, 999, 10_007, 2**31 - 1):
        before = with_params(full, reward_per_update=0, reward_for_scores=purse)
        claim = "Scorers share a purse by weight and reputation, validators with those behind them."
        to.add(f"purse, {purse} for scores", claim, OP, before)
    small = set_powers(WORLD, (7, 5, 3, 3, 0, 0, 2))
    silent = make_round(small, (0, 3), list_varied([*MINERS[:3], DEVICES[MINING[1]]]))
    to.add("purse, some silent", "The part of those that kept silent is not minted.", OP, silent)
    unmined = make_round(with_params(small, mining_weight_bp=0), (0, 3), list_varied(everybody))
    to.add("purse, devices without weight", "Devices without weight are paid nothing.", OP, unmined)
    far = [*agree(SEATED[:4], 6_000), Said(BOTH, 0, {0: 9_000, 3: 9_000}, {0: 9_000, 2: 9_000})]
    to.add("purse, an outlier", "An outlier is paid nothing.", OP, make_round(small, (0, 3), far))
    unseated = with_candidate(WORLD, BOTH, power=0)
    said = [*list_varied(MINERS[:4]), Said(BOTH, 6_000, {BOTH_PLACE: 9_999})]
    claim = "A device that is a candidate without a seat scores as a device, and keeps what it earns."
    to.add("purse, a candidate", claim, "judge_and_settle", make_round(unseated, (0, BOTH_PLACE), said))
    bare = replace(full, delegations=tuple(d for d in WORLD.delegations if d.candidate != MINERS[1].address))
    to.add("purse, nobody behind", "A validator without stake behind it keeps all.", OP, bare)
    for commission in (0, 1, 10_000):
        before = with_candidate(full, MINERS[0], commission_bp=commission)
        to.add(f"purse, commission {commission}", "Commission is the validator's own.", OP, before)
    heavy = set_reputations(full, (0, 1, 9_999, 10_000, 5_000, 3, 7, 9_000))
    claim = "Nobody without reputation earns by scores, and nobody more than its part."
    to.add("purse, by reputation", claim, OP, with_candidate(heavy, MINERS[2], reputation=10_000))


def set_reputations(before: ChainState, reputations: Sequence[int]) -> ChainState:
    """The state in which the devices have these reputations, in order of address."""
    for key, reputation in zip(DEVICES, reputations, strict=True):
        before = with_device(before, key, reputation=reputation)
    return before


def _build_reputations(to: Recorder) -> None:
    unpaid = with_params(WORLD, reward_for_scores=0, reward_per_update=0)
    for first, reputations in (
        ("low", (0, 1, 4, 5, 9, 10, 14, 15)),
        ("high", (10_000, 9_999, 9_991, 9_990, 9_989, 9_981, 9_980, 9_979)),
        ("middle", (5_000, 5_001, 5_004, 5_005, 4_999, 4_995, 6_666, 3_333)),
    ):
        before = set_reputations(unpaid, reputations)
        claim = "An accepted update is a tenth of the way up, rounded down."
        to.add(f"reputation, {first}, accepted", claim, OP, make_round(before, range(8), agree(SEATED)))
        refused = agree(SEATED, 9_000, dict.fromkeys(range(8), 1))
        claim = "A refused one is a fifth of the way down, what is lost rounded down."
        to.add(f"reputation, {first}, refused", claim, OP, make_round(before, range(8), refused))
    for i, reputation in enumerate((0, 1, 4, 5, 9_990, 9_991, 10_000)):
        before = with_candidate(unpaid, MINERS[0], reputation=reputation)
        claim = "A validator's reputation rises with its scores and falls if they are an outlier's, as a device's does."
        said = [*agree(SEATED[1:], 6_000), Said(MINERS[0], 6_001)]
        to.add(f"reputation, validator {reputation}, near", claim, OP, make_round(before, (i,), said))
        said = [*agree(SEATED[1:], 6_000), Said(MINERS[0], 0, {i: 9_999})]
        to.add(f"reputation, validator {reputation}, far", claim, OP, make_round(before, (i,), said))


def _build_knowledge(to: Recorder) -> None:
    for standing in (0, 1, 2, 3, 10_000):
        before = with_candidate(WORLD, MINERS[3], knowledge=standing)
        claim = "A miner without updates loses half of its knowledge, down to the least."
        to.add(f"knowledge, idle at {standing}", claim, OP, make_round(before, (0,), agree(SEATED)))
    small = set_powers(WORLD, (7, 5, 3, 3, 0, 0, 2))
    words = [Said(key, 6_000, {}, {0: 5_000 + 500 * n, 1: 9_000 - 600 * n}) for n, key in enumerate(SEATED)]
    claim = "A miner's knowledge is the median of what the others say of its devices' aggregate."
    to.add("knowledge, all speak", claim, OP, make_round(small, (0, 2, 3), words))
    for silent in (0, 1, 2):
        claim = "Those that keep silent stand for what it was."
        said = [word for i, word in enumerate(words) if i != silent]
        to.add(f"knowledge, silent {silent}", claim, OP, make_round(small, (0, 2, 3), said))
    praise = [replace(word, of_miners={0: 9_999, 1: 9_999} if i == 0 else {}) for i, word in enumerate(words)]
    claim = "A miner's own word on its devices does not count."
    to.add("knowledge, own praise", claim, OP, make_round(small, (0, 2, 3), praise))
    zero = [replace(word, of_miners={0: 0, 1: 0}) for word in words]
    to.add("knowledge, of nothing", "The least is one.", OP, make_round(small, (0, 2, 3), zero))
    unseated = make_round(small, (0, 7), words)
    claim = "A home without a seat is scored, and its knowledge stays."
    to.add("knowledge, without a seat", claim, OP, unseated)
    alone = set_powers(WORLD, (5, 0, 0, 0, 0, 0, 0))
    claim = "Nobody else's word: the knowledge of a single validator stays."
    to.add("knowledge, alone", claim, OP, make_round(alone, (0, 2), [words[0]]))


def _build_functions(to: Recorder) -> None:
    def ask(name: str, claim: str, function: str, *arguments: Any, error: str | None = None) -> None:
        to.add(name, claim, "call", function=function, arguments=arguments, error=error)

    for reputation in (0, 1, 4, 5, 6, 9, 10, 11, 4_999, 5_000, 5_001, 9_989, 9_990, 9_991, 9_999, 10_000):
        ask(f"reputation up, {reputation}", "A tenth of what is missing.", "compute_reputation", reputation, True)
        ask(f"reputation down, {reputation}", "A fifth of what is there.", "compute_reputation", reputation, False)
    listed = tuple((ADDRESSES[i], samples) for i, samples in enumerate((1, 2, 4, 997)))
    for reward in (0, 1, 7, 1_000, 2**31 - 1):
        ask(f"reward, {reward} an update", "Each the same.", "reward_per_update", listed, reward)
        ask(f"reward, {reward} by samples", "By samples, rounded down.", "reward_by_samples", listed, reward)
    ask("reward, nobody by samples", "Nobody is paid nothing.", "reward_by_samples", (), 7)
    for values in (
        ((5, 1),),
        ((5, 1), (3, 1)),
        ((9, 3), (1, 2), (5, 1)),
        ((9, 2), (1, 2), (5, 1)),
        ((1, 1), (1, 1), (7, 3), (9, 1)),
        ((-5, 2), (-7, 2), (0, 3)),
    ):
        claim = "The lower weighted median."
        ask(f"median, {values}", claim, "compute_weighted_median", values)
    ask("median, nothing", "No median of nothing.", "compute_weighted_median", (), error="ValueError")
    for silent in (0, 2, 3, 4, 9):
        said = ((7_000, 2), (3_000, 1))
        claim = "Silence weighs for the standing."
        ask(f"knowledge, silence {silent}", claim, "compute_knowledge", 5_000, said, silent)
    ask("knowledge, nobody", "With nobody to speak it stays.", "compute_knowledge", 0, (), 0)
    ask("knowledge, zero", "The least is one.", "compute_knowledge", 5, ((0, 1),), 0)
    for standing in (0, 1, 2, 3, 4, 9_999):
        ask(f"knowledge, idle {standing}", "Half, at least one.", "compute_idle_knowledge", standing)
    rows = ((10, 20, None), (0, 50, 0), (12, 18, 3), (None, None, None))
    for limit in (0, 10, 11, 13, 14, 100):
        claim = "Averages over what was said, against the limit."
        ask(f"outliers, limit {limit}", claim, "find_outliers", rows, (3, 2, 4, 1), limit)
