#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agents fed by the real istiod: workloads, services, policies and certificates as they come from its own code, while
they change, and while it is away. E2E_KINDS=ztunnel runs the rows on ztunnel: how we know that they ask for the right
thing."""
import contextlib
import os
import select
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
from istiod_bed import IstiodBed, exchange, part
from lib import traffic
from lib.agents import CULVERTD
from lib.bed import VIP4, VIP6, not_ztunnel, pair
from lib.net import PATIENCE
from lib.rows import Table, check, equal, until
from real_istiod import write_token

T = Table(__file__)
# "x+y": x on the first node, whose pods are the clients, and y on the second.
MIXED = " culvert+ztunnel ztunnel+culvert" if os.environ.get("ZTUNNEL") else ""
KINDS = os.environ.get("E2E_KINDS", "culvert dropin" + MIXED).split()
WEB = "web.default.svc.cluster.local"


def each(name, some=None, **kw):
    """For every kind of agents on both nodes; a bed of its own for rows that end istiod."""

    def add(fn):
        for kind in some or KINDS:
            T.row(f"{kind}/{name}", shared(kind) if not kw else lambda kind=kind: bed_of(kind, **kw))(fn)
        return fn

    return add


_shared = {}


def shared(kind):
    return _shared.setdefault(kind, lambda: bed_of(kind))


def bed_of(kind, **kw):
    return IstiodBed(*(kind.split("+") * 2)[:2], **kw)


def passes(client, server):
    """Whether a new connection reaches the application."""
    try:
        with server.listen(8080) as listener, client.connect(server.ip4, 8080) as c:
            c.sendall(b"x")
            first = select.select([listener, c], [], [], PATIENCE)[0]
            check(first, "neither served nor refused")
            return listener in first
    except OSError:
        return False


@contextlib.contextmanager
def changed(bed, change, undo):
    """With changed objects; the caller waits for what it changes, and afterwards for the opposite."""
    change(bed.objects)
    bed.apply()
    try:
        yield
    finally:
        undo(bed.objects)
        bed.apply()


# --- what arrives ----------------------------------------------------------------------------------------------------


@each("workloads-services-and-certificates-arrive")
def arrive(bed):
    for agent in bed.agents:
        for pod in bed.pod.values():
            uid = f"Kubernetes//Pod/default/{pod.name}"
            w = until(lambda: part(agent, "workloads", uid=uid), f"{uid} at {agent.node.name}")[0]
            equal((sorted(w["workloadIps"]), w["serviceAccount"], w["node"], w["protocol"]),
                  (sorted([pod.ip4, pod.ip6]), pod.sa, pod.node.name, "HBONE" if pod.mesh else "TCP"), uid)
        service = part(agent, "services", hostname=WEB)[0]
        equal((service["vips"], service["ports"]), ([f"/{VIP4}", f"/{VIP6}"], {"80": 8080}), WEB)
        equal(sorted(service["endpoints"]), [f"Kubernetes//Pod/default/{x}" for x in ("b1", "b2")], "endpoints")


@each("identities-are-certified-by-istiod")
def certified(bed):
    since = [len(a.log()) for a in bed.agents]
    exchange(bed.a1, bed.b1)
    for agent, at, mine in zip(bed.agents, since, (bed.a1, bed.b1)):
        until(lambda: agent.access(at, src_identity=bed.a1.spiffe, dst_identity=bed.b1.spiffe), "HBONE in its log")
        known = {x["identity"]: x["state"] for x in agent.config_dump()["certificates"]}
        equal(known[mine.spiffe], "Available", mine.spiffe)


@each("service-address-reaches-each-pod")
def service_address(bed):
    for vip in VIP4, VIP6:
        with bed.b1.listen(8080) as one, bed.b2.listen(8080) as two:
            seen = set()
            for _ in range(60):
                with bed.a1.connect(vip, 80) as c:
                    c.sendall(b"x")
                    seen |= accepted(one, two)
                if len(seen) == 2:
                    break
            equal(len(seen), 2, f"pods behind {vip}")


def accepted(*listeners):
    """Which of them has a connection, which ends: none is left for who listens there next."""
    ready = select.select(listeners, [], [], PATIENCE)[0]
    check(ready, "the connection arrives nowhere")
    for x in ready:
        x.accept()[0].close()
    return set(ready)


# --- what changes ----------------------------------------------------------------------------------------------------


@each("policy-comes-and-goes-under-a-live-connection")
def policy(bed):
    """A DENY for one of two clients cuts its connection, and no other; without it both are served again."""
    rule = [{"from": [{"source": {"principals": [bed.a2.spiffe.removeprefix("spiffe://")]}}]}]
    with bed.b1.listen(8080) as listener, pair(bed.a1, bed.b1, listener=listener) as (c1, s1), \
            pair(bed.a2, bed.b1, listener=listener) as (c2, _):
        with changed(bed, lambda o: o.policy("no-a2", "DENY", rule),
                     lambda o: o.remove("AuthorizationPolicy", "no-a2", "default")):
            traffic.is_cut(c2)
            traffic.echo(c1, s1)
        traffic.echo(c1, s1)
    until(lambda: passes(bed.a2, bed.b1), "the policy to go")


@each("policy-is-changed-from-one-client-to-the-other")
def policy_changes(bed):
    def allow(pod):
        return lambda o: o.policy("only", "ALLOW", [{"from": [{"source": {"principals": [pod.spiffe[9:]]}}]}])

    with changed(bed, allow(bed.a1), lambda o: o.remove("AuthorizationPolicy", "only", "default")):
        until(lambda: not passes(bed.a2, bed.b1), "a2 to be refused")
        check(passes(bed.a1, bed.b1), "a1 is refused as well")
        allow(bed.a2)(bed.objects)
        equal(bed.istiod.apply(), "applied 0 added 1 changed 0 removed", "istiod")
        until(lambda: not passes(bed.a1, bed.b1), "a1 to be refused")
        check(passes(bed.a2, bed.b1), "a2 is refused as well")
    until(lambda: passes(bed.a1, bed.b1), "the policy to go")


@each("strict-mutual-tls-refuses-plaintext")
def strict(bed):
    check(passes(bed.u1, bed.b1), "plaintext is refused without a reason")
    with changed(bed, lambda o: o.mutual_tls("STRICT"), lambda o: o.remove("PeerAuthentication", "default", "default")):
        until(lambda: not passes(bed.u1, bed.b1), "plaintext to be refused")
        check(passes(bed.a1, bed.b1), "HBONE is refused as well")
    until(lambda: passes(bed.u1, bed.b1), "plaintext to be served again")


@each("pod-leaves-and-comes-back")
def pod_leaves(bed):
    """A pod that is gone is no workload and no endpoint; the connections of the others go on."""
    uid = "Kubernetes//Pod/default/b2"

    def known():
        return [bool(part(a, "workloads", uid=uid)) or uid in part(a, "services", hostname=WEB)[0]["endpoints"]
                for a in bed.agents]

    with bed.b1.listen(8080) as listener, pair(bed.a1, bed.b1, listener=listener) as (c, s):
        with changed(bed, lambda o: o.remove("Pod", "b2", "default"), lambda o: o.mesh_pod(bed.b2, serves="web")):
            until(lambda: known() == [False, False], "b2 to be forgotten")
            traffic.echo(c, s)
            for _ in range(10):
                with pair(bed.a1, bed.b1, to=VIP4, port=80, listener=listener) as (c2, s2):
                    traffic.echo(c2, s2)
        until(lambda: known() == [True, True], "b2 to be known again")
        until(lambda: passes(bed.a1, bed.b2), "b2 to be served again")
        traffic.echo(c, s)


# --- istiod away -----------------------------------------------------------------------------------------------------


@each("istiod-is-away-and-comes-back", env={})
def away(bed):
    """What is known goes on to be served, new connections too; what changed meanwhile arrives when it is back."""
    rule = [{"from": [{"source": {"principals": [bed.a2.spiffe[9:]]}}]}]
    exchange(bed.a2, bed.b1)
    with bed.b1.listen(8080) as listener, pair(bed.a1, bed.b1, listener=listener) as (c, s):
        bed.istiod.stop()
        bed.objects.policy("no-a2", "DENY", rule)
        bed.objects.remove("Pod", "b2", "default")
        traffic.echo(c, s)
        with pair(bed.a2, bed.b1, listener=listener) as (c2, s2):
            traffic.echo(c2, s2)
            for agent in bed.agents:
                check(agent.ready(), f"{agent.node.name} is not ready without istiod")
            bed.istiod.start()
            traffic.is_cut(c2, 40)  # the reconnect may wait for half a minute
        traffic.echo(c, s)
    for agent in bed.agents:
        until(lambda: not part(agent, "workloads", name="b2"), "the removed pod to be forgotten")


@each("istiod-comes-back-to-agents-that-know-60,000-workloads", KINDS[:1], env={}, thousands=60)
def away_many(bed):
    """Their names and versions are more than istiod takes in one request."""
    not_ztunnel(bed, "names them all, is refused, and says the same again for ever")
    away(bed)


@each("token-that-istiod-refuses", env={}, pods=())
def token(bed):
    """An agent whose token says nothing to istiod never has state: it is not ready, and says why."""
    agent = bed.agents[0]
    agent.stop()
    write_token(agent, "nobody")
    at = len(agent.log())
    agent.spawn(getattr(agent, "argv", [CULVERTD]))
    until(lambda: "authenticat" in agent.log()[at:], "a word about the token")
    until(lambda: agent.http(15021, "/healthz/ready")[0] == 500, "a probe to be answered")


# --- on demand, and what istiod refuses ------------------------------------------------------------------------------


@each("on-demand-only-what-is-used-arrives", env={"XDS_ON_DEMAND": "true", "ISTIO_META_DNS_CAPTURE": "false"})
def on_demand(bed):
    """A node knows its own pods; what they dial is asked for, by address and by service, while the connection waits."""
    not_ztunnel(bed, "waits for ever, with the answer in its hands")
    agent = bed.agents[0]
    known = {x["name"] for x in part(agent, "workloads", namespace="default")}
    equal(known & {"b1", "b2"}, set(), "pods of the other node")
    with bed.b1.listen(8080) as listener, bed.a1.connect(bed.b1.ip4, 8080) as c, listener.accept()[0] as s:
        traffic.echo(c, s)
    until(lambda: agent.access(src_identity=bed.a1.spiffe, dst_identity=bed.b1.spiffe), "HBONE in the access log")
    equal(part(agent, "services", hostname=WEB), [], "the service before it was used")
    with bed.b1.listen(8080), bed.b2.listen(8080), bed.a2.connect(VIP4, 80) as c:
        c.sendall(b"x")
        until(lambda: part(agent, "services", hostname=WEB), "the service")


@each("identity-of-another-node's-pod-is-not-certified", env={}, pods=("b1",))
def other_node(bed):
    """With the other node's token an agent gets no certificate for its own pods, and nothing leaves them in plaintext;
    with its own it does, without a restart."""
    not_ztunnel(bed, "keeps connections open while it has no certificate")
    agent = bed.agents[0]
    write_token(agent, "ztunnel-node-2")
    with contextlib.suppress(AssertionError):  # a keeper may say that the pod is not served yet
        agent.enrol(bed.a1)
    with bed.b1.listen(8080) as listener:
        traffic.dial_is_cut(bed.a1, bed.b1.ip4, 8080)
        check(not select.select([listener], [], [], 0)[0], "a connection arrived")
    until(lambda: f"impersonation failed for identity {bed.a1.spiffe}" in bed.istiod.log(), "istiod to refuse")
    write_token(agent, "ztunnel-node-1")
    until(lambda: passes(bed.a1, bed.b1), "the certificate", 40)


@T.row("program/objects-that-it-cannot-take-change-nothing", lambda: IstiodBed(None, None))
def wrong_objects(bed):
    """What is beside them is not taken either, and the next good file is."""
    for what, fault in (({"apiVersion": "v1", "kind": "Sofa"}, 'no kind "Sofa"'), ({"kind": "Pod"}, "apiVersion"),
                        ({"apiVersion": "security.istio.io/v1beta1", "kind": "AuthorizationPolicy"}, "does not watch"),
                        ({"apiVersion": "v1", "kind": "Pod", "metadata": {}}, "has no name"),
                        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 5}}, "name")):
        bed.objects.objects["wrong"] = what
        bed.objects.node(bed.net.nodes[0])
        said = bed.istiod.apply()
        check(said.startswith("refused: ") and "document" in said and fault in said, f"{what}: {said}")
        del bed.objects.objects["wrong"]
    equal(bed.istiod.apply(), "applied 0 added 0 changed 0 removed", "istiod")


if __name__ == "__main__":
    T.main()
