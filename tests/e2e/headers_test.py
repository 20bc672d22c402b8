#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an HBONE CONNECT and its answer carry beside the authority: baggage, forwarded, traceparent, x-forwarded-network. Sent: seen by
a server written by hand. Read: what a client written by hand says appears in metrics, log and dump."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2
from lib.bed import fixture, kinds, not_ztunnel
from lib.h2_server import Recorder
from lib.net import authority
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00")


def described(bed):
    """a2 with everything that baggage tells, a1 without some of it."""
    a1, a2 = bed.mesh.workload("a1"), bed.mesh.workload("a2")
    a1 |= {"canonicalRevision": "", "workloadType": "pod"}
    a2 |= {"canonicalName": "shop", "canonicalRevision": "v2", "workloadType": "cronjob", "workloadName": "job-a2",
           "locality": {"region": "r1", "zone": "z1", "subzone": "s1"}}
    bed.mesh.service("second", ["10.72.0.9", "fd72::9"], {80: 8080}, ["b1"])


BAGGAGE = {"a1": "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.pod.name=a1,service.name=a1",
           "a2": "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.cronjob.name=job-a2,service.name=shop,service.version=v2,"
                 "cloud.region=r1,cloud.availability_zone=z1"}
B1 = "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=b1,service.name=b1,service.version=v1"

BYHAND = {k: fixture(k, None, prepare=described, pods=("a1", "a2")) for k in kinds()}
BOTH = {k: fixture(k, k, prepare=described, pods=("a1", "a2", "b1")) for k in kinds()}  # the mesh knows b2, which dials by hand
SILENT = {k: fixture(k, k, prepare=described, env={"ENABLE_RESPONSE_BAGGAGE": "false"}) for k in kinds()}


def rows(name, beds, families=FAMILIES):
    return T.each(beds, name, families)


# --- sent ---------------------------------------------------------------------------------------------------------


def asked(bed, v6, client, ip, port):
    """The request that a connection makes, and the address that the client has."""
    with Recorder(bed, bed.b1, v6) as server, client.connect(ip, port) as c:
        return *until(lambda: server.requests, "the request")[0], c.getsockname()[:2]


@rows("request-to-a-pod", BYHAND)
def to_pod(bed, v6):
    for client in bed.a1, bed.a2:
        flags, fields, src = asked(bed, v6, client, bed.b1.ip(v6), 8080)
        want = [(":method", "CONNECT"), (":authority", authority(bed.b1.ip(v6), 8080)), ("baggage", BAGGAGE[client.name]),
                ("forwarded", f'for="{authority(*src)}"'), ("traceparent", fields[-1][1])]
        equal(fields, want, "the fields")
        check(TRACE.fullmatch(fields[-1][1]), f"traceparent {fields[-1][1]}")
        check(not flags & h2.END_STREAM, "the request ends its stream")


@rows("request-to-a-service", BYHAND)
def to_service(bed, v6):
    """The authority is the endpoint's, the service goes with `forwarded`."""
    _, fields, src = asked(bed, v6, bed.a1, "fd72::9" if v6 else "10.72.0.9", 80)
    fields = dict(fields)
    equal(fields[":authority"], authority(bed.b1.ip(v6), 8080), "the authority")
    equal(fields["forwarded"], f'for="{authority(*src)}";host=second.default.svc.cluster.local', "forwarded")
    check("x-forwarded-network" not in fields, "a network's name within the network")


@rows("each-connection-has-a-trace-of-its-own", BYHAND, families=[False])
def traces(bed, v6):
    with Recorder(bed, bed.b1, v6) as server:
        for _ in range(5):
            bed.a1.connect(bed.b1.ip(v6), 8080).close()
        until(lambda: len(server.requests) == 5, "the requests")
        trace = [dict(f)["traceparent"].split("-") for _, f in server.requests]
    equal((len({t[1] for t in trace}), len({t[2] for t in trace})), (5, 5), "different ids")


# --- answered -----------------------------------------------------------------------------------------------------


def answers(bed, v6, *requests):
    """[(flags, fields)] of b1's agent's answers to a client from u1 that is a1's."""
    out = []
    with bed.b1.listen(8080), h2.Client(bed.u1, bed.b1.ip(v6), bed.ca, bed.cert(bed.a1.spiffe)) as h:
        for request in requests:
            _, flags, _, fields = h.event(h.connect(*request))
            out.append((flags & h2.END_STREAM, fields))
    return out


