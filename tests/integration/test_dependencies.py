#!/usr/bin/env python3
"""Jobs that wait for others, from the outside: chains, failures, jobs that have ended, restarts, bad input."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import ClusterTest


class Dependencies(ClusterTest):
    nodes = 1
    topology = "package:1 core:8 pu:1"

    def submit(self, command, *options):
        return self.cluster.submit(*options, "--wrap", command)

    def waiter(self, name):
        """A job that runs until the file `name` is there, and ends with the number in it."""
        return self.submit("while [ ! -s %s ]; do sleep 0.05; done; exit $(cat %s)" % (name, name), "-J", name)

    def reason(self, job):
        return self.cluster.job(job)["reason"]

    def test_a_chain_runs_in_order(self):
        first = self.waiter("chain.end")
        second = self.submit("echo second >> chain.out", "-d", "afterok:%d" % first)
        third = self.submit("echo third >> chain.out", "-d", "afterok:%d:%d,afterany:%d" % (first, second, second))
        self.assertEqual(self.reason(second), "Dependency")
        why = self.cluster.json("why", str(second))
        self.assertEqual(why["blockers"][0]["kind"], "dependency")
        self.assertIn("afterok:%d (job %d is " % (first, first), why["blockers"][0]["text"])
        view = self.cluster.json("show", "job", str(third))["jobs"][0]
        self.assertEqual(view["dependency"], "afterok:%d:%d,afterany:%d" % (first, second, second))
        self.cluster.script("chain.end", "0\n")
        views = [self.cluster.wait(job) for job in (first, second, third)]
        self.assertEqual([view["state"] for view in views], ["completed"] * 3)
        self.assertEqual(self.cluster.read("chain.out"), "second\nthird\n")
        self.assertGreaterEqual(views[1]["eligible_time"], views[0]["end_time"] - 0.001)
        self.assertGreaterEqual(views[1]["start_time"], views[1]["eligible_time"])

    def test_a_failure_starts_what_waits_for_it_and_nothing_else(self):
        first = self.waiter("failure.end")
        not_ok = self.submit("true", "-d", "afternotok:%d" % first)
        ok = self.submit("true", "--dependency=afterok:%d" % first)
        after = self.submit("true", "-d", "after:%d" % first)
        later = self.submit("true", "-d", "after:%d+60" % first)
        self.assertEqual(self.cluster.wait(after)["state"], "completed")  # while the first one runs
        self.assertEqual(self.reason(later), "BeginTime")
        self.cluster.script("failure.end", "3\n")
        self.assertEqual(self.cluster.wait(not_ok)["state"], "completed")
        self.assertEqual(self.reason(ok), "DependencyNeverSatisfied")
        text = self.cluster.ok("why", str(ok))
        self.assertIn("can never be satisfied", text)
        self.assertIn("muster cancel %d" % ok, text)
        self.cluster.ok("cancel", str(ok), str(later))

    def test_jobs_that_have_ended_count(self):
        good = self.submit("true")
        bad = self.submit("false")
        tasks = self.submit("[ $MUSTER_ARRAY_TASK_ID != 2 ]", "-a", "1-3")
        self.cluster.wait(good)
        self.cluster.wait(bad)
        self.cluster.wait_all(tasks)
        met = [self.submit("true", "-d", on) for on in
               ("afterok:%d" % good, "afternotok:%d" % bad, "afterany:%d:%d" % (good, bad), "after:%d" % bad,
                "afterok:%d?afterok:%d" % (bad, good), "afternotok:%d" % tasks, "afterok:%d_1" % tasks,
                "afternotok:%d_2" % tasks)]
        for job in met:
            self.assertEqual(self.cluster.wait(job)["state"], "completed")
        for on in ("afterok:%d" % bad, "afternotok:%d" % good, "afterok:%d" % tasks, "afterok:%d_2" % tasks):
            never = self.submit("true", "-d", on)
            self.assertEqual(self.reason(never), "DependencyNeverSatisfied", on)
            self.cluster.ok("cancel", str(never))

    def test_minutes_count_from_a_start_after_which_the_job_was_requeued_and_cancelled(self):
        job = self.waiter("again.end")
        self.cluster.wait_state(job, "running")
        self.cluster.ok("drain", "n1", "--reason", "so that it does not start again")
        self.addCleanup(self.cluster.run, "resume", "n1")
        self.cluster.ok("requeue", str(job))
        self.cluster.wait_state(job, "pending")
        self.cluster.ok("cancel", str(job))
        self.cluster.ok("resume", "n1")
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        self.assertEqual(self.cluster.wait(self.submit("true", "-d", "after:%d" % job))["state"], "completed")
        later = self.submit("true", "-d", "after:%d+60" % job)
        self.assertEqual(self.reason(later), "BeginTime")
        self.cluster.ok("cancel", str(later))

    def test_it_outlives_a_restart_of_the_controller(self):
        first = self.waiter("restart.end")
        second = self.submit("true", "-d", "afterok:%d" % first)
        third = self.submit("true", "-d", "singleton", "-J", "restart.end")
        self.cluster.local("kill", "ctld")
        self.cluster.local("restart", "ctld")
        self.assertEqual(self.reason(second), "Dependency")
        self.assertEqual(self.reason(third), "Dependency")
        self.cluster.script("restart.end", "0\n")
        self.assertEqual(self.cluster.wait(second)["state"], "completed")
        self.assertEqual(self.cluster.wait(third)["state"], "completed")

    def test_bad_input_is_refused_with_a_sentence(self):
        job = self.submit("true")
        for code, on, says in ((1, "afterok:999999", "names job 999999, which is neither in the queue nor in the history"),
                               (1, "afterok:%d" % (job + 1), "is neither in the queue"),  # itself
                               (2, "afterok:%d,afterok:%d?singleton" % (job, job), "mixes"),
                               (2, "afterkO:%d" % job, "no kind of dependency"),
                               (1, "aftercorr:%d" % job, "aftercorr pairs the tasks of two arrays: give --array"),
                               (2, "aftercorr:%d_1" % job, "name the array alone")):
            result = self.cluster.run("submit", "-d", on, "--wrap", "true")
            self.assertEqual(result.code, code, result)
            self.assertTrue(result.err.startswith("muster: "), result)
            self.assertIn("--dependency", result.err)
            self.assertIn(says, result.err)

    def test_test_only_changes_nothing(self):
        first = self.waiter("test.end")
        before = self.cluster.json("queue")["jobs"]
        self.cluster.ok("submit", "--test-only", "-d", "afterok:%d" % first, "--wrap", "true")
        self.assertEqual(self.cluster.run("submit", "--test-only", "-d", "afterok:999999", "--wrap", "true").code, 1)
        self.assertEqual([job["id"] for job in self.cluster.json("queue")["jobs"]], [job["id"] for job in before])
        self.cluster.script("test.end", "0\n")
        self.cluster.wait(first)

    def test_a_script_may_say_it(self):
        first = self.waiter("script.end")
        self.cluster.script("dependent.sh", "#!/bin/sh\n#SBATCH --dependency=afterany:%d\ntrue\n" % first)
        second = self.cluster.submit("dependent.sh")
        self.assertEqual(self.reason(second), "Dependency")
        self.cluster.ok("cancel", str(first))
        self.assertEqual(self.cluster.wait(second)["state"], "completed")


if __name__ == "__main__":
    unittest.main()
