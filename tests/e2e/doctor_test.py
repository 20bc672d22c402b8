#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""culvertctl doctor on nodes that are well, and on nodes with one thing broken: it must find it, name it, and say what to do."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from install_test import BRIDGE, OTHER, InstallPlace
from kube_test import KubePlace
from lib import agents, traffic
from lib.bed import fixture, pair
from lib.net import folder, inside, sh, sysctl
from lib.rows import Table, check, equal, until
from xds_test import istiod

T = Table(__file__)
# What the machine under test may be like, and no row is about.
OF_THE_MACHINE = ["cannot be told apart by cgroup", "another data plane is on this node", "is older than what is tested", "bpf_jit_enable"]


def doctor(env, *argv, stdout=subprocess.PIPE):
    return subprocess.run([agents.CULVERTCTL, "doctor", *argv], env={"PATH": os.environ["PATH"], **env}, stdout=stdout,
                          stderr=subprocess.PIPE, text=True, timeout=60)


def examine(env):
    """The report; its shape and the exit status are what they must be."""
    r = doctor(env, "--json")
    report = json.loads(r.stdout)
    equal(r.returncode, 1 if report["problems"] else 0, "exit status")
    order = ["problem", "warning", "note", "ok"]
    levels = [order.index(f["level"]) for f in report["findings"]]
    equal(levels, sorted(levels), "levels, the worst first")
    for f in report["findings"]:
        equal(bool(f.get("advice")), f["level"] != "ok", f"an advice for: {f}")
    return report


def findings(report, level):
    return [f for f in report["findings"] if f["level"] == level
            and not any(x in f["finding"] for x in OF_THE_MACHINE)]


def finds(env, level, check_name, said, advice):
    """Exactly one finding of this level, and it is this one; what is worse is not there."""
    report = examine(env)
    got = [f for worse in ("problem", "warning") for f in findings(report, worse)]
    want = [f for f in report["findings"] if (f["level"], f["check"]) == (level, check_name) and re.search(said, f["finding"])]
    check(want, lambda: f"not found: {said}; there is {[f for f in report['findings'] if f['level'] != 'ok']}")
    check(re.search(advice, want[0]["advice"]), lambda: f"the advice: {want[0]}")
    check(level == "note" or got == want, lambda: f"beside it: {[f for f in got if f not in want]}")
    return report


BED = fixture("culvert", None, pods=("a1", "a2"))
IPTABLES = fixture("culvert-iptables", None, pods=("a1", "a2"))


def env_of(bed):
    return bed.agents[0].env


# --- nothing is wrong --------------------------------------------------------------------------------------------------


@T.each({"culvert": BED, "culvert-iptables": IPTABLES}, "a-node-that-is-well")
def well(bed):
    with pair(bed.a1, bed.a2) as (c, s):
        traffic.echo(c, s)
    report = examine(env_of(bed))
    equal(findings(report, "problem") + findings(report, "warning"), [], "problems and warnings")
    equal(report["notLookedAt"], [], "not looked at")
    ok = {f["check"] for f in report["findings"] if f["level"] == "ok"}
    check({"kernel", "rights", "steering", "tunnel", "pods", "certificates", "mesh"} <= ok, lambda: f"ok: {sorted(ok)}")


@T.row("for-people", BED)
def for_people(bed):
    """Lined up; colours on a terminal only."""
    text = doctor(env_of(bed)).stdout
    check(re.search(r"^ok       steering      ", text, re.M), text)
    check(re.search(r"^\d+ problems, \d+ warnings, \d+ notes$", text, re.M), text)
    check("\033" not in text, "colours without a terminal")
    main, terminal = os.openpty()
    try:
        doctor(env_of(bed), stdout=terminal)
        check(b"\033[32mok" in os.read(main, 1 << 16), "no colours on a terminal")
    finally:
        os.close(main)
        os.close(terminal)


@T.row("before-anything-is-installed")
def before():
    with folder("e2e-doctor") as run:
        report = finds({"CULVERT_RUN_DIR": run}, "note", "keeper", "Culvert does not run here", "start culvertd")
        equal((findings(report, "problem"), findings(report, "warning")), ([], []), "problems and warnings")
        check({"tunnel", "pods", "certificates"} <= set(report["notLookedAt"]), report["notLookedAt"])
        check("kernel" in {f["check"] for f in report["findings"] if f["level"] == "ok"}, "the kernel was not looked at")


