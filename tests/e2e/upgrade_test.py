#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tunnels that are replaced while they work, by hand and because their file has changed, and tunnels that are killed again
and again: nobody is refused, no byte is lost, what the old one has it finishes, and what fails changes nothing.

E2E_UPGRADES and E2E_KILLS set how many upgrades in a row (3) and how many seconds of kills (10) there are; `make check-long`
has 10 and 60."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.agents import BUILD, CULVERTCTL, sanitized
from lib.bed import Bed, kinds, pair, places
from lib.load import Load
from lib.net import PATIENCE, scale
from lib.rows import Table, check, equal, until
from servers_test import Server, take

T = Table(__file__)
UPGRADES = int(os.environ.get("E2E_UPGRADES") or 3)
KILLS = int(os.environ.get("E2E_KILLS") or 10)
RATE = scale.count(200, 10)     # connections a second
STREAMS = scale.count(50, 5)    # of bulk data
STREAM_RATE = scale.size(1 << 20 if UPGRADES >= 10 else 1 << 18)
BPF = [k for k in kinds() if k == "culvert"]
KEEPERS = [k for k in places() if k.startswith(("culvert", "local"))]
PROGRAM = "libexec/culvert/culvert-tunnel"
DYING = 0.5  # seconds from a SIGKILL until the sockets are closed


class OwnTree(Bed):
    """A bed whose agents run copies of the programs, each its own, which a row may replace."""

    def __init__(self, kinds, **kw):
        super().__init__(kinds, prepare=self._copy, **kw)

    def _copy(self, _):
        """Before any program starts: a process that is being made holds the file open that is being written."""
        for node in self.net.nodes:
            for name in ("bin/culvertd", "libexec/culvert/culvert-keeper", PROGRAM):
                os.makedirs(os.path.dirname(f"{self.tree(node)}/{name}"), exist_ok=True)
                shutil.copy2(f"{BUILD}/{name}", f"{self.tree(node)}/{name}")

    def tree(self, node):
        return f"{self.folder}/{node.name}-tree"

    def _serve(self, agent):
        agent.tree = self.tree(agent.node)
        agent.culvertd = f"{agent.tree}/bin/culvertd"
        super()._serve(agent)


def each(name, some=BPF, **kw):
    def add(fn):
        for kind in some:
            T.row(f"{kind}/{name}", lambda kind=kind: OwnTree((kind, kind), **kw))(fn)
        return fn

    return add


def tunnel_of(agent):
    """What the keeper says of its tunnel."""
    return agent.status()["tunnel"]


def generations(agent):
    return {g["pid"]: g["state"] for g in tunnel_of(agent)["generations"]}


def serving(agent):
    return until(lambda: [p for p, s in generations(agent).items() if s == "serving"], "a tunnel that serves", 20)[0]


def upgrade(agent):
    """(the process that served, the one that serves now)"""
    old = serving(agent)
    agent.ctl("upgrade")
    new = serving(agent)
    check(new != old, "the same process serves")
    return old, new


def carries_more(agent):
    """Waits until the tunnel that serves now has new connections: an upgrade takes less time than they need to come."""
    def opened():
        return agent.metric("istio_tcp_connections_opened_total")

    before = opened()
    until(lambda: opened() >= before + RATE // 4, "the new tunnel to carry connections")


def install(agent, what):
    """As installers do: written beside it, then renamed."""
    path = f"{agent.tree}/{PROGRAM}"
    if isinstance(what, str) and what.startswith("#!"):
        with open(f"{path}.new", "w") as f:
            f.write(what)
        os.chmod(f"{path}.new", 0o755)
    else:
        shutil.copyfile(what, f"{path}.new")
        os.chmod(f"{path}.new", 0o755)
    os.rename(f"{path}.new", path)


def alone(agent, pid, deadline=20):
    until(lambda: generations(agent) == {pid: "serving"}, "the old tunnels to end", deadline)


def not_failed(calls, cut_at=()):
    """Nobody was refused or waited in vain. What a killed tunnel carried goes down with it: such a call was under way when
    it died, which takes it a moment from the signal on, and was reset then."""
    for begin, end, step, error in calls["failed"]:
        cut = error in ("ConnectionResetError", "end of file", "BrokenPipeError")
        check(cut and any(begin - DYING <= at <= end + 1 for at in cut_at), f"{error} when {step}, after {end - begin:.1f} s")


def report(**figures):
    print("#   " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()), flush=True)


# --- the two bars ------------------------------------------------------------------------------------------------------


