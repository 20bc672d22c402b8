# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' and Istio's objects in every form of which istiod makes something for a tunnel, added to an Objects."""
from real_istiod import REDIRECTED, SYSTEM

AMBIENT = {"istio.io/dataplane-mode": "ambient"}


def every_service(o):
    def service(name, *ips, namespace="default", labels=None, **spec):
        o.put("Service", name, namespace, labels=labels, spec={
            "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": list(ips),
            "ports": [{"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"}], **spec})

    selector = {"serves": "web"}
    service("local", "10.72.0.10", selector=selector, internalTrafficPolicy="Local")
    service("close", "10.72.0.11", selector=selector, trafficDistribution="PreferClose")
    service("same-node", "10.72.0.12", selector=selector, trafficDistribution="PreferSameNode")
    service("headless", "None", selector=selector)
    service("unready", "10.72.0.13", selector=selector, publishNotReadyAddresses=True)
    service("six", "fd72::14", selector=selector, ipFamilies=["IPv6"])
    service("both", "10.72.0.15", "fd72::15", selector=selector, ipFamilies=["IPv4", "IPv6"])
    service("named", "10.72.0.16", selector=selector, ports=[{"name": "tcp", "port": 80, "targetPort": "http"},
                                                             {"name": "other", "port": 81, "targetPort": "nowhere"}])
    service("global", "10.72.0.17", selector=selector, labels={"istio.io/global": "true"})
    service("by-hand", "10.72.0.18")
    o.put("EndpointSlice", "by-hand-1", "default", "discovery.k8s.io/v1", addressType="IPv4",
          labels={"kubernetes.io/service-name": "by-hand"}, ports=[{"name": "tcp", "port": 9000, "protocol": "TCP"}],
          endpoints=[{"addresses": ["192.0.2.7"], "conditions": {"ready": True}},
                     {"addresses": ["192.0.2.8"], "conditions": {"ready": False}}])
    o.put("Node", "node-1", labels={"topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": "z1",
                                    "topology.istio.io/subzone": "s1"}, spec={})
    every_workload(o)
    outside(o)
    waypoint(o, service)


def every_workload(o):
    """What names a workload: its controller, labels, its state."""
    def pod(name, owner=None, status=None, spec=None, **kw):
        o.pod(name, "default", f"sa-{name}", "node-1", [f"10.71.1.{100 + len(o.objects) % 100}"], **kw)
        made = o.objects["Pod", "default", name]
        if owner:
            kind, controller, version = owner
            made["metadata"]["ownerReferences"] = [
                {"apiVersion": version, "kind": kind, "name": controller, "uid": "1", "controller": True}]
        made["status"].update(status or {})
        made["spec"].update(spec or {})

    pod("web-5d4f8c7b9d-x7k2p", ("ReplicaSet", "web-5d4f8c7b9d", "apps/v1"), labels={"pod-template-hash": "5d4f8c7b9d"})
    pod("data-0", ("StatefulSet", "data", "apps/v1"))
    pod("nightly-28000000-abcde", ("Job", "nightly-28000000", "batch/v1"))
    pod("canonical", labels={"service.istio.io/canonical-name": "shop", "service.istio.io/canonical-revision": "v7"})
    pod("versioned", labels={"app.kubernetes.io/name": "cart", "app.kubernetes.io/version": "v2"})
    pod("unready", status={"conditions": [{"type": "Ready", "status": "False"}]}, labels={"serves": "web"})
    pod("pending", status={"phase": "Pending"})
    pod("done", status={"phase": "Succeeded"})
    pod("of-the-host", spec={"hostNetwork": True})
    pod("with-sidecar", labels={"security.istio.io/tlsMode": "istio"}, annotations={"sidecar.istio.io/status": "{}"})
    pod("tunnels-itself", labels={"networking.istio.io/tunnel": "http"})
    pod("far", labels={"topology.istio.io/network": "elsewhere"})
    pod("ports", labels={"serves": "web"}, spec={"containers": [
        {"name": "app", "image": "app", "ports": [{"name": "http", "containerPort": 8088}]}]})


def outside(o):
    """ServiceEntries and WorkloadEntries."""
    port = [{"number": 443, "name": "tls", "protocol": "TLS", "targetPort": 8443}]
    def entry(name, **spec):
        o.put("ServiceEntry", name, "default", "networking.istio.io/v1", spec={"ports": port, **spec})

    entry("static", hosts=["outside.example.com"], addresses=["203.0.113.1", "2001:db8::1"], resolution="STATIC",
          location="MESH_EXTERNAL", endpoints=[{"address": "192.0.2.20", "labels": {"app": "far"}, "weight": 3},
                                               {"address": "2001:db8::20", "ports": {"tls": 9443}}])
    entry("range", hosts=["range.example.com"], addresses=["203.0.113.128/25"], resolution="NONE")
    entry("by-name", hosts=["name.example.com"], resolution="DNS", subjectAltNames=["spiffe://other.domain/ns/a/sa/b"],
          endpoints=[{"address": "backend.example.com"}])
    entry("wild", hosts=["*.wild.example.com"], resolution="DYNAMIC_DNS")
    entry("selects", hosts=["selected.example.com"], addresses=["203.0.113.2"], resolution="STATIC",
          location="MESH_INTERNAL", workloadSelector={"labels": {"vm": "yes"}})
    o.put("WorkloadEntry", "vm-1", "default", "networking.istio.io/v1",
          spec={"address": "192.0.2.30", "labels": {"vm": "yes"}, "serviceAccount": "vm", "network": "",
                "locality": "r2/z2/s2", "weight": 5})
    o.put("WorkloadEntry", "vm-2", "default", "networking.istio.io/v1",
          annotations=REDIRECTED,
          spec={"address": "192.0.2.31", "labels": {"vm": "yes"}, "ports": {"tls": 1443}})


