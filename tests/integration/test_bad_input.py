"""Bad input from users and from the network: a clear error that names what is wrong, and nobody else is harmed."""

import os
import socket
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import SLOWNESS, ClusterTest, until  # noqa: E402


class BadInput(ClusterTest):
    nodes = 1

    def refused(self, args, code, says, **kwargs):
        result = self.cluster.run(*args, **kwargs)
        with self.subTest(args=args[:4]):
            self.assertEqual(result.code, code, repr(result))
            for word in says if isinstance(says, tuple) else (says,):
                self.assertIn(word, result.err)
            self.assertEqual(len(result.err.strip().splitlines()), 1, "one line: " + result.err)
            self.assertTrue(result.err.startswith("muster: "), result.err)

    def test_options(self):
        for args, says in (
                (("submit", "--ntask-per-nod", "2", "--wrap", "true"), "ntask-per-nod"),
                (("submit", "--bogus", "--wrap", "true"), "--bogus"),
                (("submit", "-t", "1:2:3:4:5", "--wrap", "true"), ("--time", "1:2:3:4:5")),
                (("submit", "-t", "-5", "--wrap", "true"), "--time"),
                (("submit", "--mem", "12Q", "--wrap", "true"), ("--mem", "12Q")),
                (("submit", "-n", "-1", "--wrap", "true"), "--ntasks"),
                (("submit", "-n", "99999999999999999999999", "--wrap", "true"), "--ntasks"),
                (("submit", "-N", "0", "--wrap", "true"), "--nodes"),
                (("submit", "-N", "3-2", "--wrap", "true"), "--nodes"),
                (("submit", "-w", "n[1-", "--wrap", "true"), ("--nodelist", "n[1-")),
                (("submit", "-a", "5-1", "--wrap", "true"), "--array"),
                (("submit", "-a", "", "--wrap", "true"), "--array"),
                (("submit",), "script"),
                (("nosuchcommand",), "nosuchcommand"),
                (("cancel", "abc"), "abc")):
            self.refused(args, 2, says)

    def test_names_that_do_not_exist(self):
        self.refused(("submit", "-p", "nosuch", "--wrap", "true"), 1, ("nosuch", "main"))
        self.refused(("submit", "-w", "n77", "--wrap", "true"), 1, "n77")
        self.refused(("queue", "-p", "nosuch"), 1, ("nosuch", "main"))
        self.refused(("cancel", "-p", "nosuch"), 1, ("nosuch", "main"))
        self.refused(("show", "job", "999999"), 1, "999999")
        self.refused(("cancel", "999999"), 1, "999999")
        self.refused(("show", "node", "n77"), 1, "n77")
        self.refused(("drain", "n77", "--reason", "x"), 1, "n77")
        self.refused(("logs", "999999"), 1, "999999")

    def test_scripts(self):
        work = self.cluster.work
        big = self.cluster.script("big.sh", "#!/bin/sh\n#" + "y" * ((10 << 20) - 12) + "\n")
        self.assertEqual(os.path.getsize(big), 10 << 20)
        self.refused(("submit", "missing.sh"), 1, "missing.sh")
        self.refused(("submit", work), 1, os.path.basename(work))
        self.refused(("submit", self.cluster.script("plain.sh", "echo hello\n")), 1, "#!")
        self.refused(("submit", self.cluster.script("dos.sh", "#!/bin/sh\r\necho hello\r\n")), 1, "CR")
        self.refused(("submit", self.cluster.script("nul.sh", "#!/bin/sh\necho \0\n")), 1, "NUL")
        self.refused(("submit", self.cluster.script("empty.sh", "")), 1, "empty.sh")
        self.refused(("submit", big), 1, ("big.sh", "4 MiB", "4194304 bytes"))
        self.refused(("submit", self.cluster.script("option.sh", "#!/bin/sh\n#MUSTER --ntaks 3\ntrue\n")), 2,
                     ("option.sh:2", "--ntasks"))

    def test_a_script_as_large_as_the_limit_runs(self):
        script = self.cluster.script("large.sh", "#!/bin/sh\nexit 0\n")
        with open(script, "a") as file:
            for _ in range(3):
                file.write("#" + "z" * ((1 << 20) - 2) + "\n")
            file.write("#" * ((4 << 20) - file.tell()))
        self.assertEqual(os.path.getsize(script), 4 << 20)
        self.assertEqual(self.cluster.wait(self.cluster.submit(script))["state"], "completed")

    def ports(self):
        """The addresses on which this cluster's daemons listen, found by their pids."""
        inodes = set()
        for daemon in self.cluster.daemons().values():
            base = "/proc/%d/fd" % daemon["pid"]
            for fd in os.listdir(base):
                try:
                    link = os.readlink(os.path.join(base, fd))
                except OSError:
                    continue
                if link.startswith("socket:["):
                    inodes.add(link[8:-1])
        ports = []
        with open("/proc/net/tcp") as table:
            for line in table.readlines()[1:]:
                words = line.split()
                if words[3] == "0A" and words[9] in inodes:
                    ports.append(int(words[1].split(":")[1], 16))
        return ports

    def test_garbage_on_every_socket(self):
        before = {name: d["pid"] for name, d in self.cluster.daemons().items()}
        ports = self.ports()
        self.assertGreaterEqual(len(ports), 2, "a controller and a node listen")
        for port in ports:
            for payload in (b"\0" * 100, b"GET / HTTP/1.0\r\n\r\n", b"\xff\0\0\0\0\0\0\0\1\x7f" + b"\3\0CURVE" + b"A" * 4096,
                            os.urandom(65536), b"\xff" * (1 << 20)):
                with socket.create_connection(("127.0.0.1", port), timeout=5 * SLOWNESS) as peer:
                    peer.settimeout(5 * SLOWNESS)
                    try:
                        peer.sendall(payload)
                        peer.shutdown(socket.SHUT_WR)
                        while peer.recv(4096):
                            pass
                    except OSError:
                        pass
        self.assertEqual(self.cluster.wait(self.cluster.submit("--wrap", "true"))["state"], "completed")
        self.assertEqual({name: d["pid"] for name, d in self.cluster.daemons().items()}, before)

    def test_a_key_that_is_not_authorized(self):
        self.cluster.ok("keygen", "user", "--out", "stranger")
        result = self.cluster.run("queue", "--timeout", "3s", env={"MUSTER_KEY": os.path.join(self.cluster.work, "stranger")})
        self.assertIn(result.code, (3, 4), repr(result))
        self.assertIn("key", result.err)

    def test_an_unknown_configuration_key(self):
        path = os.path.join(self.cluster.work, "bad.toml")
        with open(self.cluster.config) as good, open(path, "w") as bad:
            bad.write(good.read().replace("[controller]", "[controller]\nlisen = \"x\"", 1) + "\n")
        result = self.cluster.run("queue", env={"MUSTER_CONFIG": path})
        self.assertNotEqual(result.code, 0)
        for word in ("bad.toml:", "lisen", "listen"):
            self.assertIn(word, result.err)


class Database(ClusterTest):
    nodes = 1

    def test_a_damaged_database_is_refused_by_name(self):
        self.cluster.wait(self.cluster.submit("--wrap", "true"))
        os.kill(self.cluster.pid("ctld"), 15)
        until(lambda: self.cluster.daemons()["ctld"]["state"] == "down", what="the end of ctld")
        state = next(root for root, _, files in os.walk(self.cluster.local_dir) if any(f.endswith(".db") for f in files))
        name = next(f for f in os.listdir(state) if f.endswith(".db"))
        path = os.path.join(state, name)
        with open(path, "rb") as file:
            good = file.read()
        for what, bad in (("cut", good[:len(good) // 2]), ("not a database", os.urandom(8192))):
            with self.subTest(what=what):
                with open(path, "wb") as file:
                    file.write(bad)
                result = self.cluster.run("local", "restart", "ctld", "--dir", self.cluster.local_dir)
                self.assertEqual(result.code, 1, repr(result))
                self.assertIn(name, result.err)
        with open(path, "wb") as file:
            file.write(good)
        self.cluster.local("restart", "ctld")
        self.assertEqual(len(self.cluster.json("history")["jobs"]), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
