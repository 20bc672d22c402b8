#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The systemd unit under a real systemd, as process 1 of a namespace in a virtual machine:
#
#   B=build vmtests/run 6.12 tests/deploy/systemd_guest.sh
#
# Within the unit's sandbox both programs come up and enrol pods whose namespaces are made later; a keeper that is killed is
# started again and takes over the tunnel; a stop ends both and keeps what is known of pods. Not part of make check: a guest
# without KVM takes two minutes for it.
set -u
tree=$PWD build=$PWD/${B:-build} status=0
ctl() { "$build/bin/culvertctl" "$@"; }
verdict() { # NAME COMMAND...
	name=$1
	shift
	if "$@"; then echo "ok systemd/$name"; else echo "FAIL systemd/$name"; status=1; fi
}
wait_for() { # SECONDS COMMAND...
	n=$1
	shift
	while [ "$n" -gt 0 ] && ! "$@" >/dev/null 2>&1; do n=$((n - 1)) && sleep 1; done
	[ "$n" -gt 0 ]
}
grep -q 'vm\.cwd=' /proc/cmdline || {
	echo "systemd_guest.sh: starts a systemd, so it runs in a virtual machine only: vmtests/run 6.12 $0" >&2
	exit 2
}

# --- the machine: a unit without the dependencies of a whole boot, a mesh of two pods ------------------------------------
units=/run/systemd/system log=/run/culvertd.log
mkdir -p $units/culvertd.service.d /etc/culvert
sed "s|/usr/local/bin/|$build/bin/|" "$tree/deploy/systemd/culvertd.service" >$units/culvertd.service
printf '[Unit]\nDefaultDependencies=no\n[Service]\nStandardOutput=append:%s\nStandardError=append:%s\n' $log $log \
	>$units/culvertd.service.d/log.conf
cat >/etc/culvert/mesh.yaml <<END
workloads:
- {uid: web-1, name: web, namespace: default, serviceAccount: web, workloadIps: [10.0.1.2], node: node-1, protocol: HBONE}
- {uid: cl-1, name: cl, namespace: default, serviceAccount: cl, workloadIps: [10.0.1.3], node: node-1, protocol: HBONE}
END
printf 'LOCAL_XDS_PATH=/etc/culvert/mesh.yaml\nXDS_ADDRESS=\nNODE_NAME=node-1\n' >/etc/culvert/culvertd.env
# Mounts are shared, as systemd has them where it is not in a container.
unshare --pid --fork --mount-proc sh -c 'mount --make-rshared / && exec env -i container=other PATH="$PATH" \
	/lib/systemd/systemd --system --unit=culvertd.service --log-target=console --show-status=no' </dev/null &
verdict comes-up wait_for 120 ctl status
systemd=$(pgrep -x systemd | head -n 1)
there() { nsenter --target "$systemd" --mount --root --pid "$@"; }

# --- pods, in namespaces that are made after the unit has begun -----------------------------------------------------------
there ip netns add net
there ip -n net link add br0 type bridge
there ip -n net link set br0 up
pod() { # NAME ADDRESS
	there ip netns add "$1"
	there ip -n "$1" link set lo up
	there ip -n "$1" link add eth0 type veth peer name "v-$1" netns net
	there ip -n net link set "v-$1" master br0 up
	there ip -n "$1" addr add "$2/24" dev eth0
	there ip -n "$1" link set eth0 up
	ctl enrol "/run/netns/$1" "default/$1/$1"
}
verdict enrols-web pod web 10.0.1.2
verdict enrols-cl pod cl 10.0.1.3
there ip netns exec web python3 -c '
import socket
s = socket.create_server(("", 8080))
while True:
    c, _ = s.accept()
    c.sendall(c.recv(16))
    c.close()' &
carried() {
	there ip netns exec cl python3 -c '
import socket, sys
c = socket.create_connection(("10.0.1.2", 8080), timeout=20)
c.sendall(b"there")
sys.exit(c.recv(16) != b"there")' && grep -q 'access.*src.identity="spiffe://cluster.local/ns/default/sa/cl"' $log
}
wait_for 20 there ip netns exec web ss -Hltn 'sport = 8080'
verdict carries carried

# --- what systemd does -----------------------------------------------------------------------------------------------------
tunnel=$(pgrep -x culvert-tunnel) keeper=$(pgrep -x culvert-keeper)
kill -KILL "$keeper"
verdict keeper-comes-again wait_for 30 sh -c "pgrep -x culvert-keeper | grep -qvx $keeper"
enrolled() { ctl status | grep -q '^pods  *2 enrolled'; }
verdict pods-are-regained wait_for 30 enrolled
verdict tunnel-is-the-same test "$(pgrep -x culvert-tunnel)" = "$tunnel"
verdict carries-again carried
verdict stop there systemctl stop culvertd
verdict stop-ends-both test -z "$(pgrep culvert-)"
verdict pods-are-not-forgotten test "$(find /run/culvert/pods -name '*.json' | wc -l)" = 2
verdict steering-stays test "$(find /sys/fs/bpf/culvert/v1 -name lookup | wc -l)" = 2
[ $status = 0 ] || tail -n 30 $log
kill -KILL "$systemd"
exit $status
