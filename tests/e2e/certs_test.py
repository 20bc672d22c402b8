#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Certificates while the mesh runs: revocation lists in both roles, on connections that exist and on new ones; renewal while
the CA is away; a root that is replaced. Each agent has a revocation list of its own, put into place as Kubernetes does."""
import contextlib
import os
import select
import sys
import threading

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, pki, traffic
from lib.bed import Bed, fixture, kinds, not_ztunnel, pair
from lib.net import PATIENCE
from lib.rows import Table, check, equal, until
from lifecycle_test import Calls, Stream, exchange
from network_test import BEYOND, TwoNetworks, through

T = Table(__file__)
KINDS = [k for k in kinds() if k != "culvert-iptables"]  # steering has no part in it
TUNNELS = [k for k in KINDS if not k.startswith("culvert")]  # with a CA that a row can direct
REVOKED = "connection closed: peer certificate revoked by CRL"
SOON = 20


class Lists:
    """For a bed: CRL_PATH of each agent, in a folder that looks like a mounted volume."""

    def _serve(self, agent):
        folder = f"{self.folder}/{agent.node.name}-crl"
        os.mkdir(folder)
        agent.crl_folder, agent.crl_version = folder, 0
        agent.env["CRL_PATH"] = f"{folder}/ca-crl.pem"
        self.before(agent)
        super()._serve(agent)

    def before(self, agent):
        pass


class CrlBed(Lists, Bed):
    pass


class MiddleBed(CrlBed):
    """The CA signs with an intermediate."""

    def __init__(self, kinds_):
        super().__init__(kinds_, prepare=MiddleBed.found)

    def found(self):
        self.middle = pki.Ca(self.folder, "middle", self.ca)

    def before(self, agent):
        agent.ca.ca = self.middle


class NestedBed(Lists, TwoNetworks):
    pass


def put(agent, text):
    """CRL_PATH -> ..data/ca-crl.pem, ..data -> a folder for each version: the link is what is swapped."""
    agent.crl_version += 1
    version, data = f"{agent.crl_folder}/..{agent.crl_version}", f"{agent.crl_folder}/..data"
    os.mkdir(version)
    with open(f"{version}/ca-crl.pem", "w") as f:
        f.write(text)
    os.symlink(version, data + ".new")
    os.rename(data + ".new", data)
    if not os.path.lexists(agent.env["CRL_PATH"]):
        os.symlink(f"{data}/ca-crl.pem", agent.env["CRL_PATH"])


def leaf(agent, pod):
    """The pod's certificate as its agent has it."""
    for c in agent.config_dump()["certificates"]:
        if c["identity"] == pod.spiffe and c["certChain"]:
            return c["certChain"][0]
    return None


def serial(pod):
    return int(until(lambda: leaf(pod.node.agent, pod), f"a certificate of {pod.name}")["serialNumber"])


def rejections(agent, reporter):
    return agent.metric("istio_crl_policy_rejections_total", reporter=reporter)


def reaches(client, server, to=None, port=8080):
    """Whether a connection comes through to the application, or is cut."""
    with server.listen(8080) as listener:
        try:
            c = client.connect(to or server.ip4, port)
        except ConnectionResetError:
            return False
        with c:
            return listener in select.select([c, listener], [], [], PATIENCE)[0]


def works_again(bed, client, server):
    until(lambda: reaches(client, server), f"{client.name} to reach {server.name} again", SOON)
    exchange(bed, client, server)


def bed_of(cls, *kinds_, **kw):
    def make():
        return cls(kinds_, **kw)

    return make


BEDS = {k: bed_of(CrlBed, k, k) for k in KINDS}


def row(name, some=KINDS, beds=None):
    def add(fn):
        for k in some:
            T.row(f"{k}/{name}", (beds or BEDS)[k])(fn)
        return fn

    return add


# --- revocation lists ------------------------------------------------------------------------------------------------


@row("a-list-that-appears-later-counts")
def appears(bed):
    """At the start there is no file: ready, and everybody is let in."""
    agent = bed.b1.node.agent
    check(not os.path.lexists(agent.env["CRL_PATH"]), "there is a list already")
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        put(agent, bed.ca.crl(serial(bed.a1)))
        traffic.is_cut(s, SOON)
        traffic.is_cut(c, SOON)
        traffic.dial_is_cut(bed.a1, bed.b1.ip4, 8080)
    put(agent, bed.ca.crl())
    works_again(bed, bed.a1, bed.b1)


