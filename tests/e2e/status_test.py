#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the operator's tool says when something is wrong: the first lines of `culvertctl status`, pods that the mesh does not
know, and processes that do not answer."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import traffic
from lib.agents import CULVERTCTL
from lib.bed import fixture
from lib.rows import Table, check, equal, until

T = Table(__file__)


def row(name, **kw):
    return T.row(name, lambda: fixture("culvert", None, pods=(), **kw)())


def ctl(agent, *argv):
    """(status, output)"""
    r = subprocess.run([CULVERTCTL, *argv], env=agent.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       timeout=40)
    return r.returncode, r.stdout.strip()


def well(agent):
    status, text = ctl(agent, "status")
    equal((status, text.splitlines()[0]), (0, "healthy"), "culvertctl status")
    o = json.loads(ctl(agent, "status", "--json")[1])
    equal((o["healthy"], o["problems"]), (True, []), "culvertctl status --json")
    return True


def unwell(agent, *want):
    status, text = ctl(agent, "status")
    equal(status, 1, "exit status")
    first = text.splitlines()[0]
    check(first.startswith("NOT healthy: ") and all(w in first for w in want), first)
    o = json.loads(ctl(agent, "status", "--json")[1])
    check(not o["healthy"] and want[0] in o["problems"][0]["what"] and o["problems"][0]["do"], o["problems"])
    return True


@row("healthy-and-brief")
def _(bed):
    agent, = bed.agents
    agent.enrol(bed.a1)
    until(lambda: well(agent), "it to be well")
    equal(ctl(agent, "status")[1].count("kTLS"), 1, "lines about kTLS")
    check(ctl(agent, "status", "-v")[1].count("kTLS") > 3, "-v says no more")


@row("a-tunnel-that-does-not-answer")
def _(bed):
    agent, = bed.agents
    until(lambda: well(agent), "it to be well")
    pid = agent.tunnel_pid()
    os.kill(pid, signal.SIGSTOP)
    for what in ("status", "workloads", "connections", "pods"):
        at = time.monotonic()
        status, text = ctl(agent, what)
        check(time.monotonic() - at < 5, f"{what}: it took {time.monotonic() - at:.1f} s")
        if what != "pods":
            check(status == 1 and "the tunnel does not answer" in text and "`culvertctl upgrade` replaces it" in text,
                  f"{what}: {status}: {text}")
    unwell(agent, "the tunnel does not answer", "`culvertctl upgrade` replaces it")
    equal(ctl(agent, "upgrade")[0], 0, "culvertctl upgrade")
    os.kill(pid, signal.SIGCONT)
    until(lambda: well(agent), "it to be well")


@row("a-keeper-that-does-not-answer")
def _(bed):
    agent, = bed.agents
    pid, = agent.processes("keeper")
    os.kill(pid, signal.SIGSTOP)
    try:
        at = time.monotonic()
        status, text = ctl(agent, "status")
        took = time.monotonic() - at
    finally:
        os.kill(pid, signal.SIGCONT)
    check(status == 1 and "the keeper does not answer" in text and "systemctl restart culvertd" in text, f"{status}: {text}")
    check(took < 5, f"it took {took:.1f} s")


@row("a-pod-that-the-mesh-does-not-know")
def _(bed):
    agent, = bed.agents
    ns = f"/run/netns/{bed.a1.ns}"
    equal(ctl(agent, "enrol", ns, "default/a1/a1-acount"), (0, ""), "culvertctl enrol")
    said = until(lambda: [x["message"] for x in agent.lines() if "the mesh has no workload" in x["message"]], "a warning")
    check("default/a1" in said[0] and "a1-acount" in said[0] and bed.folder in said[0], said)
    unwell(agent, "the mesh does not know 1 pods, the first is default/a1/a1-acount", "service account")
    check("default/a1: the mesh has no workload of this name with service account a1-acount" in ctl(agent, "pods")[1], "pods")
    equal([p["inMesh"] for p in json.loads(ctl(agent, "pods", "--json")[1])["pods"]], [False], "inMesh")
    listener = bed.b1.listen(8080)
    with listener:
        try:
            bed.a1.connect(bed.b1.ip4, 8080).recv(1)
        except OSError:
            pass
    errors = until(lambda: [x["error"] for x in agent.access() if "error" in x], "the access log")
    check("default/a1" in errors[0] and "a1-acount" in errors[0], errors)
    equal(ctl(agent, "unenrol", "default/other")[0], 1, "un-enrolment of another")
    check("give its netns or UID" in ctl(agent, "unenrol", "default/other")[1], "what to give")
    equal(ctl(agent, "unenrol", "default/a1"), (0, ""), "culvertctl unenrol NAMESPACE/NAME")
    agent.enrol(bed.a1)
    until(lambda: well(agent), "it to be well")


