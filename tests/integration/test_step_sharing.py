"""Steps beside each other in one job: what they get of it, and what they wait for."""

import os
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import MUSTER, SLOWNESS, ClusterTest, until  # noqa: E402


class StepSharing(ClusterTest):
    nodes = 2
    topology = "pack:1 core:4 pu:1+gpu:2"

    def setUp(self):
        until(lambda: all(node["state"] == "idle" for node in self.cluster.json("nodes")["nodes"]), what="idle nodes")

    def alloc(self, *args):
        """A job without a command: its id, ended after the test."""
        job = self.cluster.json("alloc", "--no-shell", *args)["id"]
        self.addCleanup(self.cluster.run, "cancel", job)
        return job

    def step(self, job, *args):
        process = subprocess.Popen([MUSTER, "run", "--jobid", str(job)] + [str(arg) for arg in args], env=self.cluster.env, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def finish(self, process, **options):
        out, err = process.communicate(timeout=60 * SLOWNESS, **options)
        return process.returncode, out, err

    def holder(self, job, *args):
        """A step that says that it runs and ends with its input."""
        process = self.step(job, *(args + ("sh", "-c", "echo $SLURM_STEP_ID $SLURM_CPUS_ON_NODE gpus=$CUDA_VISIBLE_DEVICES; cat")))
        return process, process.stdout.readline().split()

    def test_a_step_whose_client_was_killed_while_it_waited_does_not_start(self):
        job = self.alloc("-N", 1, "-n", 4)
        first, _ = self.holder(job, "--exact", "-n", 4, "--input", 0)
        dead = self.step(job, "--exact", "-n", 4, "sh", "-c", "echo > ran.$MUSTER_PROCID; sleep 1000")
        self.assertIn("waits", dead.stderr.readline())
        behind = self.step(job, "--exact", "-n", 1, "echo", "behind")
        self.assertIn("waits", behind.stderr.readline())
        dead.kill()
        dead.wait()
        first.stdin.close()
        first.stdin = None
        self.assertEqual(self.finish(behind)[:2], (0, "behind\n"))
        self.assertFalse([name for name in os.listdir(self.cluster.work) if name.startswith("ran.")])

    def test_gpus_in_total_are_taken_where_they_are(self):
        job = self.alloc("-N", 2, "-n", 8, "--gpus-per-node", 2)
        holders = [self.holder(job, "--exact", "-n", 1, "-c", 1, "--gpus", 1) for _ in range(4)]
        self.assertEqual(len(holders), 4)
        for process, _ in holders:
            process.stdin.close()
            process.stdin = None
            self.assertEqual(self.finish(process)[0], 0)

    def test_exact_steps_wait_for_each_other_and_start_by_themselves(self):
        job = self.alloc("-N", 1, "-n", 4)
        first, said = self.holder(job, "--exact", "-n", 3, "--input", 0)
        self.assertEqual(said[1], "3")
        for _ in range(2):
            first.stdout.readline()
        waiting = self.step(job, "--exact", "-n", 2, "echo", "mine")
        self.assertIn("the step of job %d waits: step %d.%s holds 3 of 4 cores of " % (job, job, said[0]), waiting.stderr.readline())
        # Whole and overlapping steps wait for nobody. One that would fit waits behind the one before.
        self.assertEqual(self.cluster.ok("run", "--jobid", job, "-n", 1, "echo", "whole"), "whole\n")
        self.assertEqual(self.cluster.ok("run", "--jobid", job, "--overlap", "-n", 1, "echo", "overlap"), "overlap\n")
        behind = self.step(job, "--exact", "-n", 1, "echo", "behind")
        self.assertIn("a step before it waits for", behind.stderr.readline())
        first.stdin.close()
        first.stdin = None
        self.assertEqual(self.finish(waiting)[:2], (0, "mine\nmine\n"))
        self.assertEqual(self.finish(behind)[:2], (0, "behind\n"))
        self.assertEqual(first.wait(30 * SLOWNESS), 0)

    def test_exact_steps_get_different_gpus(self):
        job = self.alloc("-N", 1, "-n", 2, "--gpus-per-node", 2)
        first, one = self.holder(job, "--exact", "-n", 1, "--gpus-per-task", 1)
        second, two = self.holder(job, "--exact", "-n", 1, "--gpus-per-task", 1)
        self.assertEqual({one[2], two[2]}, {"gpus=0", "gpus=1"})
        third, none = self.holder(job, "--overlap", "-n", 1)
        self.assertEqual(none[2], "gpus=0,1")
        for process in (first, second, third):
            self.assertEqual(self.finish(process, input="")[0], 0)
        self.assertEqual(self.cluster.ok("run", "--jobid", job, "--exact", "-n", 1, "sh", "-c", "echo =$CUDA_VISIBLE_DEVICES"), "=\n")

    def test_an_exclusive_step_waits_for_whole_ones_and_they_for_it(self):
        job = self.alloc("-N", 1, "-n", 4)
        whole, said = self.holder(job, "-n", 1)
        exclusive = self.step(job, "--exclusive", "-n", 1, "sh", "-c", "echo in; cat")
        self.assertIn("step %d.%s has all of " % (job, said[0]), exclusive.stderr.readline())
        self.assertEqual(self.finish(whole, input="")[0], 0)
        self.assertEqual(exclusive.stdout.readline(), "in\n")
        other = self.step(job, "-n", 1, "echo", "other")
        self.assertIn("for itself", other.stderr.readline())
        self.assertEqual(self.finish(exclusive, input="")[0], 0)
        self.assertEqual(self.finish(other)[:2], (0, "other\n"))

    def test_a_restart_of_the_node_forgets_no_core(self):
        job = self.alloc("-N", 1, "-n", 4)
        first, said = self.holder(job, "--exact", "-n", 4)
        for _ in range(3):
            first.stdout.readline()
        waiting = self.step(job, "--exact", "-n", 1, "echo", "mine")
        waiting.stderr.readline()
        node = next(j for j in self.cluster.json("queue")["jobs"] if j["id"] == job)["nodes"][0]
        pid = next(d["pid"] for d in self.cluster.json("local", "status")["daemons"] if d["name"] == node)
        os.kill(pid, signal.SIGKILL)
        self.cluster.ok("local", "restart", node)
        late = self.step(job, "--exact", "-n", 1, "echo", "late")
        self.assertIn("step %d.%s holds 4 of 4 cores" % (job, said[0]), late.stderr.readline())
        self.assertIsNone(waiting.poll())
        first.send_signal(signal.SIGTERM)
        self.assertEqual(first.wait(30 * SLOWNESS), 143)
        self.assertEqual(self.finish(waiting)[:2], (0, "mine\n"))
        self.assertEqual(self.finish(late)[:2], (0, "late\n"))

    def test_one_that_waits_can_be_interrupted(self):
        job = self.alloc("-N", 1, "-n", 4)
        first, _ = self.holder(job, "--exact", "-n", 4)
        waiting = self.step(job, "--exact", "-n", 1, "true")
        waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(waiting)[0], 130)
        self.assertEqual(self.finish(first, input="")[0], 0)

    def test_what_never_fits_is_refused(self):
        job = self.alloc("-N", 1, "-n", 4, "--gpus-per-node", 2)
        for args, text in ((("--exact", "-n", 5), "--ntasks=5: the job's cores on 1 node have room for 4 tasks"),
                           (("--exact", "-n", 1, "--gpus-per-task", 3), "--gpus-per-task=3: the job has 2 GPUs"),
                           (("-n", 1, "--relative", 1), "--relative=1: the job has 1 node"),
                           (("--input", 9, "-n", 2), "--input=9: the step has tasks 0 to 1")):
            result = self.cluster.run("run", "--jobid", job, *args, "true")
            self.assertEqual(result.code, 1, result.err)
            self.assertIn(text, result.err)
        self.assertIn("--overlap beside --exclusive", self.cluster.run("run", "--jobid", job, "--exclusive", "--overlap", "true").err)

    def test_relative_and_nodelist(self):
        job = self.alloc("-N", 2, "-n", 2)
        nodes = next(j for j in self.cluster.json("queue")["jobs"] if j["id"] == job)["nodes"]
        self.assertEqual(self.cluster.ok("run", "--jobid", job, "-N", 1, "--relative", 1, "hostname"), nodes[1] + "\n")
        self.assertEqual(self.cluster.ok("run", "--jobid", job, "-w", nodes[1], "hostname"), nodes[1] + "\n")
        self.assertEqual(self.cluster.ok("run", "--jobid", job, "-x", nodes[1], "hostname"), nodes[0] + "\n")

    def test_wait_ends_those_that_are_left(self):
        job = self.alloc("-N", 1, "-n", 2)
        result = self.cluster.run("run", "--jobid", job, "-n", 2, "--wait", 1, "sh", "-c", "[ $MUSTER_PROCID = 0 ] || exec sleep 1000")
        self.assertEqual(result.code, 143, result.err)
        self.assertIn("--wait: 1 s have passed since its first task ended", result.err)

    def test_input_goes_to_the_rank_that_is_named(self):
        job = self.alloc("-N", 2, "-n", 2)
        out = self.cluster.ok("run", "--jobid", job, "-n", 2, "-l", "--input", 1, "cat", stdin="hello\n")
        self.assertEqual(out, "1: hello\n")

    def test_different_programs_for_different_ranks(self):
        path = os.path.join(self.cluster.work, "progs")
        with open(path, "w") as out:
            out.write("# ranks program\n0 echo server %t\n1-2 sh -c 'echo worker $0 %o' x\n* /no/such/program\n")
        job = self.alloc("-N", 2, "-n", 4)
        self.assertEqual(sorted(self.cluster.ok("run", "--jobid", job, "-n", 3, "-l", "--multi-prog", path).splitlines()),
                         ["0: server 0", "1: worker x 0", "2: worker x 1"])
        self.assertEqual(sorted(self.cluster.ok("run", "-n", 2, "-l", "--multi-prog", path).splitlines()), ["0: server 0", "1: worker x 0"])
        result = self.cluster.run("run", "--jobid", job, "-n", 4, "--multi-prog", path)
        self.assertEqual(result.code, 2, result.err)  # the program of rank 3
        self.assertIn("/no/such/program", result.err)
        with open(path, "w") as out:
            out.write("0 true\n2 true\n")
        result = self.cluster.run("run", "--jobid", job, "-n", 3, "--multi-prog", path)
        self.assertEqual(result.code, 1, result.err)
        self.assertIn("no line of the file names task 1", result.err)
        with open(path, "w") as out:
            out.write("0 true\none true\n")
        result = self.cluster.run("run", "--jobid", job, "--multi-prog", path)
        self.assertEqual(result.code, 2)
        self.assertIn("progs:2: \"one\" names no tasks", result.err)
        result = self.cluster.run("run", "--jobid", job, "--multi-prog", "/no/such/file")
        self.assertEqual(result.code, 2)
        self.assertIn("/no/such/file", result.err)

    def test_500_steps_in_the_background_of_a_script(self):
        script = "for i in $(seq 500); do %s run -Q -n 1 --exact --cpu-bind=none sh -c \"echo $i >> done\" & done; wait" % MUSTER
        result = self.cluster.run("submit", "-W", "-n", 4, "--wrap", script, timeout=280)
        output = [name for name in os.listdir(self.cluster.work) if name.startswith("muster-")]
        for name in output:
            with open(os.path.join(self.cluster.work, name)) as text:
                self.assertEqual((result.code, text.read()), (0, ""))
        with open(os.path.join(self.cluster.work, "done")) as done:
            self.assertEqual(sorted(int(line) for line in done), list(range(1, 501)))


class ManyTasks(ClusterTest):
    topology = "pack:1 core:40 pu:1"

    def test_programs_with_more_arguments_than_can_be_given_are_refused(self):
        with open(os.path.join(self.cluster.work, "large.conf"), "w") as file:
            file.write("* true %s\n" % " ".join(["x" * 1000] * 940))
        job = self.cluster.submit("-n", 40, "-o", "out", "--wrap",
                                  "muster run -n 20 --multi-prog large.conf && echo twenty; muster run --multi-prog large.conf; "
                                  "echo ended with $?; muster run -n 1 echo well")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        out = self.cluster.read("out").splitlines()
        self.assertEqual(out[0], "twenty", out)
        self.assertRegex(out[1], r"have \d+ MiB, at most 31 can be given: shorten them, or start fewer tasks in a step")
        self.assertEqual(out[2:], ["ended with 1", "well"])


if __name__ == "__main__":
    unittest.main()
