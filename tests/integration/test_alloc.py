"""`muster alloc`: an allocation for a shell or a command of the user's machine, and what ends it."""

import json
import os
import pty
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import MUSTER, SLOWNESS, ClusterTest, seconds, until  # noqa: E402


class Alloc(ClusterTest):
    nodes = 2
    settings = ("node.kill_grace=" + seconds(1),)

    def setUp(self):
        self.started = []
        self.addCleanup(self.end_all)
        until(lambda: all(node["state"] == "idle" for node in self.cluster.json("nodes")["nodes"]), what="idle nodes")

    def end_all(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.cluster.run("cancel", "--me")

    def start(self, *args, **options):
        process = subprocess.Popen([MUSTER, "alloc"] + [str(arg) for arg in args], env=self.cluster.env, text=True,
                                   stdin=options.get("stdin", subprocess.PIPE), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.started.append(process)
        return process

    def jobs(self):
        return self.cluster.json("queue")["jobs"]

    def running_job(self):
        until(lambda: any(job["state"] == "running" for job in self.jobs()), what="a job that runs")
        return next(job for job in self.jobs() if job["state"] == "running")["id"]

    def ended(self, job):
        rows = self.cluster.json("history", "-j", job)["jobs"]
        return rows[0] if rows and rows[0]["end_time"] else None

    def nothing_is_left(self):
        until(lambda: not self.jobs(), what="an empty queue")
        until(lambda: all(node["state"] == "idle" for node in self.cluster.json("nodes")["nodes"]), what="idle nodes")

    def finish(self, process, **options):
        out, err = process.communicate(timeout=30 * SLOWNESS, **options)
        return process.returncode, out, err

    # -- the command and its environment

    def test_the_command_has_the_jobs_environment_and_its_status_is_ours(self):
        names = ["MUSTER_JOB_ID", "SLURM_JOB_ID", "MUSTER_JOB_NAME", "SLURM_JOB_NAME", "MUSTER_NODELIST", "SLURM_NODELIST",
                 "SLURM_JOB_NODELIST", "SLURM_NNODES", "SLURM_TASKS_PER_NODE", "SLURM_JOB_CPUS_PER_NODE", "MUSTER_NTASKS"]
        result = self.cluster.run("alloc", "-N", 2, "-n", 4, "sh", "-c", "echo " + " ".join("$" + n for n in names) + "; exit 7")
        self.assertEqual(result.code, 7, result.err)
        job = result.out.split()[0]
        self.assertEqual(result.out.split(), [job, job, "interactive", "interactive", "n[1-2]", "n[1-2]", "n[1-2]", "2", "2(x2)",
                                              "2(x2)", "4"])
        self.assertIn("Submitted job %s" % job, result.err)
        self.assertIn("Job %s has nodes n[1-2]" % job, result.err)
        until(lambda: self.ended(job), what="the end of the job")
        self.assertEqual((self.ended(job)["state"], self.ended(job)["exit_code"]), ("failed", 7))
        self.nothing_is_left()

    def test_steps_run_in_the_allocation(self):
        result = self.cluster.run("alloc", "-Q", "-N", 2, "--ntasks-per-node", 2, "sh", "-c",
                                  "%s run -l hostname && srun -n1 sh -c 'echo $MUSTER_JOB_ID.$SLURM_STEP_ID'" % MUSTER)
        self.assertEqual((result.code, result.err), (0, ""))
        lines = result.out.splitlines()
        self.assertEqual(len(lines), 5, result.out)
        self.assertEqual({line.split()[1] for line in lines[:4]}, {"n1", "n2"})
        self.assertTrue(lines[4].endswith(".1"), lines)
        self.nothing_is_left()

    def test_a_command_that_is_killed(self):
        self.assertEqual(self.cluster.run("alloc", "sh", "-c", "kill -9 $$").code, 137)
        self.nothing_is_left()

    def test_a_command_that_is_not_there(self):
        result = self.cluster.run("alloc", "/no/such/program")
        self.assertEqual(result.code, 2)
        self.assertIn("cannot run /no/such/program: No such file or directory", result.err)
        self.nothing_is_left()

    def test_the_shell_is_the_users(self):
        process = self.start("-Q")
        code, out, err = self.finish(process, input="echo in $MUSTER_JOB_ID\nexit 5\n")
        self.assertEqual((code, out.split()[0], err), (5, "in", ""))
        self.nothing_is_left()

    def test_a_shell_at_a_terminal_has_it_and_gives_it_back(self):
        parent, child = pty.openpty()
        self.addCleanup(os.close, parent)
        process = subprocess.Popen([MUSTER, "alloc", "-Q", "sh", "-c", "read line; echo got $line; ps -o tpgid= -p $$; echo $$"],
                                   env=self.cluster.env, stdin=child, stdout=child, stderr=child, start_new_session=True,
                                   preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0))
        self.started.append(process)
        os.close(child)
        os.write(parent, b"hello\n")
        seen = b""
        while True:
            try:
                data = os.read(parent, 4096)
            except OSError:
                break
            if not data:
                break
            seen += data
        self.assertEqual(process.wait(timeout=30 * SLOWNESS), 0, seen)
        words = seen.decode().split()
        self.assertIn("got", words)
        self.assertEqual(words[-2], words[-1], seen)  # the group in the foreground is the command's
        self.nothing_is_left()

    # -- waiting

    def test_who_waits_is_told_why_and_an_interrupt_cancels(self):
        holder = self.start("-N", 2, "--exclusive", "sleep", 1000)
        self.running_job()
        waiter = self.start("-N", 1, "true")
        lines = [waiter.stderr.readline(), waiter.stderr.readline()]
        self.assertIn("waiting for nodes", lines[0])
        self.assertIn("waits: ", lines[1])
        job = int(lines[0].split("job ")[1].split(";")[0])
        waiter.send_signal(signal.SIGINT)
        code, _, err = self.finish(waiter)
        self.assertEqual(code, 130)
        self.assertIn("job %d was cancelled" % job, err)
        until(lambda: self.ended(job), what="the end of the job")
        self.assertEqual(self.ended(job)["state"], "cancelled")
        holder.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(holder)[0], 129)  # told to end by SIGHUP first
        self.nothing_is_left()

    # -- what ends it

    def test_cancel_ends_the_command(self):
        process = self.start("sleep", 1000)
        job = self.running_job()
        until(lambda: "has nodes" in process.stderr.readline(), what="the grant")
        self.cluster.ok("cancel", job)
        code, _, err = self.finish(process)
        self.assertEqual(code, 129)
        self.assertIn("Job %d has ended (" % job, err)
        self.assertEqual(self.ended(job)["state"], "cancelled")
        self.nothing_is_left()

    def test_the_time_limit_ends_the_command_whose_status_is_not_0(self):
        process = self.start("-t", "2s", "sh", "-c", "trap 'exit 0' HUP; while :; do sleep 0.1; done")
        job = self.running_job()
        code, _, err = self.finish(process)
        self.assertEqual(code, 1, err)
        self.assertIn("Job %d has ended (its time limit is reached)" % job, err)
        self.assertEqual(self.ended(job)["state"], "timeout")
        self.nothing_is_left()

    def test_a_client_that_is_killed_loses_the_allocation(self):
        process = self.start("sh", "-c", "echo $$; exec sleep 1000")
        pid = int(process.stdout.readline())
        job = self.running_job()
        process.kill()
        process.wait()
        until(lambda: not os.path.exists("/proc/%d" % pid), what="the end of the command")
        until(lambda: self.ended(job), 60, "the end of the job")
        self.assertEqual(self.ended(job)["state"], "cancelled")
        self.assertIn("nothing was heard of its client", self.ended(job)["reason_detail"])
        self.nothing_is_left()

    def test_restarts_of_the_daemons_end_nothing(self):
        process = self.start("sh", "-c", "read line; %s run -n1 echo $line" % MUSTER)
        until(lambda: "has nodes" in process.stderr.readline(), what="the grant")
        job = self.running_job()
        first = next(j for j in self.jobs() if j["id"] == job)["nodes"][0]
        for name in ("ctld", first):
            pid = next(d["pid"] for d in self.cluster.json("local", "status")["daemons"] if d["name"] == name)
            os.kill(pid, signal.SIGKILL)
            self.cluster.ok("local", "restart", name)
        code, out, err = self.finish(process, input="still here\n")
        self.assertEqual((code, out), (0, "still here\n"), err)
        until(lambda: self.ended(job), what="the end of the job")
        self.assertEqual(self.ended(job)["state"], "completed")
        self.nothing_is_left()

    # -- --no-shell

    def test_no_shell_returns_at_the_grant_and_steps_come_by_jobid(self):
        out = json.loads(self.cluster.ok("alloc", "-N", 2, "--no-shell", "--json"))
        self.assertEqual(sorted(out["nodes"]), ["n1", "n2"])
        self.assertEqual(self.cluster.ok("run", "--jobid", out["id"], "-N", 2, "-n", 2, "echo", "x"), "x\nx\n")
        self.assertEqual(self.cluster.json("show", "job", out["id"])["jobs"][0]["state"], "running")
        self.cluster.ok("cancel", out["id"])
        until(lambda: self.ended(out["id"]), what="the end of the job")
        self.nothing_is_left()

    def test_what_cannot_be(self):
        for args, text in ((("--no-shell", "true"), "--no-shell beside the command true"),
                           (("--json", "true"), "--json: standard output belongs to the command"),
                           (("--output", "x", "true"), "unknown option --output"),
                           (("-N", "99", "true"), "nodes")):
            result = self.cluster.run("alloc", *args)
            self.assertIn(text, result.err)
            self.assertNotEqual(result.code, 0)
        job = self.cluster.ok("alloc", "-Q", "sh", "-c", "echo $MUSTER_JOB_ID").strip()
        self.assertIn("was started by `muster alloc`", self.cluster.run("logs", job).err)
        self.nothing_is_left()


if __name__ == "__main__":
    unittest.main()
