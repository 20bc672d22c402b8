#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what the build, the tests and the demo need and the machine lacks (Debian 12/13, Ubuntu 24.04); with the
# argument build what the build alone needs, with vm what virtual machines need beyond all that.
# On anything else it prints the list and fails, so that nothing is guessed.
set -eu

BUILD="gcc make pkg-config clang libclang-rt-dev llvm libbpf-dev libssl-dev libnghttp2-dev libmnl-dev libprotobuf-c-dev
protobuf-c-compiler libjansson-dev libyaml-dev libldns-dev libcurl4-gnutls-dev zlib1g-dev libevent-dev liburcu-dev libseccomp-dev uuid-dev libcmocka-dev"
TOOLS="bpftool iproute2 iptables curl iperf3 tcpdump openssl nghttp2-proxy python3 python3-yaml valgrind clang-format cppcheck"
# Not here: Node (nodejs) and pip (python3-pip, which brings Envoy), for rows of tests/e2e/interop_test.py, and containerd,
# runc, containernetworking-plugins and busybox-static for those of cni_runtime_test.py, and helm and Go, which
# Debian 12 lacks or has too old, for those of tests/deploy/chart_test.py and tests/istiod/; they skip themselves by name
# without them.

case $(dpkg --print-architecture 2>/dev/null) in amd64) BUILD="$BUILD libipsec-mb-dev" ;; esac # there is none elsewhere

VM="qemu-system-x86 busybox-static kmod xz-utils zstd"
case ${1:-} in
"") wanted="$BUILD $TOOLS" ;;
build) wanted="$BUILD bpftool" ;;
vm) wanted=$VM ;;
*)
	echo "deps: $1: only build and vm are known" >&2
	exit 2
	;;
esac

missing=""
for p in $wanted; do
	dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || missing="$missing $p"
done
# Ubuntu ships bpftool in linux-tools; any bpftool on the path will do.
if command -v bpftool >/dev/null 2>&1 || [ -x /usr/sbin/bpftool ]; then
	missing=$(printf '%s' "$missing" | sed 's/ bpftool\b//')
fi
[ -n "$missing" ] || exit 0

id=$(. /etc/os-release 2>/dev/null && echo "${ID:-?} ${VERSION_ID:-}")
case $id in
debian\ 12* | debian\ 13* | ubuntu\ 24.04*) ;;
*)
	echo "deps: $id is not a system this knows how to install on; please install the equivalents of:" >&2
	printf '  %s\n' $missing >&2
	exit 1
	;;
esac
if [ "$(id -u)" != 0 ]; then
	echo "deps: run 'sudo make deps' once; missing:$missing" >&2
	exit 1
fi
case $id in ubuntu*) missing=$(printf '%s' "$missing" | sed 's/ bpftool\b/ linux-tools-common linux-tools-generic/') ;; esac
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