def revoked(bed, judge, victim, reporter):
    """a1 talks to b1, a2 to b2; then `judge`, the agent of one side, hears that the certificate of `victim`, the pod on the
    other side, is revoked."""
    with pair(bed.a1, bed.b1) as (c, s), pair(bed.a2, bed.b2) as (c2, s2):
        stream, other = Stream(c, s), Stream(c2, s2)
        stream.moves()
        other.moves()
        before, failed = rejections(judge, reporter), judge.metric("istio_tcp_connections_failed_total",
                                                                   reporter=reporter, response_flags="CERT_REVOKED")
        put(judge, bed.ca.crl(4711, serial(victim)))
        until(lambda: stream.task.error, "the connection to end", SOON)
        check(isinstance(stream.task.error, (ConnectionResetError, BrokenPipeError)) or "ztunnel" in bed.kinds,  # which says EOF
              f"it ended with {stream.task.error!r}")
        traffic.is_cut(c)
        traffic.is_cut(s)
        until(lambda: judge.access(error=REVOKED), f"a line that says: {REVOKED}")
        until(lambda: judge.metric("istio_tcp_connections_failed_total", reporter=reporter,
                                   response_flags="CERT_REVOKED") > failed, "the failure to be counted")
        ended = rejections(judge, reporter)
        check(ended > before, f"rejections: {before}, then {ended}")
        with bed.b1.listen(8081):
            for v6 in (False, True):
                traffic.dial_is_cut(bed.a1, bed.b1.ip(v6), 8081)
        until(lambda: rejections(judge, reporter) > ended, "the refused handshakes to be counted")
        other.moves()
        other.stop()
    put(judge, bed.ca.crl())
    works_again(bed, bed.a1, bed.b1)


@row("a-server-is-revoked-under-traffic")
def server_revoked(bed):
    revoked(bed, bed.a1.node.agent, bed.b1, "source")


@row("a-client-is-revoked-under-traffic")
def client_revoked(bed):
    revoked(bed, bed.b1.node.agent, bed.a1, "destination")


@row("a-tunnel-without-connections-ends-as-well")
def idle_tunnel(bed):
    """What is pooled is not used for the next connection."""
    def tunnels():
        return bed.b1.run("ss", "-Htn", "state", "established", "sport", "=", ":15008").strip()

    exchange(bed)
    check(tunnels(), "no tunnel is pooled")
    put(bed.a1.node.agent, bed.ca.crl(serial(bed.b1)))
    until(lambda: not tunnels(), "the pooled tunnel to end", SOON)
    put(bed.a1.node.agent, bed.ca.crl())
    works_again(bed, bed.a1, bed.b1)


@row("garbage-keeps-the-list-before")
def garbage(bed):
    agent = bed.b1.node.agent
    put(agent, bed.ca.crl(serial(bed.a1)))
    until(lambda: not reaches(bed.a1, bed.b1), "the list to count", SOON)
    with pair(bed.a2, bed.b1) as (c, s):
        put(agent, "-----BEGIN X509 CRL-----\nMIIB\n")
        if "ztunnel" not in bed.kinds:
            trouble = until(lambda: agent.config_dump()["crl"].get("trouble"), "the trouble to be told", SOON)
            check("cut or damaged" in trouble and agent.env["CRL_PATH"] in trouble, trouble)
            equal(agent.metric("culvert_crl_load_failures_total"), 1, "failures")
            check(agent.ready(), "it is not ready any more")
        traffic.dial_is_cut(bed.a1, bed.b1.ip4, 8080)
        traffic.echo(c, s)
    put(agent, bed.ca.crl())
    works_again(bed, bed.a1, bed.b1)


