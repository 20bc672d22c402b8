#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Looking inside: traces say what connections would get, failures why some did not come about, and a profile where the CPU time
goes. Taps: tap_test.py."""
import contextlib
import gzip
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, traffic
from lib.bed import pair
from lib.ca import fields
from lib.net import PATIENCE, sh
from lib.rows import Table, check, equal, until
from lib.see import GUARDED, SINGLE, See

T = Table(__file__)

# --- traces ---------------------------------------------------------------------------------------------------------

# name: (source, what is asked for, the address that is dialled, port, who listens where, outcome, part of the reason, a step)
TRACES = {
    "allowed": ("a1", "b1", "b1", 8080, ("b1", 8080), "carried", "", "application"),
    "allowed-by-address": ("a1", None, "b1", 8080, ("b1", 8080), "carried", "", "policy"),
    "denied": ("a1", "default/b1", "b1", 9001, ("b1", 9001), "denied", "explicitly denied by: default/no-9001", "policy"),
    "not-allowed": ("a1", "b2", "b2", 8080, ("b2", 8080), "denied", "none allowed", "policy"),
    "allowed-by-name": ("a2", "b2", "b2", 8080, ("b2", 8080), "carried", "", "policy"),
    "same-node": ("a1", "a2", "a2", 8080, ("a2", 8080), "carried", "", "carrier"),
    "same-node-denied": ("a1", "a2", "a2", 9001, ("a2", 9001), "denied", "no-9001", "policy"),
    "passthrough": ("a1", None, "u1", 8080, ("u1", 8080), "carried", "", "protocol"),
    "waypoint": ("a1", "guarded", GUARDED, 80, ("b2", 80), "carried", "", "waypoint"),
    "no-endpoint": ("a1", "empty", "10.72.5.2", 80, None, "refused", "no healthy upstream", "endpoint"),
}


def trace(bed, source, to, port):
    return json.loads(bed.agent.ctl("trace", source, to, str(port), "--json"))


def traced(bed, source, asked, dialled, port, listener, outcome, reason, topic):
    """What the trace says, and then what a connection gets."""
    source = bed.pod[source]
    ip = bed.pod[dialled].ip4 if dialled in bed.pod else dialled
    said = trace(bed, source.name, asked or ip, port)
    equal((said["outcome"], said["destination"], said["source"]["local"]), (outcome, f"{ip}:{port}", True), "the trace")
    check(reason in said.get("reason", ""), lambda: f"the reason: {said['reason']}")
    check(any(x["topic"] == topic for x in said["steps"]), lambda: f"no step about the {topic}: {said['steps']}")
    since = len(bed.agent.log())
    if outcome != "carried":
        with contextlib.ExitStack() as stack:
            if listener:
                stack.enter_context(bed.pod[listener[0]].listen(listener[1]))
            traffic.dial_is_cut(source, ip, port)
        if outcome == "denied":
            there = bed.pod[listener[0]].node.agent
            until(lambda: [x for x in there.access(direction="inbound") if said["reason"] in x.get("error", "")],
                  "the same reason in the log")
        return
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(bed.pod[listener[0]].listen(listener[1]))
        c = stack.enter_context(source.connect(ip, port))
        s = stack.enter_context(own.accept()[0])
        s.settimeout(PATIENCE)
        traffic.echo(c, s)
        client = f"{source.ip4}:{c.getsockname()[1]}"
    line = until(lambda: bed.agent.access(since, direction="outbound", src_addr=client), "the access line")[0]
    equal(line["dst.addr"], said["route"]["nextHop"], "next hop")
    equal(line.get("dst.hbone_addr"), said["route"].get("authority"), "authority")
    if said["route"]["identities"]:
        equal(line["dst.identity"], said["route"]["identities"][0], "identity")
    if said["route"]["kind"] == "hbone":
        after = trace(bed, source.name, asked or ip, port)
        equal((after["certificate"]["identity"], after["certificate"]["state"]), (source.spiffe, "Available"), "certificate")
        check(after["certificate"]["expirationTime"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "expiry")


for name, row in TRACES.items():
    T.row(f"trace-is-what-a-connection-gets/{name}", See, *row)(traced)


@T.row("trace-of-a-pod-elsewhere", See)
def elsewhere(bed):
    said = trace(bed, "default/b1", bed.a1.ip4, 8080)
    equal((said["outcome"], said["source"]["local"], said["route"]["nextHop"]), ("carried", False, f"{bed.a1.ip4}:15008"), "said")
    check(any("its own node has its certificate" in x["text"] for x in said["steps"]), f"{said['steps']}")


@T.row("trace-for-people", See)
def trace_text(bed):
    text = bed.agent.ctl("trace", "a1", "single", "80")
    for want in (f"from          default/a1 on node {bed.a1.node.name}, a pod of this node", f"to            {SINGLE[0]}:80",
                 "endpoint      ", "outcome       carried"):
        check(want in text, f"no {want!r} in {text}")
    text = bed.agent.ctl("trace", "a1", "b1", "9001")
    check("policy        DENY default/no-9001: rule 1 of 1 matches" in text, text)
    check("outcome       denied: explicitly denied by: default/no-9001 (flag DENY)" in text, text)


WRONG = {
    "no-such-source": (("nobody", "web", "80"), "no pod, no workload is called nobody"),
    "no-such-destination": (("a1", "no.such/thing", "80"), "nothing in the mesh is called no.such/thing"),
    "no-port": (("a1", "web", "http"), '"http" is no port'),
}


def wrong(bed, argv, error):
    r = subprocess.run([agents.CULVERTCTL, "trace", *argv], env=bed.agent.env, capture_output=True, text=True, timeout=20)
    check(r.returncode == 1 and error in r.stderr, f"{r}")


for name, row in WRONG.items():
    T.row(f"trace-question-{name}", See, *row)(wrong)


# --- failures -------------------------------------------------------------------------------------------------------


def failures(agent, *argv):
    return json.loads(agent.ctl("failures", *argv, "--json"))["failures"]


@T.row("failures-have-their-reason-on-both-nodes", See)
def failed(bed):
    with bed.b1.listen(9001):
        traffic.dial_is_cut(bed.a1, bed.b1.ip4, 9001)
    traffic.dial_is_cut(bed.a1, "10.72.5.2", 80)

    def there(agent, **want):
        return [f for f in failures(agent) if all(f.get(k) == v for k, v in want.items())]

    denied = until(lambda: there(bed.b1.node.agent, flag="DENY", direction="inbound", destination=f"{bed.b1.ip4}:9001"),
                   "the denial at the server's node")[-1]
    equal((denied["reason"], denied["sourceIdentity"], denied["pod"]),
          ("explicitly denied by: default/no-9001", bed.a1.spiffe, {"name": "b1", "namespace": "default"}), "the denial")
    seen = until(lambda: there(bed.agent, destination=f"{bed.b1.ip4}:9001", direction="outbound"), "at the client's node")[-1]
    equal((seen["reason"], seen["flag"]), ("http status: 401", "CONNECT"), "there")
    lost = until(lambda: there(bed.agent, destination="10.72.5.2:80"), "the refusal")[-1]
    equal((lost["reason"], lost["pod"]["name"]), ("no healthy upstream", "a1"), "the refusal")
    equal([f for f in failures(bed.agent, "--pod", "default/a2") if f["pod"]["name"] != "a2"], [], "of another pod")
    check(failures(bed.agent, "--pod=a1", "--since", "10m"), "none of ten minutes")
    time.sleep(1.1)
    equal(failures(bed.agent, "--since", "0s"), [], "none is that young")
    text = bed.agent.ctl("failures", "--pod", "a1")
    check(text.startswith("TIME") and "no healthy upstream" in text, text)


@T.row("failures-are-so-many", See)
def failures_bounded(bed):
    before = json.loads(bed.agent.ctl("failures", "--json"))
    for _ in range(30):
        traffic.dial_is_cut(bed.a1, "10.72.5.2", 80)
    after = until(lambda: (lambda a: a if a["seen"] >= before["seen"] + 30 else None)(json.loads(bed.agent.ctl("failures", "--json"))),
                  "30 more")
    check(after["kept"] == min(after["seen"], after["kept"]) and after["kept"] <= 1024, f"{after['kept']} of {after['seen']}")
    times = [f["time"] for f in after["failures"]]
    equal(times, sorted(times), "the order")


# --- profile --------------------------------------------------------------------------------------------------------


@T.row("profile-names-functions", See)
def profile(bed):
    with pair(bed.a1, bed.b1) as (c, s):
        done = False

        def load():
            while not done:
                c.sendall(bytes(1 << 16))

        def drain():
            while s.recv(1 << 18):
                pass

        tasks = [traffic.Task(load), traffic.Task(drain)]
        status, body = bed.agent.http(15000, "/debug/pprof/profile?seconds=2", timeout=20)
        done = True
        tasks[0].result()
        c.close()
        tasks[1].result()
    equal(status, 200, "status")
    parts = list(fields(gzip.decompress(body)))
    strings = [v.decode() for k, v in parts if k == 6]
    equal(strings[0], "", "the first text")
    check({"samples", "count", "cpu", "nanoseconds"} <= set(strings), "kinds of values")
    n = len([1 for k, _ in parts if k == 2])
    check(n > 5, f"{n} stacks")
    check(any(x.startswith(("h2_", "record_", "aead_", "serve_")) for x in strings), lambda: f"no function of ours: {strings}")
    check(any(x.endswith("/culvert-tunnel") for x in strings), "the program's file")


@T.row("profile-at-other-frequencies", See)
def profile_frequencies(bed):
    for asked, period in ((1, [10**9]), (1000, range(10**6, 10**7 + 1))):
        status, body = bed.agent.http(15000, f"/debug/pprof/profile?seconds=1&frequency={asked}", timeout=20)
        equal(status, 200, "status")
        got = [v for k, v in fields(gzip.decompress(body)) if k == 12]
        check(len(got) == 1 and got[0] in period, f"the period: {got}")


@T.row("profile-one-at-a-time", See)
def profile_busy(bed):
    both = [traffic.Task(bed.agent.http, 15000, "/debug/pprof/profile?seconds=2", "GET", (), 20) for _ in range(2)]
    equal(sorted(t.result()[0] for t in both), [200, 409], "statuses")


# --- the tool -------------------------------------------------------------------------------------------------------

for command in "trace", "failures":
    def helped(name=command):
        text = sh(agents.CULVERTCTL, name, "--help")
        check(text.startswith(f"culvertctl {name} - "), text)
        check(f"culvertctl {name}" in sh(agents.CULVERTCTL, "--help"), "not in the list")

    T.row(f"help-of-{command}")(helped)


if __name__ == "__main__":
    T.main()
