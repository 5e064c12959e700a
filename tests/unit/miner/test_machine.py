"""The miner's machine, step by step: receipts, patience, waiting proposers, pauses, and votes on disk first."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from flchain.base.types import Height, Millis, View
from flchain.ledger.certificate import build_certificate
from flchain.ledger.state import ChainState
from flchain.rules.blocks import apply_block, build_block, get_proposer
from flchain.wire import chunks
from flchain.wire.envelope import encode_struct, get_signature, hash_message, open_envelope, seal, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.messages import Ask, Certificate, Commit, Phase, Proposal, Receipt, Vote, Want
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from miner.core import agreement
from miner.core.machine import build_miner_state, step
from miner.core.state import MinerState
from miner.core.tip import Standing
from miner.core.values import (
    Connected,
    Effect,
    Event,
    MinerConfig,
    PacketReceived,
    Publish,
    Refuse,
    SaveVote,
    SendBlocks,
    StartTimer,
    Timer,
    TimerFired,
)
from tests.support.builders.chain import (
    NO_CLOCK,
    BuiltChain,
    Driver,
    build_chain,
    certify,
    make_reveal,
    make_scores,
    open_all,
    seal_commit,
    seal_score_commit,
    seal_score_commit_of,
)

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)


def build_miner(state: ChainState, number: int = 0, until_round: int = 0, chain: BuiltChain = CHAIN) -> MinerState:
    return build_miner_state(MinerConfig(chain.miners[number], until_round), Standing(state))


def go_to(phase: Phase, devices: tuple[int, ...] | None = None) -> ChainState:
    driver = Driver(CHAIN)
    driver.go_to(phase, devices)
    return driver.state


def play(state: MinerState, *events: Event) -> tuple[MinerState, tuple[Effect, ...]]:
    done: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event, Millis(0), NO_CLOCK)
        done += effects
    return state, done


def device_says(number: int, raw: bytes, chain: BuiltChain = CHAIN) -> PacketReceived:
    topic = Topics.of_chain(chain.id).device_up(chain.devices[number].address)
    return PacketReceived(topic, encode_packet(PacketType.MESSAGE, raw))


def commit_of(number: int, chain: BuiltChain = CHAIN, round_: int = 1) -> bytes:
    return seal_commit(chain, number, make_reveal(chain, number, round_))


def get_receipts(effects: tuple[Effect, ...], miner: int) -> list[tuple[bytes, str]]:
    found = []
    for effect in effects:
        if isinstance(effect, Publish) and "/to/" in effect.topic:
            envelope = open_envelope(decode_packet(effect.packet).fields[0], CHAIN.id)
            receipt = verify_envelope(envelope, CHAIN.id, CHAIN.miners[miner].public_key).message
            assert isinstance(receipt, Receipt)
            found.append((receipt.digest, receipt.code))
    return found


def get_timers(effects: tuple[Effect, ...]) -> list[object]:
    return [effect.timer for effect in effects if isinstance(effect, StartTimer)]


def get_proposer_number(state: ChainState, view: int = 0) -> int:
    return [key.address for key in CHAIN.miners].index(get_proposer(state, View(view)))


def test_home_answers_a_first_copy_and_everyone_a_repeat() -> None:
    """Device 0's home is miner 0: it alone gives the first receipt; a device that says it again hears from all."""
    raw, state = commit_of(0), go_to(Phase.COMMIT)
    for number in range(4):
        miner, effects = play(build_miner(state, number), device_says(0, raw))
        assert get_receipts(effects, number) == ([(hash_message(raw), "ok")] if number == 0 else [])
        _, effects = play(miner, device_says(0, raw))
        assert get_receipts(effects, number) == [(hash_message(raw), "ok")]


