#!/usr/bin/env python3
"""The init of a pretended node, with every degree of isolation that this system allows, and a script for a daemon."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import BIN, SLOWNESS, processes_of, until

DAEMON = """#!/bin/sh
echo "$(hostname) $*" >>{0}/started
setsid sleep 765432 {0} 2>/dev/null || setsid sh -c 'while :; do sleep 1; done' {0} &
exec sh -c 'while :; do sleep 1; done' {0}
"""


def state_of(pid):
    """R, S, Z, ...; empty when there is no such process."""
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


class NodeInit(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="muster-ni-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.socket = os.path.join(self.dir, "s")
        self.daemon = os.path.join(self.dir, "daemon")
        with open(self.daemon, "w") as script:
            script.write(DAEMON.format(self.dir))
        os.chmod(self.daemon, 0o755)

    def start(self, *arguments):
        init = subprocess.Popen([os.path.join(BIN, "muster-nodeinit"), "--name", "n7", "--socket", self.socket, *arguments, "--", self.daemon, "one"],
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.addCleanup(self.end, init)
        until(lambda: init.poll() is not None or os.path.exists(self.socket), what="the socket")
        return init

    @staticmethod
    def end(init):
        if init.poll() is None:
            init.terminate()
        init.communicate()

    def ask(self, request):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30 * SLOWNESS)
            until(lambda: self.accepts(client), what="the init at its socket")
            client.sendall(request.encode() + b"\n")
            return client.recv(1000).decode().rstrip("\n")

    def started(self):
        path = os.path.join(self.dir, "started")
        if not os.path.exists(path):
            return []
        with open(path) as file:
            return file.read().splitlines()

    def accepts(self, client):
        """The socket's file is there a moment before it listens."""
        try:
            client.connect(self.socket)
            return True
        except ConnectionRefusedError:
            return False

    def life(self, isolation):
        init = self.start("--isolation", isolation)
        if init.poll() is not None:
            self.skipTest("this system does not allow isolation %s: %s" % (isolation, init.stderr.read().decode()))
        self.assertEqual(self.ask("status"), "ok 0")
        boot = self.ask("boot")
        pid = int(self.ask("start").split()[1])
        self.assertEqual(self.ask("start"), "ok %d" % pid)  # it runs already
        until(lambda: len(self.started()) == 1 and len(processes_of(self.dir)) >= 3, what="the daemon and its child")
        host = "n7" if isolation != "none" else socket.gethostname()
        self.assertEqual(self.started()[0], "%s one --boot-id %s" % (host, boot.split()[1]))
        # A daemon that dies leaves what it started; another one can be started beside it.
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.ask("status") == "ok 0", what="the end of the daemon")
        self.assertGreaterEqual(len(processes_of(self.dir)), 2)
        self.ask("start")
        until(lambda: len(self.started()) == 2, what="the second daemon")
        self.assertEqual(self.ask("boot"), boot)
        self.assertEqual(self.ask("kill"), "ok 0")
        self.assertEqual(init.wait(timeout=60 * SLOWNESS), 0)
        until(lambda: processes_of(self.dir) == [], what="the end of everything")
        self.assertFalse(os.path.exists(self.socket))

    def test_full(self):
        self.life("full")

    def test_host(self):
        self.life("host")

    def test_none(self):
        self.life("none")

    def test_a_killed_init_is_a_power_cut(self):
        init = self.start("--isolation", "full")
        if init.poll() is not None:
            self.skipTest("this system does not allow it")
        self.ask("start")
        until(lambda: len(processes_of(self.dir)) >= 3, what="the daemon and its child")
        init.kill()
        until(lambda: processes_of(self.dir) == [], what="the end of everything")

    def test_a_daemon_that_ended_a_moment_ago_is_started_anew(self):
        init = self.start("--isolation", "none")
        pid = int(self.ask("start").split()[1])
        until(lambda: len(self.started()) == 1, what="the daemon")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            until(lambda: self.accepts(client), what="the init at its socket")
            client.sendall(b"sta")  # it reads this request now, and nothing else
            until(lambda: self.is_reading(init.pid), what="the init at the request")
            os.kill(pid, signal.SIGKILL)
            until(lambda: state_of(pid) in ("Z", ""), what="the end of the daemon")
            client.sendall(b"rt\n")
            self.assertNotEqual(client.recv(1000).decode().rstrip("\n"), "ok %d" % pid)
        self.assertNotEqual(self.ask("status"), "ok 0")

    @staticmethod
    def is_reading(pid):
        """Whether the process waits in read(2), number 0 on x86-64 and 63 on ARM, and not in ppoll(2)."""
        with open("/proc/%d/syscall" % pid) as call:
            return call.read().split()[0] in ("0", "63")

    def test_a_daemon_that_cannot_start_is_an_error(self):
        self.start()
        os.remove(self.daemon)
        self.assertRegex(self.ask("start"), r"\Aerror .*No such file")
        self.assertRegex(self.ask("nonsense"), r"\Aerror ")
        self.assertEqual(self.ask("x" * 500)[:6], "error ")


if __name__ == "__main__":
    unittest.main()