@row("lists-that-come-while-tunnels-are-made")
def flap(bed):
    """A list comes and goes while connections are opened all the time: whoever is revoked at the end has no tunnel, wherever
    its handshake was; the others were never disturbed."""
    agent, lists = bed.b1.node.agent, [bed.ca.crl(serial(bed.a1)), bed.ca.crl()]
    stop, told = threading.Event(), agent.metric("istio_crl_policy_rejections_total")

    def dial(out):
        while not stop.is_set():
            out.append(reaches_now(bed.a1, bed.b1))

    with bed.b1.listen(8080) as listener, pair(bed.a2, bed.b2) as (c, s):
        accepted = traffic.Task(accept_all, listener, stop)
        stream, results = Stream(c, s), [[] for _ in range(4)]
        tasks = [traffic.Task(dial, r) for r in results]
        for i in range(9):
            put(agent, lists[i % 2])
            until(lambda: [r for r in results if r and r[-1] == bool(i % 2)], "the list to count", SOON)
        until(lambda: not from_pod(bed.b1, bed.a1), "its tunnels to end", SOON)
        stop.set()
        for t in (*tasks, accepted):
            t.result()
        check(not from_pod(bed.b1, bed.a1), "a tunnel of the revoked client")
        stream.moves()
        stream.stop()
    check(agent.metric("istio_crl_policy_rejections_total") > told, "nothing was counted")
    put(agent, lists[1])
    works_again(bed, bed.a1, bed.b1)


def reaches_now(client, server):
    """One exchange with whoever serves there by accept_all()."""
    try:
        with client.connect(server.ip4, 8080) as c:
            c.sendall(b"x")
            return c.recv(1) == b"x"
    except OSError:
        return False


def accept_all(listener, stop):
    listener.settimeout(0.2)
    while not stop.is_set():
        try:
            s, _ = listener.accept()
        except TimeoutError:
            continue
        with s, contextlib.suppress(OSError):
            s.settimeout(PATIENCE)
            s.sendall(s.recv(1))


def from_pod(server, client):
    """Its tunnels to the server's pod."""
    return server.run("ss", "-Htn", "state", "established", "sport", "=", ":15008", "dst", client.ip4).strip()


@row("a-tunnel-that-drains-is-no-exception", [k for k in KINDS if k.startswith("culvert")])
def draining(bed):
    """After an upgrade the earlier tunnel carries what it carried, and looks at the lists as before."""
    agent = bed.b1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), pair(bed.a2, bed.b1, port=8081) as (c2, s2):
        traffic.echo(c, s)
        first = serial(bed.a1)
        agent.ctl("upgrade")
        traffic.echo(c, s)
        put(agent, bed.ca.crl(first))
        traffic.is_cut(c, SOON)
        traffic.is_cut(s, SOON)
        traffic.echo(c2, s2)
    put(agent, bed.ca.crl())
    works_again(bed, bed.a1, bed.b1)


@row("what-is-in-force-is-shown", [k for k in KINDS if k != "ztunnel"])
def shown(bed):
    agent = bed.a1.node.agent
    put(agent, bed.ca.crl(17, 18) + bed.ca.crl())
    crl = until(lambda: (d := agent.config_dump()["crl"]) and len(d["lists"]) == 2 and d, "two lists", SOON)
    equal([(x["issuer"], x["entries"]) for x in crl["lists"]], [("O=mesh.test", 2), ("O=mesh.test", 0)], "the lists")
    check(all(int(x["number"]) and x["lastUpdate"] < x["nextUpdate"] for x in crl["lists"]), crl)
    equal(crl["path"], agent.env["CRL_PATH"], "the path")
    equal(agent.metric("culvert_crl_entries"), 2, "the metric")
    if hasattr(agent, "ctl"):
        check("revocation     2 lists, 2 certificates" in agent.ctl("status"), agent.ctl("status"))
        text = agent.ctl("certificates")
        check("O=mesh.test" in text and bed.a1.spiffe in text, text)
        equal(agent.status("certificates")["crl"]["lists"], crl["lists"], "--json")
    put(agent, bed.ca.crl())


# The next two rows leave pods with other certificates than their pooled tunnels were made with: they come last.
@row("our-own-certificate-on-a-list-is-replaced", [k for k in KINDS if k != "ztunnel"])
def own(bed):
    agent = bed.a1.node.agent
    exchange(bed)
    before = serial(bed.a1), serial(bed.a2)
    put(agent, bed.ca.crl(before[0]))
    until(lambda: serial(bed.a1) != before[0], "another certificate", SOON)
    equal(serial(bed.a2), before[1], "the neighbour's")
    put(agent, bed.ca.crl())


