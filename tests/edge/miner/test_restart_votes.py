"""A miner that crashes and starts again from its ledger never says what contradicts what it has said before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from flchain.base.errors import LedgerCorrupt
from flchain.base.types import Height, Millis, View
from flchain.consensus.bft import Timeout
from flchain.ledger.block import Block
from flchain.ledger.certificate import PRECOMMIT
from flchain.rules.blocks import build_block, get_proposer
from flchain.wire import messages
from flchain.wire.envelope import open_envelope, seal, verify_envelope
from flchain.wire.messages import Proposal, Vote
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from miner.core.machine import build_miner_state, step
from miner.core.state import MinerState
from miner.core.values import (
    Connected,
    Event,
    MinerConfig,
    PacketReceived,
    Publish,
    SaveBlock,
    SaveVote,
    StartTimer,
    TimerFired,
)
from miner.edge.ledger.ledger import Ledger, replay
from tests.support.builders.chain import NO_CLOCK, BuiltChain, Driver, build_chain, make_reveal, open_all, seal_commit
from tests.support.builders.ledger import change

ME = 0
RUNS = 20
EVENTS = 60
CRASH_SHARE = 0.2
PREVOTE = 1
OTHERS = (1, 2, 3)
Slot = tuple[int, int, int]


class Miner:
    """Miner ME with its real ledger; a crash may fall between any two effects. `said` is what left it, for ever."""

    def __init__(self, chain: BuiltChain, path: Path) -> None:
        self.chain, self.path, self.identity = chain, path, chain.miners[ME]
        self.said: dict[Slot, set[bytes | None]] = {}
        self.timeouts: list[Timeout] = []
        self.repeated = 0

    async def start(self) -> None:
        """As run_miner does."""
        self.ledger = await Ledger.open(self.path, self.chain.genesis, self.chain.model)
        standing = await replay(self.ledger, self.chain.genesis, self.chain.model)
        own_messages, own_blocks = await self.ledger.get_own(Height(standing.chain.height + 1))
        config = MinerConfig(self.identity)
        self.state: MinerState = build_miner_state(config, standing, own_messages, own_blocks)
        self.timeouts = []

    async def crash(self) -> None:
        """Memory and timers are gone."""
        await self.ledger.close()
        await self.start()

    async def feed(self, event: Event, effects_max: int | None = None) -> None:
        """One event; with `effects_max` only so many of its effects happen before a crash."""
        self.state, effects = step(self.state, event, Millis(0), NO_CLOCK)
        for effect in effects if effects_max is None else effects[:effects_max]:
            match effect:
                case SaveVote(height, raw, block):
                    await self.ledger.save(SaveVote(height, raw, block))
                case SaveBlock(block, certificate):
                    await self.ledger.append(block, certificate)
                case StartTimer(timer) if isinstance(timer, Timeout):
                    self.timeouts.append(timer)
                case Publish(_, packet):
                    self._note(packet)
        if effects_max is not None:
            await self.crash()

    def _note(self, raw_packet: bytes) -> None:
        packet = decode_packet(raw_packet)
        if packet.type not in (PacketType.MESSAGE, PacketType.PROPOSAL):
            return
        envelope = open_envelope(packet.fields[0], self.chain.id)
        if envelope.sender != self.identity.address:
            return
        message = verify_envelope(envelope, self.chain.id, self.identity.public_key).message
        if isinstance(message, Vote):
            slot = (message.height, message.view, message.step)
        elif isinstance(message, Proposal):
            slot = (message.height, message.view, 0)
        else:
            return
        self.repeated += slot in self.said
        self.said.setdefault(slot, set()).add(message.block_hash)


class Peers:
    """The other three miners, who say whatever suits: two blocks for every view, votes for both and for nil."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.chain, self.state = driver, driver.chain, driver.state
        self.topics = Topics.of_chain(self.chain.id)
        self.height = self.state.height + 1
        self.commits = [seal_commit(self.chain, i, make_reveal(self.chain, i)) for i in range(3)]
        self.blocks: dict[int, list[Block]] = {}

    def get_proposer(self, view: int) -> int:
        address = get_proposer(self.state, View(view))
        return next(i for i, miner in enumerate(self.chain.miners) if miner.address == address)

    def build_blocks(self, proposer: int) -> list[Block]:
        """Conflicting valid blocks: with no, one, two and three devices' commitments."""
        if proposer not in self.blocks:
            address = self.chain.miners[proposer].address
            commits = open_all(self.commits, self.chain.id)
            self.blocks[proposer] = [build_block(self.state, address, commits[:count])[0] for count in range(4)]
        return self.blocks[proposer]

    def propose(self, view: int, block: Block, valid_view: int = -1) -> PacketReceived:
        sender = self.chain.miners[self.get_proposer(view)]
        raw = seal(Proposal(self.height, view, valid_view, block.hash), self.chain.id, sender)
        packet = encode_packet(PacketType.PROPOSAL, raw, block.header_bytes, block.body_bytes)
        return PacketReceived(self.topics.miner_bft(sender.address), packet)

    def vote(self, sender: int, view: int, kind: int, block_hash: bytes | None) -> PacketReceived:
        key = self.chain.miners[sender]
        raw = seal(Vote(self.height, view, kind, block_hash), self.chain.id, key)
        return PacketReceived(self.topics.miner_bft(key.address), encode_packet(PacketType.MESSAGE, raw))


def build_driver() -> Driver:
    """A chain whose next height is the commit phase."""
    driver = Driver(build_chain())
    driver.open()
    return driver


