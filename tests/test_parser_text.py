"""The encoding of text as it arrives, what skip_utf8_validation and fire_cont_frame change, and a server's parser."""

from __future__ import annotations

import random
from typing import Any

import pytest

from websocket import ABNF, WebSocketPayloadException
from websocket._message import RawText
from websocket._parser import Parser

from .test_parser import BINARY, CLOSE, CONT, FIRST_BINARY, FIRST_TEXT, MIDDLE, PING, TEXT, Outcome, f

# What no UTF-8 text can begin with, cut where that is certain (Unicode 15, table 3-7).
HOPELESS = [
    *(b"\x80", b"\xbf", b"\xc0", b"\xc1", b"\xf5", b"\xfe", b"\xff"),
    *(b"\xc2\x41", b"\xc5\xc5", b"\xe0\x9f", b"\xe0\x80", b"\xed\xa0", b"\xed\xbf", b"\xe2\x28", b"\xe2\x82\x28"),
    *(b"\xf0\x8f", b"\xf0\x80", b"\xf4\x90", b"\xf4\xbf", b"\xf0\x9f\x28", b"\xf0\x9f\x98\x28"),
]

# What text may begin with and may not end with.
UNFINISHED = [
    *(b"\xc2", b"\xdf", b"\xe0", b"\xe0\xa0", b"\xe2\x82", b"\xec\xbf", b"\xed", b"\xed\x9f", b"\xee\x80"),
    *(b"\xef\xbf", b"\xf0", b"\xf0\x90", b"\xf0\x90\x80", b"\xf1\x80", b"\xf4", b"\xf4\x8f", b"\xf4\x8f\xbf"),
]


def assert_not_utf8(outcome: Outcome, before: list[Any]) -> None:
    assert outcome.all == (before, 1007, False)
    assert isinstance(outcome.parser.error, WebSocketPayloadException)


# ---- failing at once


@pytest.mark.parametrize("bad", HOPELESS)
@pytest.mark.parametrize("good", ["", "a", "zażółć", "x" * 1000])
def test_bad_utf8_is_an_error_within_a_frame_still_arriving(good: str, bad: bytes) -> None:
    payload = good.encode() + bad
    arrived = f(TEXT, "before") + f(TEXT, payload + b"still to come")[: -len(b"still to come")]
    assert_not_utf8(Outcome(arrived), ["before"])
    assert_not_utf8(Outcome(arrived, list(range(1, len(arrived)))), ["before"])


@pytest.mark.parametrize("bad", HOPELESS)
def test_bad_utf8_is_an_error_in_a_fragment_of_a_message_still_arriving(bad: bytes) -> None:
    for cut in range(len(bad) + 1):
        stream = f(FIRST_TEXT, b"a" + bad[:cut]) + f(PING, b"p") + f(MIDDLE, bad[cut:])
        outcome = Outcome(stream)
        assert outcome.error_code == 1007, (bad, cut)
        # A ping before the piece that spoils the text was valid; where the first fragment spoils it, none follows.
        assert outcome.events == ([(ABNF.OPCODE_PING, b"p")] if cut < len(bad) else [])


@pytest.mark.parametrize("bad", HOPELESS)
def test_bad_utf8_in_a_whole_message_is_an_error(bad: bytes) -> None:
    assert_not_utf8(Outcome(f(TEXT, "before") + f(TEXT, bad) + f(TEXT, "after")), ["before"])
    assert_not_utf8(Outcome(f(TEXT, "before") + f(TEXT, b"a" + bad + b"z") + f(TEXT, "after")), ["before"])


@pytest.mark.parametrize("start", UNFINISHED)
def test_an_unfinished_character_is_waited_for(start: bytes) -> None:
    outcome = Outcome(f(TEXT, b"a" + start + b"bc")[:-2])
    assert (outcome.error_code, outcome.at_boundary) == (0, False)
    assert Outcome(f(FIRST_TEXT, b"a" + start)).error_code == 0


