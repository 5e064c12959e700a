"""The same rounds, seeds and links under any consensus rule: what `flchain bench consensus` measures.

Miners are machines: `miner/core/machine.py` itself under "bft", `tools/sim/pow/machine.py` under "pow". Devices train
for a while, commit when their home's tip allows it and reveal when it has their commitment. Time is virtual and one
seed decides everything. Nothing is hashed: the wait for a seal is drawn from its exponential distribution.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import numpy as np

import miner.core.values as mv
from flchain.base import crypto
from flchain.base.crypto import Identity
from flchain.base.errors import BadSeal
from flchain.base.fixedpoint import to_fixed
from flchain.base.types import Address, Hash, Height, Millis, Round, UnixMillis
from flchain.codecs import CODECS, compute_codec_seed
from flchain.consensus.pow import (
    NONCE_BYTES,
    PowParams,
    compute_seal_hash,
    compute_target,
    compute_work,
    verify_seal,
)
from flchain.ledger.block import Block, hash_header
from flchain.ledger.state import ChainState
from flchain.wire import envelope
from flchain.wire.envelope import BODY_BYTES_MAX, HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Body, Commit, Header, Phase, Reveal, compute_update_commitment
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from miner.core import machine
from miner.core.tip import Standing
from tools.sim.chain import CODEC_LEVEL, PARAMETERS_COUNT, BuiltChain, build_chain
from tools.sim.pow import machine as pow_machine
from tools.sim.pow.values import Device, Node, Record, Setting
from tools.sim.timeline import Timeline

END_MS = 3_600_000
EVENTS_MAX = 5_000_000
TRAINING_MS = (100, 300)
SCORING_MS = (2, 30)
REPEAT_MS = 3_000
"""A device repeats a message that is in no block after this time, when the next tip arrives."""
KEPT_DEPTH = 64
HALF_LIFE_INTERVALS = 16
SALT = b"salt of 16 bytes"


def is_block(packet: bytes) -> bool:
    """Return True for a BLOCK packet: its second byte is its type, which is less than 24."""
    return packet[1] == PacketType.BLOCK


class RoundNetwork:
    """Miners and their devices on one broker."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.rng = random.Random(setting.seed)
        self.timeline = Timeline()
        self._tips = 0
        """How many tips were sent to devices: of two that arrive, the one with the larger number is newer."""
        self.record = Record()
        powers = setting.powers or tuple((5, 10, 15)[i % 3] for i in range(setting.validators))
        self.chain: BuiltChain = build_chain(
            setting.validators,
            setting.validators,
            seed=setting.seed % 256,
            powers=powers,
            proposer_rule=setting.proposer_rule,
            score_margin_bp=10_000,
            phase_heights_max=8,
        )
        self.topics = Topics.of_chain(self.chain.id)
        self.seals: dict[bytes, Hash | None] = {}
        """The nonces that the simulated search has found, each with the block that it seals."""
        self.qualities = [self.rng.randint(0, 4_000) for _ in self.chain.devices]
        self.nodes = self._build_nodes()
        self._is_counting = False
        for node in self.nodes:
            self.at(self.rng.randint(0, 50), partial(self._start, node))

    def _build_nodes(self) -> list[Node]:
        setting, validators = self.setting, self.chain.state.validators
        total = sum(validator.power for validator in validators)
        rate = setting.hashes_per_s / 1_000 * setting.validators / total  # hashes a ms and unit of power
        params = PowParams(
            setting.interval_ms,
            HALF_LIFE_INTERVALS * setting.interval_ms,
            compute_target(max(1, round(rate * total * setting.interval_ms))),
            setting.final_depth,
            KEPT_DEPTH,
        )
        nodes = []
        for number, (identity, validator) in enumerate(zip(self.chain.miners, validators, strict=True)):
            if setting.consensus == "pow":
                state: Any = pow_machine.build_pow_state(identity, self.chain.state, params, self._verify_seal)
            else:
                state = machine.build_miner_state(mv.MinerConfig(identity, setting.rounds), Standing(self.chain.state))
            node = Node(number, identity, validator.power, state, hashes_per_ms=rate * validator.power)
            nodes.append(node)
        homes = {entry.public_key: entry.home for entry in self.chain.genesis.devices}
        for number, identity in enumerate(self.chain.devices):
            home = next(node for node in nodes if node.identity.address == homes[identity.public_key])
            home.devices.append(Device(number, identity))
        return nodes

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The virtual time in ms."""
        return self.timeline.now_ms

    def at(self, delay_ms: int, do: Callable[..., None], *arguments: object) -> None:
        """Plan a call `delay_ms` from now."""
        self.timeline.at(delay_ms, do, *arguments)

    def run(self, until: Callable[[RoundNetwork], bool] | None = None, end_ms: int = END_MS) -> RoundNetwork:
        """Run until `until` (default: every miner has all rounds final); too long is a violation."""
        is_over = until or RoundNetwork.is_done
        with self._count_signatures():
            if not self.timeline.run(lambda: is_over(self), end_ms=end_ms, events_max=EVENTS_MAX):
                self.record.is_stalled = True
                self.record.violations.append("stalled")
        return self

    def is_done(self) -> bool:
        """Return True if all rounds are final at every honest miner."""
        return all(self.get_final_round(node) > self.setting.rounds for node in self.nodes if node.held is None)

    def get_final_round(self, node: Node) -> int:
        """Return the round that is open after the newest final block of this miner."""
        return node.finals[-1].header.next_round if node.finals else 1

    @contextmanager
    def _count_signatures(self) -> Iterator[None]:
        """Count what miners sign and check. Equal checks are computed once and counted every time."""
        verify, sign = lru_cache(maxsize=100_000)(crypto.verify), Identity.sign

        def count_check(public_key: bytes, message: bytes, signature: bytes) -> bool:
            self.record.counts["checks"] += self._is_counting
            return verify(public_key, message, signature)

        def count_signature(identity: Identity, message: bytes) -> bytes:
            self.record.counts["signatures"] += self._is_counting
            return sign(identity, message)

        with patch.object(envelope, "verify", count_check), patch.object(Identity, "sign", count_signature):
            yield

    # --- miners ------------------------------------------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        self.step(node, mv.Connected())
        self._tell_devices(node)

    def step(self, node: Node, event: Any) -> None:
        """Give an event to the miner's machine, and run its effects in order."""
        head = node.state.chain.head
        effects: tuple[Any, ...]
        self._is_counting = True
        if self.setting.consensus == "pow":
            node.state, effects = pow_machine.step(node.state, event, Millis(self.now))
        else:
            node.state, effects = machine.step(node.state, event, Millis(self.now), UnixMillis(self.now))
        self._is_counting = False
        for effect in effects:
            self._run_effect(node, effect)
        if node.state.chain.head != head:
            self._tell_devices(node)

    def _run_effect(self, node: Node, effect: Any) -> None:
        match effect:
            case mv.Publish(topic, packet):
                self.publish(node, topic, packet, effect.qos)
            case mv.SaveBlock(block, certificate):
                self._finalise(node, block, certificate)
            case mv.SendBlocks(topic, height, count):
                for place in range(max(0, height - 1), min(len(node.finals), height - 1 + count)):
                    block = node.finals[place]
                    fields = (block.header_bytes, node.proofs[place], block.body_bytes)
                    self.publish(node, topic, encode_packet(PacketType.BLOCK, *fields), 1)
            case mv.StartTimer(timer, delay_ms):
                token = node.timers[timer] = node.timers.get(timer, 0) + 1
                fired = mv.TimerFired(timer)
                self.at(delay_ms, lambda: self.step(node, fired) if node.timers[timer] == token else None)
            case mv.ComputeScore(round_number, subject):
                computed = mv.ScoreComputed(round_number, subject, self._score(node, subject))
                self.at(self.rng.randint(*SCORING_MS), lambda: self.step(node, computed))
            case mv.Refuse(code):
                self.record.counts[f"refused {code}"] += 1
            case pow_machine.Mine(target):
                self._mine(node, target)
            case pow_machine.Adopt(undone, _, finals_undone):
                self.record.reorg_depth_max = max(self.record.reorg_depth_max, len(undone))
                self.record.counts["reorganisations"] += bool(undone)
                if node.held is None:
                    self.record.check_undone(node.number, len(finals_undone))
                    del node.finals[len(node.finals) - len(finals_undone) :]
            case pow_machine.Finalise(blocks):
                for sealed in blocks:
                    self._finalise(node, sealed.block, sealed.seal)

    def _score(self, node: Node, subject: Address | None) -> int:
        """Return a device's quality plus a little that differs for every miner; the base model's score is constant.

        There are as many devices as miners, one for each, so no miner has an aggregate to be scored.
        """
        if subject is None:
            return 6_000
        number = next(i for i, device in enumerate(self.chain.devices) if device.address == subject)
        return 5_000 + self.qualities[number] + sha256(subject + node.identity.address).digest()[0] // 4

    def _finalise(self, node: Node, block: Block, proof: bytes) -> None:
        if node.held is not None:
            return  # what an attacker takes as final does not count
        record, header = self.record, block.header
        node.finals.append(block)
        node.proofs.append(proof)
        record.check_final(node.number, header, block.hash)
        record.final_ms.setdefault((block.hash, node.number), self.now)
        for raw in decode_struct(block.body_bytes, Body, BODY_BYTES_MAX).transactions:
            if raw in record.said_ms:
                record.spoken.setdefault(raw, []).append(self.now - record.said_ms[raw])
        if header.next_round > header.round:
            record.settled_ms.setdefault(header.round, []).append(self.now)

    # --- links -------------------------------------------------------------------------------------------------------

    def _draw_delay(self) -> int:
        links = self.setting.links
        is_slow = self.rng.random() < links.slow_share
        return self.rng.randint(*(links.slow_ms if is_slow else links.delay_ms))

    def publish(self, node: Node, topic: str, packet: bytes, qos: int) -> None:
        """Send a packet to the other miners; devices follow the tip of their home instead."""
        channel, *rest = topic.split("/")[5:]
        if channel == "body":
            return
        self._note_block(packet)
        if node.held is not None and is_block(packet):
            node.held.append((topic, packet))
            return
        for other in self.nodes:
            is_meant = other is not node and (channel != "to" or rest == [other.identity.address.hex()])
            if is_meant:
                self._send(other, topic, packet, qos)

    def _send(self, node: Node, topic: str, packet: bytes, qos: int) -> None:
        self.record.counts["messages"] += 1
        self.record.counts["bytes"] += len(topic) + len(packet)
        if qos == 0 and self.rng.random() < self.setting.links.lost_share:
            self.record.counts["lost"] += 1
            return
        event = mv.PacketReceived(topic, packet)
        self.at(self._draw_delay(), lambda: self.step(node, event) if self._is_heard(node, packet) else None)

    def _is_heard(self, node: Node, packet: bytes) -> bool:
        """Return False for blocks that reach an attacker, which follows only its own branch."""
        return node.held is None or not is_block(packet)

    def _note_block(self, packet: bytes) -> None:
        decoded = decode_packet(packet)
        if decoded.type not in (PacketType.PROPOSAL, PacketType.BLOCK):
            return
        header_bytes = decoded.fields[1 if decoded.type is PacketType.PROPOSAL else 0]
        header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
        self.record.created.setdefault(hash_header(header_bytes), (self.now, header))

    # --- the search for seals ----------------------------------------------------------------------------------------

    def _mine(self, node: Node, target: int) -> None:
        """Plan when the miner finds a seal: the search has no memory, and its mean follows from target and hashrate."""
        node.search += 1
        search = node.search
        wait_ms = max(1, round(self.rng.expovariate(node.hashes_per_ms / compute_work(target))))

        def find() -> None:
            if node.search != search:
                return
            nonce = self.rng.randbytes(NONCE_BYTES)
            self.seals[nonce] = None
            self.step(node, pow_machine.SealFound(nonce))

        self.at(wait_ms, find)

    def _verify_seal(self, block_hash: Hash, target: int, seal: bytes) -> int:
        """Replace `verify_seal` by an oracle: a nonce that was found seals the first block it is checked with."""
        if seal not in self.seals:
            verify_seal(block_hash, target, seal)
            raise BadSeal("no miner has found this nonce")
        if self.seals[seal] is None:
            self.seals[seal] = block_hash
        if self.seals[seal] != block_hash:
            raise BadSeal("the seal of another block")
        return compute_seal_hash(block_hash, seal)

    # --- devices -----------------------------------------------------------------------------------------------------

    def _tell_devices(self, node: Node) -> None:
        for device in node.devices:
            self._tips += 1
            number, tip = self._tips, node.state.chain
            self.at(self._draw_delay(), partial(self._hear_tip, device, number, tip))

    def _hear_tip(self, device: Device, number: int, tip: ChainState) -> None:
        if number < device.heard:
            return
        device.heard, device.tip = number, tip
        round_number = tip.round.number
        if round_number not in device.updates and round_number <= self.setting.rounds:
            device.updates[round_number] = None
            self.at(self.rng.randint(*TRAINING_MS), lambda: self._finish_training(device, round_number))
        self._say(device)

    def _finish_training(self, device: Device, round_number: int) -> None:
        params = self.chain.genesis.params
        noise = np.random.default_rng((device.number, round_number)).normal(0, 0.1, PARAMETERS_COUNT)
        residual = np.zeros(PARAMETERS_COUNT, np.int32)
        seed = compute_codec_seed(self.chain.id, Round(round_number), device.identity.address)
        update = CODECS[params.codec].encode(to_fixed(noise.astype(np.float32)), residual, CODEC_LEVEL, seed).payload
        device.updates[round_number] = Reveal(round_number, SALT, 100, update)
        self._say(device)

    def _say(self, device: Device) -> None:
        """Send what the tip of its home asks for, unless that was sent just now."""
        tip = device.tip
        reveal = device.updates.get(tip.round.number) if tip is not None else None
        if tip is None or reveal is None:
            return
        me, round_ = device.identity.address, tip.round
        committed = dict(round_.commits).get(me) is not None
        if round_.phase is Phase.COMMIT and not committed:
            commitment = compute_update_commitment(self.chain.id, me, reveal)
            self._tell_miners(device, Commit(round_.number, commitment, False))
        elif round_.phase is Phase.REVEAL and committed and all(other.sender != me for other in round_.reveals):
            self._tell_miners(device, reveal)

    def _tell_miners(self, device: Device, message: Commit | Reveal) -> None:
        raw = envelope.seal(message, self.chain.id, device.identity)
        if device.said_ms.get(raw, -REPEAT_MS) > self.now - REPEAT_MS:
            return
        device.said_ms[raw] = self.now
        self.record.said_ms.setdefault(raw, self.now)
        event = mv.PacketReceived(
            self.topics.device_up(device.identity.address), encode_packet(PacketType.MESSAGE, raw)
        )
        for node in self.nodes:
            self.at(self._draw_delay(), partial(self.step, node, event))

    def get_height(self) -> Height:
        """Return the greatest height that is final at every honest miner."""
        return Height(min(len(node.finals) for node in self.nodes if node.held is None))
