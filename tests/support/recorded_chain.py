"""Chains as they were recorded: the form of the files in tests/vectors/recorded, and the driver that makes them.

A file holds only bytes: genesis, first model, and for each height what travelled (header, body, certificate, where the
validators change both sets, where a round is settled the light body) beside what came of it (hash, head, state root,
model hash, and the SHA-256 of the whole state's canonical bytes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flchain.base.crypto import Identity
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import ModelVector, Round, UnixMillis, View
from flchain.codecs import CODECS, compute_codec_seed
from flchain.ledger.block import Block, is_settling
from flchain.ledger.certificate import trim_certificate
from flchain.ledger.genesis import encode_genesis
from flchain.ledger.snapshot import encode_state
from flchain.ledger.state import ChainState
from flchain.ledger.state_tree import compute_state_root
from flchain.light.body import build_light_body
from flchain.light.trust import encode_sets
from flchain.rules.blocks import apply_block, build_block, get_proposer
from flchain.rules.scores import get_homes
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct
from flchain.wire.messages import Body, Phase, Reveal, ScoreReveal
from tests.support.builders.chain import (
    BASE_SCORE,
    PARAMETERS_COUNT,
    SALT,
    certify,
    open_all,
    seal_commit,
    seal_reveal,
    seal_score_commit_of,
    seal_score_reveal_of,
)
from tests.support.builders.stake import StakeDriver

FOLDER = Path(__file__).parents[1] / "vectors" / "recorded"
BLOCK_MS = 61_007
"""Between two blocks."""
Gains = Mapping[bytes, int]
"""What a scorer finds better or worse than the base model, by device or miner, in basis points."""


@dataclass(frozen=True)
class RecordedBlock:
    """One height: what travelled, and what came of it."""

    header: bytes
    body: bytes
    certificate: bytes
    sets: bytes
    light_body: bytes
    hash: bytes
    head: bytes
    state_root: bytes
    model_hash: bytes
    state_digest: bytes


@dataclass(frozen=True)
class RecordedChain:
    """A chain from its genesis on."""

    chain: bytes
    genesis: bytes
    model: bytes
    blocks: tuple[RecordedBlock, ...]


def dump_recorded(recorded: RecordedChain) -> str:
    """The content of a file: one line for each height."""
    lines = (json.dumps({name: value.hex() for name, value in vars(block).items()}) for block in recorded.blocks)
    first = {"chain": recorded.chain.hex(), "genesis": recorded.genesis.hex(), "model": recorded.model.hex()}
    return json.dumps(first)[:-1] + ',\n"blocks": [\n' + ",\n".join(lines) + "\n]}\n"


def load_recorded(name: str) -> RecordedChain:
    """The chain of a file."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    blocks = tuple(
        RecordedBlock(**{name: bytes.fromhex(text) for name, text in block.items()}) for block in content["blocks"]
    )
    chain, genesis, model = (bytes.fromhex(content[name]) for name in ("chain", "genesis", "model"))
    return RecordedChain(chain, genesis, model, blocks)


def digest_state(state: ChainState) -> bytes:
    """A digest of everything a state holds, by a hash that is not the chain's own."""
    return hashlib.sha256(encode_state(state) + state.payload).digest()


def make_delta(number: int, round_: int) -> ModelVector:
    """A device's change of the model, small and large values of both signs, from an integer recurrence."""
    register, values = 7_919 * number + 104_729 * round_ + 1, []
    for _ in range(PARAMETERS_COUNT):
        register = (1_103_515_245 * register + 12_345) % 2**31
        values.append((register - 2**30) >> (12 + (register >> 9) % 6))
    return np.array(values, dtype=np.int32)


