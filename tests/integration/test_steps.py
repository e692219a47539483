"""Steps: `muster run` and `srun`, inside and outside of jobs; output, input, exit status, signals, restarts."""

import json
import os
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import MUSTER, SLOWNESS, SLURM_BIN, ClusterTest, processes_of, seconds, until  # noqa: E402


def resident_kib(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def written_bytes(pid):
    with open("/proc/%d/io" % pid) as io:
        return next(int(line.split()[1]) for line in io if line.startswith("wchar:"))


class Steps(ClusterTest):
    nodes = 4
    settings = ("node.kill_grace=" + seconds(1),)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The order in which the nodes came to the controller, which is the order in which jobs get them.
        cls.order = [node["name"] for node in cls.cluster.json("nodes")["nodes"]]

    def setUp(self):
        # Which nodes a job gets is only known when the ones before have ended.
        until(lambda: all(node["state"] == "idle" for node in self.cluster.json("nodes")["nodes"]), what="idle nodes")

    # -- outside of a job

    def test_tasks_run_on_all_nodes_with_their_ranks(self):
        out = self.cluster.ok("run", "-N", 4, "--ntasks-per-node", 2, "-l", "hostname")
        self.assertEqual(sorted(out.splitlines()), ["%d: %s" % (rank, self.order[rank // 2]) for rank in range(8)])

    def test_the_environment_of_a_rank(self):
        names = ["MUSTER_PROCID", "MUSTER_LOCALID", "MUSTER_NODEID", "MUSTER_STEP_ID", "MUSTER_NTASKS", "RANK", "WORLD_SIZE",
                 "LOCAL_RANK", "NODE_RANK", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NODEID", "SLURM_STEP_ID", "SLURMD_NODENAME",
                 "SLURM_TASKS_PER_NODE", "SLURM_STEP_NODELIST"]
        out = self.cluster.ok("run", "-N", 2, "--ntasks-per-node", 2, "-l", "bash", "-c",
                              "echo " + " ".join("$" + name for name in names))
        lines = dict(line.split(": ", 1) for line in out.splitlines())
        nodes = lines["0"].split()[13:14] + lines["2"].split()[13:14]
        first, second = sorted(nodes, key=self.order.index)
        self.assertTrue(lines["3"].startswith("3 1 1 0 4 3 4 1 1 2 3 1 0 %s 2(x2) n" % second), lines["3"])
        self.assertTrue(lines["0"].startswith("0 0 0 0 4 0 4 0 0 2 0 0 0 %s 2(x2) n" % first), lines["0"])

    def test_the_exit_status_is_the_highest(self):
        result = self.cluster.run("run", "-n", 4, "bash", "-c", "exit $((MUSTER_PROCID + 3))")
        self.assertEqual(result.code, 6)
        self.assertIn("task 3 on %s ended with exit code 6" % self.order[0], result.err)

    def test_a_signal_is_128_and_its_number(self):
        result = self.cluster.run("run", "bash", "-c", "kill -9 $$")
        self.assertEqual(result.code, 137)
        self.assertIn("signal 9", result.err)

    def test_a_step_that_reaches_the_jobs_time_limit_says_so(self):
        result = self.cluster.run("run", "-t", "1s", "sleep", 1000)
        self.assertEqual(result.code, 128 + signal.SIGTERM)
        self.assertRegex(result.err, r"signal 15 \(Terminated\): job \d+ reached its time limit of 00:00:01")
        job = self.cluster.json("history", "--limit", 1)["jobs"][0]
        self.assertEqual((job["name"], job["state"]), ("sleep", "timeout"))

    def test_output_onto_a_full_disk_names_the_reason(self):
        for where, name in (("/dev/full", "/dev/full"), (None, "standard output")):
            with open("/dev/full", "w") as full:
                args = ["run"] + (["-o", where] if where else []) + ["sh", "-c", "echo word; exit 0"]
                process = self.cluster.popen(*args, stdout=full, stderr=subprocess.PIPE, text=True)
                err = process.communicate(timeout=60 * SLOWNESS)[1]
            self.assertNotEqual(process.returncode, 0, err)
            self.assertIn("muster: cannot write to %s: No space left on device" % name, err)

    def test_a_missing_program_is_named_with_its_node(self):
        for program in ("/no/such/program", "no-such-program"):
            result = self.cluster.run("run", program)
            self.assertEqual(result.code, 2)
            self.assertIn(program, result.err)
            self.assertIn(" on %s " % self.order[0], result.err)

    def test_the_job_of_a_run_ends_as_its_step(self):
        result = self.cluster.run("run", "-J", "seven", "sh", "-c", "echo $MUSTER_JOB_ID; exit 7")
        self.assertEqual(result.code, 7)
        job = self.cluster.wait(int(result.out))
        self.assertEqual((job["state"], job["exit_code"]), ("failed", 7))

    def test_json_is_one_object_and_the_output_goes_elsewhere(self):
        result = self.cluster.run("run", "--json", "-n", "2", "sh", "-c", "echo from $MUSTER_PROCID; exit $MUSTER_PROCID")
        self.assertEqual(result.code, 1)
        told = json.loads(result.out)
        self.assertEqual((told["step"], told["exit_code"]), (0, 1))
        self.assertEqual(sorted((task["task"], task["exit_code"]) for task in told["tasks"]), [(0, 0), (1, 1)])
        self.assertEqual({task["node"] for task in told["tasks"]}, set(told["nodes"]))
        self.assertIn("from 0", result.err)
        self.assertIn("from 1", result.err)

    def test_show_job_names_the_command_of_a_run_once(self):
        self.cluster.ok("run", "sh", "-c", "true # of a run")
        job = self.cluster.json("history", "--limit", 1)["jobs"][0]
        self.assertIn("sh -c true # of a run", self.cluster.ok("show", "job", job["id"]))
        self.assertNotIn("sh sh", self.cluster.ok("show", "job", job["id"]))

    def test_standard_error_stays_apart(self):
        result = self.cluster.run("run", "sh", "-c", "echo out; echo err >&2")
        self.assertEqual((result.out, result.err), ("out\n", "err\n"))

    def test_arguments_pass_byte_for_byte(self):
        arguments = ['"quoted"', "it's", "$HOME", "a b", "", "\\", "x;y|z&", "*", "-l", "--", "line\nbreak", "orte_hnp_uri \"1.0;tcp://1\""]
        code = "import os,sys; sys.stdout.buffer.write(b'\\0'.join(os.fsencode(a) for a in sys.argv[1:]))"
        environment = dict(self.cluster.env)
        raw = [a.encode() for a in arguments] + [b"\xff\xfe\x80"]
        done = subprocess.run([MUSTER, "run", "python3", "-c", code] + raw, env=environment, cwd=self.cluster.work,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60 * SLOWNESS)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stdout.split(b"\0"), raw)

    def test_input_goes_to_rank_zero_or_to_all(self):
        self.assertEqual(self.cluster.ok("run", "-n", 2, "-l", "cat", stdin="hello\n"), "0: hello\n")
        out = self.cluster.ok("run", "-N", 2, "-n", 4, "-l", "--input", "all", "cat", stdin="hello\n")
        self.assertEqual(sorted(out.splitlines()), ["%d: hello" % rank for rank in range(4)])
        self.assertEqual(self.cluster.ok("run", "--input", "none", "cat", stdin="hello\n"), "")

    def test_a_lot_of_input_and_output_passes_in_order(self):
        text = "".join("%d\n" % i for i in range(300_000))
        self.assertEqual(self.cluster.ok("run", "cat", stdin=text), text)

    def test_input_for_a_task_that_reads_none_does_not_hold_up_the_step(self):
        self.assertEqual(self.cluster.ok("run", "true", stdin="x" * 3_000_000), "")

    def test_output_is_in_order_for_each_task(self):
        out = self.cluster.ok("run", "-N", 2, "-n", 4, "-l", "seq", "1", "5000")
        for rank in range(4):
            mine = [line.split(": ")[1] for line in out.splitlines() if line.startswith("%d: " % rank)]
            self.assertEqual(mine, [str(i) for i in range(1, 5001)])

    def test_an_incomplete_last_line_is_not_lost(self):
        self.assertEqual(sorted(self.cluster.ok("run", "-n", 2, "-l", "printf", "end").splitlines()), ["0: end", "1: end"])
        self.assertEqual(self.cluster.ok("run", "printf", "end"), "end")

    def test_output_files_of_tasks(self):
        self.cluster.ok("run", "-n", 2, "-o", "task-%t.txt", "sh", "-c", "echo $RANK")
        self.assertEqual((self.cluster.read("task-0.txt"), self.cluster.read("task-1.txt")), ("0\n", "1\n"))

    def test_an_interrupt_twice_kills(self):
        run = self.cluster.popen("run", "-n", 2, "sh", "-c", "trap '' INT TERM; echo up; while :; do sleep 0.1; done",
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(run.stdout.readline(), "up\n")
        run.send_signal(signal.SIGINT)
        self.assertIn("one more within 1 sec", run.stderr.readline())
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(30 * SLOWNESS), 137)
        run.communicate()

    def test_other_signals_are_forwarded(self):
        run = self.cluster.popen("run", "-N", 2, "sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done",
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual((run.stdout.readline(), run.stdout.readline()), ("up\n", "up\n"))
        run.send_signal(signal.SIGUSR1)
        self.assertEqual(run.wait(30 * SLOWNESS), 9)
        run.communicate()

    def test_an_interrupt_while_waiting_cancels_the_job(self):
        holder = self.cluster.submit("-N", 4, "--exclusive", "--wrap", "sleep 1000")
        self.cluster.wait_state(holder, "running")
        run = self.cluster.popen("run", "-N", 4, "hostname", stderr=subprocess.PIPE, text=True)
        line = run.stderr.readline()
        self.assertIn("queued and waiting for resources", line)
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(30 * SLOWNESS), 130)
        run.communicate()
        job = int(line.split("job ")[1].split()[0])
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        self.cluster.ok("cancel", holder)
        self.cluster.wait(holder)

    def test_a_client_at_a_closed_pipe_ends_the_step(self):
        run = self.cluster.popen("run", "-n", 2, "yes", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        run.stdout.read(100_000)
        run.stdout.close()
        self.assertEqual(run.wait(30 * SLOWNESS), 141)

    def test_a_slow_reader_makes_no_daemon_grow(self):
        pids = {name: d["pid"] for name, d in self.cluster.daemons().items()}
        text = "flood-%d" % os.getpid()
        run = self.cluster.popen("run", "-N", 4, "--ntasks-per-node", 2, "yes", text, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL)
        # Whatever is found below, the nodes are free again for the next test.
        self.addCleanup(run.wait, 60 * SLOWNESS)
        self.addCleanup(run.stdout.close)
        run.stdout.read(10_000_000)
        # The first may have written so much before the last has begun.
        writers = until(lambda: (found := [pid for pid in processes_of(text) if pid != run.pid]) and len(found) == 8 and found,
                        what="eight writers")
        before = {name: resident_kib(pid) for name, pid in pids.items()}
        client_before = resident_kib(run.pid)
        seen = []

        def writers_stand_still():  # over 50 looks, in which they would write gigabytes
            seen.append([written_bytes(pid) for pid in writers])
            return len(seen) > 50 and seen[-1] == seen[-51]
        until(writers_stand_still, what="the end of the writing")
        for name, pid in pids.items():
            self.assertLess(resident_kib(pid) - before[name], 20_000, name)
        self.assertLess(resident_kib(run.pid) - client_before, 20_000)
        run.stdout.close()
        run.wait(30 * SLOWNESS)

    def test_a_step_too_large_for_the_job_is_refused_with_the_option(self):
        script = self.cluster.script("large.sh", "#!/bin/sh\n%s run -n 9 true\n" % MUSTER)
        job = self.cluster.submit("-N", 2, "-n", 4, "-o", "large.out", script)
        self.assertEqual(self.cluster.wait(job)["exit_code"], 1)
        self.assertIn("--ntasks=9", self.cluster.read("large.out"))

    # -- inside a job

    def in_job(self, body, *options, name="steps"):
        """The output of a job with this script; `run` in it stands for muster run."""
        script = self.cluster.script(name + ".sh", "#!/bin/bash\nrun() { %s run \"$@\"; }\n%s\n" % (MUSTER, body))
        job = self.cluster.wait(self.cluster.submit("-o", name + ".out", *options, script))
        return job, self.cluster.read(name + ".out")

    def test_steps_of_a_job_are_numbered_and_may_run_at_the_same_time(self):
        job, out = self.in_job("run -n 1 sh -c 'echo $MUSTER_STEP_ID'\n"
                               "run -n 1 sh -c 'echo first; while [ ! -e both ]; do sleep 0.05; done' & \n"
                               "run -n 1 sh -c 'echo $MUSTER_STEP_ID >> numbers; touch both' & wait\n"
                               "run -N 1 -n 1 -w %s sh -c 'hostname; echo $SLURM_NODEID'" % self.order[1],
                               "-N", 2, "-n", 4, "--exclusive")
        self.assertEqual(job["state"], "completed", out)
        self.assertEqual(out.splitlines()[0], "0")
        self.assertEqual(out.splitlines()[-2:], [self.order[1], "0"])

    def test_a_step_started_on_another_node_of_the_job(self):
        job, out = self.in_job("run -N 1 -n 1 -w %s %s run -N 2 -n 2 -l hostname" % (self.order[1], MUSTER), "-N", 2, "-n", 2)
        self.assertEqual(job["state"], "completed", out)
        self.assertEqual(sorted(out.splitlines()), ["%d: %s" % (i, self.order[i]) for i in range(2)])

    def test_kill_on_bad_exit_ends_the_other_tasks(self):
        job, out = self.in_job("srun -K sh -c 'test $SLURM_PROCID != 1 || exit 5; sleep 1000'; echo rc=$?", "-N", 2, "-n", 2)
        self.assertEqual(job["state"], "completed", out)
        self.assertIn("srun: error: %s: task 1: Exited with exit code 5" % self.order[1], out)
        self.assertRegex(out, r"rc=(5|143|137)\n")

    def test_srun_speaks_as_slurm_does(self):
        job, out = self.in_job("srun sh -c 'exit 3'; echo rc=$?\nsrun /no/such; echo rc=$?\nsrun --mpi=none -n 1 true; echo rc=$?",
                               "-N", 1, "-n", 2)
        self.assertEqual(job["state"], "completed", out)
        self.assertIn("srun: error: %s: tasks 0-1: Exited with exit code 3\nrc=3\n" % self.order[0], out)
        self.assertIn("/no/such", out)
        self.assertIn("Exited with exit code 2\nrc=2\nrc=0\n", out)

    def test_cancel_of_a_job_ends_its_steps_on_all_nodes(self):
        script = self.cluster.script("deep.sh", "#!/bin/sh\n%s run -N 3 sh -c 'touch up-$RANK; setsid sleep 1000 & sleep 1000'\n" % MUSTER)
        job = self.cluster.submit("-N", 3, "-n", 3, script)
        for rank in range(3):
            until(lambda: self.cluster.exists("up-%d" % rank), 30, "task %d" % rank)
        self.cluster.ok("cancel", job)
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        until(lambda: not processes_of(self.cluster.work), 20, "the end of all processes of the job")

    def test_without_a_client_the_step_ends(self):
        run = self.cluster.popen("run", "-N", 2, "sh", "-c", "touch orphan-$RANK; exec sleep 1000", stderr=subprocess.DEVNULL)
        for rank in range(2):
            until(lambda: self.cluster.exists("orphan-%d" % rank), 30, "task %d" % rank)
        run.kill()
        run.wait()
        until(lambda: not processes_of(self.cluster.work), 60, "the end of the step whose client was killed")


class Restarts(ClusterTest):
    nodes = 3

    def test_steps_go_on_while_the_daemons_of_their_nodes_restart(self):
        run = self.cluster.popen("run", "-N", 3, "-n", 3, "-l", "sh", "-c",
                                 "i=0; while [ ! -e stop ] && [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit $((RANK + 4))",
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(run.stdout))
        lines.append(run.stdout.readline())
        reader.start()
        for name in ("n2", "n1"):  # a part, and the coordinator itself
            seen = len(lines)
            os.kill(self.cluster.pid(name), signal.SIGKILL)
            until(lambda: self.cluster.daemons()[name]["state"] != "up", 10, "the end of %s" % name)
            self.cluster.local("restart", name)
            until(lambda: all(any(line.startswith("%d:" % rank) for line in lines[seen:]) for rank in range(3)), 60,
                  "output of all tasks after the restart of %s" % name)
        self.cluster.script("stop", "")
        self.assertEqual(run.wait(60 * SLOWNESS), 6)
        reader.join(30 * SLOWNESS)
        run.stdout.close()
        run.stderr.close()
        for rank in range(3):
            mine = [line.split(": ")[1].strip() for line in lines if line.startswith("%d:" % rank)]
            self.assertEqual(mine, ["line %d" % (i + 1) for i in range(len(mine))], "output of rank %d has holes" % rank)


if __name__ == "__main__":
    unittest.main(verbosity=2)
