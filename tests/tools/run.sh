#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs test programs one after the other, each under its name, and fails if one of them fails.
#   run.sh [-a "ARGUMENTS"] [-w "WRAPPER"] FILE...
# RETRY=1 (what CI sets) gives a program that failed a second run at the end, when less else is under way. Rows that fail in
# one and pass in the other are listed as "unsteady ROW", which the summary of check.sh counts and shows; any other row that
# fails is a failure.
set -u
args="" wrap=""
while getopts a:w: o; do
	case $o in a) args=$OPTARG ;; w) wrap=$OPTARG ;; *) exit 2 ;; esac
done
shift $((OPTIND - 1))
export B="${B:-build}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

# The output goes through at once; the status is kept in a file, since the pipe would hide it.
once() {
	{
		# shellcheck disable=SC2086
		$wrap "$1" $args 2>&1
		echo $? >"$tmp/rc"
	} | tee -i "$tmp/out"
	return "$(cat "$tmp/rc")"
}

# The rows of the last run that failed, or passed, to the file $1.
failures() {
	sed -n 's/^FAIL \([^ :]*\).*/unsteady \1/p; s/^\[ *FAILED *\] \([a-z][a-z0-9_]*\).*/unsteady \1/p' "$tmp/out" |
		sort -u >"$1"
	[ -s "$1" ]
}

passes() {
	sed -n 's/^ok \([^ :]*\).*/unsteady \1/p; s/^\[ *OK *\] \([a-z][a-z0-9_]*\).*/unsteady \1/p' "$tmp/out" | sort -u >"$1"
}

# A second run of what failed, when the others are done: true when each row that failed in one passed in the other. One of
# a program that was cut short may have run in neither.
again() {
	printf '# %s: again\n' "$1"
	: >"$tmp/failed2"
	once "$1"
	case $? in
	0) ;;
	130) exit 130 ;;
	*) failures "$tmp/failed2" || return 1 ;;
	esac
	passes "$tmp/passed2"
	comm -23 "$tmp/$2.failed" "$tmp/passed2" >"$tmp/twice"
	comm -23 "$tmp/failed2" "$tmp/$2.passed" >>"$tmp/twice"
	comm -12 "$tmp/$2.failed" "$tmp/failed2" >>"$tmp/twice"
	[ ! -s "$tmp/twice" ] || return 1
	sort -u "$tmp/$2.failed" "$tmp/failed2"
}

failed=0 n=0
for t in "$@"; do
	printf '%s\n' "$t"
	once "$t"
	case $? in
	0 | 77) continue ;; # 77: no row of this file has a name that was asked for
	130) exit 130 ;;
	esac
	n=$((n + 1))
	if [ "${RETRY:-}" = 1 ] && failures "$tmp/$n.failed"; then
		passes "$tmp/$n.passed"
		echo "$t" >"$tmp/$n.program"
	else
		failed=1
	fi
done
while [ "$n" -gt 0 ]; do
	[ ! -e "$tmp/$n.program" ] || again "$(cat "$tmp/$n.program")" $n || failed=1
	n=$((n - 1))
done
exit $failed
