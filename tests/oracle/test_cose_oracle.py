"""Another implementation of COSE reads our messages and writes the same bytes. Nothing of ours is imported here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cwt import COSE, COSEKey, VerifyError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "messages.json").read_text())
CHAIN = bytes.fromhex(VECTORS["chain"])
ALGORITHM, KEY_ID, EDDSA = 1, 4, -8
Entry = dict[str, Any]

every_message = pytest.mark.parametrize("entry", VECTORS["messages"], ids=lambda entry: entry["name"])


def make_key(entry: Entry, is_secret: bool = False) -> Any:
    fields = {1: 1, 2: bytes.fromhex(entry["address"]), 3: -8, -1: 6, -2: bytes.fromhex(entry["public_key"])}
    if is_secret:
        fields[-4] = bytes.fromhex(entry["seed"])
    return COSEKey.new(fields)


def read(raw: bytes, entry: Entry, chain: bytes = CHAIN, kind: int | None = None) -> bytes:
    aad = chain + bytes((entry["kind"] if kind is None else kind,))
    payload = COSE.new().decode(raw, make_key(entry), external_aad=aad)
    assert isinstance(payload, bytes)
    return payload


@every_message
def test_our_messages_are_cose_sign1(entry: Entry) -> None:
    """Each of our messages verifies as a COSE_Sign1 with chain id and kind as external data, and has our payload."""
    assert read(bytes.fromhex(entry["raw"]), entry) == bytes.fromhex(entry["payload"])


@every_message
def test_the_other_library_writes_the_same_bytes(entry: Entry) -> None:
    """The same payload signed by the other library is, byte for byte, our message."""
    raw = COSE.new().encode_and_sign(
        bytes.fromhex(entry["payload"]),
        make_key(entry, is_secret=True),
        protected={ALGORITHM: EDDSA, KEY_ID: bytes.fromhex(entry["address"])},
        unprotected={},
        external_aad=CHAIN + bytes((entry["kind"],)),
    )
    assert raw.hex() == entry["raw"]


@every_message
def test_another_chain_or_kind_is_refused(entry: Entry) -> None:
    """A message does not verify for another chain id, though its first bytes agree, nor as another kind."""
    raw = bytes.fromhex(entry["raw"])
    with pytest.raises(VerifyError):
        read(raw, entry, chain=CHAIN[:-1] + bytes((CHAIN[-1] ^ 1,)))
    with pytest.raises(VerifyError):
        read(raw, entry, kind=entry["kind"] % 9 + 1)
    with pytest.raises(VerifyError):
        COSE.new().decode(raw, make_key(entry))


@every_message
def test_a_changed_message_is_refused(entry: Entry) -> None:
    """A message with a changed payload or signature does not verify."""
    protected, unprotected, payload, signature = cbor2.loads(bytes.fromhex(entry["raw"])).value
    for parts in (
        [protected, unprotected, payload[:-1] + bytes((payload[-1] ^ 1,)), signature],
        [protected, unprotected, payload, bytes((signature[0] ^ 1,)) + signature[1:]],
    ):
        with pytest.raises(VerifyError):
            read(cbor2.dumps(cbor2.CBORTag(18, parts)), entry)


@every_message
def test_payloads_start_with_kind_and_chain(entry: Entry) -> None:
    """A payload is canonical for an older CBOR library too, and starts with the kind and the head of the chain id."""
    payload = bytes.fromhex(entry["payload"])
    fields = cbor2.loads(payload)
    assert fields[:2] == [entry["kind"], CHAIN[:8]]
    assert cbor2.dumps(fields, canonical=True) == payload


@pytest.mark.parametrize("name", VECTORS["structs"])
def test_structs_are_canonical(name: str) -> None:
    """Header, body, certificate and genesis are canonical for an older CBOR library too."""
    data = bytes.fromhex(VECTORS["structs"][name])
    assert cbor2.dumps(cbor2.loads(data), canonical=True) == data
