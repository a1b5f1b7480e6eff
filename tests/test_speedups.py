"""The C part and Python's: the same results for the same arguments, in any thread and any interpreter."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websocket import _pure
from websocket._abnf import ABNF

from .strategies import any_streams, examples

KEY = b"\x01\x80\xfe\x7f"
SIZES = (0, 1, 3, 4, 7, 8, 9, 125, 126, 127, 2047, 2048, 2049, 65535, 65536, 65537, 262143, 262144, 1_000_003)


@pytest.fixture(scope="module")
def speedups() -> ModuleType:
    try:
        return importlib.import_module("websocket._speedups")
    except ImportError:
        if os.environ.get("REQUIRE_SPEEDUPS"):
            raise
        pytest.skip("the C part is not built: there was no C compiler when the package was installed")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_both_mask_alike(speedups: ModuleType, size: int, kind: type) -> None:
    data = kind(bytes(range(251)) * (size // 251) + bytes(size % 251))
    masked = speedups.apply_mask(KEY, data)
    assert type(masked) is bytes
    assert masked == _pure.apply_mask(KEY, data)
    assert speedups.apply_mask(KEY, masked) == data
    assert masked[:5] == bytes(byte ^ KEY[at % 4] for at, byte in enumerate(bytes(data[:5])))


def test_both_mask_alike_at_any_address(speedups: ModuleType) -> None:
    data = memoryview(bytes(range(256)) * 20)
    for start in range(9):
        for size in (17, 2048 + start):
            piece = data[start : start + size]
            assert speedups.apply_mask(KEY, piece) == _pure.apply_mask(KEY, piece)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [KEY, None])
def test_both_encode_alike(speedups: ModuleType, size: int, key: bytes | None) -> None:
    payload = os.urandom(size)
    for first_byte in (0x00, 0x81, 0xC2, 0xFF):
        frame = speedups.encode_frame(first_byte, payload, key)
        assert type(frame) is bytes
        assert frame == _pure.encode_frame(first_byte, payload, key)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [KEY, None])
def test_both_encode_text_as_they_do_its_bytes(speedups: ModuleType, size: int, key: bytes | None) -> None:
    text = "".join(map(chr, range(128))) * (size // 128) + "x" * (size % 128)
    for payload in (text, "\xe9\u20ac\U0001f600" + text):
        frame = _pure.encode_frame(0x81, payload.encode(), key)
        assert speedups.encode_frame(0x81, payload, key) == frame
        assert _pure.encode_frame(0x81, payload, key) == frame
    for functions in (speedups, _pure):
        with pytest.raises(UnicodeEncodeError):
            functions.encode_frame(0x81, "\ud800", key)


def test_text_in_ascii_is_not_encoded_for_a_copy(speedups: ModuleType) -> None:
    text = "x" * 100_000
    before = sys.getsizeof(text)
    speedups.encode_frame(0x81, text, KEY)
    assert sys.getsizeof(text) == before


@pytest.mark.parametrize("size", [2, 3, 4096, 300_000])
def test_both_give_memory_to_be_written(speedups: ModuleType, size: int) -> None:
    data = os.urandom(size)
    for functions in (speedups, _pure):
        payload, view = functions.new_payload(size)
        assert len(view) == size
        assert not view.readonly
        view[: size // 2] = data[: size // 2]
        view[size // 2 :] = data[size // 2 :]
        view.release()
        assert bytes(payload) == data
        for less in (1, 0, -1):
            with pytest.raises(ValueError, match=f"not {less}"):
                functions.new_payload(less)


def test_memory_of_the_c_part_is_a_payload_without_a_copy(speedups: ModuleType) -> None:
    payload, _ = speedups.new_payload(300_000)
    assert type(payload) is bytes
    assert bytes(payload) is payload


def test_a_slice_of_the_view_keeps_the_memory_alive(speedups: ModuleType) -> None:
    """The frames of an exception's traceback may hold one, for a debugger to look at."""
    for functions in (speedups, _pure):
        payload, view = functions.new_payload(300_000)
        with_view = sys.getrefcount(payload)
        rest = view[2:]
        view.release()
        del view
        assert sys.getrefcount(payload) == with_view
        del rest
        assert sys.getrefcount(payload) == with_view - 1


def taken(functions: ModuleType, data: bytes, position: int, most: int = sys.maxsize) -> tuple[Any, ...]:
    """What take_plain_frames() does: position and messages, or the error and the messages before it."""
    messages: list[Any] = []
    try:
        end = functions.take_plain_frames(data, position, messages, most)
    except UnicodeDecodeError as error:
        return str(error), error.object, messages
    return end, messages, [type(message) for message in messages]


