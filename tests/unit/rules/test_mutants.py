"""The table of small changes to the rules: it fits the source, and the recorded vectors notice those tried here.

`make mutants` tries them all.
"""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import main
from tests.mutants.mutants import ALWAYS, MUTANTS, PART, choose_part
from tests.mutants.runner import run_all, run_one
from tests.mutants.table import StaleRow, change, join, mutate

SUBJECTS = (
    *("reputation", "rewards", "scores", "model_step", "settlement", "blocks", "transactions", "phases", "orders"),
    *("dpos", "pok", "proposer", "aggregation", "state_tree", "snapshot", "certificate", "decoded", "frozen"),
    *("envelope", "follow", "trust", "body"),
)
CONSENSUS = "flchain/consensus"
HARMLESS = change("a sum", "It comes to the same.", CONSENSUS, "KNOWLEDGE_MIN = 1", "KNOWLEDGE_MIN = 0 + 1")


def test_every_row_fits_the_source():
    """Each text occurs exactly once in its room, so that no row tests nothing."""
    for mutant in MUTANTS.values():
        for edit in mutant.edits:
            assert edit.old != edit.new, mutant.name
        assert mutate(mutant), mutant.name


def test_the_table_is_about_every_rule():
    """At least 60 rows, some of each subject, those that once passed every test among them."""
    assert len(MUTANTS) >= 60
    changed = {file for mutant in MUTANTS.values() for file in mutate(mutant)}
    for subject in SUBJECTS:
        assert any(subject in file for file in changed), subject
    assert set(ALWAYS) <= set(MUTANTS)
    assert all(mutant.claim.endswith(".") for mutant in MUTANTS.values())


def test_vectors_notice_the_changes_tried_here():
    """The vectors pass as the rules are, and alone catch each of twelve changes from all over the table."""
    chosen = choose_part()
    assert len({mutant.name for mutant in chosen}) == PART
    outcomes = run_all(chosen, 2, lambda outcome: None)
    assert [outcome for outcome in outcomes if not outcome.is_as_wanted] == []
    assert len(outcomes) == PART + 1


def test_a_change_that_nothing_notices_survives_and_fails(capsys):
    """It is named, and the command ends with an error."""
    assert not run_one(HARMLESS).is_as_wanted
    assert main(["--jobs", "1"], {HARMLESS.name: HARMLESS}) == 1
    printed = capsys.readouterr()
    assert f"error: {HARMLESS.name}: survives" in printed.err
    assert "FAILED a sum" in printed.out


def test_a_change_that_does_not_load_is_not_caught():
    """A row with a slip of its own must not pass for one that a vector has noticed."""
    outcome = run_one(change("a slip", "It loads.", CONSENSUS, "KNOWLEDGE_MIN = 1", "KNOWLEDGE_MIN = = 1"))
    assert not outcome.is_as_wanted
    assert outcome.broken is not None
    assert "SyntaxError" in outcome.broken


def test_a_row_finds_its_text_in_whichever_file_of_the_room_holds_it(tmp_path):
    """A rule moves from file to file of its room and no row changes; several edits of one file add up."""
    folder = tmp_path / "room" / "folder"
    folder.mkdir(parents=True)
    (tmp_path / "room" / "one.py").write_text("a = 1\n")
    (folder / "two.py").write_text("b = 2\nc = 3\n")
    row = change("three", "One, two, three.", "room", "b = 2", "b = 4", "a = 1", "a = 5", "c = 3", "c = 6")
    assert mutate(row, tmp_path) == {"room/one.py": "a = 5\n", "room/folder/two.py": "b = 4\nc = 6\n"}


@pytest.mark.parametrize(
    ("room", "old", "message"),
    [
        ("room", "no such text", "occurs 0 times in room"),
        ("room", "= 1", "occurs 2 times in room"),
        ("room/one.py", "x", "occurs 2 times in room/one.py"),
        ("elsewhere", "a = 1", "no sources in elsewhere"),
    ],
)
def test_a_text_that_does_not_occur_once_is_an_error(room, old, message, tmp_path):
    """In all files of its room together; nor may there be no such room."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text("x = 1\nx = 0\n")
    (tmp_path / "room" / "two.py").write_text("y = 1\n")
    with pytest.raises(StaleRow, match=message):
        mutate(change("stale", "It fits.", room, old, "z"), tmp_path)


def test_a_row_that_does_not_fit_ends_the_command(capsys):
    """Before anything runs, and it is named."""
    assert main([], {"stale": change("stale", "It fits.", CONSENSUS, "no such text", "x")}) == 2
    assert "stale" in capsys.readouterr().err


def test_two_rows_of_one_name_are_an_error():
    """A name says which change is meant."""
    with pytest.raises(StaleRow, match="two rows"):
        join((HARMLESS,), (HARMLESS,))


def test_the_list_names_each_change(capsys):
    """`--list` runs nothing, `--only` chooses by name, and a name that nothing has is an error."""
    assert main(["--list", "--only", "their leaf"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) >= 5
    assert all("their leaf" in line and "flchain/" in line for line in listed)
    with pytest.raises(SystemExit):
        main(["--only", "no such change"])
