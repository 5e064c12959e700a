"""Which miner this device listens to, what it asks of miners, and when it turns to another one."""

from __future__ import annotations

from agent.core import downloads, update
from agent.core.state import AgentState, Resync, Standing, Transition, compute_standing
from agent.core.values import Connected, Effect, Follow, Note, Publish, StartTimer, Timer, TimerFired
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.wire.envelope import seal
from flchain.wire.messages import Ask, Want
from flchain.wire.packets import PacketType, encode_packet


def listen(state: AgentState, event: Connected) -> Transition:
    """Listen to the followed miner again. Its retained header usually comes first, and says where the chain is."""
    miner, config = state.following.miner, state.config
    state = replace(state, following=replace(state.following, heard_ms=state.clock.now_ms))
    state, pulled = downloads.ask_again(state)
    return state, (Follow(None, miner), *pulled, StartTimer(Timer.SILENCE, config.failover_ms // 2))


def listen_and_publish(state: AgentState, event: Connected) -> Transition:
    """Listen, and publish again what no miner has acknowledged."""
    state, (follow, *pulled_and_timer) = listen(state, event)
    state, again = update.resend(state)
    state, more = update.advance_update(state)
    return state, (follow, *again, *more, *pulled_and_timer)


def on_silence_timer(state: AgentState, event: TimerFired[Timer]) -> Transition:
    """Ask a silent miner whether it is there, and another for news; turn to the next one if none answers.

    With that goes once more what the round waits for: a receipt is no more durable than the memory of the miners.
    """
    config, now_ms = state.config, state.clock.now_ms
    silent_ms, half_ms = now_ms - state.following.heard_ms, config.failover_ms // 2
    timer = StartTimer(Timer.SILENCE, half_ms)
    if is_busy(state):
        return keep_listening(state, event)
    if silent_ms < half_ms:
        return state, (timer,)
    state, again = update.publish_again(state)
    before = state.following.miner
    if silent_ms < config.failover_ms:
        state, other = _ask_another(state)
        return state, (ask(state, before, _get_want(state)), *other, *again, timer)
    miner = state.next_miner(before)
    state = replace(state, following=replace(state.following, miner=miner, heard_ms=now_ms))
    note = Note("a miner is silent, following the next", {"silent": before.hex()[:8], "next": miner.hex()[:8]})
    return state, (note, Follow(before, miner), ask(state, miner, _get_want(state)), *again, timer)


def keep_listening(state: AgentState, event: TimerFired[Timer]) -> Transition:
    """Restart the wait for news: this device needs none now, so it leaves no miner for being silent."""
    state = replace(state, following=replace(state.following, heard_ms=state.clock.now_ms))
    return state, (StartTimer(Timer.SILENCE, state.config.failover_ms // 2),)


def is_busy(state: AgentState) -> bool:
    """True while this device works, and so waits for no miner. It does not wait for work that is held."""
    return (state.is_training or state.is_scoring) and not state.is_held


def follow_news(state: AgentState, owner: Address) -> Transition:
    """Follow a miner that was only asked and has news: the followed one is behind, or keeps them back."""
    before = state.following.miner
    if owner == before:
        return state, ()
    note = Note("another miner has news, following it", {"before": before.hex()[:8], "now": owner.hex()[:8]})
    return replace(state, following=replace(state.following, miner=owner)), (note, Follow(before, owner))


def hear(state: AgentState, owner: Address) -> AgentState:
    """Note that this miner has sent something."""
    if owner != state.following.miner:
        return state
    return replace(state, following=replace(state.following, heard_ms=state.clock.now_ms))


def start_resync(state: AgentState, *, is_hopeless: bool) -> Transition:
    """Give missing bodies some time; ask at once if none that is awaited could help: each moment may cost a round."""
    if is_hopeless and not state.downloads.running:
        return _ask_for_model(state)
    if state.following.resync is not Resync.IDLE:
        return state, ()
    state = replace(state, following=replace(state.following, resync=Resync.WAITING))
    return state, (StartTimer(Timer.RESYNC, state.config.resync_ms),)


def on_resync_timer(state: AgentState, event: TimerFired[Timer]) -> Transition:
    """Ask for the whole model: bodies did not come, or this device missed rounds."""
    if state.light.is_synced or compute_standing(state) is Standing.DIVERGED:
        return replace(state, following=replace(state.following, resync=Resync.IDLE)), ()
    state, pulled = downloads.advance_downloads(state)
    if state.downloads.running:  # a slow link is no reason to have all of it sent again
        return state, (*pulled, StartTimer(Timer.RESYNC, state.config.resync_ms))
    return _ask_for_model(state)


def _ask_for_model(state: AgentState) -> Transition:
    """The followed miner first, then others: a miner may send its headers and keep the rest back."""
    if state.following.resync is Resync.ASKED:
        state, question = _ask_another(state)
        state = replace(state, following=replace(state.following, resync=Resync.WAITING))
    else:
        question = (ask(state, state.following.miner, _get_want(state)),)
        state = replace(state, following=replace(state.following, resync=Resync.ASKED))
    return state, (*question, StartTimer(Timer.RESYNC, 4 * state.config.resync_ms))


def _ask_another(state: AgentState) -> Transition:
    """Ask a miner that this device does not follow: the followed one may keep the news from it."""
    followed, turn = state.following.miner, state.following.others_asked + 1
    other = state.next_miner(followed, turn)
    state = replace(state, following=replace(state.following, others_asked=turn))
    return state, () if other == followed else (ask(state, other, _get_want(state)),)


def _get_want(state: AgentState) -> Want:
    if state.light.is_synced:
        return Want.HEAD
    return Want.FULL_MODEL if state.light.is_full else Want.MODEL


def ask(state: AgentState, miner: Address, want: Want) -> Effect:
    """Return a question to a miner."""
    me = state.config.identity
    question = Ask(state.light.height + 1, miner, want, state.light.model_round)
    raw = seal(question, state.light.chain, me)
    return Publish(state.topics.device_up(me.address), encode_packet(PacketType.MESSAGE, raw))