@row("pods-of-one-node-are-no-exception", [k for k in KINDS if k != "ztunnel"])
def same_node(bed):
    """Nothing is shown there, and yet: a connection ends with the certificate of either pod. Until the CA has given another
    one the pod is out; then it is in."""
    agent, ca = bed.a1.node.agent, getattr(bed.a1.node.agent, "ca", None)
    for client, server in ((bed.a1, bed.a2), (bed.a2, bed.a1)):
        exchange(bed, client, bed.b1)
        exchange(bed, server, bed.b1)
        before = len(agent.access(error=REVOKED))
        with pair(client, server) as (c, s):
            traffic.echo(c, s)
            if ca:
                ca.refuse = True
            put(agent, bed.ca.crl(serial(bed.a1)))
            traffic.is_cut(c, SOON)
            traffic.is_cut(s, SOON)
            until(lambda: len(agent.access(error=REVOKED)) == before + 2, "lines of both sides that say so")
            if ca:
                traffic.dial_is_cut(client, server.ip4, 8080)
                ca.refuse = False
        works_again(bed, client, server)
    put(agent, bed.ca.crl())


@row("without-a-first-list-that-can-be-read-it-is-not-ready", [k for k in TUNNELS if k != "ztunnel"])
def not_ready(bed):
    agent = bed.b1.node.agent
    agent.stop()
    put(agent, "garbage")
    agent.spawn(agent.argv)
    want = (500, b"not ready, pending: revocation lists\n")
    until(lambda: agent.http(15021, "/healthz/ready") == want, "the probe to say so", SOON)
    put(agent, bed.ca.crl())
    agent.wait_ready()
    works_again(bed, bed.a1, bed.b1)


MIDDLES = {k: bed_of(MiddleBed, k, k) for k in TUNNELS}


@row("an-intermediate-is-revoked", TUNNELS, MIDDLES)
def intermediate(bed):
    """Everybody below it is out, connections that exist included."""
    agent = bed.a1.node.agent
    with pair(bed.a1, bed.b1) as (c, s), pair(bed.a2, bed.b2, v6=True) as (c2, s2):
        traffic.echo(c, s)
        traffic.echo(c2, s2)
        put(agent, bed.ca.crl(bed.middle.serial()))
        for x in (c, s, c2, s2):
            traffic.is_cut(x, SOON)
        traffic.dial_is_cut(bed.a1, bed.b1.ip4, 8080)
    put(agent, bed.ca.crl())
    works_again(bed, bed.a1, bed.b1)


NESTED = NestedBed if "culvert" in KINDS else None


def nested(name, victim):
    @T.row(f"culvert/{name}-is-revoked", NESTED)
    def nested_revoked(bed):
        """Double HBONE: the tunnel to the gateway and the one inside it have peers of their own."""
        agent, pod = bed.a1.node.agent, bed.pod[victim]
        before = len(agent.access(error=REVOKED))
        with bed.b1.listen(8080) as listener, contextlib.ExitStack() as stack:
            ends = []
            for v6 in (False, True):
                ends.append(stack.enter_context(bed.a1.connect(BEYOND[v6], 80)))
                ends.append(stack.enter_context(listener.accept()[0]))
                traffic.echo(*ends[-2:])
            put(agent, bed.ca.crl(serial(pod)))
            for x in ends:
                traffic.is_cut(x, SOON)
        until(lambda: len(agent.access(error=REVOKED)) == before + 2, "two lines that say so")
        traffic.dial_is_cut(bed.a1, BEYOND[0], 80)
        put(agent, bed.ca.crl())
        until(lambda: reaches(bed.a1, bed.b1, BEYOND[0], 80), "the service to be reached again", SOON)
        with through(bed, True) as (c, s):
            traffic.echo(c, s)


if NESTED:
    nested("who-answers-beyond-a-gateway", "b1")
    nested("a-gateway", "b2")


# --- the CA ----------------------------------------------------------------------------------------------------------


