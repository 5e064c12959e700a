"""Hash, sign, verify: one library, one acceptance rule, one domain tag for each kind of thing.

Ed25519 is RFC 8032 as libsodium accepts it (cofactorless, canonical S, no small-order points); on top of that `verify`
refuses public keys outside the prime-order group, so that every node accepts exactly the same signatures.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

from nacl import bindings
from nacl.exceptions import BadSignatureError

from flchain.base.types import ADDRESS_BYTES, Address, Hash

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


def hash_tagged(tag: str, data: bytes) -> Hash:
    """Return the SHA-256 of `data` in the domain `tag`: equal bytes under two tags never share a hash.

    The tag is hashed with its length in front, so that bytes cannot move from the tag to the data or back.

    >>> hash_tagged("message", b"x") == hash_tagged("messagex", b"")
    False
    """
    name = b"flchain/v1/" + tag.encode()
    return Hash(hashlib.sha256(bytes((len(name),)) + name + data).digest())


@lru_cache(maxsize=4096)
def is_public_key(public_key: bytes) -> bool:
    """Return True for the canonical encoding of a point A of order L: on the curve, not of small order, [L]A = 0."""
    return len(public_key) == PUBLIC_KEY_BYTES and bool(bindings.crypto_core_ed25519_is_valid_point(public_key))


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return True if `signature` (64 bytes) is the Ed25519 signature (RFC 8032) of `message` by `public_key` (32
    bytes).

    Return False for anything else, wrong lengths included. Bytes never raise an error here.

    >>> me = Identity.from_seed(bytes(32))
    >>> verify(me.public_key, b"vote", me.sign(b"vote")), verify(me.public_key, b"other vote", me.sign(b"vote"))
    (True, False)
    """
    if len(signature) != SIGNATURE_BYTES or not is_public_key(public_key):
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def compute_address(public_key: bytes) -> Address:
    """Return the 20-byte address of a public key."""
    return Address(hash_tagged("address", public_key)[:ADDRESS_BYTES])


@dataclass(frozen=True)
class Identity:
    """A node's key pair. `seed` (32 bytes) is the secret; it is kept out of `repr`."""

    seed: bytes = field(repr=False)
    public_key: bytes
    address: Address

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """Return the key pair of a 32-byte seed (RFC 8032, 5.1.5). Raises ValueError for another length."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        public_key, _ = bindings.crypto_sign_seed_keypair(seed)
        return cls(seed, public_key, compute_address(public_key))

    def derive_secret(self, tag: str, context: bytes) -> bytes:
        """Return 32 bytes that only the holder of the key can compute, the same after a restart (a PRF of the seed)."""
        return hash_tagged("secret/" + tag, self.seed + context)

    def sign(self, message: bytes) -> bytes:
        """Return the deterministic Ed25519 signature of `message`, 64 bytes."""
        return bindings.crypto_sign(message, self.seed + self.public_key)[:SIGNATURE_BYTES]