@T.row("wrong-usage-and-help")
def usage():
    r = doctor({}, "everything")
    check(r.returncode == 2 and "usage: culvertctl doctor" in r.stderr, f"{r.returncode} {r.stderr}")
    r = doctor({}, "--help")
    check(r.returncode == 0 and "Exit status: 1" in r.stdout, f"{r.returncode} {r.stdout}")


# --- pods ---------------------------------------------------------------------------------------------------------------

RULE = ("fwmark", "0x111/0xfff", "lookup", "1337", "pref", "9")


def without_rule(bed):
    bed.a1.run("ip", "rule", "del", "pref", "9", ok=False)


def with_rule(bed):
    bed.a1.run("ip", "rule", "add", *RULE, ok=False)


def seen(env, break_it, *want):
    """The keeper may have put it back before it was looked at: then it is broken again."""

    def found():
        break_it()
        finds(env, *want)
        return True

    until(found, "it to be found")


def set_in(pod, path, value):
    with inside(pod.ns):
        sysctl(path, value)


def enrol_anew(bed):
    bed.agents[0].unenrol(bed.a1)
    bed.agents[0].enrol(bed.a1)


def forget(bed):
    bed.kept = bed.mesh.workload("a2")
    bed.mesh.workloads.remove(bed.kept)
    bed.mesh.save()
    known = lambda: {w["name"] for w in bed.agents[0].config_dump()["workloads"]}
    until(lambda: "a2" not in known(), "a2 to be forgotten")


def remember(bed):
    bed.mesh.workloads.append(bed.kept)
    bed.mesh.save()


UNDONE = [
    # row, breaks it, mends it, level, check, what is said, what to do
    ("a-policy-rule-is-removed", without_rule, with_rule, "problem", "steering",
     "default/a1 is not steered as a whole.*IPv4 policy rule", "in ten seconds: until then the keeper has put it back"),
    ("a-sysctl-of-a-pod-is-undone", lambda b: set_in(b.a1, "net/ipv4/conf/lo/accept_local", 0),
     lambda b: set_in(b.a1, "net/ipv4/conf/lo/accept_local", 1), "problem", "steering", "accept_local is off", "find out who did it"),
    ("a-short-backlog-in-a-pod", lambda b: set_in(b.a2, "net/core/somaxconn", 128), lambda b: set_in(b.a2, "net/core/somaxconn", 4096),
     "warning", "steering", r"net.core.somaxconn is 128 in 1 pod \(default/a2\)", "4096 or more"),
    ("client-ports-among-the-tunnel's", lambda b: set_in(b.a2, "net/ipv4/ip_local_port_range", "20000 40000"),
     lambda b: set_in(b.a2, "net/ipv4/ip_local_port_range", "32768 60999"), "note", "steering", "20000-40000 in 1 pod", "32768"),
    ("a-pod-that-the-mesh-does-not-know", forget, remember, "problem", "mesh", "default/a2 is steered, but the mesh does not know it",
     "LOCAL_XDS_PATH"),
    ("istio-cni's-rules-in-a-pod", lambda b: b.a2.run("iptables", "-t", "nat", "-N", "ISTIO_OUTPUT"),
     lambda b: b.a2.run("iptables", "-t", "nat", "-X", "ISTIO_OUTPUT"), "warning", "planes", "still in 1 pod.*default/a2", "restart"),
]


def undone(bed, break_it, mend, *want):
    try:
        if want[1] == "steering" and want[0] == "problem":
            seen(env_of(bed), lambda: break_it(bed), *want)
        else:
            break_it(bed)
            finds(env_of(bed), *want)
    finally:
        mend(bed)
    report = examine(env_of(bed))
    equal(findings(report, "problem") + findings(report, "warning"), [], "what is left when it is mended")


for name, *rest in UNDONE:
    T.row(name, BED, *rest)(undone)


