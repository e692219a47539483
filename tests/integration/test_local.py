#!/usr/bin/env python3
"""muster local: clusters of pretended nodes start, lose parts, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import MUSTER, SLOWNESS, Cluster, ClusterTest, clean_environment, patient, processes_of, until


def mounts():
    with open("/proc/self/mounts") as file:
        return sorted(file)


def cgroups(cluster):
    """The control groups that the cluster's daemons made."""
    found = []
    for name in os.listdir(cluster.local_dir):
        for note in ("cgroup", "cgroups"):
            path = os.path.join(cluster.local_dir, name, "spool", note)
            if os.path.exists(path):
                with open(path) as file:
                    found += file.read().split()
    return found


class Life(ClusterTest):
    nodes = 2
    topology = ["package:1 core:4 pu:1+gpu:2", "package:2 core:2 pu:2"]

    def test_nodes_pretend_to_be_their_topologies(self):
        first, second = self.cluster.json("nodes")["nodes"]
        self.assertEqual((first["name"], first["cpus"], first["gpus"], first["mem_mib"]), ("n1", 4, 2, 65536))
        self.assertEqual((second["name"], second["cpus"], second["gpus"], second["threads"]), ("n2", 4, 0, 8))

    def test_a_cluster_in_a_folder_with_blanks_and_a_very_long_name(self):
        folder = os.path.join(self.cluster.dir, "it's a dir " + "x" * 180, "c")
        os.makedirs(os.path.dirname(folder))
        command = ('eval "$(%s local start --nodes 1 --dir "$0")" && %s run sh -c "echo in a job" && %s local stop' % (MUSTER, MUSTER, MUSTER))
        done = subprocess.run(["sh", "-c", command, folder], env=clean_environment(), capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, "in a job\n"), done.stderr)

    def test_each_node_has_its_own_host_name_and_shared_memory(self):
        job = self.cluster.submit("-N2", "-o", "names", "--wrap", "muster run --ntasks-per-node=1 sh -c 'hostname; touch /dev/shm/$(hostname); ls /dev/shm'")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        lines = sorted(self.cluster.read("names").split())
        if os.geteuid() == 0:
            self.assertEqual(lines, ["n1", "n1", "n2", "n2"])
            self.assertFalse(os.path.exists("/dev/shm/n1"))

    def test_muster_config_names_the_cluster(self):
        self.assertEqual(set(d["name"] for d in self.cluster.json("local", "status")["daemons"]), {"ctld", "n1", "n2"})
        before = self.cluster.pid("n2")
        self.cluster.ok("local", "restart", "n2")
        self.assertNotEqual(self.cluster.pid("n2"), before)
        # A name or a folder wins, and the configuration of a cluster that is gone means no other one.
        self.assertEqual(self.cluster.run("local", "status", "--name", "no-such-cluster").code, 1)
        gone = os.path.join(self.cluster.dir, "gone", "muster.toml")
        result = self.cluster.run("local", "status", env={"MUSTER_CONFIG": gone})
        self.assertEqual(result.code, 1, result)
        self.assertIn(os.path.dirname(gone), result.err)
        self.assertEqual(self.cluster.run("local", "stop", env={"MUSTER_CONFIG": gone}).code, 0)

    def test_a_killed_daemon_comes_back_on_its_port(self):
        cluster = self.cluster
        for name in ("n1", "ctld"):
            before = cluster.json("nodes", "n1")["nodes"][0]["endpoint"]
            os.kill(cluster.pid(name), signal.SIGKILL)
            until(lambda: cluster.daemons()[name]["state"] == "down", what="%s down" % name)
            self.assertIsNone(cluster.daemons()[name]["pid"])
            cluster.local("restart", name)
            self.assertEqual(cluster.daemons()[name]["state"], "up")
            until(lambda: cluster.json("nodes", "n1")["nodes"][0]["state"] == "idle", what="n1 idle")
            self.assertEqual(cluster.json("nodes", "n1")["nodes"][0]["endpoint"], before)

    def test_jobs_outlive_their_daemon(self):
        cluster = self.cluster
        job = cluster.submit("-w", "n1", "-o", "alive", "--wrap", "echo up; while ! test -e go; do sleep 0.05; done; exit 9")
        cluster.wait_file("alive")
        os.kill(cluster.pid("n1"), signal.SIGKILL)
        until(lambda: cluster.daemons()["n1"]["state"] == "down", what="n1 down")
        open(os.path.join(cluster.work, "go"), "w").close()
        cluster.local("restart", "n1")
        view = cluster.wait(job)
        self.assertEqual((view["state"], view["exit_code"]), ("failed", 9))

    def test_a_power_cut_ends_everything_of_a_node(self):
        cluster = self.cluster
        job = cluster.submit("-w", "n2", "-o", "cut", "-D", cluster.work, "--wrap", "setsid sleep 987654 & echo up; wait")
        cluster.wait_file("cut")
        boot = cluster.json("nodes", "n2")["nodes"][0]["boot_id"]
        cluster.local("kill", "n2")
        self.assertEqual(cluster.daemons()["n2"]["state"], "down")
        self.assertEqual([p for p in processes_of(cluster.work) if p != os.getpid()], [])
        self.assertEqual(cluster.run("local", "kill", "n2", "--dir", cluster.local_dir).code, 1)
        cluster.local("restart", "n2")
        self.assertNotEqual(cluster.json("nodes", "n2")["nodes"][0]["boot_id"], boot)
        self.assertEqual(cluster.wait(job)["state"], "node_failed")

    def test_a_second_start_is_refused(self):
        result = self.cluster.run("local", "start", "--nodes", "1", "--dir", self.cluster.local_dir)
        self.assertEqual(result.code, 1)
        self.assertIn("muster local stop", result.err)
        self.assertEqual(self.cluster.daemons()["ctld"]["state"], "up")

    def test_unknown_daemons_are_named(self):
        for verb in ("restart", "kill"):
            result = self.cluster.run("local", verb, "n7", "--dir", self.cluster.local_dir)
            self.assertEqual(result.code, 1)
            self.assertIn("n7", result.err)