async def start_miner(driver: Driver, path: Path) -> Miner:
    miner = Miner(driver.chain, path)
    await miner.start()
    for block, certificate in zip(driver.blocks, driver.certificates, strict=True):
        await miner.ledger.append(block, certificate)
    await miner.crash()
    assert miner.state.chain.height == driver.state.height
    return miner


def find_contradictions(miner: Miner) -> list[Slot]:
    return [slot for slot, hashes in miner.said.items() if len(hashes) > 1]


@pytest.mark.parametrize("effects", range(8))
def test_a_vote_is_not_changed_by_a_crash(effects: int, tmp_path: Path) -> None:
    """Crashed after any number of effects, and offered another block for the same view, it repeats its vote or none."""

    async def scenario() -> None:
        driver = build_driver()
        peers, miner = Peers(driver), await start_miner(driver, tmp_path / "ledger.db")
        view = next(view for view in range(9) if peers.get_proposer(view) != ME)
        blocks = peers.build_blocks(peers.get_proposer(view))
        await miner.feed(Connected())
        for early in range(view):  # views that this miner leads pass without a word from the others
            for sender in OTHERS:
                for kind in (PREVOTE, PRECOMMIT):
                    await miner.feed(peers.vote(sender, early, kind, None))
            for timeout in tuple(miner.timeouts):
                await miner.feed(TimerFired(timeout))
        drawn_in = [peers.vote(sender, view, PRECOMMIT, None) for sender in OTHERS[:2]]
        for vote in drawn_in:
            await miner.feed(vote)
        await miner.feed(peers.propose(view, blocks[1]), effects)
        for block in (blocks[2], blocks[1], blocks[3]):
            for event in (*drawn_in, peers.propose(view, block)):
                await miner.feed(event)
            await miner.feed(Connected())
        slot = (peers.height, view, PREVOTE)
        assert slot in miner.said, "it does vote"
        assert not find_contradictions(miner)
        await miner.ledger.close()

    asyncio.run(scenario())


def make_events(peers: Peers, miner: Miner, chooser: random.Random) -> Iterable[Event]:
    """One or a few events of any sort at the height, most of them about views near the miner's own."""
    view = max(0, miner.state.bft.view + chooser.choice((-1, 0, 0, 0, 0, 1)))
    choice = chooser.randrange(10)
    if choice == 0:
        return [Connected()]
    if choice <= 2 and miner.timeouts:
        return [TimerFired(chooser.choice(miner.timeouts[-3:]))]
    proposer = peers.get_proposer(view)
    blocks = peers.build_blocks(proposer)
    if choice <= 5 and proposer != ME:
        return [peers.propose(view, chooser.choice(blocks), chooser.choice((-1, -1, view - 1)))]
    proposed = [proposal.block_hash for proposal, _ in miner.state.bft.proposals.get(View(view), ())]
    value = chooser.choice((chooser.choice(blocks).hash, None, None, *proposed, *proposed, *proposed))
    kind = chooser.choice((PREVOTE, PREVOTE, PRECOMMIT))
    # Two others with this miner are a quorum: for a precommit it would make the block final and end the run.
    senders = chooser.sample(OTHERS, 1 if kind == PRECOMMIT and value is not None else 2)
    return [peers.vote(sender, view, kind, value) for sender in senders]


def test_no_history_of_crashes_makes_it_contradict_itself(tmp_path: Path) -> None:
    """Random peers, timeouts and crashes between effects: one value for each height, view and step, in every run."""
    slots = repeated = locks = restarts = 0
    for run in range(RUNS):
        chooser = random.Random(run)

        async def scenario(chooser: random.Random = chooser, run: int = run) -> tuple[int, int, int, int]:
            driver = build_driver()
            peers = Peers(driver)
            miner = await start_miner(driver, tmp_path / f"{run}.db")
            locks = restarts = 0
            await miner.feed(Connected())
            for _ in range(EVENTS):
                if miner.state.chain.height != driver.state.height:
                    break
                for event in make_events(peers, miner, chooser):
                    is_crash = chooser.random() < CRASH_SHARE
                    locked = miner.state.bft.locked_view
                    await miner.feed(event, chooser.randrange(5) if is_crash else None)
                    restarts += is_crash
                    locks += is_crash and locked >= 0
            assert not find_contradictions(miner), f"seed {run}"
            await miner.ledger.close()
            return len(miner.said), miner.repeated, locks, restarts

        for_run = asyncio.run(scenario())
        slots, repeated = slots + for_run[0], repeated + for_run[1]
        locks, restarts = locks + for_run[2], restarts + for_run[3]
    assert slots > 2 * RUNS and repeated > RUNS and restarts > 3 * RUNS and locks > RUNS, (
        "the runs exercise what they say"
    )


def test_damaged_own_votes_stop_the_miner(tmp_path: Path) -> None:
    """A miner that cannot read what it has said does not start to say something else."""

    async def scenario() -> None:
        driver = build_driver()
        miner = await start_miner(driver, tmp_path / "ledger.db")
        vote = seal(messages.Vote(driver.state.height + 1, 0, PREVOTE, None), driver.chain.id, miner.identity)
        await miner.ledger.save(SaveVote(Height(driver.state.height + 1), vote, None))
        await miner.ledger.close()
        change(miner.path, "UPDATE own_messages SET raw = ?", vote[:-1] + bytes((vote[-1] ^ 1,)))
        with pytest.raises(LedgerCorrupt, match="own vote") as caught:
            await miner.start()
        assert caught.value.height == driver.state.height + 1
        await miner.ledger.close()

    asyncio.run(scenario())
