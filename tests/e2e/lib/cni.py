# SPDX-License-Identifier: Apache-2.0
"""Running the CNI plugin as a container runtime does, and a keeper for it with a tunnel that answers by itself."""
import contextlib
import json
import os
import subprocess
import threading

from keeper_test import ADD, DEL, FakeTunnel, Place

from . import agents
from .net import sh

PLUGIN = f"{agents.BUILD}/libexec/culvert/culvert-cni"
OUTSIDE = "outside"  # a namespace that is not in the mesh


class WillingTunnel(FakeTunnel):
    """Does what it is told, in a thread; `told` are (kind, uid)."""

    def __init__(self, path):
        super().__init__(path)
        self.told = []
        self.snapshot()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        try:
            while True:
                kind, uid = self.next(timeout=None)
                if kind == DEL:
                    self.forget(uid)
                self.told.append((kind, uid))
        except (OSError, ValueError):
            pass

    def added(self):
        return [uid for kind, uid in self.told if kind == ADD]

    def close(self):
        try:
            self.socket.shutdown(2)
        except OSError:
            pass
        self.thread.join(10)
        super().close()


class CniPlace(Place):
    """A keeper that takes every pod into the mesh but those of OUTSIDE."""

    def start(self):
        self.env |= {"CULVERT_CNI_PODS": "all", "EXCLUDE_NAMESPACES": f"kube-system, {OUTSIDE}"}
        super().start()

    def willing(self):
        t = WillingTunnel(f"{self.run}/zds.sock")
        self.tunnels.append(t)
        return t

    def conf(self, **more):
        return {"cniVersion": "1.1.0", "name": "net", "type": "culvert-cni", "cni_socket": f"{self.run}/cni.sock", **more}


class NoKeeper:
    """A pod's name, and nothing of it."""

    class pod:
        ns, name, uid, ip4 = "nowhere", "a1", "uid-1", "10.71.1.2"

    def __enter__(self):
        agents.need_culvert()
        return self

    def __exit__(self, *exc):
        pass


class Sandbox:
    """What a runtime knows of a pod's sandbox."""

    def __init__(self, pod, container, namespace="default", uid=None, name=None):
        self.netns, self.container, self.namespace = f"/run/netns/{pod.ns}", container, namespace
        self.name, self.uid = name or pod.name, uid if uid is not None else pod.uid
        self.ip = pod.ip4

    def previous(self, version="1.1.0"):
        """The result of the plugin before ours, with what no program of ours would write."""
        return ('{  "dns":{}, "interfaces":[{"name":"eth0","sandbox":"%s"}],"cniVersion" : "%s",\n'
                '"ips":[ {"interface":0,"address":"%s/24","gateway":"10.71.1.1"}], "of-others": 1e2, '
                '"big":123456789012345678901234567890}' % (self.netns, version, self.ip))


def begin(command, sandbox, conf, env=(), stdin=None, host=None, program=PLUGIN):
    """The plugin, or `program`, started; in `host`'s network, if that is given. `conf`: a dictionary, or None for `stdin` as it is."""
    text = stdin if conf is None else json.dumps(conf)
    if conf is not None and command == "ADD" and "prevResult" not in conf:
        text = text[:-1] + f', "prevResult": {sandbox.previous(conf["cniVersion"])}}}'
    variables = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
    variables |= {k: os.environ[k] for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if k in os.environ}
    if sandbox:
        variables |= {"CNI_CONTAINERID": sandbox.container, "CNI_NETNS": sandbox.netns, "CNI_IFNAME": "eth0",
                      "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={sandbox.namespace};K8S_POD_NAME={sandbox.name};"
                                  f"K8S_POD_INFRA_CONTAINER_ID={sandbox.container};K8S_POD_UID={sandbox.uid}"}
    variables |= dict(env)
    p = (host.popen if host else subprocess.Popen)(
        [program], env={k: v for k, v in variables.items() if v is not None}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with contextlib.suppress(BrokenPipeError):
        p.stdin.write(text.encode() if isinstance(text, str) else text)
        p.stdin.close()
    p.stdin = None
    return p


def end(p, within=30):
    """(code, output): code 0, or the one of the error object; the output, or the object's text."""
    out, err = p.communicate(timeout=within)
    p.said = err.decode(errors="replace")
    if p.returncode == 0:
        return 0, out.decode()
    try:
        o = json.loads(out)
        return o["code"], o["msg"]
    except ValueError:
        raise AssertionError(f"exit status {p.returncode}, {out!r} {err!r}") from None


def run(command, sandbox, conf, **kw):
    return end(begin(command, sandbox, conf, **kw))


class Bare:
    """A network namespace with devices that lead nowhere, for when many are needed."""

    def __init__(self, name, number):
        self.ns, self.name, self.number = f"{name}-{number}", f"bare-{number}", number
        self.ip4 = f"10.99.{number // 250}.{number % 250 + 1}"
        self.uid = f"{os.getpid():08x}-0000-4000-9000-{number:012x}"
        sh("ip", "netns", "add", self.ns)
        sh("ip", "-n", self.ns, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        sh("ip", "-n", self.ns, "addr", "add", f"{self.ip4}/24", "dev", "eth0")
        sh("ip", "-n", self.ns, "link", "set", "eth0", "up")

    def run(self, *argv, ok=True):
        return sh("ip", "netns", "exec", self.ns, *argv, ok=ok)

    def close(self):
        sh("ip", "netns", "del", self.ns, ok=False)
