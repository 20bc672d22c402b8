#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PROXY_MODE=dedicated: a tunnel in the namespace of one workload, for it alone; nobody tells it of pods. Three ways of steering:

  owner        rules that know the tunnel's sockets by their group, as a sidecar's; the tunnel has no capability and no mark
  mark         istio-cni's rules, with PACKET_MARK: the application sees its clients' addresses
  transparent  the same, but what comes in is taken by TPROXY instead of REDIRECT"""
import contextlib
import os
import shutil
import signal
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, dns, h2, rules, traffic
from lib.bed import VIP4, VIP6, Bed, kinds, pair, together
from lib.istiod import Istiod
from lib.mesh import Exact
from lib.net import PATIENCE, read_all, read_exactly
from lib.rows import FAMILIES, Skip, Table, check, equal, until

T = Table(__file__)
GROUP = "1337"
UNPRIVILEGED = ["setpriv", f"--regid={GROUP}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
ZTUNNEL = kinds() == ["ztunnel"]


def program():
    if ZTUNNEL:
        return [agents.ztunnel_path()]
    agents.need_culvert()
    return [agents.CULVERTD, "tunnel"]


def not_ztunnel(why):
    if ZTUNNEL:
        raise Skip(f"ztunnel {why}")


def by_owner(pod):
    text = f"""*nat
-A OUTPUT -o lo -j RETURN
-A OUTPUT -m owner --gid-owner {GROUP} -j RETURN
-A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 15053
-A OUTPUT -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A OUTPUT -p tcp -j REDIRECT --to-ports 15001
-A PREROUTING -p tcp ! --dport 15008 -j REDIRECT --to-ports 15006
COMMIT
"""
    for program in "iptables-restore", "ip6tables-restore":
        pod.run(program, "-w", input=text)


def by_tproxy(pod):
    """Instead of the REDIRECT of what comes in: a SYN gets the listener, what follows finds the connection."""
    rules.apply(pod)
    for program in "iptables", "ip6tables":
        pod.run(program, "-t", "nat", "-F", "PREROUTING")
        pod.run(program, "-t", "mangle", "-A", "PREROUTING", "-i", "eth0", "-p", "tcp", "--syn", "!", "--dport", "15008", "-j", "TPROXY",
                "--on-port", "15006", "--tproxy-mark", rules.LOCAL)


WAYS = {"owner": (by_owner, {}, UNPRIVILEGED), "mark": (rules.apply, {"PACKET_MARK": "1337"}, []),
        "transparent": (by_tproxy, {"PACKET_MARK": "1337"}, [])}


class Sidecars(Bed):
    """a1 and b1 have a tunnel each; the other pods have none, and are outside the mesh."""

    def __init__(self, way):
        super().__init__((None, None), prepare=Sidecars.others_are_outside)
        self.way = way

    def others_are_outside(self):
        etc = f"/etc/netns/{self.a1.ns}"
        os.makedirs(etc)
        self.stack.callback(shutil.rmtree, etc)
        with open(f"{etc}/resolv.conf", "w") as f:
            f.write(f"nameserver {self.u1.ip4}\nsearch corp.test\n")
        with open(f"{etc}/hosts", "w") as f:
            f.write("127.0.0.1 localhost\n::1 localhost\n")
        for name in "a2", "b2":
            self.mesh.workload(name)["protocol"] = "TCP"
        for w in self.mesh.workloads:
            w["services"].pop(f"default/{self.host}", None)
        self.mesh.services.clear()
        self.host = self.mesh.service("web", [VIP4, VIP6], {80: 8080}, ["b1"])
        self.mesh.policy("not-9001", "Deny", [[[{"principals": [Exact(self.a1.spiffe.removeprefix("spiffe://"))],
                                                 "destinationPorts": [9001]}]]], ["b1"])

    def _start(self):
        super()._start()
        steer, env, prefix = WAYS[self.way]
        for pod in self.a1, self.b1:
            try:
                steer(pod)
            except AssertionError as e:
                raise Skip(f"iptables here cannot do it: {e}") from None
            pod.agent = agents.Dedicated(pod, self.folder, self.ca, program(), env, prefix)
            self.agents.append(pod.agent)
        together(a.start for a in self.agents)

    def seen(self, client, server, v6):
        """The address that the server's application sees."""
        return server.ip(v6) if self.way == "owner" else client.ip(v6)


