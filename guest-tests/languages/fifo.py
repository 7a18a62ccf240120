# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A FIFO from Python: what waits in a thread, what polls, what is signalled. Ends with PASS, or an exception.

    cargo lab run --share guest-tests/languages -- python3 fifo.py
"""
import errno
import fcntl
import io
import os
import selectors
import signal
import threading

PATH = "/dev/globalfifo0"
SIGNAL = signal.SIGRTMIN + 5
F_SETSIG = 10


def unbuffered():
    """buffering=0: read() is read(2), write() is write(2), and tells how much it took."""
    with open(PATH, "r+b", buffering=0) as fifo:
        assert fifo.write(b"hello") == 5
        assert fifo.read(100) == b"hello"
    print("buffering=0: read(100) returns the 5 bytes that are there")


def buffered_is_refused():
    """With a buffer one file cannot both read and write: it would have to seek."""
    try:
        open(PATH, "r+b").close()
    except io.UnsupportedOperation as error:
        print(f"buffered, for reading and writing: {error}")
    else:
        raise AssertionError("a buffered file for both directions was opened")


def a_read_waits_in_its_thread():
    """Other threads go on meanwhile: the interpreter's lock is not held during read(2)."""
    got = []
    with open(PATH, "r+b", buffering=0) as fifo:
        reader = threading.Thread(target=lambda: got.append(fifo.read(100)))
        reader.start()
        fifo.write(b"to the thread")
        reader.join()
    assert got == [b"to the thread"]
    print("a thread: read() waits in it, and others go on")


def selectors_poll():
    """epoll, with O_NONBLOCK: the way of event loops, asyncio's add_reader() among them."""
    fd = os.open(PATH, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.read(fd, 1)
        raise AssertionError("the FIFO is not empty")
    except BlockingIOError as error:
        assert error.errno == errno.EAGAIN
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        assert selector.select(timeout=0.1) == []
        os.write(fd, b"polled")
        [(key, events)] = selector.select(timeout=10)
        assert key.fd == fd and events == selectors.EVENT_READ
    assert os.read(fd, 100) == b"polled"
    os.close(fd)
    print("selectors: polls, and a read that would wait is BlockingIOError")


def signalled():
    """SIGIO, or another signal that tells the descriptor."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
    fd = os.open(PATH, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, F_SETSIG, SIGNAL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    os.write(fd, b"signalled")
    info = signal.sigtimedwait({SIGNAL}, 10)
    assert info is not None and info.si_code == 1, info
    assert os.read(fd, 100) == b"signalled"
    os.close(fd)
    print("O_ASYNC: a signal with POLL_IN")


unbuffered()
buffered_is_refused()
a_read_waits_in_its_thread()
selectors_poll()
signalled()
print("PASS")
