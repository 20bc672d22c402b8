#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The mesh from istiod: two nodes' agents that a stand-in for istiod (tests/fake/istiod.c) feeds over TLS, with its
certificates. Workloads and policies come and go under traffic; istiod goes away, comes back with another state, and does
what it should not."""
import contextlib
import json
import os
import select
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, traffic
from lib.bed import VIP4, Bed, kinds, not_ztunnel, pair
from lib.istiod import Istiod
from lib.mesh import Exact
from lib.net import PATIENCE, scale
from lib.pki import Ca
from lib.rows import Table, check, equal, until

T = Table(__file__)
ADDRESS = "type.googleapis.com/istio.workload.Address"
A1 = [[[{"principals": [Exact("cluster.local/ns/default/sa/sa-a1")]}]]]


def istiod(bed):
    """In the first node's namespace, where both nodes reach it."""
    bed.mesh.save(f"{bed.folder}/mesh.yaml")
    node = bed.net.nodes[0]
    bed.istiod = Istiod(node, node.wan4, bed.folder, bed.ca, mesh=f"{bed.folder}/mesh.yaml")
    bed.stack.callback(lambda: bed.istiod.close())
    bed.istiod.start()
    bed.env = {**bed.env, **bed.istiod.env(), **bed.istiod.env_ca(), "XDS_HEADER_X-Test": "more",
               "POD_NAME": "ztunnel-x", "POD_NAMESPACE": "istio-system", "INSTANCE_IP": node.wan4,
               "ISTIO_META_ISTIO_VERSION": "1.31", "ISTIO_METAJSON_LABELS": '{"app": "ztunnel"}'}


BEDS = {k: (lambda k=k: Bed((k, k), prepare=istiod)) for k in kinds() if k != "culvert-iptables"}


def rows(name):
    """A row for each kind; a row changes the mesh and leaves it as it was."""
    return T.each(BEDS, name)


@contextlib.contextmanager
def changed(bed):
    """The mesh may be changed meanwhile; push() sends it. It is put back afterwards."""
    mesh = bed.mesh
    before = json.dumps([mesh.workloads, mesh.services]), list(mesh.policies)

    def push():
        mesh.save()
        bed.istiod.load()

    try:
        yield push
    finally:
        (mesh.workloads, mesh.services), mesh.policies = json.loads(before[0]), before[1]
        for w in mesh.workloads:  # JSON made texts of the ports
            w["services"] = {k: {int(p): t for p, t in v.items()} for k, v in w["services"].items()}
        for s in mesh.services:
            s["ports"] = {int(p): t for p, t in s["ports"].items()}
        push()
        everywhere(bed, lambda d: is_mesh(bed.mesh, d), "the mesh as it was")


def is_mesh(mesh, dump):
    """Whether an agent has this mesh, as far as rows change it; on demand it has some workloads and services only."""
    def workload(w):
        return w["canonicalRevision"], sorted(w.get("services", ())), w.get("authorizationPolicies", [])

    want, some = {w["uid"]: workload(w) for w in mesh.workloads}, dump["config"].get("xdsOnDemand")
    have = {w["uid"]: workload(w) for w in dump["workloads"]}
    return (names(dump, "policies") == {p["name"] for p in mesh.policies}
            and have.items() <= want.items() and (some or have.keys() == want.keys())
            and (some or names(dump, "services") == {s["name"] for s in mesh.services}))


def dumps(bed, what):
    return [a.config_dump()[what] for a in bed.agents]


def everywhere(bed, condition, what, patience=40):
    """condition(dump) holds on each node; up to 15 s pass between attempts of an agent to reach istiod."""
    for a in bed.agents:
        until(lambda a=a: condition(a.config_dump()), f"{what} on {a.node.name}", patience)


def names(dump, what="workloads"):
    return {x["name"] for x in dump[what]}


def exchange(bed, client, server, port=8080, **kw):
    with pair(client, server, port=port, **kw) as (c, s):
        traffic.echo(c, s)


def tunnelled(bed, client, server):
    """One exchange that the client's agent logs as HBONE."""
    agent = client.node.agent
    since = len(agent.log())
    exchange(bed, client, server)
    until(lambda: agent.access(since, direction="outbound", dst_hbone_addr=f"{server.ip4}:8080"), "an HBONE connection")


# --- the mesh arrives --------------------------------------------------------------------------------------