BEDS = {way: lambda way=way: Sidecars(way) for way in WAYS}


def ways(name):
    return T.each(BEDS, name, FAMILIES)


def peer(s):
    return s.getpeername()[0].removeprefix("::ffff:")


def line(agent, **want):
    return until(lambda: agent.access(message="connection complete", **want), f"a line with {want}")[-1]


@ways("between-two")
def between(bed, v6):
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.echo(c, s)
        equal(peer(s), bed.seen(bed.a1, bed.b1, v6), "the address that the server sees")
        c.close()
        equal(read_all(s), b"", "what follows")
        s.close()
    authority = f"[{bed.b1.ip6}]:8080" if v6 else f"{bed.b1.ip4}:8080"
    for agent, direction, sent in (bed.a1.agent, "outbound", 11), (bed.b1.agent, "inbound", 22):
        got = line(agent, dst_hbone_addr=authority, direction=direction)
        equal([got.get(k) for k in ("src.identity", "dst.identity", "bytes_sent", "bytes_recv")],
              [bed.a1.spiffe, bed.b1.spiffe, sent, 33 - sent], f"the {direction} line")


@ways("server-without-a-tunnel")
def to_outside(bed, v6):
    for server in bed.b2, bed.u1:
        with pair(bed.a1, server, v6=v6, port=8085) as (c, s):
            traffic.echo(c, s)
        at = f"[{server.ip6}]:8085" if v6 else f"{server.ip4}:8085"
        got = line(bed.a1.agent, dst_addr=at, direction="outbound")
        check("src.identity" not in got and "dst.identity" not in got, f"identities: {got}")


@ways("client-without-a-tunnel")
def from_outside(bed, v6):
    for client in bed.a2, bed.u1:
        with pair(client, bed.b1, v6=v6, port=8086) as (c, s):
            traffic.echo(c, s)
            equal(peer(s), bed.seen(client, bed.b1, v6), "the address that the server sees")
    at = f"[{bed.b1.ip6}]:8086" if v6 else f"{bed.b1.ip4}:8086"
    check("src.identity" not in line(bed.b1.agent, dst_addr=at, direction="inbound"), "an identity")


@ways("itself")
def itself(bed, v6):
    for to in None, "::1" if v6 else "127.0.0.1":
        with pair(bed.a1, bed.a1, v6=v6, to=to, port=8081) as (c, s):
            traffic.echo(c, s)


@ways("virtual-address")
def vip(bed, v6):
    with bed.b1.listen(8080) as listener, bed.a1.connect(VIP6 if v6 else VIP4, 80) as c, listener.accept()[0] as s:
        s.settimeout(PATIENCE)
        traffic.echo(c, s)


@ways("bytes-and-endings")
def endings(bed, v6):
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.bulk_both_ways(c, s, 8 << 20)
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.half_close(c, s)


@ways("application-listens-again")
def listens_again(bed, v6):
    """While a connection lives that was taken from its port."""
    with bed.b1.listen(8087) as listener, pair(bed.u1, bed.b1, port=8087, v6=v6, listener=listener) as (c, s):
        listener.close()
        with bed.b1.listen(8087):
            traffic.echo(c, s)


@ways("policy")
def policy(bed, v6):
    with bed.b1.listen(9001):
        traffic.dial_is_cut(bed.a1, bed.b1.ip(v6), 9001)


@ways("calls-to-own-ports")
def own_ports(bed, v6):
    before = bed.b1.agent.fds()
    for who, ip in (bed.u1, bed.b1.ip(v6)), (bed.b1, bed.b1.ip(v6)), (bed.b1, "::1" if v6 else "127.0.0.1"), (bed.a1, bed.b1.ip(v6)):
        for port in 15001, 15006, 15008:
            got = traffic.outcome(who, ip, port, b"GET / HTTP/1.1\r\n\r\n", timeout=8)
            check(got in ("refused", "closed", "dropped") or got[:1] == b"\x15" or got[:12] == b"HTTP/1.1 400",
                  f"{who.name} to {ip}:{port}: {got!r}")
    until(lambda: bed.b1.agent.fds() <= before + 8, "the descriptors to be closed")


