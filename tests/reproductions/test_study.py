"""What the studies share."""

from __future__ import annotations

import pytest

from reproductions.study import put_between, rounded

BEGIN, END = "<!-- table1: begin -->", "<!-- table1: end -->"


def test_the_readme_has_the_table_between_its_marks_and_the_rest_untouched():
    readme = f"head\n{BEGIN}\nold\n{END}\ntail {END}"
    once = put_between(readme, "table1", "new\n")
    assert once == f"head\n{BEGIN}\nnew\n{END}\ntail {END}"
    assert put_between(once, "table1", "new\n") == once


def test_marks_inside_a_line_have_the_text_on_it():
    assert put_between(f"| a | {BEGIN}old{END} |", "table1", "new") == f"| a | {BEGIN}new{END} |"


@pytest.mark.parametrize("readme", ["", f"{BEGIN} only", f"only {END}", f"{END} turned {BEGIN}"])
def test_a_readme_without_the_marks_in_order_is_refused(readme):
    with pytest.raises(ValueError, match="needs the marks"):
        put_between(readme, "table1", "table")


def test_numbers_of_a_record_are_rounded_wherever_they_stand_and_nothing_else_is():
    record = {"a": [1.23456789, (2, True, "3.14159265")], "b": {"c": -1234567.0, "d": None}}
    assert rounded(record, 3) == {"a": [1.23, [2, True, "3.14159265"]], "b": {"c": -1230000.0, "d": None}}
