# SPDX-License-Identifier: Apache-2.0
"""What is measured: loads that gen puts on a path, the figures that come out of each, and what we want of them."""
from dataclasses import dataclass, field

GIB = 1 << 30


@dataclass(frozen=True)
class Figure:
    """`load` is what was done, `name` what is counted of it. Not `judged`: too small or too noisy to call one worse."""
    key: str
    load: str
    name: str
    unit: str
    more_is_better: bool = False
    judged: bool = True

    @property
    def title(self):
        return f"{self.load}: {self.name}"


@dataclass(frozen=True)
class Load:
    """`path`: from pod a1 to b1 on the other node (cross), to a2 (same). `per` is what CPU is divided by."""
    key: str
    title: str
    kind: str
    options: dict
    path: str = "cross"
    per: tuple = ()           # (how many units of work, the unit)
    wanted: tuple = ()        # (gen's field, its name, unit, factor, more is better)
    note: str = ""
    figures: tuple = field(init=False, default=())

    def __post_init__(self):
        out = [Figure(f"{self.key}.{value}", self.title, name, unit, more) for value, name, unit, _, more in self.wanted]
        if self.per:
            out += [Figure(f"{self.key}.cpu", self.title, "proxies' CPU", self.per[1]),
                    Figure(f"{self.key}.machine", self.title, "machine's CPU", self.per[1])]
        object.__setattr__(self, "figures", tuple(out))

    def values(self, result, window):
        """{figure's key: value}"""
        out = {f"{self.key}.{value}": result[value] * factor for value, _, _, factor, _ in self.wanted}
        if self.per:
            units = result["total"] / self.per[0]
            scale = 1 if self.per[0] == GIB else 1e6
            if window.pids:
                out[f"{self.key}.cpu"] = window.proxies / units * scale
            out[f"{self.key}.machine"] = window.machine / units * scale
        return out


RATE, BYTES = ("rate", "rate", "/s", 1, True), ("rate", "rate", "MB/s", 1e-6, True)
P50, P90, P99 = ((p, p, "us", 1, False) for p in ("p50", "p90", "p99"))
BULK = (GIB, "s per GiB")
EXCHANGES, CONNECTIONS = (1, "us per exchange"), (1, "us per connection")
T = 0.7  # seconds of most loads; run.py scales

LOADS = (
    Load("bulk1", "bytes, 1 stream", "bulk", {"seconds": 1}, per=BULK, wanted=(BYTES,)),
    Load("bulk16", "bytes, 16 streams", "bulk", {"seconds": 1, "conns": 16}, per=BULK, wanted=(BYTES,)),
    Load("pull1", "bytes, 1 stream, download", "pull", {"seconds": T}, per=BULK, wanted=(BYTES,)),
    Load("rr1", "64 B request-response, 1 connection", "rr", {"seconds": T, "size": 64}, wanted=(P50, P99)),
    Load("rr16", "1 KiB request-response, 16 connections", "rr", {"seconds": T, "size": 1024, "conns": 16},
         per=EXCHANGES, wanted=(RATE,)),
    Load("rr64", "1 KiB request-response, 64 connections", "rr", {"seconds": T, "size": 1024, "conns": 64},
         per=EXCHANGES, wanted=(RATE,)),
    Load("open16", "64 B at a fixed 1,000/s, 16 connections", "open",
         {"seconds": 2, "size": 64, "conns": 16, "rate": 1000}, wanted=(P50, P90, P99),
         note="open loop: latency from the time that was due"),
    Load("dns", "DNS queries at a fixed 2,000/s, 8 sockets", "dns", {"seconds": 2, "conns": 8, "rate": 2000}, path="dns",
         per=(1, "us per query"), wanted=(P50, P99), note="three of four for names of the mesh, the fourth a resolver's; open loop"),
    Load("conn16", "connect + 64 B + close, 16 at a time", "conn", {"seconds": T, "conns": 16}, per=CONNECTIONS,
         wanted=(RATE,)),
    Load("connect", "connect() alone", "connect", {"seconds": T, "rate": 500}, path="capture", wanted=(P50, P90),
         note="direct: to the pod's own loopback, which nothing captures"),
    Load("same-bulk1", "same node: bytes, 1 stream", "bulk", {"seconds": T}, path="same", per=BULK,
         wanted=(BYTES,)),
    Load("same-conn16", "same node: connect + 64 B + close", "conn", {"seconds": T, "conns": 16}, path="same",
         per=CONNECTIONS, wanted=(RATE,)),
)

