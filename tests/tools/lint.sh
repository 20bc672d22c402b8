#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Style and structure: formatting, layers, own words for unfinished work, cppcheck, both compilers without a warning,
# which libraries the programs carry. Prints one line per finding and a count; exit status 1 if there was any.
# LINT_BUILD=0 leaves out what compiles. A tool that is missing is a named skip.
set -u
cd "$(dirname "$0")/../.." || exit 2
B=${B:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
: >"$tmp/findings"
skipped=""

found() { sed "s/^/$1: /" >>"$tmp/findings"; }
have() { command -v "$1" >/dev/null 2>&1 || { skipped="$skipped $1"; return 1; }; }

ours=$(ls -d userspace cni-plugin bpf 2>/dev/null)
# shellcheck disable=SC2086
sources=$(find $ours $(ls -d headers tests vmtests 2>/dev/null) -name '*.[ch]' | sort)
jobs=$(nproc)

# --- formatting and headers of files ------------------------------------------------------------------------------
if have clang-format; then
	for f in $sources; do
		clang-format --dry-run -Werror "$f" >/dev/null 2>&1 || echo "$f: run clang-format -i"
	done | found format
fi
for f in $sources $(find tests -name '*.py' -o -name '*.sh' -o -name '*.js' | sort); do
	case $f in bpf/*) licence='GPL-2.0 OR BSD-2-Clause' ;; *) licence='Apache-2.0' ;; esac
	head -n 2 "$f" | grep -q "SPDX-License-Identifier: $licence" || echo "$f: no SPDX line with $licence" | found licence
done
grep -nE '\b(TODO|FIXME|XXX|HACK)\b' $sources | found unfinished
grep -nE '\b(strcat|sprintf|gets|strtok|alloca|system|popen)[[:space:]]*\(' $(find $ours -name '*.[ch]') |
	found forbidden
find $ours headers \( -name '*.c' -o -name '*.h' \) -size +40k | sed 's/$/: more than 40 KiB/' | found size

# --- layers: a folder includes itself and the folders before it -----------------------------------------------------
layers="base loop net steer state data control node admin"
before=""
for layer in $layers; do
	before="$before $layer"
	for f in $(find "userspace/$layer" -name '*.[ch]' | sort); do
		sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([a-z]*\)\/.*/\1/p' "$f" | while read -r used; do
			case " $layers " in *" $used "*) ;; *) continue ;; esac
			case "$before " in *" $used "*) ;; *) echo "$f includes $used/, which comes after $layer/" ;; esac
		done
	done
done | found layer
# The CNI plugin runs on hosts where nothing of ours is: beside its own files it knows contracts and base/, no more.
grep -nE '#[[:space:]]*include[[:space:]]*"[a-z]+/' $(find cni-plugin -name '*.[ch]') /dev/null | grep -v '"base/' | found layer
grep -nE '#[[:space:]]*include[[:space:]]*<(openssl|curl|bpf|event2)/' $(find cni-plugin -name '*.[ch]') /dev/null | found layer
# The kernel's side knows UAPI and our own contracts only; skeletons belong to steer/.
grep -nE '#[[:space:]]*include[[:space:]]*[<"](userspace/|vmlinux|stdio|stdlib)' $(find bpf -name '*.[ch]') /dev/null | found layer
grep -lE '#[[:space:]]*include[[:space:]]*".*\.skel\.h"' $(find userspace -name '*.[ch]') /dev/null |
	grep -v '^userspace/steer/' | sed 's/$/: includes a BPF skeleton/' | found layer

# --- static analysis --------------------------------------------------------------------------------------------------
if have cppcheck; then
	# readdir() is safe on a directory that one thread has open; mmap() takes -1 for no file.
	cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr -j "$jobs" \
		--suppress=readdirCalled --suppress=invalidFunctionArg \
		--suppress=missingInclude --suppress=missingIncludeSystem --suppress=unknownMacro \
		--suppress=normalCheckLevelMaxBranches --suppress=invalidPrintfArgType_sint \
		--library=posix -D_GNU_SOURCE -DCONTAINER_OF=1 -Iuserspace -Iheaders \
		--template='{file}:{line}: {id}: {message}' $(ls -d userspace cni-plugin 2>/dev/null) 2>&1 |
		grep -E '^[^ ]+:[0-9]+: ' | grep -v ': information' | found cppcheck
fi

# --- compilers, and what the programs carry -------------------------------------------------------------------------------
if [ "${LINT_BUILD:-1}" = 1 ]; then
	for cc in gcc clang; do
		have $cc || continue
		if ! make --no-print-directory -k -j "$jobs" B="$B-lint-$cc" CC=$cc CFLAGS=-Werror all >"$tmp/$cc" 2>&1; then
			grep -E '(error|warning):|No rule' "$tmp/$cc" | head -20 | found "$cc"
			echo "the build fails" | found "$cc"
		fi
		make --no-print-directory -k -j "$jobs" B="$B-lint-$cc" CC=$cc CFLAGS=-Werror tests-syntax >"$tmp/$cc" 2>&1
		grep -E '(error|warning):' "$tmp/$cc" | head -20 | found "$cc"
	done
	libexec=$(find "$B-lint-gcc/libexec" "$B-lint-gcc/bin" -type f -perm -u+x 2>/dev/null)
	for program in $libexec; do
		case $(basename "$program") in
		*keeper* | culvert-cni) never='libssl' ;;
		*tunnel*) never='libbpf|libcurl' ;;
		*) continue ;;
		esac
		[ "$(basename "$program")" != culvert-cni ] || # static
			nm "$program" 2>/dev/null | grep -m1 -E ' T (SSL_|bpf_|curl_)' | sed "s|^|$program: |" | found library
		ldd "$program" 2>/dev/null | grep -E "$never" | sed "s|^|$program: |" | found library
	done
	[ -n "${LINT_KEEP:-}" ] || rm -rf "$B-lint-gcc" "$B-lint-clang"
fi

cat "$tmp/findings"
count=$(wc -l <"$tmp/findings")
echo "# lint: $count findings${skipped:+; skipped, not installed:$skipped}"
[ "$count" = 0 ]
