#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds every tests/fuzz/NAME_fuzz.c with libFuzzer and the address and undefined sanitizers and runs each for
# FUZZ_SECONDS (10) over tests/fuzz/corpus/NAME. New inputs stay in $B-fuzz/corpus; a crash is printed with its file.
# With FUZZ_SEED=n it starts from the corpus alone, so that FUZZ_RUNS=n runs are the same ones each time.
# Arguments: names, all by default.
set -u
cd "$(dirname "$0")/../.." || exit 2
B=${B:-build}
out="$B-fuzz"
seconds=${FUZZ_SECONDS:-10}

if ! command -v clang >/dev/null 2>&1 ||
	! echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
	clang -x c - -fsanitize=fuzzer -o /dev/null 2>/dev/null; then
	echo "skip fuzz: clang with libFuzzer is not installed"
	exit 0
fi
# One target, which is built. The line that it ends with begins with ok or FAIL.
one() {
	bin="$out/tests/fuzz/$1_fuzz" log="$out/$1.txt" seeds=""
	if [ ! -x "$bin" ]; then
		echo "FAIL fuzz/$1: does not build"
		return
	fi
	grown="$out/corpus${FUZZ_SEED:+-$FUZZ_SEED}/$1"
	[ -z "${FUZZ_SEED:-}" ] || rm -rf "$grown"
	mkdir -p "$grown" "$out/crash"
	[ -d "tests/fuzz/corpus/$1" ] && seeds="tests/fuzz/corpus/$1"
	# shellcheck disable=SC2086
	if "$bin" ${FUZZ_SEED:+-seed="$FUZZ_SEED"} ${FUZZ_RUNS:+-runs="$FUZZ_RUNS"} -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
		-artifact_prefix="$out/crash/$1-" "$grown" $seeds >"$log" 2>&1; then
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		echo "ok fuzz/$1: ${runs:-?} runs"
	else
		tail -n 3 "$log"
		echo "FAIL fuzz/$1: $(grep -m1 -E 'ERROR|runtime error|SUMMARY' "$log")"
	fi
}

if [ "${1:-}" = --one ]; then # of the processes below
	one "$2"
	exit 0
fi
names=${*:-$(ls tests/fuzz/*_fuzz.c 2>/dev/null | sed 's|.*/||; s|_fuzz\.c$||')}
[ -n "$names" ] || { echo "skip fuzz: no target in tests/fuzz"; exit 0; }

targets="" jobs=$(nproc)
for n in $names; do targets="$targets $out/tests/fuzz/${n}_fuzz"; done
# shellcheck disable=SC2086
make --no-print-directory -k -j"$jobs" B="$out" SAN=1 CC=clang CFLAGS="-fsanitize=fuzzer-no-link -fno-sanitize=function" \
	$targets >"$out.log" 2>&1 || { grep -E 'error|undefined|No rule' "$out.log" | head -20; }
mkdir -p "$out"
printf '%s\n' $names | xargs -P "$jobs" -n 1 tests/tools/fuzz.sh --one | tee "$out/result"
rm -f "$out.log"
ok=$(grep -c '^ok ' "$out/result") failed=$(grep -c '^FAIL ' "$out/result")
echo "# fuzz: $ok ok, $failed failed, ${seconds} s each, $jobs at once"
[ "$failed" = 0 ]