# Of the process that carries traffic, the client's node's. One measurement a run: memory is no matter of chance.
IDLE_CONNS, WORKLOADS, SERVICES, PODS = 4000, 50_000, 5_000, 100
STATE = f"{WORKLOADS:,} workloads, {SERVICES:,} services from a file"
IDLE = f"{IDLE_CONNS:,} idle connections"
MEMORY = tuple(Figure(f"idle{n}.{kind}", f"at rest, {n} pods", what, "MiB") for n in (2, PODS)
               for kind, what in (("anon", "RssAnon"), ("pss", "PSS"), ("rss", "RSS"))) + (
    Figure("conn.client", IDLE, "client's side", "KiB each"),
    Figure("conn.server", IDLE, "server's side", "KiB each"),
    Figure("conn.cpu", IDLE, "proxies' CPU", "ms in a second", judged=False),
    Figure("state.cpu", STATE, "CPU until ready", "s"),
    Figure("state.rss", STATE, "RSS", "MiB"),
    Figure("state.each", STATE, "each workload", "B"),
)

# Of the node's half: pods that come, one by one and all together (node.py).
NODE_PODS = 250
ADD, ALL = "CNI ADD of a pod", f"{NODE_PODS} pods into the mesh, 10 at a time"
NODE = (
    Figure("node.add", ADD, "plugin, start to exit", "ms"),
    Figure("node.keeper", ADD, "keeper's part", "ms"),
    Figure("node.share", ADD, "whole ADD : istio-cni's rules", "x"),
    Figure("node.burst", "20 CNI ADDs at once", "until the last exits", "ms"),
    Figure("node.all", ALL, "until the last is in", "s"),
    Figure("node.cpu", ALL, "keeper's CPU", "ms each"),
)
FIGURES = tuple(f for load in LOADS for f in load.figures) + MEMORY + NODE
NOTES = {load.title: load.note for load in LOADS if load.note} | {
    ADD: "culvert-iptables: istio-cni's rules; its keeper's part is the time that they take"}


@dataclass(frozen=True)
class Goal:
    """Culvert with BPF steering against another mode in the same run: at least (where more is better) or at most
    `first` times its figure, later `then` times; without a mode an absolute value."""
    against: str
    first: float
    then: float = 0


GOALS = {
    "bulk1.rate": Goal("ztunnel", 1.25, 1.5), "bulk1.cpu": Goal("ztunnel", 0.75, 0.55),
    "bulk16.rate": Goal("ztunnel", 1.35, 1.6), "bulk16.cpu": Goal("ztunnel", 0.75, 0.55),
    "rr1.p50": Goal("ztunnel", 0.9, 0.8),
    "rr16.rate": Goal("ztunnel", 1.4, 1.9), "rr16.cpu": Goal("ztunnel", 0.6, 0.35),
    "rr64.rate": Goal("ztunnel", 1.7, 2.3),
    "open16.p90": Goal("ztunnel", 0.85, 0.7),
    "dns.p99": Goal("ztunnel", 1),
    "conn16.rate": Goal("ztunnel", 1.6, 2.2), "conn16.cpu": Goal("ztunnel", 0.5, 0.35),
    "connect.p50": Goal("direct", 1.1),
    "same-bulk1.rate": Goal("ztunnel", 2, 3), "same-conn16.rate": Goal("ztunnel", 2, 2.5),
    "idle2.anon": Goal("", 2.5), "idle2.pss": Goal("ztunnel", 0.8, 0.6), f"idle{PODS}.anon": Goal("", 8),
    "conn.client": Goal("", 3.7), "conn.server": Goal("", 3.7),
    "state.cpu": Goal("ztunnel", 0.8, 0.4), "state.rss": Goal("ztunnel", 0.5, 0.35),
    "node.add": Goal("", 15), "node.keeper": Goal("", 5), "node.share": Goal("", 1),
    "node.all": Goal("culvert-iptables", 0.2),
}
