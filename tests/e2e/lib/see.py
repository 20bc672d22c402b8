# SPDX-License-Identifier: Apache-2.0
"""The bed of the rows that look inside: the first node's tunnel allows taps, the second's does not. And a tap's reader."""
import base64
import contextlib
import json
import socket

from .bed import Bed
from .mesh import Exact
from .net import PATIENCE

GUARDED = "10.72.5.1"  # a service behind a waypoint, which is b2
SINGLE = "10.72.5.3", "fd72::5:3"  # one of b1 alone


class See(Bed):
    def __init__(self):
        super().__init__(("culvert", "culvert"), prepare=See.mesh_of)

    def mesh_of(self):
        self.mesh.policy("no-9001", "Deny", [[[{"destinationPorts": [9001]}]]], ["a2", "b1"])
        a2 = Exact(self.a2.spiffe.removeprefix("spiffe://"))
        self.mesh.policy("a2-only", "Allow", [[[{"principals": [a2]}]], [[{"destinationPorts": [80]}]]], ["b2"])
        self.mesh.service("single", SINGLE, {80: 8080}, ["b1"])
        self.mesh.service("guarded", [GUARDED], {80: 8080}, ["b1"],
                          waypoint={"destination": f"/{self.b2.ip4}", "hboneMtlsPort": 15008})
        self.mesh.service("empty", ["10.72.5.2"], {80: 8080}, [])

    def _serve(self, agent):
        if agent.node.index == 1:
            agent.env |= {"CULVERT_TAP": "true", "CONNECTION_TERMINATION_DEADLINE": "1s"}
        super()._serve(agent)
        if agent.node.index == 1:
            self.agent = agent

    def tap(self, pod, peer=""):
        return Tap(f"{self.agent.run_dir}/tap.sock", {"pod": pod, "peer": peer})


class Tap:
    """Lines of a tap. `hello` is the first one."""

    def __init__(self, path, question):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.buffer, self.events = b"", []
        with contextlib.suppress(BrokenPipeError):  # refused before it has asked
            self.socket.sendall(question if isinstance(question, bytes) else json.dumps(question).encode() + b"\n")
        self.hello = self.line()

    def line(self):
        while b"\n" not in self.buffer:
            chunk = self.socket.recv(1 << 18)
            if not chunk:
                raise ConnectionError("the tap has ended")
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def until(self, what, found):
        """Reads on until found(events so far); the events."""
        while not found(self.events):
            try:
                self.events.append(self.line())
            except TimeoutError:
                raise AssertionError(f"no {what}; there were {[brief(e) for e in self.events]}") from None
        return self.events

    def data(self, to):
        return b"".join(base64.b64decode(e["data"]) for e in self.events if e["event"] == "data" and e["to"] == to)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def brief(e):
    return f"{e['event']} {e.get('connection')} {e.get('to', '')} {e.get('length', '')}".strip()
