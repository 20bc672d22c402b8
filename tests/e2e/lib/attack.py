# SPDX-License-Identifier: Apache-2.0
"""A peer with a valid certificate and bad intentions: what it sends, and what an agent must stay like meanwhile."""
import contextlib
import ssl
import struct
import time

from . import agents, h2, traffic
from .bed import pair
from .rows import check, equal

GROWTH_MAX = 48 << 20  # bytes that any attack may cost
SECONDS = 3            # of each flood


def resident(pid, what):
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) << 10 for x in f if x.startswith(what))


@contextlib.contextmanager
def watched(bed):
    """The server's agent stays small and alive, and serves another client during and after. What counts is the most
    that it ever held."""
    agent = bed.b1.node.agent
    pid = agent.tunnel_pid()
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")  # VmHWM begins anew
    before = resident(pid, "VmRSS:")
    with pair(bed.a1, bed.b1, port=8099) as (c, s):
        traffic.echo(c, s)
        yield
        grown = resident(pid, "VmHWM:") - before
        traffic.echo(c, s)
    with pair(bed.a1, bed.b1, port=8098) as (c, s):
        traffic.echo(c, s)
    equal(agent.tunnel_pid(), pid, "the process that serves")
    check(grown < GROWTH_MAX or agents.sanitized(), f"grew by {grown >> 20} MiB")


def certificate(bed):
    return bed.cert(bed.a2.spiffe)


def attacker(bed):
    return h2.Client(bed.u1, bed.b1.ip4, bed.ca, certificate(bed))


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def flood(h, block, seconds=SECONDS):
    """Sends it for a while or until the peer has had enough; False if the connection was ended."""
    h.tls.settimeout(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            h.tls.sendall(block)
        except TimeoutError:
            return True  # it takes no more: bounded
        except (OSError, ssl.SSLError):
            return False
    return True


def ended(h):
    """GOAWAY, or the end of the connection."""
    h.tls.settimeout(5)
    try:
        while h.event()[0] != h2.GOAWAY:
            pass
    except TimeoutError:
        return False
    except (OSError, ssl.SSLError):
        pass
    return True