@pytest.mark.parametrize("start", UNFINISHED)
def test_a_text_that_ends_within_a_character_is_an_error(start: bytes) -> None:
    for stream in (
        f(TEXT, b"a" + start),
        f(FIRST_TEXT, b"a" + start) + f(CONT),
        f(FIRST_TEXT, b"a") + f(CONT, start),
    ):
        assert_not_utf8(Outcome(f(TEXT, "before") + stream + f(TEXT, "after")), ["before"])
        assert_not_utf8(Outcome(f(TEXT, "before") + stream, list(range(1, len(stream) + 8))), ["before"])


@pytest.mark.parametrize("character", ["\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000"])
def test_a_character_split_over_frames_and_feeds_is_put_together(character: str) -> None:
    encoded = character.encode()
    frames = [f(FIRST_TEXT, b"<")]
    for octet in encoded:
        frames += [f(MIDDLE, bytes([octet])), f(MIDDLE), f(PING)]
    frames.append(f(CONT, b">"))
    stream = b"".join(frames)
    for cuts in ([], list(range(1, len(stream)))):
        outcome = Outcome(stream, cuts)
        assert outcome.events == [(ABNF.OPCODE_PING, b"")] * len(encoded) + [f"<{character}>"]


def test_every_character_of_unicode_is_taken() -> None:
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    stream = f(TEXT, text)
    assert Outcome(stream).events == [text]
    assert Outcome(stream, list(range(0, len(stream), 4099))).events == [text]


def test_binary_payloads_are_not_judged() -> None:
    payload = b"".join(HOPELESS)
    assert Outcome(f(BINARY, payload) + f(FIRST_BINARY, payload) + f(CONT)).events == [payload, payload]


# ---- skip_utf8_validation


def test_skipped_validation_gives_the_bytes_of_text_as_they_came() -> None:
    stream = f(TEXT, b"a\xff") + f(FIRST_TEXT, b"\xed") + f(PING) + f(CONT, b"\xa0") + f(BINARY, b"\xff") + f(TEXT)
    expected = [("raw", b"a\xff"), (ABNF.OPCODE_PING, b""), ("raw", b"\xed\xa0"), b"\xff", ("raw", b"")]
    for cuts in ([], list(range(1, len(stream)))):
        assert Outcome(stream, cuts, skip_utf8_validation=True).all == (expected, 0, False)


def test_skipped_validation_tells_text_from_binary() -> None:
    messages = Parser(skip_utf8_validation=True).feed(f(TEXT, "a") + f(BINARY, "b"))
    assert [type(message) for message in messages] == [RawText, bytes]


def test_skipped_validation_keeps_all_other_rules() -> None:
    assert Outcome(f(TEXT, b"\xff") + f(CONT), skip_utf8_validation=True).all == ([("raw", b"\xff")], 1002, False)
    assert Outcome(f(TEXT, b"\xff" * 11), skip_utf8_validation=True, max_message_size=10).error_code == 1009
    assert Outcome(f(CLOSE, b"\x03\xed"), skip_utf8_validation=True).error_code == 1002


# ---- fire_cont_frame


def test_each_frame_of_a_message_is_given_where_asked() -> None:
    stream = (
        f(FIRST_TEXT, b"a\xe2")
        + f(PING, b"p")
        + f(MIDDLE, b"\x82")
        + f(MIDDLE)
        + f(CONT, b"\xacz")
        + f(TEXT, "whole")
        + f(FIRST_BINARY, b"\xff")
        + f(CONT, b"\xfe")
    )
    expected = [
        ("fragment", ABNF.OPCODE_TEXT, 0, b"a\xe2", "a"),
        (ABNF.OPCODE_PING, b"p"),
        ("fragment", ABNF.OPCODE_CONT, 0, b"\x82", ""),
        ("fragment", ABNF.OPCODE_CONT, 0, b"", ""),
        ("fragment", ABNF.OPCODE_CONT, 1, b"\xacz", "€z"),
        ("fragment", ABNF.OPCODE_TEXT, 1, b"whole", "whole"),
        ("fragment", ABNF.OPCODE_BINARY, 0, b"\xff", None),
        ("fragment", ABNF.OPCODE_CONT, 1, b"\xfe", None),
    ]
    for cuts in ([], list(range(1, len(stream)))):
        assert Outcome(stream, cuts, fire_cont_frame=True).all == (expected, 0, False)


