"""The miner's only loop: edge -> event -> step -> effects -> edge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from flchain.base.types import Height
from flchain.ledger.genesis import Genesis
from flchain.ledger.limits import compute_miner_packet_bytes_max, compute_packet_bytes_max
from flchain.ledger.state import find_validator
from flchain.wire.chunks import (
    CHUNK_BYTES,
    DEVICE_CHUNK_BYTES,
    FIRST_CHUNKS,
    compute_pushed_chunk_bytes,
    split_packet,
)
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import read_topic_channel
from flchain_edge.enrolment.renewal import RenewalKeeper
from flchain_edge.model.model_files import compute_initial_model, load_examples
from flchain_edge.model.tflite import TfliteModel, probe_model
from flchain_edge.mqtt.link import OUTGOING_BYTES_MAX, MqttLink
from flchain_edge.mqtt.seam import Link
from flchain_edge.mqtt.settings import with_client_id
from flchain_edge.process.chain_files import load_genesis, load_model_file
from flchain_edge.process.event_loop import EventQueue, RefusalCounter, on_reload, read_clocks
from flchain_edge.process.sd_notify import Notifier, ServiceReport
from flchain_edge.settings.node import load_identity
from miner.core import catch_up
from miner.core.machine import build_miner_state, step
from miner.core.state import MinerState
from miner.core.tip import Standing
from miner.core.values import (
    ComputeScore,
    Connected,
    Effect,
    Event,
    MinerConfig,
    Note,
    Publish,
    Refuse,
    SaveBlock,
    SaveState,
    SaveVote,
    ScoreComputed,
    SendBlocks,
    SendChunks,
    StartTimer,
    TimerFired,
)
from miner.edge.ledger.journal import Journal
from miner.edge.ledger.ledger import LEDGER_FILE, Ledger, replay
from miner.edge.scorer import Scorer
from miner.edge.scorer_tflite import TfliteScorer
from miner.edge.sent_packets import SentPackets
from miner.settings import MinerSettings

log = logging.getLogger("miner")
NEVER_SILENT = Height(0)


class MinerRunner:
    """One miner process."""

    def __init__(
        self,
        state: MinerState,
        ledger: Journal,
        link: Link,
        scorer: Scorer,
        queue: EventQueue[Event],
        *,
        silent_until: Height = NEVER_SILENT,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._link = link
        self._scorer = scorer
        self._queue = queue
        self._silent_until = silent_until
        self._refusals = RefusalCounter()
        self._sent = SentPackets()
        self._scoring: set[asyncio.Task[None]] = set()

    def describe(self) -> str:
        """Return in one line where this miner stands."""
        chain = self._state.chain
        return f"round {chain.round.number}, {chain.round.phase.name.lower()}, height {chain.height}"

    async def run(self) -> None:
        """Run until cancelled. Raises StoreFull or LedgerCorrupt if the disk fails."""
        topics, me = self._state.topics, self._state.config.identity.address
        for topic_filter, qos in topics.list_miner_filters(me).items():
            self._link.subscribe(topic_filter, qos=qos)
        await self._link.start()
        try:
            while True:
                await self._process(await self._queue.get())
        finally:
            self._queue.stop_timers()
            self._scorer.stop()
            await self._link.stop()

    async def _process(self, event: Event) -> None:
        if self._state.chain.height < self._silent_until:
            await self._catch_up(event)
            return
        self._state, effects = step(self._state, event, *read_clocks())
        await self._run_effects(effects)

    async def _run_effects(self, effects: Sequence[Effect]) -> None:
        """All that one event changes is durable, in one write, before anything of it is sent."""
        await self._ledger.save(*(effect for effect in effects if isinstance(effect, SaveVote | SaveBlock | SaveState)))
        for effect in effects:
            await self._run_effect(effect)

    async def _catch_up(self, event: Event) -> None:
        """Take blocks and sign nothing; then begin as after a start, with this miner's own votes at the next height."""
        if not catch_up.is_heard(event):
            return
        self._state, effects = step(self._state, event, *read_clocks())
        await self._run_effects(catch_up.select_effects(effects, self._state.chain.chain))
        chain = self._state.chain
        if chain.height >= self._silent_until:
            own = await self._ledger.get_own(Height(chain.height + 1))
            state = self._state
            self._state = build_miner_state(state.config, Standing(chain, state.ledger), *own)
            log.info("caught up, taking part again", extra={"height": chain.height})
            self._queue.post(Connected())

    async def _run_effect(self, effect: Effect) -> None:
        match effect:
            case Publish():
                self._publish(effect)
            case SaveVote() | SaveBlock() | SaveState():
                pass  # durable already
            case SendBlocks(topic, height, count):
                for row in await self._ledger.get_blocks(height, count):
                    packet = encode_packet(PacketType.BLOCK, row.header, row.certificate, row.body)
                    await self._run_effect(Publish(topic, packet))
            case SendChunks(topic, digest, ranges):
                for payload in self._sent.build_chunks(digest, ranges):
                    self._link.publish(topic, payload)
            case StartTimer(timer, delay_ms):
                self._queue.start_timer(timer, delay_ms, TimerFired(timer))
            case ComputeScore():
                task = asyncio.create_task(self._score(effect))
                self._scoring.add(task)
                task.add_done_callback(self._scoring.discard)
            case Refuse(code, detail):
                self._refusals.add(code, detail)
            case Note(text, fields):
                log.info(text, extra=fields)

    def _publish(self, effect: Publish) -> None:
        """Send a packet. A long one for devices is kept, so that they can ask for the chunks that they lack."""
        packet, channel = effect.packet, read_topic_channel(effect.topic)
        chunk_bytes = CHUNK_BYTES
        if effect.is_pulled:
            chunk_bytes = DEVICE_CHUNK_BYTES
        elif channel in ("body", "light"):
            chunk_bytes = compute_pushed_chunk_bytes(len(packet))
        if len(packet) > chunk_bytes and chunk_bytes < CHUNK_BYTES:
            self._sent.put(packet, chunk_bytes)
        payloads = split_packet(packet, chunk_bytes)
        for payload in payloads[:FIRST_CHUNKS] if effect.is_pulled else payloads:
            self._link.publish(effect.topic, payload, retain=effect.retain, qos=effect.qos)

    async def _score(self, effect: ComputeScore) -> None:
        try:
            score = await self._scorer.score(effect.model)
        except (ValueError, RuntimeError) as error:  # what the interpreter raises
            log.error(
                "scoring failed, this miner publishes no scores in this round",
                extra={"round": effect.round, "cause": error},
            )
            return
        self._queue.post(ScoreComputed(effect.round, effect.subject, score))