def test_message_refused_for_good_gets_its_code_in_the_receipt() -> None:
    """A commitment that comes after its phase, or a second one, will never do: the device hears why."""
    late = seal(Commit(1, b"l" * 32, False), CHAIN.id, CHAIN.devices[0])
    _, effects = play(build_miner(go_to(Phase.REVEAL), 2), device_says(0, late))
    assert get_receipts(effects, 2) == [(hash_message(late), "wrong-round")]
    _, effects = play(build_miner(go_to(Phase.COMMIT), 2), device_says(0, commit_of(0)), device_says(0, late))
    assert get_receipts(effects, 2) == [(hash_message(late), "duplicate")]


def test_miner_that_is_behind_refuses_nothing_for_good() -> None:
    """A restarted miner hears a device two rounds ahead: it counts it, but the device must not give up."""
    ahead = commit_of(0, round_=3)
    _, effects = play(build_miner(go_to(Phase.COMMIT)), device_says(0, ahead))
    assert [effect.code for effect in effects if isinstance(effect, Refuse)] == ["wrong-round"]
    assert get_receipts(effects, 0) == []


def test_miner_with_an_empty_pool_knows_what_is_in_the_chain() -> None:
    """After a restart the repeat of a commitment that is final gets an ok, not a duplicate or wrong-round."""
    _, effects = play(build_miner(go_to(Phase.REVEAL)), device_says(0, commit_of(0)))
    assert get_receipts(effects, 0) == [(hash_message(commit_of(0)), "ok")]
    assert not [effect for effect in effects if isinstance(effect, Refuse)]


def test_miner_with_an_empty_pool_knows_a_devices_scores_in_the_chain() -> None:
    """The repeat of a score commitment or of scores that are final gets an ok as well, and another word a refusal."""
    driver, device = Driver(CHAIN), CHAIN.devices[0]
    driver.go_to(Phase.SCORE)
    word = make_scores(driver.state)
    commit, reveal = seal_score_commit_of(CHAIN, device, word), seal(word, CHAIN.id, device)
    driver.extend([*(seal_score_commit(CHAIN, i, word) for i in range(3)), commit])
    driver.extend()
    assert driver.state.round.phase is Phase.SETTLE
    _, effects = play(build_miner(driver.state), device_says(0, commit))
    assert get_receipts(effects, 0) == [(hash_message(commit), "ok")]
    other = seal_score_commit_of(CHAIN, device, make_scores(driver.state, base=1))
    _, effects = play(build_miner(driver.state), device_says(0, other))
    assert get_receipts(effects, 0) == [(hash_message(other), "wrong-round")]
    driver.extend([reveal])
    _, effects = play(build_miner(driver.state), device_says(0, reveal))
    assert get_receipts(effects, 0) == [(hash_message(reveal), "ok")]


def test_patience_begins_with_the_first_commitment_and_ends_in_a_height() -> None:
    """Nobody waits for nothing; after the first commitment a timer runs; when it fires agreement begins."""
    miner, effects = play(build_miner(go_to(Phase.COMMIT)), Connected())
    assert Timer.PATIENCE not in get_timers(effects)
    miner, effects = play(miner, device_says(0, commit_of(0)))
    assert get_timers(effects).count(Timer.PATIENCE) == 1 and not miner.bft.is_started
    miner, effects = play(miner, device_says(1, commit_of(1)))
    assert Timer.PATIENCE not in get_timers(effects), "counted from the first"
    miner, _ = play(miner, TimerFired(Timer.PATIENCE))
    assert miner.bft.is_started


def test_last_commitment_begins_the_height_at_once() -> None:
    """Once everyone who is expected has spoken there is nothing to wait for."""
    miner, _ = play(build_miner(go_to(Phase.COMMIT)), *(device_says(n, commit_of(n)) for n in range(3)))
    assert miner.bft.is_started


