# SPDX-License-Identifier: Apache-2.0
"""A certificate authority in a folder, by the openssl command: root, intermediates, server certificates, SPIFFE leaves and
revocation lists."""
import os
import threading
import time

from .net import sh

_serial = threading.Lock()

# What `openssl ca` wants to know: it alone makes revocation lists, and certificates that end within the day.
CONFIG = """
[ca]
default_ca = this
[this]
certificate = {cert}
private_key = {key}
database = {base}.index
crlnumber = {base}.number
new_certs_dir = {folder}
default_md = sha256
default_crl_days = 1
crl_extensions = list
unique_subject = no
rand_serial = yes
policy = any
[any]
organizationName = optional
[list]
authorityKeyIdentifier = keyid:always
"""


class Ca:
    def __init__(self, folder, name="mesh", parent=None):
        self.folder, self.parent = folder, parent
        self.cert, self.key = f"{folder}/{name}.pem", f"{folder}/{name}.key"
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
           "-subj", f"/O={name}.test", "-keyout", self.key, "-out", self.cert,
           "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
           *(("-CA", parent.cert, "-CAkey", parent.key) if parent else ()))
        os.chmod(self.key, 0o600)
        self.count = 0

    def sign(self, csr_pem, san, days="1", usage="serverAuth,clientAuth", seconds=None):
        """The certificate for a request, with our own subject alternative name. `seconds`: how long it is valid."""
        with _serial:
            self.count += 1
            base = f"{self.folder}/leaf-{os.path.basename(self.key)}-{self.count}"
        with open(base + ".ext", "w") as f:
            f.write(f"subjectAltName=critical,{san}\nkeyUsage=critical,digitalSignature,keyEncipherment\n")
            f.write(f"basicConstraints=critical,CA:FALSE\n" + (f"extendedKeyUsage={usage}\n" if usage else ""))
        with open(base + ".csr", "w") as f:
            f.write(csr_pem)
        if seconds is not None:
            now = time.time()
            dates = [time.strftime("%Y%m%d%H%M%SZ", time.gmtime(t)) for t in (now - 60, now + seconds)]
            return self._ca("-in", base + ".csr", "-batch", "-notext", "-subj", "/O=test", "-startdate", dates[0],
                            "-enddate", dates[1], "-extfile", base + ".ext")
        return sh("openssl", "x509", "-req", "-in", base + ".csr", "-CA", self.cert, "-CAkey", self.key, "-set_serial",
                  str(self.count + 1000), "-days", days, "-sha256", "-extfile", base + ".ext")

    def leaf(self, san, **kw):
        """A new key with its certificate, (cert path, key path). san: "URI:spiffe://...", "DNS:localhost,IP:..."."""
        with _serial:
            self.count += 1
            base = f"{self.folder}/own-{os.path.basename(self.key)}-{self.count}"
        csr = sh("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-subj", "/O=test", "-keyout", base + ".key")
        with open(base + ".pem", "w") as f:
            f.write(self.sign(csr, san, **kw))
        return base + ".pem", base + ".key"

    def _ca(self, *argv):
        base = self.cert.removesuffix(".pem")
        with _serial:
            with open(base + ".config", "w") as f:
                f.write(CONFIG.format(cert=self.cert, key=self.key, base=base, folder=self.folder))
            if not os.path.exists(base + ".index"):
                open(base + ".index", "w").close()
            return sh("openssl", "ca", "-config", base + ".config", *argv)

    def crl(self, *serials):
        """A list that revokes the certificates with these numbers, PEM."""
        base = self.cert.removesuffix(".pem")
        with _serial:
            with open(base + ".index", "w") as f:
                for s in serials:
                    number = f"{s:X}"
                    f.write(f"R\t491231000000Z\t200101000000Z\t{'0' * (len(number) % 2)}{number}\tunknown\t/O=test\n")
            if not os.path.exists(base + ".number"):
                with open(base + ".number", "w") as f:
                    f.write("01\n")
        return self._ca("-gencrl")

    def serial(self):
        """Our own certificate's."""
        return int(sh("openssl", "x509", "-noout", "-serial", "-in", self.cert).partition("=")[2], 16)

    def root(self):
        with open(self.cert) as f:
            return f.read()
