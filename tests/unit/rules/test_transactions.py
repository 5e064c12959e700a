"""Which transactions a block may carry, and every one that breaks a rule."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from flchain.base.errors import (
    BadCommitment,
    BadSignature,
    DuplicateMessage,
    InvalidBlock,
    InvalidMessage,
    MalformedMessage,
    MalformedUpdate,
    UnknownSender,
    WrongChain,
    WrongRound,
)
from flchain.ledger.limits import TRANSACTION_FRAME_BYTES
from flchain.rules import blocks as rules
from flchain.rules.blocks import select_transactions
from flchain.rules.phases import get_present, is_phase_complete
from flchain.wire.envelope import seal
from flchain.wire.messages import Commit, Phase, ScoreCommit, compute_update_commitment
from tests.support.builders.chain import (
    Driver,
    build_chain,
    build_identity,
    make_reveal,
    make_scores,
    open_all,
    seal_commit,
    seal_reveal,
    seal_score_commit,
    seal_score_reveal,
)
from tests.support.builders.wire import build_word
from tests.support.chain_checks import apply, open_chain, phase_of


@pytest.fixture
def driver() -> Driver:
    """A chain that waits for the commitments of its first round."""
    return open_chain()


# ----------------------------------------------------------------------------------------- transactions


def test_transactions_are_in_order_and_once(driver: Driver) -> None:
    """Transactions out of order of their senders, or one sender's twice, make a block invalid."""
    first, second = (seal_commit(driver.chain, i, make_reveal(driver.chain, i)) for i in (0, 1))
    again = seal(Commit(1, b"c" * 32, False), driver.chain.id, driver.chain.devices[0])
    for listed in ((second, first), (first, first), (first, again)):
        with pytest.raises(InvalidBlock, match="order"):
            apply(driver.state, *listed)


def test_a_second_commitment_in_a_later_block_is_a_duplicate(driver: Driver) -> None:
    """A device that has committed may not commit again, to the same or to something else."""
    driver.commit({0: make_reveal(driver.chain, 0)})
    for raw in (
        seal_commit(driver.chain, 0, make_reveal(driver.chain, 0)),
        seal(Commit(1, b"c" * 32, False), driver.chain.id, driver.chain.devices[0]),
    ):
        with pytest.raises(DuplicateMessage):
            apply(driver.state, raw)


def test_each_phase_takes_its_own_kind_only() -> None:
    """In every phase, the first block included, a signed message of any other phase's kind makes a block invalid."""
    driver = Driver(build_chain())
    made = make_reveal(driver.chain, 0)
    word = make_scores(driver.state)
    kinds: dict[Phase, bytes] = {
        Phase.COMMIT: seal_commit(driver.chain, 0, made),
        Phase.REVEAL: seal_reveal(driver.chain, 0, made),
        Phase.SCORE: seal_score_commit(driver.chain, 0, word),
        Phase.SETTLE: seal_score_reveal(driver.chain, 0, word),
    }
    status = seal(build_word(), driver.chain.id, driver.chain.devices[0])
    driver.run_round()
    for state in driver.states[:5]:
        for phase, raw in kinds.items():
            if phase is not state.round.phase:
                with pytest.raises(InvalidBlock, match="phase"):
                    apply(state, raw)
        with pytest.raises(InvalidBlock, match="STATUS"):
            apply(state, status)


def test_senders_are_known_in_their_role(driver: Driver) -> None:
    """A stranger, and a miner in a device's role, are unknown senders; a device may score as well."""
    commit = Commit(1, b"c" * 32, False)
    for sender in (build_identity(77, 7), driver.chain.miners[0]):
        with pytest.raises(UnknownSender):
            apply(driver.state, seal(commit, driver.chain.id, sender))
    driver.go_to(Phase.SCORE)
    scores = ScoreCommit(1, b"c" * 32)
    with pytest.raises(UnknownSender):
        apply(driver.state, seal(scores, driver.chain.id, build_identity(77, 7)))
    driver.extend([seal(scores, driver.chain.id, driver.chain.devices[0])])
    assert driver.state.round.score_commits == ((driver.chain.devices[0].address, b"c" * 32),)


@pytest.mark.parametrize("number", [0, 2, 2**53])
def test_another_rounds_commitment(driver: Driver, number: int) -> None:
    """A commitment for a past or coming round is refused."""
    with pytest.raises(WrongRound):
        apply(driver.state, seal(Commit(number, b"c" * 32, False), driver.chain.id, driver.chain.devices[0]))


def test_signature_and_chain_of_transactions(driver: Driver) -> None:
    """A transaction of another chain, or with a signature that is not its sender's, makes a block invalid."""
    raw = seal_commit(driver.chain, 0, make_reveal(driver.chain, 0))
    with pytest.raises(BadSignature):
        apply(driver.state, raw[:-1] + bytes((raw[-1] ^ 1,)))
    with pytest.raises(WrongChain):
        apply(driver.state, seal(Commit(1, b"c" * 32, False), b"x" * 32, driver.chain.devices[0]))
    with pytest.raises(InvalidMessage):
        apply(driver.state, b"junk")


