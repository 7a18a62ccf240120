# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What a globalfifo driver owes a program, tried on /dev/globalfifo in the guest. Prints "all is well", or what is not."""

import errno
import fcntl
import os
import select
import signal
import threading

NODE = "/dev/globalfifo"
CAPACITY = 4096
FIFO_CLEAR = 1
F_SETSIG = 10
POLL_IN, POLL_OUT = 1, 2


def refused(call, expected):
    try:
        call()
    except OSError as why:
        assert why.errno == expected, f"{errno.errorcode[why.errno]}, not {errno.errorcode[expected]}"
        return
    raise AssertionError(f"no error, not {errno.errorcode[expected]}")


def ready(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    return dict(poll.poll(0)).get(fd, 0)


def signal_of(act):
    """The band of the one signal that follows."""
    act()
    found = signal.sigtimedwait({signal.SIGUSR1}, 10)
    assert found, "no signal"
    return found.si_code


fd = os.open(NODE, os.O_RDWR | os.O_NONBLOCK)

# Capacity is exact, reads and writes are short rather than waiting, order is kept.
assert ready(fd) == select.POLLOUT
refused(lambda: os.read(fd, 1), errno.EAGAIN)
assert os.read(fd, 0) == b""
assert os.write(fd, b"ab") == 2
assert os.write(fd, b"c" * (2 * CAPACITY)) == CAPACITY - 2
refused(lambda: os.write(fd, b"x"), errno.EAGAIN)
assert ready(fd) == select.POLLIN
assert os.read(fd, 3) == b"abc"
assert ready(fd) == select.POLLIN | select.POLLOUT

# FIFO_CLEAR empties, and wakes a writer; an unknown ioctl is refused.
fcntl.ioctl(fd, FIFO_CLEAR)
refused(lambda: os.read(fd, 1), errno.EAGAIN)
refused(lambda: fcntl.ioctl(fd, 0x4242), errno.ENOTTY)
os.write(fd, b"x" * CAPACITY)
blocking = os.open(NODE, os.O_RDWR)
writer = threading.Thread(target=os.write, args=(blocking, b"y"))
writer.start()
fcntl.ioctl(fd, FIFO_CLEAR)
writer.join(30)
assert not writer.is_alive(), "the writer still waits after FIFO_CLEAR"
assert os.read(fd, CAPACITY) == b"y"

# A reader waits, and is woken by a write.
got = []
reader = threading.Thread(target=lambda: got.append(os.read(blocking, 10)))
reader.start()
os.write(fd, b"wake")
reader.join(30)
assert got == [b"wake"], got

# The position means nothing.
refused(lambda: os.pread(fd, 1, 0), errno.ESPIPE)

# SIGIO: POLL_IN after a write, POLL_OUT after a read, none after O_ASYNC is off.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(fd, F_SETSIG, signal.SIGUSR1)
flags = fcntl.fcntl(fd, fcntl.F_GETFL)
fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
assert signal_of(lambda: os.write(fd, b"z")) == POLL_IN
assert signal_of(lambda: os.read(fd, 1)) == POLL_OUT
fcntl.fcntl(fd, fcntl.F_SETFL, flags)
os.write(fd, b"z")
assert signal.sigtimedwait({signal.SIGUSR1}, 0) is None, "a signal without O_ASYNC"
fcntl.ioctl(fd, FIFO_CLEAR)
print("all is well")
