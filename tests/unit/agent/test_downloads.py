"""Long packets over slow and broken links: devices draw answers at their pace, miners ask for what an update lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.core import downloads
from agent.core import values as av
from agent.core.downloads import STALLED_MS, STALLS_MAX, WINDOW_MS
from agent.core.machine import build_agent_state
from agent.core.machine import step as agent_step
from agent.core.state import AgentState
from flchain.base.fixedpoint import encode_vector
from flchain.base.frozen import ByAddress
from flchain.base.types import Millis
from flchain.light.follow import build_light_state
from flchain.wire import chunks
from flchain.wire.chunks import FIRST_CHUNKS, Ranges, count_chunks, split_packet
from flchain.wire.envelope import Envelope, open_envelope, seal, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.messages import Ask, Phase, Resume, Want
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.mqtt.chunked_uploads import PROBE_S, ChunkedUploads
from miner.core import missing_chunks
from miner.core import values as mv
from miner.core.machine import build_miner_state
from miner.core.machine import step as miner_step
from miner.core.state import PATIENCE_EXTENSIONS_MAX, MinerState, Patience, Uploads
from miner.core.tip import Standing, extend
from miner.edge.sent_packets import SentPackets
from tests.support.builders.chain import (
    NO_CLOCK,
    PARAMETERS_COUNT,
    Driver,
    build_chain,
    make_reveal,
    seal_commit,
    seal_reveal,
)

CHAIN = build_chain(codec="identity")
TOPICS = Topics.of_chain(CHAIN.id)
HOME, ME = CHAIN.miners[0], CHAIN.devices[0]
PIECE = 64


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of these tests is short: so are the pieces."""
    for module in (chunks, downloads):
        monkeypatch.setattr(module, "DEVICE_CHUNK_BYTES", PIECE)
    monkeypatch.setattr("flchain_edge.mqtt.chunked_uploads.DEVICE_CHUNK_BYTES", PIECE)


def make_driver(rounds: int = 2) -> Driver:
    driver = Driver(CHAIN)
    for _ in range(rounds):
        driver.run_round()
    return driver


def build_miner(driver: Driver, number: int = 0) -> MinerState:
    standing = Standing(driver.states[0])
    for block, certificate, after in zip(driver.blocks, driver.certificates, driver.states[1:], strict=True):
        standing = extend(standing, block, certificate, after)
    # Without the payloads of the rounds an answer is the model.
    summary = replace(standing.ledger, payloads=())
    return build_miner_state(mv.MinerConfig(CHAIN.miners[number]), Standing(standing.chain, summary))


def build_agent(is_full: bool = False) -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    light = build_light_state(CHAIN.genesis, CHAIN.model, is_full=is_full)
    return build_agent_state(av.AgentConfig(ME, miners), light, np.zeros(PARAMETERS_COUNT, np.int32))


def tell(state: AgentState, event: av.Event, now_ms: int) -> tuple[AgentState, list[av.Effect]]:
    state, effects = agent_step(state, event, Millis(now_ms), NO_CLOCK)
    assert not [effect for effect in effects if isinstance(effect, av.Refuse)]
    return state, list(effects)


def get_said(effects: list[av.Effect]) -> list[Envelope]:
    return [open_envelope(decode_packet(e.packet).fields[0], CHAIN.id) for e in effects if isinstance(e, av.Publish)]


