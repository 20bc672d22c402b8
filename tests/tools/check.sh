#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `make check`: builds, runs every stage, and ends with a table: seconds, rows that passed, failed and were skipped, and
# each skip with its reason, so that a green run says what it did not try. STAGES chooses; a failed stage does not hide
# the next one. RETRY=1 is explained in run.sh.
set -u
cd "$(dirname "$0")/../.." || exit 2
export B="${B:-build}"
export E2E_LOGS="${E2E_LOGS:-25}" # lines of the agents' logs after a row that failed
tmp=$(mktemp -d)
running=""
trap 'rm -rf "$tmp"' EXIT
trap 'stop; echo "check: stopped"; exit 130' INT TERM HUP
begin=$(date +%s)
status=0

# Seconds that a stage may take before it is ended: twice what it needs on two cores.
limit() {
	case $1 in check-e2e) echo 1800 ;; *) echo 600 ;; esac
}

# The stage has a process group of its own (by timeout), which unwinds on SIGTERM; the pipeline ends with it.
stop() {
	[ ! -s "$tmp/pid" ] || kill -TERM "$(cat "$tmp/pid")" 2>/dev/null
	[ -z "$running" ] || wait "$running"
}

# Runs a stage in the background, so that a signal to this script is heard at once. Its status is kept in a file: the
# pipe would hide it.
run() {
	{
		sh -c 'echo $$ >"$0/pid"; exec timeout -k 30 "$1" make --no-print-directory B="$B" "$2"' \
			"$tmp" "$(limit "$1")" "$1" 2>&1
		echo $? >"$tmp/rc"
	} | tee -i "$tmp/out" &
	running=$!
	wait "$running"
	running=""
	rc=$(cat "$tmp/rc")
}

# The real istiod takes Go and minutes to build: its rows run where that has been done.
[ -x "$B/istiod/istiod" ] && istiod=check-istiod || istiod=""
for stage in ${STAGES:-all check-unit check-net check-e2e check-deploy $istiod fuzz-smoke}; do
	printf '== %s\n' "$stage"
	at=$(date +%s)
	run "$stage"
	# Rows: ours ("ok NAME", "FAIL NAME", "skip NAME") and cmocka's ("[       OK ] name"), which names a failure twice.
	# What failed in one of two runs only (run.sh) is unsteady, not failed.
	sed -n 's/^unsteady //p' "$tmp/out" >"$tmp/steady"
	grep -E '^FAIL |^\[ +FAILED +\] [a-z]' "$tmp/out" | sort -u >"$tmp/all"
	grep -vwFf "$tmp/steady" "$tmp/all" >"$tmp/failed"
	grep -wFf "$tmp/steady" "$tmp/all" >>"$tmp/unsteady"
	case $rc in
	0) ;;
	124 | 137) echo "FAIL $stage: still ran after $(limit "$stage") s" >>"$tmp/failed" ;;
	*) [ -s "$tmp/failed" ] || echo "FAIL $stage: exit status $rc without a row that says why" >>"$tmp/failed" ;;
	esac
	ok=$(grep -cE '^ok |^\[ +OK ' "$tmp/out")
	fail=$(wc -l <"$tmp/failed")
	skip=$(grep -cE '^skip |^\[ +SKIPPED +\] [a-z]' "$tmp/out")
	grep -E '^skip |^\[ +SKIPPED +\] [a-z]' "$tmp/out" >>"$tmp/skips"
	cat "$tmp/failed" >>"$tmp/fails"
	verdict=ok
	[ "$rc" = 0 ] || { status=1; verdict=FAILED; }
	printf '%-12s %-6s %5s s %6s ok %5s failed %5s skipped\n' "$stage" "$verdict" $(($(date +%s) - at)) \
		"$ok" "$fail" "$skip" >>"$tmp/table"
	[ "$stage" != all ] || [ "$rc" = 0 ] || break # nothing to test
done

printf '\n== summary\n'
cat "$tmp/table"
[ ! -s "$tmp/skips" ] || { echo "skipped, by reason:"; sed 's/^[^:]*: *//' "$tmp/skips" | sort | uniq -c | sort -rn; }
[ ! -s "$tmp/unsteady" ] || { echo "unsteady, failed in one of two runs:"; cat "$tmp/unsteady"; }
[ ! -s "$tmp/fails" ] || { echo "failed:"; cat "$tmp/fails"; }
printf '%s s, %s\n' $(($(date +%s) - begin)) "$([ $status = 0 ] && echo 'all stages passed' || echo 'FAILED')"
awk '{ok += $5; bad += $7; skip += $9} END {printf "total: %d passed, %d failed, %d skipped\n", ok, bad, skip}' "$tmp/table"
exit $status
