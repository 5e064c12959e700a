"""The phases of a round: who each waits for, who is in, and when it is over. Set by final heights, never by clocks."""

from __future__ import annotations

from flchain.base.frozen import kept_with
from flchain.base.types import Address
from flchain.ledger.state import ChainState, RoundState, find_device, has_two_thirds
from flchain.wire.messages import Kind, Phase

PHASE_KINDS: dict[Phase, Kind] = {
    Phase.COMMIT: Kind.COMMIT,
    Phase.REVEAL: Kind.REVEAL,
    Phase.SCORE: Kind.SCORE_COMMIT,
    Phase.SETTLE: Kind.SCORE_REVEAL,
}
"""The one kind of transaction that a block of each phase carries."""
NEXT_PHASES = {Phase.COMMIT: Phase.REVEAL, Phase.REVEAL: Phase.SCORE, Phase.SCORE: Phase.SETTLE}


@kept_with
def get_expected(state: ChainState) -> frozenset[Address]:
    """Who the present phase waits for: those not long absent, and of them those who did the phase before."""
    round_ = state.round
    match round_.phase:
        case Phase.COMMIT:
            return _get_usual_devices(state)
        case Phase.REVEAL:
            committed = frozenset(address for address, _ in round_.commits)
            # Who commits and never reveals must not delay every round; if nobody else has committed, all are awaited.
            return committed & _get_usual_devices(state) or committed
        case Phase.SCORE:
            return _get_awaited(state, {*(validator.address for validator in state.validators), *round_.pledges})
        case Phase.SETTLE:
            return _get_awaited(state, {address for address, _ in round_.score_commits})
        case Phase.OPEN:
            return frozenset()


def _get_usual_devices(state: ChainState) -> frozenset[Address]:
    """The devices that a round waits for. One that is long absent has its chance again each time its absence doubles:
    a slow one would else never be in time again, and a dead one costs ever fewer rounds."""
    limit = state.params.absent_rounds_max
    return frozenset(device.address for device in state.devices if _is_usual(device.absent, limit))


def _is_usual(absent: int, limit: int) -> bool:
    """True below the limit, and at 2, 4, 8, ... times the limit."""
    times, rest = divmod(absent, limit)
    return times == 0 or (rest == 0 and times > 1 and times & (times - 1) == 0)


def _get_awaited(state: ChainState, scorers: set[Address]) -> frozenset[Address]:
    """Of those who are to score: the validators that usually do, all if these are too few to settle, and devices."""
    validators = [validator for validator in state.validators if validator.address in scorers]
    usual = frozenset(v.address for v in validators if v.absent < state.params.absent_rounds_max)
    if not has_two_thirds(state, usual):
        usual = frozenset(v.address for v in validators)
    return usual.union(address for address in scorers if _is_reliable(state, address))


def _is_reliable(state: ChainState, address: Address) -> bool:
    """False for a device that has failed to score in too many rounds of the epoch, or whose scores weigh nothing."""
    device = find_device(state, address)
    if device is None or state.params.mining_weight_bp == 0:
        return False
    return device.unscored < state.params.absent_rounds_max


def get_present(state: ChainState) -> frozenset[Address]:
    """Who has already done what the present phase asks for."""
    return _get_present(state.round)


@kept_with
def _get_present(round_: RoundState) -> frozenset[Address]:
    match round_.phase:
        case Phase.COMMIT:
            return frozenset(address for address, _ in round_.commits)
        case Phase.REVEAL:
            return frozenset(reveal.sender for reveal in round_.reveals)
        case Phase.SCORE:
            return frozenset(address for address, _ in round_.score_commits)
        case Phase.SETTLE:
            return frozenset(reveal.scorer for reveal in round_.score_reveals)
        case Phase.OPEN:
            return frozenset()


@kept_with
def get_missing(state: ChainState) -> frozenset[Address]:
    """Who the present phase still waits for."""
    return get_expected(state) - get_present(state)


def is_phase_complete(state: ChainState) -> bool:
    """True if everyone the phase waits for has done their part."""
    return bool(get_expected(state)) and not get_missing(state)


def is_phase_over(state: ChainState) -> bool:
    """True if the phase closes with its newest block: enough took part, and all did or its heights are used up."""
    if state.round.phase is Phase.OPEN:
        return True
    is_last_height = state.round.heights >= state.params.phase_heights_max
    return _has_quorum(state) and (is_phase_complete(state) or is_last_height)


def is_round_over(state: ChainState) -> bool:
    """True if the newest block settles the round: its last phase is over, or too few took part for far too long."""
    if state.round.phase is Phase.SETTLE and is_phase_over(state):
        return True
    is_stuck = state.round.heights >= 2 * state.params.phase_heights_max and not _has_quorum(state)
    return is_stuck and state.round.phase in (Phase.REVEAL, Phase.SCORE, Phase.SETTLE)


def _has_quorum(state: ChainState) -> bool:
    """One device is enough to go on; scorers need more than two thirds of the power."""
    present = get_present(state)
    if state.round.phase in (Phase.COMMIT, Phase.REVEAL):
        return bool(present)
    return has_two_thirds(state, present)
