"""`muster logs`: the output of jobs over the network, with the rights of their user."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import SLOWNESS, ClusterTest, until  # noqa: E402


class Logs(ClusterTest):
    nodes = 2

    def test_output_of_an_ended_job(self):
        job = self.cluster.submit("-o", "a.out", "-e", "a.err", "--wrap", "echo out; echo err >&2")
        self.cluster.wait(job)
        self.assertEqual(self.cluster.ok("logs", job), "out\n")
        self.assertEqual(self.cluster.ok("logs", job, "--err"), "err\n")

    def test_a_large_output_comes_whole(self):
        job = self.cluster.submit("-o", "large.out", "--wrap", "seq 1 400000")
        self.cluster.wait(job)
        self.assertEqual(self.cluster.ok("logs", job), "".join("%d\n" % i for i in range(1, 400_001)))

    def test_follow_shows_what_is_written_while_it_is_written_and_ends_with_the_job(self):
        job = self.cluster.submit("-o", "f.out", "--wrap", "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two")
        logs = self.cluster.popen("logs", "-f", job, stdout=subprocess.PIPE, text=True)
        self.assertEqual(logs.stdout.readline(), "one\n")
        self.assertIsNone(logs.poll())
        self.cluster.script("go", "")
        self.assertEqual(logs.stdout.read(), "two\n")
        self.assertEqual(logs.wait(30 * SLOWNESS), 0)
        logs.stdout.close()

    def test_follow_waits_for_a_pending_job(self):
        job = self.cluster.submit("-H", "-o", "h.out", "--wrap", "echo late")
        refused = self.cluster.run("logs", job)
        self.assertEqual(refused.code, 1)
        self.assertIn("has not started", refused.err)
        logs = self.cluster.popen("logs", "-f", job, stdout=subprocess.PIPE, text=True)
        self.cluster.ok("release", job)
        self.assertEqual(logs.communicate(timeout=60 * SLOWNESS)[0], "late\n")
        self.assertEqual(logs.returncode, 0)

    def test_follow_outlives_a_restart_of_the_nodes_daemon(self):
        job = self.cluster.submit("-w", "n2", "-o", "r.out", "--wrap", "echo one; while [ ! -e further ]; do sleep 0.05; done; echo two")
        logs = self.cluster.popen("logs", "-f", job, stdout=subprocess.PIPE, text=True)
        self.assertEqual(logs.stdout.readline(), "one\n")
        os.kill(self.cluster.pid("n2"), 9)
        until(lambda: self.cluster.daemons()["n2"]["state"] != "up", 10, "the end of n2")
        self.cluster.local("restart", "n2")
        self.cluster.script("further", "")
        self.assertEqual(logs.stdout.read(), "two\n")
        self.assertEqual(logs.wait(60 * SLOWNESS), 0)
        logs.stdout.close()

    def test_tasks_of_an_array(self):
        job = self.cluster.submit("-a", "1-3", "-o", "array-%a.out", "--wrap", "echo task $MUSTER_ARRAY_TASK_ID")
        self.cluster.wait_all(job)
        self.assertEqual(self.cluster.ok("logs", "%d_2" % job), "task 2\n")
        self.assertEqual(self.cluster.run("logs", job).code, 1)

    def test_what_is_no_output_file_is_refused(self):
        job = self.cluster.submit("-o", "/dev/null", "--wrap", "true")
        self.cluster.wait(job)
        result = self.cluster.run("logs", job)
        self.assertEqual(result.code, 1)
        self.assertIn("/dev/null is not a regular file", result.err)
        self.assertIn("no such job", self.cluster.run("logs", 99999).err)

    def test_a_removed_file_is_named(self):
        job = self.cluster.submit("-o", "gone.out", "--wrap", "true")
        self.cluster.wait(job)
        os.remove(os.path.join(self.cluster.work, "gone.out"))
        self.assertIn("gone.out", self.cluster.run("logs", job).err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
