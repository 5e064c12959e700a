"""Which validators may sign next: from a trusted header to a newer one, through changes of the validators.

The rules of a light client as in "A Tendermint Light Client" (Braithwaite et al., arXiv 2010.07031). A header is final
if more than 2/3 of its own validators signed it. They are the chain's validators if the trusted header names them for
the next block, or if more than 1/3 of its validators' power signed as well: then one of the signers is honest. Trust
expires: validators whose stake has been paid out could sign anything at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from flchain.base.crypto import compute_address
from flchain.base.errors import (
    BadCertificate,
    InvalidBlock,
    MalformedMessage,
    TrustExpired,
    UnknownValidators,
    UntrustedValidators,
)
from flchain.base.frozen import replace
from flchain.base.types import MS_PER_S, Address, Hash, Height, Power, UnixMillis
from flchain.ledger.block import hash_header
from flchain.ledger.certificate import verify_certificate
from flchain.ledger.state import ChainState, Validator, compute_validators_hash, list_validators
from flchain.wire.envelope import HEADER_BYTES_MAX, SETS_BYTES_MAX, decode_struct, encode
from flchain.wire.fields import VALIDATORS_MAX, Bytes20, Bytes32, PositiveCounter
from flchain.wire.messages import Certificate, Header

Listed = tuple[tuple[Bytes20, Bytes32, PositiveCounter], ...]
Validators = tuple[Validator, ...]


@dataclass(frozen=True)
class CertifiedHeader:
    """A final header as it travels and as it is stored: its bytes and its certificate.

    Where they are needed, the validators that signed it and those that sign the next come with it (see `encode_sets`).
    """

    header: bytes
    certificate: bytes
    sets: bytes = b""


@dataclass(frozen=True)
class Trust:
    """The newest trusted header, the validators that signed it, and those that sign the block after it.

    A header with the hash `checkpoint` is believed on the operator's word, however old the trust is.
    """

    chain: Hash
    trusting_s: int
    height: Height
    head: Hash
    time_ms: UnixMillis
    signing: Validators
    validators: Validators
    checkpoint: Hash | None = None


def build_trust(state: ChainState, checkpoint: Hash | None = None) -> Trust:
    """Return trust in a state that is known to be the chain's: the genesis, or one's own."""
    validators = tuple(Validator(v.address, v.public_key, v.power) for v in state.validators)
    trusting_s = state.params.trusting_s
    head = state.height, state.head, state.time_ms
    return Trust(state.chain, trusting_s, *head, signing=validators, validators=validators, checkpoint=checkpoint)


def encode_sets(signing: Validators, following: Validators) -> bytes:
    """Encode the validators that sign a block and those that sign the next, to travel beside its header."""
    return encode([list_validators(signing), list_validators(following)])


def decode_sets(header: Header, sets: bytes) -> tuple[Validators, Validators]:
    """Return the two sets whose hashes the header holds.

    Raises UnknownValidators for no bytes, MalformedMessage if wrong.
    """
    if not sets:
        raise UnknownValidators(f"the validators of height {header.height} did not come with it")
    signing, following = (_read(listed) for listed in decode_struct(sets, tuple[Listed, Listed], SETS_BYTES_MAX))
    if compute_validators_hash(signing) != header.validators_hash:
        raise MalformedMessage("not the validators that the header names")
    if compute_validators_hash(following) != header.next_validators_hash:
        raise MalformedMessage("not the next validators that the header names")
    return signing, following


def _read(listed: Listed) -> Validators:
    if not 1 <= len(listed) <= VALIDATORS_MAX or any(compute_address(key) != address for address, key, _ in listed):
        raise MalformedMessage("not a set of validators")
    addresses = [address for address, _, _ in listed]
    if addresses != sorted(set(addresses)):
        raise MalformedMessage("validators are distinct and in order of address")
    return tuple(Validator(Address(address), key, Power(power)) for address, key, power in listed)


def verify_final(trust: Trust, certified: CertifiedHeader, clock_ms: UnixMillis) -> tuple[Header, Trust]:
    """Check that a header is the chain's and final. Return the header, and the trust in it if it is newer.

    Its sets may be empty where the validators are those already trusted. Raises InvalidMessage's subclasses; of these
    UnknownValidators asks for the sets, UntrustedValidators for headers in between, TrustExpired for a checkpoint.
    """
    header = decode_struct(certified.header, Header, HEADER_BYTES_MAX)
    if header.chain != trust.chain:
        raise InvalidBlock("a header of another chain")
    height, block_hash = Height(header.height), hash_header(certified.header)
    signing, following = _get_sets(trust, header, certified.sets)
    certificate = verify_certificate(trust.chain, signing, height, block_hash, certified.certificate)
    # The trusted header itself may come again, beside a model: its signers are not those of the next block.
    if block_hash not in (trust.checkpoint, trust.head):
        _check_age(trust, clock_ms)
        if signing != trust.validators:
            _check_overlap(trust, header, signing, certificate)
    if height <= trust.height:
        return header, trust
    if header.time_ms <= trust.time_ms:
        raise InvalidBlock("a newer header with an older time")
    if height == trust.height + 1 and header.previous != trust.head:
        raise InvalidBlock("the header does not extend the head this device knows")
    time_ms = UnixMillis(header.time_ms)
    place = replace(trust, height=height, head=block_hash, time_ms=time_ms)
    return header, replace(place, signing=signing, validators=following)


def _get_sets(trust: Trust, header: Header, sets: bytes) -> tuple[Validators, Validators]:
    known = compute_validators_hash(trust.validators)
    if header.validators_hash == header.next_validators_hash == known:
        return trust.validators, trust.validators
    return decode_sets(header, sets)


def _check_age(trust: Trust, clock_ms: UnixMillis) -> None:
    """Raise TrustExpired if the trusted header is too old.

    A clock behind the trusted header is wrong, as after a boot without a clock, and proves no age.
    """
    if clock_ms > trust.time_ms + trust.trusting_s * MS_PER_S:
        days = (clock_ms - trust.time_ms) // 86_400_000
        raise TrustExpired(f"the newest header that is trusted here, height {trust.height}, is {days} days old")


def _check_overlap(trust: Trust, header: Header, signing: Validators, certificate: Certificate) -> None:
    if header.height <= trust.height + 1:
        raise BadCertificate("signed by validators that have no power at this height")
    signers = {signing[index].address for index, _ in certificate.signatures}
    power = sum(validator.power for validator in trust.validators if validator.address in signers)
    if 3 * power <= sum(validator.power for validator in trust.validators):
        raise UntrustedValidators(f"of the validators trusted at height {trust.height} only power {power} signed")
