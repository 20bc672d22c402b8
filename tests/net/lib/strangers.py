# SPDX-License-Identifier: Apache-2.0
"""Programs of others on a pod's device, and the few commands of bpf(2) that bpftool does not have."""
import contextlib
import ctypes
import functools
import os
import struct

from topology import inside, sh

PASS, NEXT = 0, -1  # TC_ACT_OK, which is TCX_PASS: nobody else is asked; TC_ACT_UNSPEC


class Bpf:
    """The few commands of bpf(2) that bpftool does not have."""

    LOOKUP, PROG_LOAD, OBJ_PIN, OBJ_GET, LINK_CREATE, LINK_UPDATE = 1, 5, 6, 7, 28, 29
    TCX, BEFORE = {"ingress": 46, "egress": 47}, 1 << 3
    NUMBER = 321 if os.uname().machine == "x86_64" else 280
    libc = ctypes.CDLL(None, use_errno=True)

    @classmethod
    def call(cls, command, attr):
        buf = ctypes.create_string_buffer(attr.ljust(128, b"\0"), 128)
        r = cls.libc.syscall(cls.NUMBER, command, buf, 128)
        if r < 0:
            raise OSError(ctypes.get_errno(), f"bpf({command})")
        return r

    @classmethod
    def get(cls, path):
        name = ctypes.create_string_buffer(path.encode())
        return cls.call(cls.OBJ_GET, struct.pack("Q", ctypes.addressof(name)))

    @classmethod
    def value(cls, fd, size):
        """Of key 0."""
        key, out = ctypes.create_string_buffer(4), ctypes.create_string_buffer(size)
        cls.call(cls.LOOKUP, struct.pack("IxxxxQQQ", fd, ctypes.addressof(key), ctypes.addressof(out), 0))
        return out.raw

    @classmethod
    def pin_verdict(cls, path, verdict):
        """A tc program that says the same of every packet, called "stranger"."""
        code = ctypes.create_string_buffer(struct.pack("<BBhi", 0xb7, 0, 0, verdict) + struct.pack("<BBhi", 0x95, 0, 0, 0))
        licence, name = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(path.encode())
        fd = cls.call(cls.PROG_LOAD, struct.pack("IIQQIIQII16s", 3, 2, ctypes.addressof(code), ctypes.addressof(licence),
                                                 0, 0, 0, 0, 0, b"stranger"))
        try:
            cls.call(cls.OBJ_PIN, struct.pack("QI", ctypes.addressof(name), fd))
        finally:
            os.close(fd)

    @classmethod
    def update_link(cls, path, program):
        link, prog = cls.get(path), cls.get(program)
        try:
            cls.call(cls.LINK_UPDATE, struct.pack("III", link, prog, 0))
        finally:
            os.close(link)
            os.close(prog)

    @classmethod
    def link_before(cls, path, ifindex, direction):
        """Attached to a device of the calling thread's namespace, before all others: the link."""
        prog = cls.get(path)
        try:
            return cls.call(cls.LINK_CREATE, struct.pack("IIII", prog, ifindex, cls.TCX[direction], cls.BEFORE))
        finally:
            os.close(prog)


@contextlib.contextmanager
def verdict(bed, says):
    path = f"{bed.pins}/stranger"
    Bpf.pin_verdict(path, says)
    try:
        yield path
    finally:
        os.unlink(path)


@contextlib.contextmanager
def stranger(bed, priority, handle, qdisc=True, direction="egress", says=PASS, protocol="all"):
    """Somebody else's filter on eth0. It stays."""
    tc = functools.partial(sh, "tc", "-n", bed.pod.ns)
    with verdict(bed, says) as path:
        if qdisc:
            tc("qdisc", "add", "dev", "eth0", "clsact")
        tc("filter", "add", "dev", "eth0", direction, "protocol", protocol, "prio", priority, "handle", handle, "bpf", "da",
           "pinned", path)
        yield


@contextlib.contextmanager
def strange_link(bed, direction="egress", says=PASS):
    """Somebody else's program on eth0, before all that are there; with tcx."""
    with verdict(bed, says) as path:
        with inside(bed.pod.ns):
            link = Bpf.link_before(path, 2, direction)
        try:
            yield
        finally:
            os.close(link)