@rows("mesh-arrives-whole")
def whole(bed):
    for dump in dumps(bed, "workloads"):
        equal({w["uid"] for w in dump}, {w["uid"] for w in bed.mesh.workloads}, "workloads")
    for dump in dumps(bed, "services"):
        equal([(s["hostname"], sorted(s["endpoints"])) for s in dump],
              [(bed.host, ["Kubernetes//Pod/default/b1", "Kubernetes//Pod/default/b2"])], "services")
    equal(bed.istiod.state()["token"], f"Bearer {bed.istiod.token}", "the token")
    equal(bed.istiod.state()["clusterid"], "Kubernetes", "the cluster")


@rows("xds-headers-and-node")
def headers(bed):
    not_ztunnel(bed, "names its headers as they are in the environment")
    equal(bed.istiod.state()["extra"], "more", "XDS_HEADER_X-Test")
    node = {x["node"] for x in bed.istiod.seen() if x["first"]}
    check(all(n.startswith("ztunnel~10.71.0.1~ztunnel-x.istio-system~istio-system.svc.") for n in node), node)


@rows("traffic-and-certificates")
def certificates(bed):
    tunnelled(bed, bed.a1, bed.b1)
    tunnelled(bed, bed.b1, bed.a2)
    check(bed.istiod.state()["certificates"] >= 2, bed.istiod.state())
    with bed.b1.listen(8080) as one, bed.b2.listen(8080) as two, bed.a1.connect(VIP4, 80) as c:
        s, _ = select.select([one, two], [], [], PATIENCE)[0][0].accept()
        with s:
            traffic.echo(c, s)


@rows("pod-that-the-mesh-learns-of-late-has-its-certificate-before-it-connects")
def late(bed):
    """As in Kubernetes, where a pod is enrolled before istiod has heard of it."""
    agent = bed.a2.node.agent

    def state():
        return [c["state"] for c in agent.config_dump()["certificates"] if c["identity"] == bed.a2.spiffe]

    with changed(bed) as push:
        agent.unenrol(bed.a2)
        bed.mesh.workloads = [w for w in bed.mesh.workloads if w["name"] != "a2"]
        push()
        everywhere(bed, lambda d: "a2" not in names(d), "the pod to go")
        until(lambda: not state(), "its certificate to be forgotten")
        agent.enrol(bed.a2)
        equal(state(), [], "the certificate of a pod that is not known")
    until(lambda: state() == ["Available"], "the certificate")
    tunnelled(bed, bed.a2, bed.b1)


# --- workloads and services come and go ----------------------------------------------------------------------


@rows("workload-comes-and-goes")
def workload(bed):
    with pair(bed.a1, bed.b1) as (c, s), changed(bed) as push:
        bed.mesh.workloads.append({**bed.mesh.workload("b2"), "uid": "Kubernetes//Pod/default/new", "name": "new",
                                   "workloadIps": ["10.71.2.77"], "services": {}})
        push()
        everywhere(bed, lambda d: "new" in names(d), "a new workload")
        traffic.echo(c, s)
        bed.mesh.workloads.pop()
        push()
        everywhere(bed, lambda d: "new" not in names(d), "it to go")
        traffic.echo(c, s)


@rows("endpoint-leaves-a-service")
def endpoint(bed):
    with changed(bed) as push, bed.b1.listen(8080) as one, bed.b2.listen(8080):
        bed.mesh.workload("b2")["services"] = {}
        push()
        everywhere(bed, lambda d: all(list(s["endpoints"]) == ["Kubernetes//Pod/default/b1"] for s in d["services"]),
                   "one endpoint")
        for _ in range(8):
            with bed.a1.connect(VIP4, 80) as c:
                c.sendall(b"x")
                one.settimeout(PATIENCE)
                one.accept()[0].close()


@rows("service-goes-under-traffic")
def service(bed):
    with bed.b1.listen(8080) as one, bed.b2.listen(8080) as two, changed(bed) as push, bed.a1.connect(VIP4, 80) as c:
        s, _ = select.select([one, two], [], [], PATIENCE)[0][0].accept()
        with s:
            traffic.echo(c, s)
            bed.mesh.services.clear()
            push()
            everywhere(bed, lambda d: not d["services"], "no services")
            traffic.echo(c, s)  # the connection that is there stays


# --- policies ------------------------------------------------------------------------------------------------


@rows("policy-cuts-a-live-connection-and-goes")
def policy(bed):
    with pair(bed.a1, bed.b1) as (c, s), pair(bed.a2, bed.b1, port=8081) as (other, other_s), changed(bed) as push:
        traffic.echo(c, s)
        bed.mesh.policy("late", "Deny", A1)  # of the namespace: ztunnel enforces that on live connections as well
        push()
        traffic.is_cut(c)
        traffic.is_cut(s)
        traffic.echo(other, other_s)
        bed.mesh.policies.clear()
        push()
        everywhere(bed, lambda d: not d["policies"], "no policies")
        exchange(bed, bed.a1, bed.b1, port=8082)
        traffic.echo(other, other_s)


