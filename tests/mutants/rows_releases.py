"""Changes of what boards make of an operator's releases."""

from __future__ import annotations

from tests.mutants.table import change

RULES = "flchain/rules/releases.py"

ROWS = (
    change(
        "anybody's release is taken",
        "The operator's.",
        RULES,
        "if envelope.sender != compute_address(operator_key):",
        "if not envelope.sender:",
    ),
    change(
        "any order of the operator's is a release",
        "A release is.",
        RULES,
        "if envelope.kind is not Kind.RELEASE:",
        "if envelope.kind is None:",
    ),
    change("packages may come twice", "Once.", RULES, "sorted(set(places))", "sorted(places)"),
    change(
        "packages may come in any order",
        "In one.",
        RULES,
        "if places != sorted(set(places)):",
        "if len(places) != len(set(places)):",
    ),
    change(
        "another release under a known number counts",
        "It does not.",
        RULES,
        "heard.sequence > known.sequence or heard == known",
        "heard.sequence >= known.sequence",
    ),
    change(
        "an older release counts",
        "It does not.",
        RULES,
        "heard.sequence > known.sequence or heard == known",
        "heard.sequence != known.sequence or heard == known",
    ),
    change(
        "a repeated release is a fault",
        "It is no news.",
        RULES,
        "heard.sequence > known.sequence or heard == known",
        "heard.sequence > known.sequence",
    ),
    change("every version tries the same boards first", "Others.", RULES, "board + version.encode()", "board"),
    change("every chain tries the same places first", "Others.", RULES, "chain + board + version", "board + version"),
    change("places are counted from a shorter hash", "Of eight bytes.", RULES, "PLACE_BYTES = 8", "PLACE_BYTES = 7"),
    change("places are in thousandths", "In ten-thousandths.", RULES, '"big") % SHARE_ALL', '"big") % 1_000'),
    change(
        "a board at the share takes part",
        "Below it.",
        RULES,
        "release.version, board) < release.share_bp",
        "release.version, board) <= release.share_bp",
    ),
    change(
        "the same version is newer",
        "It is not.",
        RULES,
        "return parse_version(version) > parse_version(than)",
        "return parse_version(version) >= parse_version(than)",
    ),
    change(
        "versions are compared as text",
        "As numbers.",
        RULES,
        "return tuple(int(part) for part in parts)",
        "return tuple(part for part in parts)",
    ),
    change("a version may have four numbers", "Three.", RULES, "if len(parts) != 3 or not", "if not"),
    change(
        "digits of other scripts are numbers",
        "Those of ASCII.",
        RULES,
        "part.isascii() and part.isdecimal()",
        "part.isdecimal()",
    ),
    change(
        "any suite's package will do",
        "The board's.",
        RULES,
        "(p.suite, p.architecture) == (suite, architecture)",
        "p.architecture == architecture",
    ),
    change(
        "any architecture's package will do",
        "The board's.",
        RULES,
        "(p.suite, p.architecture) == (suite, architecture)",
        "p.suite == suite",
    ),
    change(
        "a halted release is installed",
        "It is not.",
        RULES,
        "if release.state is ReleaseState.HALTED:",
        "if release.state is None:",
    ),
    change(
        "an older version is installed",
        "It is not.",
        RULES,
        "if not is_newer(release.version, installed.version):",
        "if release.version == installed.version:",
    ),
    change(
        "a bad version is tried again",
        "Never.",
        RULES,
        "if release.version in installed.bad_versions:",
        "if release.version in ():",
    ),
    change(
        "a missing package is no obstacle",
        "It is.",
        RULES,
        "if find_package(release, installed.suite, installed.architecture) is None:",
        "if not release.packages:",
    ),
)
