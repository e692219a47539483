#!/usr/bin/env python3
"""Jobs that run are stopped for others, put back, suspended and warned: the real daemons."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import ClusterTest, until

COUNT = "i=0; while :; do i=$((i+1)); echo $i > counter.new; mv counter.new counter; sleep 0.02; done"


def processes_of_job(job):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % entry, "rb") as environ:
                if b"MUSTER_JOB_ID=%d" % job in environ.read().split(b"\0"):
                    found.append(entry)
        except OSError:
            pass  # it has ended, or is another user's
    return found


def is_stopped(pid):
    """By a signal, or with its control group."""
    try:
        with open("/proc/%s/stat" % pid) as stat:
            if stat.read().rpartition(")")[2].split()[0] == "T":
                return True
        with open("/proc/%s/cgroup" % pid) as lines:
            group = next((line.strip()[3:] for line in lines if line.startswith("0::")), None)
        with open("/proc/mounts") as mounts:
            trees = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
        for tree in trees if group else []:
            with open("%s%s/cgroup.events" % (tree, group)) as events:
                if "frozen 1" in events.read():
                    return True
    except OSError:
        pass  # it has ended, or its group is not in this tree
    return False


class Preemption(ClusterTest):
    nodes = 1
    topology = "package:1 core:4 pu:1"
    settings = ("queue.main.preempt_mode=requeue", "queue.scrap.preempt_mode=cancel", "queue.scrap.priority=-1",
                "queue.save.preempt_mode=checkpoint", "queue.save.preempt_grace=60s", "queue.urgent.priority=10", "node.kill_grace=2s")

    def tearDown(self):
        self.cluster.run("cancel", "--me")
        until(lambda: not self.cluster.json("queue")["jobs"], what="an empty queue")
        for name in os.listdir(self.cluster.work):
            os.unlink(os.path.join(self.cluster.work, name))

    def urgent(self, *more):
        return self.cluster.submit("-p", "urgent", "-c4", "-t", "10", *more, "--wrap", "while [ ! -e go ]; do sleep 0.05; done")

    def go(self):
        open(os.path.join(self.cluster.work, "go"), "w").close()

    def history(self, job):
        return self.cluster.json("history", "-j", job)["jobs"]

    def test_a_preempted_job_starts_again_with_its_id_and_appends(self):
        low = self.cluster.submit("-c4", "-t", "60", "-o", "low.out", "--wrap", "echo attempt $MUSTER_ATTEMPT; [ $MUSTER_ATTEMPT = 2 ] || exec sleep 1000")
        self.cluster.wait_file("low.out")
        high = self.urgent()
        self.cluster.wait_state(high, "running")
        view = self.cluster.job(low)
        self.assertEqual((view["state"], view["attempt"], view["requeue"]), ("pending", 1, True))
        self.assertEqual(view["last_end"], "Preempted: to make room for job %d" % high)
        self.assertIn("Last end", self.cluster.ok("show", "job", low))
        self.assertTrue(self.cluster.json("why", low)["blockers"])
        rows = self.history(low)
        self.assertEqual([(r["state"], r["attempt"], r.get("requeued")) for r in rows], [("preempted", 1, True)])
        self.go()
        self.assertEqual(self.cluster.wait(low)["state"], "completed")
        self.assertEqual(self.cluster.read("low.out"), "attempt 1\nattempt 2\n")
        self.assertEqual([(r["state"], r["attempt"]) for r in self.history(low)], [("preempted", 1), ("completed", 2)])
        self.assertEqual(self.cluster.job(low)["attempt"], 2)
        self.assertEqual(self.cluster.wait(high)["state"], "completed")

    def test_waiting_for_an_earlier_attempt_does_not_end(self):
        low = self.cluster.submit("-c4", "-t", "60", "--wrap", "[ $MUSTER_ATTEMPT = 2 ] || exec sleep 1000")
        self.cluster.wait_state(low, "running")
        after = self.cluster.submit("-d", "afterok:%d" % low, "--wrap", "true")
        high = self.urgent()
        self.cluster.wait_state(high, "running")
        self.assertEqual(self.cluster.job(after)["reason"], "Dependency")
        self.go()
        self.assertEqual(self.cluster.wait(after)["state"], "completed")
        late = self.cluster.submit("-d", "afterok:%d" % low, "--wrap", "true")
        self.assertEqual(self.cluster.wait(late)["state"], "completed", "its preempted attempt was no end")

    def test_cancel_mode_and_no_requeue_end_the_job(self):
        for options in (("-p", "scrap"), ("--no-requeue",)):
            low = self.cluster.submit("-c4", "-t", "60", *options, "--wrap", "exec sleep 1000")
            self.cluster.wait_state(low, "running")
            high = self.urgent()
            ended = self.cluster.wait(low)
            self.assertEqual((ended["state"], ended["reason"]), ("preempted", "Preempted"))
            self.cluster.wait_state(high, "running")
            self.cluster.ok("cancel", high)
            self.cluster.wait(high)

    def test_a_warning_comes_first(self):
        low = self.cluster.submit("-p", "save", "-c4", "-t", "60", "--signal=B:USR1@30", "-o", "low.out", "--wrap",
                                  "trap 'echo saved $MUSTER_ATTEMPT; exit 85' USR1; echo ready > ready; while :; do sleep 0.05; done")
        self.cluster.wait_file("ready")
        high = self.urgent()
        self.cluster.wait_state(high, "running")
        self.assertEqual(self.cluster.read("low.out"), "saved 1\n")
        self.assertEqual(self.cluster.job(low)["state"], "pending")

    def test_why_names_the_job_that_makes_room(self):
        low = self.cluster.submit("-c4", "-t", "60", "-o", "low.out", "--wrap", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
        self.cluster.wait_file("low.out")
        high = self.urgent()
        text = "waits for job %d to be preempted" % low
        until(lambda: text in str(self.cluster.json("why", high)) or self.cluster.job(high)["state"] == "running", what=text)
        self.assertEqual(self.cluster.wait_state(high, "running")["attempt"], 1)

    def test_requeue_by_hand_and_of_a_range(self):
        job = self.cluster.submit("-t", "60", "--wrap", "[ $MUSTER_ATTEMPT = 2 ] || exec sleep 1000")
        self.cluster.wait_state(job, "running")
        self.cluster.ok("requeue", job)
        self.assertEqual(self.cluster.wait(job)["attempt"], 2)
        self.assertIn("Requeued", [r["reason"] for r in self.history(job)])
        array = self.cluster.submit("-a", "0-3", "-t", "60", "-o", "/dev/null", "--wrap", "[ $MUSTER_ATTEMPT = 2 ] || exec sleep 1000")
        until(lambda: len([j for j in self.cluster.jobs(array) if j["state"] == "running"]) == 4, what="four running tasks")
        self.cluster.ok("requeue", "%d_[1-2]" % array)
        ended = lambda i: self.cluster.wait("%d_%d" % (array, i))
        self.assertEqual([(ended(i)["state"], ended(i)["attempt"]) for i in (1, 2)], [("completed", 2), ("completed", 2)])
        self.assertEqual(self.cluster.job("%d_0" % array)["state"], "running")
        self.assertEqual(self.cluster.run("requeue", "%d_1" % array).code, 1, "it has ended")

    def test_suspend_and_continue_over_a_restart_of_the_node(self):
        job = self.cluster.submit("-t", "60", "--wrap", COUNT)
        self.cluster.wait_file("counter")
        self.cluster.ok("suspend", job)
        self.assertEqual(self.cluster.job(job)["state"], "suspended")
        still = until(lambda: self.stands_still(job), what="a counter that stands still")
        self.cluster.local("restart", "n1")
        self.cluster.local("restart", "ctld")
        self.assertEqual(self.cluster.job(job)["state"], "suspended")
        self.assertEqual(self.cluster.json("nodes")["nodes"][0]["cpus_allocated"], 1, "it keeps what it holds")
        self.assertEqual(self.cluster.read("counter"), still)
        self.assertEqual(self.cluster.run("hold", job).code, 1)
        self.cluster.ok("continue", job)
        until(lambda: self.cluster.read("counter") != still, what="a counter that goes on")
        self.assertGreater(self.cluster.job(job)["suspended_s"], 0)
        self.assertEqual(self.cluster.run("continue", job).code, 1)
        self.cluster.ok("suspend", job)
        self.cluster.ok("cancel", job)
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")

    def stands_still(self, job):
        """The counter, when the kernel lets none of the job's processes run."""
        pids = processes_of_job(job)
        return self.cluster.read("counter") if pids and all(is_stopped(pid) for pid in pids) else None

    def test_signal_before_the_time_limit(self):
        job = self.cluster.submit("-t", "1", "--signal=B:USR1@57", "-o", "warned", "--wrap",
                                  "trap 'echo warned; exit 3' USR1; while :; do sleep 0.05; done")
        ended = self.cluster.wait(job)
        self.assertEqual((ended["state"], ended["exit_code"], ended["signal"]), ("failed", 3, "B:10@57"))
        self.assertEqual(self.cluster.read("warned"), "warned\n")
        for bad in ("USR9", "X:USR1", "USR1@soon", "B:"):
            result = self.cluster.run("submit", "--signal", bad, "--wrap", "true")
            self.assertEqual(result.code, 2, bad)
            self.assertIn("--signal", result.err)