def compute_outgoing_bytes_max(genesis: Genesis) -> int:
    """Return the room for the two longest packets of this chain, a proposal and a body: without it the chain halts.

    A state fits as well; otherwise it could never be sent.
    """
    sizes = genesis.params, len(genesis.devices), genesis.params.seats
    longest = max(2 * compute_packet_bytes_max(*sizes), compute_miner_packet_bytes_max(*sizes))
    return max(OUTGOING_BYTES_MAX, longest * 101 // 100)  # chunks add less than a hundredth


async def run_miner(settings: MinerSettings) -> None:
    """Start from the files and run. Raises ConfigError, LedgerCorrupt or StoreFull."""
    identity = load_identity(settings)
    genesis = load_genesis(settings.genesis)
    model_file = load_model_file(settings.model, genesis)
    probe_model(model_file)
    model = TfliteModel(model_file)
    initial_model = compute_initial_model(model)
    examples = load_examples(settings.examples, model)
    ledger = await Ledger.open(Path(settings.data_dir) / LEDGER_FILE, genesis, initial_model)
    try:
        standing = await replay(ledger, genesis, initial_model)
        chain = standing.chain
        if find_validator(chain, identity.address) is None:
            fields = {"address": identity.address.hex(), "hint": "bond stake and wait for an election: docs/staking.md"}
            log.warning("this miner is no validator, it only follows", extra=fields)
        own_messages, own_blocks = await ledger.get_own(Height(chain.height + 1))
        config = MinerConfig(identity, settings.until_round, settings.get_checkpoint())
        state = build_miner_state(config, standing, own_messages, own_blocks)
        queue: EventQueue[Event] = EventQueue()
        report = ServiceReport(Notifier(), queue)
        link = MqttLink(
            with_client_id(settings.mqtt, identity.address.hex()),
            report.relay(queue.on_link_event),
            outgoing_bytes_max=compute_outgoing_bytes_max(genesis),
        )
        log.info("starting", extra={"address": identity.address.hex(), "chain": genesis.name, "height": chain.height})
        silent_until = await ledger.get_silence()
        if chain.height < silent_until:
            log.info("catching up after a resync, signing nothing", extra={"until_height": silent_until})
        runner = MinerRunner(state, ledger, link, TfliteScorer(model, examples), queue, silent_until=silent_until)
        on_reload(lambda: link.reconnect("reload"))
        # A miner puts times into blocks, so its clock has to be right in any case.
        renewal = RenewalKeeper(settings, identity, lambda: read_clocks()[1])
        async with report.reporting(runner.describe), renewal.keeping():
            await runner.run()
    finally:
        await ledger.close()