@rows("policy-of-a-selector-cuts-a-live-connection")
def selector(bed):
    not_ztunnel(bed, "judges a live connection by the workload as it was")
    with pair(bed.a1, bed.b1) as (c, s), changed(bed) as push:
        traffic.echo(c, s)
        bed.mesh.policy("strict", "Deny", A1, ["b1"])
        push()
        traffic.is_cut(c)


@rows("policy-that-is-not-understood-denies")
def unparseable(bed):
    not_ztunnel(bed, "drops what it does not understand from a policy")
    with pair(bed.a1, bed.b1) as (c, s), changed(bed) as push:
        since = [len(a.log()) for a in bed.agents]
        bed.istiod.say(f"raw policy default/odd {odd_policy().hex()}")
        traffic.is_cut(c)
        for a, at in zip(bed.agents, since):
            until(lambda a=a, at=at: [x for x in a.lines(at) if "default/odd" in x.get("message", "")], "the log line")
        nacks = [x for x in bed.istiod.seen() if x["nack"]]
        check(nacks and all("an address of 5 bytes" in x["error"] for x in nacks), nacks)
        equal([p.get("unparseable") for p in dumps(bed, "policies")[1]], [True], "the dump")
        bed.istiod.say("remove policy default/odd")
        everywhere(bed, lambda d: not d["policies"], "no policies")
        exchange(bed, bed.a1, bed.b1, port=8081)
        push()


def odd_policy():
    """istio.security.Authorization default/odd: ALLOW, of the namespace, with a source address of five bytes."""
    def field(n, b):
        return bytes([n << 3 | 2, len(b)]) + b

    match = field(5, field(1, b"aaaaa"))
    return field(1, b"odd") + field(2, b"default") + b"\x18\x01" + field(5, field(1, field(2, match)))


# --- istiod goes and comes back ------------------------------------------------------------------------------


def end(process):
    process.kill()
    process.wait()


@rows("state-stays-while-istiod-is-away")
def away(bed):
    before = dumps(bed, "workloads")
    with pair(bed.a1, bed.b1) as (c, s), changed(bed) as push:
        end(bed.istiod.process)
        for a in bed.agents:
            until(lambda a=a: a.metric("istio_xds_connection_terminations_total") >= 1, "the end of a stream")
        traffic.echo(c, s)
        exchange(bed, bed.a1, bed.b1, port=8081)
        exchange(bed, bed.a1, bed.b2, port=8081)
        equal(dumps(bed, "workloads"), before, "the mesh")
        check(all(a.ready() for a in bed.agents), "not ready without istiod")
        bed.mesh.workloads = [w for w in bed.mesh.workloads if w["name"] != "b2"]
        bed.mesh.workload("a2")["canonicalRevision"] = "v2"
        bed.mesh.save()
        bed.istiod.start()
        everywhere(bed, lambda d: "b2" not in names(d), "what went meanwhile to go")
        everywhere(bed, lambda d: [w["canonicalRevision"] for w in d["workloads"] if w["name"] == "a2"] == ["v2"],
                   "what changed meanwhile")
        traffic.echo(c, s)
        first = [x for x in bed.istiod.seen() if x["first"] and x["type"] == "address"]
        check(first and all(x["versions"] == len(before[0]) + 1 for x in first), first)


@rows("not-ready-before-the-mesh-is-complete")
def readiness(bed):
    agent = bed.net.nodes[1].agent
    end(bed.istiod.process)
    agent.stop()
    try:
        agent.spawn(agent.argv if hasattr(agent, "argv") else [agents.CULVERTD])
        until(lambda: b"state manager" in agent.http(15021, "/healthz/ready")[1], "it to say what is pending", 20)
        time_out = time.monotonic() + 1
        while time.monotonic() < time_out:
            equal(agent.http(15021, "/healthz/ready")[0], 500, "readiness without a mesh")
        bed.istiod.start()
        agent.wait_ready()
        if hasattr(agent, "zds"):
            for pod in agent.node.pods:
                if pod.name in bed.enrol:
                    until(lambda pod=pod: exchange(bed, bed.a1, pod, port=8085) or True, "its pods to be served", 20)
    finally:
        if not bed.istiod.process or bed.istiod.process.poll() is not None:
            bed.istiod.start()
        agent.wait_ready()


