"""Changes of the frame around a signed message: what is signed, and which spellings of a frame are taken."""

from __future__ import annotations

from tests.mutants.table import change

COSE = "flchain/wire/cose.py"

ROWS = (
    change(
        "signatures are of another structure",
        "RFC 9052 names what is signed Signature1.",
        COSE,
        '_encode(["Signature1", b"", b"", b""])',
        '_encode(["Signature", b"", b"", b""])',
    ),
    change(
        "chain and kind are not signed",
        "They are, beside the payload: a message of one chain is none of another.",
        COSE,
        "_encode_bytes(protected) + _encode_bytes(external) + _encode_bytes(payload)",
        '_encode_bytes(protected) + _encode_bytes(b"") + _encode_bytes(payload)',
    ),
    change(
        "the sender is not signed",
        "It is, in the protected header.",
        COSE,
        "_encode_bytes(protected) + _encode_bytes(external) + _encode_bytes(payload)",
        '_encode_bytes(b"") + _encode_bytes(external) + _encode_bytes(payload)',
    ),
    change(
        "messages name another algorithm",
        "EdDSA is -8.",
        COSE,
        "ALGORITHM_EDDSA = -8",
        "ALGORITHM_EDDSA = -7",
    ),
    change(
        "the sender stands under another key",
        "The key id is 4.",
        COSE,
        "COSE_ALGORITHM, COSE_KEY_ID = 1, 4",
        "COSE_ALGORITHM, COSE_KEY_ID = 1, 5",
    ),
    change(
        "another algorithm is called malformed",
        "Its signature is bad.",
        COSE,
        'raise BadSignature("EdDSA is the one algorithm")',
        'raise MalformedMessage("EdDSA is the one algorithm")',
    ),
    change(
        "any algorithm may be named",
        "EdDSA is the one algorithm.",
        COSE,
        "if header[COSE_ALGORITHM] != ALGORITHM_EDDSA:",
        "if header[COSE_ALGORITHM] is None:",
    ),
    change(
        "a protected header may be spelt in other ways",
        "One spelling: a second one of a vote would spoil certificates.",
        COSE,
        "if protected != encode_protected(sender):",
        "if not protected:",
    ),
    change(
        "a protected header may hold more",
        "Algorithm and key id only.",
        COSE,
        "set(header) != {COSE_ALGORITHM, COSE_KEY_ID}",
        "not set(header) >= {COSE_ALGORITHM, COSE_KEY_ID}",
    ),
    change(
        "a sender may be longer than an address",
        "20 bytes.",
        COSE,
        "not isinstance(sender, bytes) or len(sender) != ADDRESS_BYTES",
        "not isinstance(sender, bytes) or len(sender) < ADDRESS_BYTES",
    ),
    change(
        "the unprotected header may hold something",
        "Nothing: it is not signed, so anybody could change it.",
        COSE,
        "if unprotected != {} or",
        "if unprotected is None or",
    ),
    change(
        "a frame without a tag is called malformed",
        "It is unsigned, and counted so.",
        COSE,
        'raise UnsignedMessage("not a tagged COSE_Sign1")',
        'raise MalformedMessage("not a tagged COSE_Sign1")',
    ),
    change(
        "an empty signature is a bad one",
        "It is none: the message is unsigned.",
        COSE,
        "if not signature:",
        "if signature is None:",
    ),
    change(
        "a frame may have a fifth part",
        "Four.",
        COSE,
        "if not isinstance(parts, list) or len(parts) != 4:",
        "if not isinstance(parts, list) or len(parts[:4]) != 4:",
        "protected, unprotected, payload, signature = parts",
        "protected, unprotected, payload, signature = parts[:4]",
    ),
)
