"""The chain's rules: rounds from commitment to settlement, and every block or transaction that breaks a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from flchain import chain as rules
from flchain.chain import (
    apply_block,
    build_block,
    compute_body_root,
    decode_block,
    get_proposer,
    is_phase_complete,
    is_phase_over,
    select_transactions,
)
from flchain.errors import (
    BadCommitment,
    BadSignature,
    ConfigError,
    DuplicateMessage,
    InvalidBlock,
    InvalidMessage,
    MalformedMessage,
    MalformedUpdate,
    UnknownSender,
    WrongChain,
    WrongRound,
)
from flchain.genesis import Genesis, decode_genesis, encode_genesis
from flchain.messages import (
    Body,
    Commit,
    DeviceEntry,
    Header,
    Phase,
    ScoreCommit,
    Settlement,
    Status,
    compute_update_commitment,
)
from flchain.state import (
    ChainState,
    build_genesis_state,
    compute_state_root,
    find_device,
    find_validator,
    get_expected,
    get_present,
)
from flchain.types import View
from flchain.wire import encode_struct, seal
from tests.support.chain_builder import (
    BuiltChain,
    Driver,
    build_chain,
    build_identity,
    make_reveal,
    make_scores,
    replace_header,
    seal_commit,
    seal_reveal,
    seal_score_commit,
    seal_score_reveal,
)


@pytest.fixture
def driver() -> Driver:
    """A chain that waits for the commitments of its first round."""
    made = Driver(build_chain())
    made.open()
    return made


def forge_block(state: ChainState, transactions: tuple[bytes, ...], settlement: Settlement | None = None):
    """A block of any transactions in any order, with a header that is right but for what follows from them."""
    block, _ = build_block(state, state.validators[0].address, ())
    body = Body(transactions, settlement)
    return replace_header(block, body_root=compute_body_root(body)), encode_struct(body)


def apply(state: ChainState, *transactions: bytes) -> None:
    apply_block(state, *forge_block(state, transactions))


def phase_of(driver: Driver) -> Phase:
    return driver.state.round.phase


def replay(driver: Driver) -> ChainState:
    state = build_genesis_state(driver.chain.genesis, driver.chain.model)
    for block in driver.blocks:
        _, state = apply_block(state, block.header_bytes, block.body_bytes)
    return state


# ------------------------------------------------------------------------------------------------ rounds


@pytest.mark.parametrize("codec", ["sparse-ternary", "identity"])
def test_a_full_round(codec: str) -> None:
    """A round goes through its four phases, changes the model, pays each accepted update and opens the next round."""
    driver = Driver(build_chain(codec=codec))
    driver.run_round()
    assert [block.header.phase for block in driver.blocks] == list(Phase)
    assert [block.header.next_phase for block in driver.blocks] == [*list(Phase)[1:], Phase.COMMIT]
    assert [block.header.round for block in driver.blocks] == [1] * 5
    last = driver.blocks[-1].header
    assert (last.next_round, last.model_hash) == (2, driver.state.model_hash)
    assert driver.state.model_hash != driver.chain.state.model_hash
    assert [device.balance for device in driver.state.devices] == [100, 100, 100]
    assert driver.state.minted == 300


def test_replay_gives_the_same_root() -> None:
    """A node that replays the blocks from the genesis has the same state root, model and head after each of them."""
    driver = Driver(build_chain())
    for devices in (None, [0], [1, 2]):
        driver.run_round(devices)
    again = replay(driver)
    assert compute_state_root(again) == compute_state_root(driver.state) == driver.blocks[-1].header.state_root
    assert again.head == driver.state.head == driver.blocks[-1].hash
    assert again.model.tolist() == driver.state.model.tolist()


@pytest.mark.parametrize("rule", ["pok", "pos"])
@pytest.mark.parametrize("reward", ["per-update", "by-samples"])
def test_balances_conserve(rule: str, reward: str) -> None:
    """Whatever the rules, all balances together are exactly what was minted."""
    driver = Driver(build_chain(proposer_rule=rule, reward_rule=reward, reward_per_update=101))
    for devices in (None, [0, 2], [1]):
        driver.run_round(devices)
        assert sum(device.balance for device in driver.state.devices) == driver.state.minted > 0


def test_proposers_take_turns(driver: Driver) -> None:
    """Of equal miners everybody's turn comes over heights and over views, by the state alone."""
    driver = Driver(build_chain(proposer_rule="pos"))
    leaders = []
    for _ in range(8):
        leaders.append(get_proposer(driver.state, View(0)))
        driver.extend()
    miners = {miner.address for miner in driver.chain.miners}
    assert set(leaders[:4]) == set(leaders[4:]) == miners
    assert {get_proposer(driver.state, View(view)) for view in range(4)} == miners
    assert get_proposer(driver.state, View(1)) == get_proposer(driver.states[-1], View(1))