@T.row("somebody-detached-a-program", BED)
def detached(bed):
    agent = bed.agents[0]
    (uid,) = [p["uid"] for p in agent.status("pods")["pods"] if p["name"] == "a1"]
    try:
        seen(agent.env, lambda: sh("bpftool", "link", "detach", "pinned", f"{agent.bpf_dir}/v1/{uid}/lookup"),
             "problem", "steering", "default/a1.*the lookup program is gone", "in ten seconds: until then")
    finally:
        enrol_anew(bed)


@T.row("iptables-rules-are-gone", IPTABLES)
def no_rules(bed):
    try:
        seen(env_of(bed), lambda: flush(bed), "problem", "steering", "default/a1.*the iptables rules are gone",
             "in a minute: until then the keeper has put it back")
    finally:
        enrol_anew(bed)


def flush(bed):
    bed.a1.run("iptables", "-t", "nat", "-F")
    for chain in "ISTIO_OUTPUT", "ISTIO_PRERT":
        for table in "nat", "mangle", "raw":
            bed.a1.run("iptables", "-t", table, "-F", ok=False)
            bed.a1.run("iptables", "-t", table, "-X", chain, ok=False)
            bed.a1.run("ip6tables", "-t", table, "-F", ok=False)
            bed.a1.run("ip6tables", "-t", table, "-X", chain, ok=False)


# --- processes -----------------------------------------------------------------------------------------------------------


@T.row("the-tunnel-was-killed", BED)
def tunnel_killed(bed):
    agent = bed.agents[0]
    restarts = agent.status()["tunnel"]["restarts"]
    os.kill(agent.tunnel_pid(), signal.SIGKILL)
    until(lambda: agent.status()["tunnel"]["restarts"] > restarts and agent.status()["tunnel"]["connected"], "another tunnel", 20)
    agent.wait_ready()
    finds(agent.env, "warning", "tunnel", "was started again, 1 times", "its last lines in the log")


@T.row("the-keeper-died", BED)
def keeper_killed(bed):
    """Its pods are still looked at, by its records: one of them has lost its steering."""
    agent = bed.agents[0]
    agent.signal(signal.SIGKILL)
    agent.process.wait()
    without_rule(bed)
    try:
        report = examine(agent.env)
        problems = {f["check"]: f["finding"] for f in findings(report, "problem")}
        equal(sorted(problems), ["keeper", "steering"], "problems")
        check("start culvertd, which puts it back" in str(findings(report, "problem")), "what to do")
        check("no keeper listens there" in problems["keeper"] and "default/a1" in problems["steering"], problems)
        check("tunnel" in report["notLookedAt"], report["notLookedAt"])
    finally:
        with_rule(bed)
        agent.start()


@T.row("istio's-ztunnel-beside-ours", BED)
def foreign(bed):
    program = f"{bed.folder}/ztunnel"
    shutil.copy2(shutil.which("sleep"), program)
    with subprocess.Popen([program, "60"]) as p:
        try:
            until(lambda: open(f"/proc/{p.pid}/comm").read() == "ztunnel\n", "the program to run")
            said = [f for f in examine(env_of(bed))["findings"] if f["check"] == "planes"]
            check(said[0]["level"] == "warning" and f"ztunnel (process {p.pid})" in said[0]["finding"], said)
            check("keep Istio's DaemonSets off this node" in said[0]["advice"], said)
        finally:
            p.kill()


# --- certificates -----------------------------------------------------------------------------------------------------------


@T.row("a-certificate-that-is-not-renewed-and-ends", fixture("split", None, pods=()))
def expired(bed):
    agent = bed.agents[0]
    env = agent.keeper.env
    agent.ca.lifetime = 8
    agent.enrol(bed.a1)
    until(lambda: [c for c in agent.config_dump()["certificates"] if c["certChain"]], "a certificate")
    agent.ca.refuse = True
    report = until(lambda: [r for r in [examine(env)] if findings(r, "warning")], "the warning before its end", 8)[0]
    (early,) = findings(report, "warning")
    check(early["check"] == "certificates" and "past its half-life and was not renewed" in early["finding"], early)
    report = until(lambda: [r for r in [examine(env)] if findings(r, "problem")], "the problem after it", 20)[0]
    first = findings(report, "problem")[0]
    check(first["check"] == "certificates" and bed.a1.spiffe in first["finding"], first)
    check("CA_ADDRESS" in first["advice"], first)


