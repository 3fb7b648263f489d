"""Frames for groups, msgpack for tickets. Nothing is unpickled; anything that is not a valid frame
is one `BadFrame`.

A frame is

    4 bytes  b"SPG1"
    4 bytes  length of the header, little-endian
    8 bytes  xxh3-64 of everything after these 16 bytes
    header   msgpack map (schema below)
    buffers  raw little-endian arrays in the order that the header names: prompt, tokens, logprobs,
             rewards, preferences (of the last two one is empty)

Arrays are decoded as views of the received bytes, without a copy.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, cast

import msgpack
import numpy as np
import xxhash
from numpy.typing import NDArray

from sppo.errors import BadFrame
from sppo.limits import MAX_COMPLETIONS, MAX_FRAME
from sppo.types import (
    Answer,
    Completion,
    Group,
    SamplingParams,
    Ticket,
    TicketStream,
    Version,
    VersionSpan,
)

MAGIC = b"SPG1"
_PREFIX = struct.Struct("<4sIQ")
MAX_HEADER = 1 << 24
MAX_TIMES = 16
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "prompt": np.dtype("<i4"),
    "tokens": np.dtype("<i4"),
    "logprobs": np.dtype("<f4"),
    "rewards": np.dtype("<f4"),
    "preferences": np.dtype("<f4"),
}
_NONE = np.zeros(0, np.float32)


def encode_group(group: Group) -> bytes:
    """The frame of a group."""
    arrays = {
        "prompt": group.prompt_ids,
        "tokens": np.concatenate([c.token_ids for c in group.completions]),
        "logprobs": np.concatenate([c.behavior_logprobs for c in group.completions]),
        "rewards": _NONE if group.rewards is None else group.rewards,
        "preferences": _NONE if group.preferences is None else group.preferences,
    }
    header = {
        "gid": group.gid,
        "uid": group.uid,
        "stream": group.stream,
        "generator": group.generator,
        "sizes": [int(arrays[name].size) for name in _DTYPES],
        "lengths": [len(c.token_ids) for c in group.completions],
        "finish": [c.finish_reason for c in group.completions],
        "spans": [[[str(s.version), s.start, s.end] for s in c.spans] for c in group.completions],
    }
    if group.times:
        header["times"] = list(group.times)
    if group.details is not None:
        header["details"] = [dict(each) for each in group.details]
    body = msgpack.packb(header)
    buffers = [
        np.ascontiguousarray(arrays[name], dtype=dtype).data for name, dtype in _DTYPES.items()
    ]
    checksum = xxhash.xxh3_64(body)
    for buffer in buffers:
        checksum.update(buffer)
    return b"".join(
        [_PREFIX.pack(MAGIC, len(body), checksum.intdigest()), body, *buffers]
    )  # the one copy


def decode_group(frame: bytes | memoryview) -> Group:
    """The group in a frame. Raises BadFrame for anything that `encode_group` could not have
    made.
    """
    view = memoryview(frame)
    if not _PREFIX.size <= len(view) <= MAX_FRAME:
        raise BadFrame(f"a frame of {len(view)} bytes")
    magic, header_len, checksum = _PREFIX.unpack_from(view)
    payload = view[_PREFIX.size :]
    if magic != MAGIC or header_len > min(len(payload), MAX_HEADER):
        raise BadFrame("not a group frame")
    if xxhash.xxh3_64_intdigest(payload) != checksum:
        raise BadFrame("the checksum does not match")
    header = _unpack(payload[:header_len])
    try:
        return _build(header, payload[header_len:])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadFrame(f"malformed header: {error}") from error


def _build(header: Mapping[str, Any], body: memoryview) -> Group:
    arrays = _arrays(header["sizes"], body)
    lengths = _ints(header["lengths"], "lengths")
    finish, spans = header["finish"], header["spans"]
    if not 1 <= len(lengths) <= MAX_COMPLETIONS or not len(lengths) == len(finish) == len(spans):
        raise BadFrame("completions, finish reasons and spans differ in number")
    if sum(lengths) != arrays["tokens"].size:
        raise BadFrame("lengths do not add up")
    if arrays["tokens"].size != arrays["logprobs"].size:
        raise BadFrame("tokens and log-probs differ in number")
    if not np.isfinite(arrays["logprobs"]).all():
        raise BadFrame("a log-prob is not finite")
    rewards, preferences = _scores(arrays["rewards"], arrays["preferences"], len(lengths))
    if header["stream"] not in ("train", "eval"):
        raise BadFrame("unknown stream")
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    completions = tuple(
        Completion(
            token_ids=arrays["tokens"][starts[i] : starts[i + 1]],
            behavior_logprobs=arrays["logprobs"][starts[i] : starts[i + 1]],
            spans=_spans(spans[i], length),
            finish_reason=_finish(finish[i]),
        )
        for i, length in enumerate(lengths)
    )
    return Group(
        gid=_text(header["gid"]),
        uid=_text(header["uid"]),
        stream=header["stream"],
        prompt_ids=arrays["prompt"],
        completions=completions,
        rewards=rewards,
        preferences=preferences,
        generator=_text(header["generator"]),
        details=_details(header.get("details"), len(lengths)),
        times=_times(header.get("times", [])),
    )


def _times(found: Any) -> tuple[float, ...]:
    times = tuple(float(t) for t in found)
    if len(times) > MAX_TIMES or not all(0 <= t < 1e11 for t in times):
        raise BadFrame("times are none")
    return times


def _scores(
    rewards: NDArray[np.float32], preferences: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """([K], None) or (None, [K, K])."""
    if not np.isfinite(rewards).all() or np.isinf(preferences).any():
        raise BadFrame("a reward or preference is not finite")
    if (rewards.size, preferences.size) == (k, 0):
        return rewards, None
    if (rewards.size, preferences.size) == (0, k * k):
        return None, _matrix(preferences.reshape(k, k))
    raise BadFrame(f"{rewards.size} rewards and {preferences.size} preferences for {k} completions")


def _matrix(preferences: NDArray[np.float32]) -> NDArray[np.float32]:
    """[K, K] of which NaN stands on both sides of the diagonal, and not on it."""
    missing = np.isnan(preferences)
    if missing.any() and ((missing != missing.T).any() or missing.diagonal().any()):
        raise BadFrame("a preference is there one way round alone")
    return preferences


def _details(value: Any, k: int) -> tuple[dict[str, Any], ...] | None:
    if value is None:
        return None
    if type(value) is not list or len(value) != k or any(type(each) is not dict for each in value):
        raise BadFrame("details are not one map for each completion")
    return tuple(value)


def _arrays(sizes: Any, body: memoryview) -> dict[str, NDArray[Any]]:
    counts = _ints(sizes, "sizes")
    if len(counts) != len(_DTYPES) or sum(4 * n for n in counts) != len(body):
        raise BadFrame("sizes do not add up")
    arrays: dict[str, NDArray[Any]] = {}
    offset = 0
    for count, (name, dtype) in zip(counts, _DTYPES.items(), strict=True):
        arrays[name] = np.frombuffer(body, dtype, count, offset)
        offset += 4 * count
    return arrays


def _spans(spans: Any, length: int) -> tuple[VersionSpan, ...]:
    result, end = [], 0
    for label, start, stop in spans:
        if (
            type(start) is not int
            or type(stop) is not int
            or start != end
            or not start < stop <= length
        ):
            raise BadFrame("version spans do not tile the completion")
        result.append(VersionSpan(version=Version.parse(_text(label)), start=start, end=stop))
        end = stop
    if end != length or length == 0:
        raise BadFrame("version spans do not cover the completion")
    return tuple(result)


def _ints(values: Any, name: str) -> list[int]:
    if type(values) is not list or any(type(v) is not int or v < 0 for v in values):
        raise BadFrame(f"{name} must be a list of counts")
    return cast("list[int]", values)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise BadFrame("a text field holds something else")
    return value


def _finish(value: Any) -> Any:
    if value not in ("stop", "length"):
        raise BadFrame("unknown finish reason")
    return value


def pack_ticket(ticket: Ticket) -> bytes:
    """A ticket as msgpack."""
    return pack(
        {
            "uid": ticket.uid,
            "stream": ticket.stream,
            "prompt": np.asarray(ticket.prompt_ids, "<i4").tobytes(),
            "question": ticket.question,
            "data": dict(ticket.scorer_data),
            "k": ticket.sampling.completions,
            "temperature": ticket.sampling.temperature,
            "max_tokens": ticket.sampling.max_tokens,
            "seed": ticket.sampling.seed,
            "min_version": ticket.min_version,
            "messages": ticket.messages,
            "paired": ticket.paired,
            "against": None if ticket.against is None else _pack_answer(ticket.against),
            "issued": ticket.issued,
        }
    )


def unpack_ticket(data: bytes) -> Ticket:
    """Inverse of `pack_ticket`. Raises BadFrame."""
    fields = _unpack(data)
    try:
        return Ticket(
            uid=_text(fields["uid"]),
            stream=cast("TicketStream", _text(fields["stream"])),
            prompt_ids=tuple(np.frombuffer(fields["prompt"], "<i4").tolist()),
            question=_text(fields["question"]),
            scorer_data=fields["data"],
            sampling=SamplingParams(
                completions=int(fields["k"]),
                temperature=float(fields["temperature"]),
                max_tokens=int(fields["max_tokens"]),
                seed=int(fields["seed"]),
            ),
            min_version=int(fields["min_version"]),
            messages=tuple((_text(role), _text(words)) for role, words in fields["messages"]),
            paired=bool(fields.get("paired")),
            against=_answer(fields["against"]) if fields.get("against") else None,
            issued=float(fields.get("issued", 0.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadFrame(f"malformed ticket: {error}") from error


def _pack_answer(answer: Answer) -> dict[str, Any]:
    return {
        "tokens": np.asarray(answer.token_ids, "<i4").tobytes(),
        "text": answer.text,
        "finish": answer.finish_reason,
    }


def _answer(fields: Mapping[str, Any]) -> Answer:
    return Answer(
        token_ids=tuple(np.frombuffer(fields["tokens"], "<i4").tolist()),
        text=_text(fields["text"]),
        finish_reason=_finish(fields["finish"]),
    )


def pack(message: Mapping[str, Any]) -> bytes:
    """A small message of plain types."""
    return cast("bytes", msgpack.packb(message))


def unpack(data: bytes) -> dict[str, Any]:
    """Inverse of `pack`. Raises BadFrame."""
    return _unpack(data)


def _unpack(data: bytes | memoryview) -> dict[str, Any]:
    try:
        message = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, OverflowError) as error:
        raise BadFrame(f"not msgpack: {type(error).__name__}") from error
    if type(message) is not dict:
        raise BadFrame("not a message")
    return message