@each(f"{UPGRADES}-upgrades-lose-nothing", KEEPERS)
def upgrades(bed):
    """Of both nodes in turn, under bulk data and new connections; each generation keeps streams of its own."""
    agents = [bed.a1.node.agent, bed.b1.node.agent]
    first = [serving(a) for a in agents]
    with contextlib.ExitStack() as stack:
        stack.enter_context(Load(bed.b1, "echo", 8090))
        calls = stack.enter_context(Load(bed.a1, "calls", bed.b1.ip4, 8090, RATE))
        bulk = [stack.enter_context(Load(bed.a2, "streams", bed.b1.ip4, 8090, STREAMS, STREAM_RATE))]
        took = []
        for i in range(UPGRADES):
            at = time.monotonic()
            upgrade(agents[i % 2])
            took.append(time.monotonic() - at)
            bulk.append(stack.enter_context(Load(bed.a2, "streams", bed.b1.ip4, 8090, 2, STREAM_RATE)))
            carries_more(agents[i % 2])
        now = [serving(a) for a in agents]
        for agent, old in zip(agents, first):
            check(generations(agent)[old] == "draining" or UPGRADES < 2, "the first tunnel has ended before its streams")
        results = [b.result() for b in bulk]
        c = calls.result()
    equal([e for r in results for e in r["broken"]], [], "streams that broke")
    check(sum(r["bytes"] for r in results) >= STREAMS * STREAM_RATE // 8, "hardly anything was sent")
    not_failed(c)
    for agent, pid in zip(agents, now):
        alone(agent, pid)
    report(upgrades=UPGRADES, streams=STREAMS + 2 * UPGRADES, MiB=sum(r["bytes"] for r in results) >> 20,
           connections=c["count"], p99_ms=1e3 * c["p99"], max_ms=1e3 * c["max"], lag_ms=1e3 * c["lag"], upgrade_s=statistics.median(took))


@T.row(f"ztunnel/{UPGRADES}-upgrades-of-its-peer", lambda: OwnTree(("ztunnel", "culvert")))
def peer(bed):
    """ztunnel repeats no request: its connections must be left so that none is lost."""
    agent = bed.b1.node.agent
    with Load(bed.b1, "echo", 8090), Load(bed.a1, "calls", bed.b1.ip4, 8090, RATE) as calls, \
            Load(bed.a2, "streams", bed.b1.ip4, 8090, 5, STREAM_RATE) as bulk:
        for _ in range(UPGRADES):
            _, new = upgrade(agent)
            carries_more(agent)
        equal(bulk.result()["broken"], [], "streams that broke")
        not_failed(calls.result())
    alone(agent, new)


@each("silent-connections-hold-no-tunnel")
def silent(bed):
    """Without an upgrade they would be held for a minute; one that is to leave gives them the time of a handshake."""
    agent = bed.b1.node.agent
    with bed.u1.connect(bed.b1.ip4, 15008) as s:
        _, new = upgrade(agent)
        alone(agent, new, 15)
        s.settimeout(5)
        equal(s.recv(1), b"", "what a silent client hears")


def moments(agent, since):
    """Seconds from each death of a tunnel until the next one has all pods, by the log's own clock."""
    def clock(line):
        return time.mktime(time.strptime(line["time"][:19], "%Y-%m-%dT%H:%M:%S")) + float("0" + line["time"][19:27].rstrip("Z"))

    out, died = [], None
    for line in agent.lines(since):
        if re.match(r"the tunnel \(process \d+\) was killed", line.get("message", "")):
            died = clock(line)
        elif line.get("message") == "ready" and died:
            out.append(clock(line) - died)
            died = None
    return out


def kill_again_and_again(bed, agent):
    """The first restarts are there at once, connections wait for them, and nobody else notices."""
    since, killed = len(agent.log()), []
    with contextlib.ExitStack() as stack:
        stack.enter_context(Load(bed.b1, "echo", 8090))
        others = [stack.enter_context(Load(bed.b2, "echo", 8091)),
                  stack.enter_context(Load(bed.u1, "echo", 8092))]
        del others
        calls = stack.enter_context(Load(bed.a1, "calls", bed.b1.ip4, 8090, RATE))
        other = bed.net.nodes[0] if agent is bed.net.nodes[1].agent else bed.net.nodes[1]
        apart = [stack.enter_context(Load(p, "streams", q, port, 3, STREAM_RATE)) for p, q, port in untouched(bed, other)]
        begin = time.monotonic()
        for i in range(KILLS):
            until(lambda: time.monotonic() >= begin + i, "the next second", KILLS + 5)
            pid = until(lambda: tunnel_of(agent)["runningPid"], "a tunnel", 20)
            killed.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
        c = calls.result()
        for a in apart:
            equal(a.result()["broken"], [], "streams that have nothing to do with it")
    not_failed(c, killed)
    check(c["p99"] < 2, f"p99 of connecting and the first bytes: {c['p99']:.2f} s")
    restarts = moments(agent, since)
    check(len(restarts) >= min(KILLS, 5), f"{len(restarts)} restarts of {KILLS}")
    soon = scale.deadline(1 if sanitized() else 0.1)  # at the median: the machine has others to serve
    check(statistics.median(restarts[:5]) < soon and max(restarts[:5]) < 5 * soon,
          f"the first restarts took {[round(x, 3) for x in restarts[:5]]} s")
    report(kills=len(killed), connections=c["count"], cut=len(c["failed"]), p50_ms=1e3 * c["p50"], p99_ms=1e3 * c["p99"],
           max_ms=1e3 * c["max"], lag_ms=1e3 * c["lag"], first_restarts_ms=[round(1e3 * x) for x in restarts[:5]])


def untouched(bed, other):
    """Streams that do not pass the tunnel that is killed: on the other node, and of a pod outside the mesh."""
    if other is bed.net.nodes[1]:
        return [(bed.b2, bed.b1.ip4, 8090), (bed.u1, bed.b2.ip4, 8091)]
    return [(bed.a2, bed.u1.ip4, 8092)]


@each(f"client's-tunnel-killed-for-{KILLS}-s")
def kill_client(bed):
    kill_again_and_again(bed, bed.a1.node.agent)


@each(f"server's-tunnel-killed-for-{KILLS}-s")
def kill_server(bed):
    kill_again_and_again(bed, bed.b1.node.agent)


# --- one upgrade, looked at closely ----------------------------------------------------------------------------------


@each("the-old-tunnel-ends-with-its-last-connection", KEEPERS)
def last_connection(bed):
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        old, new = upgrade(agent)
        equal(generations(agent), {old: "draining", new: "serving"}, "generations")
        traffic.bulk_both_ways(c, s, 4 << 20, end=False)
        until(lambda: not os.path.exists(f"/proc/{old}") or len(listening(bed.a1)) == 3, "the old one's listeners to be closed")
        with pair(bed.a1, bed.b1, port=8081) as (c2, s2):
            traffic.echo(c2, s2)
        traffic.echo(c, s)
        equal(generations(agent)[old], "draining", "the old tunnel's state")
    alone(agent, new)
    check(not os.path.exists(f"{agent.run_dir}/draining-{old}.sock"), "its socket is left")


def listening(pod):
    return pod.run("ss", "-Hlnt", "sport", ">=", ":15001", "and", "sport", "<=", ":15008").splitlines()


@each("status-and-connections-show-who-drains")
def shown(bed):
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        old, new = upgrade(agent)
        by_pid = {g["pid"]: g for g in tunnel_of(agent)["generations"]}
        equal(by_pid[old].get("connections"), 1, "connections of the old one")
        equal({p: (g["current"], g["connected"], g["program"]) for p, g in by_pid.items()},
              {p: (True, True, f"{agent.tree}/{PROGRAM}") for p in (old, new)}, "file and connection to the keeper")
        check(re.search(rf"process {old} +draining 1 connections", agent.ctl("status")), agent.ctl("status"))
        with pair(bed.a1, bed.b1, port=8081) as (c2, s2):
            traffic.echo(c2, s2)
            listed = agent.status("connections")["connections"]
            ours = {x["originalDst"].split(":")[1]: x.get("process") for x in listed if x["direction"] == "outbound"}
            equal(ours, {"8080": old, "8081": None}, "outbound connections by port, and who carries them")
            check(re.search(rf"process {old}, which drains:\n.*\n.*:8080", agent.ctl("connections")), "the table has no part for it")
    alone(agent, new)


@each("its-ports-always-answer")
def ports(bed):
    """15021, 15020 and 15000 are open and say what is true, all the time; but for whoever comes in the instant in which the
    old one closes them, which resets him."""
    agent, over, answers, resets = bed.a1.node.agent, [], [], []

    def ask():
        while not over:
            for port, path in (15021, "/healthz/ready"), (15020, "/metrics"), (15000, "/generation"):
                try:
                    answers.append(agent.http(port, path)[0])
                except ConnectionResetError:
                    resets.append(port)

    task = traffic.Task(ask)
    with pair(bed.a1, bed.b1) as (c, s):
        for _ in range(3):
            upgrade(agent)
            traffic.echo(c, s)
        over.append(True)
        task.result()
    equal(set(answers), {200}, "answers")
    check(len(answers) > 30, f"only {len(answers)} answers")
    check(len(resets) <= 1, f"resets: {resets}")


@each("a-changed-file-is-an-upgrade")
def changed_file(bed):
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        old = serving(agent)
        install(agent, f"{BUILD}/{PROGRAM}")
        new = until(lambda: [p for p, g in generations(agent).items() if g == "serving" and p != old], "an upgrade", 20)[0]
        traffic.echo(c, s)
        equal({g["pid"]: g["current"] for g in tunnel_of(agent)["generations"]}, {old: False, new: True}, "whose file is there")
    alone(agent, new)
    equal(tunnel_of(agent)["restarts"], 0, "restarts")


@each("but-not-when-that-is-switched-off", env={"CULVERT_UPGRADE_ON_CHANGE": "false"})
def not_followed(bed):
    agent = bed.a1.node.agent
    old = serving(agent)
    install(agent, f"{BUILD}/{PROGRAM}")
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.steady(lambda: traffic.echo(c, s), 1.5)
    equal(generations(agent), {old: "serving"}, "generations")
    upgrade(agent)


@each("drains-no-longer-than-its-limit", env={"CULVERT_DRAIN_LIMIT": f"{scale.deadline(2)}s"})
def limit(bed):
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        at = time.monotonic()
        old, new = upgrade(agent)
        traffic.is_cut(c, scale.deadline(10))
        check(time.monotonic() - at > scale.deadline(1.5), f"cut after {time.monotonic() - at:.1f} s")
    alone(agent, new)
    check(re.search(r"1 connections are reset at the deadline", agent.log()), "no line says so")


@each("peers-are-told-to-leave")
def goaway(bed):
    """The HBONE client of another node gets its two GOAWAYs and keeps its stream; new ones go to the new tunnel."""
    agent = bed.b1.node.agent
    with h2.Client(bed.u1, bed.b1.ip4, bed.ca, bed.cert(bed.a2.spiffe)) as h, bed.b1.listen(8081) as listener:
        stream = h.connect(f"{bed.b1.ip4}:8081")
        equal(h.status(stream), "200", "status")
        s, _ = listener.accept()
        with s:
            s.settimeout(PATIENCE)
            old, new = upgrade(agent)
            h.data(stream, b"ping")
            equal(s.recv(4), b"ping", "bytes there")
            s.sendall(b"pong")
            equal(h.read(stream, 4), b"pong", "bytes back")
            until(lambda: len(h.goaway) > 1 or (h.event() and False), "the second GOAWAY")
            equal(h.goaway, [(2 ** 31 - 1, 0), (stream, 0)], "GOAWAYs")
            with h2.Client(bed.u1, bed.b1.ip4, bed.ca, bed.cert(bed.a2.spiffe)) as h2_:
                equal(h2_.status(h2_.connect(f"{bed.b1.ip4}:8081")), "200", "status at the new one")
            equal(generations(agent)[old], "draining", "the old one's state")
    alone(agent, new)


class Connected:
    """A host for h2.Client whose connection is there already."""

    def __init__(self, sock):
        self.sock = sock

    def connect(self, ip, port, timeout):
        return self.sock


@each("handshakes-under-way-are-finished")
def handshake(bed):
    """An HBONE client that the old tunnel has accepted, and that says its first word after the upgrade, is served."""
    agent = bed.b1.node.agent
    s = bed.u1.connect(bed.b1.ip4, 15008)
    until(lambda: bed.b1.run("ss", "-Hlnt", "sport", "=", ":15008").split()[1] == "0", "the connection to be accepted")
    old, new = upgrade(agent)
    with pair(bed.a1, bed.b1, port=8082) as (c, s2):
        traffic.steady(lambda: traffic.echo(c, s2), 1)
    with h2.Client(Connected(s), bed.b1.ip4, bed.ca, bed.cert(bed.a2.spiffe)) as h, bed.b1.listen(8081):
        equal(h.status(h.connect(f"{bed.b1.ip4}:8081")), "200", "status")
        equal(generations(agent)[old], "draining", "the old one's state")
    alone(agent, new)


def pooled(server, s):
    """Answers each CONNECT, and keeps what comes."""
    wire = server.open_http2(s)
    server.frames = []
    while True:
        kind, flags, stream, payload = take(wire)
        server.frames.append(kind)
        if kind == h2.HEADERS:
            wire.send(h2.HEADERS, h2.END_HEADERS, stream, b"\x88")  # :status 200
        elif kind == h2.DATA and flags & h2.END_STREAM:
            wire.send(h2.DATA, h2.END_STREAM, stream)


@each("idle-pooled-connections-are-left-at-once", pods=("a1", "a2", "b2"))
def pool(bed):
    """A connection of the old tunnel's pool that nobody uses gets a GOAWAY and its end, while the old one drains."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b2, port=8082) as (c, s):
        traffic.echo(c, s)
        with Server(bed, bed.b1, False, pooled) as server:
            with bed.a1.connect(bed.b1.ip4, 8080) as x:
                until(lambda: h2.HEADERS in getattr(server, "frames", ()), "the request")
                x.shutdown(socket.SHUT_WR)
                equal(x.recv(1), b"", "end of file")
            check(h2.GOAWAY not in server.frames, "GOAWAY before the upgrade")
            old, new = upgrade(agent)
            until(lambda: h2.GOAWAY in server.frames, "GOAWAY")
            until(lambda: not server.threads[-1].is_alive(), "the end of the connection")
            traffic.echo(c, s)
            equal(generations(agent)[old], "draining", "the old one's state")
    alone(agent, new)


@each("pods-join-and-leave-meanwhile", KEEPERS, pods=("a1", "b1", "b2"), env={"CULVERT_DRAIN": "0"})
def joining(bed):
    """Every enrolment succeeds, and the pod is served at once, whichever tunnel it was told to."""
    agent, rounds, over = bed.a1.node.agent, [], []

    def join_and_leave():
        while not over:
            agent.enrol(bed.a2)
            with pair(bed.a2, bed.b1, port=8083) as (c, s):
                traffic.echo(c, s)
            agent.unenrol(bed.a2)
            rounds.append(time.monotonic())

    with pair(bed.a1, bed.b1) as (c, s):
        task = traffic.Task(join_and_leave)
        for _ in range(UPGRADES):
            upgrade(agent)
            n = len(rounds)
            until(lambda: len(rounds) > n or task.error, "a pod to join and leave", 20)
        traffic.echo(c, s)
        over.append(True)
        task.result()
    alone(agent, serving(agent))


# --- what reaches those that drain -----------------------------------------------------------------------------------


@each("a-pod-that-leaves-leaves-the-old-tunnel-too", env={"CULVERT_DRAIN": "1s"})
def leaves(bed):
    agent = bed.b1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), pair(bed.a2, bed.b2, port=8081) as (c2, s2):
        traffic.echo(c, s)
        old, new = upgrade(agent)
        agent.unenrol(bed.b1)
        traffic.is_cut(c)
        traffic.echo(c2, s2)
        until(lambda: draining(agent, old, "/generation")["connections"] == 1, "one connection to be left")
        until(lambda: served(draining(agent, old, "/config_dump")) == {"b2"}, "the old one to let go of the pod")
    alone(agent, new)


def draining(agent, pid, path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(PATIENCE)
        s.connect(f"{agent.run_dir}/draining-{pid}.sock")
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        raw = b""
        while chunk := s.recv(1 << 16):
            raw += chunk
    return json.loads(raw.partition(b"\r\n\r\n")[2])


def served(dump):
    return {p["info"]["name"] for p in dump["workloadState"].values()}


@each("a-policy-reaches-the-old-tunnel")
def policy(bed):
    """A DENY that comes later cuts what drains."""
    agent = bed.b1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), pair(bed.a1, bed.b1, port=8081) as (c2, s2):
        traffic.echo(c, s)
        old, new = upgrade(agent)
        bed.mesh.policy("no-8080", "Deny", [[[{"destinationPorts": [8080]}]]], ["b1"])
        bed.mesh.save(f"{bed.folder}/mesh.yaml")
        traffic.is_cut(c)
        traffic.echo(c2, s2)
        equal(generations(agent)[old], "draining", "the old one's state")
    alone(agent, new)


# --- failures --------------------------------------------------------------------------------------------------------


def fails(bed, agent, want, deadline=20):
    """An upgrade by hand that fails: one line, and everything as it was."""
    old, sock = serving(agent), os.stat(f"{agent.run_dir}/tunnel.sock").st_ino
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        r = subprocess.run([CULVERTCTL, "upgrade"], env=agent.env, capture_output=True, text=True, timeout=90)
        equal((r.returncode, r.stdout), (1, ""), "culvertctl upgrade")
        lines = [x for x in r.stderr.splitlines() if " is starting (" not in x]
        check(len(lines) == 1 and re.search(want, lines[0]), f"{r.stderr!r}")
        until(lambda: generations(agent) == {old: "serving"}, "the new one to be gone", deadline)
        equal(os.stat(f"{agent.run_dir}/tunnel.sock").st_ino, sock, "whose tunnel.sock is there")
        check(agent.ready(), "not ready")
        check(re.search(want, tunnel_of(agent)["upgrades"]["trouble"]), "status does not say why")
        check("FAILED" in agent.ctl("status"), "status does not show it")
        traffic.echo(c, s)
        with pair(bed.a1, bed.b1, port=8081) as (c2, s2):
            traffic.echo(c2, s2)


FAILURES = [
    ("refuses-its-configuration", "#!/bin/sh\necho 'culvert-tunnel: no such luck' >&2\nexit 1\n", "ended with status 1 before"),
    ("is-killed", "#!/bin/sh\nkill -9 $$\n", "signal 9"),
    ("is-no-program", "#!/nonexistent/interpreter\n", "cannot start .*culvert-tunnel"),
    ("has-another-mark", "#!/bin/sh\nPACKET_MARK=4 exec {tunnel}\n", "cannot serve 2 pods: .*PACKET_MARK is 4"),
    ("has-another-port", "#!/bin/sh\nCULVERT_STATS_PORT=22 exec {tunnel}\n", "ended with status 1"),
]


def failure(bed, text, want):
    agent = bed.a1.node.agent
    with bed.a1.node.listen(22):
        shutil.copy2(f"{BUILD}/{PROGRAM}", f"{agent.tree}/real-tunnel")
        install(agent, text.format(tunnel=f"{agent.tree}/real-tunnel"))
        fails(bed, agent, want)
        fails(bed, agent, want)  # by hand it is tried again
    install(agent, f"{BUILD}/{PROGRAM}")
    upgrade(agent)
    equal(tunnel_of(agent)["upgrades"]["trouble"], "", "trouble after one that succeeded")


for kind in BPF:
    for name, *rest in FAILURES:
        T.row(f"{kind}/failed-upgrade/{name}", lambda kind=kind: OwnTree((kind, kind), env={"CULVERT_UPGRADE_ON_CHANGE": "false"}),
              *rest)(failure)


@each("failed-upgrade/never-says-hello", env={"CULVERT_UPGRADE_ON_CHANGE": "false"}) if KILLS >= 60 else lambda fn: fn
def mute(bed):
    agent = bed.a1.node.agent
    install(agent, "#!/bin/sh\nexec sleep 600\n")
    fails(bed, agent, "does not serve after 60 s")


@each("a-file-that-fails-is-not-started-again")
def bad_file(bed):
    """Tried once; when the tunnel is killed later, what served before is started, though its file is gone."""
    agent = bed.a1.node.agent
    old = serving(agent)
    install(agent, "#!/bin/sh\nexit 1\n")
    until(lambda: tunnel_of(agent)["upgrades"]["failed"] == 1, "the upgrade to fail")
    os.kill(old, signal.SIGKILL)
    until(lambda: generations(agent) and old not in generations(agent), "another one")
    new = serving(agent)
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
    equal([(g["pid"], g["current"]) for g in tunnel_of(agent)["generations"]], [(new, False)], "the tunnel")
    equal(tunnel_of(agent)["upgrades"]["failed"], 1, "upgrades that failed")


@each("one-upgrade-at-a-time", env={"CULVERT_UPGRADE_ON_CHANGE": "false"})
def at_once(bed):
    agent = bed.a1.node.agent
    slow_program(agent, 2)
    first = subprocess.Popen([CULVERTCTL, "upgrade", "--json"], env=agent.env, stdout=subprocess.PIPE, text=True)
    until(lambda: tunnel_of(agent)["upgrades"]["running"], "the upgrade to begin")
    r = subprocess.run([CULVERTCTL, "upgrade"], env=agent.env, capture_output=True, text=True, timeout=60)
    check(r.returncode == 1 and "another upgrade is under way" in r.stderr and len(r.stderr.splitlines()) == 1, f"{r}")
    out = json.loads(first.communicate(timeout=60)[0])
    equal((first.returncode, out["state"]), (0, "done"), "the first one")
    equal([g["state"] for g in out["generations"]][-1], "serving", "the last generation")


def slow_program(agent, seconds):
    shutil.copy2(f"{BUILD}/{PROGRAM}", f"{agent.tree}/slow-culvert-tunnel")
    install(agent, f"#!/bin/sh\nsleep {seconds}\nexec {agent.tree}/slow-culvert-tunnel\n")


@each("upgrade-waits-for-the-old-one")
def waits(bed):
    """--wait: until the last connection of the old tunnel has ended, with a word from time to time."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        p = subprocess.Popen([CULVERTCTL, "upgrade", "--wait"], env=agent.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = p.stderr.readline()
        check(re.fullmatch(r"culvertctl: process \d+ drains, 1 connections\n", line), f"{line!r}")
        check(p.poll() is None, "it has ended")
    out, _ = p.communicate(timeout=30)
    check(p.returncode == 0 and re.fullmatch(r"process \d+ +serving, .*\n", out), f"{p.returncode}: {out!r}")


@each("the-new-tunnel-dies-while-the-old-one-drains")
def new_dies(bed):
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), Load(bed.b1, "echo", 8090), Load(bed.a1, "calls", bed.b1.ip4, 8090, RATE) as calls:
        traffic.echo(c, s)
        old, new = upgrade(agent)
        at = time.monotonic()
        os.kill(new, signal.SIGKILL)
        third = until(lambda: [p for p, g in generations(agent).items() if g == "serving" and p != new], "another one", 20)[0]
        traffic.echo(c, s)
        equal(generations(agent), {old: "draining", third: "serving"}, "generations")
        not_failed(calls.result(), [at])
    alone(agent, third)


