#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs tests in files of their own: tests/e2e/*_test.py, or those that E2E_FILES names. One after the other, since they
# measure time; but those that mostly wait for deadlines run beside them. A file ends itself after E2E_LIMIT seconds
# (lib/rows.py).
set -u
cd "$(dirname "$0")/../.." || exit 2
export B="${B:-build}"
waiting=""
for t in servers kube cni cni_alone install istioctl certs churn names network pool wrong xds socks statuses dns doctor same_node; do
	waiting="$waiting tests/e2e/${t}_test.py"
done
if [ "$(id -u)" != 0 ]; then
	echo "skip e2e: needs root for network namespaces"
	exit 0
fi

beside="" first=""
for t in ${E2E_FILES:-tests/e2e/*_test.py}; do
	case " $waiting " in
	*" $t "*) beside="$beside $t" ;;
	*) first="$first $t" ;;
	esac
done
# shellcheck disable=SC2086
tests/tools/run.sh -a "$*" $beside &
other=$!
trap 'kill -TERM $other 2>/dev/null; wait $other; exit 130' INT TERM HUP
# shellcheck disable=SC2086
tests/tools/run.sh -a "$*" $first
status=$?
wait $other || status=$?
exit $status
