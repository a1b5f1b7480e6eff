"""Standard input and output of a command that is told of other things meanwhile: lines in, blocks of text out.

One thread, the main one, waits for lines, signals and wake() in a single poll(). Other threads write; while a line is
being edited, the main thread does it for them, with the prompt and the half-typed line out of the way. Nothing here
knows WebSockets.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from types import FrameType, TracebackType
from typing import Any, Final

_READ: Final = 64 * 1024
_STDIN: Final = 0
_STDOUT: Final = 1
STDERR: Final = 2


class LineEditor:
    """GNU readline, fed a key at a time, so that the thread that edits can wait for other things too.

    The standard library's `readline` loads the library and reads the user's ~/.inputrc, but input() would keep the
    thread. ctypes calls the functions that readline has for programs with a loop of their own.
    All methods belong to the main thread.
    """

    def __init__(self, library: Any, history: Any, prompt: str) -> None:
        import ctypes

        self._library = library
        self._history = history
        self._prompt = prompt.encode()
        self._line: bytes | None = None
        self.is_editing = False
        self.has_ended = False  # Ctrl-D on an empty line, or the terminal is gone
        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        library.rl_callback_handler_install.argtypes = [ctypes.c_char_p, callback]
        library.free.argtypes = library.fflush.argtypes = [ctypes.c_void_p]
        # readline's own handlers would restore the terminal and then let the signal end the process; Console has them.
        ctypes.c_int.in_dll(library, "rl_catch_signals").value = 0
        ctypes.c_int.in_dll(library, "rl_catch_sigwinch").value = 0
        # Nor shall it set the terminal back after each line: what is typed until the next prompt would be echoed into
        # what is written meanwhile, and a Ctrl-D would be lost.
        self._after_line = ctypes.c_void_p.in_dll(library, "rl_deprep_term_function")
        self._former_after_line, self._after_line.value = self._after_line.value, None

        def done(address: int | None) -> None:
            if address is None:
                self.has_ended = True
                library.rl_clear_visible_line()
            else:
                self._line = ctypes.string_at(address)
                library.free(address)
            self._remove()

        self._done = callback(done)  # kept, because readline holds no reference

    @classmethod
    def load(cls, prompt: str) -> LineEditor | None:
        """An editor; None where the terminal cannot place its cursor, or there is no GNU readline 7 or newer."""
        if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
            return None
        try:
            import ctypes
            import readline

            if "libedit" in (readline.__doc__ or ""):
                return None
            library = ctypes.CDLL(getattr(readline, "__file__", None))  # and with it what it is linked with
            for name in ("rl_clear_visible_line", "rl_forced_update_display", "rl_callback_read_char"):
                getattr(library, name)
            return cls(library, readline, prompt)
        except (ImportError, OSError, AttributeError, ValueError):
            return None

    def start(self) -> None:
        """Show the prompt."""
        self.is_editing = True
        self._library.rl_reset_screen_size()  # it may have changed while nothing was edited
        self._library.rl_callback_handler_install(self._prompt, self._done)

    def take_key(self) -> bytes | None:
        """Read what was typed; the line, once it is complete."""
        self._library.rl_callback_read_char()
        line, self._line = self._line, None
        if line is not None:
            text = line.decode(errors="surrogateescape")
            length = self._history.get_current_history_length()
            if text.strip() and not (length and self._history.get_history_item(length) == text):
                self._history.add_history(text)
        return line

    def hide(self) -> None:
        """Take prompt and line off the screen."""
        self._library.rl_clear_visible_line()
        self._library.fflush(None)

    def show(self) -> None:
        """Put them back, with the cursor where it was."""
        self._library.rl_forced_update_display()

    def resize(self) -> None:
        """The terminal has another size."""
        self._library.rl_resize_terminal()

    def stop(self) -> None:
        """Take prompt and line off the screen for good, and set the terminal back as it was."""
        if self.is_editing:
            self.hide()
            self._remove()
        self._library.rl_deprep_terminal()
        self._library.fflush(None)
        self._after_line.value = self._former_after_line

    def suspend(self) -> None:
        """Stop the process, as Ctrl-Z does, with the terminal as it was; go on when it is continued."""
        if not self.is_editing:
            self._library.rl_deprep_terminal()
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        self.hide()
        self._library.rl_deprep_terminal()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._library.rl_prep_terminal(1)
        self.show()

    def _remove(self) -> None:
        self.is_editing = False
        self._library.rl_callback_handler_remove()


class Console:
    """See the module. A context manager for the main thread; inside it signals are noted, not acted on.

    read(), wait() and stop_editing() are the main thread's; any thread may call the others.

    interrupted: the signal that asks the command to end, once one has come.  output_gone: whether nobody reads
    standard output any more.  at_end: whether standard input has ended.
    """

    def __init__(self, editor: LineEditor | None = None) -> None:
        self.interrupted: int | None = None
        self.output_gone = False
        # What was closed from the start may be a socket's descriptor by now.
        self._unusable = [number for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)) if stream is None]
        self.at_end = sys.stdin is None
        self._encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
        self._editor = editor
        self._begun: list[bytes] = []  # a line whose end has not come yet
        self._pending: deque[int] = deque()  # signals that were not looked at; appended to by handlers
        self._handlers: dict[int, Any] = {}
        self._awake, self._waker = socket.socketpair()
        for end in (self._awake, self._waker):
            end.setblocking(False)
        # Without an editor, for each descriptor, so that a pipe that nobody empties stops only who writes into it.
        self._stream_locks = {number: threading.Lock() for number in (_STDOUT, STDERR)}
        self._lock = threading.Lock()
        # Guarded by self._lock: what other threads have to write while a line is edited, and who waits for that.
        self._blocks: list[tuple[str, int, threading.Event]] = []
        self._writes_for_others = False

    def __enter__(self) -> Console:
        self._former_wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        noted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        if self._editor is not None:
            noted += [signal.SIGWINCH, signal.SIGTSTP]
        for number in noted:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_editing()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_wakeup)
        self._awake.close()
        self._waker.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending.append(number)
        if number not in (signal.SIGWINCH, signal.SIGTSTP):
            self.interrupted = number

    # ---- any thread ----

    def wake(self) -> None:
        """Let read() or wait() return."""
        try:
            self._waker.send(b"\0")
        except OSError:
            pass  # it has been woken many times already, or is closed

    def write(self, text: str, descriptor: int = _STDOUT) -> None:
        """Write a block of whole lines; returns when that is done. What cannot be written is dropped."""
        if self._editor is None:
            with self._stream_locks[descriptor]:
                self._write_now(text, descriptor)
            return
        with self._lock:
            if not self._writes_for_others or threading.current_thread() is threading.main_thread():
                self._write_around(self._editor, text, descriptor)
                return
            written = threading.Event()
            self._blocks.append((text, descriptor, written))
        self.wake()
        written.wait()

    def _write_now(self, text: str, descriptor: int) -> None:
        data = memoryview(text.encode(self._encoding, "backslashreplace"))
        if descriptor in self._unusable or (descriptor == _STDOUT and self.output_gone):
            return
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # somebody else has made the terminal non-blocking
                select.select([], [descriptor], [])
            except OSError:
                if descriptor == _STDOUT:
                    self.output_gone = True
                    self.wake()
                return

    # ---- the main thread ----

    def read(self, deadline: float | None = None) -> list[bytes]:
        """Wait for lines, wake(), a signal, or a deadline (time.monotonic()); the lines that have come, maybe none.
        After the last one `at_end` is set."""
        if self._editor is not None and not (self._editor.is_editing or self.at_end):
            with self._lock:
                self._writes_for_others = True
            self._editor.start()
        return self._poll(deadline, reads=not self.at_end)

    def wait(self, deadline: float | None = None) -> None:
        """The same without lines."""
        self._poll(deadline, reads=False)

    def stop_editing(self) -> None:
        """Set the terminal back as it was."""
        if self._editor is not None:
            self._editor.stop()
            self._write_for_others(self._editor)

    def _poll(self, deadline: float | None, reads: bool) -> list[bytes]:
        poller = select.poll()
        poller.register(self._awake, select.POLLIN)
        if reads:
            poller.register(_STDIN, select.POLLIN)
        if not (self.output_gone or _STDOUT in self._unusable):
            poller.register(_STDOUT, 0)  # which tells of errors: nobody reads a pipe any more
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        lines = []
        for descriptor, events in poller.poll(remaining):
            if descriptor == _STDIN:
                lines = self._take_input()
            elif descriptor == _STDOUT:
                self.output_gone = self.output_gone or bool(events & (select.POLLERR | select.POLLHUP))
            else:
                self._attend()
        return lines

    def _attend(self) -> None:
        """See why the thread was woken."""
        try:
            while self._awake.recv(4096):
                pass
        except BlockingIOError:
            pass
        editor = self._editor
        if editor is None:
            return
        self._write_for_others(editor)
        while self._pending:
            number = self._pending.popleft()
            if number == signal.SIGWINCH and editor.is_editing:
                editor.resize()
            elif number == signal.SIGTSTP:
                editor.suspend()

    def _write_for_others(self, editor: LineEditor) -> None:
        with self._lock:
            self._writes_for_others = editor.is_editing
            blocks, self._blocks = self._blocks, []
            for text, descriptor, written in blocks:
                self._write_around(editor, text, descriptor)
                written.set()

    def _write_around(self, editor: LineEditor, text: str, descriptor: int) -> None:
        """Write where the prompt is, if there is one: then in the main thread only. With the lock held."""
        editing = editor.is_editing
        if editing:
            editor.hide()
        self._write_now(text, descriptor)
        if editing:
            editor.show()

    def _take_input(self) -> list[bytes]:
        if self._editor is not None:
            line = self._editor.take_key()
            if not self._editor.is_editing:
                self.at_end = self._editor.has_ended
                self._write_for_others(self._editor)
            return [] if line is None else [line]
        try:
            data = os.read(_STDIN, _READ)
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            self.at_end = True
            return [b"".join(self._begun)] if self._begun else []
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._begun, lines[0]])
            self._begun.clear()
        if rest:
            self._begun.append(rest)
        return lines
