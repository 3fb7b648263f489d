"""The grammar of answers: sums, products, powers, fractions, roots, factorials, binomials, absolute
values and elementary functions, as a tree of tuples.

    ("number", Fraction)  ("name", "x_1")  ("constant", "pi")  ("call", "sin", tree)
    ("+", tree, tree) and so on
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from sppo.scorer.math.tokens import Unreadable

DEEPEST = 60

_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh",
     "tanh", "ln", "log", "lg", "exp")
)  # fmt: skip
_GREEK = frozenset(
    ("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "kappa",
     "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega",
     "Gamma", "Delta", "Theta", "Lambda", "Sigma", "Phi", "Psi", "Omega", "ell")
)  # fmt: skip
_CLOSING: Mapping[str, str] = {"(": ")", "[": "]", "{": "}"}
_ENDS = frozenset(
    ("\\cdot", "\\times", "\\div", "\\pm", "\\mp", "\\le", "\\ge", "\\ne", "\\in", "\\cup", "\\cap")
)

Node = tuple[Any, ...]


class _Cursor:
    """Where a reader stands in the tokens."""

    def __init__(self, found: list[str]) -> None:
        self._tokens = found
        self._at = 0
        self._depth = 0
        self._bars = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unreadable(f"{token!r} where {wanted or 'something'!r} should stand")
        self._at += 1
        return token


class Reader(_Cursor):
    """A recursive descent: `sum` reads an expression from where it stands."""

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable("too deep")
        tree = self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()
            part = self.product()
            tree = ("+", tree, part if sign == "+" else ("-", part))
        self._depth -= 1
        return tree

    def product(self) -> Node:
        if self.peek() in ("+", "-"):
            sign = self.take()
            inner = self.product()
            return inner if sign == "+" else ("-", inner)
        tree = self.factor()
        while True:
            token = self.peek()
            if token in ("*", "\\cdot", "\\times"):
                self.take()
                tree = ("*", tree, self.signed())
            elif token in ("/", "\\div"):
                self.take()
                tree = ("/", tree, self.signed())
            elif self.begins():
                tree = ("*", tree, self.factor())
            else:
                return tree

    def signed(self) -> Node:
        if self.peek() in ("+", "-"):
            sign = self.take()
            return self.factor() if sign == "+" else ("-", self.factor())
        return self.factor()

    def begins(self) -> bool:
        """Whether a factor may stand here, with no sign before it."""
        token = self.peek()
        if token == "|":
            return self._bars == 0
        return bool(token) and (token[0].isalnum() or token[0] in "(.[{\\") and token not in _ENDS

    def factor(self) -> Node:
        mixed = self.peek()[:1].isdigit() and self._tokens[self._at + 1 : self._at + 2] == [
            "\\frac"
        ]
        tree = self.atom()
        if mixed:
            tree = self.mixed(tree)
        while True:
            token = self.peek()
            if token == "^":
                self.take()
                if self.peek() == "\\circ":
                    self.take()
                    tree = ("*", tree, ("/", ("constant", "pi"), ("number", Fraction(180))))
                else:
                    tree = ("^", tree, self.exponent())
            elif token == "!":
                self.take()
                tree = ("!", tree)
            elif token == "%":
                self.take()
                tree = ("/", tree, ("number", Fraction(100)))
            else:
                return tree

    def mixed(self, whole: Node) -> Node:
        """2\\frac{1}{2} is 5/2 where both are whole numbers and the fraction is proper."""
        part = self.atom()
        if part[0] == "/" and all(each[0] == "number" for each in part[1:]):
            over, under = part[1][1], part[2][1]
            if whole[1].denominator == 1 and 0 < over < under:
                return ("+", whole, part)
        return ("*", whole, part)

    def exponent(self) -> Node:
        if self.peek() == "{":
            return self.group("{", "}")
        if self.peek() == "-":
            self.take()
            return ("-", self.exponent())
        tree = self.atom()
        if self.peek() == "^":  # 9^9^9 from the right
            self.take()
            return ("^", tree, self.exponent())
        return tree

    def group(self, opening: str, closing: str) -> Node:
        bars, self._bars = self._bars, 0
        self.take(opening)
        tree = self.sum()
        self.take(closing)
        self._bars = bars
        return tree

    def argument(self) -> Node:
        if self.peek() == "{":
            return self.group("{", "}")
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            raise Unreadable("an argument without braces")
        return self.atom()

    def atom(self) -> Node:
        token = self.peek()
        if token[:1].isdigit() or token[:1] == ".":
            return ("number", Fraction(self.take().replace(",", "")))
        if token in _CLOSING:
            return self.group(token, _CLOSING[token])
        if token == "|":
            self.take()
            self._bars += 1
            tree = self.sum()
            self._bars -= 1
            self.take("|")
            return ("abs", tree)
        if token.isalpha():
            return self.name(self.take())
        if token.startswith("\\"):
            return self.command(self.take()[1:])
        raise Unreadable(token or "the end")

    def name(self, letter: str) -> Node:
        if self.peek() == "_":
            self.take()
            under = self.take()
            if under == "{":
                under = ""
                while self.peek() != "}":
                    under += self.take()
                self.take("}")
            return ("name", f"{letter}_{under}")
        return ("constant", letter) if letter in ("e", "i") else ("name", letter)

    def command(self, name: str) -> Node:
        if name in ("frac", "binom", "dbinom", "tbinom"):
            over, under = self.argument(), self.argument()
            return ("/", over, under) if name == "frac" else ("binom", over, under)
        if name == "sqrt":
            degree: Node = ("number", Fraction(2))
            if self.peek() == "[":
                degree = self.group("[", "]")
            return ("root", self.argument_of_function(), degree)
        if name == "pi":
            return ("constant", "pi")
        if name in _GREEK:
            return self.name(name)
        if name in _FUNCTIONS:
            return self.call(name)
        raise Unreadable(name)

    def argument_of_function(self) -> Node:
        return self.group("(", ")") if self.peek() == "(" else self.argument()

    def call(self, name: str) -> Node:
        """A function, its power or base, and what it is applied to."""
        base: Node = ("number", Fraction(10))
        power: Node | None = None
        if name == "log" and self.peek() == "_":
            self.take()
            base = self.argument()
        if self.peek() == "^":
            self.take()
            power = self.exponent()
            if power == ("-", ("number", Fraction(1))):
                name, power = f"arc{name}", None
                if name not in _FUNCTIONS:
                    raise Unreadable(name)
        inner = self.applied()
        tree: Node = ("call", name, inner, base) if name == "log" else ("call", name, inner)
        return tree if power is None else ("^", tree, power)

    def applied(self) -> Node:
        """What a function is applied to: a group, or all factors that follow without a sign."""
        if self.peek() in _CLOSING:
            tree = self.group(self.peek(), _CLOSING[self.peek()])
            if self.peek() == "^":
                raise Unreadable("a power behind an argument")
            return tree
        tree = self.factor()
        while self.begins() and self.peek()[1:] not in _FUNCTIONS and self.peek() not in _CLOSING:
            tree = ("*", tree, self.factor())
        return tree