class ShortBed(Bed):
    """Certificates of a few seconds, and tunnels that are made anew for each connection."""

    def __init__(self, kinds_, lifetime):
        super().__init__(kinds_, env={"POOL_UNUSED_RELEASE_TIMEOUT": "1ms"})
        self.lifetime = lifetime

    def _serve(self, agent):
        agent.ca.lifetime = self.lifetime
        super()._serve(agent)


def ca_row(name, lifetime):
    return lambda fn: row(name, TUNNELS, {k: bed_of(ShortBed, k, k, lifetime=lifetime) for k in TUNNELS})(fn)


@ca_row("the-ca-is-away-when-a-certificate-is-due", 16)
def ca_away(bed):
    """The one in use stays, and nobody notices."""
    not_ztunnel(bed, "asks all the time: half of a lifetime that began a minute ago is over")
    ca = bed.b1.node.agent.ca
    exchange(bed)
    before, ca.refuse = serial(bed.b1), True
    calls = Calls(bed)
    until(lambda: ca.refused >= 2, "the renewal to fail", 30)
    calls.more()
    ca.refuse = False
    until(lambda: serial(bed.b1) != before, "the renewal", 30)
    calls.more()
    calls.stop()
    equal(calls.failed, [], "connections that failed")


@ca_row("a-certificate-that-has-expired-is-not-used", 8)
def expired(bed):
    """Who connects then is told that there is none; when the CA is back, so is everything."""
    not_ztunnel(bed, "asks all the time: half of a lifetime that began a minute ago is over")
    agent = bed.b1.node.agent
    exchange(bed)
    agent.ca.refuse = True

    def state():
        return next(c["state"] for c in agent.config_dump()["certificates"] if c["identity"] == bed.b1.spiffe)

    until(lambda: state().startswith("Unavailable"), "the certificate to end", 30)
    since = [len(a.log()) for a in bed.agents]
    traffic.dial_is_cut(bed.a1, bed.b1.ip4, 8080)
    agent.ca.refuse = False
    works_again(bed, bed.a1, bed.b1)
    for a, at in zip(bed.agents, since):
        check("certificate_expired" not in a.log()[at:] and "has expired" not in a.log()[at:], "an expired one was sent")


def roots(pod):
    c = [c for c in pod.node.agent.config_dump()["certificates"] if c["identity"] == pod.spiffe]
    return len(c[0]["rootCerts"]) if c else 0


@ca_row("a-root-is-replaced-under-traffic", 12)
def root_replaced(bed):
    """Both roots are told first, then the new one signs, then it stands alone: no connection is lost or refused, and who has
    a certificate of the old one is."""
    not_ztunnel(bed, "asks all the time: half of a lifetime that began a minute ago is over")
    old, new = bed.ca, pki.Ca(bed.folder, "next")
    cas = [a.ca for a in bed.agents]
    with pair(bed.a2, bed.b2) as (c, s):
        stream, calls = Stream(c, s), Calls(bed)
        for ca in cas:
            ca.roots = old.root() + new.root()
        until(lambda: roots(bed.a1) == roots(bed.b1) == 2, "both roots", 40)
        calls.more()
        before = serial(bed.a1), serial(bed.b1)
        for ca in cas:
            ca.ca = new
        until(lambda: serial(bed.a1) != before[0] and serial(bed.b1) != before[1], "the new CA's certificates", 40)
        calls.more()
        for ca in cas:
            ca.roots = None
        until(lambda: roots(bed.a1) == roots(bed.b1) == 1, "the new root alone", 40)
        calls.more()
        with contextlib.suppress(OSError), h2.Client(bed.u1, bed.b1.ip4, new, old.leaf(f"URI:{bed.a1.spiffe}")) as client:
            client.status(client.connect(f"{bed.b1.ip4}:8080"))
            check(False, "a certificate of the old root was taken")
        with h2.Client(bed.u1, bed.b1.ip4, new, new.leaf(f"URI:{bed.a1.spiffe}")) as client, bed.b1.listen(8080):
            equal(client.status(client.connect(f"{bed.b1.ip4}:8080")), "200", "a certificate of the new root")
        stream.moves()
        stream.stop()
        calls.stop()
        equal(calls.failed, [], "connections that failed")


if __name__ == "__main__":
    T.main()