class Growth(ClusterTest):
    nodes = 1

    def test_nodes_are_added(self):
        self.cluster.local("add", "2", "--topology", "package:1 core:2 pu:1")
        nodes = self.cluster.json("nodes")["nodes"]
        self.assertEqual([(n["name"], n["cpus"], n["state"]) for n in nodes], [("n1", 32, "idle"), ("n2", 2, "idle"), ("n3", 2, "idle")])
        job = self.cluster.submit("-N3", "--wrap", "true")
        self.assertEqual(self.cluster.wait(job)["nodes"], ["n1", "n2", "n3"])


class Ends(unittest.TestCase):
    def setUp(self):
        self.mounts = mounts()

    def nothing_left(self, cluster, groups=()):
        self.assertFalse(os.path.exists(cluster.local_dir))
        self.assertEqual(processes_of(cluster.local_dir), [])
        self.assertEqual(mounts(), self.mounts)
        self.assertEqual([g for g in groups if os.path.exists(g)], [])

    def test_stop_leaves_nothing_but_the_jobs_output(self):
        cluster = Cluster(nodes=2, topology="package:1 core:4 pu:1").start()
        self.addCleanup(cluster.close)
        cluster.wait(cluster.submit("-o", "kept", "--wrap", "echo kept"))
        cluster.submit("-N2", "-o", "running", "--wrap", "setsid sleep 876543 & echo up; wait")
        cluster.wait_file("running")
        groups = cgroups(cluster)
        cluster.stop()
        self.assertEqual(cluster.read("kept"), "kept\n")
        self.nothing_left(cluster, groups)
        self.assertEqual(processes_of(cluster.work), [])
        self.assertEqual(cluster.run("local", "stop", "--dir", cluster.local_dir).code, 0)
        self.assertEqual(cluster.run("local", "status", "--dir", cluster.local_dir).code, 1)

    def test_stop_keeps_what_others_put_into_its_folder(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        os.mkdir(cluster.local_dir)
        cluster.start()
        mine = os.path.join(cluster.local_dir, "mine")
        open(mine, "w").close()
        cluster.stop()
        self.assertEqual(os.listdir(cluster.local_dir), ["mine"])

    def test_a_folder_made_by_a_start_that_came_second_goes_with_the_cluster(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        os.mkdir(cluster.local_dir)  # its start made the folder and its lock, but the other one was quicker to lock it
        open(os.path.join(cluster.local_dir, "lock"), "w").close()
        cluster.start()
        cluster.stop()
        self.nothing_left(cluster)

    def test_a_start_that_fails_says_why_and_leaves_nothing(self):
        for arguments, word in ((["--set", "node.kill_grace=never"], "kill_grace"), (["--set", "node.kil_grace=5s"], "kil_grace"),
                                (["--topology", "nowhere.xml"], "nowhere.xml"), (["--topology", "bogus:x"], "topology")):
            cluster = Cluster(start_args=arguments)
            result = cluster.run("local", "start", "--nodes", "1", "--dir", cluster.local_dir, *arguments)
            self.addCleanup(cluster.close)
            self.assertNotEqual(result.code, 0, result)
            self.assertTrue(result.err.startswith("muster: "), result)
            self.assertIn(word, result.err)
            self.nothing_left(cluster)

    def test_a_folder_with_a_long_path(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        cluster.local_dir = os.path.join(cluster.dir, "x" * 150)
        cluster.start()
        self.assertEqual(cluster.wait(cluster.submit("--wrap", "true"))["state"], "completed")
        cluster.stop()
        self.nothing_left(cluster)

    def test_what_a_crash_left_is_cleaned_by_the_next_start(self):
        cluster = Cluster().start()
        self.addCleanup(cluster.close)
        groups = cgroups(cluster)
        cluster.local("kill", "n1")
        os.kill(cluster.pid("ctld"), signal.SIGKILL)
        until(lambda: cluster.daemons()["ctld"]["state"] == "down", what="ctld down")
        cluster.start()
        self.assertEqual(cluster.wait(cluster.submit("--wrap", "true"))["state"], "completed")
        groups += cgroups(cluster)
        cluster.stop()
        self.nothing_left(cluster, groups)

    def test_of_two_starts_at_once_one_wins(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        both = [cluster.popen("local", "start", "--nodes", "1", "--dir", cluster.local_dir, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        errors = [process.communicate(timeout=120 * SLOWNESS)[1] for process in both]
        self.assertEqual(sorted(process.returncode for process in both), [0, 1], errors)
        cluster.running = True
        cluster.env["MUSTER_CONFIG"] = os.path.join(cluster.local_dir, "muster.toml")
        self.assertEqual(cluster.wait(cluster.submit("--wrap", "true"))["state"], "completed")
        cluster.stop()
        self.nothing_left(cluster)

    def test_an_interrupted_start_leaves_nothing(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        start = cluster.popen("local", "start", "--nodes", "8", "--dir", cluster.local_dir, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(lambda: os.path.exists(os.path.join(cluster.local_dir, "log", "n1.log")), what="the first node")
        start.send_signal(signal.SIGINT)
        error = start.communicate(timeout=120 * SLOWNESS)[1]
        if start.returncode == 0:  # it was quicker
            cluster.running = True
            cluster.stop()
        else:
            self.assertIn("interrupted", error)
        self.nothing_left(cluster)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to become somebody else")
    def test_an_ordinary_user(self):
        cluster = Cluster(nodes=2)
        self.addCleanup(cluster.close)
        os.chmod(cluster.dir, 0o777)
        os.chmod(cluster.work, 0o777)
        unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
        def run(*args):
            done = subprocess.run(unprivileged + [MUSTER] + patient(args), cwd=cluster.work, env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120 * SLOWNESS)
            self.assertEqual(done.returncode, 0, done)
            return done.stdout

        run("local", "start", "--nodes", "2", "--dir", cluster.local_dir)
        try:
            cluster.env["MUSTER_CONFIG"] = os.path.join(cluster.local_dir, "muster.toml")
            run("submit", "-W", "-N2", "-o", "id.out", "--wrap", "id -u; muster run --ntasks-per-node=1 id -u; exit 0")
            self.assertEqual(cluster.read("id.out").split(), ["65534"] * 3)
        finally:
            run("local", "stop", "--dir", cluster.local_dir)
        self.nothing_left(cluster)


if __name__ == "__main__":
    unittest.main()
