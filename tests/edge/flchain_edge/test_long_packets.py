"""A miner's link carries the longest packet that its chain can have; one that did not fit would halt the chain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from flchain.ledger.limits import compute_packet_bytes_max
from flchain.wire.chunks import split_packet
from flchain_edge.mqtt.inbox import LinkUp
from flchain_edge.mqtt.link import OUTGOING_BYTES_MAX
from flchain_edge.mqtt.settings import MqttSettings
from miner.runner import compute_outgoing_bytes_max
from tests.support.builders.chain import build_chain
from tests.support.networks.mqtt_link import InboxLink
from tools.network.broker import start_broker


def test_longest_packets_are_taken_whole(tmp_path: Path) -> None:
    """Sixty devices that send whole updates of 100,000 parameters fill a block that the default bound would cut."""
    genesis = build_chain(devices=60, codec="identity").genesis
    params = msgspec.structs.replace(genesis.params, parameters_count=100_000)
    genesis = msgspec.structs.replace(genesis, params=params)
    packet = bytes(compute_packet_bytes_max(params, 60, len(genesis.validators)))
    assert len(packet) > OUTGOING_BYTES_MAX

    async def publish_twice(outgoing_bytes_max: int) -> list[bool]:
        with start_broker("nats", tmp_path) as broker:
            settings = MqttSettings(host=broker.host, port=broker.port, client_id="long")
            link = InboxLink(settings, outgoing_bytes_max=outgoing_bytes_max)
            await link.start()
            while not isinstance(await link.events.get(), LinkUp):
                pass
            taken = [link.publish("flchain/v1/long/x", piece) for piece in split_packet(packet) * 2]
            await link.stop()
            return taken

    assert not all(asyncio.run(publish_twice(OUTGOING_BYTES_MAX)))
    assert all(asyncio.run(publish_twice(compute_outgoing_bytes_max(genesis))))