# ---------------------------------------------------------------------------------------- phases closing


def test_a_phase_waits_for_a_first_commitment(driver: Driver) -> None:
    """Without any commitment the phase stays open however many blocks pass."""
    for _ in range(6):
        driver.extend()
    assert phase_of(driver) is Phase.COMMIT
    assert driver.state.round.number == 1


def test_a_phase_closes_when_all_have_come() -> None:
    """Commitments may come over several blocks; the phase closes with the last one's block, and no sooner."""
    driver = Driver(build_chain(phase_heights_max=5))
    driver.open()
    for number in range(3):
        assert phase_of(driver) is Phase.COMMIT
        driver.commit({number: make_reveal(driver.chain, number)})
    assert phase_of(driver) is Phase.REVEAL


def test_a_phase_closes_after_its_heights_without_the_missing(driver: Driver) -> None:
    """With one commitment only, the phase closes once its heights are used up, and waits for that device alone."""
    driver.commit({0: make_reveal(driver.chain, 0)})
    assert phase_of(driver) is Phase.COMMIT
    assert not is_phase_over(driver.state)
    driver.extend()
    assert phase_of(driver) is Phase.REVEAL
    assert get_expected(driver.state) == {driver.chain.devices[0].address}


def test_scorers_need_more_than_two_thirds() -> None:
    """The scoring phase does not close with half of the power while its heights last; it does with three quarters."""
    driver = Driver(build_chain(phase_heights_max=2))
    driver.go_to(Phase.SCORE)
    word = make_scores(driver.state)
    driver.score_commit({0: word, 1: word})
    for _ in range(2):
        driver.extend()
    assert phase_of(driver) is Phase.SCORE
    driver.score_commit({2: word})
    assert phase_of(driver) is Phase.SETTLE


def test_a_round_that_too_few_score_is_abandoned() -> None:
    """With half of the power silent for twice the phase's heights the next round opens on the same model, unpaid."""
    driver = Driver(build_chain(phase_heights_max=2))
    driver.go_to(Phase.SCORE)
    before = driver.state
    driver.score_commit({0: make_scores(before), 1: make_scores(before)})
    while driver.state.round.number == before.round.number:
        assert driver.state.height < before.height + 4, "abandoned after twice its two heights"
        driver.extend()
    assert phase_of(driver) is Phase.COMMIT
    assert (driver.state.model_hash, driver.state.minted) == (before.model_hash, before.minted)


def test_late_devices_are_not_waited_for() -> None:
    """A device that missed the allowed rounds is not waited for, may come back, and is then waited for again."""
    driver = Driver(build_chain(absent_rounds_max=2, phase_heights_max=3))
    for absent in (1, 2):
        driver.run_round([0, 1])
        device = find_device(driver.state, driver.chain.devices[2].address)
        assert device is not None
        assert device.absent == absent
    assert get_expected(driver.state) == {driver.chain.devices[0].address, driver.chain.devices[1].address}
    number, height = driver.state.round.number, driver.state.height
    driver.commit({i: make_reveal(driver.chain, i, number) for i in (0, 1)})
    assert (driver.state.round.phase, driver.state.height) == (Phase.REVEAL, height + 1)
    driver.reveal({i: make_reveal(driver.chain, i, number) for i in (0, 1)})
    words = {i: make_scores(driver.state) for i in range(4)}
    driver.score_commit(words)
    driver.score_reveal(words)
    driver.run_round()
    assert len(get_expected(driver.state)) == 3


