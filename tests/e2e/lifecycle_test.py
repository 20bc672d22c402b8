#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agents that end, drain, die and come back; pods that join and leave. Never plaintext where a tunnel was due, never a
refused connection while the other half lives."""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.agents import CULVERTD, DRAIN
from lib.bed import fixture, kinds, not_ztunnel, pair, places
from lib.net import PATIENCE, inside, scale, stop
from lib.rows import Table, check, equal, until

T = Table(__file__)
KEEPERS = [k for k in places() if k.startswith(("culvert", "local"))]
BPF = [k for k in KEEPERS if k in ("culvert", "local")]
TUNNELS = [k for k in kinds() if not k.startswith(("culvert", "local", "split"))]
SPLIT = ["split"] if "culvert" in kinds() else []


def each(name, some=None, **kw):
    """Every row has a bed of its own: it ends agents."""

    def add(fn):
        for kind in places() if some is None else some:
            T.row(f"{kind}/{name}", fixture(kind, kind, **kw))(fn)
        return fn

    return add


def exchange(bed, client=None, server=None, port=8080, timeout=PATIENCE):
    with pair(client or bed.a1, server or bed.b1, port=port, timeout=timeout) as (c, s):
        traffic.echo(c, s)
    return True


class Stream:
    """One exchange after the other on one connection, until stopped; `count` and `error` say how it went."""

    def __init__(self, c, s):
        self.c, self.s, self.count, self.stopping = c, s, 0, False
        self.task = traffic.Task(self._run)

    def _run(self):
        while not self.stopping:
            traffic.echo(self.c, self.s)
            self.count += 1
            scale.breathe()

    def moves(self):
        n = self.count
        until(lambda: self.count > n + 5 or self.task.error, "the stream to move")
        check(not self.task.error, f"the stream broke: {self.task.error!r}")

    def stop(self):
        self.stopping = True
        self.task.result()


class Calls:
    """New connections all the time; what they came to."""

    def __init__(self, bed):
        self.bed, self.done, self.failed, self.stopping = bed, 0, [], False
        self.listener = bed.b1.listen(8090)
        self.tasks = [traffic.Task(self._serve), traffic.Task(self._call)]

    def _serve(self):
        """Until the listener is shut down. It waits in accept(2), not in poll(2): what was seen once is a connection with its
        byte in the listener's queue, carried by all agents, that a polling server did not take for twenty seconds."""
        self.listener.settimeout(None)
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with s:
                s.settimeout(PATIENCE)
                try:
                    s.sendall(s.recv(100))
                except OSError:
                    pass

    def _call(self):
        while not self.stopping:
            at, step = time.monotonic(), "connecting"
            try:
                with self.bed.a1.connect(self.bed.b1.ip4, 8090, timeout=20) as c:
                    step = "waiting for the answer"
                    c.sendall(b"x")
                    if c.recv(10) != b"x":
                        raise ConnectionError("no answer")
                self.done += 1
                scale.breathe()
            except OSError as e:
                self.failed.append((e, time.monotonic() - at, step))

    def more(self, n=5):
        want = self.done + n
        until(lambda: self.done >= want, f"new connections ({self.failed[:2]})", 30)

    def stop(self):
        self.stopping = True
        self.tasks[1].result(60)
        self.listener.shutdown(socket.SHUT_RDWR)
        self.tasks[0].result(60)
        self.listener.close()


# --- drain -----------------------------------------------------------------------------------------------------


@each("drain-lets-connections-finish")
def drain(bed):
    """SIGTERM to the server's node: GOAWAY, the open connection goes on, the process ends when it does."""
    agent = bed.b1.node.agent
    pid = agent.tunnel_pid()
    with h2.Client(bed.u1, bed.b1.ip4, bed.ca, bed.cert(bed.a2.spiffe)) as h, pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        with bed.b1.listen(8081):
            equal(h.status(h.connect(f"{bed.b1.ip4}:8081")), "200", "status before the drain")
            os.kill(agent.process.pid, signal.SIGTERM)
            kind, _, _, _ = h.event()
            equal(kind, h2.GOAWAY, "frame after SIGTERM")
            equal(h.goaway[0], (2 ** 31 - 1, 0), "first GOAWAY")
        for _ in range(20):
            traffic.echo(c, s)
        check(os.path.exists(f"/proc/{pid}"), "it ended while a connection was open")
        h.close()
        c.shutdown(socket.SHUT_WR)
        equal(s.recv(10), b"", "end of file")
    agent.process.wait(7)
    equal(agent.process.returncode, 0, "exit status")


