"""Certificates: the precommits of more than two thirds of the power, which make a block final for everyone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from flchain.base.errors import BadCertificate
from flchain.base.types import Address, Hash, Height, View
from flchain.consensus.bft_types import VoteType
from flchain.ledger.state import Validator
from flchain.wire.envelope import CERTIFICATE_BYTES_MAX, decode_struct, encode_struct, verify_detached
from flchain.wire.messages import Certificate, Vote

PRECOMMIT = int(VoteType.PRECOMMIT)
"""Of the votes, those that a certificate is made of."""
KnownVotes: TypeAlias = Callable[[Vote, Address, bytes], bool]
"""True for a vote of a validator whose signature, this very one, was checked before."""


def know_no_vote(vote: Vote, sender: Address, signature: bytes) -> bool:
    """For a node that hears no votes."""
    return False


def build_certificate(
    validators: tuple[Validator, ...], view: View, signatures: Iterable[tuple[Address, bytes]]
) -> bytes:
    """Return the canonical bytes of a certificate from (validator, precommit signature) pairs."""
    places = {validator.address: index for index, validator in enumerate(validators)}
    listed = sorted((places[address], signature) for address, signature in signatures)
    return encode_struct(Certificate(view, tuple(listed)))


def trim_certificate(validators: tuple[Validator, ...], certificate_bytes: bytes) -> bytes:
    """Return a valid certificate with as few signatures as make a block final, for slow links.

    It keeps those of the most powerful validators.
    """
    certificate = decode_struct(certificate_bytes, Certificate, CERTIFICATE_BYTES_MAX)
    kept: list[tuple[int, bytes]] = []
    power = 0
    for index, signature in sorted(certificate.signatures, key=lambda signed: (-validators[signed[0]].power, signed)):
        if 3 * power > 2 * sum(validator.power for validator in validators):
            break
        kept.append((index, signature))
        power += validators[index].power
    return encode_struct(Certificate(certificate.view, tuple(sorted(kept))))


def verify_certificate(
    chain: Hash,
    validators: tuple[Validator, ...],
    height: Height,
    block_hash: Hash,
    certificate_bytes: bytes,
    *,
    known: KnownVotes = know_no_vote,
) -> Certificate:
    """Check that `certificate_bytes` makes the block final. Raises BadCertificate, or InvalidMessage for its form.

    Every signature must be valid, not only enough of them, so that no byte of a stored certificate can change
    unnoticed.
    """
    certificate = decode_struct(certificate_bytes, Certificate, CERTIFICATE_BYTES_MAX)
    vote = Vote(height, certificate.view, PRECOMMIT, block_hash)
    power, last = 0, -1
    for index, signature in certificate.signatures:
        if not last < index < len(validators):
            raise BadCertificate(f"signer {index} is out of order or no validator")
        last = index
        validator = validators[index]
        is_valid = known(vote, validator.address, signature) or verify_detached(
            vote, chain, validator.address, validator.public_key, signature
        )
        if not is_valid:
            raise BadCertificate(f"the signature of {validator.address.hex()} at height {height} is wrong")
        power += validator.power
    if 3 * power <= 2 * sum(validator.power for validator in validators):
        raise BadCertificate(f"only power {power} signed height {height}")
    return certificate