@dataclass
class ChainRecorder(StakeDriver):
    """A driver that writes down what travels, and whose scorers each have an opinion of their own."""

    recorded: list[RecordedBlock] = field(default_factory=list)

    def record(self) -> RecordedChain:
        """Everything so far."""
        chain = self.chain
        return RecordedChain(chain.id, encode_genesis(chain.genesis), encode_vector(chain.model), tuple(self.recorded))

    def extend(self, transactions: Iterable[bytes] = (), orders: Iterable[bytes] = (), clock_ms: int = 0) -> Block:
        """Make, check, append and write down a block. Every third certificate is as short as it may be."""
        before = self.state
        height = before.height + 1
        view = View(height % 5 // 4)
        clock = UnixMillis(max(clock_ms, before.time_ms + BLOCK_MS))
        letters = open_all(transactions, before.chain), open_all(orders, before.chain)
        block, _ = build_block(before, get_proposer(before, view), *letters, clock)
        _, after = apply_block(before, block.header_bytes, block.body_bytes)
        certificate = certify(self.chain, before, block, self.seated, view)
        if height % 3 == 0:
            certificate = trim_certificate(before.validators, certificate)
        self.blocks.append(block)
        self.certificates.append(certificate)
        self.states.append(after)
        header = block.header
        is_change = header.validators_hash != header.next_validators_hash
        body = decode_struct(block.body_bytes, Body, BODY_BYTES_MAX)
        self.recorded.append(
            RecordedBlock(
                header=block.header_bytes,
                body=block.body_bytes,
                certificate=certificate,
                sets=encode_sets(before.validators, after.validators) if is_change else b"",
                light_body=build_light_body(body, after.payload) if is_settling(header) else b"",
                hash=block.hash,
                head=after.head,
                state_root=compute_state_root(after),
                model_hash=after.model_hash,
                state_digest=digest_state(after),
            )
        )
        return block

    def train(self, numbers: Iterable[int]) -> dict[int, Reveal]:
        """What these devices trained in the open round."""
        params, round_, made = self.chain.genesis.params, self.state.round.number, {}
        for number in numbers:
            seed = compute_codec_seed(self.chain.id, Round(round_), self.chain.devices[number].address)
            delta = make_delta(number, round_)
            encoded = CODECS[params.codec].encode(delta, np.zeros_like(delta), params.codec_level, seed)
            made[number] = Reveal(round_, SALT, 50 + 137 * number + 11 * round_, encoded.payload)
        return made

    def say_commits(self, reveals: Mapping[int, Reveal], pledged: Iterable[int] = ()) -> list[bytes]:
        """Commitments of these devices."""
        return [seal_commit(self.chain, i, reveal, i in pledged) for i, reveal in reveals.items()]

    def say_reveals(self, reveals: Mapping[int, Reveal]) -> list[bytes]:
        """Updates of these devices."""
        return [seal_reveal(self.chain, i, reveal) for i, reveal in reveals.items()]

    def judge(self, scorer: Identity, gains: Gains) -> ScoreReveal:
        """What a scorer says: the gains, and a little of its own that its address gives."""
        own = scorer.address[0] % 16
        base = BASE_SCORE + 3 * own
        listed = tuple((u.sender, base + gains.get(u.sender, 40) + own) for u in self.state.round.reveals)
        homes = tuple((home, base + gains.get(home, 60) - own) for home in get_homes(self.state))
        return ScoreReveal(self.state.round.number, SALT, base, listed, homes)

    def list_scorers(self, silent: Iterable[int] = (), mining: Iterable[int] = ()) -> list[Identity]:
        """The miners with a seat except those in `silent`, and the devices `mining`."""
        seated = [self.chain.miners[i] for i in self.seated if i not in set(silent)]
        return seated + [self.chain.devices[i] for i in mining]

    def say_score_commits(self, scorers: Iterable[Identity], gains: Mapping[Identity, Gains]) -> list[bytes]:
        """Commitments to the scores of these."""
        return [seal_score_commit_of(self.chain, s, self.judge(s, gains.get(s, {}))) for s in scorers]

    def say_score_reveals(self, scorers: Iterable[Identity], gains: Mapping[Identity, Gains]) -> list[bytes]:
        """Scores of these."""
        return [seal_score_reveal_of(self.chain, s, self.judge(s, gains.get(s, {}))) for s in scorers]

    def learn(
        self,
        devices: Iterable[int],
        *,
        mining: Iterable[int] = (),
        broken: Iterable[int] = (),
        silent: Iterable[int] = (),
        gains: Gains | None = None,
        odd: Mapping[Identity, Gains] | None = None,
        orders: Mapping[Phase, list[bytes]] | None = None,
    ) -> None:
        """The open round, to its settlement.

        Devices `mining` score too, those with a `broken` pledge and miners `silent` do not; all find `gains`, those in
        `odd` something else. `orders` ride along in the first block of a phase.
        """
        mining, silent, riding = list(mining), list(silent), dict(orders or {})
        reveals = self.train(devices)
        said: dict[Identity, Gains] = dict.fromkeys([*self.chain.miners, *self.chain.devices], gains or {})
        said |= odd or {}
        number = self.state.round.number
        while self.state.round.number == number:
            phase = self.state.round.phase
            is_first = self.state.round.heights == 0
            match phase if is_first else None:
                case Phase.COMMIT:
                    transactions = self.say_commits(reveals, [*mining, *broken])
                case Phase.REVEAL:
                    transactions = self.say_reveals(reveals)
                case Phase.SCORE:
                    transactions = self.say_score_commits(self.list_scorers(silent, mining), said)
                case Phase.SETTLE:
                    transactions = self.say_score_reveals(self.list_scorers(silent, mining), said)
                case _:
                    transactions = []
            self.extend(transactions, riding.pop(phase, []) if is_first else [])