@each("drain-serves-who-waits-to-be-accepted", TUNNELS)
def drain_waiting(bed):
    """Connections that the kernel has accepted, and the agent has not when it is told to drain, are carried."""
    not_ztunnel(bed, "resets them")
    agent, count = bed.a1.node.agent, 800
    with contextlib.ExitStack() as stack, bed.b1.listen(8080) as listener:
        exchange(bed, port=8081)
        agent.signal(signal.SIGSTOP)
        try:
            clients = [stack.enter_context(bed.a1.connect(bed.b1.ip4, 8080)) for _ in range(count)]
            agent.signal(signal.SIGTERM)
        finally:
            agent.signal(signal.SIGCONT)
        for c in clients:
            c.settimeout(6)
            c.sendall(b"x")
        for _ in range(count):
            s = stack.enter_context(listener.accept()[0])
            s.settimeout(6)
            s.sendall(s.recv(1))
        equal([c.recv(1) for c in clients], [b"x"] * count, "answers")


@each("drain-answers-queries", TUNNELS)
def drain_queries(bed):
    """While the last connection drains, the pod's DNS queries do not pile up in the agent's socket."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), bed.a1.socket(kind=socket.SOCK_DGRAM) as query:
        traffic.echo(c, s)
        agent.signal(signal.SIGTERM)
        until(lambda: not bed.a1.run("ss", "-Hlnt", "sport", "=", ":15001"), "the listeners to be closed")
        for _ in range(5):
            query.sendto(bytes(20), ("10.72.0.53", 53))
        until(lambda: all(x.split()[1] == "0" for x in bed.a1.run("ss", "-Hlnu", "sport", "=", ":15053").splitlines()),
              "the queries to be read", 3)
        check(agent.alive(), "it ended while a connection was open")


@each("ends-while-a-certificate-is-awaited", TUNNELS, env={"MALLOC_PERTURB_": "165"}, pods=("a1", "a2", "b1"))
def end_without_ca(bed):
    """The CA does not answer, a connection waits for its certificate: the end comes all the same, and cleanly."""
    agent = bed.b1.node.agent
    agent.ca.silent = True
    with bed.b2.listen(8080):
        agent.enrol(bed.b2)
        attempt = traffic.Task(traffic.outcome, bed.b2, bed.a2.ip4, 8080, b"x", 20)
        until(lambda: agent.ca.asked >= 1, "the CA to be asked")
        agent.signal(signal.SIGTERM)
        agent.process.wait(15)
        equal(agent.process.returncode, 0, "exit status")
        check(attempt.result() in ("closed", "refused"), "the waiting connection was not ended")


@each("drain-ends-at-the-deadline")
def drain_deadline(bed):
    """CONNECTION_TERMINATION_DEADLINE: what is still open then is cut, and the process ends with 0."""
    agent, limit = bed.b1.node.agent, float(DRAIN.removesuffix("s"))
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        at = time.monotonic()
        agent.signal(signal.SIGTERM)
        agent.process.wait(limit + scale.deadline(7))
        took = time.monotonic() - at
        check(limit - 2 < took < limit + scale.deadline(4), f"ended after {took:.1f} s")
        equal(agent.process.returncode, 0, "exit status")
        traffic.is_cut(s)
        traffic.is_cut(c)


@each("idle-agent-ends-at-once")
def idle_end(bed):
    agent = bed.a1.node.agent
    exchange(bed)
    agent.signal(signal.SIGTERM)
    agent.process.wait(10)
    equal(agent.process.returncode, 0, "exit status")


@each("restart-serves-again")
def restart(bed):
    agent = bed.b1.node.agent
    exchange(bed)
    agent.stop()
    agent.start()
    until(lambda: exchange(bed, timeout=3), "connections after the restart")


@each("restart-refuses-nobody", BPF)
def restart_under_load(bed):
    """Connection attempts while there is no agent at all get no answer, and succeed when it is back."""
    agent = bed.a1.node.agent
    calls = Calls(bed)
    for _ in range(3):
        calls.more()
        agent.stop()
        agent.start()
    calls.more()
    calls.stop()
    equal(calls.failed, [], "connections that failed")


@each("draining-agent-takes-no-connection", BPF)
def draining(bed):
    """While the last connection drains, an attempt waits for the next agent; it does not end with this one."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), bed.b1.listen(8081) as listener:
        traffic.echo(c, s)
        agent.signal(signal.SIGTERM)
        until(lambda: not bed.a1.run("ss", "-Hlnt", "sport", "=", ":15001"), "the listeners to be closed")
        attempt = traffic.Task(lambda: bed.a1.connect(bed.b1.ip4, 8081, timeout=30))
        traffic.echo(c, s)
        c.close()
        s.close()
        equal(agent.process.wait(10), 0, "exit status")
        check(attempt.is_alive(), f"the attempt came to {attempt.error!r} {attempt.value!r}")
        agent.start()
        with attempt.result(30) as c2, listener.accept()[0] as s2:
            s2.settimeout(PATIENCE)
            traffic.echo(c2, s2)