@rows("root-is-read-for-each-connection")
def root(bed):
    """istiod's root changes while it is away; the file with it."""
    for client, server in ((bed.a1, bed.b1), (bed.a2, bed.b2)):  # all have their certificates: none comes of the other root
        exchange(bed, client, server)
    old, bed.istiod.ca = bed.istiod.ca, Ca(bed.folder, "second")
    try:
        end(bed.istiod.process)
        bed.istiod.start()
        until(lambda: bed.istiod.state()["open"] == len(bed.agents), "streams under the new root", 40)
    finally:
        end(bed.istiod.process)
        bed.istiod.ca = old
        bed.istiod.start()
        until(lambda: bed.istiod.state()["open"] == len(bed.agents), "streams under the old root", 40)


# --- istiod does what it should not --------------------------------------------------------------------------

ENDS = [  # of the stream; the next one may be a while away
    ["cut"],
    ["cut-after 300000", f"big {ADDRESS} x 1000000"],
    ["goaway"],
    ["goaway-after 300000", f"big {ADDRESS} x 1000000"],
    ["end 0"],
    ["end 14 not now"],
    ["message ffffffff"],
    ["http 503", "cut"],
    ["refuse 14 not ready", "cut"],
    ["mute 1", "cut"],
]
BAD = {  # one response, then the stream goes on
    "bad-address": [f"raw {ADDRESS} x " + bytes([0x0a, 4, 0x1a, 2, 1, 2]).hex()],
    "ten-megabytes": [f"big {ADDRESS} x 10000000"],
    "unknown-type": ["raw type.googleapis.com/envoy.config.cluster.v3.Cluster x 0a0161"],
    "odd-nonce": ["nonce \x01 \" \\ a", f"remove {ADDRESS} nobody"],
    "removals-of-nobody": [f"remove {ADDRESS} nobody", f"remove {ADDRESS} a/b/c", f"remove {ADDRESS} "],
    "drip": ["drip 1", f"big {ADDRESS} x 200"],
}
CALM = ["http 0", "refuse 0", "mute 0", "drip 0", "cut-after 0", "goaway-after 0"]


def misbehaves(bed, scripts, patience):
    """Traffic goes on whatever istiod does, and afterwards its changes arrive."""
    with pair(bed.a1, bed.b1) as (c, s):
        for lines in scripts:
            for line in lines:
                bed.istiod.say(line)
            traffic.echo(c, s)
            exchange(bed, bed.a1, bed.b2, port=8081)
            for line in CALM:
                bed.istiod.say(line)
        with changed(bed) as push:
            bed.mesh.workload("b2")["canonicalRevision"] = "after"
            push()
            everywhere(bed, lambda d: [w["canonicalRevision"] for w in d["workloads"] if w["name"] == "b2"] == ["after"],
                       "a change", patience)
        traffic.echo(c, s)


for bad_name, bad_lines in BAD.items():
    rows(f"hostile-{bad_name}")(lambda bed, lines=bad_lines: misbehaves(bed, [lines], 20))


@rows("hostile-streams-end")
def ends(bed):
    misbehaves(bed, ENDS, 40)


# --- what is told --------------------------------------------------------------------------------------------


@rows("metrics")
def metrics(bed):
    for a in bed.agents:
        check(a.metric("istio_xds_message_total", url=ADDRESS) >= 1, "messages")
        check(a.metric("istio_xds_message_bytes_total", url=ADDRESS) >= 100, "bytes")


@rows("status")
def status(bed):
    not_ztunnel(bed, "has no status")
    for a in bed.agents:
        x = until(lambda a=a: (d := a.config_dump()["xds"])["connected"] and d, "the stream to be there")
        equal((x["address"], x["complete"]), (bed.istiod.address, True), "the dump")
        if hasattr(a, "ctl"):
            line = [x for x in a.ctl("status").splitlines() if x.startswith("istiod")][0]
            check("connected since" in line and bed.istiod.address in line, line)
    end(bed.istiod.process)
    try:
        for a in bed.agents:
            x = until(lambda a=a: not (d := a.config_dump()["xds"])["connected"] and d, "the end to be seen")
            check(bed.istiod.address in x["lastError"], x)
    finally:
        bed.istiod.start()
    for a in bed.agents:
        until(lambda a=a: a.config_dump()["xds"]["connected"], "the stream to be back", 40)


# --- on demand -----------------------------------------------------------------------------------------------


def on_demand(bed):
    bed.env = {**bed.env, "XDS_ON_DEMAND": "true", "ISTIO_META_DNS_CAPTURE": "false"}
    istiod(bed)