@each("sigterm-to-the-tunnel-is-a-restart-without-loss")
def by_hand(bed):
    """Whoever ends the tunnel itself gets its drain, and the keeper does not wait for the end of it."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), Load(bed.b1, "echo", 8090), Load(bed.a1, "calls", bed.b1.ip4, 8090, RATE) as calls:
        traffic.echo(c, s)
        old = serving(agent)
        os.kill(old, signal.SIGTERM)
        new = until(lambda: [p for p, g in generations(agent).items() if g == "serving" and p != old], "another one", 5)[0]
        traffic.echo(c, s)
        not_failed(calls.result())
    alone(agent, new)
    equal(tunnel_of(agent)["restarts"], 0, "restarts")


@each("a-tunnel-that-hangs-is-replaced")
def hangs(bed):
    """It is told of something and does not answer. When it goes on it finishes what it has."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        old = serving(agent)
        os.kill(old, signal.SIGSTOP)
        try:
            agent.ctl("unenrol", f"/run/netns/{bed.a2.ns}", ok=False)
            until(lambda: "upgraded: process" in agent.log(), "another one", 30)  # status would ask the one that hangs
            new = serving(agent)
            with pair(bed.a1, bed.b1, port=8081) as (c2, s2):
                traffic.echo(c2, s2)
            equal(generations(agent), {old: "draining", new: "serving"}, "generations")
        finally:
            os.kill(old, signal.SIGCONT)
        traffic.echo(c, s)
    alone(agent, new)
    agent.ctl("enrol", f"/run/netns/{bed.a2.ns}", f"default/a2/{bed.a2.sa}")
    equal(tunnel_of(agent)["restarts"], 1, "restarts")


