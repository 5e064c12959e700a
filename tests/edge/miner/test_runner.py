"""The miner's loop on fakes: no broker, no disk, no model."""

from __future__ import annotations

import asyncio

from flchain.ledger.state import build_genesis_state
from flchain.wire.packets import PacketType, decode_packet
from flchain.wire.topics import Topics
from flchain_edge.mqtt.inbox import LinkUp
from flchain_edge.mqtt.seam import FakeLink
from flchain_edge.newer_python import timeout
from flchain_edge.process.event_loop import EventQueue
from miner.core.machine import build_miner_state
from miner.core.tip import Standing
from miner.core.values import Event, MinerConfig, SaveBlock, SaveVote
from miner.edge.ledger.journal import MemoryJournal
from miner.edge.ledger.ledger import Save
from miner.edge.scorer import ConstantScorer
from miner.runner import MinerRunner
from tests.support.builders.chain import build_chain

DEADLINE_S = 30.0


class WatchedJournal(MemoryJournal):
    """A journal that notes what the link has said by the time that something is saved."""

    def __init__(self, link: FakeLink) -> None:
        super().__init__()
        self.has_block = asyncio.Event()
        self.writes: list[tuple[Save, ...]] = []
        self._link = link

    async def save(self, *changes: Save) -> None:
        said = [decode_packet(published.payload).fields[0] for published in self._link.published]
        for change in changes:
            assert not (isinstance(change, SaveVote) and change.raw in said), "said before it was saved"
        await super().save(*changes)
        self.writes.append(changes)
        if self.blocks:
            self.has_block.set()


def test_a_lone_miner_saves_each_word_before_it_says_it() -> None:
    """With all the power it opens the chain by itself: all of an event is saved in one write, then said."""
    chain = build_chain(miners=1, devices=1)
    link, queue = FakeLink(), EventQueue[Event]()

    async def scenario() -> None:
        journal = WatchedJournal(link)
        state = build_miner_state(
            MinerConfig(chain.miners[0]), Standing(build_genesis_state(chain.genesis, chain.model))
        )
        runner = MinerRunner(state, journal, link, ConstantScorer(5_000), queue)
        running = asyncio.create_task(runner.run())
        queue.on_link_event(LinkUp())
        async with timeout(DEADLINE_S):
            await journal.has_block.wait()
            while not queue.is_awaited:  # what the block made it say is said by then
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait((running,))
        packets = [decode_packet(published.payload) for published in link.published]
        said = {packet.fields[0] for packet in packets if packet.type in (PacketType.MESSAGE, PacketType.PROPOSAL)}
        own = {raw for height, raw, _ in journal.own if height == 1}
        assert len(own) == 3 and own <= said, "a proposal and two votes"
        first = next(changes for changes in journal.writes if changes)
        assert [type(change) for change in first[:4]] == [SaveVote, SaveVote, SaveVote, SaveBlock], (
            "one event, one write"
        )
        assert [row.height for row in journal.blocks] == [1]
        topic = Topics.of_chain(chain.id).miner_head(chain.miners[0].address)
        assert any((one.topic, one.retain) == (topic, True) for one in link.published)
        assert not link.is_started, "it has left the broker"

    asyncio.run(scenario())


def test_a_miner_subscribes_to_what_miners_say_at_qos_0() -> None:
    """Before it connects it has asked for devices and answers at QoS 1, for votes and headers of miners at QoS 0."""
    chain = build_chain(miners=4, devices=1)
    link, queue, me = FakeLink(), EventQueue[Event](), chain.miners[0].address

    async def scenario() -> None:
        state = build_miner_state(
            MinerConfig(chain.miners[0]), Standing(build_genesis_state(chain.genesis, chain.model))
        )
        running = asyncio.create_task(MinerRunner(state, MemoryJournal(), link, ConstantScorer(5_000), queue).run())
        async with timeout(DEADLINE_S):
            while not link.is_started:
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait((running,))

    asyncio.run(scenario())
    prefix = f"flchain/v1/{chain.id[:8].hex()}"
    assert link.filters == {
        f"{prefix}/device/+/up": 1,
        f"{prefix}/miner/+/to/{me.hex()}": 1,
        f"{prefix}/miner/+/bft": 0,
        f"{prefix}/miner/+/head": 0,
    }
