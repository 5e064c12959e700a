"""Changes of what a node keeps: messages that it has verified, updates that it has decoded, answers about a value."""

from __future__ import annotations

from tests.mutants.table import change

BASE = "flchain/base"
CODECS = "flchain/codecs"
LEDGER = "flchain/ledger"
RULES = "flchain/rules"
WIRE = "flchain/wire"

ROWS = (
    change(
        "what was verified is good for any chain",
        "For the chain that it was signed for.",
        WIRE,
        "is_the_same = letter.public_key == public_key and letter.chain == chain",
        "is_the_same = letter.public_key == public_key",
    ),
    change(
        "what was verified is good under any key",
        "Under the key that it was verified with.",
        WIRE,
        "is_the_same = letter.public_key == public_key and letter.chain == chain",
        "is_the_same = letter.chain == chain",
    ),
    change(
        "what was verified is not looked at again",
        "Chain and key are.",
        WIRE,
        "return letter if is_the_same else verify_envelope(letter.envelope, chain, public_key)",
        "return letter",
    ),
    change(
        "what was verified is good in any round",
        "In the open round alone.",
        RULES,
        "if letter.number != state.round.number:",
        "if not isinstance(letter, Verified) and letter.number != state.round.number:",
    ),
    change(
        "the sender of what was verified is not asked for",
        "It must be one that may send this.",
        RULES,
        "    return verify_letter(letter, state.chain, get_key_for(state, letter.kind, letter.sender))\n",
        "    if isinstance(letter, Verified):\n"
        "        return verify_letter(letter, state.chain, letter.public_key)\n"
        "    return verify_letter(letter, state.chain, get_key_for(state, letter.kind, letter.sender))\n",
    ),
    change(
        "an order that was verified is good under any key",
        "Under its account's.",
        RULES,
        "    said = verify_letter(letter, state.chain, account.public_key)\n",
        "    if isinstance(letter, Verified):\n"
        "        return verify_letter(letter, state.chain, letter.public_key)\n"
        "    said = verify_letter(letter, state.chain, account.public_key)\n",
    ),
    change(
        "an update that was opened need not open its commitment",
        "The one that is in the chain.",
        RULES,
        "if state.round.commitments.get(said.sender) != commitment:",
        "if said.opened is None and state.round.commitments.get(said.sender) != commitment:",
    ),
    change(
        "an update that was opened may come in any phase",
        "In the phase of updates.",
        RULES,
        "        if letter.kind is not kind:\n",
        "        if letter.kind is not kind and getattr(letter, 'opened', None) is None:\n",
    ),
    change(
        "two messages of one sender are in one block",
        "One.",
        RULES,
        "if letter.sender <= last:",
        "if letter.sender < last:",
    ),
    change(
        "each message is compared with the first sender",
        "With the one before.",
        RULES,
        "        last = letter.sender\n",
        "        last = last or letter.sender\n",
    ),
    change(
        "of two that wait of one sender the last is chosen",
        "The first.",
        RULES,
        "if letter.kind is not kind or needed > room or letter.sender in chosen:",
        "if letter.kind is not kind or needed > room:",
    ),
    change(
        "commitments are in the order of their blocks",
        "In order of address.",
        RULES,
        "commits=tuple(sorted((*round_.commits, *new)))",
        "commits=(*round_.commits, *new)",
    ),
    change(
        "pledges are in the order of their blocks",
        "In order of address.",
        RULES,
        "pledges=tuple(sorted((*round_.pledges, *pledges)))",
        "pledges=(*round_.pledges, *pledges)",
    ),
    change(
        "updates are in the order of their blocks",
        "In order of address.",
        RULES,
        "reveals=tuple(sorted(reveals, key=lambda update: update.sender))",
        "reveals=reveals",
    ),
    change(
        "commitments to scores are in the order of their blocks",
        "In order of address.",
        RULES,
        "score_commits=tuple(sorted((*state.round.score_commits, *new)))",
        "score_commits=(*state.round.score_commits, *new)",
    ),
    change(
        "scores are in the order of their blocks",
        "In order of address.",
        RULES,
        "reveals = sorted((*state.round.score_reveals, *new), key=lambda item: item.scorer)",
        "reveals = (*state.round.score_reveals, *new)",
    ),
    change(
        "a later block's messages take the place of an earlier one's",
        "They are added.",
        RULES,
        "reveals = (*state.round.reveals, *(build_update",
        "reveals = (*(), *(build_update",
    ),
    change(
        "of a block's messages the first is added",
        "All are.",
        RULES,
        "return TRANSACTION_RULES[kind].add(state, said)",
        "return TRANSACTION_RULES[kind].add(state, said[:1])",
    ),
    change(
        "a vote that was heard stands for other validators",
        "For the one that has signed it.",
        LEDGER,
        "known(vote, validator.address, signature)",
        "any(known(vote, other.address, signature) for other in validators)",
    ),
    change(
        "a vote that was heard stands for prevotes",
        "For its own type.",
        LEDGER,
        "known(vote, validator.address, signature)",
        "known(Vote(height, certificate.view, 1, block_hash), validator.address, signature)",
    ),
    change(
        "a vote of the next view stands for this one",
        "For its own view.",
        LEDGER,
        "known(vote, validator.address, signature)",
        "known(Vote(height, certificate.view + 1, PRECOMMIT, block_hash), validator.address, signature)",
    ),
    change(
        "a certificate of heard votes may be of a few",
        "More than two thirds of the power, heard or not.",
        LEDGER,
        "        power += validator.power\n    if",
        "        power += validator.power * (3 if known(vote, validator.address, signature) else 1)\n    if",
    ),
    change(
        "falls are not kept of a sparse update",
        "All that is not 0 is kept.",
        CODECS,
        "positions: npt.NDArray[Any] = np.flatnonzero(vector)",
        "positions: npt.NDArray[Any] = np.flatnonzero(vector > 0)",
    ),
    change(
        "a sparse update is kept one place further",
        "Each value has its place.",
        CODECS,
        "vector[self.positions] = self.values",
        "vector[self.positions - 1] = self.values",
    ),
    change(
        "a sparse update is kept without its signs",
        "With them.",
        CODECS,
        "return DecodedUpdate(vector[positions],",
        "return DecodedUpdate(abs(vector[positions]),",
    ),
    change(
        "a dense update is kept without its signs",
        "With them.",
        CODECS,
        "return DecodedUpdate(vector, None, vector.size)",
        "return DecodedUpdate(abs(vector), None, vector.size)",
    ),
    change(
        "what is kept of an update weighs as claimed",
        "As the cap allows.",
        RULES,
        "    return RevealedUpdate(said.sender, samples, said.message.update, decoded)\n",
        "    weight = said.message.samples if decoded is not None else samples\n"
        "    return RevealedUpdate(said.sender, weight, said.message.update, decoded)\n",
    ),
    change(
        "a new value keeps what was worked out of the old one",
        "It is asked anew.",
        BASE,
        "            fields = {name: fields[name] for name in names}\n",
        "            pass\n",
    ),
    change(
        "two questions about a value share an answer",
        "Each has its own.",
        BASE,
        'name = f"_kept_{compute.__module__}.{compute.__qualname__}"',
        'name = f"_kept_{compute.__module__}"',
    ),
)