# --- another keeper --------------------------------------------------------------------------------------------------


def kill_keeper(agent):
    for pid in agent.processes("keeper"):
        os.kill(pid, signal.SIGKILL)
    agent.process.wait()


@each("an-application-at-our-ports-keeps-nobody-else-from-an-upgrade", env={"CULVERT_UPGRADE_ON_CHANGE": "false"})
def blocked(bed):
    """It took one while both were away: its pod is not regained until it lets go, and the log names the pod."""
    agent = bed.a1.node.agent
    agent.kill_all()
    state = lambda: {p["name"]: p["state"] for p in agent.status("pods")["pods"]}
    with bed.a2.listen(15006):
        agent.spawn([agent.culvertd])
        until(lambda: os.path.exists(f"{agent.run_dir}/ctl.sock") and agent.processes("tunnel"), "a tunnel")
        until(lambda: serving(agent), "the tunnel to serve")
        equal(state(), {"a1": "enrolled", "a2": "recovering"}, "states")
        at = time.monotonic()
        upgrade(agent)
        check(time.monotonic() - at < 20, "the upgrade took 20 s")
        check("pod default/a2 is not regained" in agent.log() and "the new tunnel serves without it" in agent.log(), "no line")
        with pair(bed.a1, bed.b1) as (c, s):
            traffic.echo(c, s)
    until(lambda: state() == {"a1": "enrolled", "a2": "enrolled"}, "the pod to be regained")


