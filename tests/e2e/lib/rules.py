# SPDX-License-Identifier: Apache-2.0
"""The steering of a pod as istio-cni does it, with DNS capture: what a tunnel finds when it is dropped into ztunnel's
place. Applied inside the pod; it goes when the namespace goes."""
from .net import batch

MARK, LOCAL = "0x539/0xfff", "0x111/0xfff"


def tables(loopback, probe, to):
    return f"""*raw
-A OUTPUT -p udp --dport 53 -m mark --mark {MARK} -j CT --zone 1
-A PREROUTING -p udp --sport 53 -m mark ! --mark {MARK} -j CT --zone 1
COMMIT
*mangle
-A PREROUTING -m mark --mark {MARK} -j CONNMARK --set-xmark {LOCAL}
-A OUTPUT -m connmark --mark {LOCAL} -j CONNMARK --restore-mark
COMMIT
*nat
-A PREROUTING -s {probe} -p tcp -j ACCEPT
-A PREROUTING ! -d {loopback} -p tcp ! --dport 15008 -m mark ! --mark {MARK} -j {to} 15006
-A OUTPUT -d {probe} -p tcp -j ACCEPT
-A OUTPUT ! -o lo -p udp --dport 53 -m mark ! --mark {MARK} -j {to} 15053
-A OUTPUT ! -d {loopback} -p tcp --dport 53 -m mark ! --mark {MARK} -j {to} 15053
-A OUTPUT -p tcp -m mark --mark {LOCAL} -j ACCEPT
-A OUTPUT ! -d {loopback} -o lo -j ACCEPT
-A OUTPUT ! -d {loopback} -p tcp -m mark ! --mark {MARK} -j {to} 15001
COMMIT
"""


def apply(pod):
    to = "REDIRECT --to-ports"
    pod.run("iptables-restore", "-w", input=tables("127.0.0.1/32", "169.254.7.127", to))
    pod.run("ip6tables-restore", "-w", input=tables("::1/128", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff", to))
    batch(pod.ns, "rule add fwmark 0x111/0xfff pref 32764 lookup 100", "route add local default dev lo table 100",
          "-6 rule add fwmark 0x111/0xfff pref 32764 lookup 100", "-6 route add local default dev lo table 100")
