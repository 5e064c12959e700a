"""Topics and the table of who may use them."""

from __future__ import annotations

import pytest

from agent.core import transitions as agent_transitions
from flchain.base.errors import MalformedMessage
from flchain.wire.topics import (
    CHANNEL_RULES,
    Channel,
    Listener,
    Role,
    Topics,
    list_accepted,
    list_grants,
    read_topic_channel,
    read_topic_owner,
)
from miner.core import transitions as miner_transitions


def test_topics_name_their_owner() -> None:
    """Every topic that a node publishes under gives its address and channel back."""
    topics, node = Topics.of_chain(bytes(range(32))), bytes(range(20))
    for topic, channel in (
        (topics.device_up(node), "up"),
        (topics.device_status(node), "status"),
        (topics.miner_bft(node), "bft"),
        (topics.miner_head(node), "head"),
        (topics.miner_body(node), "body"),
        (topics.miner_to(node, b"other" * 4), "to"),
        (topics.operator_release(node), "release"),
    ):
        assert topic.startswith("flchain/v1/0001020304050607/")
        assert (read_topic_owner(topic), read_topic_channel(topic)) == (node, channel)


@pytest.mark.parametrize("owner", ["", "00" * 19, "00" * 21, "AB" * 20, "ab " * 20, "xy" * 20, "+", "ab" * 19 + " ab"])
def test_one_spelling_of_an_owner(owner: str) -> None:
    """A topic whose owner is not 40 lower-case hex digits is refused: to a broker's rules it is another topic."""
    with pytest.raises(MalformedMessage):
        read_topic_owner(f"flchain/v1/0001020304050607/device/{owner}/up")


def test_a_device_may_publish_two_topics_and_read_five() -> None:
    """A device: its own up and status; miners' head, body and light, answers to itself, releases. Nothing else."""
    grants = list_grants("p", "me", Role.DEVICE)
    assert set(grants.publish) == {"p/device/me/up", "p/device/me/status"}
    public = {f"p/miner/+/{channel}" for channel in ("head", "body", "light", "to/me")}
    assert set(grants.subscribe) == public | {"p/operator/+/release"}


def test_a_miner_may_do_what_a_device_may_and_speak_as_a_miner() -> None:
    """A miner: a device's rights, five topics more under its own address, and what devices and miners say to miners."""
    device, miner = (list_grants("p", "me", role) for role in (Role.DEVICE, Role.MINER))
    channels = ("bft", "head", "body", "light", "to/+")
    assert set(miner.publish) == set(device.publish) | {f"p/miner/me/{channel}" for channel in channels}
    more = {"p/device/+/up", "p/device/+/status", "p/miner/+/bft"}
    assert set(miner.subscribe) == set(device.subscribe) | more


def test_an_operator_announces_releases_and_reads_what_boards_say_of_themselves() -> None:
    """An operator: a device's rights, its own releases, every board's status; no vote, no update."""
    device, operator = (list_grants("p", "me", role) for role in (Role.DEVICE, Role.OPERATOR))
    assert set(operator.publish) == set(device.publish) | {"p/operator/me/release"}
    assert set(operator.subscribe) == set(device.subscribe) | {"p/device/+/status"}


def test_nobody_may_publish_under_a_name_that_is_not_its_own() -> None:
    """Every filter that a node may publish to has its own address at the owner's level, and no wildcard there."""
    for role in Role:
        assert {text.split("/")[2] for text in list_grants("p", "me", role).publish} == {"me"}


def test_each_node_may_read_what_it_subscribes_to() -> None:
    """Broker rules and subscriptions agree: what a miner or a device asks for by itself, the broker lets it read."""
    topics, me, miner = Topics.of_chain(bytes(range(32))), bytes(20), b"m" * 20
    readable = set(list_grants(topics.prefix, me.hex(), Role.MINER).subscribe)
    assert set(topics.list_miner_filters(me)) <= readable
    readable = set(list_grants(topics.prefix, me.hex(), Role.DEVICE).subscribe)
    news = topics.news_of(miner, True) + topics.news_of(miner, False)
    assert {topic.replace(miner.hex(), "+") for topic in news} <= readable
    assert topics.answers_to(me) in readable
    assert topics.operator_release(me).replace(me.hex(), "+") in readable


def test_miners_hear_each_other_at_qos_0() -> None:
    """A miner's subscriptions: bft and head of miners at QoS 0, devices and answers at QoS 1, nothing else."""
    found = Topics("p").list_miner_filters(b"\1" * 20)
    assert found == {"p/device/+/up": 1, "p/miner/+/bft": 0, "p/miner/+/head": 0, f"p/miner/+/to/{'01' * 20}": 1}


def test_machines_accept_what_the_table_says() -> None:
    """The machines' own tables name the same packets on the same channels: no more, and none forgotten."""
    assert miner_transitions.PACKET_RULES.keys() == list_accepted(Listener.MINER)
    assert agent_transitions.PACKET_RULES.keys() == list_accepted(Listener.FULL) == list_accepted(Listener.LIGHT)


def test_every_channel_has_one_row() -> None:
    """No channel is without a rule, and a channel that is subscribed to carries something for its listener."""
    assert set(CHANNEL_RULES) == set(Channel)
    for rule in CHANNEL_RULES.values():
        for listener in rule.heard:
            assert any(listener in carried.listeners for carried in rule.carries), (rule.channel, listener)