@each("keeper-killed-in-the-middle-of-an-upgrade", env={"CULVERT_UPGRADE_ON_CHANGE": "false"})
def keeper_killed(bed):
    """The next keeper knows who is who, finishes the upgrade, and starts no third one."""
    agent = bed.a1.node.agent
    with contextlib.ExitStack() as stack:
        stack.enter_context(Load(bed.b1, "echo", 8090))
        calls = stack.enter_context(Load(bed.a1, "calls", bed.b1.ip4, 8090, RATE))
        bulk = stack.enter_context(Load(bed.a1, "streams", bed.b1.ip4, 8090, 3, STREAM_RATE))
        old = serving(agent)
        slow_program(agent, 2)
        request = subprocess.Popen([CULVERTCTL, "upgrade"], env=agent.env, stderr=subprocess.PIPE, text=True)
        new = until(lambda: [p for p, g in generations(agent).items() if g == "starting"], "the upgrade to begin")[0]
        kill_keeper(agent)
        check(request.wait(30) == 1 and len(request.stderr.read().splitlines()) == 1, "what culvertctl says")
        agent.start()
        until(lambda: generations(agent) == {old: "draining", new: "serving"}, "the upgrade to be finished", 30)
        equal(sorted(agent.processes("tunnel")), sorted([old, new]), "tunnels")
        equal({p["state"] for p in agent.status("pods")["pods"]}, {"enrolled"}, "pods")
        equal(bulk.result()["broken"], [], "streams that broke")
        not_failed(calls.result())
    alone(agent, new)
    equal(tunnel_of(agent)["restarts"], 0, "restarts")


