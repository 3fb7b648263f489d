"""A scorer as it is called: found by its import string, made with its options, asked in the form
that it wants, and its answer as plain numbers.

    def score(question, completions, data)      three parameters: the text and the row
    def score(request)                          one: everything, see `Request`
    class Ranker: ...                           an object made with the options of [scorer.options]

Each may be async. A class may have `setup`, `close`, `counters` and `batch`: with `batch` above 1
its `score` takes a list of requests and returns a list of answers. Standard library only: a
scorer's process begins with this module and the user's.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import os
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LONGEST_WORDS = 500
_SAME_FOR_ANY_COMPLETION = (NameError, ImportError, NotImplementedError, SyntaxError)
_FORMS = "write it as score(request) or score(question, completions, data)"
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One group, with the fields of `sppo.types.ScoreRequest`."""

    uid: str
    question: str
    completions: Sequence[str]
    data: Mapping[str, Any]
    messages: Sequence[tuple[str, str]] = ()
    finish_reasons: Sequence[str] = ()
    lengths: Sequence[int] = ()
    versions: Sequence[str] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Request:
        """From JSON, in which a pair is a list."""
        messages = tuple((role, content) for role, content in fields.get("messages", ()))
        return cls(**{**fields, "messages": messages})


class OptionError(Exception):
    """The user's mistake in [scorer.options], with the setting named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A scorer that is ready to be asked."""

    call: Callable[[list[Request]], Any]
    """Takes as many requests as `batch` says at most, returns as many answers, or an awaitable of
    them.
    """
    concurrent: bool
    """Whether `call` is async."""
    batch: int
    file: str
    """Of the user's module, for messages."""
    keeps_time: bool = False
    """Whether an async scorer has deadlines of its own: a group in hand is late only once the whole
    process has hung.
    """
    counters: Callable[[], Mapping[str, float]] | None = None
    """What the scorer counts itself since it was made, by name."""
    setup: Callable[[], Any] | None = None
    close: Callable[[], Any] | None = None


def find(target: str) -> tuple[Any, str]:
    """What an import string `module:name` names, and the file of its module. Raises whatever the
    import does.
    """
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    file = getattr(found, "__file__", None) or ""
    for name in attribute.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{attribute} is no function")
    return found, file


def load(name: str, target: str, options: Mapping[str, Any]) -> Loaded:
    """The scorer that `target` names, made with its options.

    Raises OptionError for options that it has not, TypeError for a form that cannot be called, and
    whatever the user's module raises.
    """
    found, file = find(target)
    if not inspect.isclass(found):
        for key in options:
            raise OptionError(
                f"scorer.options.{key}: {name} is a function, which has no options; a class has"
            )
        return Loaded(call=_caller(found, name), concurrent=_is_async(found), batch=1, file=file)
    made = make(name, found, options)
    score, batch = getattr(made, "score", None), getattr(made, "batch", 1)
    if not callable(score):
        raise TypeError(f"class {found.__name__} has no method score")
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise TypeError(f"{found.__name__}.batch = {batch!r} is not a whole number of at least 1")
    return Loaded(
        call=_batched(score) if batch > 1 else _caller(score, f"{name}.score"),
        concurrent=_is_async(score),
        batch=batch,
        file=file,
        keeps_time=getattr(made, "keeps_time", False) is True and _is_async(score),
        counters=getattr(made, "counters", None),
        setup=getattr(made, "setup", None),
        close=getattr(made, "close", None),
    )


def _is_async(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)


def _caller(function: Callable[..., Any], name: str) -> Callable[[list[Request]], Any]:
    """A function that is asked about one group at a time."""
    whole = _wants_request(function, name)

    def arguments(request: Request) -> tuple[Any, ...]:
        if whole:
            return (request,)
        return request.question, list(request.completions), dict(request.data)

    if _is_async(function):

        async def wait(requests: list[Request]) -> list[Any]:
            return [await function(*arguments(requests[0]))]

        return wait
    return lambda requests: [function(*arguments(requests[0]))]


def _batched(function: Callable[..., Any]) -> Callable[[list[Request]], Any]:
    """A function that is asked about several groups at a time."""

    def as_many(replies: Any, requests: list[Request]) -> list[Any]:
        found = list(replies)
        if len(found) != len(requests):
            raise ValueError(f"{len(found)} answers for a batch of {len(requests)} groups")
        return found

    if _is_async(function):

        async def wait(requests: list[Request]) -> list[Any]:
            return as_many(await function(requests), requests)

        return wait
    return lambda requests: as_many(function(requests), requests)


