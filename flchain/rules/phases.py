"""The phases of a round: which nodes each waits for, which have done their part, when it closes.

By heights, never by clocks.
"""

from __future__ import annotations

from flchain.base.frozen import kept_with
from flchain.base.types import Address
from flchain.ledger.state import ChainState, RoundState, find_device, has_two_thirds
from flchain.wire.fields import Kind
from flchain.wire.messages import Phase

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
    """Return the nodes that the present phase waits for: those that did the phase before and are not long absent."""
    round_ = state.round
    match round_.phase:
        case Phase.COMMIT:
            return _get_usual_devices(state)
        case Phase.REVEAL:
            committed = frozenset(address for address, _ in round_.commits)
            # One that commits and never reveals must not delay every round; if no other has committed, wait for all.
            return committed & _get_usual_devices(state) or committed
        case Phase.SCORE:
            return _get_awaited(state, {*(validator.address for validator in state.validators), *round_.pledges})
        case Phase.SETTLE:
            return _get_awaited(state, {address for address, _ in round_.score_commits})
        case Phase.OPEN:
            return frozenset()


def _get_usual_devices(state: ChainState) -> frozenset[Address]:
    """Return the devices that a round waits for.

    A device that is long absent gets another chance each time its absence doubles: otherwise a slow device could never
    rejoin. A dead one costs ever fewer rounds.
    """
    limit = state.params.absent_rounds_max
    return frozenset(device.address for device in state.devices if _is_usual(device.absent, limit))


def _is_usual(absent: int, limit: int) -> bool:
    """Return True below the limit, and at 2, 4, 8, ... times the limit.

    >>> [absent for absent in range(20) if _is_usual(absent, limit=2)]
    [0, 1, 4, 8, 16]
    """
    times, rest = divmod(absent, limit)
    return times == 0 or (rest == 0 and times > 1 and times & (times - 1) == 0)


def _get_awaited(state: ChainState, scorers: set[Address]) -> frozenset[Address]:
    """Return the scorers to wait for: validators that usually score, or all if these are too few to settle, and
    devices.
    """
    validators = [validator for validator in state.validators if validator.address in scorers]
    usual = frozenset(v.address for v in validators if v.absent < state.params.absent_rounds_max)
    if not has_two_thirds(state, usual):
        usual = frozenset(v.address for v in validators)
    return usual.union(address for address in scorers if _is_reliable(state, address))


def _is_reliable(state: ChainState, address: Address) -> bool:
    """Return False for a device that missed scoring in too many rounds of the epoch, or whose scores weigh nothing."""
    device = find_device(state, address)
    if device is None or state.params.mining_weight_bp == 0:
        return False
    return device.unscored < state.params.absent_rounds_max


def get_present(state: ChainState) -> frozenset[Address]:
    """Return the nodes that have already done what the present phase asks for."""
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
    """Return the nodes that the present phase still waits for."""
    return get_expected(state) - get_present(state)


def is_phase_complete(state: ChainState) -> bool:
    """Return True if every node that the phase waits for has done its part."""
    return bool(get_expected(state)) and not get_missing(state)


def is_phase_over(state: ChainState) -> bool:
    """Return True if the phase closes with its newest block.

    Enough nodes took part, and either all did or the phase has used up its heights.
    """
    if state.round.phase is Phase.OPEN:
        return True
    is_last_height = state.round.heights >= state.params.phase_heights_max
    return _has_quorum(state) and (is_phase_complete(state) or is_last_height)


def is_round_over(state: ChainState) -> bool:
    """Return True if the newest block settles the round.

    Its last phase is over, or too few nodes took part for far too long.
    """
    if state.round.phase is Phase.SETTLE and is_phase_over(state):
        return True
    is_stuck = state.round.heights >= 2 * state.params.phase_heights_max and not _has_quorum(state)
    return is_stuck and state.round.phase in (Phase.REVEAL, Phase.SCORE, Phase.SETTLE)


def _has_quorum(state: ChainState) -> bool:
    """Return True for at least one device, or for scorers with more than two thirds of the power."""
    present = get_present(state)
    if state.round.phase in (Phase.COMMIT, Phase.REVEAL):
        return bool(present)
    return has_two_thirds(state, present)
