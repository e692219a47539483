#!/usr/bin/env python3
"""What users do with jobs and nodes besides submitting: look, hold, release, cancel, drain."""

import os
import pty
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import MUSTER, SLOWNESS, ClusterTest, until

JOB_KEYS = {"id", "array_task", "name", "user", "queue", "state", "reason", "reason_detail", "priority", "attempt", "nodes", "node_count", "task_count", "cpus",
            "gpus", "mem_mib", "time_limit_s", "submit_time", "eligible_time", "work_dir", "stdout", "stderr"}
NODE_KEYS = {"name", "state", "reason", "cpus", "cpus_allocated", "gpus", "gpus_allocated", "mem_mib", "mem_allocated_mib", "jobs"}


class Jobs(ClusterTest):
    nodes = 2
    topology = "package:2 core:2 pu:1+gpu:2"

    def tearDown(self):
        self.cluster.run("cancel", "--me")
        until(lambda: not self.cluster.json("queue")["jobs"], what="an empty queue")

    def test_json_of_a_job_has_the_keys_of_the_contract(self):
        job = self.cluster.submit("-N2", "--ntasks-per-node=1", "--gpus-per-node=1", "--mem=1G", "-t", "5", "--wrap", "sleep 100")
        view = self.cluster.wait_state(job, "running")
        self.assertLessEqual(JOB_KEYS, set(view))
        self.assertIsNone(view["array_task"])
        self.assertEqual((view["nodes"], view["node_count"], view["task_count"]), (["n1", "n2"], 2, 2))
        self.assertEqual((view["cpus"], view["gpus"], view["mem_mib"], view["time_limit_s"]), (2, 2, 2048, 300))
        self.assertGreater(view["start_time"], 1.5e9)
        self.assertEqual([p["node"] for p in view["placement"]], ["n1", "n2"])
        for placement in view["placement"]:
            self.assertEqual(len(placement["gpus"]), 1)
            self.assertIn("pci_address", placement["gpus"][0])
            self.assertRegex(placement["cpus"], r"\A\d")
        self.cluster.ok("cancel", job)
        ended = self.cluster.wait(job)
        self.assertEqual(ended["state"], "cancelled")
        self.assertGreaterEqual(ended["end_time"], ended["start_time"])
        self.assertEqual(self.cluster.json("queue", "-j", job), {"jobs": []})
        self.assertIn(job, [j["id"] for j in self.cluster.json("history")["jobs"]])

    def test_hold_and_release(self):
        job = self.cluster.submit("-H", "--wrap", "true")
        view = self.cluster.job(job)
        self.assertEqual(view["state"], "pending")
        self.assertTrue(view["held"])
        why = self.cluster.json("why", job)
        self.assertEqual(why["job"], job)
        self.assertEqual(len(why["blockers"]), 1)
        self.assertTrue(why["blockers"][0]["text"])
        self.assertIn("held", self.cluster.ok("why", job).lower())
        self.cluster.ok("release", job)
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        self.assertEqual(self.cluster.run("hold", job).code, 1)

    def test_single_tasks_of_an_array_are_held_and_released(self):
        array = self.cluster.submit("-H", "-a", "1-9", "--wrap", "true")
        self.cluster.ok("hold", "%d_[1-5]" % array)  # they are, with all others
        self.cluster.ok("release", "%d_7" % array)
        self.assertEqual(self.cluster.wait("%d_7" % array)["state"], "completed")
        self.assertTrue(self.cluster.job(array)["held"])
        self.cluster.ok("release", array)
        self.assertEqual({job["state"] for job in self.cluster.wait_all(array)}, {"completed"})

    def test_two_that_do_not_fit_together_never_overlap(self):
        script = "echo start >>order; sleep 0.3; echo end >>order"
        jobs = [self.cluster.submit("-N2", "--exclusive", "-o", "/dev/null", "--wrap", script) for _ in range(3)]
        for job in jobs:
            self.cluster.wait(job)
        self.assertEqual(self.cluster.read("order").split(), ["start", "end"] * 3)

    def test_array_in_queue_and_cancel_of_tasks(self):
        array = self.cluster.submit("-a", "0-99%1", "--wrap", "sleep 100")
        until(lambda: [j for j in self.cluster.json("queue")["jobs"] if j["state"] == "running"], what="a running task")
        self.assertIn("%d_[" % array, self.cluster.ok("queue"))
        self.cluster.ok("cancel", "%d_[2-99]" % array)
        left = [j for j in self.cluster.json("queue")["jobs"] if j["state"] == "pending"]
        self.assertEqual(sum(j.get("array_waiting_count", 1) for j in left), 1)
        self.cluster.ok("cancel", "%d_0" % array)
        self.cluster.wait_state("%d_1" % array, "running")
        self.cluster.ok("cancel", array)
        ended = self.cluster.wait_all(array)
        self.assertEqual({j["state"] for j in ended}, {"cancelled"})
        tasks = [j["array_task"] for j in self.cluster.json("history", "-j", array)["jobs"]]
        self.assertEqual(sorted(tasks), list(range(100)))

    def test_cancel_sends_a_signal(self):
        job = self.cluster.submit("-o", "sig.out", "--wrap", "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done")
        self.cluster.wait_file("sig.out")
        self.cluster.ok("cancel", "-s", "USR1", job)
        view = self.cluster.wait(job)
        self.assertEqual((view["state"], view["exit_code"]), ("failed", 3))
        self.assertIn("got", self.cluster.read("sig.out"))

    def test_cancel_by_filter(self):
        keep = self.cluster.submit("-J", "keep", "--wrap", "sleep 100")
        lost = self.cluster.submit("-J", "lose", "--wrap", "sleep 100")
        self.cluster.ok("cancel", "-n", "lose")
        self.cluster.wait(lost)
        self.assertNotEqual(self.cluster.job(keep)["state"], "cancelled")
        self.assertEqual(self.cluster.run("cancel").code, 2)

    def test_unknown_things_are_named(self):
        for args, text in ((("show", "job", "99999"), "job 99999: no such job"), (("why", "99999"), "job 99999: no such job"), (("cancel", "99999"), "99999"),
                           (("show", "node", "n9"), "node n9"), (("nodes", "n9"), "node n9"), (("drain", "n9", "--reason", "x"), "n9"),
                           (("show", "queue", "nope"), "queue nope")):
            result = self.cluster.run(*args)
            self.assertEqual(result.code, 1, result)
            self.assertIn(text, result.err)
        for args in (("show", "job", "4x"), ("cancel", "1_["), ("show", "thing"), ("why",), ("drain", "n1"), ("queue", "-t", "runnin")):
            self.assertEqual(self.cluster.run(*args).code, 2, args)

    def test_drain_and_resume(self):
        self.addCleanup(self.cluster.run, "resume", "n1")
        self.cluster.ok("drain", "n1", "--reason", "fan is loud")
        node = self.cluster.json("nodes", "n1")["nodes"][0]
        self.assertLessEqual(NODE_KEYS, set(node))
        self.assertEqual((node["state"], node["reason"]), ("drained", "fan is loud"))
        job = self.cluster.submit("-N2", "--wrap", "true")
        other = self.cluster.submit("--wrap", "true")
        self.assertEqual(self.cluster.wait(other)["nodes"], ["n2"])
        self.assertEqual(self.cluster.job(job)["state"], "pending")
        self.assertIn("n1", self.cluster.ok("why", job) + self.cluster.ok("nodes"))
        self.cluster.local("restart", "ctld")
        until(lambda: self.cluster.json("nodes", "n1")["nodes"][0]["state"] == "drained", what="n1 drained again")
        self.assertEqual(self.cluster.job(job)["state"], "pending")
        self.cluster.ok("resume", "n1")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")

    def test_nodes_show_what_is_in_use(self):
        job = self.cluster.submit("-N1", "-c", "3", "--gpus-per-node", "2", "--mem", "2G", "-w", "n2", "--wrap", "sleep 100")
        self.cluster.wait_state(job, "running")
        node = self.cluster.json("show", "node", "n2")["nodes"][0]
        self.assertEqual((node["state"], node["cpus"], node["cpus_allocated"]), ("mixed", 4, 3))
        self.assertEqual((node["gpus"], node["gpus_allocated"]), (2, 2))
        self.assertEqual((node["mem_mib"], node["mem_allocated_mib"], node["jobs"]), (65536, 2048, [job]))

    def test_tables_fit_the_terminal(self):
        self.cluster.submit("-H", "-J", "a-very-long-name-" * 10, "--wrap", "true")
        wide = self.cluster.ok("queue")
        self.assertIn("a-very-long-name-" * 10, wide)
        leader, follower = pty.openpty()
        env = dict(self.cluster.env, COLUMNS="100")
        subprocess.run([MUSTER, "queue"], stdout=follower, env=env, timeout=60 * SLOWNESS, check=True)
        os.close(follower)
        shown = os.read(leader, 100000).decode()
        os.close(leader)
        self.assertLessEqual(max(len(line) for line in shown.splitlines()), 100, shown)

    def test_every_table_fits_80_columns(self):
        self.cluster.wait(self.cluster.submit("-J", "a-very-long-name-" * 4, "-N", 2, "-o", "/no/such/place/x", "--wrap", "true"))
        self.cluster.submit("-H", "-J", "a-very-long-name-" * 4, "-a", "1-5:2,7,100-120%3", "--wrap", "true")
        for table in (("history",), ("queue",), ("nodes",), ("local", "status")):
            text = self.cluster.ok(*table, env={"COLUMNS": "80"})
            self.assertLessEqual(max(len(line) for line in text.splitlines()), 80, text)

    def test_what_does_not_go_to_a_terminal_is_not_cut(self):
        name = "a-very-long-name-" * 10
        job = self.cluster.submit("-H", "-J", name, "--wrap", "true")
        self.assertIn(name, self.cluster.ok("queue"))
        self.assertIn(name, self.cluster.ok("show", "job", job))
        narrow = self.cluster.ok("queue", env={"COLUMNS": "90"})
        self.assertLessEqual(max(len(line) for line in narrow.splitlines()), 90, narrow)
        narrow = self.cluster.ok("show", "job", job, env={"COLUMNS": "90"})
        self.assertLessEqual(max(len(line) for line in narrow.splitlines()), 90, narrow)

    def test_show_job_cuts_a_very_long_command(self):
        job = self.cluster.submit("-H", self.cluster.script("args.sh", "#!/bin/sh\n"), *["argument-%d" % i for i in range(5000)])
        text = self.cluster.ok("show", "job", job)
        self.assertLess(len(text), 4000)
        self.assertIn("args.sh argument-0 argument-1 ", text)
        self.assertIn("(5000 arguments: --json shows them whole)", text)
        self.assertEqual(len(self.cluster.job(job)["args"]), 5000)

    def test_show_queue_counts_jobs_and_nodes(self):
        array = self.cluster.submit("-H", "-a", "1-20", "--wrap", "true")
        job = self.cluster.submit("--wrap", "sleep 100")
        self.cluster.wait_state(job, "running")
        queue = self.cluster.json("show", "queue", "main")["queues"]
        self.assertEqual(len(queue), 1)
        self.assertEqual({k: queue[0][k] for k in ("name", "state", "jobs_pending", "jobs_active", "nodes", "node_count", "preempt_mode", "placement")},
                         {"name": "main", "state": "up", "jobs_pending": 20, "jobs_active": 1, "nodes": ["n1", "n2"], "node_count": 2,
                          "preempt_mode": "off", "placement": "pack"})
        text = self.cluster.ok("show", "queue")
        self.assertRegex(text, r"Jobs: +20 pending, 1 running\n")
        self.assertRegex(text, r"Nodes: +2: n\[1-2\]\n")
        self.cluster.ok("cancel", array)

    def test_watch_ends_when_interrupted(self):
        watch = self.cluster.popen("queue", "--watch=1", stdout=subprocess.PIPE)
        self.assertIn(b"JOB", watch.stdout.readline())
        watch.send_signal(2)
        self.assertEqual(watch.wait(timeout=60 * SLOWNESS), 0)
        watch.stdout.close()

    def test_help_of_every_command(self):
        overview = self.cluster.ok("help")
        for line in overview.splitlines():
            if line.startswith("  ") and not line.startswith("   "):
                command = line.split()[0]
                self.assertIn("Usage: muster " + command, self.cluster.ok(command, "--help"))
        self.assertIn("muster", self.cluster.ok("version"))
        subprocess.run(["bash", "-n"], input=self.cluster.ok("completion", "bash"), text=True, check=True)


if __name__ == "__main__":
    unittest.main()
