"""What an answer says, as a mathematician reads it: an exact number, or that it can't be read.

A reader of our own: math-verify 0.9 takes `2 1/2` for 3/2 and `1 000` for 0, and only an alarm stops it, which doesn't
come within one long power. Here the length of a text, its depth and the size of each result are bounded before anything
is computed.
"""

import re
import unicodedata
from fractions import Fraction
from math import factorial, isqrt

MAX_LENGTH = 400
"""Characters of an answer that is read."""
MAX_DEPTH = 30
"""Brackets in brackets."""
MAX_BITS = 8192
"""Bits of a numerator or denominator: some 2,400 digits."""
MAX_FACTORIAL = 200

_NAMES = {
    "left": "", "right": "", "displaystyle": "", "textstyle": "", "dfrac": r"\frac", "tfrac": r"\frac",
    "cfrac": r"\frac", "cdot": "*", "times": "*", "div": "/", "quad": " ", "qquad": " ", "percent": "%",
    "degree": " ", "circ": " ", "approx": "=", "pounds": " ", "euro": " ",
}  # fmt: skip
_SIGNS = str.maketrans(
    dict.fromkeys("–—‒‑−﹣－", "-") | dict.fromkeys("·⋅∙×∗＊", "*") | dict.fromkeys("$£€¥₹°", " ")
    | {"÷": "/", "∕": "/", "⁄": "/", "’": "'", "≈": "=", "\0": "#", "\u200b": None, "\ufeff": None}
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_GAP = r"(?:\\[,;:! ]|\{,\}|,\\!|[ ~'\u00a0\u2009\u202f])"
_GROUPED = re.compile(rf"(?<![\d.,])[1-9]\d{{0,2}}({_GAP}|,)\d{{3}}(?:\1\d{{3}})*(?![\d/]|\s+\d+\s*/)(?!,\d)")
_REPEATING = re.compile(r"(\d+)\.(?:(\d*)\\(?:overline|bar)\s*\{(\d+)\}|\((\d+)\))")
_TEXT = re.compile(r"\\(?:text\w*|math(?:rm|bf|it|sf|tt)|mbox|boldsymbol|bm)\s*\{([^{}]*)\}")
_CHANGING = re.compile(
    r"not|no|non|except|negative|minus|plus|half|halves|twice|double|triple|dozen|dozens|hundred|hundreds|"
    r"thousand|thousands|million|millions|billion|trillion|over|less|more|than|least|most|under|above|below|"
    r"within|to|or|and|from|between|times|divided|squared|cubed|root|quarter|quarters|third|thirds|fourth|"
    r"fourths|fifth|fifths|tenth|tenths|remainder|mod|base|choose|factorial|point|none|either|neither|"
    r"sqrt|log|ln|exp|sin|cos|tan|mil|mn|bn|lakh|crore|grand|gross|score|pairs?"
)
"""Words that make another number of the one beside them; an answer with one isn't read."""
_TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3}(?![\d.]))?)"
    r"|(?P<name>\\[A-Za-z]+)|(?P<sign>[-+*/^!(){}\[\]√])|(?P<gap>\s+)"
)
_UNIT = re.compile(r"(?<=\d)\s*(?:km/h|m/s|[cmk]m|[km]g|lbs?|ft|oz|ml|hrs?|min|am|pm|st|nd|rd|th)(?![A-Za-z])")
_NAME = re.compile(r"(?<![\\A-Za-z])[A-Za-z]\w*(?:\([A-Za-z]\))?(?=\s*=)|(?<==)\s*[A-Za-z]\s*$")
"""What is said to equal a number."""
_A_WORD = re.compile(r"(?<![\\A-Za-z\d.])[A-Za-z]{2,}'?[a-z]*(\()?|(?<=\d)\s+[A-Za-z]{2,}(\()?")
_POWER_OF_WORD = re.compile(r"\0\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d)")
_WORDS_AT_ENDS = re.compile(r"(?:[\s/,:]*\0)+(?=[\s.,;:?]*(?:$|[-+*/=)]))|(?:^|(?<=[-+*/=(]))(?:[\s,:.]*\0[\s,:]*)+")


class _Unreadable(Exception):
    """It isn't arithmetic, may be read in several ways, or is too large."""


def value(text: str) -> Fraction | None:
    """Return the exact value of an answer such as `1,234.50`, `$-3`, `2\\frac{1}{2}`, `10^6` or `12 apples`, or None.

    None where it has no rational value, several, or can be read in several ways: `3 or 4`, `5x`, `3–4`, `\\sqrt 2`.
    Words and units beside a number are passed over, but for those that make another number of it; `50%` is 50.
    """
    if len(text) > MAX_LENGTH:
        return None
    try:
        sides = [_side(side) for side in _plain(text).split("=")]
        known = [side for side in sides if side is not None]
        return known[0] if known and all(one == known[0] for one in known) else None
    except (_Unreadable, ArithmeticError, ValueError):
        return None