def test_a_round_without_updates_is_abandoned() -> None:
    """If nobody reveals, the round ends after twice its heights with the same model and balances."""
    driver = Driver(build_chain())
    driver.run_round()
    before = driver.state
    driver.go_to(Phase.REVEAL)
    for _ in range(2 * driver.state.params.phase_heights_max):
        assert driver.state.round.number == 2
        driver.extend()
    after = driver.state
    assert (after.round.number, after.round.phase) == (3, Phase.COMMIT)
    assert (after.model_hash, after.minted) == (before.model_hash, before.minted)
    assert [d.balance for d in after.devices] == [d.balance for d in before.devices]
    assert [d.absent for d in after.devices] == [1, 1, 1]
    driver.run_round()
    assert driver.state.minted == before.minted + 300


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_round_with_too_few_scores_is_abandoned(count: int) -> None:
    """If scores of at most two thirds of the power are revealed, the round ends without model, reward or judgement."""
    driver = Driver(build_chain())
    driver.go_to(Phase.SETTLE)
    if count:
        driver.score_reveal({i: make_scores(driver.state) for i in range(count)})
    while driver.state.round.number == 1:
        driver.extend()
    assert driver.state.model_hash == driver.chain.state.model_hash
    assert driver.state.minted == 0
    assert driver.state.devices == driver.chain.state.devices
    assert [v.knowledge for v in driver.state.validators] == [v.knowledge for v in driver.chain.state.validators]


# ---------------------------------------------------------------------------------------------- headers


def other_headers(header: Header, chain: BuiltChain) -> dict[str, tuple[object, ...]]:
    other = b"x" * 32
    return {
        "chain": (other,),
        "height": (header.height + 1, header.height - 1, 2**53),
        "round": (header.round + 1, 0),
        "phase": tuple(set(Phase) - {header.phase}),
        "next_round": (header.next_round + 1, 0),
        "next_phase": tuple(set(Phase) - {header.next_phase}),
        "previous": (other, chain.id),
        "proposer": (chain.devices[0].address, b"p" * 20),
        "body_root": (other,),
        "state_root": (other,),
        "model_hash": (other,),
        "validators_hash": (other,),
        "next_validators_hash": (other,),
    }


def test_every_header_field_is_checked() -> None:
    """In each phase a header with any one field changed is refused."""
    driver = Driver(build_chain())
    driver.run_round()
    for before, block in zip(driver.states[1:-1], driver.blocks[1:], strict=True):
        others = other_headers(block.header, driver.chain)
        assert set(others) == set(block.header.__struct_fields__) - {"version"}
        for name, values in others.items():
            for value in values:
                with pytest.raises(WrongRound if name == "height" else InvalidBlock):
                    apply_block(before, replace_header(block, **{name: value}), block.body_bytes)
    with pytest.raises(MalformedMessage):
        apply_block(driver.states[0], replace_header(driver.blocks[0], version=2), driver.blocks[0].body_bytes)


def test_a_block_fits_one_place() -> None:
    """A block applied again, too early, or to another chain is refused."""
    driver = Driver(build_chain())
    driver.run_round()
    for place, block in enumerate(driver.blocks):
        for at, state in enumerate(driver.states):
            if at != place:
                with pytest.raises(WrongRound):
                    apply_block(state, block.header_bytes, block.body_bytes)
    twin = build_chain(reward_per_update=7)
    with pytest.raises(InvalidBlock):
        apply_block(twin.state, driver.blocks[0].header_bytes, driver.blocks[0].body_bytes)


def test_another_body_is_refused(driver: Driver) -> None:
    """A header with another block's body is refused, and so is a body with a settlement of its own making."""
    block = driver.commit({0: make_reveal(driver.chain, 0)})
    for body in (driver.blocks[0].body_bytes, encode_struct(Body((), Settlement(())))):
        with pytest.raises(InvalidBlock):
            decode_block(block.header_bytes, body)
    for settlement in (Settlement(()), Settlement((driver.chain.devices[0].address,))):
        with pytest.raises(InvalidBlock, match="settlement"):
            apply_block(driver.state, *forge_block(driver.state, (), settlement))


def test_no_other_settlement_than_the_scores_give() -> None:
    """The block that ends a round is refused without a settlement, and with one update more or less accepted."""
    driver = Driver(build_chain())
    driver.go_to(Phase.SETTLE)
    words = tuple(seal_score_reveal(driver.chain, i, make_scores(driver.state)) for i in range(4))
    addresses = tuple(device.address for device in driver.chain.devices)
    for settlement in (None, Settlement(()), Settlement(addresses[:2]), Settlement(addresses[::-1])):
        with pytest.raises(InvalidBlock, match="settlement"):
            apply_block(driver.state, *forge_block(driver.state, words, settlement))
    driver.extend(words)
    assert driver.state.round.number == 2


