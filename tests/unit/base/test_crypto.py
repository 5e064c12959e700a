"""Keys, hashes and signatures: the standard's vectors are accepted, every crafted signature is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from Crypto.Signature import eddsa

from flchain.base.crypto import Identity, compute_address, hash_tagged, is_public_key, verify
from tests.vectors.make_ed25519 import build_refused, find_encodings, find_torsion

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ed25519.json").read_text())
Case = dict[str, str]


def _read(case: Case) -> tuple[bytes, bytes, bytes]:
    return bytes.fromhex(case["public_key"]), bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])


def _verify_lax(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        eddsa.new(eddsa.import_public_key(key), "rfc8032").verify(message, signature)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("case", VECTORS["rfc8032"], ids=lambda case: case["name"])
def test_rfc_8032_vectors(case: Case) -> None:
    """Each vector of RFC 8032, section 7.1, gives the paper's public key and signature, and is accepted."""
    key, message, signature = _read(case)
    identity = Identity.from_seed(bytes.fromhex(case["seed"]))
    assert identity.public_key == key
    assert identity.sign(message) == signature
    assert verify(key, message, signature)


@pytest.mark.parametrize("case", VECTORS["rfc8032"], ids=lambda case: case["name"])
def test_every_flipped_bit_is_refused(case: Case) -> None:
    """A signature with any one bit of key or signature flipped, or under another message, is refused."""
    key, message, signature = _read(case)
    for place in range(256):
        flipped = bytearray(key)
        flipped[place // 8] ^= 1 << place % 8
        assert not verify(bytes(flipped), message, signature)
    for place in range(512):
        flipped = bytearray(signature)
        flipped[place // 8] ^= 1 << place % 8
        assert not verify(key, message, bytes(flipped))
    assert not verify(key, message + b"\0", signature)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_crafted_signatures_are_refused(case: Case) -> None:
    """What solves a verification equation with S out of range or a point outside the prime-order group is refused."""
    assert not verify(*_read(case))


def test_crafted_vectors_have_teeth() -> None:
    """Nearly all crafted vectors solve an equation, and another library accepts many: two verifiers split a chain."""
    equations = [case["equation"] for case in VECTORS["refused"]]
    assert equations.count("cofactorless") == 14 + 4 + 7 + 14  # small keys, R = O, mixed keys, S + n L
    assert equations.count("cofactored") == 10 + 7  # small and mixed R
    mixed = [case for case in VECTORS["refused"] if case["name"].startswith("mixed-order")]
    assert [_verify_lax(*_read(case)) for case in mixed] == [True] * 14


def test_crafted_vectors_can_be_made_again() -> None:
    """The committed vectors are exactly what the generator makes."""
    assert build_refused() == VECTORS["refused"]


def test_no_point_of_small_order_is_a_key() -> None:
    """None of the 14 encodings of the 8 small-order points, the identity among them, is a public key."""
    encodings = find_encodings(find_torsion())
    assert len(set(encodings)) == 14
    assert not any(is_public_key(encoding) for encoding in encodings)


def test_no_key_has_a_y_that_is_not_reduced() -> None:
    """No 32 bytes with y >= p are a public key, whether or not the reduced y belongs to a point."""
    for y in range(2**255 - 19, 2**255):
        for sign in (0, 1):
            assert not is_public_key((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 1, 20, 31, 33, 64])
def test_key_of_wrong_length(size: int) -> None:
    """A key of another length is no key, and a seed of another length is refused with its length."""
    assert not is_public_key(b"\x07" * size)
    with pytest.raises(ValueError, match=f"not {size}"):
        Identity.from_seed(b"\x07" * size)


def test_seed_is_not_shown() -> None:
    """The secret seed does not appear in an identity's repr, as bytes or as hex."""
    seed = bytes(range(32))
    shown = repr(Identity.from_seed(seed))
    assert repr(seed)[2:20] not in shown
    assert seed.hex() not in shown


def test_tags_separate_domains() -> None:
    """Equal bytes under two tags, and bytes moved from the data into the tag, hash differently."""
    assert hash_tagged("block", b"x") != hash_tagged("message", b"x")
    assert hash_tagged("block", b"x") != hash_tagged("blockx", b"")
    assert len(hash_tagged("block", b"")) == 32


def test_address_is_the_head_of_the_keys_hash() -> None:
    """An address is the first 20 bytes of the key's hash in its own domain."""
    identity = Identity.from_seed(bytes(32))
    assert identity.address == compute_address(identity.public_key) == hash_tagged("address", identity.public_key)[:20]