@each("keeper-killed-while-an-old-tunnel-drains")
def keeper_killed_later(bed):
    """It is known again as one that drains, learns which pods leave, and the pods' sockets come from the one that serves."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), pair(bed.a2, bed.b1, port=8081) as (c2, s2):
        traffic.echo(c, s)
        old, new = upgrade(agent)
        kill_keeper(agent)
        traffic.echo(c, s)
        agent.start()
        until(lambda: generations(agent) == {old: "draining", new: "serving"}, "both to be known", 30)
        until(lambda: {p["state"] for p in agent.status("pods")["pods"]} == {"enrolled"}, "the pods to be regained")
        agent.env["CULVERT_DRAIN"] = "1s"
        agent.unenrol(bed.a1)
        traffic.is_cut(c, scale.deadline(20))
        until(lambda: served(draining(agent, old, "/config_dump")) == {"a2"}, "the old one to let go of the pod")
        traffic.echo(c2, s2)
        with pair(bed.a2, bed.b1, port=8082) as (c3, s3):
            traffic.echo(c3, s3)
    alone(agent, new)


@each("keeper-comes-back-to-another-file")
def replaced_meanwhile(bed):
    """A package replaces the programs and restarts the keeper: the tunnel that is taken over is upgraded."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        old = serving(agent)
        kill_keeper(agent)
        install(agent, f"{BUILD}/{PROGRAM}")
        agent.start()
        new = until(lambda: [p for p, g in generations(agent).items() if g == "serving" and p != old], "an upgrade", 20)[0]
        traffic.echo(c, s)
    alone(agent, new)


@each("the-end-takes-all-along")
def end(bed):
    """SIGTERM to culvertd: those that drain get no more time than the one that serves."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        old, new = upgrade(agent)
        agent.signal(signal.SIGTERM)
        equal(agent.process.wait(scale.deadline(15)), 0, "exit status")
        traffic.is_cut(c)
    equal(agent.processes("tunnel"), [], "tunnels that are left")


@each("nothing-is-upgraded-that-others-run", ["split"] if BPF else [])
def not_ours(bed):
    keeper = bed.a1.node.agent.keeper
    r = subprocess.run([CULVERTCTL, "upgrade"], env=keeper.env, capture_output=True, text=True, timeout=30)
    check(r.returncode == 1 and "not run by this keeper" in r.stderr and len(r.stderr.splitlines()) == 1, f"{r}")
    equal([g["state"] for g in keeper.status()["tunnel"]["generations"]], ["serving"], "generations")


if __name__ == "__main__":
    T.main()