def choice(text: str) -> str:
    """Return a text as words and letters are compared: without blanks, case, LaTeX's styles, and brackets around it."""
    bare = re.sub(r"[\s$~]|\\[,;:! ]", "", _TEXT.sub(r"\1", text)).casefold().rstrip(".")
    return re.sub(r"^\(([^()]+)\)$", r"\1", bare)


_WORD = "\0"
"""Stands for a word or a unit that is passed over at either end of a term."""


def _plain(text: str) -> str:
    """Return a text in few signs: ASCII digits, no groups of digits, styles, currencies or words."""
    if re.search(r"\d[\s$£€¥₹]*[–—][\s$£€¥₹]*\d|\d-|\d\s+-\S", text):
        raise _Unreadable  # a range, or a difference
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda raised: "^{" + raised[0].translate(_RAISED) + "}", text)
    text = re.sub(r"(\d?)([¼-¾⅐-⅞↉])", lambda m: f"{m[1]} {unicodedata.normalize('NFKC', m[2])}", text)
    text = re.sub(r"\\[$%]", lambda mark: mark[0][1], text.translate(_SIGNS))
    text = re.sub(r"\d", lambda digit: str(int(digit[0])), unicodedata.normalize("NFKC", text))
    text = re.sub(r"\\([A-Za-z]+)", lambda name: _NAMES.get(name[1], name[0]), _TEXT.sub(_words_of, text))
    text = re.sub(r"\^\s*\{?\s*\\?circ\s*\}?|\^\s*\{\s*\}|\^\s*(?=$|[CF]\b)", " ", text)
    text = _REPEATING.sub(_repeating, text)
    text = _GROUPED.sub(lambda number: re.sub(rf"{_GAP}|,", "", number[0]), text)
    text = re.sub(r"\\[,;:! ()\[\]]|~", " ", text)
    text = _A_WORD.sub(_word, _NAME.sub("", _UNIT.sub(_WORD, text)))
    text = _WORDS_AT_ENDS.sub(" ", _POWER_OF_WORD.sub(_WORD, text.replace("%", " ")))
    return re.sub(r"[\s.,;:?]+$|^[\s:,.]+(?!\d)", "", re.sub(r"\(\s*\)", " ", text))


def _words_of(text: re.Match[str]) -> str:
    inner = text[1].strip()
    return _WORD if re.fullmatch(r"[A-Za-z]", inner) else f" {text[1]} "  # a unit of one letter, set upright


def _word(found: re.Match[str]) -> str:
    is_function = found[1] or found[2]  # sqrt(16), abs(-5)
    if is_function or _CHANGING.fullmatch(found[0].strip().lower()):
        raise _Unreadable
    return f" {_WORD} "


def _repeating(number: re.Match[str]) -> str:
    whole, fixed, period = number[1], number[2] or "", number[3] or number[4]
    found = Fraction(int(whole + fixed + period) - int(whole + fixed), (10 ** len(period) - 1) * 10 ** len(fixed))
    return f"({found.numerator}/{found.denominator})"


def _side(text: str) -> Fraction | None:
    """Return the value of one side of an equation; None for a side that is empty, such as a name was."""
    if not text.strip():
        return None
    reader = _Reader(text.strip())
    found = reader.sum(0)
    if reader.kind is not None:
        raise _Unreadable
    return found


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise _Unreadable
    return number