@rows("answer", BOTH)
def answer(bed, v6):
    """With 200 the pod says who it is; an error says its status and ends."""
    (end, fields), bad, refused = answers(bed, v6, (authority(bed.b1.ip(v6), 8080),), (authority(bed.b2.ip(v6), 8080),), (authority(bed.b1.ip(v6), 7777),))
    equal((end, fields), (0, [(":status", "200"), ("baggage", B1)]), "200")
    equal([bad, refused], [(h2.END_STREAM, [(":status", s)]) for s in ("400", "503")], "errors")


@rows("answer-without-baggage", SILENT, families=[False])
def silent(bed, v6):
    equal(answers(bed, v6, (authority(bed.b1.ip(v6), 8080),)), [(0, [(":status", "200")])], "200")


# --- read ---------------------------------------------------------------------------------------------------------

SAID = "k8s.cluster.name=far,k8s.namespace.name=theirs,k8s.job.name=caller,service.name=calling,service.version=v9,cloud.region=r9"
# (row, the client, its headers, labels of the destination's metric)
SPOKEN = [
    ("baggage-of-an-unknown-client", "u1", [("baggage", SAID)],
     {"source_workload": "caller", "source_workload_namespace": "theirs", "source_canonical_service": "calling", "source_version": "v9",
      "source_cluster": "far", "source_app": "caller", "source_region": "r9"}),
    ("baggage-in-two-lines", "u1", [("baggage", "k8s.pod.name=two"), ("baggage", "service.name=lines")],
     {"source_workload": "two", "source_canonical_service": "lines", "source_cluster": "unknown"}),
    ("no-baggage", "u1", [], {"source_workload": "unknown", "source_cluster": "unknown"}),
    ("baggage-of-a-client-that-the-mesh-knows", "b2", [("baggage", SAID)], {"source_workload": "b2", "source_workload_namespace": "default"}),
    ("baggage-behind-a-gateway", "b2", [("baggage", SAID), ("x-forwarded-network", "elsewhere")],
     {"source_workload": "caller", "source_workload_namespace": "theirs"}),
    ("no-baggage-behind-a-gateway", "b2", [("x-forwarded-network", "elsewhere")], {"source_workload": "unknown"}),
    ("own-network", "b2", [("baggage", SAID), ("x-forwarded-network", "")], {"source_workload": "b2"}),
    ("forwarded-names-the-service", "u1", [("forwarded", 'for="10.0.0.1:1";host=second.default.svc.cluster.local')],
     {"destination_service": "second.default.svc.cluster.local"}),
    ("forwarded-in-quotes", "u1", [("forwarded", 'host="web.default.svc.cluster.local";for=x')],
     {"destination_service": "web.default.svc.cluster.local"}),
    ("the-principal-is-the-certificate's", "u1", [("baggage", "k8s.namespace.name=x")],
     {"source_principal": "spiffe://cluster.local/ns/default/sa/sa-a1", "connection_security_policy": "mutual_tls"}),
    ("traceparent-that-is-none", "u1", [("traceparent", "00-" + "0" * 52)], {"source_workload": "unknown"}),
]


def spoken(name, who, headers, labels):
    @rows(name, BOTH, families=[False])
    def said(bed, v6):
        if name.startswith("traceparent"):
            not_ztunnel(bed, "closes the connection")
        if "destination_service" in labels:
            not_ztunnel(bed, "does not know from a file which services a pod has")
        agent = bed.b1.node.agent
        count = lambda: agent.metric("istio_tcp_connections_opened_total", reporter="destination", **labels)
        before = count()
        with bed.b1.listen(8080), h2.Client(bed.pod[who], bed.b1.ip(v6), bed.ca, bed.cert(bed.a1.spiffe)) as h:
            stream = h.connect(authority(bed.b1.ip(v6), 8080), *headers)
            equal(h.status(stream), "200", "the status")
            until(lambda: count() == before + 1, f"the metric with {labels}")
            if "forwarded" in dict(headers):
                state = next(x for x in agent.config_dump()["workloadState"].values() if x["info"]["name"] == "b1")
                host = labels["destination_service"]
                until(lambda: [c for c in state["connections"]["inbound"] if host in str(c.get("originalDst"))], "the host in the dump")


for row in SPOKEN:
    spoken(*row)


if __name__ == "__main__":
    T.main()
