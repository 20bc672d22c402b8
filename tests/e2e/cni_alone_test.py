#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The CNI plugin without the keeper, and with Istio's node agent in its place: who starts and who does not, by what the
API server says. No namespace is steered here: nobody is there to do it."""
import contextlib
import json
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from kube_api import KubeApi, status_object
from lib import agents, cni
from lib.cni import Sandbox
from lib.net import Network, Unwound, folder
from lib.pki import Ca
from lib.rows import Skip, Table, check, equal

T = Table(__file__)
MODE, AGAIN = "istio.io/dataplane-mode", 11
PREFIX = "cmdAdd failed to contact node Istio CNI agent"
SELECTORS = [{"podSelector": {"matchLabels": {MODE: "ambient"}}},
             {"podSelector": {"matchExpressions": [{"key": MODE, "operator": "NotIn", "values": ["none"]}]},
              "namespaceSelector": {"matchLabels": {MODE: "ambient"}}}]


class Alone(Unwound):
    """An API server on the node's 127.0.0.1, by TLS, and a run directory as Istio's installer leaves it."""

    def _begin(self):
        agents.need_culvert()
        if os.geteuid():
            raise Skip("needs root for network namespaces")
        self.net = self.stack.enter_context(Network())
        self.node, self.pod = self.net.nodes[0], self.net.pods["a1"]
        self.folder = self.stack.enter_context(folder("e2e-cni"))
        ca = Ca(self.folder, "kube")
        self.api = self.stack.enter_context(KubeApi(self.node.listen(6443, "127.0.0.1"), tokens={"good"},
                                                    tls=ca.leaf("IP:127.0.0.1")))
        self.kubeconfig = f"{self.folder}/istio-cni-kubeconfig"
        self.api.kubeconfig(self.kubeconfig, token="good", ca=ca.cert)
        self.api.namespace("shop", {MODE: "ambient"})
        self.api.namespace("plain")

    def conf(self, **more):
        return {"cniVersion": "1.0.0", "name": "net", "type": "istio-cni", "cni_agent_run_dir": self.folder,
                "ambient_enabled": True, "enablement_selectors": SELECTORS, "pod_namespace": "istio-system", **more}

    def add(self, namespace="shop", name="web-0", uid="", **more):
        """(code, text, seconds)"""
        at, s = time.monotonic(), Sandbox(self.pod, "c1", namespace=namespace, name=name, uid=uid)
        code, text = cni.run("ADD", s, self.conf(**more), host=self.node)
        if code == 0:
            equal(text, s.previous("1.0.0"), "the result")
        return code, text, time.monotonic() - at


def row(name):
    return T.row(name, lambda: Alone())  # each its own


# namespace, labels, annotations, spec, in the mesh
PODS = [
    ("namespace-label", "shop", {}, {}, {}, True),
    ("pod-opted-out", "shop", {MODE: "none"}, {}, {}, False),
    ("pod-opted-in", "plain", {MODE: "ambient"}, {}, {}, True),
    ("no-label", "plain", {}, {}, {}, False),
    ("sidecar", "shop", {}, {"sidecar.istio.io/status": "{}"}, {}, False),
    ("host-network", "shop", {}, {}, {"hostNetwork": True}, False),
]
for name, ns, labels, annotations, spec, mesh in PODS:
    @row(f"{'mesh-pods-wait' if mesh else 'others-start'}/{name}")
    def by_labels(place, ns=ns, labels=labels, annotations=annotations, spec=spec, mesh=mesh):
        pod = place.api.pod(ns, "web-0", labels=labels, annotations=annotations, uid="uid-1")
        if spec:
            pod["spec"] |= spec
            place.api.put("pods", pod)
        code, text, took = place.add(ns, uid="uid-1")
        if mesh:
            check(code == AGAIN and text.startswith(PREFIX) and "cannot be told" not in text, f"{code}: {text}")
        else:
            equal(code, 0, text)
        check(took < 1.5, f"it took {took:.1f} s")


@row("without-selectors-istios-rule-holds")
def default_rule(place):
    place.api.pod("shop", "web-0")
    place.api.pod("plain", "web-0")
    equal(place.add("shop", enablement_selectors=None)[0], AGAIN, "in the mesh")
    equal(place.add("plain", enablement_selectors=None)[0], 0, "outside")


@row("a-pod-of-another-uid-is-not-taken-for-it")
def another(place):
    place.api.pod("plain", "web-0", uid="old")
    code, text, _ = place.add("plain", uid="new")
    check(code == AGAIN and "another pod of this name" in text, f"{code}: {text}")


@row("a-pod-that-comes-late-is-waited-for")
def late(place):
    timer = threading.Timer(1, lambda: place.api.pod("plain", "web-0"))
    timer.start()
    code, text, took = place.add("plain")
    timer.join()
    check(code == 0 and took > 0.9, f"{code} after {took:.1f} s: {text}")


@row("a-pod-that-never-comes")
def never(place):
    code, text, took = place.add("plain")
    check(code == AGAIN and "404" in text and 4 < took < 6, f"{code} after {took:.1f} s: {text}")


@row("a-refused-token-is-said-at-once")
def token(place):
    place.api.tokens = {"rotated"}
    place.api.pod("plain", "web-0")
    code, text, took = place.add("plain")
    check(code == AGAIN and "401" in text and took < 1.5, f"{code} after {took:.1f} s: {text}")


@row("a-server-that-fails-is-asked-again")
def failing(place):
    place.api.pod("plain", "web-0")
    answers = iter([(500, status_object(500, "x"), {}), (429, status_object(429, "x"), {})])
    place.api.hook = lambda *request: next(answers, None)
    equal(place.add("plain")[0], 0, "ADD")


@row("a-server-that-hangs-does-not-hold-it-up")
def hanging(place):
    place.api.pod("plain", "web-0")
    place.api.hook = lambda *request: time.sleep(20)
    code, text, took = place.add("plain")
    check(code == AGAIN and 4 < took < 6.5, f"{code} after {took:.1f} s: {text}")


@row("a-server-that-is-away")
def away(place):
    place.api.kubeconfig(place.kubeconfig, token="good")
    with open(place.kubeconfig) as f:
        text = f.read()
    with open(place.kubeconfig, "w") as f:
        f.write(text.replace(":6443", ":6444"))
    code, text, took = place.add("plain")
    check(code == AGAIN and "refused" in text and took < 6.5, f"{code} after {took:.1f} s: {text}")


@row("a-server-with-the-wrong-certificate")
def wrong_certificate(place):
    place.api.pod("plain", "web-0")
    place.api.kubeconfig(place.kubeconfig, token="good", ca=Ca(place.folder, "other").cert)
    code, text, took = place.add("plain")
    check(code == AGAIN and "certificate" in text and took < 1.5, f"{code} after {took:.1f} s: {text}")


@row("without-a-kubeconfig-nobody-starts-who-may-be-in-the-mesh")
def no_kubeconfig(place):
    os.unlink(place.kubeconfig)
    place.api.pod("plain", "web-0")
    code, text, _ = place.add("plain")
    check(code == AGAIN and "istio-cni-kubeconfig" in text, f"{code}: {text}")
    equal(place.add("plain", exclude_namespaces=["plain"])[0], 0, "an excluded namespace")
    equal(place.add("istio-system", "istio-cni-node-x7k2p")[0], 0, "the keeper's own pod")


# --- Istio's node agent in the keeper's place ---------------------------------------------------------------------


class IstiosAgent:
    """Answers as Istio's does: 200, or 500 whatever the reason."""

    def __init__(self, path, good):
        self.good, self.asked = good, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.listener.accept()
                with s:
                    raw = b""
                    while b"\r\n\r\n" not in raw or raw.rstrip()[-1:] not in b"}]":
                        raw += s.recv(65536)
                    self.asked.append(raw)
                    path = raw.split(b" ")[1].decode()
                    status = b"404 Not Found" if path != "/cmdadd" else b"200 OK" if self.good else b"500 Internal Server Error"
                    body = b"" if self.good else b"pod is not eligible\n"
                    s.sendall(b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@row("istios-agent-is-asked-as-well")
def istios_agent(place):
    with contextlib.closing(IstiosAgent(f"{place.folder}/pluginevent.sock", True)) as agent:
        equal(place.add()[0], 0, "ADD")
        check(b"POST /cmdadd HTTP/1.0" in agent.asked[0] and b'"PodName":"web-0"' in agent.asked[0], agent.asked[0])
        equal(place.api.seen, [], "what the API server was asked")
        s = Sandbox(place.pod, "c1", namespace="shop")
        for command in "CHECK", "DEL":
            equal(cni.run(command, s, place.conf()), (0, ""), command)


@row("istios-agent-refuses-pods-outside-the-mesh-and-they-start")
def istios_agent_refuses(place):
    place.api.pod("plain", "web-0")
    place.api.pod("shop", "web-0")
    with contextlib.closing(IstiosAgent(f"{place.folder}/pluginevent.sock", False)):
        equal(place.add("plain")[0], 0, "outside")
        code, text, _ = place.add("shop")
        check(code == AGAIN and text.startswith(PREFIX) and "500: pod is not eligible" in text, f"{code}: {text}")


@row("the-log-socket-hears-of-failures")
def log_socket(place):
    with contextlib.closing(IstiosAgent(f"{place.folder}/log.sock", True)) as log:
        place.api.tokens = {"rotated"}
        code, text, _ = place.add("plain")
        equal(code, AGAIN, text)
        head, _, body = log.asked[0].partition(b"\r\n\r\n")
        line = json.loads(json.loads(body)[0])
        check(head.startswith(b"POST /log ") and line["level"] == "error" and line["msg"] == text and line["time"], line)


if __name__ == "__main__":
    T.main()
