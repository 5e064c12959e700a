"""Every expected error. Its class says whose fault it is: the peer's, the operator's or the disk's."""

from __future__ import annotations


class FlchainError(Exception):
    """Base of every error that FLchain raises on purpose."""


class InvalidMessage(FlchainError):
    """The peer is at fault: count it under `code`, drop the message, go on. Nothing has changed."""

    code = "invalid"


class MalformedMessage(InvalidMessage):
    """The bytes do not have the form or the types that the kind requires."""

    code = "malformed"


class TruncatedMessage(MalformedMessage):
    """The bytes end before the message does."""

    code = "truncated"


class NotCanonical(MalformedMessage):
    """The same message has another encoding, shorter or sorted. Only that one is accepted."""

    code = "not-canonical"


class OversizedMessage(InvalidMessage):
    """Longer than the limit of its kind; refused before it is decoded."""

    code = "oversized"


class UnsignedMessage(InvalidMessage):
    """No signature where one is required."""

    code = "unsigned"


class BadSignature(InvalidMessage):
    """The signature does not match the sender, the message, the kind or the chain."""

    code = "bad-signature"


class WrongChain(InvalidMessage):
    """The message was made for another chain."""

    code = "wrong-chain"


class WrongRound(InvalidMessage):
    """Made for a round that is not the open one. Its code, on the wire and in counts, also means phase and height."""

    code = "wrong-round"


class WrongPhase(InvalidMessage):
    """Made for another phase of the open round."""

    code = WrongRound.code


class WrongHeight(InvalidMessage):
    """Made for a height that is not the next one, or that is no longer, or not yet, of interest."""

    code = WrongRound.code


class UnknownSender(InvalidMessage):
    """The sender is not registered on this chain, or not in this role."""

    code = "unknown-sender"


class DuplicateMessage(InvalidMessage):
    """The same sender has already sent this: a repeat or a replay."""

    code = "duplicate"


class WrongSequence(InvalidMessage):
    """An order that is not the next one of its sender: already processed, or one before it is missing."""

    code = "wrong-sequence"


class InsufficientFunds(InvalidMessage):
    """The sender does not own, or has not delegated, as much as the order spends."""

    code = "insufficient-funds"


class RefusedOrder(InvalidMessage):
    """The rules of stake do not allow this order."""

    code = "refused-order"


class BadEvidence(InvalidMessage):
    """The evidence does not prove an offence that can still be punished."""

    code = "bad-evidence"


class BadCommitment(InvalidMessage):
    """The revealed message does not open the commitment."""

    code = "bad-commitment"


class MalformedUpdate(InvalidMessage):
    """A codec refuses the payload: wrong size, count, position, scale or trailing bytes."""

    code = "malformed-update"


class InvalidBlock(InvalidMessage):
    """A block breaks a rule of the chain."""

    code = "invalid-block"


class BadCertificate(InvalidMessage):
    """The certificate does not carry valid signatures of more than two thirds of the power."""

    code = "bad-certificate"


class BadSeal(InvalidMessage):
    """The seal does not prove the work that its block's target requires."""

    code = "bad-seal"


class UnknownValidators(BadCertificate):
    """The validators have changed and the header came without the new set: it must be asked for."""

    code = "unknown-validators"


class UntrustedValidators(BadCertificate):
    """The validators have changed too much since the trusted header: headers in between are needed."""

    code = "untrusted-validators"


class TrustExpired(InvalidMessage):
    """The trusted header is older than stake stays bonded: only an operator can say which chain is the true one."""

    code = "trust-expired"


class PoolFull(InvalidMessage):
    """The bounded pool has no room for this message: the sender may try again later."""

    code = "pool-full"


class ConfigError(FlchainError):
    """The operator is at fault. `problems` holds everything that was found, each with file and key."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LedgerCorrupt(FlchainError):
    """The disk is at fault: stop, say at which height, offer resync. The height is None where no block is damaged, but
    the file, or what a node keeps beside blocks."""

    def __init__(self, height: int | None, what: str) -> None:
        super().__init__(what if height is None else f"height {height}: {what}")
        self.height = height
        self.what = what


class ModelMismatch(FlchainError):
    """This node computed another model than the chain certifies: keep the old model and say so loudly."""


class TryAgain(FlchainError):
    """Not possible yet: no network, no answer, no genesis. Nothing is lost; try again later."""
