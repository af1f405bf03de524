# SPDX-License-Identifier: GPL-2.0-or-later
"""Cutting a stream into JSON objects: QMP messages need not end with a newline."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viotest_device.qmp_stream import MAX_MESSAGE, JsonStream, StreamError

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_MESSAGES = st.lists(st.dictionaries(st.text(), _VALUES), max_size=4)


@given(_MESSAGES, st.integers(1, 7))
def test_stream_gives_back_what_was_sent_in_any_pieces(
    messages: list[dict[str, object]], step: int
) -> None:
    data = b"".join(json.dumps(m, ensure_ascii=False).encode() for m in messages)
    stream = JsonStream()
    found = []
    for i in range(0, len(data), step):
        found += stream.feed(data[i : i + step])
    assert found == messages


def test_stream_keeps_an_unfinished_message() -> None:
    stream = JsonStream()
    assert stream.feed(b'{"execute": "qu') == []
    assert stream.feed(b'it"}') == [{"execute": "quit"}]


@pytest.mark.parametrize("data", [b"x", b"[1]", b"{1}", b'}{"a":1}', b'{"a":\xff}'])
def test_stream_refuses_what_is_no_object(data: bytes) -> None:
    with pytest.raises(StreamError):
        JsonStream().feed(data)


def test_stream_refuses_a_message_without_end() -> None:
    stream = JsonStream()
    with pytest.raises(StreamError, match="longer"):
        stream.feed(b'{"' + b"a" * MAX_MESSAGE)


def test_stream_refuses_a_deep_message() -> None:
    with pytest.raises(StreamError):
        JsonStream().feed(b'{"a":' + b"[" * 30000 + b"]" * 30000 + b"}")