def test_proposer_waits_a_little_for_what_is_under_way() -> None:
    """Drawn into a height before it has all commitments, the proposer waits; with the last one it proposes."""
    state = go_to(Phase.COMMIT)
    number = get_proposer_number(state)
    votes = []
    for peer in (CHAIN.miners[(number + 1) % 4], CHAIN.miners[(number + 2) % 4]):
        nil = seal(Vote(state.height + 1, 0, 1, None), CHAIN.id, peer)
        votes.append(PacketReceived(TOPICS.miner_bft(peer.address), encode_packet(PacketType.MESSAGE, nil)))
    miner, _ = play(build_miner(state, number), device_says(0, commit_of(0)), votes[0])
    assert not miner.bft.is_started, "one validator of four alone draws nobody in"
    miner, effects = play(miner, votes[1])
    assert miner.bft.is_started and Timer.PROPOSE in get_timers(effects)
    assert not [effect for effect in effects if isinstance(effect, SaveVote)]
    waiting, _ = play(miner, device_says(1, commit_of(1)))
    _, effects = play(waiting, device_says(2, commit_of(2)))
    assert [effect for effect in effects if isinstance(effect, SaveVote)]
    _, effects = play(miner, TimerFired(Timer.PROPOSE))
    assert [effect for effect in effects if isinstance(effect, SaveVote)], "or when the wait is over"


def test_miner_pauses_after_the_rounds_it_was_told() -> None:
    """It begins no height of a later round, whatever comes."""
    driver = Driver(CHAIN)
    driver.run_round()
    commits = [device_says(n, commit_of(n, round_=2)) for n in range(3)]
    paused, effects = play(build_miner(driver.state, until_round=1), Connected(), *commits)
    assert not paused.bft.is_started
    assert not [effect for effect in effects if isinstance(effect, SaveVote)]
    going_on, _ = play(build_miner(driver.state, until_round=2), Connected(), *commits)
    assert going_on.bft.is_started


@pytest.mark.parametrize("number", range(4))
def test_vote_is_saved_before_it_is_published(number: int) -> None:
    """In the effects of a step a SaveVote with the same bytes stands before every own vote or proposal."""
    state = go_to(Phase.COMMIT)
    _, effects = play(build_miner(state, number), *(device_says(n, commit_of(n)) for n in range(3)))
    saved: set[bytes] = set()
    own = 0
    for effect in effects:
        if isinstance(effect, SaveVote):
            saved.add(effect.raw)
        elif isinstance(effect, Publish) and effect.topic.endswith("/bft"):
            raw = decode_packet(effect.packet).fields[0]
            if open_envelope(raw, CHAIN.id).kind in (Kind.VOTE, Kind.PROPOSAL):
                assert raw in saved
                own += 1
    assert own >= (1 if number == get_proposer_number(state) else 0)