class Answer:
    """A miner's answer on its way to a device: its runner, and a link that takes a while for each piece."""

    def __init__(self, driver: Driver, agent: AgentState) -> None:
        self.agent, self.now_ms, self.piece_ms = agent, 0, 100
        self.miner = build_miner(driver)
        self.sent = SentPackets()
        self.queue: list[bytes] = []
        self.lost: set[int] = set()
        """Indices that the link loses once."""
        self.pieces: list[int] = []
        """What went over the link, in order."""
        self.asks: list[Envelope] = []
        self.longest = 0
        """How many pieces waited for the link at once."""

    def ask(self) -> None:
        raw = seal(Ask(1, HOME.address, Want.MODEL, 0), CHAIN.id, ME)
        self._to_miner(encode_packet(PacketType.MESSAGE, raw))

    def _to_miner(self, packet: bytes) -> None:
        event = mv.PacketReceived(TOPICS.device_up(ME.address), packet)
        self.miner, effects = miner_step(self.miner, event, Millis(self.now_ms), NO_CLOCK)
        for effect in effects:
            match effect:
                case mv.Publish(_, answer):
                    assert effect.is_pulled
                    self.sent.put(answer, PIECE)
                    self.queue += split_packet(answer, PIECE)[:FIRST_CHUNKS]
                case mv.SendChunks(_, digest, ranges):
                    self.queue += self.sent.build_chunks(digest, ranges)
        self.longest = max(self.longest, len(self.queue))

    def hear(self, effects: list[av.Effect]) -> None:
        for envelope in get_said(effects):
            self.asks.append(envelope)
            self._to_miner(encode_packet(PacketType.MESSAGE, envelope.raw))

    def run(self, pieces: int | None = None) -> None:
        """Let pieces through until none wait, or so many have come."""
        while self.queue and pieces != 0:
            payload, self.now_ms = self.queue.pop(0), self.now_ms + self.piece_ms
            index = decode_packet(payload).fields[1]
            self.pieces.append(index)
            if index in self.lost:
                self.lost.remove(index)
                continue
            event = av.PacketReceived(TOPICS.miner_to(HOME.address, ME.address), payload)
            self.agent, effects = tell(self.agent, event, self.now_ms)
            self.hear(effects)
            pieces = None if pieces is None else pieces - 1


def test_a_model_is_drawn_in_small_lots_and_taken() -> None:
    """A slow link has never much before it; each piece goes over it once; the model is the chain's."""
    driver = make_driver()
    answer = Answer(driver, build_agent())
    answer.ask()
    total = count_chunks(answer.sent._kept[next(iter(answer.sent._kept))][0], PIECE)
    answer.run()
    assert answer.agent.light.is_synced and not answer.agent.downloads.running
    assert encode_vector(answer.agent.light.model) == encode_vector(driver.state.model)
    assert sorted(answer.pieces) == list(range(total))
    assert answer.longest * answer.piece_ms <= 1.6 * WINDOW_MS
    assert {envelope.kind for envelope in answer.asks} == {Kind.RESUME}


def test_a_fast_link_asks_seldom() -> None:
    """The faster pieces come the more are asked for at once."""
    counts = []
    for piece_ms in (200, 1):
        answer = Answer(make_driver(), build_agent())
        answer.piece_ms = piece_ms
        answer.ask()
        answer.run()
        assert answer.agent.light.is_synced
        counts.append(len(answer.asks))
    assert counts[1] < counts[0] / 2


def test_after_a_break_the_rest_is_drawn_and_not_the_whole() -> None:
    """The link breaks with pieces under way, one was lost before: what is missing is asked for, nothing else."""
    driver = make_driver()
    answer = Answer(driver, build_agent())
    answer.lost = {3}
    answer.ask()
    answer.run(pieces=12)
    under_way = len(answer.queue)
    answer.queue.clear()
    answer.agent, effects = tell(answer.agent, av.Connected(), answer.now_ms + 30_000)
    answer.now_ms += 30_000
    answer.hear([effect for effect in effects if isinstance(effect, av.Publish)])
    answer.run()
    assert answer.agent.light.is_synced
    total = len(set(answer.pieces))
    assert len(answer.pieces) == total + 1, "only the lost piece went twice"
    assert under_way > 0
    assert not [envelope for envelope in answer.asks if envelope.kind is Kind.ASK]


