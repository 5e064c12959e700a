"""Make recorded/: whole chains as they travelled, and what every height came to.

Run from the repository's root: `python -m tests.vectors.make_recorded`. A chain that was recorded must replay to the
same hashes for ever; a change of these files means that nodes of two versions go two ways.
"""

from __future__ import annotations

from typing import Any

from flchain.base.crypto import Identity
from flchain.ledger.state import get_delegation
from flchain.wire.envelope import seal
from flchain.wire.messages import Delegate, Evidence, Phase, Proposal, Register, Transfer, Undelegate, Unjail
from tests.support.builders.chain import build_identity
from tests.support.builders.stake import accuse, build_stake_chain, seal_order
from tests.support.recorded_chain import FOLDER, ChainRecorder, Gains, RecordedChain, dump_recorded

ALL = range(6)
STRANGERS = tuple(build_identity(8, number) for number in range(2))
LONG: dict[str, Any] = {
    "seats": 4,
    "epoch_rounds": 3,
    "powers": (200, 150, 120, 100, 90),
    "power_cap_bp": 4_000,
    "order_fee": 2,
    "reward_per_update": 1_009,
    "reward_for_scores": 10_007,
    "score_outlier_bp": 500,
    "mining_weight_bp": 2_000,
    "bond_min": 50,
    "stake_min": 5,
    "slash_bp": 577,
    "jail_rounds": 3,
    "unbonding_s": 1_500,
    "trusting_s": 1_200,
    "absent_rounds_max": 2,
}
SHORT: dict[str, dict[str, Any]] = {
    "identity": {"codec": "identity", "codec_level": 1, "downstream_codec": "identity", "downstream_level": 1},
    "top-k": {"codec": "top-k", "codec_level": 20, "downstream_codec": "top-k", "proposer_rule": "pos"},
    "qsgd": {"codec": "qsgd", "codec_level": 7, "aggregation": "median", "reward_rule": "by-samples"},
    "random-mask": {"codec": "random-mask", "aggregation": "trimmed-mean", "proposer_rule": "poq"},
    "delta-entropy": {
        "codec": "delta-entropy",
        "codec_level": 4_096,
        "downstream_codec": "delta-entropy",
        "downstream_level": 4_096,
        "aggregation": "median",
    },
    "adaptive": {
        "codec": "adaptive",
        "codec_level": 40_005,
        "downstream_codec": "adaptive",
        "downstream_level": 40_005,
        "reward_rule": "by-samples",
    },
    "count-sketch": {"codec": "count-sketch", "codec_level": 8, "reward_rule": "by-samples"},
}
"""Every codec, and every rule that is agreed on by name, at least once."""


def accuse_of_proposals(to: ChainRecorder, accuser: Identity, guilty: Identity) -> bytes:
    """Evidence that one proposed two blocks at the height before the next."""
    height = to.state.height
    words = sorted(seal(Proposal(height, 1, -1, bytes((i,)) * 32), to.state.chain, guilty) for i in (1, 2))
    return seal(Evidence(height, *words), to.state.chain, accuser)


def tell_start(to: ChainRecorder) -> None:
    """Rounds 1 to 3: payments, devices that mine, a candidate with stake behind it, an outlier, the first election."""
    holders, devices, miners = to.chain.holders, to.chain.devices, to.chain.miners
    to.extend()
    pay = [
        seal_order(to.state, holders[0], Transfer, holders[1].public_key, 41),
        seal_order(to.state, holders[0], Transfer, STRANGERS[0].public_key, 37, ahead=1),
    ]
    to.extend(orders=pay)
    to.learn(ALL, mining=(0, 1))
    stake = [
        seal_order(to.state, holders[0], Register, 2_500, 160),
        seal_order(to.state, holders[1], Delegate, miners[4].address, 120),
        seal_order(to.state, holders[2], Delegate, miners[0].address, 33),
    ]
    liar = miners[to.seated[0]]
    refused: Gains = {devices[2].address: -900}
    to.learn(
        range(5), mining=(0,), gains=refused, odd={liar: {devices[1].address: -6_000}}, orders={Phase.REVEAL: stake}
    )
    more = [
        seal_order(to.state, holders[2], Delegate, holders[0].address, 70),
        seal_order(to.state, devices[0], Delegate, miners[1].address, 500),
        seal_order(to.state, holders[1], Undelegate, miners[4].address, 30),
    ]
    to.learn(range(4), mining=(0, 3), orders={Phase.SCORE: more})


