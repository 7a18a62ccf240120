# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Calls that wait for the device, each when a line comes: says so before, and what came of it."""
import fcntl
import os
import sys

FIFO_CLEAR = 1
fd = os.open("/dev/globalfifo0", os.O_RDWR)


def fsync():
    os.write(fd, bytes(64))
    print("waits", flush=True)
    os.fsync(fd)


def clear():
    print("waits", flush=True)
    fcntl.ioctl(fd, FIFO_CLEAR)


print("ready", flush=True)
for line in sys.stdin:
    try:
        {"fsync": fsync, "clear": clear}[line.strip()]()
        print("done", flush=True)
    except OSError as error:
        print(error, flush=True)
os.write(fd, b"afterwards")
assert os.read(fd, 100) == b"afterwards"
print("PASS", flush=True)
