"""The table of bad input as docs/refusals.md. After a change of the table: `python -m
tests.support.bad_fields.refusals_page`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tests.support.bad_fields.blocks import build_block_rows
from tests.support.bad_fields.envelopes import build_envelope_rows
from tests.support.bad_fields.files import build_export_rows, build_genesis_rows
from tests.support.bad_fields.heads import build_head_rows
from tests.support.bad_fields.messages import build_message_rows
from tests.support.bad_fields.packets import build_packet_rows
from tests.support.bad_fields.releases import build_release_rows
from tests.support.bad_fields.repeats import build_repeat_rows
from tests.support.bad_fields.state import build_carried_rows, build_state_rows
from tests.support.bad_fields.table import Row

PATH = Path(__file__).parents[3] / "docs" / "refusals.md"
ROOMS = (
    ("Envelopes, packets and topics", ("Signed message", "Packet", "Topic")),
    ("Signed messages", ()),
    (
        "Blocks, certificates, validators",
        ("Header", "Body", "Settlement", "LightBody", "Certificate", "Validators", "CertifiedHeader", "Seal"),
    ),
    ("A whole state, and what is carried", ("State", "CarriedProof")),
    ("Files", ("Genesis", "ChainParams", "ValidatorEntry", "DeviceEntry", "HolderEntry", "Export")),
)
"""The page's parts, with the first words of what is in them; signed messages are all that is in no other."""
INTRODUCTION = """\
# What each wrong field gets

Made from the table of bad input in `tests/support/bad_fields/` by `python -m
tests.support.bad_fields.refusals_page`: do not edit. Every line is tested (`tests/unit/test_refusals.py`): the message
is right in everything but this field, signed anew where the fault is not the signature, and goes into the real entry
point. Except for "taken" and "voted nil" the state is the very same afterwards. The codes are those of
`flchain/base/errors.py`; metrics and logs count them.

- **dropped**: counted under its code, nothing else. **A receipt** tells the sender the code.
- **ignored**: nobody's fault, as a repeat of what is known; not counted.
- **voted nil**: a block that breaks a rule, or is not timely, gets no vote of this miner.
- **stops**: the operator's file; the process does not start, or the command ends, and says where the fault is.
- **taken**: looks wrong and is not, or waits until it can be judged.
"""


@lru_cache
def build_all_rows() -> tuple[Row, ...]:
    """The whole table."""
    return (
        *build_envelope_rows(),
        *build_packet_rows(),
        *build_message_rows(),
        *build_release_rows(),
        *build_repeat_rows(),
        *build_block_rows(),
        *build_head_rows(),
        *build_state_rows(),
        *build_carried_rows(),
        *build_genesis_rows(),
        *build_export_rows(),
    )


def build_page() -> str:
    """The page's text."""
    lines = [INTRODUCTION]
    named = tuple(word for _, words in ROOMS for word in words)
    for title, words in ROOMS:
        lines.append(f"## {title}\n")
        rows = [row for row in build_all_rows() if _belongs(row, words) or (not words and not _belongs(row, named))]
        for what in dict.fromkeys(row.bench.what for row in rows):
            lines += [f"### {what}\n", "| field | wrong | where | code | then |", "| --- | --- | --- | --- | --- |"]
            lines += _list_lines([row for row in rows if row.bench.what == what])
            lines.append("")
    return "\n".join(lines)


def _belongs(row: Row, words: tuple[str, ...]) -> bool:
    return row.bench.what in words or row.bench.what.startswith(tuple(f"{word} " for word in words))


def _list_lines(rows: list[Row]) -> list[str]:
    """One line for all that a field gets for the same code, and for all places where it does."""
    faults: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        faults.setdefault((row.field, row.code, row.effect.value, row.bench.where), []).append(row.wrong)
    places: dict[tuple[str, str, str, str], list[str]] = {}
    for (field, code, effect, where), wrongs in faults.items():
        places.setdefault((field, "; ".join(dict.fromkeys(wrongs)), code, effect), []).append(where)
    ordered = sorted(places.items(), key=lambda item: list(dict.fromkeys(row.field for row in rows)).index(item[0][0]))
    return [
        f"| {field} | {wrong} | {'; '.join(wheres)} | {f'`{code}`' if code else ''} | {effect} |"
        for (field, wrong, code, effect), wheres in ordered
    ]


if __name__ == "__main__":
    PATH.write_text(build_page())