def test_early_proposal_in_chunks_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long proposal of the next height that comes in chunks is kept whole, and voted on when it is time for it."""
    monkeypatch.setattr(chunks, "DEVICE_CHUNK_BYTES", 64)
    chain = build_chain(devices=60)  # so many that an honest proposal may need chunks
    driver = Driver(chain)
    driver.go_to(Phase.COMMIT)
    commits = open_all((commit_of(n, chain) for n in range(60)), chain.id)
    first, after = build_block(driver.state, get_proposer(driver.state, View(0)), commits)
    second, _ = build_block(after, get_proposer(after, View(0)), [])
    proposer = next(key for key in chain.miners if key.address == get_proposer(after, View(0)))
    me = next(n for n, key in enumerate(chain.miners) if key is not proposer)
    raw = seal(Proposal(second.header.height, 0, -1, second.hash), chain.id, proposer)
    packet = encode_packet(PacketType.PROPOSAL, raw, second.header_bytes, second.body_bytes)
    half = len(packet) // 2
    digest = sha256(packet).digest()
    topic = Topics.of_chain(chain.id).miner_bft(proposer.address)
    pieces = [
        PacketReceived(topic, encode_packet(PacketType.CHUNK, digest, index, 2, piece))
        for index, piece in enumerate((packet[:half], packet[half:]))
    ]
    miner, effects = play(build_miner(driver.state, me, chain=chain), *pieces)
    assert effects == () and len(miner.early) == 1
    block = encode_packet(PacketType.BLOCK, first.header_bytes, certify(chain, driver.state, first), first.body_bytes)
    answer = PacketReceived(Topics.of_chain(chain.id).miner_to(proposer.address, chain.miners[me].address), block)
    miner, effects = play(miner, answer)
    assert miner.chain.height == first.header.height and miner.early == ()
    miner, effects = play(miner, TimerFired(Timer.PATIENCE))
    votes = [effect for effect in effects if isinstance(effect, SaveVote)]
    assert len(votes) == 1 and votes[0].block is not None and votes[0].block.hash == second.hash


def test_only_a_proposal_brings_a_block_along() -> None:
    """A candidate cannot hang bodies on votes of the next height, each of which would be kept until then.

    Eight votes of each candidate are kept early: with a body each they would be gigabytes, and a proposal has one.
    """
    state = go_to(Phase.COMMIT)
    peer, me = CHAIN.miners[1], build_miner(state)
    topic = TOPICS.miner_bft(peer.address)
    for height in (state.height + 1, state.height + 2):
        for view in range(3):
            vote = seal(Vote(height, view, 1, None), CHAIN.id, peer)
            packet = encode_packet(PacketType.PROPOSAL, vote, b"header", bytes(10_000))
            after, effects = play(me, PacketReceived(topic, packet))
            assert [type(effect) for effect in effects] == [Refuse]
            assert after.early == () and after.height_log == me.height_log


def test_a_block_that_is_not_final_is_not_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate is checked first: otherwise a peer could keep a miner busy with blocks that nobody agreed on."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.COMMIT)
    commits = open_all((commit_of(n) for n in range(3)), CHAIN.id)
    block, _ = build_block(driver.state, get_proposer(driver.state, View(0)), commits)
    carried_out = []

    def watch(*given: Any) -> object:
        carried_out.append(given)
        return apply_block(*given)

    monkeypatch.setattr(agreement, "apply_block", watch)
    for certificate, count in ((encode_struct(Certificate(0, ())), 0), (certify(CHAIN, driver.state, block), 1)):
        packet = encode_packet(PacketType.BLOCK, block.header_bytes, certificate, block.body_bytes)
        topic = TOPICS.miner_to(CHAIN.miners[1].address, CHAIN.miners[0].address)
        miner, effects = play(build_miner(driver.state), PacketReceived(topic, packet))
        assert len(carried_out) == count
        assert any(isinstance(effect, Refuse) for effect in effects) == (count == 0)
        assert miner.chain.height == driver.state.height + count


@pytest.mark.parametrize("forged", ["nothing", "a signature of zeros", "a prevote", "another view", "a peer's vote"])
def test_a_vote_that_was_heard_stands_for_its_own_signature_only(forged: str) -> None:
    """Such a certificate would be kept and passed on to devices, which hear no votes and refuse it."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.COMMIT)
    commits = open_all((commit_of(n) for n in range(3)), CHAIN.id)
    block, _ = build_block(driver.state, get_proposer(driver.state, View(0)), commits)
    height, signed = block.header.height, dict[tuple[int, int, int], bytes]()
    heard = []
    for number in (1, 2):
        peer = CHAIN.miners[number]
        for view, step_ in ((0, 1), (0, 2), (1, 2)):
            raw = seal(Vote(height, view, step_, block.hash), CHAIN.id, peer)
            signed[number, view, step_] = get_signature(raw)
            heard.append(PacketReceived(TOPICS.miner_bft(peer.address), encode_packet(PacketType.MESSAGE, raw)))
    miner, _ = play(build_miner(driver.state), *heard)
    assert len(miner.height_log.by_value) >= len(heard) and miner.chain.height == driver.state.height
    wrong = {
        "nothing": signed[1, 0, 2],
        "a signature of zeros": bytes(64),
        "a prevote": signed[1, 0, 1],
        "another view": signed[1, 1, 2],
        "a peer's vote": signed[2, 0, 2],
    }
    last = get_signature(seal(Vote(height, 0, 2, block.hash), CHAIN.id, CHAIN.miners[3]))
    votes = zip(CHAIN.miners[1:], (wrong[forged], signed[2, 0, 2], last), strict=True)
    certificate = build_certificate(driver.state.validators, View(0), [(peer.address, raw) for peer, raw in votes])
    packet = encode_packet(PacketType.BLOCK, block.header_bytes, certificate, block.body_bytes)
    topic = TOPICS.miner_to(CHAIN.miners[1].address, CHAIN.miners[0].address)
    after, effects = play(miner, PacketReceived(topic, packet))
    codes = [effect.code for effect in effects if isinstance(effect, Refuse)]
    assert codes == ([] if forged == "nothing" else ["bad-certificate"])
    assert after.chain.height == (height if forged == "nothing" else height - 1)


