# SPDX-License-Identifier: Apache-2.0
"""What applications do with a connection, and what they must see at its other end. Every function takes both ends."""
import contextlib
import hashlib
import os
import socket
import struct
import threading
import time

from .net import PATIENCE, read_all, read_exactly, reset, scale
from .rows import check, equal

MIB = 1 << 20
_random = None


def random_bytes(n):
    """The same random bytes each time; made once."""
    global _random
    if _random is None or len(_random) < n:
        _random = os.urandom(n)
    return memoryview(_random)[:n]


class Task(threading.Thread):
    """A thread whose result or error is had by join_result()."""

    def __init__(self, fn, *args):
        super().__init__(daemon=True)
        self.fn, self.args, self.value, self.error = fn, args, None, None
        self.start()

    def run(self):
        try:
            self.value = self.fn(*self.args)
        except BaseException as e:
            self.error = e

    def result(self, timeout=60):
        timeout = scale.deadline(timeout)
        self.join(timeout)
        check(not self.is_alive(), f"{self.fn.__name__} still runs after {timeout} s")
        if self.error:
            raise self.error
        return self.value


def send_all(s, data):
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)


def read_hash(s):
    """(bytes, sha256) up to the end of file."""
    h, n = hashlib.sha256(), 0
    buf = bytearray(1 << 18)
    while got := s.recv_into(buf):
        h.update(memoryview(buf)[:got])
        n += got
    return n, h.hexdigest()


def echo(c, s):
    """One exchange each way."""
    c.sendall(b"hello mesh!")
    equal(read_exactly(s, 11), b"hello mesh!", "the server read")
    s.sendall(b"hello mesh!" * 2)
    equal(read_exactly(c, 22), b"hello mesh!" * 2, "the client read")


def read_hash_of(s, size):
    """(bytes, sha256) of exactly so many bytes."""
    h, n, buf = hashlib.sha256(), 0, bytearray(1 << 18)
    while n < size and (got := s.recv_into(buf, min(len(buf), size - n))):
        h.update(memoryview(buf)[:got])
        n += got
    return n, h.hexdigest()


def bulk_both_ways(c, s, size=64 * MIB, end=True):
    """`end`: each side says end of file after its last byte (a half-close for the side that is done first)."""
    size = scale.size(size)
    data = random_bytes(size)
    want = (size, hashlib.sha256(data).hexdigest())
    tasks = [Task(send_all if end else socket.socket.sendall, x, data) for x in (c, s)]
    readers = [Task(read_hash, x) if end else Task(read_hash_of, x, size) for x in (c, s)]
    for t in tasks:
        t.result()
    for who, t in zip(("client", "server"), readers):
        equal(t.result(), want, f"the {who} read")


def half_close(first, second, size=4 * MIB):
    """`first` sends and ends; `second` sees the end, then answers and ends."""
    size = scale.size(size)
    data = random_bytes(size)
    want = (size, hashlib.sha256(data).hexdigest())
    writer = Task(send_all, first, data)
    equal(read_hash(second), want, "before the first end of file")
    writer.result()
    writer = Task(send_all, second, data)
    equal(read_hash(first), want, "after the half-close")
    writer.result()


def reset_reaches(closer, other):
    """`closer` resets in the middle of data; the other application must see an error, not an end of file."""
    closer.sendall(b"x" * 1000)
    read_exactly(other, 1000)
    reset(closer)
    sees_reset(other)


def sees_reset(s):
    """The bytes before it."""
    n = 0
    with contextlib.suppress(ConnectionResetError):
        while got := s.recv(1 << 18):
            n += len(got)
        raise AssertionError(f"end of file after {n} bytes instead of a reset")
    return n


def early_answer(c, s, uploads=False):
    """A server that answers what it does not read, and closes: a reset behind the answer, which the client has all the same."""
    answer = b"HTTP/1.1 413 Content Too Large\r\n\r\n"
    c.sendall(b"x" * 1000)
    while len(s.recv(1000, socket.MSG_PEEK)) < 1000:
        pass
    upload = Task(upload_until_it_fails, c) if uploads else None
    s.sendall(answer)
    s.close()
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := c.recv(1000):
            got += chunk
        check(uploads, "end of file instead of a reset")  # else the upload was told of the reset
    equal(bytes(got), answer, "the client read")
    if upload:
        upload.result()


def upload_until_it_fails(s):
    with contextlib.suppress(ConnectionError):
        for _ in range(1 << 16):
            s.sendall(bytes(1 << 12))
        raise AssertionError("the server has closed, and all was sent")


def is_cut(s, within=10):
    """The connection ends, one way or the other, and brings no data."""
    s.settimeout(within)
    try:
        got = read_all(s)
    except TimeoutError:
        raise AssertionError(f"still open after {within} s") from None
    except OSError:
        return
    equal(got, b"", "data on a connection that had to be cut")


def dial_is_cut(host, ip, port, then=is_cut):
    """A connection that is not wanted: reset before connect(2) is back, or cut soon after."""
    try:
        s = host.connect(ip, port)
    except ConnectionResetError:
        return
    with s:
        then(s)


def dial_is_reset(host, ip, port):
    dial_is_cut(host, ip, port, sees_reset)


def proxy_header(s):
    """(source, destination, {type: value}) of a PROXY header, version 2."""
    head = read_exactly(s, 16)
    equal((head[:12], head[12]), (b"\r\n\r\n\0\r\nQUIT\n", 0x21), "signature, version and command")
    rest = read_exactly(s, int.from_bytes(head[14:16], "big"))
    family, n = {1: (socket.AF_INET, 4), 2: (socket.AF_INET6, 16)}[head[13] >> 4]
    equal(head[13] & 15, 1, "the transport")
    ports = struct.unpack(">HH", rest[2 * n:2 * n + 4])
    src, dst = ((socket.inet_ntop(family, rest[i * n:i * n + n]), ports[i]) for i in (0, 1))
    rest = rest[2 * n + 4:]
    tlvs = {}
    while rest:
        kind, n = struct.unpack(">BH", rest[:3])
        tlvs[kind], rest = rest[3:3 + n], rest[3 + n:]
    return src, dst, tlvs


def fill(s, limit=256 * MIB):
    """Writes until nothing more fits for a second; the number of bytes."""
    s.settimeout(1)
    n, chunk = 0, bytes(1 << 16)
    try:
        while n < limit:
            n += s.send(chunk)
    except TimeoutError:
        s.settimeout(PATIENCE)
        return n
    raise AssertionError(f"{limit} bytes went to a reader that does not read")


def outcome(host, ip, port, payload=b"", timeout=6):
    """What a connection attempt comes to: refused, unreachable, closed, silent, or the first bytes."""
    try:
        s = host.connect(ip, port, timeout=timeout)
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "closed"
    except TimeoutError:
        return "dropped"
    except OSError as e:
        return e.strerror
    with s:
        try:
            if payload:
                s.sendall(payload)
            got = s.recv(4096)
        except TimeoutError:
            return "silent"
        except OSError:
            return "closed"
        return got if got else "closed"


def steady(fn, seconds):
    """Calls fn() for a while; the slowest call in seconds."""
    end, worst = time.monotonic() + seconds, 0.0
    while (now := time.monotonic()) < end:
        fn()
        worst = max(worst, time.monotonic() - now)
    return worst
