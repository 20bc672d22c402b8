#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`istioctl ztunnel-config` on our dump: the tables that it makes of one with connections open, and, where ZTUNNEL= names one,
that they are those that it makes of ztunnel's after the same traffic. ISTIOCTL= names it, else the path."""
import contextlib
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import traffic
from lib.bed import VIP4, VIP6, Bed, pair
from lib.mesh import Exact, Presence, Suffix
from lib.rows import Skip, Table, check, equal, until
from xds_test import istiod

T = Table(__file__)
TABLES = ("workloads", "services", "policies", "certificates", "connections", "all")
HEADS = {"workloads": "NAMESPACE POD NAME ADDRESS NODE WAYPOINT PROTOCOL",
         "services": "NAMESPACE SERVICE NAME SERVICE VIP WAYPOINT ENDPOINTS", "policies": "NAMESPACE POLICY NAME ACTION SCOPE",
         "certificates": "CERTIFICATE NAME TYPE STATUS VALID CERT SERIAL NUMBER NOT AFTER NOT BEFORE",
         "connections": "WORKLOAD DIRECTION LOCAL REMOTE REMOTE TARGET PROTOCOL"}


def istioctl():
    path = os.environ.get("ISTIOCTL") or shutil.which("istioctl")
    if not path:
        raise Skip("no ISTIOCTL= and none on PATH")
    return path


# It wants to know a cluster, though a file asks none.
KUBECONFIG = """{"apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
"clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}]}"""


def table(bed, agent, what):
    """Lines of a table, blanks as one."""
    path = f"{bed.folder}/{agent.node.name}-dump.json"
    with open(path, "wb") as f:
        f.write(agent.http(15000, "/config_dump")[1])
    with open(f"{bed.folder}/kubeconfig", "w") as f:
        f.write(KUBECONFIG)
    r = subprocess.run([istioctl(), "ztunnel-config", what, "--file", path], capture_output=True, text=True, timeout=60,
                       env={**os.environ, "HOME": bed.folder, "KUBECONFIG": f"{bed.folder}/kubeconfig"})
    check(r.returncode == 0, r.stdout + r.stderr)
    return [" ".join(x.split()) for x in r.stdout.splitlines() if x.strip()]


def objects(bed):
    mesh = bed.mesh
    mesh.service("behind", ["10.72.3.1"], {80: 0, 81: 8081}, [], waypoint={"destination": f"default/{bed.host}", "hboneMtlsPort": 15008})
    mesh.policy("no-a2", "Deny", [[[{"principals": [Exact("cluster.local/ns/default/sa/sa-a2")], "notNamespaces": [Suffix("x")]}]]], ["b1"])
    mesh.policy("some", "Allow", [[[{"principals": [Presence([])]}]], [[{"destinationPorts": [8080]}]]])
    mesh.workload("b2")["waypoint"] = {"destination": f"/{bed.b1.ip4}", "hboneMtlsPort": 15008}
    istiod(bed)


@contextlib.contextmanager
def connections(bed):
    """Over HBONE, by a service, in plaintext, in both directions; and no others."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(bed.b1.listen(8080))
        plain = stack.enter_context(bed.u1.listen(8090))
        mine = stack.enter_context(bed.a1.listen(8080))
        for args in ((bed.a1, bed.b1, 8080, False, None, listener), (bed.a1, bed.b1, 8080, True, None, listener),
                     (bed.a2, bed.u1, 8090, False, None, plain), (bed.b1, bed.a1, 8080, False, None, mine),
                     (bed.u1, bed.a1, 8080, False, None, mine)):
            traffic.echo(*stack.enter_context(pair(*args)))
        yield


def tables(kind):
    """{table: lines} of both nodes' agents."""
    with Bed((kind, kind), prepare=objects) as bed, connections(bed):
        for a in bed.agents:
            until(lambda a=a: all(c["state"] == "Available" for c in a.config_dump()["certificates"]), "certificates")
        return [{what: table(bed, a, what) for what in TABLES} for a in bed.agents]


_tables = {}


def made(kind):
    if kind not in _tables:
        _tables[kind] = tables(kind)
    return _tables[kind]


def aside(line):
    """What is another each time: clients' ports, serial numbers, dates."""
    line = re.sub(r"(?<=[\d\]a-z]):[1-6]\d{4}\b(?<!:15008)", ":PORT", line)
    line = re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\b", "DATE", line)
    return re.sub(r"\b[0-9a-f]{18,}\b", "SERIAL", line)


for what in TABLES:
    @T.row(f"ours/{what}")
    def ours(what=what):
        for lines in made("dropin"):
            text = "\n".join(lines[what])
            for part in TABLES[:-1] if what == "all" else [what]:
                check(HEADS[part] in text, f"no {HEADS[part]} in {text}")
        first = "\n".join(made("dropin")[0][what])
        for name in {"workloads": ("a1", "b2"), "services": ("web", "behind"), "policies": ("no-a2", "some"),
                     "certificates": ("sa/sa-a1", "Leaf Available true"), "connections": ("Inbound", "Outbound", "HBONE"), "all": ("web",)}[what]:
            check(name in first, f"no {name} in {first}")

    @T.row(f"as-ztunnel's/{what}")
    def same(what=what):
        if not os.environ.get("ZTUNNEL"):
            raise Skip("no ZTUNNEL= given")
        for a, b in zip(made("dropin"), made("ztunnel")):
            equal(sorted(map(aside, a[what])), sorted(map(aside, b[what])), what)


if __name__ == "__main__":
    T.main()