# --- death ---------------------------------------------------------------------------------------------------------


@each("killed-tunnel-fails-closed", TUNNELS)
def killed_alone(bed):
    """Behind istio-cni's rules a dead tunnel means refused connections, never plaintext."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), bed.b1.listen(8081) as listener:
        agent.process.kill()
        agent.process.wait()
        traffic.is_cut(c)
        check(traffic.outcome(bed.a1, bed.b1.ip4, 8081, timeout=2) in ("refused", "dropped"), "connected")
        listener.settimeout(1)
        try:
            listener.accept()
            raise AssertionError("plaintext reached the server")
        except TimeoutError:
            pass
        agent.start()
        until(lambda: exchange(bed, port=8082, timeout=3), "connections after the restart")


@each("killed-tunnel-is-replaced", KEEPERS)
def killed_tunnel(bed):
    """kill -9 of the tunnel: its connections end, no new one is refused, they wait for the next tunnel."""
    agent = bed.a1.node.agent
    calls = Calls(bed)
    with pair(bed.a1, bed.b1) as (c, s):
        calls.more()
        old = agent.tunnel_pid()
        os.kill(old, signal.SIGKILL)
        traffic.is_cut(c)
        until(lambda: agent.processes("tunnel") and agent.tunnel_pid() != old, "another tunnel", 20)
        calls.more(20)
    calls.stop()
    refused = [e for e, *_ in calls.failed if isinstance(e, ConnectionRefusedError)]
    check(not refused, f"{len(refused)} connections refused")
    check(len(calls.failed) <= 1, f"failed: {calls.failed}")  # the one that was in the dead tunnel


@each("killed-server-tunnel-is-replaced", KEEPERS)
def killed_server_tunnel(bed):
    agent = bed.b1.node.agent
    exchange(bed)
    old = agent.tunnel_pid()
    os.kill(old, signal.SIGKILL)
    until(lambda: agent.processes("tunnel") and agent.tunnel_pid() != old, "another tunnel", 20)
    until(lambda: exchange(bed, timeout=10), "connections after it", 30)


@each("everything-killed-fails-closed", BPF)
def killed_all(bed):
    """Keeper and tunnel gone: SYNs get no answer, nothing passes in plaintext, and the same attempt succeeds after
    the restart."""
    agent = bed.a1.node.agent
    with bed.b1.listen(8081) as listener:
        agent.kill_all()
        attempt = traffic.Task(lambda: bed.a1.connect(bed.b1.ip4, 8081, timeout=40))
        listener.settimeout(2.5)
        try:
            listener.accept()
            raise AssertionError("plaintext reached the server")
        except TimeoutError:
            check(attempt.is_alive(), f"the attempt came to {attempt.error!r} {attempt.value!r}")
        since = len(agent.log())
        agent.start()
        with attempt.result(45) as c:
            listener.settimeout(PATIENCE)
            s, _ = listener.accept()
            with s:
                s.settimeout(PATIENCE)
                traffic.echo(c, s)
        until(lambda: agent.access(since, direction="outbound", dst_hbone_addr=f"{bed.b1.ip4}:8081"),
              "the attempt in the access log")


@each("restarted-keeper-regains-the-listeners", KEEPERS)
def keeper_restart(bed):
    """kill -9 of the keeper alone while traffic flows: nothing breaks, and the next keeper has the pods again."""
    agent = bed.a1.node.agent
    tunnel = agent.tunnel_pid()
    calls = Calls(bed)
    with pair(bed.a1, bed.b1) as (c, s):
        stream = Stream(c, s)
        stream.moves()
        for pid in agent.processes("keeper") or [agent.process.pid]:
            os.kill(pid, signal.SIGKILL)
        agent.process.wait()
        stream.moves()
        calls.more()
        agent.start()
        stream.moves()
        calls.more()
        equal(agent.processes("tunnel"), [tunnel], "the tunnel that serves")
        until(lambda: [p["state"] for p in agent.status("pods")["pods"]] == ["enrolled"] * len(agent.enrolled), "the pods to be regained")
        os.kill(tunnel, signal.SIGKILL)  # the listeners must be the keeper's now
        stream.stopping = True
        until(lambda: agent.processes("tunnel") not in ([], [tunnel]), "another tunnel", 20)
        calls.more()
    calls.stop()
    check(not [e for e, *_ in calls.failed if isinstance(e, ConnectionRefusedError)], f"refused: {calls.failed}")
    check(len(calls.failed) <= 1, f"failed: {calls.failed}")


@each("keeper-away-for-long", KEEPERS)
def keeper_away(bed):
    """The tunnel asks for its keeper ever less often; the next keeper finds it all the same, and starts no second one."""
    agent = bed.a1.node.agent
    tunnel = agent.tunnel_pid()
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.wait()
    until(lambda: re.search(r"next attempt in [23]\d\d\d ms", agent.log()), "the tunnel to try less often", 15)
    agent.start()
    until(lambda: [p["state"] for p in agent.status("pods")["pods"]] == ["enrolled"] * len(agent.enrolled), "the pods to be regained")
    equal(agent.processes("tunnel"), [tunnel], "tunnels")
    equal(agent.status()["tunnel"]["restarts"], 0, "restarts")
    exchange(bed)


# --- upgrade -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def next_tunnel(agent, folder):
    """A second tunnel beside the agent's, as a DaemonSet with maxSurge 1 starts it; yields when it is ready."""
    env = agent.env | {"CULVERT_RUN_DIR": folder, "CULVERT_ADMIN_PORT": "25000", "CULVERT_STATS_PORT": "25020",
                       "CULVERT_READY_PORT": "25021"}
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/log", "ab") as log:
        p = agent.node.popen(agent.argv, env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        until(lambda: agent.http(25021, "/healthz/ready")[0] == 200, "the next tunnel to be ready", 20)
        yield p
    finally:
        stop(p, 15)


def upgrade(bed, agent):
    """Not a connection is refused or lost: the old one finishes what it has, the new one takes what comes."""
    with pair(bed.a1, bed.b1) as (c, s):
        stream, calls = Stream(c, s), Calls(bed)
        calls.more()
        with next_tunnel(agent, f"{bed.folder}/next"):
            calls.more()
            agent.signal(signal.SIGTERM)
            calls.more(scale.count(50, 5))
            stream.moves()
            stream.stop()
            c.close()
            s.close()
            equal(agent.process.wait(10), 0, "the old one's exit status")
            calls.more(scale.count(20, 5))
            calls.stop()
            equal(calls.failed, [], "connections that failed")


@each("upgrade-of-the-client's-tunnel-loses-nothing", SPLIT, pods=("a1", "b1"))
def upgrade_client(bed):
    upgrade(bed, bed.a1.node.agent)


@each("upgrade-of-the-server's-tunnel-loses-nothing", SPLIT, pods=("a1", "b1"))
def upgrade_server(bed):
    upgrade(bed, bed.b1.node.agent)


@each("keeper-alone-restarted-under-load", SPLIT, pods=("a1", "b1"))
def split_keeper_restart(bed):
    """Nobody supervises: the keeper dies and comes back, the tunnel is asked for the sockets, nothing is lost."""
    keeper = bed.a1.node.agent.keeper
    calls = Calls(bed)
    calls.more()
    for _ in range(3):
        keeper.process.kill()
        keeper.process.wait()
        calls.more()
        keeper.spawn([CULVERTD, "node"])
        until(lambda: [p["state"] for p in keeper.status("pods")["pods"]] == ["enrolled"] * len(keeper.enrolled), "the pods to be regained")
        calls.more()
    calls.stop()
    equal(calls.failed, [], "connections that failed")


# --- joining and leaving ----------------------------------------------------------------------------------------------


@each("deleted-pod-is-cut", TUNNELS)
def deleted(bed):
    """ZDS Del: the pod's connections end at once, and nobody reaches it any more."""
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        bed.b1.node.agent.unenrol(bed.b1)
        traffic.is_cut(c)
        traffic.is_cut(s)
    check(traffic.outcome(bed.a1, bed.b1.ip4, 8080, b"x") in ("closed", "refused"), "the deleted pod is still reached")


@each("certificates-are-fetched-before-they-are-needed", TUNNELS)
def fetched_early(bed):
    """Those of the node's own pods, and no others."""
    for node in bed.net.nodes:
        want = {p.spiffe for p in node.pods if p.mesh}
        until(lambda: set(node.agent.ca.issued) == want, lambda: f"{want} to be issued, not {node.agent.ca.issued}")


@each("certificate-of-a-deleted-pod-is-forgotten", TUNNELS)
def forgotten(bed):
    """Nobody renews what nobody uses."""
    not_ztunnel(bed, "renews it for ever")
    agent = bed.b1.node.agent

    def held():
        return {x["identity"] for x in agent.config_dump()["certificates"]}

    until(lambda: {bed.b1.spiffe, bed.b2.spiffe} <= held(), "both certificates")
    agent.unenrol(bed.b1)
    until(lambda: held() == {bed.b2.spiffe}, "one certificate")
    agent.enrol(bed.b1)
    exchange(bed)


@each("foreign-mark-is-refused-under-a-keeper", BPF, env={"PACKET_MARK": "4"}, pods=())
def foreign_mark(bed):
    """Its own connections would be captured again: the pod is not served, and a line says why."""
    agent = bed.a1.node.agent
    agent.ctl("enrol", f"/run/netns/{bed.a1.ns}", "default/a1/sa-a1", ok=False)
    until(lambda: re.search(r"PACKET_MARK is 4; under a keeper it must be 1337", agent.log()), "the line")
    agent.ctl("unenrol", f"/run/netns/{bed.a1.ns}", ok=False)


@each("enrolling-keeps-connections", BPF, pods=("a1", "b1", "b2"))
def enrol_running(bed):
    """A connection from before enrolment goes on in plaintext, the next one is carried."""
    agent = bed.a2.node.agent
    with pair(bed.a2, bed.b1) as (c, s), pair(bed.u1, bed.a2, port=8085) as (inbound, inbound_s):
        traffic.echo(c, s)
        agent.enrol(bed.a2)
        traffic.bulk_both_ways(inbound, inbound_s, 4 << 20)
        traffic.bulk_both_ways(c, s, 4 << 20)
    since = len(agent.log())
    exchange(bed, bed.a2, port=8081)
    until(lambda: agent.access(since, direction="outbound", dst_hbone_addr=f"{bed.b1.ip4}:8081"), "the access line")


@each("unenrolling-drains", KEEPERS, env={"CULVERT_DRAIN": "2s"})
def unenrol_drains(bed):
    """New connections are direct at once, the captured one goes on for two seconds and is reset then, on both sides."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), bed.b1.listen(8081) as listener:
        traffic.echo(c, s)
        task = traffic.Task(agent.unenrol, bed.a1)

        def direct():
            with bed.a1.connect(bed.b1.ip4, 8081, timeout=3) as c2, listener.accept()[0]:
                since = len(agent.log())
                c2.close()
                return not agent.access(since, direction="outbound")

        until(lambda: [p["state"] for p in agent.status("pods")["pods"] if p["name"] == "a1"] == ["leaving"], "it to leave")
        for _ in range(20):
            traffic.echo(c, s)
        check(direct(), "the new connection was carried by the tunnel")
        at = time.monotonic()
        traffic.is_cut(c, 6)
        traffic.is_cut(s, 6)
        check(time.monotonic() - at < 5, "not cut in time")
        task.result()


@each("unenrolling-leaves-no-trace", KEEPERS)
def unenrol(bed):
    agent = bed.a1.node.agent
    exchange(bed)
    fresh = traces(bed.u1)
    agent.unenrol(bed.a1)
    until(lambda: traces(bed.a1) == fresh, "the pod to be as before", 15)
    with pair(bed.a1, bed.u1, port=8081) as (c, s):
        traffic.echo(c, s)
        equal(s.getpeername()[0].removeprefix("::ffff:"), bed.a1.ip4, "the client's address, now direct")
    agent.enrol(bed.a1)
    exchange(bed, port=8082)


def traces(pod):
    """What an agent may leave in a pod: rules, filters, sockets, chains, a sysctl."""
    with inside(pod.ns), open("/proc/sys/net/ipv4/conf/lo/accept_local") as f:
        accept_local = f.read()
    return [pod.run("ip", "rule"), pod.run("ip", "-6", "rule"), pod.run("tc", "qdisc", "show", "dev", "eth0").split()[1],
            pod.run("tc", "filter", "show", "dev", "eth0", "ingress"), pod.run("ss", "-Hlntu"),
            pod.run("iptables-save", "-t", "nat").count("-A"), accept_local]


if __name__ == "__main__":
    T.main()
