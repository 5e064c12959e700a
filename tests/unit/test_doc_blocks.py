"""Pages whose command blocks tests execute: each block says where it runs, or why it does not."""

from __future__ import annotations

import pytest

from tests.support.doc_blocks import Block, ByHand, UntriedBlock, parse_page, read_page

PAGE = """\
# A page

Some words, then **on each board**:

    apt install ./a.deb
    systemctl start a

It ends with 75 at first. **On the edge server**, as root:

<!-- exit code: 75 -->

    enroll \\
        --token T

    echo again
<!-- by hand: copy-a-file -->

What it prints:

<!-- not run: output -->

    a is fine
"""


def test_a_page_is_read_in_order() -> None:
    """Blocks keep their inner indentation and empty lines, and know their machine, exit code and place in the page."""
    assert tuple(parse_page(PAGE)) == (
        Block(5, "A page", ("board",), "apt install ./a.deb\nsystemctl start a"),
        Block(12, "A page", ("edge",), "enroll \\\n    --token T\n\necho again", exit_code=75),
        ByHand(16, "A page", "copy-a-file"),
        Block(22, "A page", (), "a is fine", not_run="output"),
    )


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("Words:\n\n    ls\n", "page:3: neither a place"),
        ("**On the moon**:\n\n    ls\n", "page:3: unknown place 'on the moon'"),
        ("**On each board**:\n\n    ls\n\n## Next\n\n    ls\n", "page:7: neither a place"),
    ],
)
def test_a_block_that_nobody_tries_is_an_error(page: str, why: str) -> None:
    """A block without its machine is named with its line, also one after a heading; nothing is skipped in silence."""
    with pytest.raises(UntriedBlock, match=why):
        tuple(parse_page(page))


@pytest.mark.parametrize("name", ["install.md", "flash.md", "update.md"])
def test_the_pages_say_where_each_block_runs(name: str) -> None:
    """The pages that tests execute can be read whole, and some of their blocks are run on each machine they need."""
    run = [step for step in read_page(name) if isinstance(step, Block) and not step.not_run]
    assert {machine for block in run for machine in block.machines} >= {"operator", "board"}
