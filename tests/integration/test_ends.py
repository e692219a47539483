"""How jobs end, as users see it: exit codes, signals, launch failures, output failures, cancel, time limits, order."""

import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import ClusterTest, processes_of, seconds, until  # noqa: E402


class Ends(ClusterTest):
    nodes = 2
    settings = ("node.kill_grace=" + seconds(1),)

    def test_exit_code_seven_shows_as_seven(self):
        job = self.cluster.wait(self.cluster.submit("--wrap", "exit 7"))
        self.assertEqual((job["state"], job["exit_code"]), ("failed", 7))

    def test_a_segmentation_fault_shows_as_signal_eleven(self):
        job = self.cluster.wait(self.cluster.submit("--wrap", "kill -SEGV $$"))
        self.assertEqual((job["state"], job["exit_signal"]), ("failed", 11))

    def reasons(self, job):
        """What show and why say; both must name the cause."""
        return [self.cluster.ok("show", "job", job), self.cluster.ok("why", job)]

    def test_a_missing_interpreter_is_named(self):
        script = self.cluster.script("no_interpreter.sh", "#!/no/such/interpreter\ntrue\n")
        job = self.cluster.submit(script)
        self.assertEqual(self.cluster.wait(job)["state"], "failed")
        for text in self.reasons(job):
            self.assertIn("/no/such/interpreter", text)

    def test_a_missing_working_directory_is_named(self):
        job = self.cluster.submit("-D", "/no/such/directory", "-o", "/dev/null", "--wrap", "true")
        self.assertEqual(self.cluster.wait(job)["state"], "failed")
        for text in self.reasons(job):
            self.assertIn("/no/such/directory", text)

    def test_an_output_path_that_cannot_be_written_is_named(self):
        job = self.cluster.submit("-o", "/proc/no/such/file", "--wrap", "true")
        self.assertEqual(self.cluster.wait(job)["state"], "failed")
        for text in self.reasons(job):
            self.assertIn("/proc/no/such/file", text)
        after = self.cluster.submit("--wrap", "true")
        self.assertEqual(self.cluster.wait(after)["state"], "completed", "the daemon did not survive")

    def test_cancel_ends_grandchildren_that_left_the_session(self):
        job = self.cluster.submit("--wrap",
                                  "setsid sh -c 'setsid sh -c \"trap : TERM; echo \\$\\$ > deep; while :; do sleep 1000; done\" & "
                                  "echo $$ > mid; exec sleep 1000' & echo $$ > top; exec sleep 1000")
        pids = [name for name in ("deep", "mid", "top") if self.cluster.wait_file(name)]
        self.assertEqual(len(pids), 3)
        self.assertTrue(processes_of(self.cluster.work))
        self.cluster.ok("cancel", job)
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        self.assertEqual(processes_of(self.cluster.work), [], "something of the job is left")

    def test_term_comes_before_kill(self):
        job = self.cluster.submit("--wrap", "trap 'echo got TERM; exit 0' TERM; touch ready.term; while :; do sleep 0.05; done")
        until(lambda: self.cluster.exists("ready.term"), what="the trap")
        self.cluster.ok("cancel", job)
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        self.assertIn("got TERM", self.cluster.read("muster-%d.out" % job))

    def test_a_time_limit_ends_a_job(self):
        job = self.cluster.submit("-t", "1s", "--wrap", "sleep 1000")
        self.assertEqual(self.cluster.wait(job)["state"], "timeout")

    def test_a_signal_reaches_a_running_job(self):
        job = self.cluster.submit("--wrap", "trap 'echo usr1; exit 4' USR1; touch ready.usr1; while :; do sleep 0.05; done")
        until(lambda: self.cluster.exists("ready.usr1"), what="the trap")
        self.cluster.ok("cancel", "-s", "USR1", job)
        ended = self.cluster.wait(job)
        self.assertEqual((ended["state"], ended["exit_code"]), ("failed", 4))


