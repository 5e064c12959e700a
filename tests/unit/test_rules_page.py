"""The page that lists all rules by name."""

from __future__ import annotations

from tests.support.rules_page import PATH, build_page


def test_the_page_lists_every_rule() -> None:
    """docs/rules.md is what the tables give; after a change: python -m tests.support.rules_page."""
    assert PATH.read_text(encoding="utf-8") == build_page()
