# SPDX-License-Identifier: Apache-2.0
"""Named test rows: each is printed as "ok NAME", "FAIL NAME: why" or "skip NAME: reason", with counts at the end.

A file registers rows with @table.row(...) and ends with table.main(). Arguments on the command line are name
patterns (fnmatch); -l lists. A row gets what its fixture returns; a fixture lives as long as rows that use it follow
each other, so rows are run grouped by fixture. After E2E_LIMIT seconds (300) the row that runs fails and the file ends;
it cleans up then, as on SIGINT, SIGTERM and SIGHUP. Exit status: 0 nothing failed, 1 a row failed, 2 wrong usage."""
import contextlib
import fnmatch
import os
import signal
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
import scale  # not by way of .net: tests/net/ imports this file alone
from topology import unwinding


class Skip(Exception):
    """The row cannot run here; the message says what is missing."""


class OutOfTime(BaseException):
    """The file's time is over."""


def out_of_time(number, frame):
    raise OutOfTime


V4, V6 = False, True
FAMILIES = (V4, V6)


class Table:
    def __init__(self, file):
        self.name = os.path.basename(file).removesuffix("_test.py")
        self.rows, self.at = [], ""

    def row(self, name, fixture=None, *args):
        """Registers fn(fixture's value, *args)."""

        def add(fn):
            self.rows.append((f"{self.name}/{name}", fixture, fn, args))
            return fn

        return add

    def each(self, beds, name, families=(None,)):
        """A row for each of `beds` (name: fixture; "" adds nothing to the row's), and for each of `families` (V4, V6), which the
        function is then told as `v6`."""

        def add(fn):
            for bed, fixture in beds.items():
                for v6 in families:
                    parts = (bed, None if v6 is None else "v6" if v6 else "v4", name)
                    self.row("/".join(p for p in parts if p), fixture, *([] if v6 is None else [v6]))(fn)
            return fn

        return add

    def main(self):
        want = [a for a in sys.argv[1:] if not a.startswith("-")]
        rows = [r for r in self.rows if not want or any(fnmatch.fnmatch(r[0], f"*{w}*") for w in want)]
        if "-l" in sys.argv:
            print("\n".join(r[0] for r in rows))
            sys.exit(0)
        if not rows:
            print(f"{self.name}: no row matches", file=sys.stderr)
            sys.exit(77)
        limit = int(os.environ.get("E2E_LIMIT") or scale.deadline(300))
        signal.signal(signal.SIGALRM, out_of_time)
        signal.alarm(limit)
        try:
            with unwinding():
                sys.exit(self.run(rows))
        except OutOfTime:
            print(f"FAIL {self.at}: the file's {limit} s were over; rows after it did not run", flush=True)
            sys.exit(1)
        except KeyboardInterrupt:
            print(f"# {self.name}: stopped in {self.at}", flush=True)
            sys.exit(130)

    def run(self, rows):
        start, count = time.monotonic(), {"ok": 0, "FAIL": 0, "skip": 0}
        fixtures = []
        for r in rows:
            if r[1] not in fixtures:
                fixtures.append(r[1])
        for fixture in fixtures:
            group = [r for r in rows if r[1] is fixture]
            try:
                with contextlib.ExitStack() as stack:
                    self.run_group(stack, fixture, group, count)
            except AssertionError as e:  # what only shows when the agents have ended
                count["FAIL"] += 1
                print(f"FAIL {group[0][0]} and those beside it: {explain(e)}", flush=True)
        print(f"# {self.name}: {count['ok']} ok, {count['FAIL']} failed, {count['skip']} skipped, "
              f"{time.monotonic() - start:.0f} s", flush=True)
        return 1 if count["FAIL"] else 0

    def run_group(self, stack, fixture, group, count):
        value, broken = None, None
        self.at = group[0][0]
        if fixture:
            try:
                value = stack.enter_context(fixture())
            except Skip as e:
                broken = ("skip", str(e))
            except Exception as e:  # the rows of a broken fixture fail, the others run
                broken = ("FAIL", f"fixture: {explain(e)}")
        for name, _, fn, args in group:
            t, self.at = time.monotonic(), name
            verdict, why = broken or run_row(fn, value, args)
            count[verdict] += 1
            took = time.monotonic() - t
            print(f"{verdict} {name}{': ' + why if why else ''}" + (f" ({took:.1f} s)" if took > 2 else ""), flush=True)
            if verdict == "FAIL" and hasattr(value, "explain"):
                value.explain()


def run_row(fn, value, args):
    try:
        fn(value, *args) if value is not None else fn(*args)
        return "ok", ""
    except Skip as e:
        return "skip", str(e)
    except Exception as e:
        return "FAIL", explain(e)


def explain(e):
    if os.environ.get("E2E_TRACE"):
        traceback.print_exception(e)
    frames = traceback.extract_tb(e.__traceback__)
    here = [f for f in frames if "_test.py" in f.filename] or frames
    return f"{type(e).__name__}: {e} [{os.path.basename(here[-1].filename)}:{here[-1].lineno}]".replace("\n", " ")


def check(condition, why):
    if not condition:
        raise AssertionError(why() if callable(why) else why)


def equal(got, want, what):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


def until(fn, what, deadline=10.0, every=0.02):
    """Waits for fn() to become true and returns it; fails with the last value or error at the deadline."""
    deadline = scale.deadline(deadline)
    end, last = time.monotonic() + deadline, None
    while True:
        try:
            last = fn()
            if last:
                return last
        except (OSError, AssertionError, KeyError, ValueError) as e:
            last = e
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s for {what}; last: {last!r}")
        time.sleep(every)