@T.row("istiod-goes-away", fixture("culvert", None, pods=("a1", "a2"), prepare=istiod))
def no_istiod(bed):
    env, connected = env_of(bed), lambda: bed.agents[0].config_dump()["xds"]["connected"]
    equal(findings(examine(env), "problem") + findings(examine(env), "warning"), [], "problems and warnings before")
    bed.istiod.close()
    until(lambda: not connected(), "the stream to end")
    finds(env, "warning", "istiod", f"istiod .*{bed.istiod.ip}.* has been away for [0-9] s", "XDS_ADDRESS")
    bed.istiod.start()
    until(connected, "istiod to be back", 40)
    equal(findings(examine(env), "problem") + findings(examine(env), "warning"), [], "problems and warnings after")


# --- Kubernetes, and the way by which pods come --------------------------------------------------------------------------


class NoTunnel(KubePlace):
    with_tunnel = False


@T.row("a-labelled-pod-is-not-steered", lambda: NoTunnel())
def not_steered(place):
    """There is no tunnel that could serve it."""
    place.runs()
    until(lambda: json.loads(place.ctl("status", "--json")[1])["kubernetes"]["notEnrolledYet"] == 1, "the pod to be seen")
    problems = {f["check"]: f for f in findings(examine(place.env), "problem")}
    check("1 pod of this node are labelled to be in the mesh and are not steered" in problems["kubernetes"]["finding"], problems)
    check("kubectl delete pod" in problems["kubernetes"]["advice"], problems)
    check("no tunnel is there" in problems["tunnel"]["finding"], problems)


@T.row("the-api-server-is-away", lambda: NoTunnel(up=False))
def no_api(place):
    problems = {f["check"]: f for f in findings(examine(place.env), "problem")}
    check("no watch of the API server is open" in problems["kubernetes"]["finding"], problems)


def installed():
    return InstallPlace({"10-net.conflist": BRIDGE}, kube=False)


@T.row("the-plugin's-entry", lambda: installed())
def entry(place):
    """There, gone with the keeper, and behind another file."""
    until(lambda: place.installation()["ready"], "the installation")
    said = [f for f in examine(place.env)["findings"] if f["check"] == "cni"]
    equal([f["level"] for f in said], ["ok"], f"an entry that is there: {said}")
    place.process.kill()
    place.process.wait()

    def cni(level, said, advice):
        got = [f for f in examine(place.env)["findings"] if f["check"] == "cni"]
        check(len(got) == 1 and got[0]["level"] == level and said in got[0]["finding"] and advice in got[0]["advice"], got)

    cni("problem", "where nobody listens", "start the keeper")
    place.put("05-other.conflist", OTHER)
    cni("warning", "05-other.conflist is what a runtime takes first", "comes first")
    os.unlink(f"{place.net}/05-other.conflist")
    place.put("10-net.conflist", BRIDGE)
    cni("problem", '10-net.conflist, which the runtime takes, has no entry "istio-cni"', "start the keeper")
    os.unlink(f"{place.net}/10-net.conflist")
    cni("problem", "no CNI configuration", "install the cluster's network")


@T.row("the-plugin's-program", lambda: installed())
def program(place):
    until(lambda: place.installation()["ready"], "the installation")
    place.process.send_signal(signal.SIGSTOP)  # it would mend it at once
    path = f"{place.bin}/istio-cni"
    os.rename(path, path + ".away")
    with open(path, "w") as f:
        f.write("#!/bin/sh\n")
    os.chmod(path, 0o755)
    env = {**place.env, "CULVERT_RUN_DIR": place.folder}  # no answer of the keeper is waited for
    said = [f for f in examine(env)["findings"] if f["check"] == "cni"]
    check("is not Culvert's" in said[0]["finding"] and said[0]["level"] == "warning", said)
    os.unlink(path)
    said = [f for f in examine(env)["findings"] if f["check"] == "cni"]
    check("no pod can start with it missing" in said[0]["finding"] and said[0]["level"] == "problem", said)
    place.process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    T.main()