def each(name):
    return T.each(BEDS, name)


@each("statuses")
def statuses(bed):
    """The pod's own addresses and no others."""
    with bed.b1.listen(8080), h2.Client(bed.u1, bed.b1.ip4, bed.ca, bed.cert(bed.a1.spiffe)) as h:
        for authority, want in ((f"{bed.b1.ip4}:8080", "200"), (f"{bed.a1.ip4}:8080", "400"), (f"{bed.b1.ip4}:7777", "503"),
                                (f"{bed.b1.ip4}:15001", "503"), (f"{bed.host}:80", "200")):
            equal(h.status(h.connect(authority)), want, authority)


@each("one-certificate-its-own")
def certificate(bed):
    """The CA takes no metadata from it: it would have got none."""
    for pod in bed.a1, bed.b1:
        until(lambda: pod.agent.ca.issued, "a certificate")
        equal(set(pod.agent.ca.issued), {pod.spiffe}, "identities")


@each("config-dump")
def dump(bed):
    got = bed.b1.agent.config_dump()
    if not ZTUNNEL:
        equal([x["info"]["name"] for x in got["workloadState"].values()], ["b1"], "pods")
        equal(got["config"]["packetMark"], 0 if bed.way == "owner" else 1337, "the mark")
    equal([x["identity"] for x in got["certificates"]], [bed.b1.spiffe], "certificates")


@each("names")
def names(bed):
    """The mesh's are answered, with the workload's own search domains; others are its own resolver's."""
    with contextlib.closing(dns.Resolver(bed.u1, (bed.u1.ip4,))) as resolver:
        resolver.add("out.test", "192.0.2.1")
        for ask in dns.udp, dns.tcp:
            equal(ask(bed.a1, bed.u1.ip4, dns.query("web")).addresses(), [VIP4], "web")
            m = ask(bed.a1, bed.u1.ip4, dns.query("web.default.corp.test"))
            equal([x[3] for x in m.answers], ["web.default", VIP4], "web.default.corp.test")
            m = ask(bed.a1, bed.u1.ip4, dns.query(f"web.default.{bed.host}"))
            equal(m.rcode, dns.NXDOMAIN, "the cluster's search domains")
            equal(ask(bed.a1, bed.u1.ip4, dns.query("out.test")).addresses(), ["192.0.2.1"], "out.test")
        equal({x[3] for x in resolver.seen}, {bed.a1.ip4}, "who has asked")


LOOPBACK = """workloads:
- {uid: one, name: one, namespace: default, serviceAccount: one, workloadIps: [127.0.0.1], protocol: HBONE, node: local,
   services: {default/both.example.test: {80: 8080}}}
- {uid: two, name: two, namespace: default, serviceAccount: two, workloadIps: [127.0.0.2], protocol: TCP, node: local,
   services: {default/two.example.test: {80: 8080}}}
services:
- {name: both, namespace: default, hostname: both.example.test, vips: [/127.10.0.1], ports: {80: 8080}}
- {name: two, namespace: default, hostname: two.example.test, vips: [/127.10.0.2], ports: {80: 8080}}
"""


