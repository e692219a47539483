"""What jobs cannot pass on a machine with cgroup v2 alone: the same tests as elsewhere, in a virtual machine with Debian's kernel.

    test_cgroup_v2.py KERNEL_FOLDER

The machine that runs the tests may have cgroup v1, or no control groups that it may use; this one has them all.
Exit status 77, with the reason, where there is no qemu or no kernel.
"""

import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import machine  # noqa: E402

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MUSTER_BUILD_DIR", os.path.join(SOURCE, "build", "release"))
PROGRAMS = ("bin/muster", "bin/muster-ctld", "bin/muster-noded", "bin/muster-shepherd", "bin/muster-nodeinit")
UNIT = "tests/noded_enforcement_test"
SKIPPED = 77

# Nothing may be skipped there: a machine with cgroup v2 gives every function. Not asked for is what belongs to v1 or to no
# groups, and what needs two CPUs, which is asked for by itself.
UNITS = """
export MUSTER_BUILD_DIR=%(build)s MUSTER_SOURCE_DIR=%(source)s
%(build)s/%(unit)s --gtest_filter='%(filter)s' > /tmp/unit.out 2>&1 || status=1
cat /tmp/unit.out
if grep -q SKIPPED /tmp/unit.out; then echo "vm: a test was skipped"; status=1; fi
"""
WHOLE = """
python3 %(source)s/tests/integration/test_enforcement.py -v > /tmp/integration.out 2>&1 || status=1
cat /tmp/integration.out
if grep -q skipped /tmp/integration.out; then echo "vm: a test was skipped"; status=1; fi
"""
LEFT = """
left=$(find /sys/fs/cgroup -mindepth 1 -type d -name 'muster*')
if [ -n "$left" ]; then echo "vm: groups are left: $left"; status=1; fi
exit $status
"""
TWO_CPUS = "*CpusOutsideTheSetCannotBeUsed*"


def main():
    folder = tempfile.mkdtemp(prefix="muster-vm-")
    try:
        try:
            if os.uname().machine != "x86_64":
                raise machine.Missing("this is no x86-64 machine: " + os.uname().machine)
            machine.emulator()
            kernel = machine.kernel(sys.argv[1])
            if shutil.which("cpio") is None or shutil.which("strip") is None:
                raise machine.Missing("cpio or strip is not installed (Debian: cpio, binutils)")
            root = machine.Root(os.path.join(folder, "root"))
            root.add_packages()
        except machine.Missing as missing:
            print("SKIPPED: %s" % missing)
            return SKIPPED
        for name in PROGRAMS + (UNIT,):
            root.add(os.path.join(BUILD, name), strip=True)
        for name in ("tests/support/cluster.py", "tests/integration/test_enforcement.py"):
            root.add(os.path.join(SOURCE, name))
        names = {"build": BUILD, "source": SOURCE, "unit": UNIT}
        most = dict(names, filter="-*/v1:*/off:" + TWO_CPUS)
        root.write("most", "status=0\n" + UNITS % most + WHOLE % names + LEFT)
        root.write("two-cpus", "status=0\n" + UNITS % dict(names, filter=TWO_CPUS + "-*/v1:*/off") + LEFT)
        root.write("init", machine.INIT, 0o755)
        image = os.path.join(folder, "initramfs")
        root.pack(image)
        shutil.rmtree(root.folder)
        ended = [machine.boot(image, kernel, "/two-cpus", cpus=2, timeout=120),
                 machine.boot(image, kernel, "/most", cpus=1, timeout=600)]
        print("the virtual machines ended with %s and %s" % tuple(ended))
        return 0 if ended == [0, 0] else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
