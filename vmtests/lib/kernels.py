# SPDX-License-Identifier: Apache-2.0
"""Kernels for the guests: fetched with apt from the machine's own mirror, unpacked into a cache, never installed.

  FOLDER/apt/              a private apt root: our own sources.list, lists and archives, nothing of the machine's is changed
  FOLDER/VERSION/          one kernel: lib/modules/RELEASE (pruned, depmod has run), vmlinux, release
  FOLDER/NAME -> VERSION   what `6.1`, `6.12` and `newest` mean until `vmtests/kernels --refresh` looks again

FOLDER is $VM_KERNELS_DIR or build-vm/kernels. apt checks the suite's signature and every file's SHA256. A name is looked up in
the suite's Packages file, since a mirror keeps only the last few versions."""
import contextlib
import fcntl
import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Name: suites, and what the release begins with. Release candidates (experimental) are not a kernel that people run.
KERNELS = {"6.1": (["bookworm-security"], r"6\.1\."),
           "6.12": (["bookworm-security"], r"6\.12\."),
           "newest": (["sid", "trixie-backports"], r"\d")}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Drivers and file systems that no test meets: 400 MB become 60.
PRUNED = """sound drivers/gpu drivers/media drivers/staging drivers/infiniband drivers/scsi drivers/usb drivers/hwmon drivers/iio
drivers/net/wireless drivers/net/ethernet drivers/isdn drivers/mtd drivers/input drivers/ata drivers/md drivers/mmc drivers/nvme
drivers/platform fs/xfs fs/btrfs fs/ocfs2 fs/gfs2 fs/f2fs fs/nfs fs/nfsd fs/smb fs/cifs fs/ceph fs/ubifs fs/jfs fs/bcachefs
net/mac80211 net/bluetooth net/wireless""".split()


class Failed(Exception):
    """One line: what, where, what to do."""


def folder():
    return os.path.abspath(os.environ.get("VM_KERNELS_DIR") or f"{TREE}/build-vm/kernels")


class Kernel:
    """An unpacked kernel. `modules` is its lib/modules/RELEASE."""

    def __init__(self, path):
        self.path = os.path.realpath(path)
        self.version = os.path.basename(self.path)
        with open(f"{self.path}/release") as f:
            self.release = f.read().strip()
        self.vmlinux, self.modules = f"{self.path}/vmlinux", f"{self.path}/lib/modules/{self.release}"

    def module_files(self, *names):
        """The files to insert, in order, for these modules; what is built in needs none."""
        out = []
        for name in names:
            for line in tool("modprobe", "-d", self.path, "-S", self.release, "--show-depends", name).splitlines():
                if line.startswith("insmod ") and (path := line.split()[1]) not in out:
                    out.append(path)
        return out


def tool(*argv, **kw):
    try:
        env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C"}
        r = subprocess.run(argv, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, **kw)
    except FileNotFoundError:
        raise Failed(f"{argv[0]} is missing: run 'sudo make vmdeps'") from None
    if r.returncode:
        last = (r.stderr or r.stdout).strip().splitlines()
        raise Failed(f"{' '.join(argv[:2])}: {last[-1] if last else f'exit status {r.returncode}'}")
    return r.stdout


def find(name, refresh=False):
    """The kernel of that name: from the cache, or fetched. A folder's path names itself."""
    if "/" in name:
        if not os.path.exists(f"{name}/release"):
            raise Failed(f"{name}: no unpacked kernel there; 'vmtests/kernels' lists those that are")
        return Kernel(name)
    link = f"{folder()}/{name}"
    if name not in KERNELS and not os.path.exists(f"{link}/release"):
        raise Failed(f"{name}: no such kernel; there are {', '.join(KERNELS)}, and the folders of {folder()}")
    os.makedirs(folder(), exist_ok=True)
    with open(f"{folder()}/.lock", "w") as lock:  # two guests of one kernel may begin at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if name in KERNELS and (refresh or not os.path.exists(f"{link}/release")):
            fetch(name, link)
    return Kernel(link)


