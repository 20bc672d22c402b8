#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""h2spec (github.com/summerwind/h2spec) against the HBONE port: all its cases of HTTP/2 and HPACK. It speaks plaintext to a front that
speaks TLS with a client's certificate. H2SPEC= names the program; with ZTUNNEL= what fails here must fail there as well: most cases
ask for a GET, which an HBONE server refuses, so no server of HBONE passes all of them."""
import contextlib
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import xml.etree.ElementTree as xml

sys.path.insert(0, os.path.dirname(__file__))
from lib import attack
from lib.bed import Bed
from lib.net import stop
from lib.rows import Skip, Table, check
from lib.tls_client import trusting

T = Table(__file__)
SECTIONS = ("generic", "http2", "hpack")  # all of h2spec
LEAST = 140                               # cases that must have run
KINDS = ("culvert", "ztunnel")
LIMIT = 120                               # seconds of one run
TURNS = 3                                 # some cases are a race between many requests and their answers


class Front:
    """Plaintext on the host's loopback, TLS as `cert` to `to`."""

    def __init__(self, host, to, cert):
        self.host, self.to = host, to
        self.context = trusting(*cert)

    def __enter__(self):
        self.listener = self.host.listen(0, "127.0.0.1")
        self.listener.settimeout(None)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()

    def _serve(self, plain):
        with contextlib.suppress(OSError), plain, self.context.wrap_socket(self.host.connect(self.to, 15008)) as tls:
            while True:
                if not tls.pending():
                    select.select([plain, tls], [], [], 30)
                tls.settimeout(0)
                with contextlib.suppress(ssl.SSLWantReadError):
                    data = tls.recv(65536)
                    if not data:
                        return
                    plain.sendall(data)
                plain.settimeout(0)
                with contextlib.suppress(BlockingIOError):
                    data = plain.recv(65536)
                    if not data:
                        return
                    tls.settimeout(10)
                    tls.sendall(data)
                plain.settimeout(10)


def failures(kind):
    """({case: why} of those that failed, how many ran)"""
    with Bed((kind, kind)) as bed, bed.b1.listen(80), Front(bed.u1, bed.b1.ip4, attack.certificate(bed)) as front:
        report = f"{bed.folder}/h2spec.xml"
        run = bed.u1.popen([os.environ["H2SPEC"], *SECTIONS, "-h", "127.0.0.1", "-p", str(front.port), "-o", "1", "-j", report],
                           stdout=subprocess.DEVNULL)
        try:
            run.wait(LIMIT)
        finally:
            stop(run)
        out, count = {}, 0
        for suite in xml.parse(report).getroot().iter("testsuite"):
            for case in suite.iter("testcase"):
                count += 1
                for bad in (*case.findall("failure"), *case.findall("error")):
                    out[f"{case.get('package')}: {case.get('classname')}"] = " ".join((bad.text or "").split())[:120]
        return out, count


@T.row("failures-are-a-subset-of-ztunnels")
def subset():
    if not os.environ.get("H2SPEC"):
        raise Skip("no H2SPEC= given")
    ours, count = failures("culvert")
    check(count >= LEAST, f"only {count} cases ran")
    for case, why in sorted(ours.items()):
        print(f"# culvert fails {case}: {why}")
    if not os.environ.get("ZTUNNEL"):
        raise Skip(f"no ZTUNNEL= given; {len(ours)} of {count} cases fail")
    theirs, turns = set(), 0
    while turns < TURNS and (not turns or not set(ours) <= theirs):
        theirs |= set(failures("ztunnel")[0])
        turns += 1
    print(f"# of {count} cases culvert fails {len(ours)}, ztunnel {len(theirs)} in {turns} runs")
    check(set(ours) <= theirs, lambda: f"only here: {sorted(set(ours) - theirs)}")


if __name__ == "__main__":
    T.main()