def test_the_encoding_of_fragments_is_judged_over_the_message() -> None:
    outcome = Outcome(f(FIRST_TEXT, b"a\xe2") + f(CONT, b"z"), fire_cont_frame=True)
    assert outcome.all == ([("fragment", ABNF.OPCODE_TEXT, 0, b"a\xe2", "a")], 1007, False)
    outcome = Outcome(f(FIRST_TEXT, b"a\xe2") + f(CONT), fire_cont_frame=True)
    assert outcome.error_code == 1007


def test_fragments_are_not_judged_where_validation_is_skipped() -> None:
    outcome = Outcome(f(FIRST_TEXT, b"\xe2") + f(CONT, b"z"), fire_cont_frame=True, skip_utf8_validation=True)
    assert outcome.events == [
        ("fragment", ABNF.OPCODE_TEXT, 0, b"\xe2", None),
        ("fragment", ABNF.OPCODE_CONT, 1, b"z", None),
    ]


def test_a_large_frame_in_pieces_is_one_fragment() -> None:
    payload = random.Random(3).randbytes(200_000)
    stream = f(FIRST_BINARY, payload)
    outcome = Outcome(stream, list(range(1, len(stream), 997)), fire_cont_frame=True)
    assert outcome.events == [("fragment", ABNF.OPCODE_BINARY, 0, payload, None)]


# ---- a server's parser


def test_a_server_takes_masked_frames_in_any_cut() -> None:
    generator = random.Random(5)
    large = generator.randbytes(70_001)
    stream = (
        f(TEXT, "zażółć", b"\0\0\0\0")
        + f(PING, b"ping", b"\x01\x02\x03\x04")
        + f(FIRST_TEXT, "€".encode()[:2], b"\xff\xfe\xfd\xfc")
        + f(PING, b"", b"\x09\x08\x07\x06")
        + f(CONT, "€".encode()[2:], b"\x10\x20\x30\x40")
        + f(BINARY, b"", b"abcd")
        + f(BINARY, large, b"wxyz")
        + f(CLOSE, b"\x03\xe8bye", b"klmn")
    )
    expected = [
        *("zażółć", (ABNF.OPCODE_PING, b"ping"), (ABNF.OPCODE_PING, b""), "€", b"", large),
        (ABNF.OPCODE_CLOSE, b"\x03\xe8bye"),
    ]
    assert Outcome(stream, server=True).all == (expected, 0, True)
    for seed in range(30):
        cuts = [*sorted(random.Random(seed).sample(range(1, 100), 40)), 100 + seed, 40_000 + seed, 60_003]
        assert Outcome(stream, cuts, server=True).all == (expected, 0, True), f"cut at {cuts}"


@pytest.mark.parametrize("bare", [f(TEXT, "a"), f(PING), f(CLOSE), f(BINARY)])
def test_a_server_refuses_a_frame_that_is_not_masked(bare: bytes) -> None:
    outcome = Outcome(f(TEXT, "before", b"abcd") + bare, server=True)
    assert outcome.all == (["before"], 1002, False)


def test_a_server_judges_text_after_unmasking() -> None:
    assert Outcome(f(TEXT, b"\xff\xff", b"\xa0\xa0\xa0\xa0"), server=True).error_code == 1007
    assert Outcome(f(TEXT, "ok", b"\xff\x00\xff\x00"), server=True).events == ["ok"]
