"""Agreement in a seeded network that delays, loses, repeats and reorders, with crashes, restarts and an equivocator.

The paper's gossip property is modelled: what one honest node gets, every other gets in the end. A run is a function
of its seed; a failing test names it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from flchain.base.types import Address, Hash, Height, Millis, Power, View
from flchain.consensus import bft
from flchain.consensus.bft import (
    BftConfig,
    BftState,
    CastVote,
    Decide,
    Effect,
    Equivocation,
    Proposal,
    Propose,
    ScheduleTimeout,
    SendProposal,
    Timeout,
    ValidatorSet,
    Vote,
    VoteType,
)
from flchain.consensus.proposer import compute_proposer

HEIGHT = Height(3)
CALM_AT_MS = 4_000  # loss, long delays and crashes end here; an equivocator goes on
END_MS = 60_000
INVALID = Hash(b"\xff" * 32)
Message = Proposal | Vote


def name(number: int) -> Address:
    return Address(bytes([number]) * 20)


@dataclass
class Node:
    """One honest node: its state, what it stored before sending, and how often it has started."""

    config: BftConfig
    state: BftState
    votes: list[Vote] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    received: list[Message] = field(default_factory=list)
    incarnation: int = 0
    is_up: bool = True


@dataclass
class Network:
    """`byzantine` nodes equivocate, `dead` ones stop for good; the rest may crash and restart before the calm."""

    seed: int
    count: int
    byzantine: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    violations: list[str] = field(default_factory=list)
    decisions: dict[int, Hash] = field(default_factory=dict)
    deliveries: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.now = 0
        self.queue: list[tuple[int, int, int, object]] = []
        self.sequence = 0
        self.said: dict[tuple[int, Address, View], Hash | None] = {}
        self.acted: set[View] = set()
        pairs = [(a, b) for a in range(self.count) for b in range(self.count) if a != b]
        self.slow_links = set(self.rng.sample(pairs, len(pairs) // 4))
        weights = tuple((name(n), Power(1)) for n in range(self.count))
        turns = [compute_proposer((), weights, View(view)) for view in range(3 * self.count)]
        self.turns = turns
        validators = ValidatorSet(weights)
        self.nodes: dict[int, Node] = {}
        for n in sorted(set(range(self.count)) - self.byzantine):
            config = BftConfig(name(n), validators, self.proposer_of, Millis(100), Millis(60), Millis(30))
            self.nodes[n] = Node(config, BftState(config, HEIGHT))

    # --- the world

    def proposer_of(self, view: View) -> Address:
        return self.turns[view % len(self.turns)]

    def at(self, delay: int, target: int, what: object) -> None:
        self.sequence += 1
        heapq.heappush(self.queue, (self.now + delay, self.sequence, target, what))

    def delay(self, message: Message, target: int) -> int:
        if self.now >= CALM_AT_MS:
            return self.rng.randint(1, 15)
        sender = message.validator if isinstance(message, Vote) else message.proposer
        if (sender[0], target) in self.slow_links:
            return self.rng.randint(200, CALM_AT_MS)
        if self.rng.random() < 0.15:  # lost, and sent again once the network is calm
            return CALM_AT_MS - self.now + self.rng.randint(1, 15)
        return self.rng.choice((self.rng.randint(1, 30), self.rng.randint(1, 30), self.rng.randint(1, 500)))

    def send(self, message: Message, targets: list[int]) -> None:
        for target in targets:
            for _ in range(2 if self.rng.random() < 0.1 else 1):
                self.at(self.delay(message, target), target, message)

    def run(self) -> Network:
        for n in self.nodes:
            self.at(self.rng.randint(0, 60), n, "start")
            self.at(CALM_AT_MS + 100 * n, n, "gossip")
            if n in self.dead:
                self.at(self.rng.randint(0, 400), n, "crash")
            elif self.rng.random() < 0.3:
                self.at(self.rng.randint(60, 600), n, "crash")
                self.at(self.rng.randint(600, CALM_AT_MS), n, "restart")
        survivors = self.nodes.keys() - self.dead
        while self.queue and survivors - self.decisions.keys() and not self.violations:
            self.now, _, target, what = heapq.heappop(self.queue)
            if self.now > END_MS:
                break
            self.process(target, self.nodes[target], what)
        return self

    def process(self, n: int, node: Node, what: object) -> None:
        self.deliveries += 1
        if isinstance(what, Proposal | Vote):
            node.received.append(what)
            self.act_byzantine(what)
        if what == "crash":
            node.is_up = False
        elif what == "restart":
            node.is_up, node.incarnation = True, node.incarnation + 1
            node.state = bft.restore(node.config, HEIGHT, tuple(node.votes), tuple(node.proposals))
            self.apply(n, node, bft.on_start(node.state))
            for message in node.received:  # the peers still have all of it
                self.at(self.delay(message, n), n, message)
            node.received.clear()
        elif not node.is_up:
            return
        elif what == "start":
            self.apply(n, node, bft.on_start(node.state))
        elif what == "gossip":
            for message in bft.get_gossip(node.state):
                self.send(message, [k for k in self.nodes if k != n])
            self.at(1_000, n, "gossip")
        elif isinstance(what, Proposal):
            self.apply(n, node, bft.on_proposal(node.state, what, what.block_hash != INVALID))
        elif isinstance(what, Vote):
            self.apply(n, node, bft.on_vote(node.state, what))
        elif isinstance(what, tuple) and what[0] == node.incarnation:
            self.process_own(n, node, what[1])

    def process_own(self, n: int, node: Node, what: Timeout | Propose) -> None:
        if isinstance(what, Timeout):
            self.apply(n, node, bft.on_timeout(node.state, what))
            return
        value = Hash(sha256(bytes([n, what.view, node.incarnation])).digest())
        self.apply(n, node, bft.on_value(node.state, what.view, value))

    def apply(self, n: int, node: Node, outcome: tuple[BftState, tuple[Effect, ...]]) -> None:
        node.state, effects = outcome
        for effect in effects:
            if isinstance(effect, ScheduleTimeout):
                self.at(effect.timeout_ms, n, (node.incarnation, effect.timeout))
            elif isinstance(effect, Propose):
                self.at(self.rng.randint(0, 30), n, (node.incarnation, effect))
            elif isinstance(effect, SendProposal):
                self.watch(effect.proposal, 0)
                node.proposals += [effect.proposal] if effect.proposal not in node.proposals else []
                self.send(effect.proposal, [k for k in self.nodes if k != n])
            elif isinstance(effect, CastVote):
                self.watch(effect.vote, effect.vote.type)
                node.votes += [effect.vote] if effect.vote not in node.votes else []
                self.send(effect.vote, [k for k in self.nodes if k != n])
            elif isinstance(effect, Decide):
                self.decide(n, node, effect)
            else:
                self.accuse(effect)

    # --- the checker

    def watch(self, message: Message, kind: int) -> None:
        slot = (kind, message.validator if isinstance(message, Vote) else message.proposer, message.view)
        if self.said.setdefault(slot, message.block_hash) != message.block_hash:
            self.violations.append(f"seed {self.seed}: an honest node contradicts itself: {slot}")

    def accuse(self, effect: Equivocation) -> None:
        sender = effect.first.validator if isinstance(effect.first, Vote) else effect.first.proposer
        if sender[0] not in self.byzantine:
            self.violations.append(f"seed {self.seed}: evidence against an honest node: {effect}")

    def decide(self, n: int, node: Node, decision: Decide) -> None:
        votes = bft.get_certificate_votes(node.state, decision.view, decision.block_hash)
        if 3 * len({vote.validator for vote in votes}) <= 2 * self.count or decision.block_hash == INVALID:
            self.violations.append(f"seed {self.seed}: node {n} decided an invalid or uncertified block")
        self.decisions[n] = decision.block_hash
        if len(set(self.decisions.values())) > 1:
            self.violations.append(f"seed {self.seed}: two blocks decided: {self.decisions}")

    # --- the adversary: in every view that it hears of it says different things to different nodes

    def act_byzantine(self, heard: Message) -> None:
        if heard.view in self.acted:
            return
        self.acted.add(heard.view)
        known = [h for h in self.said.values() if h is not None]
        for b in sorted(self.byzantine):
            fresh = Hash(sha256(bytes([b, heard.view])).digest())
            current = self.said.get((0, self.proposer_of(heard.view), heard.view), fresh)
            choices = [None, *([current] * 4), *known[-2:], fresh]
            for target in self.nodes:
                self.lie(b, target, heard.view, choices)

    def lie(self, b: int, target: int, view: View, choices: list[Hash | None]) -> None:
        lies: list[Message] = []
        if self.proposer_of(view) == name(b):
            block_hash = self.rng.choice([*choices, INVALID]) or INVALID
            valid_view = self.rng.choice((-1, -1, self.rng.randint(-1, view - 1)))
            lies.append(Proposal(HEIGHT, view, valid_view, block_hash, name(b)))
        lies += [Vote(HEIGHT, view, kind, self.rng.choice(choices), name(b)) for kind in VoteType]
        for lie in lies:
            self.send(lie, [target])
            for other in self.nodes:  # honest nodes pass on what they get
                self.at(self.rng.randint(100, 2_000), other, lie)


def run_many(seeds: range, count: int, byzantine: int, dead: int) -> Iterator[Network]:
    for seed in seeds:
        faulty = random.Random(seed).sample(range(count), byzantine + dead)
        yield Network(seed, count, frozenset(faulty[:byzantine]), frozenset(faulty[byzantine:])).run()


@pytest.mark.parametrize(
    ("seeds", "count", "byzantine", "dead"),
    [(range(120), 4, 1, 0), (range(120), 4, 0, 1), (range(40), 7, 2, 0), (range(40), 7, 1, 1), (range(20), 7, 0, 2)],
)
def test_all_honest_nodes_decide_the_same_block(seeds: range, count: int, byzantine: int, dead: int) -> None:
    """With f of 3f+1 nodes faulty no honest nodes differ or contradict themselves, and once it is calm all decide."""
    for network in run_many(seeds, count, byzantine, dead):
        assert network.violations == []
        survivors = network.nodes.keys() - network.dead
        assert not survivors - network.decisions.keys(), f"seed {network.seed}: not all decide"


def test_too_many_faulty_nodes_stop_the_chain_but_do_not_fork_it() -> None:
    """One equivocator of 3 is more than a third: nothing may be decided, but nothing different is."""
    assert [v for network in run_many(range(60), 3, 1, 0) for v in network.violations] == []


def test_checker_catches_a_quorum_of_just_two_thirds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant 3*power >= 2*total forks 3 nodes with one equivocator, and the checker says so."""
    monkeypatch.setattr(ValidatorSet, "is_quorum", lambda self, power: 3 * power >= 2 * self.total_power)
    assert any(network.violations for network in run_many(range(60), 3, 1, 0))


def test_checker_catches_a_dropped_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant that ignores its lock (lines 23 and 29) forks, and the checker says so."""
    monkeypatch.setattr(bft, "is_lock_open", lambda state, proposal: True)
    assert any("two blocks" in v for network in run_many(range(300), 4, 1, 0) for v in network.violations)


def test_checker_catches_a_forgetful_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant that restarts with an empty journal contradicts itself, and the checker says so."""
    monkeypatch.setattr(bft, "restore", lambda config, height, votes, proposals: BftState(config, height))
    assert any("contradicts itself" in v for network in run_many(range(60), 4, 0, 1) for v in network.violations)


def test_same_seed_same_run() -> None:
    """A failing seed can be run again: the run is a function of it."""
    first, second = (Network(5, 4, frozenset({2})).run() for _ in range(2))
    assert (first.decisions, first.deliveries, first.now) == (second.decisions, second.deliveries, second.now)