# ----------------------------------------------------------------------------------------- transactions


def test_transactions_are_in_order_and_once(driver: Driver) -> None:
    """Transactions out of order of their senders, or one sender's twice, make a block invalid."""
    first, second = (seal_commit(driver.chain, i, make_reveal(driver.chain, i)) for i in (0, 1))
    again = seal(Commit(1, b"c" * 32), driver.chain.id, driver.chain.devices[0])
    for listed in ((second, first), (first, first), (first, again)):
        with pytest.raises(InvalidBlock, match="order"):
            apply(driver.state, *listed)


def test_a_second_commitment_in_a_later_block_is_a_duplicate(driver: Driver) -> None:
    """A device that has committed may not commit again, to the same or to something else."""
    driver.commit({0: make_reveal(driver.chain, 0)})
    for raw in (
        seal_commit(driver.chain, 0, make_reveal(driver.chain, 0)),
        seal(Commit(1, b"c" * 32), driver.chain.id, driver.chain.devices[0]),
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
    status = seal(Status(1, b"m" * 32, False, 0, 0, 0), driver.chain.id, driver.chain.devices[0])
    driver.run_round()
    for state in driver.states[:5]:
        for phase, raw in kinds.items():
            if phase is not state.round.phase:
                with pytest.raises(InvalidBlock, match="phase"):
                    apply(state, raw)
        with pytest.raises(InvalidBlock, match="STATUS"):
            apply(state, status)


def test_senders_are_known_in_their_role(driver: Driver) -> None:
    """A stranger, and a miner in a device's role, are unknown senders; so is a device in a scorer's."""
    commit = Commit(1, b"c" * 32)
    for sender in (build_identity(77, 7), driver.chain.miners[0]):
        with pytest.raises(UnknownSender):
            apply(driver.state, seal(commit, driver.chain.id, sender))
    driver.go_to(Phase.SCORE)
    scores = ScoreCommit(1, b"c" * 32)
    with pytest.raises(UnknownSender):
        apply(driver.state, seal(scores, driver.chain.id, driver.chain.devices[0]))


@pytest.mark.parametrize("number", [0, 2, 2**53])
def test_another_rounds_commitment(driver: Driver, number: int) -> None:
    """A commitment for a past or coming round is refused."""
    with pytest.raises(WrongRound):
        apply(driver.state, seal(Commit(number, b"c" * 32), driver.chain.id, driver.chain.devices[0]))


def test_signature_and_chain_of_transactions(driver: Driver) -> None:
    """A transaction of another chain, or with a signature that is not its sender's, makes a block invalid."""
    raw = seal_commit(driver.chain, 0, make_reveal(driver.chain, 0))
    with pytest.raises(BadSignature):
        apply(driver.state, raw[:-1] + bytes((raw[-1] ^ 1,)))
    with pytest.raises(WrongChain):
        apply(driver.state, seal(Commit(1, b"c" * 32), b"x" * 32, driver.chain.devices[0]))
    with pytest.raises(InvalidMessage):
        apply(driver.state, b"junk")


def test_a_copied_commitment_cannot_be_opened(driver: Driver) -> None:
    """A device that copies another's commitment cannot open it, though it sends the very same update."""
    made = make_reveal(driver.chain, 0)
    original = compute_update_commitment(driver.chain.id, driver.chain.devices[0].address, made)
    driver.extend(
        [
            seal(Commit(1, original), driver.chain.id, driver.chain.devices[0]),
            seal(Commit(1, original), driver.chain.id, driver.chain.devices[1]),
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
        seal(Commit(9, b"c" * 32), driver.chain.id, driver.chain.devices[1]),
        seal(Commit(1, b"c" * 32), driver.chain.id, build_identity(77, 7)),
    ]
    chosen, after = select_transactions(driver.state, [*good, *bad])
    assert set(chosen) == set(good)
    assert get_present(after) == {driver.chain.devices[i].address for i in (0, 2)}
    assert not is_phase_complete(after)
    driver.extend(chosen)


def test_a_body_never_grows_beyond_its_limit(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of transactions that do not fit into one body only the first are chosen; the rest stay for later."""
    listed = [seal_commit(driver.chain, i, make_reveal(driver.chain, i)) for i in range(3)]
    limit = rules.BODY_BYTES_RESERVED + 2 * (len(listed[0]) + rules.TRANSACTION_FRAME_BYTES)
    monkeypatch.setattr(rules, "BODY_BYTES_MAX", limit)
    chosen, _ = select_transactions(driver.state, listed)
    assert chosen == tuple(listed[:2])
    driver.extend(chosen)
    assert select_transactions(driver.state, listed)[0] == (listed[2],)


# ------------------------------------------------------------------------------------------------- state


def test_the_state_root_covers_everything(driver: Driver) -> None:
    """Any change to a device, validator, the round, the model's hash or what was minted changes the state root."""
    driver.go_to(Phase.SETTLE)
    state = driver.state
    device, validator = state.devices[0], state.validators[0]
    changed = [
        *(
            replace(state, devices=(replace(device, **change), *state.devices[1:]))
            for change in ({"balance": 1}, {"reputation": 1}, {"absent": 9}, {"home": b"h" * 20}, {"public_key": b"k"})
        ),
        *(
            replace(state, validators=(replace(validator, **change), *state.validators[1:]))
            for change in ({"power": 1}, {"knowledge": 1}, {"absent": 9}, {"priority": 99}, {"public_key": b"k"})
        ),
        *(
            replace(state, round=replace(state.round, **change))
            for change in (
                {"number": 9},
                {"phase": Phase.SCORE},
                {"heights": 9},
                {"commits": ()},
                {"reveals": ()},
                {"score_commits": ()},
                {"reveals": (replace(state.round.reveals[0], samples=9), *state.round.reveals[1:])},
                {"reveals": (replace(state.round.reveals[0], update=b"u"), *state.round.reveals[1:])},
            )
        ),
        replace(state, minted=1),
        replace(state, model_hash=state.head),
    ]
    roots = {compute_state_root(other) for other in (state, *changed)}
    assert len(roots) == len(changed) + 1


def test_addresses_are_found_in_their_role(driver: Driver) -> None:
    """A device is found among devices only, a validator among validators only."""
    state = driver.state
    for device, validator in zip(state.devices, state.validators, strict=False):
        assert find_device(state, device.address) is device
        assert find_validator(state, validator.address) is validator
        assert find_device(state, validator.address) is None
        assert find_validator(state, device.address) is None


# ----------------------------------------------------------------------------------------------- genesis


def test_a_genesis_is_checked_as_a_whole() -> None:
    """Unknown plug-ins, keys that are none, keys twice and homes that are no validators are all named."""
    built = build_chain()
    genesis = built.genesis

    def problems(changed: Genesis) -> str:
        with pytest.raises(ConfigError) as caught:
            decode_genesis(encode_genesis(changed))
        return str(caught.value)

    def with_device(entry: DeviceEntry) -> Genesis:
        return msgspec.structs.replace(genesis, devices=(*genesis.devices, entry))

    params = msgspec.structs.replace(genesis.params, codec="magic", reward_rule="lottery")
    text = problems(msgspec.structs.replace(genesis, params=params))
    assert "magic" in text
    assert "sparse-ternary" in text
    assert "lottery" in text
    home = genesis.devices[0].home
    assert "no Ed25519" in problems(with_device(DeviceEntry(b"\1" + bytes(31), home)))
    assert "twice" in problems(with_device(genesis.devices[0]))
    assert "twice" in problems(with_device(DeviceEntry(genesis.validators[0].public_key, home)))
    stranger = DeviceEntry(build_identity(77, 7).public_key, b"h" * 20)
    assert "no validator" in problems(with_device(stranger))
    assert "not a genesis" in problems(msgspec.structs.replace(genesis, validators=()))
    assert "not a genesis" in problems(msgspec.structs.replace(genesis, name="a b"))
    for junk in (b"", b"junk", encode_genesis(genesis)[:-1], encode_genesis(genesis) + b"\0"):
        with pytest.raises(ConfigError):
            decode_genesis(junk)


def test_any_change_of_the_genesis_is_another_chain() -> None:
    """Two genesis files that differ in anything have two chain ids."""
    ids = {build_chain(**change).id for change in ({}, {"reward_per_update": 1}, {"devices": 2}, {"powers": [1] * 4})}
    assert len(ids) == 4
