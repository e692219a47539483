"""What is acknowledged survives: kills of the controller and of node daemons while users go on working."""

import glob
import os
import signal
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import Cluster, ClusterTest, processes_of, seconds, until  # noqa: E402

KILLS = int(os.environ.get("MUSTER_STORM_KILLS", "20"))
CLIENTS = 8


class Storm(ClusterTest):
    """kill -9 of the controller in a storm of submissions: acknowledged means kept, and no retry makes a second job."""

    nodes = 4
    settings = ("controller.node_timeout=" + seconds(5), "node.heartbeat_interval=1s")
    submissions = int(os.environ.get("MUSTER_STORM_SUBMISSIONS", "2000"))

    def submit_some(self, count, acknowledged, failures, lock):
        """One client: submits one after another and notes every id that it was told."""
        for _ in range(count):
            done = self.cluster.run("submit", "--timeout", seconds(60), "--parsable", "-o", "/dev/null", self.script,
                                    timeout=120)
            with lock:
                if done.code == 0:
                    acknowledged.append(int(done.out))
                else:
                    failures.append(repr(done))

    def test_twenty_kills_lose_nothing_and_double_nothing(self):
        ran = os.path.join(self.cluster.work, "ran")
        self.script = self.cluster.script(
            "append.sh", "#!/bin/bash\nprintf '%%s\\n' \"$MUSTER_JOB_ID\" >> %s\n" % ran)
        acknowledged, failures, lock = [], [], threading.Lock()
        clients = [threading.Thread(target=self.submit_some,
                                    args=(self.submissions // CLIENTS, acknowledged, failures, lock))
                   for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for kill in range(KILLS):
            # Spread over the storm: the next kill waits until its share of submissions is acknowledged.
            share = min(self.submissions * (kill + 1) // (KILLS + 1), self.submissions - CLIENTS)
            until(lambda: len(acknowledged) + len(failures) >= share, 120, "submission %d" % share)
            os.kill(self.cluster.pid("ctld"), signal.SIGKILL)
            self.cluster.local("restart", "ctld")
        for client in clients:
            client.join()
        self.assertEqual(failures, [], self.cluster.logs())
        self.assertEqual(len(acknowledged), self.submissions)
        self.assertEqual(len(set(acknowledged)), self.submissions, "an id was given twice")
        until(lambda: self.cluster.json("queue")["jobs"] == [], 240, "the end of all jobs")
        history = self.cluster.json("history")["jobs"]
        self.assertEqual(sorted(j["id"] for j in history), sorted(acknowledged))
        self.assertEqual({j["state"] for j in history}, {"completed"})
        with open(ran) as lines:
            self.assertEqual(sorted(int(line) for line in lines), sorted(acknowledged), "a job ran twice or never")


class Daemons(ClusterTest):
    nodes = 2
    settings = ("controller.node_timeout=" + seconds(3), "node.heartbeat_interval=1s", "node.kill_grace=" + seconds(2))

    def kill(self, name):
        os.kill(self.cluster.pid(name), signal.SIGKILL)
        until(lambda: self.cluster.daemons()[name]["state"] == "down", what="the end of " + name)

    def test_a_job_goes_on_without_its_node_daemon_and_its_exit_code_arrives(self):
        go = os.path.join(self.cluster.work, "go1")
        job = self.cluster.submit("-w", "n1", "--wrap", "until [ -e %s ]; do sleep 0.05; done; echo done; exit 7" % go)
        self.cluster.wait_state(job, "running")
        self.kill("n1")
        open(go, "w").close()
        self.assertIn("done", until(lambda: self.cluster.exists("muster-%d.out" % job) and
                                    self.cluster.read("muster-%d.out" % job), what="the output of the job"))
        self.cluster.local("restart", "n1")
        ended = self.cluster.wait(job)
        self.assertEqual((ended["state"], ended["exit_code"]), ("failed", 7))

    def test_a_job_that_still_runs_is_taken_up_by_the_restarted_node_daemon(self):
        go = os.path.join(self.cluster.work, "go2")
        job = self.cluster.submit("-w", "n1", "--wrap", "until [ -e %s ]; do sleep 0.05; done; exit 3" % go)
        self.cluster.wait_state(job, "running")
        self.kill("n1")
        self.cluster.local("restart", "n1")
        self.assertEqual(self.cluster.job(job)["state"], "running")
        open(go, "w").close()
        self.assertEqual(self.cluster.wait(job)["exit_code"], 3)

    def test_results_arrive_after_the_controller_was_away(self):
        go = os.path.join(self.cluster.work, "go3")
        jobs = [self.cluster.submit("--wrap", "until [ -e %s ]; do sleep 0.05; done; echo over; exit %d" % (go, code))
                for code in (0, 5)]
        for job in jobs:
            self.cluster.wait_state(job, "running")
        self.kill("ctld")
        result = self.cluster.run("queue", "--timeout", "1s")
        self.assertEqual(result.code, 3, repr(result))
        open(go, "w").close()
        for job in jobs:
            until(lambda job=job: self.cluster.exists("muster-%d.out" % job) and
                  "over" in self.cluster.read("muster-%d.out" % job), what="the end of the job")
        self.cluster.local("restart", "ctld")
        self.assertEqual([self.cluster.wait(job)["exit_code"] for job in jobs], [0, 5])

    def test_cancel_of_a_job_whose_node_daemon_is_down_is_carried_out_when_it_returns(self):
        job = self.cluster.submit("-w", "n2", "--wrap", "echo $$ > pid.cancel; exec sleep 1000")
        pid = int(self.cluster.wait_file("pid.cancel"))
        self.kill("n2")
        self.cluster.ok("cancel", job)
        self.assertEqual(self.cluster.job(job)["state"], "stopping")
        self.cluster.local("restart", "n2")
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        self.assertFalse(processes_of(self.cluster.work), "process %d of the job is left" % pid)

    def test_a_power_cut_ends_the_jobs_of_the_node(self):
        job = self.cluster.submit("-w", "n2", "--wrap", "touch started.cut; exec sleep 1000")
        until(lambda: self.cluster.exists("started.cut"), what="the start of the job")
        self.cluster.local("kill", "n2")
        self.cluster.local("restart", "n2")
        self.assertEqual(self.cluster.wait(job)["state"], "node_failed")
        again = self.cluster.submit("-w", "n2", "--wrap", "true")
        self.assertEqual(self.cluster.wait(again)["state"], "completed")

    def test_drained_stays_drained_over_a_restart_of_the_controller(self):
        self.cluster.ok("drain", "n2", "--reason", "disk")
        self.kill("ctld")
        self.cluster.local("restart", "ctld")

        def registered():
            node = {n["name"]: n for n in self.cluster.json("nodes")["nodes"]}["n2"]
            return node if node["state"] != "unreachable" else None

        node = until(registered, what="the registration of n2")
        self.assertEqual((node["state"], node["reason"]), ("drained", "disk"))
        self.cluster.ok("resume", "n2")


class NothingIsLeft(unittest.TestCase):
    def test_stop_leaves_no_process_mount_or_group(self):
        cluster = Cluster(nodes=2)
        self.addCleanup(cluster.close)
        mounts = mount_table()
        cluster.start()
        job = cluster.submit("--wrap", "setsid sleep 1000 & exec sleep 1000")
        cluster.wait_state(job, "running")
        groups = groups_of(cluster)
        self.assertEqual([g for g in groups if not os.path.isdir(g)], [])
        cluster.stop()
        self.assertEqual(processes_of(cluster.dir), [])
        self.assertEqual(mount_table(), mounts)
        self.assertEqual([g for g in groups if os.path.exists(g)], [])


def mount_table():
    with open("/proc/self/mountinfo") as table:
        return table.read()


def groups_of(cluster):
    """The cgroups that the nodes of this cluster made, as they recorded them; other clusters may run beside it."""
    groups = []
    for path in glob.glob(os.path.join(cluster.local_dir, "n*", "spool", "cgroup*")):
        with open(path) as file:
            groups += file.read().split()
    return groups


if __name__ == "__main__":
    unittest.main(verbosity=2)
