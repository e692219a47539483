"""Limits that jobs cannot pass, and what users are told of it: memory, processes, devices, what was used, what is left."""

import glob
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import ClusterTest, SLOWNESS, processes_of, seconds, until  # noqa: E402


def groups_of(cluster):
    """The control groups that the nodes of this cluster made, as they noted them."""
    groups = []
    for pattern in ("cgroup", "cgroups"):
        for path in glob.glob(os.path.join(cluster.local_dir, "n*", "spool", pattern)):
            with open(path) as file:
                groups += file.read().split()
    return groups


def below(groups):
    """Groups of attempts in them."""
    return [os.path.join(g, name) for g in groups for name in (os.listdir(g) if os.path.isdir(g) else [])
            if os.path.isdir(os.path.join(g, name))]


class Enforcement(ClusterTest):
    nodes = 2
    topology = "package:1 core:8 pu:1+gpu:2"
    settings = ("node.kill_grace=" + seconds(20), "node.gpu_devices=/dev/zero,/dev/full", "node.pids_max=300")

    def by(self, function, node="n1"):
        """What enforces it there; the test is skipped where nothing does."""
        for one in self.cluster.json("show", "node", node)["nodes"][0]["enforcement"]:
            if one["function"] == function:
                return one["by"]
        raise AssertionError("%s is not stated" % function)

    def needs(self, function):
        if not self.by(function).startswith("cgroup"):
            self.skipTest("%s: %s" % (function, self.by(function)))

    def test_every_function_is_stated_in_text_too(self):
        text = self.cluster.ok("show", "node", "n1")
        for function in ("kill", "freezer", "cpuset", "memory", "pids", "devices", "cpu_share", "cpu_time", "io", "namespaces"):
            self.assertIn("%s: %s" % (function, self.by(function)), text)
        self.assertEqual(self.by("cpuset"), "none: the node's cores are pretended")

    def test_a_job_beyond_its_memory_is_out_of_memory_also_with_exit_code_zero(self):
        self.needs("memory")
        # With both GPUs, so that the device is not denied.
        job = self.cluster.submit("--mem", "48", "-G2", "--wrap", "tail /dev/zero; exit 0")
        ended = self.cluster.wait(job)
        self.assertEqual((ended["state"], ended["exit_code"], ended["reason"]), ("out_of_memory", 0, "OutOfMemory"))
        self.assertEqual((ended["oom_kills"], ended["mem_limit_mib"]), (1, 48))
        self.assertTrue(40 <= ended["mem_peak_mib"] <= 48, ended)
        for text in (self.cluster.ok("show", "job", job), self.cluster.ok("why", job), self.cluster.ok("history", "-j", job)):
            self.assertIn("reached its limit of 48 MiB", text)
        self.assertIn("48M/48M", self.cluster.ok("show", "job", job))
        self.assertIn("48M/48M", self.cluster.ok("history", "-j", job))
        self.assertIn(job, [j["id"] for j in self.cluster.json("history", "-t", "out_of_memory")["jobs"]])

    def test_memory_that_runs_out_on_another_node_is_told(self):
        self.needs("memory")
        job = self.cluster.submit("-N2", "-n2", "--mem", "64", "--gpus-per-node", "2", "--wrap",
                                  "muster run sh -c 'test $MUSTER_PROCID = 0 || tail /dev/zero'; exit 0")
        ended = self.cluster.wait(job)
        self.assertEqual((ended["state"], ended["exit_code"]), ("out_of_memory", 0), ended)
        self.assertIn("n2: ", ended["reason_detail"])

    def test_a_job_within_its_memory_and_a_job_that_asked_for_none(self):
        for options in (["--mem", "512"], []):
            job = self.cluster.wait(self.cluster.submit(*options, "--wrap", "head -c 20000000 /dev/urandom | wc -c"))
            self.assertEqual(job["state"], "completed")
            self.assertEqual(job.get("mem_limit_mib"), 512 if options and self.by("memory").startswith("cgroup") else None)

    def test_what_was_used_is_told_against_what_was_asked(self):
        job = self.cluster.submit("-c2", "--wrap", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
        ended = self.cluster.wait(job)
        self.assertGreater(ended["cpu_time_s"], 0.05)
        self.assertGreater(ended["mem_peak_mib"], 0.1)
        text = self.cluster.ok("show", "job", job)
        self.assertRegex(text, r"CPU time: +\d+\.\d\d s, \d+% of 2 CPUs")
        self.assertRegex(text, r"Memory used: +\d+M/16G")
        self.assertRegex(self.cluster.ok("history", "-j", job), r"% of 2")

    def test_devices_of_other_jobs_gpus_cannot_be_opened(self):
        self.needs("devices")
        job = self.cluster.submit("--gpus-per-node", "1", "-o", "gpu", "--wrap",
                                  "for d in zero full null; do head -c 1 /dev/$d > /dev/null && echo $d; done")
        self.cluster.wait(job)
        self.assertEqual(len([l for l in self.cluster.read("gpu").split() if l in ("zero", "full")]), 1)
        self.cluster.wait(self.cluster.submit("-o", "none", "--wrap",
                                              "for d in zero full urandom; do head -c 1 /dev/$d > /dev/null && echo $d; done"))
        lines = self.cluster.read("none")
        self.assertIn("urandom\n", lines)
        self.assertEqual(lines.count("Operation not permitted"), 2, lines)

    def test_a_fork_bomb_is_contained_and_removed_within_a_second(self):
        self.needs("pids")
        job = self.cluster.submit("--wrap", "trap '' TERM; b() { b | b & }; b; echo up > bomb; while :; do sleep 1000; done")
        self.cluster.wait_file("bomb")
        group = [g for g in groups_of(self.cluster) if "/pids/" in g or os.path.exists(g + "/pids.max")]
        until(lambda: any(self.processes(g) >= 290 for g in below(group)), what="the bomb's size")
        self.assertLessEqual(max(self.processes(g) for g in below(group)), 300)
        other = self.cluster.wait(self.cluster.submit("--wrap", "true"))
        self.assertEqual(other["state"], "completed", "a neighbour suffers")
        bomb = self.time_to_cancel(job)
        self.assertEqual(processes_of(self.cluster.work), [])
        # The commands take their own time, many times more on an emulated processor.
        quiet = self.cluster.submit("--wrap", "exec sleep 1000")
        self.cluster.wait_state(quiet, "running")
        self.assertLess(bomb - self.time_to_cancel(quiet), 1 * SLOWNESS)

    def time_to_cancel(self, job):
        asked = time.monotonic()
        self.cluster.ok("cancel", job)
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        return time.monotonic() - asked

    @staticmethod
    def processes(group):
        try:
            with open(group + "/pids.current") as file:
                return int(file.read())
        except OSError:
            return 0

    def test_groups_go_with_the_job_also_when_its_shepherd_is_killed(self):
        job = self.cluster.submit("--mem", "64", "--wrap", "setsid sleep 543210 & echo up > up; wait")
        self.cluster.wait_file("up")
        groups = groups_of(self.cluster)
        self.assertEqual(bool(below(groups)), bool(groups))
        for pid in self.shepherds(job):
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(self.cluster.wait(job)["state"], "failed")
        self.assertEqual(processes_of(self.cluster.work), [])
        until(lambda: not [g for g in below(groups) if os.path.basename(g).startswith("%d." % job)], what="groups gone")

    def shepherds(self, job):
        """Of the job: parents of its script that are called so."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % pid, "rb") as file:
                    if ("MUSTER_JOB_ID=%d" % job).encode() not in file.read().split(b"\0"):
                        continue
                with open("/proc/%s/stat" % pid) as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
                with open("/proc/%d/comm" % parent) as file:
                    if file.read().strip() == "muster-shepherd" and os.readlink("/proc/%s/cwd" % pid) == self.cluster.work:
                        found.append(parent)
            except OSError:
                continue
        self.assertTrue(found)
        return set(found)


@unittest.skipUnless(os.geteuid() == 0, "namespaces are root's to give")
class Isolated(ClusterTest):
    settings = ("node.isolate=on",)

    def test_a_job_has_its_own_tmp_and_shared_memory_and_keeps_its_working_directory(self):
        stated = {one["function"]: one["by"] for one in self.cluster.json("show", "node", "n1")["nodes"][0]["enforcement"]}
        self.assertEqual(stated["namespaces"], "mount and ipc")
        name = os.path.basename(self.cluster.dir) + "-inside"
        job = self.cluster.submit("-o", "out", "--wrap",
                                  "echo a > /tmp/%s; echo b > /dev/shm/%s; cat /tmp/%s /dev/shm/%s; echo c > kept; ls /tmp" %
                                  (name, name, name, name))
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        lines = self.cluster.read("out").split()
        self.assertEqual(lines[:2], ["a", "b"])
        # Beside it there is only the way to its working directory and to its script.
        self.assertEqual(set(lines[2:]), {name, os.path.basename(self.cluster.dir)})
        self.assertEqual(self.cluster.read("kept"), "c\n")
        self.assertFalse(os.path.exists("/tmp/" + name))
        again = self.cluster.submit("-o", "again", "--wrap", "ls /tmp /dev/shm")
        self.cluster.wait(again)
        self.assertNotIn(name, self.cluster.read("again"))
        folders = os.path.join(self.cluster.local_dir, "n1", "spool", "attempts", "*", "private", "tmp")
        runs = self.cluster.submit("--wrap", "sleep 600")
        self.cluster.wait_state(runs, "running")
        self.assertEqual(len(glob.glob(folders)), 1, "the test looks in the wrong place")
        self.cluster.ok("cancel", runs)
        self.cluster.wait(runs)
        until(lambda: not glob.glob(folders), what="the end of the job's own /tmp")


class NotEnforced(ClusterTest):
    settings = ("node.cgroup=off",)

    def test_it_is_said_and_jobs_run_all_the_same(self):
        stated = {one["function"]: one["by"] for one in self.cluster.json("show", "node", "n1")["nodes"][0]["enforcement"]}
        self.assertEqual(stated["memory"], "each process alone, by rlimit: [node] cgroup is off")
        self.assertEqual(stated["pids"], "none: [node] cgroup is off")
        # What AddressSanitizer maps is beyond any limit, in the child that sets it for the task, too.
        asked = ("--mem", "64") if SLOWNESS == 1 else ()
        job = self.cluster.wait(self.cluster.submit(*asked, "-o", "out", "--wrap", "ulimit -d; exit 3"))
        self.assertEqual((job["state"], job["exit_code"]), ("failed", 3))
        self.assertEqual(self.cluster.read("out"), "65536\n" if SLOWNESS == 1 else "unlimited\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