def test_a_copied_commitment_cannot_be_opened(driver: Driver) -> None:
    """A device that copies another's commitment cannot open it, though it sends the very same update."""
    made = make_reveal(driver.chain, 0)
    original = compute_update_commitment(driver.chain.id, driver.chain.devices[0].address, made)
    driver.extend(
        [
            seal(Commit(1, original, False), driver.chain.id, driver.chain.devices[0]),
            seal(Commit(1, original, False), driver.chain.id, driver.chain.devices[1]),
            seal_commit(driver.chain, 2, make_reveal(driver.chain, 2)),
        ]
    )
    assert phase_of(driver) is Phase.REVEAL
    with pytest.raises(BadCommitment):
        apply(driver.state, seal_reveal(driver.chain, 1, made))
    driver.reveal({0: made})


def test_an_update_opens_its_own_commitment_only(driver: Driver) -> None:
    """Another salt, another claim of samples, another update, or an update that was not committed is refused."""
    made = make_reveal(driver.chain, 0)
    driver.commit({0: made})
    driver.extend()
    changed = (
        msgspec.structs.replace(made, salt=b"x" * 16),
        msgspec.structs.replace(made, samples=made.samples + 1),
        msgspec.structs.replace(made, update=make_reveal(driver.chain, 1).update),
    )
    for reveal in changed:
        with pytest.raises(BadCommitment):
            apply(driver.state, seal_reveal(driver.chain, 0, reveal))
    with pytest.raises(BadCommitment):
        apply(driver.state, seal_reveal(driver.chain, 1, make_reveal(driver.chain, 1)))


@pytest.mark.parametrize("damage", [lambda u: b"", lambda u: u[:-1], lambda u: u + b"\0", lambda u: b"\xff" * len(u)])
def test_a_malformed_payload_is_refused_though_committed(driver: Driver, damage: Callable[[bytes], bytes]) -> None:
    """An update that no codec could have written is refused, though it opens its commitment."""
    made = make_reveal(driver.chain, 0)
    made = msgspec.structs.replace(made, update=damage(made.update))
    driver.commit({0: made})
    driver.extend()
    with pytest.raises(MalformedUpdate):
        apply(driver.state, seal_reveal(driver.chain, 0, made))


def test_scores_open_their_commitment_and_name_each_update() -> None:
    """Changed scores, another's commitment, and scores that leave out, repeat or reorder updates are refused."""
    driver = Driver(build_chain())
    driver.go_to(Phase.SCORE)
    good = make_scores(driver.state)
    entries = good.scores
    wrong = [entries[:-1], (*entries, entries[-1]), entries[::-1], (), ((b"z" * 20, 1), *entries[1:])]
    forms = [msgspec.structs.replace(good, scores=tuple(listed)) for listed in wrong]
    words = {0: good, 1: forms[0], 2: forms[1], 3: forms[2]}
    driver.score_commit(words)
    for number in (1, 2, 3):
        with pytest.raises(MalformedMessage):
            apply(driver.state, seal_score_reveal(driver.chain, number, words[number]))
    better = make_scores(driver.state, scores={driver.chain.devices[0].address: 9_999})
    for number, word in ((0, better), (1, good), (0, forms[3]), (0, forms[4])):
        with pytest.raises(BadCommitment):
            apply(driver.state, seal_score_reveal(driver.chain, number, word))
    driver.score_reveal({0: good})


# --------------------------------------------------------------------------------------------- selection


def test_select_transactions_keeps_what_a_block_may_carry(driver: Driver) -> None:
    """Of good, repeated, foreign and stale candidates exactly the good ones are chosen, and make a valid block."""
    good = [seal_commit(driver.chain, i, make_reveal(driver.chain, i)) for i in (2, 0)]
    bad = [
        good[0],
        seal_reveal(driver.chain, 1, make_reveal(driver.chain, 1)),
        seal(Commit(9, b"c" * 32, False), driver.chain.id, driver.chain.devices[1]),
        seal(Commit(1, b"c" * 32, False), driver.chain.id, build_identity(77, 7)),
    ]
    chosen = [said.raw for said in select_transactions(driver.state, open_all([*good, *bad], driver.chain.id))]
    assert sorted(chosen) == sorted(good)
    driver.extend(chosen)
    assert get_present(driver.state) == {driver.chain.devices[i].address for i in (0, 2)}
    assert not is_phase_complete(driver.state)


def test_a_body_never_grows_beyond_its_limit(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of transactions that do not fit into one body only the first are chosen; the rest stay for later."""
    listed = [seal_commit(driver.chain, i, make_reveal(driver.chain, i)) for i in range(3)]
    limit = 2 * (len(listed[0]) + TRANSACTION_FRAME_BYTES)
    monkeypatch.setattr(rules, "TRANSACTIONS_BYTES_MAX", limit)
    letters = open_all(listed, driver.chain.id)
    chosen = [said.raw for said in select_transactions(driver.state, letters)]
    assert chosen == listed[:2]
    driver.extend(chosen)
    assert [said.raw for said in select_transactions(driver.state, letters)] == [listed[2]]
