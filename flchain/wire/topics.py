"""Topics and who may use them: one table for the code, the brokers' rules, the simulator's broker and the docs.

A topic is `flchain/v1/<chain>/<role>/<address>/<channel>`, levels of [a-z0-9] only. Everything that a node publishes is
under its own address, so a broker needs one line for each node and channel. After a change of `CHANNEL_RULES` run
`python -m tools.registrar.topic_files`, which writes the brokers' rules and the table in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from flchain.base.errors import MalformedMessage
from flchain.base.types import ADDRESS_BYTES, Address
from flchain.wire.packets import PacketType

ROOT = "flchain/v1"
CHAIN_BYTES = 8
"""Of the chain's id in a topic: enough to tell chains apart on one broker."""


class _Word(str, Enum):
    """A name that is its text, also when printed: enum.StrEnum, which Python 3.10 does not have."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(str(self.value), spec)


class Role(_Word):
    """The topic level above an address, and what a certificate was issued for."""

    DEVICE = "device"
    MINER = "miner"
    OPERATOR = "operator"


class Channel(_Word):
    """The topic level below an address."""

    UP = "up"
    STATUS = "status"
    BFT = "bft"
    HEAD = "head"
    BODY = "body"
    LIGHT = "light"
    TO = "to"
    RELEASE = "release"


class Listener(Enum):
    """A kind of node by what it subscribes to: a miner, or a device that follows bodies or only headers."""

    MINER = "miner"
    FULL = "full device"
    LIGHT = "light device"


MINER, FULL, LIGHT = Listener.MINER, Listener.FULL, Listener.LIGHT


@dataclass(frozen=True)
class Carried:
    """A type of packet on a channel. `listeners` accept it there; from any other channel they refuse it."""

    type: PacketType
    listeners: frozenset[Listener]
    qos: int = 1
    """Quality of service at which it is published."""
    is_retained: bool = False


@dataclass(frozen=True)
class ChannelRule:
    """A row of the table. A node may publish only under its own address, whatever its row says."""

    channel: Channel
    role: Role
    is_for_miners: bool
    """Whether only miners may subscribe; otherwise every node may."""
    heard: Mapping[Listener, int]
    """The nodes that subscribe by themselves, and the QoS that they ask for."""
    carries: tuple[Carried, ...]
    """Long packets of these types travel in chunks on the same channel."""
    content: str
    """For docs/protocol.md."""
    is_addressed: bool = False
    """Whether the topic ends with the address of the one node that may read it."""


def _carry(type: PacketType, *listeners: Listener, qos: int = 1, is_retained: bool = False) -> Carried:
    return Carried(type, frozenset(listeners), qos, is_retained)


# Miners subscribe to each other at QoS 0: gossip repeats until the height is final, and a broker's QoS 1 store costs
# more than all of a miner's agreement.
CHANNEL_RULES: dict[Channel, ChannelRule] = {
    rule.channel: rule
    for rule in (
        ChannelRule(
            Channel.UP,
            Role.DEVICE,
            is_for_miners=True,
            heard={MINER: 1},
            carries=(_carry(PacketType.MESSAGE, MINER),),
            content="Commit, Reveal, scores, orders, Ask, Resume",
        ),
        ChannelRule(
            Channel.STATUS,
            Role.DEVICE,
            is_for_miners=True,
            heard={},
            carries=(_carry(PacketType.MESSAGE, is_retained=True),),
            content="Status: how the board does, its model and software, how far an update has come; for the operator",
        ),
        ChannelRule(
            Channel.BFT,
            Role.MINER,
            is_for_miners=True,
            heard={MINER: 0},
            carries=(_carry(PacketType.MESSAGE, MINER, qos=0), _carry(PacketType.PROPOSAL, MINER)),
            content="votes, scores, orders, Ask; proposals",
        ),
        ChannelRule(
            Channel.HEAD,
            Role.MINER,
            is_for_miners=False,
            heard={MINER: 0, FULL: 1},
            carries=(_carry(PacketType.HEAD, MINER, FULL, LIGHT, is_retained=True),),
            content="newest header and certificate, validators if they change",
        ),
        ChannelRule(
            Channel.BODY,
            Role.MINER,
            is_for_miners=False,
            heard={FULL: 1},
            carries=(_carry(PacketType.BODY, FULL, LIGHT),),
            content="bodies of REVEAL and SETTLE blocks",
        ),
        ChannelRule(
            Channel.LIGHT,
            Role.MINER,
            is_for_miners=False,
            heard={LIGHT: 1},
            carries=(
                _carry(PacketType.HEAD, FULL, LIGHT, is_retained=True),
                _carry(PacketType.LIGHT_BODY, FULL, LIGHT),
            ),
            content="the newest header that opens or ends what light devices take part in; light bodies",
        ),
        ChannelRule(
            Channel.TO,
            Role.MINER,
            is_for_miners=False,
            heard={MINER: 1, FULL: 1, LIGHT: 1},
            carries=(
                _carry(PacketType.MESSAGE, MINER, FULL, LIGHT),
                _carry(PacketType.HEAD, MINER, FULL, LIGHT),
                _carry(PacketType.BODY, FULL, LIGHT),
                _carry(PacketType.LIGHT_BODY, FULL, LIGHT),
                _carry(PacketType.MODEL, FULL, LIGHT),
                _carry(PacketType.PAYLOADS, FULL, LIGHT),
                _carry(PacketType.BLOCK, MINER),
                _carry(PacketType.STATE, MINER),
            ),
            content="receipts, Resume, and the answers to Ask: headers, bodies, models, blocks, states",
            is_addressed=True,
        ),
        ChannelRule(
            Channel.RELEASE,
            Role.OPERATOR,
            is_for_miners=False,
            heard={FULL: 1, LIGHT: 1},
            carries=(_carry(PacketType.MESSAGE, FULL, LIGHT, is_retained=True),),
            content="Release: the version that boards shall run, and how many of them by now",
        ),
    )
}


@dataclass(frozen=True)
class Grants:
    """What a broker lets one node do, as MQTT topic filters."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def list_grants(prefix: str, address: str, role: Role) -> Grants:
    """Return what the node with this address may publish and subscribe to below `prefix`, ROOT and chain.

    `address` may be a broker's own word for "the name in the certificate". A miner may do all that a device may: its
    operator sends the orders of its account as a device does. So may the network's operator, who also reads what boards
    say of themselves, and announces releases.
    """
    publish, subscribe = [], []
    for rule in CHANNEL_RULES.values():
        if rule.role in (Role.DEVICE, role):
            publish.append(f"{prefix}/{rule.role}/{address}/{rule.channel}" + ("/+" if rule.is_addressed else ""))
        if not rule.is_for_miners or role is Role.MINER or (role is Role.OPERATOR and rule.channel is Channel.STATUS):
            end = f"/{address}" if rule.is_addressed else ""
            subscribe.append(f"{prefix}/{rule.role}/+/{rule.channel}{end}")
    return Grants(tuple(publish), tuple(subscribe))