class NodesThatFail(ClusterTest):
    nodes = 2
    settings = ("controller.node_timeout=3s", "node.heartbeat_interval=1s")

    def power_cut(self, node):
        self.cluster.local("kill", node)
        self.cluster.local("restart", node)

    def running_on(self, node, *options):
        job = self.cluster.submit("-w", node, *options, "--wrap", "sleep 1000")
        self.cluster.wait_state(job, "running")
        return job

    def test_a_job_that_was_cancelled_is_cancelled_though_its_node_lost_power(self):
        job = self.running_on("n1")
        self.cluster.local("kill", "n1")
        self.cluster.ok("cancel", job)
        self.cluster.local("restart", "n1")
        ended = self.cluster.wait(job)
        self.assertEqual(ended["state"], "cancelled")
        self.assertIn("n1: the node", ended["reason_detail"])

    def test_a_job_on_a_node_that_is_not_heard_says_so(self):
        job = self.running_on("n2")
        self.cluster.local("kill", "n2")
        until(lambda: self.cluster.job(job)["reason"] == "NodeUnreachable", 30, "the reason")
        self.assertIn("node n2 is not heard", self.cluster.ok("why", job))
        self.assertEqual(self.cluster.job(job)["state"], "running")
        self.cluster.local("restart", "n2")
        self.assertEqual(self.cluster.wait(job)["state"], "node_failed")

    def test_a_controller_that_waits_for_its_nodes_says_so(self):
        self.cluster.local("kill", "n2")
        self.cluster.local("restart", "ctld")
        job = self.cluster.submit("--wrap", "true")
        told = self.cluster.job(job)
        self.assertEqual((told["state"], told["reason"]), ("pending", "ControllerStarted"))
        self.assertRegex(self.cluster.ok("why", job), "plans when .*n.* back, or in [0-9]+ s at the latest")
        self.cluster.local("restart", "n2")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")

    def test_nobody_saw_the_exit_code_of_a_lost_job(self):
        job = self.running_on("n2")
        self.power_cut("n2")
        ended = self.cluster.wait(job)
        self.assertEqual(ended["state"], "node_failed")
        self.assertNotIn("exit_code", ended)

    def test_a_run_whose_node_lost_power_says_how_its_job_ended(self):
        run = self.cluster.popen("run", "-w", "n1", "sh", "-c", "echo > lost.up; exec sleep 1000", stderr=subprocess.PIPE, text=True)
        self.cluster.wait_file("lost.up")
        self.power_cut("n1")
        self.assertEqual(run.wait(30), 1)
        said = run.stderr.read()
        run.stderr.close()
        self.assertIn("has ended (node_failed): n1: the node was restarted", said)

    def test_a_run_of_two_nodes_says_that_one_failed(self):
        run = self.cluster.popen("run", "-N", 2, "sh", "-c", "echo > pair.$RANK; exec sleep 1000", stderr=subprocess.PIPE, text=True)
        for rank in range(2):
            self.cluster.wait_file("pair.%d" % rank)
        job = self.cluster.json("queue")["jobs"][0]
        self.power_cut(job["nodes"][1])
        self.assertNotEqual(run.wait(50), 0)
        said = run.stderr.read()
        run.stderr.close()
        self.assertIn("has ended (node_failed): %s: the node was restarted" % job["nodes"][1], said)


class LateResults(ClusterTest):
    nodes = 1

    def test_a_job_that_ended_while_the_controller_was_away_ended_then(self):
        job = self.cluster.submit("--wrap", "until [ -e go ]; do sleep 0.05; done; date +%s.%N > ended")
        self.cluster.wait_state(job, "running")
        os.kill(self.cluster.pid("ctld"), signal.SIGKILL)
        self.cluster.script("go", "")
        self.cluster.wait_file("ended")
        ended = float(until(lambda: self.cluster.read("ended").strip(), what="the time"))
        until(lambda: time.time() > ended + 3, 30, "time to pass")
        self.cluster.local("restart", "ctld")
        self.assertAlmostEqual(self.cluster.wait(job)["end_time"], ended, delta=1.5)


class Order(ClusterTest):
    nodes = 1
    topology = "package:1 core:4 pu:1"

    def test_jobs_that_do_not_fit_together_never_overlap(self):
        log = os.path.join(self.cluster.work, "log")
        body = "echo start >> %s; sleep 0.2; echo end >> %s" % (log, log)
        jobs = [self.cluster.submit("-c", "3", "--wrap", body) for _ in range(3)]
        for job in jobs:
            self.assertEqual(self.cluster.wait(job)["state"], "completed")
        with open(log) as lines:
            self.assertEqual(lines.read().split(), ["start", "end"] * 3)

    def test_order_is_priority_then_submission(self):
        log = os.path.join(self.cluster.work, "order")
        go = os.path.join(self.cluster.work, "go")
        first = self.cluster.submit("-c", "4", "--wrap", "until [ -e %s ]; do sleep 0.05; done" % go)
        self.cluster.wait_state(first, "running")
        jobs = [self.cluster.submit("-c", "4", "--nice=%d" % nice, "--wrap", "echo %s >> %s" % (name, log))
                for name, nice in (("c", 10), ("d", 10), ("a", 0), ("b", 0))]
        why = self.cluster.json("why", jobs[0])
        self.assertTrue(why["blockers"])
        open(go, "w").close()
        for job in jobs:
            self.cluster.wait(job)
        with open(log) as lines:
            self.assertEqual(lines.read().split(), ["a", "b", "c", "d"])

    def test_what_can_never_fit_is_refused_with_the_reason(self):
        for options, says in ((("-c", "5"), "CPU"), (("-N", "2"), "node"), (("--gpus", "1"), "GPU"),
                              (("--mem", "1T"), "memory")):
            result = self.cluster.run("submit", *options, "--wrap", "true")
            self.assertEqual(result.code, 1, repr(result))
            self.assertIn("can never run", result.err)
            self.assertIn(says, result.err)
            self.assertEqual(len(result.err.splitlines()), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
