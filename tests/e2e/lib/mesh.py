# SPDX-License-Identifier: Apache-2.0
"""The mesh as a LOCAL_XDS_PATH file: workloads of a network's pods, services, policies."""
import json
import os


class Exact(str):
    tag = "Exact"


class Prefix(str):
    tag = "Prefix"


class Suffix(str):
    tag = "Suffix"


class Presence(list):
    tag = "Presence"


def text(value, indent=0):
    """YAML; string matchers as tags, everything scalar as JSON."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"\n{pad}{json.dumps(k)}:{text(v, indent + 1)}" for k, v in value.items())
    if isinstance(value, list) and value:
        return "".join(f"\n{pad}-{text(v, indent + 1)}" for v in value)
    if hasattr(value, "tag"):
        return f" !{value.tag} {json.dumps(value)}"
    return " " + json.dumps(value)


class Mesh:
    """Written whole to each path that was asked for; change a list, then save()."""

    def __init__(self, pods):
        self.workloads = [workload(p) for p in pods]
        self.services, self.policies, self.paths = [], [], []

    def workload(self, name):
        return next(w for w in self.workloads if w["name"] == name)

    def service(self, name, vips, ports, pods, **more):
        """ports: {service port: target port}."""
        hostname = f"{name}.default.svc.cluster.local"
        for pod in pods:
            self.workload(pod)["services"][f"default/{hostname}"] = dict(ports)
        self.services.append({"name": name, "namespace": "default", "hostname": hostname,
                              "vips": [f"/{v}" for v in vips], "ports": dict(ports), **more})
        return hostname

    def policy(self, name, action, rules, pods=None, dry_run=False):
        """For the named pods, or for the whole namespace. rules: [[[match]]]."""
        scope = "WorkloadSelector" if pods else "Namespace"
        self.policies.append({"name": name, "namespace": "default", "scope": scope, "action": action, "rules": rules,
                              "dryRun": dry_run})
        for pod in pods or ():
            self.workload(pod).setdefault("authorizationPolicies", []).append(f"default/{name}")

    def clear_policies(self):
        self.policies = []
        for w in self.workloads:
            w.pop("authorizationPolicies", None)

    def text(self):
        return text({"workloads": self.workloads, "services": self.services,
                     "policies": self.policies}).lstrip("\n") + "\n"

    def save(self, path=None):
        if path and path not in self.paths:
            self.paths.append(path)
        for p in self.paths:
            with open(p + ".new", "w") as f:
                f.write(self.text())
            os.rename(p + ".new", p)


def workload(pod):
    return {"uid": f"Kubernetes//Pod/{pod.namespace}/{pod.name}", "name": pod.name, "namespace": pod.namespace,
            "trustDomain": "cluster.local", "serviceAccount": pod.sa, "workloadIps": [pod.ip4, pod.ip6],
            "protocol": "HBONE" if pod.mesh else "TCP", "node": pod.node.name, "network": "", "status": "Healthy",
            "workloadName": pod.name, "workloadType": "deployment", "canonicalName": pod.name,
            "canonicalRevision": "v1", "clusterId": "Kubernetes", "services": {}}
