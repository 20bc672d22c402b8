#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The systemd unit and the image's recipe, as far as they can be checked without running them: systemd's own verdicts, what `make
install` would put where, and that the recipe installs what the programs need."""
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lib.net import folder, sh
from lib.rows import Skip, Table, check, equal

T = Table(__file__)
TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(os.environ.get("B", "build"))
UNIT = f"{TREE}/deploy/systemd/culvertd.service"
EXPOSED = 45  # tenths, of 100; it was 41 with systemd 252


def read(path):
    with open(f"{TREE}/{path}") as f:
        return f.read()


def settings():
    """{name: value} of the unit."""
    return dict(re.findall(r"^(\w+)=(.*)$", read("deploy/systemd/culvertd.service"), re.M))


def installed(at, prefix="/usr/local"):
    """`make install` into the folder `at`, of what is built."""
    if not os.path.exists(f"{BUILD}/bin/culvertd"):
        raise Skip(f"{os.path.relpath(BUILD)} is not built")
    sh("make", "-C", TREE, f"B={os.path.relpath(BUILD, TREE)}", "install", f"DESTDIR={at}", f"PREFIX={prefix}")
    return f"{at}{prefix}"


def analyze(*argv):
    if not shutil.which("systemd-analyze"):
        raise Skip("no systemd-analyze (systemd)")
    return subprocess.run(["systemd-analyze", *argv], capture_output=True, text=True, timeout=60)


@T.row("systemd/unit-is-understood")
def verify():
    with folder("deploy") as at:
        there = installed(at)
        unit = f"{at}/culvertd.service"
        with open(unit, "w") as f:
            f.write(read("deploy/systemd/culvertd.service").replace("/usr/local/", f"{there}/"))
        done = analyze("verify", "--man=no", unit)
        said = [x for x in (done.stdout + done.stderr).splitlines() if "culvertd" in x]
        check(done.returncode == 0 and not said, f"status {done.returncode}: {said or done.stderr}")


@T.row("systemd/sandbox-is-no-weaker-than-it-was")
def security():
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSED}", UNIT)
    check("Overall exposure level" in done.stdout, f"systemd says {done.stderr}")
    check(done.returncode == 0, done.stdout.splitlines()[-1])


@T.row("systemd/capabilities-are-the-keeper's-and-the-tunnel's")
def capabilities():
    """Those of the table on the operator's page, which tests/deploy/chart_test.py compares with the chart."""
    page = {f"CAP_{c}" for c in re.findall(r"^\| `([A-Z_]+)` \| [a-z, ]+ \|", read("deploy/README.md"), re.M)}
    equal(set(settings()["CapabilityBoundingSet"].split()), page, "CapabilityBoundingSet")


@T.row("install/unit-names-what-is-installed")
def install():
    for prefix in ("/usr/local", "/opt/culvert"):
        with folder("deploy") as at:
            there = installed(at, prefix)
            with open(f"{there}/lib/systemd/system/culvertd.service") as f:
                unit = f.read()
            for name in ("ExecStart", "Documentation"):
                path = re.search(rf"^{name}=(?:file:)?(\S+)$", unit, re.M)[1]
                check(os.path.exists(f"{at}{path}"), f"{name}={path} is not installed")
            sh("make", "-C", TREE, f"B={os.path.relpath(BUILD, TREE)}", "uninstall", f"DESTDIR={at}", f"PREFIX={prefix}")
            left = [f"{d}/{f}" for d, _, files in os.walk(at) for f in files]
            equal(left, [], "files after make uninstall")


@T.row("image/recipe-copies-what-is-there")
def image_sources():
    ignored = read("deploy/Dockerfile.dockerignore").split()
    for source in re.findall(r"^COPY (?!--from)(\S+) ", read("deploy/Dockerfile"), re.M):
        check(os.path.exists(f"{TREE}/{source}"), f"{source} is not there")
    used = {"tests/tools/deps.sh", "deploy/systemd/culvertd.service"}  # by the build and by make install
    for path in used:
        top = path.split("/")[0]
        check(f"{top}/*" not in ignored or any(path.startswith(x[1:]) for x in ignored if x[0] == "!"), f"{path} is left out")


@T.row("image/recipe-installs-each-library")
def image_libraries():
    """By name: Debian's packages are called like the libraries, with their version."""
    recipe = read("deploy/Dockerfile")
    libraries = set()
    for program in ("culvert-keeper", "culvert-tunnel"):
        path = f"{BUILD}/libexec/culvert/{program}"
        if not os.path.exists(path):
            raise Skip(f"{os.path.relpath(path)} is not built")
        needed = re.findall(r"\(NEEDED\).*\[(lib[^]]+?)(?:-[\d.]+)?\.so", sh("readelf", "-d", path))
        libraries |= {x.lower().replace("_", "-") for x in needed}
    missing = libraries - {"libc", "libm", "libcrypto", "libubsan", "libasan"}
    alias = {"libz": "zlib1g", "liburcu-qsbr": "liburcu", "liburcu-cds": "liburcu", "libyaml": "libyaml-0"}
    missing = {x for x in missing if not re.search(rf"[ (']{re.escape(alias.get(x, x))}[-\d.]*(?:\[|[\w.-]*\b)", recipe)}
    equal(missing, set(), "libraries that the recipe does not install")


@T.row("image/builds")
def image_builds():
    if not shutil.which("docker"):
        raise Skip("no docker")
    if subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode:
        raise Skip("docker has no daemon here")
    sh("docker", "build", "-q", "-f", f"{TREE}/deploy/Dockerfile", TREE)


T.main()
