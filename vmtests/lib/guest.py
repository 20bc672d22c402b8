# SPDX-License-Identifier: Apache-2.0
"""One command in a virtual machine: boots, streams what it prints, and says how it ended.

The guest's root is the host's, read-only; nothing it writes survives. What is kept lies in a folder: `stdout` (with stderr),
`console` (the kernel's warnings as they came), `dmesg` (all of its log, if the guest lived to say it), `verdict`. The status
comes through a port of its own, which only vmtests/init writes: a guest that crashes, hangs or is silent has none."""
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import splats
from kernels import TREE, Failed

MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
PASSED = re.compile(r"B|SCALE|(E2E|CULVERT|VM|FUZZ)_\w+")  # what of the caller's environment a guest gets
FIRST_LINE = 60  # seconds within which a guest must have come up; one that did not is started once more
KVM_PROBE = 20


class Result:
    """status: the command's, or None; why: "" or what went wrong with the guest itself; splats: lines of the kernel's log"""

    def __init__(self, status, why, found, seconds):
        self.status, self.why, self.splats, self.seconds = status, why, found, seconds

    @property
    def good(self):
        return self.status == 0 and not self.why and not self.splats


class Guest:
    """`swift`: spares what an emulated CPU is slow at, string instructions (byte by byte), mitigations, and programs at other
    addresses each time, whose code is translated anew: for whoever counts instructions a guest has to be as it is on hardware."""

    def __init__(self, kernel, command, folder, *, timeout=600, memory="2G", cpus=1, accel=None, qemu=(), env=None,
                 echo=None, swift=True):
        self.kernel, self.command, self.folder, self.timeout = kernel, command, folder, timeout
        self.memory, self.cpus, self.accel, self.qemu = memory, cpus, accel, list(qemu)
        self.env, self.echo, self.process, self.lines, self.ended = env or {}, echo, None, 0, False
        self.swift = swift

    def run(self):
        """A guest whose first line never came is started once more: QEMU's fault more often than the kernel's."""
        result = self.run_once()
        if result.status is None and not (self.lines or result.splats or self.ended):
            result = self.run_once()
        return result

    def run_once(self):
        os.makedirs(self.folder, exist_ok=True)
        for name in ("stdout", "console", "verdict", "dmesg"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{name}")
        start, why = time.monotonic(), ""
        with tempfile.TemporaryDirectory(prefix="culvert-vm-") as tmp:
            initramfs(self.kernel, self.script(), tmp)
            with open(f"{self.folder}/stdout", "wb") as log, open(f"{self.folder}/qemu", "w") as err:
                self.process = subprocess.Popen(self.argv(tmp), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                                stderr=err, start_new_session=True)  # a Ctrl-C is ours to pass on
                reader = threading.Thread(target=self.read, args=(log,))
                reader.start()
                try:
                    self.process.wait(self.timeout)
                except subprocess.TimeoutExpired:
                    why = f"still ran after {self.timeout} s"
                finally:
                    self.stop()
                    reader.join()
        status, found = self.verdict(), splats.scan(self.folder)
        if status is None and not why:
            why = "the guest ended without a verdict: " + (found[0] if found else self.last_words())
        return Result(status, why, found, time.monotonic() - start)

    def end(self):
        """From another thread: the guest goes, and no other is started."""
        self.ended = True
        self.stop()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()  # nothing of a guest is worth a farewell
            self.process.wait()

    def read(self, log):
        for line in self.process.stdout:
            self.lines += 1
            log.write(line)
            log.flush()
            if self.echo:
                self.echo(line.decode(errors="replace"))

    def script(self):
        env = {k: v for k, v in os.environ.items() if PASSED.fullmatch(k)} | self.env
        return "".join(f"export {k}={shlex.quote(v)}\n" for k, v in env.items()) + self.command + "\n"

    def argv(self, tmp):
        accel = self.accel or default_accel(self.kernel)
        append = ["console=ttyS0", "loglevel=5", "panic=-1", "oops=panic", "no_timer_check", "tsc=reliable", "nokaslr",
                  f"vm.modules={self.kernel.modules}", f"vm.cwd={os.getcwd()}", *["mitigations=off", "norandmaps"] * self.swift]
        cpu = "max,-erms,-fsrm" if self.swift else "max"
        return ["setpriv", "--pdeathsig", "KILL",  # it goes with us, whatever ends us
                "qemu-system-x86_64", "-accel", accel, "-cpu", cpu if accel.startswith("tcg") else "host", "-m", self.memory,
                "-smp", str(self.cpus), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-kernel", self.kernel.vmlinux, "-initrd", f"{tmp}/initramfs", "-append", " ".join(append),
                "-serial", f"file:{self.folder}/console", "-serial", f"file:{self.folder}/verdict",
                # Not stdio: with nothing to read it counts as gone, and the guest's first write would wait for ever.
                "-device", "virtio-serial", "-chardev", "file,id=out,path=/proc/self/fd/1",
                "-device", "virtserialport,chardev=out,name=out",
                "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=root,mount_tag=root", *self.qemu]

    def verdict(self):
        """The command's status, if the guest lived to say it; its log goes to a file of its own."""
        status, log = None, []
        with contextlib.suppress(FileNotFoundError), open(f"{self.folder}/verdict", errors="replace") as f:
            for line in f.read().replace("\r", "").splitlines():
                if line.startswith("dmesg: "):
                    log.append(line[7:])
                elif m := re.fullmatch(r"status (\d+)", line):
                    status = int(m[1])
        if log:
            with open(f"{self.folder}/dmesg", "w") as f:
                f.write("\n".join(log) + "\n")
        return status

    def last_words(self):
        for name in ("verdict", "qemu", "console"):
            with contextlib.suppress(FileNotFoundError), open(f"{self.folder}/{name}", errors="replace") as f:
                lines = [x.strip() for x in f if x.strip() and not x.startswith("dmesg: ")]
                if lines:
                    return lines[-1]
        return f"it said nothing; see {self.folder}"


def initramfs(kernel, command, tmp):
    """Holds what reaches the host's root: busybox, the 9p modules, init and the command."""
    root = f"{tmp}/root"
    for d in ("bin", "dev", "proc", "sys", "modules", "up", "low", "new"):
        os.makedirs(f"{root}/{d}")
    busybox = shutil.which("busybox", path=os.environ["PATH"] + ":/bin:/usr/bin")
    if not busybox or b"ld-linux" in open(busybox, "rb").read(4096):
        raise Failed("a static busybox is missing: run 'sudo make vmdeps'")
    shutil.copy(busybox, f"{root}/bin/busybox")
    shutil.copy(f"{TREE}/vmtests/init", f"{root}/init")
    with open(f"{root}/command", "w") as f:
        f.write(command)
    for i, path in enumerate(kernel.module_files(*MODULES)):
        name = f"{root}/modules/{i:02}-{os.path.basename(path)}"
        if path.endswith(".xz"):
            with open(name.removesuffix(".xz"), "wb") as out:
                subprocess.run(["xz", "-dc", path], stdout=out, check=True)
        else:
            shutil.copy(path, name)
    files = subprocess.run(["find", "."], cwd=root, stdout=subprocess.PIPE, check=True).stdout
    with open(f"{tmp}/initramfs", "wb") as out:
        subprocess.run([busybox, "cpio", "-o", "-H", "newc", "-R", "0:0"], cwd=root, input=files, stdout=out, check=True,
                       stderr=subprocess.DEVNULL)


def default_accel(kernel):
    """KVM where a guest really comes up with it: that /dev/kvm opens says nothing. Asked once per boot of the host."""
    if os.environ.get("VM_ACCEL"):
        return os.environ["VM_ACCEL"]
    with open("/proc/sys/kernel/random/boot_id") as f:
        known = f"{TREE}/build-vm/accel-{f.read().strip()}"
    with contextlib.suppress(FileNotFoundError), open(known) as f:
        return f.read()
    works = False
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        with tempfile.TemporaryDirectory(prefix="culvert-vm-") as tmp:
            works = Guest(kernel, "true", tmp, timeout=KVM_PROBE, accel="kvm").run_once().status == 0
    accel = "kvm" if works else "tcg"
    os.makedirs(os.path.dirname(known), exist_ok=True)
    with open(known, "w") as f:
        f.write(accel)
    return accel


@contextlib.contextmanager
def ending(*signals):
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that guests end and temporary files go."""
    def stop(number, frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    old = {s: signal.signal(s, stop) for s in signals or (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
