"""Grading, against tables of cases."""

from fractions import Fraction

import pytest

from thoughtscope.traces import grading


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{72}.", "72"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {7}", "7"),
        (r"\boxed{7} and then \boxed{cut of", "7"),
        (r"\boxed{7} within \boxed{}", "7"),
        (r"\boxed{\text{18 apples}}", r"\text{18 apples}"),
        ("no box", None),
        (r"\boxed{", None),
    ],
)
def test_last_boxed(text, expected):
    assert grading.last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("72", 72),
        ("1,234", 1234),
        ("1,234,567.5", Fraction(12345675, 10)),
        ("$18.00", 18),
        (r"\$18", 18),
        ("£28080", 28080),
        ("-3", -3),
        ("−3", -3),
        ("5.", 5),
        (".5", Fraction(1, 2)),
        ("0.50", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"\dfrac{3}{4}", Fraction(3, 4)),
        ("12 apples", 12),
        (r"18\text{ apples}", 18),
        (r"\text{18 apples}", 18),
        ("50%", 50),
        (r"50\%", 50),
        ("1e3", 1000),
        ("x = 5", 5),
        ("10{,}000", 10000),
        (r"10\,000", 10000),
        ("3 or 4", None),
        ("7 = 7.0", 7),
        ("1/0", None),
        ("1" * 5000, None),
        ("none", None),
        ("", None),
    ],
)
def test_parse_number(text, expected):
    assert grading.parse_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7-3=4", ["7", "3", "4"]),
        ("from -5 to 1,200.75, (-2)", ["-5", "1,200.75", "-2"]),
        ("12abc x2 .5", ["12", "2", ".5"]),
        ("1,2,3", ["1", "2", "3"]),
        ("no numbers", []),
    ],
)
def test_numbers(text, expected):
    assert grading.numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "finished", "reference", "predicted", "correct"),
    [
        (r"5 clips, then \boxed{72}, of 90", True, "72", "72", True),
        ("first 48, then 24, so 72.", True, "72", "72", True),
        ("first 48, then 24, so 71.", True, "72", "71", False),
        ("first 48, then", False, "72", "48", None),  # truncated: 48 is no answer
        ("72", False, "72", "72", None),
        (r"\boxed{72} because", False, "72", "72", True),  # truncated after its answer
        (r"\boxed{71} because", False, "72", "71", False),
        ("I cannot say", True, "72", None, False),
        ("I cannot", False, "72", None, None),
        (r"\boxed{72.0}", True, "72", "72.0", True),
        (r"\boxed{1,000}", True, "1000", "1,000", True),
        (r"\boxed{ Monday }", True, "monday", "Monday", True),
        (r"\boxed{\textbf{18}}", True, "18", r"\textbf{18}", True),
        (r"\boxed{}", True, "3", None, False),
        (r"\boxed{12} because 3 + 9, within \boxed{}", True, "12", "12", True),
        ("a loss, -$5.", True, "-5", "-5", True),
        (r"so $1{,}234$", True, "1234", "1,234", True),
        (r"that is \frac{3}{4}", True, "0.75", "3/4", True),
        ("1" * 5000, True, "3", "1" * 5000, False),  # a model that got stuck
    ],
)
def test_grading(text, finished, reference, predicted, correct):
    assert grading.grade(text, finished, reference) == (predicted, correct)
