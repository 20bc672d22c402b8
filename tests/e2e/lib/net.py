# SPDX-License-Identifier: Apache-2.0
"""The network of a test: tests/topology.py's two nodes with a1 and a2, b1 and b2, and u1 on the first node, outside the
mesh; and reading sockets."""
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
import scale  # noqa: F401, for importers
import topology
from topology import (PATIENCE, Host, Node, Pod, Unwound, batch, family, folder, inside, sh, stop, sysctl,  # noqa: F401, for importers
                      unwinding)

RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Network(topology.Network):
    OUTSIDE = ((1, "u1", 9, False),)

    def __init__(self, pods=topology.Network.PODS):
        super().__init__("e2e", (*pods, *self.OUTSIDE))

    def __enter__(self):
        topology.sweep("e2e")
        return super().__enter__()


class OneNode(Network):
    """All pods on the first node."""

    def __init__(self):
        super().__init__((*self.PODS[:2], (1, "b1", 4, True), (1, "b2", 5, True)))


def authority(ip, port):
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def reset(s):
    """Closes with a RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    s.close()


def read_all(s):
    """Everything up to the end of file."""
    out = bytearray()
    while chunk := s.recv(1 << 18):
        out += chunk
    return bytes(out)


def read_exactly(s, n):
    out = bytearray()
    while len(out) < n:
        chunk = s.recv(n - len(out))
        if not chunk:
            raise ConnectionError(f"end of file after {len(out)} of {n} bytes")
        out += chunk
    return bytes(out)