class EarlierTunnel:
    """In the tunnel's place at its socket: one that knows no brief dump and does not say which pods the mesh knows."""

    def __init__(self, agent):
        self.path, self.asked = f"{agent.run_dir}/tunnel.sock", []
        dump = agent.config_dump()
        for state in dump["workloadState"].values():
            del state["inMesh"]
        self.body = json.dumps(dump).encode()

    def __enter__(self):
        os.rename(self.path, self.path + ".away")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.task = traffic.Task(self.serve)
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.task.join(10)
        os.rename(self.path + ".away", self.path)

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.listener.accept()
                with s:
                    self.asked.append(s.recv(4096).split(b" ")[1].decode())
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.body) + self.body)


@row("what-the-tunnel-is-asked")
def _(bed):
    """Of the mesh nothing but what is shown; an earlier tunnel, which tells all of it, says nothing of strangers."""
    agent, = bed.agents
    agent.enrol(bed.a1)
    until(lambda: well(agent), "it to be well")
    mesh = re.search("^mesh .* policies,", ctl(agent, "status")[1], re.M)[0]
    check(mesh.split()[1] != "0", mesh)
    brief = json.loads(agent.http(15000, "/config_dump?mesh=counts")[1])
    equal((brief["mesh"]["workloads"], "workloads" in brief), (int(mesh.split()[1]), False), "what is told of the mesh")
    equal([p["inMesh"] for p in json.loads(ctl(agent, "pods", "--json")[1])["pods"]], [True], "inMesh")
    with EarlierTunnel(agent) as earlier:
        well(agent)
        check(mesh in ctl(agent, "status")[1], "the mesh's line")
        check("inMesh" not in json.loads(ctl(agent, "pods", "--json")[1])["pods"][0], "what is said of its pod")
        for command in "connections", "certificates", "doctor":
            ctl(agent, command)
        check("default" in ctl(agent, "workloads")[1], "culvertctl workloads")
    equal(earlier.asked, ["/config_dump?mesh=counts"] * 7 + ["/config_dump"], "what it was asked")


@row("a-mesh-file-that-is-broken")
def _(bed):
    agent, = bed.agents
    path = f"{bed.folder}/mesh.yaml"
    until(lambda: well(agent), "it to be well")
    with open(path) as f:
        good = f.read()
    with open(path, "w") as f:
        f.write("workloads: [{uid: x, colour: red}]\n")
    until(lambda: unwell(agent, "mesh.yaml", "colour"), "it to be seen")
    os.unlink(path)
    until(lambda: unwell(agent, "mesh.yaml", "cannot be read"), "it to be missed")
    with open(path, "w") as f:
        f.write(good)
    until(lambda: well(agent), "it to be well")


@row("a-failed-upgrade-is-over-after-a-good-start")
def _(bed):
    agent, = bed.agents
    until(lambda: well(agent), "it to be well")
    old = agent.tunnel_pid()
    with open(f"{bed.folder}/mesh.yaml") as f:
        good = f.read()
    with open(f"{bed.folder}/mesh.yaml", "w") as f:
        f.write("colour: red\n")  # a successor does not come up with it
    equal(ctl(agent, "upgrade")[0], 1, "culvertctl upgrade")
    check("FAILED" in ctl(agent, "status")[1], "status does not show it")
    with open(f"{bed.folder}/mesh.yaml", "w") as f:
        f.write(good)
    os.kill(old, signal.SIGKILL)
    until(lambda: agent.processes("tunnel") not in ([], [old]) and well(agent), "it to be well")


@row("log-goes-back-and-knows-its-targets")
def _(bed):
    agent, = bed.agents
    start = ctl(agent, "log")
    equal(ctl(agent, "log", "steer=trace,debug")[0], 0, "culvertctl log")
    equal(ctl(agent, "log", "info")[1].count("steer=trace"), 2, "a level alone leaves targets")
    equal(ctl(agent, "log", "--reset"), start, "culvertctl log --reset")
    equal(ctl(agent, "log"), start, "culvertctl log")
    status, text = ctl(agent, "log", "stear=trace")
    check(status == 1 and '"stear" is no target; there are: access ca certs' in text, f"{status}: {text}")


TARGET = re.compile(r'''(?<![a-z_])(?:target|policy_target)\[\] = "([a-z_0-9]+)|define TARGET +"([a-z]+)|_LOG +"([a-z]+)'''
                    r'''|log_(?:error|warn|info|debug)\(\s*"([a-z]+)|log_begin\(&?l[a-z]*, [A-Za-z_]+, "([a-z]+)''')


@T.row("log-help-has-every-target")
def _():
    used = set()
    for folder, _, files in os.walk(os.path.join(os.path.dirname(__file__), "..", "..", "userspace")):
        for name in files:
            with open(os.path.join(folder, name)) as f:
                used |= {x for found in TARGET.findall(f.read()) for x in found if x}
    r = subprocess.run([CULVERTCTL, "log", "--help"], capture_output=True, text=True)
    named = r.stdout.split("TARGET is one of")[1].strip().rstrip(".").split()
    equal(named, sorted(used), "targets")


if __name__ == "__main__":
    T.main()
