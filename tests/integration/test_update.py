#!/usr/bin/env python3
"""muster update from the outside: jobs that wait and run, queues and settings over restarts, deadlines, --time-min, paired
arrays, single tasks that are held."""

import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import SLOWNESS, ClusterTest, seconds, until


class Update(ClusterTest):
    nodes = 2
    topology = "package:1 core:4 pu:1"
    settings = ("queue.main.priority=1", "queue.side.priority=1")

    def submit(self, command, *options):
        return self.cluster.submit(*options, "--wrap", command)

    def reason(self, job):
        return self.cluster.job(job)["reason"]

    def refused(self, *args, code=1):
        result = self.cluster.run("update", *args)
        self.assertEqual(result.code, code, result)
        self.assertEqual(result.err.count("\n"), 1, result)
        return result.err

    def kill_daemon(self, node):
        os.kill(self.cluster.pid(node), signal.SIGKILL)
        until(lambda: self.cluster.daemons()[node]["state"] != "up", what="the end of the daemon of " + node)

    def restart_controller(self):
        os.kill(self.cluster.pid("ctld"), signal.SIGKILL)
        self.cluster.local("restart", "ctld")

    # -- jobs

    def test_a_job_that_waits_gets_what_it_is_changed_to(self):
        job = self.submit("env > update.env", "-H", "-n", 2, "-t", "10")
        self.cluster.ok("update", str(job), "-n", 1, "--time", "5", "-J", "renamed", "--comment", "hello", "--nice=3")
        view = self.cluster.job(job)
        self.assertEqual((view["task_count"], view["time_limit_s"], view["name"], view["comment"], view["nice"]),
                         (1, 300, "renamed", "hello", 3))
        self.assertIn("can never run in queue main", self.refused(str(job), "-c", "5"))
        self.assertIn("nothing to change", self.refused(str(job), code=2))
        self.assertIn("--set is about queues", self.refused(str(job), "--set", "a=b", code=2))
        self.restart_controller()
        self.cluster.ok("release", str(job))
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        self.assertIn("MUSTER_JOB_NAME=renamed\n", self.cluster.read("update.env"))

    def test_what_was_asked_is_taken_back(self):
        job = self.submit("true", "-N", 2, "-w", "n2", "--exclusive", "--begin", "now+1h", "--time-min", "1")
        self.assertEqual(self.reason(job), "BeginTime")
        self.cluster.ok("update", str(job), "--begin", "none", "-w", "none", "--exclusive=no", "--time-min", "none", "-N", 1)
        view = self.cluster.wait(job)
        self.assertEqual((view["state"], len(view["nodes"]), "time_min_s" in view), ("completed", 1, False), view)

    def test_a_dependency_is_changed_and_cycles_are_refused(self):
        first = self.submit("true", "-H")
        second = self.submit("true", "-d", "afterok:%d" % first)
        self.assertIn("makes jobs wait for each other for ever: %d -> %d -> %d" % (first, second, first),
                      self.refused(str(first), "-d", "afterok:%d" % second))
        self.cluster.ok("update", str(second), "-d", "none")
        self.assertEqual(self.cluster.wait(second)["state"], "completed")
        # One that has ended is looked up in the history.
        self.cluster.ok("update", str(first), "-d", "afterok:%d" % second)
        self.cluster.ok("release", str(first))
        self.assertEqual(self.cluster.wait(first)["state"], "completed")

    def test_a_running_jobs_limit_is_lowered_and_raised(self):
        job = self.submit("sleep 600", "-t", "10")
        self.cluster.wait_state(job, "running")
        self.cluster.ok("update", str(job), "--time", "20")  # the owner of a local cluster is its administrator
        self.assertEqual(self.cluster.job(job)["time_limit_s"], 1200)
        self.assertIn("--qos can be changed only while a job waits", self.refused(str(job), "--qos", "x"))
        # Also by a node whose daemon is restarted: the controller says it again, the shepherd remembers it.
        self.cluster.ok("update", str(job), "--time", seconds(8))
        for node in ("n1", "n2"):
            self.kill_daemon(node)
            self.cluster.local("restart", node)
        view = self.cluster.wait(job, 60)
        self.assertEqual(view["state"], "timeout", view)
        self.assertLess(view["end_time"] - view["start_time"], 40 * SLOWNESS)
        self.assertEqual(view["time_limit_s"], 8 * SLOWNESS)

    def test_a_limit_that_is_changed_while_the_node_is_away_reaches_it(self):
        job = self.submit("sleep 600", "-t", "10", "-w", "n1")
        self.cluster.wait_state(job, "running")
        self.kill_daemon("n1")
        self.cluster.ok("update", str(job), "--time", "5s")
        self.cluster.local("restart", "n1")
        self.assertEqual(self.cluster.wait(job, 60)["state"], "timeout")

    # -- deadlines

    def test_deadlines(self):
        too_late = self.cluster.run("submit", "--deadline", "now+10s", "-t", "1", "--wrap", "true")
        self.assertEqual(too_late.code, 1)
        self.assertIn("cannot end by its --deadline", too_late.err)
        block = self.submit("sleep 600", "-N", 2, "--exclusive", "-t", "10")
        self.cluster.wait_state(block, "running")
        given_up = self.submit("true", "-t", seconds(2), "--deadline", "now+" + seconds(4))
        view = self.cluster.wait(given_up, 30)
        self.assertEqual((view["state"], view["reason"]), ("deadline", "DeadLine"))
        self.assertLess(view["end_time"], view["deadline"])
        self.cluster.ok("cancel", str(block))
        self.cluster.wait(block)
        stopped = self.submit("sleep 600", "-t", seconds(2), "--deadline", "now+" + seconds(6))
        self.cluster.wait_state(stopped, "running")
        self.cluster.ok("update", str(stopped), "-t", "10")
        view = self.cluster.wait(stopped, 60)
        self.assertEqual(view["state"], "deadline", view)
        self.assertGreaterEqual(view["end_time"], view["deadline"])

    def test_a_shorter_limit_fills_a_gap(self):
        block = self.submit("sleep 600", "-N", 2, "-n", 6, "--ntasks-per-node", 3, "-t", "5")
        self.cluster.wait_state(block, "running")
        big = self.submit("true", "-N", 2, "--exclusive", "-t", "1")
        until(lambda: "planned_start" in self.cluster.json("why", str(big)), what="the promise")
        stiff = self.submit("true", "-t", "30")
        self.assertEqual(self.reason(stiff), "Priority")
        flexible = self.submit("sleep 600", "-t", "30", "--time-min", "1")
        view = self.cluster.wait_state(flexible, "running")
        self.assertLess(view["time_limit_s"], 301)
        self.assertEqual(view["time_min_s"], 60)
        self.cluster.ok("cancel", *map(str, (block, big, stiff, flexible)))
        for job in (block, big, stiff, flexible):
            self.cluster.wait(job)

    # -- arrays

    def test_single_tasks_are_held_and_shown_apart(self):
        array = self.submit("true", "-a", "0-4", "-H")
        self.cluster.ok("release", "%d_[0,3]" % array)
        for task in (0, 3):
            self.assertEqual(self.cluster.wait("%d_%d" % (array, task))["state"], "completed")
        rows = self.cluster.json("queue", "-j", str(array))["jobs"]
        self.assertEqual([(row["array_waiting"], row["held"], row["reason"]) for row in rows],
                         [("1-2,4", True, "JobHeldUser")])
        self.assertEqual(self.reason("%d_2" % array), "JobHeldUser")
        self.cluster.ok("release", str(array))
        self.assertEqual({job["state"] for job in self.cluster.wait_all(array)}, {"completed"})

    def test_aftercorr(self):
        self.cluster.script("corr.sh", "#!/bin/sh\nwhile [ ! -s corr.$MUSTER_ARRAY_TASK_ID ]; do sleep 0.05; done\n"
                                       "exit $(cat corr.$MUSTER_ARRAY_TASK_ID)\n")
        first = self.cluster.submit("-a", "1-3", "corr.sh")
        second = self.submit("true", "-a", "1-3", "-d", "aftercorr:%d" % first)
        self.assertEqual(self.reason(second), "Dependency")
        self.cluster.script("corr.2", "0\n")
        self.assertEqual(self.cluster.wait("%d_2" % second)["state"], "completed")
        self.restart_controller()
        self.cluster.script("corr.1", "7\n")
        self.cluster.wait("%d_1" % first)
        until(lambda: self.reason("%d_1" % second) == "DependencyNeverSatisfied", what="the verdict")
        self.assertEqual(self.reason("%d_3" % second), "Dependency")
        self.assertIn("can never be satisfied", self.cluster.ok("why", "%d_1" % second))
        self.cluster.script("corr.3", "0\n")
        self.assertEqual(self.cluster.wait("%d_3" % second)["state"], "completed")
        # What has ended is known by the history.
        third = self.submit("true", "-a", "1-3", "-d", "aftercorr:%d" % first)
        self.assertEqual(self.cluster.wait("%d_2" % third)["state"], "completed")
        self.assertEqual(self.reason("%d_1" % third), "DependencyNeverSatisfied")
        self.cluster.ok("cancel", str(second), str(third))

    # -- queues and settings

    def queue(self, name):
        return self.cluster.json("show", "queue", name)["queues"][0]

    def test_a_queue_is_changed_and_stays_so_over_a_restart(self):
        self.cluster.ok("update", "queue", "side", "--set", "priority=7", "--set", "max_time=30m")
        self.cluster.ok("update", "queue", "fresh", "--create", "--set", "max_nodes=1", "allow_users=nobody")
        told = self.cluster.run("update", "queue", "fresh", "--set", "nodes=n[1,7-8]")
        self.assertEqual(told.code, 0)
        self.assertIn("n[7-8] are not known yet", told.err)
        self.cluster.ok("update", "queue", "fresh", "--reset=nodes")
        self.restart_controller()
        side = self.queue("side")
        self.assertEqual((side["priority"], side["max_time_s"], sorted(side["overridden"])),
                         (7, 1800, ["max_time", "priority"]))
        fresh = self.queue("fresh")
        self.assertEqual((fresh["max_nodes"], fresh["allow_users"], fresh["made_at_run_time"]), (1, ["nobody"], True))
        values = {v["key"]: v for v in self.cluster.json("show", "config", "queue.side")["config"]}
        self.assertEqual(values["queue.side.priority"],
                         {"key": "queue.side.priority", "value": "7", "source": "changed at run time", "configured": "1"})
        result = self.cluster.run("submit", "-p", "fresh", "--wrap", "true")
        self.assertEqual(result.code, 1)
        self.assertIn("is not admitted by queue fresh", result.err)
        self.cluster.ok("update", "queue", "fresh", "--reset=allow_users")
        job = self.submit("true", "-p", "fresh", "-H")
        self.assertIn("1 job that could not go on: %d (it waits in queue fresh)" % job,
                      self.refused("queue", "fresh", "--delete"))
        self.cluster.ok("release", str(job))
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        self.cluster.ok("update", "queue", "fresh", "--delete")
        self.assertEqual(self.cluster.run("show", "queue", "fresh").code, 1)
        self.assertIn("is in the configuration file", self.refused("queue", "side", "--delete"))
        self.cluster.ok("update", "queue", "side", "--reset")
        self.assertEqual((self.queue("side")["priority"], self.queue("side")["overridden"]), (1, []))

    def test_a_change_that_strands_jobs_says_which(self):
        job = self.submit("true", "-p", "side", "-t", "60", "-H")
        self.assertIn("%d (--time 01:00:00 is above the limit of queue side" % job,
                      self.refused("queue", "side", "--set", "max_time=30m"))
        self.cluster.ok("update", "queue", "side", "--set", "max_time=30m", "--force")
        self.cluster.ok("release", str(job))
        self.assertEqual(self.reason(job), "PartitionTimeLimit")
        blockers = self.cluster.json("why", str(job))["blockers"]
        self.assertEqual([b["kind"] for b in blockers], ["queue_limit"])
        self.cluster.ok("update", str(job), "-t", "20")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        self.cluster.ok("update", "queue", "side", "--reset")

    def test_settings(self):
        self.cluster.ok("update", "config", "scheduling.promises=2")
        self.restart_controller()
        value = self.cluster.json("show", "config", "scheduling.promises")["config"][0]
        self.assertEqual((value["value"], value["source"], value["configured"]), ("2", "changed at run time", "1"))
        self.cluster.ok("update", "config", "--reset", "scheduling.promises")
        self.assertEqual(self.cluster.json("show", "config", "scheduling.promises")["config"][0]["source"], "default")
        self.assertIn("did you mean", self.refused("config", "scheduling.promise=2"))
        self.assertIn("is out of bounds", self.refused("config", "scheduling.promises=0"))
        self.assertIn("cannot be changed at run time", self.refused("config", "controller.node_timeout=5s"))
        self.assertIn("unknown queue", self.refused("queue", "nowhere", "--set", "priority=1"))
        self.assertIn("is longer than max_time", self.refused("config", "job.default_time=2h", "job.max_time=1h"))


if __name__ == "__main__":
    unittest.main()