def test_question_is_answered_by_the_one_who_is_asked() -> None:
    """An Ask names its miner: it alone sends blocks, to that peer's own topic."""
    ask = seal(Ask(1, CHAIN.miners[2].address, Want.BLOCKS, 0), CHAIN.id, CHAIN.miners[1])
    asked = PacketReceived(TOPICS.miner_bft(CHAIN.miners[1].address), encode_packet(PacketType.MESSAGE, ask))
    for number in (0, 2, 3):
        _, effects = play(build_miner(go_to(Phase.COMMIT), number), asked)
        topic = TOPICS.miner_to(CHAIN.miners[number].address, CHAIN.miners[1].address)
        assert effects == ((SendBlocks(topic, Height(1), 64),) if number == 2 else ())


def test_repeats_of_a_slow_height_become_rarer() -> None:
    """1, 2, 4, 8, 8 s: many validators that all repeat everything each second would starve each other."""
    state, effects = play(build_miner(CHAIN.state), Connected())
    waits = [effect.delay_ms for effect in effects if isinstance(effect, StartTimer) and effect.timer is Timer.GOSSIP]
    for _ in range(4):
        state, effects = play(state, TimerFired(Timer.GOSSIP))
        waits += [
            effect.delay_ms for effect in effects if isinstance(effect, StartTimer) and effect.timer is Timer.GOSSIP
        ]
    assert waits == [1_000, 2_000, 4_000, 8_000, 8_000]


def test_peer_that_votes_below_is_told_the_newest_header_again() -> None:
    """Its copy may be lost; but the late votes of the last height are no reason, and once a second is enough."""
    driver = Driver(CHAIN)
    before = driver.state
    driver.go_to(Phase.COMMIT)
    certificate = certify(CHAIN, before, driver.blocks[0])
    packet = encode_packet(PacketType.BLOCK, driver.blocks[0].header_bytes, certificate, driver.blocks[0].body_bytes)
    me, peer = CHAIN.miners[0].address, CHAIN.miners[1]
    answer = PacketReceived(TOPICS.miner_to(peer.address, me), packet)
    state, _ = step(build_miner(CHAIN.state), answer, Millis(5_000), NO_CLOCK)
    assert state.chain.height == 1
    vote = seal(Vote(1, 0, 1, None), CHAIN.id, peer)
    late = PacketReceived(TOPICS.miner_bft(peer.address), encode_packet(PacketType.MESSAGE, vote))
    told = []
    for now_ms in (5_010, 6_000, 6_010, 7_000):
        state, effects = step(state, late, Millis(now_ms), NO_CLOCK)
        told.append([effect.topic for effect in effects if isinstance(effect, Publish)])
    head = [TOPICS.miner_head(me)]
    assert told == [[], head, [], head]
