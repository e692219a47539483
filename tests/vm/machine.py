"""A virtual machine with Debian's kernel and this machine's own programs, for what the machine itself cannot be asked.

The kernel comes from Debian's package, which script/bootstrap unpacks into build/vm without installing it. The root file
system is an initramfs: what `dpkg -L` names of a few packages, the programs that a test brings, and the libraries of all
of them. It has no disk, no network but its own loopback, and ends with what /init runs. No KVM is needed.
"""

import glob
import os
import shutil
import stat
import subprocess
import sys
import threading

# What scripts and tests call, by Debian's packages; the machine that runs the tests has them. PYTHON: the version of Debian's.
PACKAGES = ("base-files", "bash", "coreutils", "dash", "findutils", "grep", "hostname", "iproute2", "libc-bin", "mount", "procps",
            "python3-minimal", "PYTHON-minimal", "libPYTHON-minimal", "libPYTHON-stdlib", "sed", "util-linux")
# What no program of a test reads.
LEFT_OUT = ("/usr/share/", "/etc/")

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
ip link set lo up
hostname vm
# The kernel gives /init what it does not know of its command line.
/bin/sh "$vm_tests" </dev/null
echo "vm: ended with $?"
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
"""


class Missing(Exception):
    """What this machine lacks, in words; the test is skipped with them."""


def kernel(folder):
    """The newest kernel below it."""
    found = sorted(glob.glob(os.path.join(folder, "boot", "vmlinuz-*")))
    if not found:
        raise Missing("there is no kernel in %s: script/bootstrap fetches Debian's" % folder)
    return found[-1]


def emulator():
    path = shutil.which("qemu-system-x86_64")
    if path is None:
        raise Missing("qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
    return path


def libraries(program):
    """The shared libraries of a program, with the loader."""
    text = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    for word in text.split():
        if word.startswith("/"):
            yield word


class Root:
    """A root file system, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        # As on any merged Debian.
        for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "tmp", "run", "root", "var/tmp"):
            os.makedirs(os.path.join(folder, name))
        for name in ("bin", "sbin", "lib", "lib64"):
            os.symlink("usr/" + name, os.path.join(folder, name))
        os.symlink("/run", os.path.join(folder, "var", "run"))
        self.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        self.write("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self.write("etc/hosts", "127.0.0.1 localhost vm\n")
        self.done = set()

    def write(self, path, text, mode=0o644):
        full = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as file:
            file.write(text)
        os.chmod(full, mode)

    def add(self, path, to=None, strip=False):
        """A file of this machine, at the same place or at another, with the libraries that it needs."""
        to = to or path
        if to in self.done:
            return
        self.done.add(to)
        # In the folder that a link such as /lib leads to, inside of this root.
        parent = os.path.dirname(to)
        for merged in ("/bin", "/sbin", "/lib", "/lib64"):
            if parent == merged or parent.startswith(merged + "/"):
                parent = "/usr" + parent
        target = self.folder + os.path.join(parent, os.path.basename(to))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            leads = os.readlink(path)
            if not os.path.lexists(target):
                os.symlink(leads, target)
            real = os.path.realpath(path)
            if os.path.isfile(real):
                self.add(real)
            return
        if strip:
            subprocess.run(["strip", "-o", target, path], check=True)
        else:
            shutil.copyfile(path, target)
        os.chmod(target, stat.S_IMODE(os.stat(path).st_mode))
        with open(path, "rb") as file:
            if file.read(4) == b"\x7fELF":
                for library in libraries(path):
                    self.add(library)

    def add_packages(self):
        python = os.path.basename(os.path.realpath("/usr/bin/python3"))
        packages = [name.replace("PYTHON", python) for name in PACKAGES]
        try:
            done = subprocess.run(["dpkg", "-L", *packages], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError:
            raise Missing("this is no Debian: there is no dpkg to say which files the machine is made of") from None
        if done.returncode != 0:
            raise Missing("not all of Debian's packages for the machine are installed: " + done.stderr.splitlines()[0])
        for path in done.stdout.splitlines():
            if path.startswith("/") and not path.startswith(LEFT_OUT) and (os.path.isfile(path) or os.path.islink(path)):
                self.add(path)
        for path in ("/usr/bin/awk", "/etc/alternatives/awk"):
            if os.path.lexists(path):
                self.add(path)

    def pack(self, image):
        names = subprocess.run(["find", ".", "-print0"], cwd=self.folder, check=True, stdout=subprocess.PIPE).stdout
        with open(image, "wb") as file:
            subprocess.run(["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"], cwd=self.folder,
                           input=names, stdout=file, check=True)


def boot(image, kernel_path, tests, cpus, timeout, memory_mib=2048):
    """Runs the script `tests` of the image in it, to its end; its console goes to standard output. Returns what the script
    ended with, or None.

    With one CPU its clock counts instructions, 500 million a second: what is to happen within a time does not depend on
    what else the real machine does. With several that is not to be had.
    """
    clock = ["-icount", "shift=1"] if cpus == 1 else []
    command = [emulator(), "-accel", "tcg", *clock, "-cpu", "max", "-smp", str(cpus), "-m", str(memory_mib), "-nographic",
               "-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", kernel_path, "-initrd", image,
               "-append", "console=ttyS0 panic=-1 quiet mitigations=off rdinit=/init vm_tests=" + tests]
    ended = None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace") as vm:
        overdue = threading.Timer(timeout, vm.kill)
        overdue.start()
        try:
            for line in vm.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                if line.startswith("vm: ended with "):
                    ended = int(line.split()[3])
        finally:
            overdue.cancel()
            vm.kill()
    return ended