def tell_offences(to: ChainRecorder) -> None:
    """Rounds 4 to 9: two offences, a round that nobody reveals in, one that too few score, pledges that are broken, a
    way out of jail, two elections."""
    holders, devices, miners = to.chain.holders, to.chain.devices, to.chain.miners
    first = miners[to.seated[1]]
    to.learn(ALL, mining=(2,), orders={Phase.REVEAL: [accuse(to.state, holders[3], first, to.state.height + 1)]})
    reveals = to.train((1, 4))
    to.extend(to.say_commits(reveals))  # the others are awaited until the heights are used up
    number = to.state.round.number
    while to.state.round.number == number:
        to.extend()
    reveals = to.train((0, 1, 2, 5))
    to.extend(to.say_commits({i: reveals[i] for i in (0, 5)}, pledged=(0, 5)))
    to.extend(to.say_commits({i: reveals[i] for i in (1, 2)}))
    to.extend(to.say_reveals({i: reveals[i] for i in (0, 2)}))
    to.extend(to.say_reveals({5: reveals[5]}))
    scorers = to.list_scorers()
    to.extend(to.say_score_commits(scorers[:1], {}))
    to.extend(to.say_score_commits([*scorers[1:], devices[0]], {}))
    to.extend(to.say_score_reveals(scorers, {}))
    to.extend()
    second = miners[to.seated[-1]]
    to.learn(ALL, orders={Phase.SETTLE: [accuse_of_proposals(to, holders[1], second)]})
    reveals = to.train(ALL)
    to.extend(to.say_commits(reveals), [seal_order(to.state, first, Unjail)])
    to.extend(to.say_reveals(reveals))
    number = to.state.round.number
    to.extend(to.say_score_commits(to.list_scorers()[:1], {}))
    while to.state.round.number == number:
        to.extend()
    to.learn(ALL, mining=(0, 1, 2, 3), silent=to.seated[:1], gains={miners[2].address: -300})


def tell_leaving(to: ChainRecorder) -> None:
    """Rounds 10 to 13: a candidate takes its bond back and its delegator too, is slashed on its way out, is paid what
    is left and forgotten; devices that stay away, or break their pledge."""
    holders, devices, miners = to.chain.holders, to.chain.devices, to.chain.miners
    leaver = holders[0]
    out = [
        seal_order(to.state, giver, Undelegate, leaver.address, get_delegation(to.state, giver.address, leaver.address))
        for giver in (leaver, holders[2])
        if get_delegation(to.state, giver.address, leaver.address)
    ]
    out.append(seal_order(to.state, devices[0], Undelegate, miners[1].address, 100))
    to.learn([4], orders={Phase.COMMIT: out})
    to.learn([4, 5], mining=(4,), broken=(5,), orders={Phase.SCORE: [accuse(to.state, devices[1], leaver)]})
    to.learn([3, 4, 5], mining=(4, 5))
    to.learn(ALL, mining=ALL, gains={devices[0].address: -500, devices[1].address: -501, miners[0].address: 700})


def build_long() -> RecordedChain:
    """The long chain, with the codec that a chain has if nobody says otherwise."""
    to = ChainRecorder(build_stake_chain(5, 6, holders=4, seed=11, **LONG))
    tell_start(to)
    tell_offences(to)
    tell_leaving(to)
    holders, devices, miners = to.chain.holders, to.chain.devices, to.chain.miners
    raised = [
        seal_order(to.state, miners[3], Delegate, miners[3].address, 211),
        seal_order(to.state, devices[3], Transfer, holders[3].public_key, 300),
        seal_order(to.state, devices[3], Register, 0, 400, ahead=1),
    ]
    to.learn(ALL, mining=(1,), orders={Phase.REVEAL: raised})
    for _ in range(5):
        to.learn(ALL, mining=(1, 2), gains={devices[4].address: -1_000})
    return to.record()


def build_short(name: str) -> RecordedChain:
    """Three rounds under other rules; in the second a device is refused."""
    rules = {"epoch_rounds": 2, "reward_for_scores": 5_003} | SHORT[name]
    to = ChainRecorder(build_stake_chain(4, 6, holders=0, seed=21, **rules))
    to.extend()
    to.learn(ALL)
    to.learn(range(5), mining=(3,), gains={to.chain.devices[1].address: -700})
    to.learn(ALL)
    return to.record()


def build_all() -> dict[str, RecordedChain]:
    """Every chain by the name of its file."""
    return {"long": build_long()} | {name: build_short(name) for name in SHORT}


if __name__ == "__main__":
    for name, recorded in build_all().items():
        (FOLDER / f"{name}.json").write_text(dump_recorded(recorded))