def waypoint(o, service):
    """One for a namespace's services, one for a workload."""
    o.put("Namespace", "shop", labels={**AMBIENT, "istio.io/use-waypoint": "waypoint"})
    for name, traffic_type in ("waypoint", "service"), ("for-pods", "workload"):
        o.put("Gateway", name, "shop", "gateway.networking.k8s.io/v1", labels={"istio.io/waypoint-for": traffic_type},
              spec={"gatewayClassName": "istio-waypoint",
                    "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
              status={"addresses": [{"type": "Hostname", "value": f"{name}.shop.svc.cluster.local"}]})
        service(name, f"10.72.1.{len(name)}", namespace="shop", ports=[{"name": "hbone", "port": 15008}],
                labels={"gateway.networking.k8s.io/gateway-name": name,
                        "gateway.istio.io/managed": "istio.io-mesh-controller"},
                selector={"gateway.networking.k8s.io/gateway-name": name})
        o.pod(f"{name}-1", "shop", name, "node-2", [f"10.71.2.{200 + len(name)}"],
              labels={"gateway.networking.k8s.io/gateway-name": name})
    service("web", "10.72.1.1", namespace="shop", selector={"app": "web"})
    service("opted-out", "10.72.1.2", namespace="shop", labels={"istio.io/use-waypoint": "none"})
    o.pod("web", "shop", "web", "node-2", ["10.71.2.150"], {"istio.io/use-waypoint": "for-pods"},
          REDIRECTED)


def source(**kw):
    return [{"from": [{"source": kw}]}]


def operation(**kw):
    return [{"to": [{"operation": kw}]}]


def when(key, **kw):
    return [{"when": [{"key": key, **kw}]}]


# name: (rules, what else the policy has)
POLICIES = [
    ("principals", {"rules": source(principals=["cluster.local/ns/a/sa/b", "*", "cluster.local/*", "*/sa/b"])}),
    ("not-principals", {"rules": source(notPrincipals=["cluster.local/ns/a/sa/b"], notNamespaces=["bad", "worse*"])}),
    ("namespaces", {"rules": source(namespaces=["default", "*-system"])}),
    ("service-accounts", {"rules": source(serviceAccounts=["a/b", "c"])}),
    ("not-service-accounts", {"rules": source(notServiceAccounts=["d/e"])}),
    ("addresses", {"rules": source(ipBlocks=["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"],
                                   notIpBlocks=["10.1.0.0/16"])}),
    ("ports", {"rules": operation(ports=["80", "8080"], notPorts=["443"])}),
    ("when-ip", {"rules": when("source.ip", values=["10.0.0.0/8"], notValues=["10.2.0.0/16"])}),
    ("when-destination", {"rules": when("destination.ip", values=["10.71.2.0/24"])
                          + when("destination.port", values=["8080"], notValues=["22"])}),
    ("when-principal", {"rules": when("source.principal", values=["cluster.local/ns/a/sa/b"])
                        + when("source.namespace", notValues=["x"])}),
    ("http-allow", {"rules": operation(methods=["GET"], paths=["/a*"])}),
    ("http-deny", {"action": "DENY", "rules": operation(hosts=["example.com"])}),
    ("nothing", {}),
    ("everything", {"rules": [{}]}),
    ("deny-all-of-one", {"action": "DENY", "rules": [{}], "selector": {"matchLabels": {"app": "b2"}}}),
    ("several", {"rules": source(principals=["cluster.local/ns/a/sa/b"]) + operation(ports=["80"]) + [
        {"from": [{"source": {"namespaces": ["a"]}}, {"source": {"namespaces": ["b"]}}],
         "to": [{"operation": {"ports": ["1"]}}, {"operation": {"ports": ["2"]}}],
         "when": [{"key": "source.ip", "values": ["10.0.0.0/8"]}]}]}),
]


def every_policy(o):
    for name, spec in POLICIES:
        o.put("AuthorizationPolicy", name, "default", "security.istio.io/v1", spec={"action": "ALLOW", **spec})
    o.put("AuthorizationPolicy", "tried", "default", "security.istio.io/v1", annotations={"istio.io/dry-run": "true"},
          spec={"rules": source(namespaces=["a"])})
    o.put("AuthorizationPolicy", "root", SYSTEM, "security.istio.io/v1", spec={"rules": source(namespaces=["default"])})
    o.mutual_tls("STRICT")
    for name, app, mode, port in ("strict-but", "b2", "STRICT", {"8081": {"mode": "PERMISSIVE"}}), \
                                 ("only", "b1", "PERMISSIVE", {"8082": {"mode": "STRICT"}}):
        o.put("PeerAuthentication", name, "default", "security.istio.io/v1", spec={
            "selector": {"matchLabels": {"app": app}}, "mtls": {"mode": mode}, "portLevelMtls": port})