def test_what_stalls_is_asked_for_again_and_given_up_in_the_end() -> None:
    """While pieces come nothing else is asked; then what is missing, a few times; then the model anew, of another."""
    driver = make_driver()
    answer = Answer(driver, build_agent())
    head = driver.get_head(len(driver.blocks))
    packet = encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets)
    agent, _ = tell(answer.agent, av.PacketReceived(TOPICS.miner_light(HOME.address), packet), 0)
    answer.agent = agent
    answer.ask()
    answer.run(pieces=6)
    resync = av.TimerFired(av.Timer.RESYNC)
    agent, effects = tell(answer.agent, resync, answer.now_ms + STALLED_MS - 1)
    assert get_said(effects) == []
    for stall in range(1, STALLS_MAX + 1):
        agent, effects = tell(agent, resync, answer.now_ms + stall * STALLED_MS)
        (said,) = get_said(effects)
        assert said.kind is Kind.RESUME
    agent, effects = tell(agent, resync, answer.now_ms + (STALLS_MAX + 1) * STALLED_MS)
    (said,) = get_said(effects)
    assert said.kind is Kind.ASK and not agent.downloads.running
    assert not any(assembly.partial for assembly in agent.downloads.assemblies.values())


def test_only_the_miner_that_is_asked_sends_chunks_and_not_without_end() -> None:
    """A question to another, or the next within a moment, gets nothing."""
    state, topic = build_miner(make_driver()), TOPICS.device_up(ME.address)
    sent = []
    for to, now_ms in ((CHAIN.miners[1], 0), (HOME, 0), (HOME, missing_chunks.CHUNKS_AGAIN_MS - 1), (HOME, 100)):
        raw = seal(Resume(1, to.address, b"d" * 32, ((0, 9),)), CHAIN.id, ME)
        event = mv.PacketReceived(topic, encode_packet(PacketType.MESSAGE, raw))
        state, effects = miner_step(state, event, Millis(now_ms), NO_CLOCK)
        sent.append([type(effect) for effect in effects])
    assert sent == [[], [mv.SendChunks], [], [mv.SendChunks]]


# ----------------------------------------------------------------------------------------------- updates, upwards


def seal_update() -> bytes:
    return encode_packet(PacketType.MESSAGE, seal_reveal(CHAIN, 0, make_reveal(CHAIN, 0)))


def in_reveal(patience_devices: int = 3) -> Driver:
    driver = Driver(CHAIN)
    driver.open()
    driver.extend([seal_commit(CHAIN, number, make_reveal(CHAIN, number)) for number in range(patience_devices)])
    assert driver.state.round.phase is Phase.REVEAL
    return driver


def bring(state: MinerState, payload: bytes, now_ms: int) -> tuple[MinerState, list[mv.Effect]]:
    event = mv.PacketReceived(TOPICS.device_up(ME.address), payload)
    state, effects = miner_step(state, event, Millis(now_ms), NO_CLOCK)
    return state, list(effects)


def read_wanted(effects: list[mv.Effect]) -> Ranges:
    (said,) = [effect for effect in effects if isinstance(effect, mv.Publish)]
    assert said.topic == TOPICS.miner_to(HOME.address, ME.address)
    envelope = open_envelope(decode_packet(said.packet).fields[0], CHAIN.id)
    message = verify_envelope(envelope, CHAIN.id, HOME.public_key).message
    assert isinstance(message, Resume) and message.to == ME.address
    return message.ranges


def test_a_miner_asks_for_what_is_missing_of_an_update_once_it_is_all_out() -> None:
    """Its own link was away for a while: with the last piece, or when it is back, it says what it lacks; with that the
    update is whole, and each piece has gone over the device's link once, except for those that the miner has missed."""
    payloads, miner = split_packet(seal_update(), PIECE), build_miner(in_reveal())
    for payload in (*payloads[:3], *payloads[6:-1]):
        miner, effects = bring(miner, payload, 0)
        assert not [effect for effect in effects if isinstance(effect, mv.Publish)]
    _, all_effects = miner_step(miner, mv.Connected(), Millis(5), NO_CLOCK)
    told: list[mv.Effect] = [e for e in all_effects if isinstance(e, mv.Publish) and "/to/" in e.topic]
    assert read_wanted(told) == ((3, 3), (len(payloads) - 1, 1))
    miner, effects = bring(miner, payloads[-1], 10)
    assert read_wanted(effects) == ((3, 3),)
    for payload in payloads[3:6]:
        miner, effects = bring(miner, payload, 20)
    receipts = [e for e in effects if isinstance(e, mv.Publish) and "/to/" in e.topic]
    assert len(receipts) == 1 and len(list(miner.mempool.iterate())) == 1