class StandStill(ClusterTest):
    nodes = 2
    topology = "package:1 core:2 pu:1"
    settings = ("queue.main.preempt_mode=suspend", "queue.main.preempt_exempt=0", "queue.urgent.priority=10", "node.kill_grace=2s")
    # On each node a counter, until the file is there.
    victim = ("muster run -n 2 -c 2 sh -c 'i=0; while [ ! -e done ]; do i=$((i+1)); echo $i > n.$MUSTER_PROCID; "
              "mv n.$MUSTER_PROCID count.$MUSTER_PROCID; sleep 0.02; done; echo rank $MUSTER_PROCID ends'")

    def tearDown(self):
        self.cluster.run("cancel", "--me")
        until(lambda: not self.cluster.json("queue")["jobs"], what="an empty queue")
        for name in os.listdir(self.cluster.work):
            os.unlink(os.path.join(self.cluster.work, name))

    def touch(self, name):
        open(os.path.join(self.cluster.work, name), "w").close()

    def counts(self):
        return [self.cluster.read("count.%d" % rank) for rank in (0, 1)]

    def start_victim(self):
        low = self.cluster.submit("-N", "2", "-n", "2", "-c", "2", "--mem", "300M", "-t", "60", "-o", "low.out", "--wrap", self.victim)
        for rank in (0, 1):
            self.cluster.wait_file("count.%d" % rank)
        return low

    def start_urgent(self):
        high = self.cluster.submit("-p", "urgent", "-N", "2", "-n", "2", "-c", "2", "--mem", "300M", "-t", "10", "-o", "high.out",
                                   "--wrap", "echo high begins; while [ ! -e go ]; do sleep 0.05; done; echo high ends")
        self.cluster.wait_state(high, "running")
        return high

    def test_it_stands_still_on_two_nodes_and_goes_on_by_itself(self):
        low = self.start_victim()
        high = self.start_urgent()
        view = self.cluster.job(low)
        self.assertEqual((view["state"], view["reason"]), ("suspended", "suspended"))
        self.assertEqual(view["reason_detail"], "stands still for job %d and goes on when its cores are free" % high)
        self.assertIn("stands still for job %d" % high, self.cluster.ok("show", "job", low))
        before = self.counts()
        self.cluster.wait_file("high.out")
        self.cluster.local("restart", "n2")
        self.cluster.local("restart", "ctld")
        refused = self.cluster.run("continue", low)
        self.assertEqual(refused.code, 1)
        self.assertIn("its cores are not free", refused.err)
        pids = processes_of_job(low)
        self.assertTrue(pids and all(is_stopped(pid) for pid in pids), "the kernel lets some of it run")
        self.assertEqual(self.counts(), before, "it ran beside the job that has its cores")
        self.assertEqual(self.cluster.job(low)["state"], "suspended")
        self.touch("go")
        self.assertEqual(self.cluster.wait(high)["state"], "completed")
        until(lambda: all(now != then for now, then in zip(self.counts(), before)), what="counters that go on")
        self.assertEqual(self.cluster.wait_state(low, "running")["attempt"], 1)
        self.assertGreater(self.cluster.job(low)["suspended_s"], 0)
        self.touch("done")
        self.assertEqual(self.cluster.wait(low)["state"], "completed")
        self.assertEqual(sorted(self.cluster.read("low.out").split("\n")), ["", "rank 0 ends", "rank 1 ends"])
        self.assertEqual(self.cluster.read("high.out"), "high begins\nhigh ends\n")

    def test_who_stands_still_can_be_cancelled_and_never_runs_to_end(self):
        low = self.start_victim()
        high = self.start_urgent()
        before = self.counts()
        self.cluster.ok("cancel", low)
        self.assertEqual(self.cluster.wait(low)["state"], "cancelled")
        self.assertEqual(self.counts(), before)
        self.assertEqual(self.cluster.job(high)["state"], "running")
        self.touch("go")
        self.assertEqual(self.cluster.wait(high)["state"], "completed")


if __name__ == "__main__":
    unittest.main()