@T.row("owner/all-on-the-loopback", BEDS["owner"])
def loopback(bed):
    """To try it out on one machine: no rules, no CA; SOCKS5 is the way in."""
    not_ztunnel("has FAKE_CA in test builds only")
    path = f"{bed.folder}/loopback.yaml"
    with open(path, "w") as f:
        f.write(LOOPBACK)
    agent = agents.Agent(bed.u1, bed.folder, {"NODE_NAME": "local", "PROXY_MODE": "dedicated", "PROXY_WORKLOAD_INFO": "default/one/one",
                                              "FAKE_CA": "true", "UNSTABLE_ENABLE_SOCKS5": "true", "LOCAL_XDS_PATH": path})
    agent.spawn(program())
    listener = bed.u1.listen(8080)
    try:
        agent.wait_ready()
        for at, to in (("127.0.0.1", 8080), ("127.0.0.2", 8080), ("127.10.0.1", 80), ("127.10.0.2", 80)):
            with bed.u1.connect("127.0.0.1", 15080) as c:
                c.sendall(b"\5\1\0" + b"\5\1\0\1" + bytes(map(int, at.split("."))) + to.to_bytes(2, "big"))
                with listener.accept()[0] as s:
                    s.settimeout(PATIENCE)
                    equal(read_exactly(c, 12), b"\5\0" + b"\5\0\0\1" + bytes(6), f"the answers for {at}")
                    traffic.echo(c, s)
        identity = "spiffe://cluster.local/ns/default/sa/one"
        until(lambda: agent.access(dst_hbone_addr="127.0.0.1:8080", src_identity=identity, direction="inbound"), "a line with identities")
    finally:
        listener.close()
        agent.stop()


@T.row("owner/without-ipv6", BEDS["owner"])
def ipv4_only(bed):
    """IPV6_ENABLED=false: listeners are of IPv4."""
    agent = agents.Dedicated(bed.a2, bed.folder, bed.ca, program(), {"IPV6_ENABLED": "false"}, UNPRIVILEGED)
    try:
        agent.start()
        bound = {line.split()[3] for line in bed.a2.run("ss", "-Hltn").splitlines()}
        check({f"0.0.0.0:{p}" for p in (15001, 15006, 15008, 15020, 15021)} <= bound, f"listeners: {bound}")
        check(not any(x.startswith(("[", "*")) for x in bound), f"listeners of IPv6: {bound}")
    finally:
        agent.close()


@T.row("owner/nothing-passes-before-the-mesh-is-complete", BEDS["owner"])
def before_the_mesh(bed):
    """Connections wait in the backlog as long as istiod is away: the tunnel cannot know what is plaintext and what is not."""
    node = bed.net.nodes[0]
    istiod = Istiod(node, node.wan4, bed.folder, bed.ca, mesh=f"{bed.folder}/mesh.yaml")
    by_owner(bed.a2)
    agent = agents.Dedicated(bed.a2, bed.folder, bed.ca, program(), {**istiod.env(), "LOCAL_XDS_PATH": ""}, UNPRIVILEGED)
    with contextlib.ExitStack() as stack:
        for program_ in "iptables", "ip6tables":
            stack.callback(bed.a2.run, program_, "-t", "nat", "-F")
        stack.callback(agent.close)
        agent.spawn(agent.argv)
        until(lambda: b"state manager" in agent.http(15021, "/healthz/ready")[1], "it to await the mesh")
        c, listener = stack.enter_context(bed.a2.connect(bed.b1.ip4, 8080)), stack.enter_context(bed.b1.listen(8080))
        c.sendall(b"hello")
        listener.settimeout(6)  # longer than a connection waits for its workload
        try:
            listener.accept()
            check(False, "a connection without a mesh")
        except TimeoutError:
            listener.settimeout(PATIENCE)
        istiod.start()
        stack.callback(istiod.close)
        agent.wait_ready()
        with listener.accept()[0] as s:
            s.settimeout(PATIENCE)
            equal(read_exactly(s, 5), b"hello", "the server read")
            traffic.echo(c, s)
        c.close()
        line(bed.b1.agent, direction="inbound", src_identity=bed.a2.spiffe)


@each("drain")
def drain(bed):
    """Last of its bed: the connection goes on, the ports are closed, and the end comes when the connection ends."""
    agent = bed.b1.agent
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        agent.signal(signal.SIGTERM)
        until(lambda: ":15008 " not in bed.b1.run("ss", "-Hltn"), "the ports to be closed")
        traffic.echo(c, s)
        check(agent.alive(), "ended before its connection")
    equal(agent.process.wait(PATIENCE), 0, "the exit status")


if __name__ == "__main__":
    T.main()