DEMAND = {k: (lambda k=k: Bed((k, k), prepare=on_demand)) for k in BEDS}


def demand_rows(name):
    def add(fn):
        def row(bed):
            not_ztunnel(bed, "waits for the name that it asked for, where istiod answers with the pod's and an alias")
            fn(bed)

        for kind in DEMAND:
            T.row(f"{kind}/on-demand-{name}", DEMAND[kind])(row)
        return fn

    return add


@demand_rows("only-what-is-needed")
def needed(bed):
    for a, own in zip(bed.agents, ({"a1", "a2"}, {"b1", "b2"})):
        until(lambda a=a, own=own: names(a.config_dump()) >= own, "the node's pods")
    check("b1" not in names(bed.agents[0].config_dump()), "a pod that nobody has asked for")
    tunnelled(bed, bed.a1, bed.b1)
    check("b1" in names(bed.agents[0].config_dump()), "a pod that was called is not there")


@demand_rows("service-brings-its-pods")
def demand_service(bed):
    since = len(bed.agents[0].log())
    with bed.b1.listen(8080) as one, bed.b2.listen(8080) as two, bed.a1.connect(VIP4, 80) as c:
        s, _ = select.select([one, two], [], [], PATIENCE)[0][0].accept()
        with s:
            traffic.echo(c, s)
    until(lambda: bed.agents[0].access(since, direction="outbound", dst_service=bed.host), "the log line")
    check(names(bed.agents[0].config_dump()) >= {"b1", "b2"}, "the service's pods")


@demand_rows("outside-the-mesh-is-plaintext")
def outside(bed):
    since = len(bed.agents[1].log())
    for _ in range(3):
        exchange(bed, bed.b1, bed.u1, port=8086)
    lines = until(lambda: bed.agents[1].access(since, direction="outbound"), "the log line")
    check(not any("dst.hbone_addr" in x for x in lines), lines)


@demand_rows("changes-follow")
def follow(bed):
    exchange(bed, bed.a1, bed.b1)
    with pair(bed.a1, bed.b1) as (c, s), changed(bed) as push:
        bed.mesh.policy("late", "Deny", A1)
        push()
        traffic.is_cut(c)


@demand_rows("one-name-that-leads-to-another-without-an-end-is-refused-and-counted")
def endless(bed):
    """A service with many waypoints that nobody has heard of: each attempt to route draws another one."""
    with changed(bed) as push:
        bed.mesh.service("maze", ["10.72.9.1"], {80: 8080}, [], weightedWaypoints=[
            {"destination": {"destination": f"/10.99.7.{i}", "hboneMtlsPort": 15008}, "weight": 1} for i in range(40)])
        push()

        def refused():
            traffic.dial_is_cut(bed.a1, "10.72.9.1", 80)
            return bed.agents[0].metric("culvert_on_demand_refused_total")

        until(refused, "a connection that needs too many names", 20)
        until(lambda: [x for x in bed.agents[0].access(direction="outbound") if "without an end" in x.get("error", "")],
              "the log line")


@demand_rows("unknown-is-refused-while-istiod-is-away")
def unknown_is_refused(bed):
    exchange(bed, bed.a2, bed.b1)
    bed.istiod.say("mute 1")
    try:
        with bed.u1.listen(8087):
            traffic.dial_is_cut(bed.a2, "10.71.1.77", 8087)
        exchange(bed, bed.a2, bed.b1)  # what is known goes on
    finally:
        bed.istiod.say("mute 0")


# --- many ----------------------------------------------------------------------------------------------------


@rows("many-workloads-arrive-under-traffic")
def many(bed):
    n = scale.count(20000, 400)
    with pair(bed.a1, bed.b1) as (c, s), changed(bed) as push:
        for i in range(n):
            bed.mesh.workloads.append({**bed.mesh.workload("b2"), "uid": f"Kubernetes//Pod/many/p-{i}", "name": f"p-{i}",
                                       "namespace": "many", "workloadIps": [f"10.99.{i >> 8}.{i & 255}"],
                                       "node": f"n-{i % 100}", "services": {}})
        task = traffic.Task(push)
        traffic.steady(lambda: traffic.echo(c, s), scale.deadline(2))
        task.result(120)
        for a in bed.agents:
            until(lambda a=a: len(a.config_dump()["workloads"]) >= n, f"{n} workloads on {a.node.name}", 60, every=0.2)
        traffic.echo(c, s)


if __name__ == "__main__":
    T.main()
