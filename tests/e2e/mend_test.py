#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The keeper watches over the steering of enrolled pods: what somebody removes is put back by itself, and is told of. What
can be removed, one by one: tests/net/steer_mend_test.py."""
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(__file__))
from cni_test import detach
from lib import cni
from lib.net import sh
from lib.rows import Table, check, equal, until

T = Table(__file__)


class MendPlace(cni.CniPlace):
    """A keeper with one enrolled pod."""

    def __init__(self):
        super().__init__("bpf")

    def _begin(self):
        super()._begin()
        self.willing()
        equal(self.end(self.enrol()), (0, ""), "culvertctl enrol")
        self.uid = self.pods()["a1"]["uid"]

    def attached(self):
        """What the pins are of, once links are there."""
        at = f"{self.bpf}/v1/{self.uid}"
        show = {f.split("-")[0]: sh("bpftool", "link", "show", "pinned", f"{at}/{f}", ok=False).split(":")[0]
                for f in os.listdir(at) if f.startswith(("egress", "ingress", "lookup"))}
        check(len(show) == 3 and all(v.isdigit() for v in show.values()), show)
        return show

    def metric(self, name):
        text = sh("curl", "-s", "--unix-socket", f"{self.run}/ctl.sock", "http://culvert/metrics")
        return next(float(x.split()[1]) for x in text.splitlines() if x.startswith(f"{name} "))


def row(name):
    return T.row(name, lambda: MendPlace())  # each has its own


def told(place, what):
    p = place.pods()["a1"]
    equal(p["mended"]["times"], 1, "times mended")
    check(what in p["mended"]["last"], p["mended"])
    check("trouble" not in p, p.get("trouble"))
    check(f"default/a1: its steering was changed by somebody and put back 1 times; the last time {p['mended']['last']}"
          in place.ctl("pods")[1], "culvertctl pods")
    check("put back 1 times" in place.ctl("status")[1], "culvertctl status")
    lines = [x for x in place.log().splitlines() if "not steered as it should be" in x]
    equal(len(lines), 1, "lines in the log")
    check("error" in lines[0] and "default/a1" in lines[0] and what in lines[0], lines[0])
    equal((place.metric("culvert_steering_mended_total"), place.metric("culvert_steering_broken")), (1, 0), "metrics")


class Sandbox:  # as cni_test.detach() wants it
    def __init__(self, uid):
        self.uid = uid


@row("a-detached-program-comes-back-at-once")
def _(place):
    before = until(place.attached, "links")
    detach(place, Sandbox(place.uid), "egress", "egress")
    until(lambda: "mended" in place.pods()["a1"], "it to be put back", deadline=3)
    after = place.attached()
    equal([k for k in after if after[k] != before[k]], ["egress"], "links that are new")
    told(place, "the egress program of device eth0 is gone")


@row("a-rule-comes-back-at-once")
def _(place):
    place.pod.run("ip", "rule", "del", "priority", "9")
    until(place.steered, "it to be put back", deadline=3)
    until(lambda: "mended" in place.pods()["a1"], "it to be told")
    told(place, "the IPv4 policy rule")


@row("a-sysctl-and-pins-come-back-in-turn")
def _(place):
    before = until(place.attached, "links")
    place.pod.run("sysctl", "-qw", "net.ipv4.conf.lo.accept_local=0")
    shutil.rmtree(f"{place.bpf}/v1/{place.uid}")
    until(lambda: "mended" in place.pods()["a1"], "it to be put back", deadline=13)
    equal(place.pod.run("sysctl", "-n", "net.ipv4.conf.lo.accept_local").strip(), "1", "accept_local")
    equal(place.attached(), before, "links")
    told(place, "accept_local is off")


@row("what-cannot-be-put-back-is-shown-until-it-can")
def _(place):
    before = until(place.attached, "links")
    at = f"{place.bpf}/v1/{place.uid}"
    shutil.rmtree(at)
    os.mkdir(at)
    os.chmod(at, 0o777)
    trouble = until(lambda: place.pods()["a1"].get("trouble"), "trouble", deadline=13)
    check("pins are gone" in trouble and "cannot be put back" in trouble and "is not ours" in trouble, trouble)
    check(trouble in place.ctl("pods")[1], "culvertctl pods")
    equal((place.metric("culvert_steering_mended_total"), place.metric("culvert_steering_broken")), (0, 1), "metrics")
    os.rmdir(at)
    until(lambda: "trouble" not in place.pods()["a1"], "it to be put back", deadline=3)
    equal(place.attached(), before, "links")
    lines = [x for x in place.log().splitlines() if "may be in plaintext" in x]
    equal(len(lines), 1, "lines in the log")


@row("a-lost-record-is-told-and-its-pod-stays-steered")
def _(place):
    until(place.attached, "links")
    place.kill()
    os.unlink(f"{place.run}/pods/{place.uid}.json")
    place.start()
    until(lambda: f"{place.uid} is steered, but nobody knows whose pod it is" in place.log(), "a warning")
    check("until it is enrolled again" in place.log(), "no advice")
    check(place.steered(), "un-enrolled")
    place.tunnels.pop().close()
    place.willing()
    equal(place.end(place.enrol()), (0, ""), "culvertctl enrol")
    equal(place.pods()["a1"]["uid"], place.uid, "uid")


if __name__ == "__main__":
    T.main()
