# SPDX-License-Identifier: Apache-2.0
"""The real istiod (main.go beside this) in a namespace of a test, and the Kubernetes objects that it reads."""
import json
import os
import select
import subprocess

from lib.agents import BUILD
from lib.net import scale, stop
from lib.rows import Skip, check

PROGRAM = f"{BUILD}/istiod/istiod"
START_DEADLINE, APPLY_DEADLINE = 60, 20
SYSTEM, REDIRECTED = "istio-system", {"ambient.istio.io/redirection": "enabled"}


class Objects:
    """Kubernetes objects by kind, namespace and name, and the file that they are written to."""

    def __init__(self, path):
        self.path, self.objects = path, {}

    def put(self, kind, name, namespace="", version="v1", labels=None, annotations=None, **body):
        """body: spec=, status=, or whatever else the kind has."""
        meta = {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
        if namespace:
            meta["namespace"] = namespace
        self.objects[kind, namespace, name] = {"apiVersion": version, "kind": kind, "metadata": meta, **body}

    def remove(self, kind, name, namespace=""):
        del self.objects[kind, namespace, name]

    def write(self):
        with open(f"{self.path}.new", "w") as f:
            f.write("\n---\n".join(json.dumps(x) for x in self.objects.values()) + "\n")
        os.rename(f"{self.path}.new", self.path)

    def cluster(self, nodes):
        """Namespaces and nodes."""
        self.put("Namespace", "default", labels={"istio.io/dataplane-mode": "ambient"})
        self.put("Namespace", SYSTEM)
        for node in nodes:
            self.node(node)

    # --- what a mesh has -------------------------------------------------------------------------------------------

    def node(self, node):
        """With the ztunnel that runs on it, whose name is the node's token."""
        self.put("Node", node.name, labels={"kubernetes.io/hostname": node.name}, spec={})
        self.pod(f"ztunnel-{node.name}", SYSTEM, "ztunnel", node.name, [node.wan4])

    def pod(self, name, namespace, sa, node, ips, labels=None, annotations=None):
        self.put("Pod", name, namespace, labels={"app": name, **(labels or {})}, annotations=annotations,
                 spec={"nodeName": node, "serviceAccountName": sa, "containers": [{"name": "app", "image": "app"}]},
                 status={"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": x} for x in ips],
                         "conditions": [{"type": "Ready", "status": "True"}]})

    def mesh_pod(self, pod, **labels):
        """A pod of the test's network; in the mesh if it is there."""
        self.pod(pod.name, pod.namespace, pod.sa, pod.node.name, [pod.ip4, pod.ip6], labels,
                 REDIRECTED if pod.mesh else None)

    def service(self, name, vips, ports, selector, namespace="default", labels=None):
        """ports: {service port: target port}."""
        self.put("Service", name, namespace, labels=labels, spec={
            "clusterIP": vips[0], "clusterIPs": list(vips), "selector": selector, "type": "ClusterIP",
            "ports": [{"name": f"tcp-{p}", "port": p, "targetPort": t, "protocol": "TCP"} for p, t in ports.items()]})

    def policy(self, name, action, rules, selector=None, namespace="default"):
        """An AuthorizationPolicy; rules as in its own API."""
        self.put("AuthorizationPolicy", name, namespace, "security.istio.io/v1", spec={
            "action": action, "rules": rules, **({"selector": {"matchLabels": selector}} if selector else {})})

    def mutual_tls(self, mode, namespace="default"):
        self.put("PeerAuthentication", "default", namespace, "security.istio.io/v1", spec={"mtls": {"mode": mode}})


class Istiod:
    """The process, on `host`'s address `ip`. Its CA is the test's, so that another istiod signs alike."""

    def __init__(self, host, ip, folder, ca):
        if not os.access(PROGRAM, os.X_OK):
            raise Skip("istiod is not built: make check-istiod")
        self.host, self.listen, self.process = host, f"{ip}:15012", None
        self.address, self.root = f"https://{self.listen}", ca.cert
        self.log_path, self.ca_folder = f"{folder}/istiod.log", f"{folder}/istiod-ca"
        self.objects = Objects(f"{folder}/objects.yaml")
        os.mkdir(self.ca_folder)
        for name, path in (("root-cert", ca.cert), ("cert-chain", ca.cert), ("ca-cert", ca.cert), ("ca-key", ca.key)):
            os.symlink(path, f"{self.ca_folder}/{name}.pem")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def start(self):
        self.objects.write()
        env = {"PATH": os.environ["PATH"], "HOME": self.ca_folder}
        with open(self.log_path, "ab") as log:
            self.process = self.host.popen([PROGRAM, "-listen", self.listen, "-ca", self.ca_folder, self.objects.path],
                                           env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            said = self.line(START_DEADLINE)
            check(said.startswith("ready "), f"istiod said {said!r}: {self.log()[-400:]}")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        if self.process:
            self.process.stdin.close()
            stop(self.process)
            self.process.stdout.close()
            self.process = None

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def line(self, deadline):
        """The next line that it says."""
        check(select.select([self.process.stdout], [], [], scale.deadline(deadline))[0],
              f"istiod said nothing in {deadline} s")
        return self.process.stdout.readline().decode().strip()

    def apply(self):
        """What has changed in `objects`, now, if it runs: "applied N added N changed N removed" or "refused: why"."""
        self.objects.write()
        if self.process:
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()
            return self.line(APPLY_DEADLINE)
        return ""

    def feed(self, agent):
        """It gets mesh and certificates from here. Its variables are those of the DaemonSet's pod; the token lies in a file,
        as a mounted one does."""
        name = f"ztunnel-{agent.node.name}"
        for other in ("LOCAL_XDS_PATH", "CULVERT_CA_CERT", "CULVERT_CA_KEY"):
            agent.env.pop(other, None)
        agent.env |= {"XDS_ADDRESS": self.address, "CA_ADDRESS": self.address, "XDS_ROOT_CA": self.root, "CA_ROOT_CA": self.root,
                      "AUTH_TOKEN": f"{agent.folder}/{name}.token", "POD_NAME": name, "POD_NAMESPACE": SYSTEM,
                      "SERVICE_ACCOUNT": "ztunnel", "INSTANCE_IP": agent.node.wan4}
        write_token(agent, name)


def write_token(agent, pod):
    """A token is the name of a pod."""
    with open(agent.env["AUTH_TOKEN"] + ".new", "w") as f:
        f.write(f"{SYSTEM}/{pod}")
    os.rename(agent.env["AUTH_TOKEN"] + ".new", agent.env["AUTH_TOKEN"])