@examples(200)
@given(stream=any_streams(server=False), data=st.data())
def test_both_take_the_same_frames(speedups: ModuleType, stream: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(stream)))
    position = data.draw(st.integers(0, len(stream) + 1))
    most = data.draw(st.integers(0, 130) | st.sampled_from([65535, 65536, sys.maxsize]))
    assert taken(speedups, stream[:cut], position, most) == taken(_pure, stream[:cut], position, most)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x02ok" * 3 + b"\x89\x00",
        b"\x81\x02ok\x82\x01\x00\x01\x03par",
        b"\x81\x02ok\x81\x7e\x00\x7e" + b"x" * 126 + b"\x82\x7e\x00",
        b"\x82\x7e\xff\xff" + bytes(65535) + b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536),
        b"\x81\x02ok\x81\x02\xc3\x28\x81\x02ok",
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff" + bytes(20),
        b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x01" + bytes(20),
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02ok\x81",
        b"\x81\x82maskok",
        b"\xc1\x02ok",
        b"\x81",
        b"",
    ],
)
def test_both_stop_at_the_same_byte(speedups: ModuleType, data: bytes) -> None:
    for end in {*range(min(len(data), 20)), *range(max(0, len(data) - 20), len(data) + 1)}:
        assert taken(speedups, data[:end], 0) == taken(_pure, data[:end], 0)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("apply_mask", (b"123", b""), ValueError, "4 bytes, not 3"),
        ("apply_mask", (KEY, "text"), TypeError, "str"),
        ("apply_mask", (KEY,), TypeError, "2 arguments, not 1"),
        ("encode_frame", (256, b"", None), ValueError, "256"),
        ("encode_frame", (-1, b"", None), ValueError, "-1"),
        ("encode_frame", (0x81, b"", "key!"), TypeError, "str"),
        ("encode_frame", (0x81, memoryview(b"abcdef")[::2], KEY), BufferError, "contiguous"),
        ("take_plain_frames", (bytearray(2), 0, [], 9), TypeError, "bytearray"),
        ("take_plain_frames", (b"\x81\x00", -1, [], 9), ValueError, "-1"),
        ("take_plain_frames", (b"\x81\x00", 0, [], -9), ValueError, "-9"),
        ("take_plain_frames", (b"\x81\x00", 0, None, 9), TypeError, "list"),
    ],
)
def test_bad_arguments_are_refused_in_c(
    speedups: ModuleType, name: str, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(speedups, name)(*arguments)


def test_threads_mask_side_by_side(speedups: ModuleType) -> None:
    """Large payloads are masked without the interpreter's lock."""
    payloads = [bytes([number]) * 400_001 for number in range(4)]
    expected = [_pure.encode_frame(0x82, payload, KEY) for payload in payloads]
    start = threading.Barrier(len(payloads))
    results: dict[int, bool] = {}

    def work(number: int) -> None:
        start.wait()
        frames = {speedups.encode_frame(0x82, payloads[number], KEY) for _ in range(50)}
        results[number] = frames == {expected[number]}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(payloads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(len(payloads)), True)


# The C part alone: what else the package imports, ssl and its like, does not bear to be imported by several
# interpreters at once (CPython 3.12.1 and 3.13.0 crash in the standard library's own modules).
IN_INTERPRETERS = """
import importlib.machinery, importlib.util
loader = importlib.machinery.ExtensionFileLoader("websocket._speedups", FILE)
speedups = importlib.util.module_from_spec(importlib.util.spec_from_loader("websocket._speedups", loader))
loader.exec_module(speedups)
key, large = bytes((1, 128, 254, 127)), bytes(300_000)
for _ in range(300):
    assert speedups.apply_mask(key, speedups.apply_mask(key, large)) == large
    assert speedups.encode_frame(0x81, b"ok", None) == bytes((0x81, 2)) + b"ok"
    messages = []
    assert speedups.take_plain_frames((bytes((0x81, 2)) + b"ok") * 100, 0, messages, 2) == 400
    assert messages == ["ok"] * 100
"""
SIDE_BY_SIDE = """
import sys, threading
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters
failures = []
def run(interpreter):
    try:
        failures.append(interpreters.run_string(interpreter, CODE))
    except interpreters.RunFailedError as error:  # 3.12
        failures.append(error)
made = [interpreters.create() for _ in range(4)]
threads = [threading.Thread(target=run, args=(interpreter,)) for interpreter in made]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for interpreter in made:
    interpreters.destroy(interpreter)
assert failures == [None] * 4, failures
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="an interpreter with a lock of its own came with CPython 3.12")
def test_interpreters_with_locks_of_their_own_use_it_at_once(speedups: ModuleType) -> None:
    inside = f"FILE = {speedups.__file__!r}\n{IN_INTERPRETERS}"
    subprocess.run([sys.executable, "-c", f"CODE = {inside!r}\n{SIDE_BY_SIDE}"], check=True, timeout=50)


@pytest.mark.parametrize(("value", "refused"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
@pytest.mark.usefixtures("speedups")
def test_the_environment_chooses_python(value: str | None, refused: bool) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "WEBSOCKET_NO_SPEEDUPS"}
    if value is not None:
        environment["WEBSOCKET_NO_SPEEDUPS"] = value
    code = "from websocket import _frames; print(_frames.HAS_SPEEDUPS, _frames.encode_frame.__module__)"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=50, env=environment, capture_output=True, text=True
    ).stdout
    assert output.split() == (["False", "websocket._pure"] if refused else ["True", "websocket._speedups"])


def test_an_install_without_it_works(tmp_path: Path) -> None:
    """As one without a compiler: the package's Python files alone."""
    shutil.copytree(os.path.dirname(_pure.__file__), tmp_path / "websocket", ignore=shutil.ignore_patterns("*.so"))
    environment = {name: text for name, text in os.environ.items() if name != "WEBSOCKET_NO_SPEEDUPS"}
    code = (
        "import websocket; from websocket import _frames; print(websocket.__file__, _frames.HAS_SPEEDUPS);"
        "print(websocket.ABNF.create_frame('text', 1).format()[:2].hex())"
    )
    output = subprocess.run(
        [sys.executable, "-S", "-c", code],  # -S: an editable install goes before any path
        check=True,
        timeout=50,
        env={**environment, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout
    assert output.split() == [str(tmp_path / "websocket" / "__init__.py"), "False", "8184"]


def test_abnf_masks_with_what_was_chosen() -> None:
    assert ABNF.mask(KEY, bytes(3000)) == _pure.apply_mask(KEY, bytes(3000))
