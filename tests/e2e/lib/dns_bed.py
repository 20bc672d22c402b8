# SPDX-License-Identifier: Apache-2.0
"""A node with two pods, a1 in namespace default and a2 in namespace other, a mesh with names of every kind, and a resolver
outside the mesh, u1, which the pods ask and the node too."""
from . import dns
from .bed import Bed
from .mesh import workload

MANY = 60  # endpoints of the headless service "many"
WWW, WILD, DEEP, HIDDEN, OWN, FOUR = "10.73.0.1", "10.73.0.2", "10.73.0.3", "10.73.0.4", "10.73.0.5", "10.73.0.6"
DUAL = ("10.73.0.7", "fd73::7")


def entry(bed, hostname, vips, namespace="default", **more):
    bed.mesh.services.append({"name": hostname.partition(".")[0], "namespace": namespace, "hostname": hostname,
                              "vips": [f"/{v}" for v in vips], "ports": {80: 8080}, **more})


def endpoint(bed, name, service, ips, namespace="default"):
    hostname = f"{service}.{namespace}.svc.cluster.local"
    bed.mesh.workloads.append({**workload(bed.b1), "uid": f"Kubernetes//Pod/{namespace}/{name}", "name": name, "namespace": namespace,
                               "workloadIps": ips, "services": {f"{namespace}/{hostname}": {80: 8080}}})


def prepare(bed):
    bed.a2.namespace = bed.mesh.workload("a2")["namespace"] = "other"
    bed.mesh.workload("a2")["uid"] = "Kubernetes//Pod/other/a2"
    bed.resolver = dns.Resolver(bed.u1, (bed.u1.ip4, bed.u1.ip6))
    bed.stack.callback(bed.resolver.close)
    bed.stack.enter_context(dns.resolv_conf(bed.net.nodes[0], bed.u1.ip4))
    entry(bed, "www.example.test", [WWW])
    entry(bed, "dual.example.test", DUAL)
    entry(bed, "*.wild.test", [WILD])
    entry(bed, "*.deep.wild.test", [DEEP])
    entry(bed, "hidden.other.svc.cluster.local", [HIDDEN], "other", visibility="Namespace")
    entry(bed, "own.default.svc.cluster.local", [OWN], visibility="Namespace")
    entry(bed, "four.default.svc.cluster.local", [FOUR])
    for name in ("db", "many", "nobody"):
        entry(bed, f"{name}.default.svc.cluster.local", [])
    for i in range(2):
        endpoint(bed, f"db-{i}", "db", [f"10.74.0.{i + 1}", f"fd74::{i + 1}"])
    for i in range(MANY):
        endpoint(bed, f"many-{i}", "many", [f"10.74.1.{i + 1}", f"fd74:1::{i + 1}"])
    r = bed.resolver
    r.add("out.test", "192.0.2.1", "192.0.2.2", "2001:db8::1", ttl=300)
    r.add("four.out.test", "192.0.2.4", ttl=300)
    r.add("big.out.test", *(f"192.0.2.{i}" for i in range(100)), ttl=300)
    r.add("short.out.test", "192.0.2.9", ttl=2)
    r.names["out.test", dns.TXT] = [dns.record("out.test", dns.TXT, 300, b"\5hello")]
    r.names["alias.out.test", dns.A] = [dns.record("alias.out.test", dns.CNAME, 300, dns.name_bytes("out.test")),
                                        *dns.address_records("out.test", ["192.0.2.1"], 300)]
    r.names["silent.test", dns.A] = "silent"
    r.names["broken.test", dns.A] = dns.SERVFAIL


class DnsBed(Bed):
    def __init__(self, kind, env=None):
        super().__init__((kind, None), env=env, pods=("a1", "a2"), prepare=prepare)


def fixture(kind, env=None):
    return lambda: DnsBed(kind, env)