def test_who_has_no_receipt_needs_one_piece_to_get_it() -> None:
    """A device that starts again says the last piece of its update: a miner that has it all answers with the receipt,
    one that has a part of it with what it lacks, one that has nothing with everything but that piece."""
    payloads = split_packet(seal_update(), PIECE)
    whole = build_miner(in_reveal())
    part, nothing = whole, whole
    for payload in payloads:
        whole, _ = bring(whole, payload, 0)
    for payload in payloads[:4]:
        part, _ = bring(part, payload, 0)
    uploads = ChunkedUploads()
    uploads.begin("up", seal_update(), 0.0, is_again=True)
    probe = uploads.take(1, 0.0)
    assert probe is not None and uploads.take(10**6, PROBE_S) is None
    _, effects = bring(whole, probe.payload, 10)
    (receipt,) = [effect for effect in effects if isinstance(effect, mv.Publish)]
    assert open_envelope(decode_packet(receipt.packet).fields[0], CHAIN.id).kind is Kind.RECEIPT
    assert read_wanted(bring(part, probe.payload, 10)[1]) == ((4, len(payloads) - 5),)
    assert read_wanted(bring(nothing, probe.payload, 10)[1]) == ((0, len(payloads) - 1),)


def test_a_miner_waits_longer_for_an_update_that_is_coming_in_but_not_for_ever() -> None:
    """Each time its patience ends with a piece since the last time it waits once more, a bounded number of times; for
    who sends nothing it does not wait."""
    params, payloads = CHAIN.genesis.params, split_packet(seal_update(), PIECE)
    miner = build_miner(in_reveal())
    miner, _ = miner_step(miner, mv.Connected(), Millis(0), NO_CLOCK)
    assert miner.waiting.patience is Patience.RUNNING
    patience, now_ms = mv.TimerFired(mv.Timer.PATIENCE), 0
    for index in range(PATIENCE_EXTENSIONS_MAX + 1):
        miner, _ = bring(miner, payloads[index], now_ms + 1)
        now_ms += params.patience_ms
        miner, _ = miner_step(miner, patience, Millis(now_ms), NO_CLOCK)
        assert (miner.waiting.patience is Patience.OVER) == (index == PATIENCE_EXTENSIONS_MAX)
    idle = build_miner(in_reveal())
    idle, _ = miner_step(idle, mv.Connected(), Millis(0), NO_CLOCK)
    idle, _ = bring(idle, payloads[0], 1)
    idle, _ = miner_step(idle, patience, Millis(2 * params.patience_ms + 2), NO_CLOCK)
    assert idle.waiting.patience is Patience.OVER


def test_a_miner_keeps_no_update_of_a_round_that_is_over() -> None:
    """What was whole is forgotten with its round, what is in part stays in its few places."""
    driver, payloads = in_reveal(), split_packet(seal_update(), PIECE)
    miner = build_miner(driver)
    for payload in payloads:
        miner, _ = bring(miner, payload, 0)
    assert miner.uploads.assemblies[ME.address].done is not None
    later = make_driver(1)
    for block, certificate in list(zip(later.blocks, later.certificates, strict=True))[2:]:
        packet = encode_packet(PacketType.BLOCK, block.header_bytes, certificate, block.body_bytes)
        event = mv.PacketReceived(TOPICS.miner_to(CHAIN.miners[1].address, HOME.address), packet)
        miner, _ = miner_step(miner, event, Millis(1), NO_CLOCK)
    assert miner.chain.round.number == 2 and not miner.uploads.assemblies


def test_a_miner_does_not_wait_for_what_came_in_a_round_that_is_over() -> None:
    """Blocks may bring it from the last piece of one round into the next within a moment: what is forgotten, or whole,
    is not coming in, however lately it came."""
    uploads = Uploads(arrived_ms=ByAddress({ME.address: Millis(0)}))
    miner = replace(build_miner(in_reveal()), now_ms=Millis(0), uploads=uploads)
    assert not missing_chunks.is_update_arriving(miner)
    for payload in split_packet(seal_update(), PIECE):
        miner, _ = bring(miner, payload, 0)
    assert ME.address in miner.uploads.assemblies and not missing_chunks.is_update_arriving(miner)