def list_accepted(listener: Listener) -> frozenset[tuple[Channel, PacketType]]:
    """Return which packets this kind of node accepts, by channel."""
    return frozenset(
        (rule.channel, carried.type)
        for rule in CHANNEL_RULES.values()
        for carried in rule.carries
        if listener in carried.listeners
    )


@dataclass(frozen=True)
class Topics:
    """The topics of one chain. `prefix` is ROOT and the chain."""

    prefix: str

    @classmethod
    def of_chain(cls, chain: bytes) -> Topics:
        """Return the topics of the chain with this 32-byte id."""
        return cls(f"{ROOT}/{chain[:CHAIN_BYTES].hex()}")

    def get_topic(self, channel: Channel, owner: bytes) -> str:
        """Return the topic of a channel that is addressed to nobody."""
        return f"{self.prefix}/{CHANNEL_RULES[channel].role}/{owner.hex()}/{channel}"

    def device_up(self, device: bytes) -> str:
        """Return where a device speaks to all miners."""
        return self.get_topic(Channel.UP, device)

    def device_status(self, device: bytes) -> str:
        """Return where a device's newest status is."""
        return self.get_topic(Channel.STATUS, device)

    def miner_bft(self, miner: bytes) -> str:
        """Return where a miner speaks to the other miners."""
        return self.get_topic(Channel.BFT, miner)

    def miner_head(self, miner: bytes) -> str:
        """Return where a miner's newest header is."""
        return self.get_topic(Channel.HEAD, miner)

    def miner_body(self, miner: bytes) -> str:
        """Return where a miner publishes the bodies that full devices need."""
        return self.get_topic(Channel.BODY, miner)

    def miner_light(self, miner: bytes) -> str:
        """Return where a miner publishes all that light devices need."""
        return self.get_topic(Channel.LIGHT, miner)

    def miner_to(self, miner: bytes, node: bytes) -> str:
        """Return where a miner answers one node."""
        return f"{self.get_topic(Channel.TO, miner)}/{node.hex()}"

    def operator_release(self, operator: bytes) -> str:
        """Return where an operator's newest release is."""
        return self.get_topic(Channel.RELEASE, operator)

    def all_devices(self, channel: str) -> str:
        """Return the filter for a channel of every device."""
        return f"{self.prefix}/{Role.DEVICE}/+/{channel}"

    def all_miners(self, channel: str) -> str:
        """Return the filter for a channel of every miner."""
        return f"{self.prefix}/{Role.MINER}/+/{channel}"

    def answers_to(self, node: bytes) -> str:
        """Return the filter for every miner's answers to one node."""
        return f"{self.all_miners(Channel.TO)}/{node.hex()}"

    def news_of(self, miner: bytes, is_full: bool) -> tuple[str, ...]:
        """Return the topics that a device that follows this miner subscribes to."""
        return tuple(self.get_topic(channel, miner) for channel in _NEWS[FULL if is_full else LIGHT])

    def list_miner_filters(self, me: bytes) -> dict[str, int]:
        """Return what a miner subscribes to: QoS by filter."""
        filters = {}
        for channel, rule in CHANNEL_RULES.items():
            if MINER in rule.heard:
                end = f"/{me.hex()}" if rule.is_addressed else ""
                filters[f"{self.prefix}/{rule.role}/+/{channel}{end}"] = rule.heard[MINER]
        return filters


_NEWS = {
    listener: tuple(
        channel
        for channel, rule in CHANNEL_RULES.items()
        if listener in rule.heard and rule.role is Role.MINER and not rule.is_addressed
    )
    for listener in (FULL, LIGHT)
}


def read_topic_owner(topic: str) -> Address:
    """Return the address under which a topic was published. Raise MalformedMessage for a topic that is not ours."""
    levels = topic.split("/")
    try:
        owner = bytes.fromhex(levels[4])
    except (IndexError, ValueError) as error:
        raise MalformedMessage(f"not a topic of ours: {topic[:80]!r}") from error
    # A broker's rules name the one spelling: under another one a stranger could pass for the owner.
    if len(owner) != ADDRESS_BYTES or owner.hex() != levels[4]:
        raise MalformedMessage(f"not a topic of ours: {topic[:80]!r}")
    return Address(owner)


def read_topic_channel(topic: str) -> str:
    """Return the channel of a topic, one of `Channel` unless a stranger made it up; empty if it has none."""
    levels = topic.split("/")
    return levels[5] if len(levels) > 5 else ""