class _Reader:
    """Reads arithmetic by recursive descent: sums, products, signs, powers, factorials, roots, fractions, brackets."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, bool]] = []  # kind, token, whether a blank is before it
        place, gap = 0, False
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise _Unreadable
            if found.lastgroup == "gap":
                gap = True
            else:
                self.tokens.append((str(found.lastgroup), found[0], gap))
                gap = False
            place = found.end()
        self.at = 0

    @property
    def kind(self) -> str | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    @property
    def mark(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.mark
        if not token or (wanted and token not in wanted):
            raise _Unreadable
        self.at += 1
        return token

    def sum(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise _Unreadable
        found = self.product(depth)
        while self.mark in ("+", "-"):
            sign = self.take()
            other = self.product(depth)
            found = _bounded(found + other if sign == "+" else found - other)
        return found

    def product(self, depth: int) -> Fraction:
        if self.mark in ("+", "-"):
            sign = self.take()
            if self.mark in ("+", "-"):
                raise _Unreadable
            return self.product(depth) * (1 if sign == "+" else -1)
        found, operation = self.mixed(depth), "*"
        while self.mark in ("*", "/", "(", "["):
            if self.mark in ("*", "/"):
                operation = self.take()
                negative = self.mark == "-" and bool(self.take())
                other = self.power(depth) * (-1 if negative else 1)
                found = _bounded(found * other if operation == "*" else found / other)
            elif operation == "/" or "." in self.tokens[self.at - 1][1]:
                raise _Unreadable  # 6/2(3), 1.5(2)
            else:
                found = _bounded(found * self.power(depth))
        return found

    def mixed(self, depth: int) -> Fraction:
        """Read a factor, or a whole number with a proper fraction behind it: `2 1/2`, `2\\frac12`."""
        kind, token = self.kind, self.mark
        found = self.power(depth)
        if kind == "number" and token.isdigit() and found == int(token):
            if self.mark == r"\frac":
                part = self.power(depth)
            elif self.kind == "number" and self.tokens[self.at][2]:
                top = self.take()
                self.take("/")
                bottom = self.take()
                if not (top.isdigit() and bottom.isdigit()):
                    raise _Unreadable
                part = Fraction(int(top), int(bottom))
            else:
                return found
            if not 0 < part < 1:
                raise _Unreadable
            return found + part
        return found

    def power(self, depth: int) -> Fraction:
        base = self.factor(depth)
        while self.mark == "!":
            self.take()
            if base.denominator != 1 or not 0 <= base <= MAX_FACTORIAL or self.mark == "!":
                raise _Unreadable
            base = Fraction(factorial(int(base)))
        if self.mark != "^":
            return base
        self.take()
        exponent = self.argument(depth)
        if self.mark == "^":
            raise _Unreadable
        if exponent.denominator != 1:
            base, exponent = _root(base, exponent.denominator), Fraction(exponent.numerator)
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size * abs(exponent) > MAX_BITS:
            raise _Unreadable
        return Fraction(base ** int(exponent))

    def argument(self, depth: int) -> Fraction:
        """Read an exponent: what is in brackets, else a number, perhaps with a sign before it."""
        if self.mark == "{":
            return self.bracketed(depth)
        if self.mark == "(":
            return self.bracketed(depth)
        negative = self.mark == "-" and bool(self.take())
        if self.kind != "number":
            raise _Unreadable
        return Fraction(self.take()) * (-1 if negative else 1)

    def bracketed(self, depth: int) -> Fraction:
        closing = {"(": ")", "[": "]", "{": "}"}[self.take("(", "[", "{")]
        found = self.sum(depth + 1)
        self.take(closing)
        return found

    def factor(self, depth: int) -> Fraction:
        if self.kind == "number":
            return _bounded(Fraction(self.take()))
        if self.mark in ("(", "[", "{"):
            return self.bracketed(depth)
        if self.mark == r"\frac":
            self.take()
            top, bottom = self.digit_or_braces(depth), self.digit_or_braces(depth)
            return _bounded(top / bottom)
        if self.mark in (r"\sqrt", "√"):
            self.take()
            index = int(self.bracketed(depth)) if self.mark == "[" else 2
            if self.kind == "number" and len(self.mark) > 1:
                raise _Unreadable  # TeX has one digit under that root, whatever was meant
            return _root(self.digit_or_braces(depth), index)
        raise _Unreadable

    def digit_or_braces(self, depth: int) -> Fraction:
        """Read an argument of `\\frac` or `\\sqrt`: of bare digits it is the first alone, as in `\\frac12`."""
        if self.mark in ("{", "("):
            return self.bracketed(depth)
        kind, token, _ = self.tokens[self.at] if self.kind else ("", "", False)
        if kind != "number" or not token.isdigit() or len(token) > 2:
            raise _Unreadable
        if len(token) == 1:
            self.at += 1
        else:
            self.tokens[self.at] = (kind, token[1:], False)
        return Fraction(token[0])


def _root(number: Fraction, index: int) -> Fraction:
    """Return a rational root. Raises _Unreadable where there is none, or the index isn't from 2 to 10."""
    if not 2 <= index <= 10 or number < 0:
        raise _Unreadable
    parts = []
    for part in (number.numerator, number.denominator):
        low = isqrt(part) if index == 2 else _whole_root(part, index)
        if low**index != part:
            raise _Unreadable
        parts.append(low)
    return Fraction(*parts)


def _whole_root(number: int, index: int) -> int:
    low, high = 0, 1 << (number.bit_length() // index + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**index <= number else (low, middle - 1)
    return low