def mirrors():
    """(archive, security archive): base URLs as in the machine's apt sources, or $VM_MIRROR."""
    given = os.environ.get("VM_MIRROR")
    if given:
        return given.rstrip("/"), given.rstrip("/") + "-security"
    out = tool("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
    at = dict(line.rsplit(" ", 1) for line in reversed(out.splitlines()))
    if "Debian" not in at:
        raise Failed("no Debian archive in the machine's apt sources (or no 'apt-get update' yet): "
                     "set VM_MIRROR to a mirror's base URL, without -security")
    main = at["Debian"].rstrip("/")
    return main, at.get("Debian-Security", main + "-security").rstrip("/")


class Apt:
    """apt with a root of its own for some suites."""

    def __init__(self, name, suites):
        self.root = f"{folder()}/apt/{name}"
        for d in ("lists/partial", "archives/partial"):
            os.makedirs(f"{self.root}/{d}", exist_ok=True)
        main, security = mirrors()
        signed = f" signed-by={KEYRING}" if os.path.exists(KEYRING) else ""
        with open(f"{self.root}/sources.list", "w") as f:
            for s in suites:
                f.write(f"deb [arch=amd64{signed}] {security if s.endswith('-security') else main} {s} main\n")
        self.options = [f"-oDir::Etc::SourceList={self.root}/sources.list", "-oDir::Etc::SourceParts=/dev/null",
                        "-oDir::Etc::Preferences=/dev/null", "-oDir::Etc::PreferencesParts=/dev/null",
                        f"-oDir::State::Lists={self.root}/lists", "-oDir::State::Status=/dev/null",
                        f"-oDir::Cache={self.root}", "-oAPT::Architecture=amd64", "-oAPT::Architectures=amd64",
                        "-oAPT::Sandbox::User=", "-oAcquire::Languages=none", "-oAcquire::Retries=3",
                        "-oAPT::Update::Post-Invoke::=true", "-oAPT::Update::Error-Mode=any"]

    def run(self, program, *argv, **kw):
        return tool(program, *self.options, *argv, **kw)

    def images(self, release):
        """{Debian version: packages that hold such a kernel's image and modules}"""
        out, name = {}, ""
        pattern = re.compile(rf"linux-(image|base|binary|modules)-({release}\S*)-amd64")
        for line in self.run("apt-cache", "dumpavail").splitlines():
            if line.startswith("Package: "):
                name = line[9:]
            elif line.startswith("Version: ") and (m := pattern.fullmatch(name)) and not re.search("cloud|rt|~rc", m[2]):
                out.setdefault(line[9:], []).append(name)
        return out


def newest(versions):
    best = None
    for v in versions:
        if best is None or not subprocess.run(["dpkg", "--compare-versions", v, "gt", best]).returncode:
            best = v
    return best


def fetch(name, link):
    suites, release = KERNELS[name]
    apt = Apt(name, suites)
    apt.run("apt-get", "update")
    images = apt.images(release)
    if not images:
        raise Failed(f"{name}: no kernel image in {', '.join(suites)} of {mirrors()[0]}; see KERNELS in vmtests/lib/kernels.py")
    version = newest(images)
    path = f"{folder()}/{version}"
    if not os.path.exists(f"{path}/release"):
        shutil.rmtree(path, True)
        for old in os.scandir(f"{apt.root}/archives"):
            if old.is_file():
                os.unlink(old)
        apt.run("apt-get", "download", *(f"{p}={version}" for p in images[version]), cwd=f"{apt.root}/archives")
        unpack(f"{apt.root}/archives", path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(version, link)


def unpack(archives, path):
    """Makes a kernel's folder. `release` is written last: without it the folder does not count."""
    for deb in sorted(os.listdir(archives)):
        if deb.endswith(".deb"):
            tool("dpkg-deb", "-x", f"{archives}/{deb}", path)
            os.unlink(f"{archives}/{deb}")
    if not os.path.exists(f"{path}/lib"):
        os.symlink("usr/lib", f"{path}/lib")  # packages since 7.0
    release, = os.listdir(f"{path}/lib/modules")
    modules = f"{path}/lib/modules/{release}"
    for d in PRUNED:
        shutil.rmtree(f"{modules}/kernel/{d}", True)
    shutil.rmtree(f"{path}/usr/share", True)
    tool("depmod", "-b", path, release)
    image = next(p for p in (f"{path}/boot/vmlinuz-{release}", f"{modules}/vmlinuz") if os.path.exists(p))
    with open(image, "rb") as f, open(f"{path}/vmlinux", "wb") as out:
        out.write(vmlinux(f.read()))
    with open(f"{path}/release.new", "w") as f:
        f.write(release + "\n")
    os.rename(f"{path}/release.new", f"{path}/release")


def vmlinux(image):
    """The ELF file in a bzImage (its header: Documentation/arch/x86/boot.rst). QEMU starts it by PVH, which spares a slow
    guest the unpacking: 2 to 5 seconds of each boot."""
    sectors, (offset, length) = image[0x1f1] or 4, struct.unpack_from("<II", image, 0x248)
    begin = (sectors + 1) * 512 + offset
    data = image[begin:begin + length]
    if data.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data[:-4])  # the size follows
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            return subprocess.run(["zstd", "-dcq"], input=data[:-4], stdout=subprocess.PIPE, check=True).stdout
        except FileNotFoundError:
            raise Failed("zstd is missing: run 'sudo make vmdeps'") from None
    raise Failed(f"a kernel image compressed in a way that starts with {data[:4].hex()}: teach vmlinux() in vmtests/lib/kernels.py")