def _wants_request(function: Callable[..., Any], name: str) -> bool:
    """Whether it takes one request, or question, completions and data. Raises TypeError."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # made in C
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    if len(needed) == 1 or (not needed and len(positional) == 1):
        return True
    more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 3 or (len(positional) < 3 and not more):
        raise TypeError(f"{name} takes {len(positional)} parameters; {_FORMS}")
    return False


def make(name: str, cls: type, options: Mapping[str, Any]) -> Any:
    """An object of a scorer's class. Raises OptionError unless it takes these options."""
    parameters = inspect.signature(cls).parameters
    known = [
        key for key, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in options:
            if key not in known:
                raise OptionError(
                    f"scorer.options.{key}: no such option of {name}{_meant(key, known)}"
                )
    for key in known:
        if key not in options and parameters[key].default is inspect.Parameter.empty:
            raise OptionError(f"scorer.options.{key}: {name} needs it")
    hints = _hints(cls)
    for key, value in options.items():
        if key in hints and not fits(value, hints[key]):
            raise OptionError(f"scorer.options.{key} = {value!r:.200}: must be {words(hints[key])}")
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        told = str(error)
        raise OptionError(
            told if told.startswith("scorer.options") else f"scorer.options: {name}: {told}"
        ) from error


def _meant(wrong: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if known else ", which has none"


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(vars(cls).get("__init__", object.__init__))
    except Exception:  # noqa: BLE001 - names that only a type checker sees: nothing is then known
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a configuration is of this type. Of types that a configuration cannot
    hold nothing is said.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return fits(value, parts[0])
    if origin is Literal:
        return value in parts
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    kind = origin or hint
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    if kind is dict or kind is Mapping:
        return isinstance(value, Mapping)
    if kind in (list, tuple, Sequence):
        of = parts[0] if parts else Any
        return isinstance(value, list | tuple) and all(fits(each, of) for each in value)
    return True


def words(hint: Any) -> str:
    """A type as a user would say it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return words(parts[0])
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(part) for part in parts if part is not type(None))
    kind = origin or hint
    if kind in (tuple, Sequence, list):
        return f"a list, each {words(parts[0])}" if parts and parts[0] is not Any else "a list"
    return _WORDS.get(dict if kind is Mapping else kind, str(kind))


def answer(reply: Any) -> Any:
    """What a scorer returned, in floats: [K] rewards or [K][K] preferences (NaN: not compared), or
    with details {"rewards" | "preferences": ..., "details": [...]}.

    Raises TypeError or ValueError naming what is of another form.
    """
    if not isinstance(reply, Mapping):
        return plain(reply)
    given = [key for key in ("rewards", "preferences") if reply.get(key) is not None]
    if len(given) != 1 or set(reply) - {"rewards", "preferences", "details"}:
        holds = ", ".join(map(str, reply))
        raise TypeError(f"a table holds rewards or preferences, and perhaps details, not {holds}")
    (key,) = given
    rows = plain(reply[key])
    if (key == "preferences") != any(isinstance(row, list) for row in rows):
        raise TypeError(f"{key} of the wrong form: {reply[key]!r:.200}")
    if reply.get("details") is None:
        return rows
    details = [_object(each, f"details[{i}]") for i, each in enumerate(reply["details"])]
    return {key: rows, "details": details}


def plain(reply: Any) -> list[Any]:
    """Numbers of any kind (lists, tuples, arrays, tensors) as floats, or as rows of floats.

    Raises TypeError or ValueError naming what is not a number; a text is none, not even "1.0". In a
    row None is NaN: not compared.
    """
    rows: list[Any] = []
    for i, item in enumerate(_items(reply)):
        item = item.tolist() if hasattr(item, "tolist") else item
        if isinstance(item, list | tuple):
            rows.append(
                [math.nan if x is None else _number(x, f"[{i}][{j}]") for j, x in enumerate(item)]
            )
        else:
            rows.append(_number(item, f"[{i}]"))
    return rows


def _items(reply: Any) -> Iterable[Any]:
    reply = reply.tolist() if hasattr(reply, "tolist") else reply
    if isinstance(reply, str | bytes | Mapping) or not isinstance(reply, Iterable):
        raise TypeError(
            f"a list with a number for each completion is expected, not {type(reply).__name__}"
        )
    return reply


def _number(value: Any, where: str) -> float:
    if isinstance(value, str | bytes) or not hasattr(type(value), "__float__"):
        value = value.tolist() if hasattr(value, "tolist") else value  # an array of no dimension
        if not isinstance(value, int | float):
            raise TypeError(f"{where} is {value!r:.80}, which is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{where} is an integer beyond what a float holds") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} is {value!r:.80}, which is no JSON object")
    return {str(key): to_json(each, f"{where}.{key}") for key, each in value.items()}


def to_json(value: Any, where: str) -> Any:
    """A value as JSON has it; numbers that are not finite become null. Raises TypeError for what it
    has not.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return _object(value, where)
    if isinstance(value, list | tuple):
        return [to_json(each, f"{where}[{i}]") for i, each in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{where} is {value!r:.80}, which JSON does not have")


def explain(error: BaseException, file: str) -> dict[str, Any]:
    """The error in one line, with the line of the user's `file` where it came up; one of ours says
    all itself. `final` says that it would come again for any completions, `spent` that nothing more
    will be scored.
    """
    if type(error).__module__ == "sppo.errors":
        kind = type(error).__name__
        said = " ".join(str(error).split())[: 2 * LONGEST_WORDS]
        return {"error": said, "final": kind == "ScorerRefused", "spent": kind == "ScorerSpent"}
    told = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_WORDS]
    here = os.path.dirname(__file__)
    ours = {os.path.join(here, name) for name in ("calls.py", "worker.py")}
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if f.filename == file] or [
        f for f in frames if f.filename not in ours
    ]
    if inside:
        told += f" ({os.path.basename(inside[-1].filename)}, line {inside[-1].lineno})"
    final = isinstance(error, _SAME_FOR_ANY_COMPLETION) and not isinstance(error, UnboundLocalError)
    return {"error": told, "final": final}
