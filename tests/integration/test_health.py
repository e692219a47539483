#!/usr/bin/env python3
"""Nodes that check their health: what fails drains them by itself, and they come back by themselves."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import Cluster, processes_of, until  # noqa: E402

PROGRAM = """#!/bin/sh
# Ill while the file ill-NODE is there; what is in it is the reason.
echo checking $MUSTER_NODE_NAME of $MUSTER_CLUSTER
[ ! -e %(dir)s/hang-$MUSTER_NODE_NAME ] || sleep 1000
[ ! -e %(dir)s/ill-$MUSTER_NODE_NAME ] || { cat %(dir)s/ill-$MUSTER_NODE_NAME; exit 1; }
"""


class HealthTest(unittest.TestCase):
    nodes = 2
    topology = "package:1 core:4 pu:1"

    @classmethod
    def settings(cls):
        return []

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="muster-health-", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        cls.program = os.path.join(cls.dir, "health.sh")
        with open(cls.program, "w") as script:
            script.write(PROGRAM % {"dir": cls.dir})
        os.chmod(cls.program, 0o755)
        cls.cluster = Cluster(cls.nodes, cls.topology, ["node.health_interval=1s", *cls.settings()])
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()

    def node(self, name):
        return self.cluster.json("show", "node", name)["nodes"][0]

    def wait_node(self, name, state, reason=""):
        def reached():
            node = self.node(name)
            return node if node["state"] == state and reason in node["reason"] else None

        try:
            return until(reached, 30, "state %s of %s" % (state, name))
        except AssertionError as failure:
            raise AssertionError("%s\n%r\n%s" % (failure, self.node(name), self.cluster.logs())) from None

    def file(self, name, text=""):
        path = os.path.join(self.dir, name)
        with open(path, "w") as out:
            out.write(text)
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path


class HealthProgram(HealthTest):
    @classmethod
    def settings(cls):
        return ["node.health_program=" + cls.program, "node.health_timeout=3s"]

    def test_a_failing_program_drains_the_node_and_jobs_run_on_the_other_one(self):
        ill = self.file("ill-n1", "first line\nthe fan stands still\n")
        node = self.wait_node("n1", "drained", "the fan stands still")
        self.assertEqual(node["drained_by"], "health")
        self.assertEqual(node["failed_checks"], [{"check": "program", "text": "the fan stands still"}])
        self.assertEqual(node["reason"], "health: program: the fan stands still")
        self.assertIn("Drained by:", self.cluster.ok("show", "node", "n1"))
        self.assertIn("the fan stands still", self.cluster.ok("nodes"))
        job = self.cluster.wait(self.cluster.submit("--wrap", "true"))
        self.assertEqual((job["state"], job["nodes"]), ("completed", ["n2"]))
        waits = self.cluster.submit("-N2", "--wrap", "true")
        why = until(lambda: self.cluster.json("why", waits)["blockers"], what="a reason")
        self.assertIn("1 drained (health: program)", " ".join(b["text"] for b in why))
        os.unlink(ill)
        self.assertNotIn("drained_by", self.wait_node("n1", "idle"))
        self.assertEqual(self.cluster.wait(waits)["state"], "completed")

    def test_a_resume_does_not_overrule_the_checks_and_has_them_run_at_once(self):
        ill = self.file("ill-n1", "hot\n")
        self.wait_node("n1", "drained", "hot")
        resumed = self.cluster.run("resume", "n1")
        self.assertEqual(resumed.code, 0, resumed)
        self.assertIn("until its checks pass", resumed.out + resumed.err)
        self.assertEqual(self.node("n1")["state"], "drained")
        os.unlink(ill)
        self.wait_node("n1", "idle")

    def test_an_operators_drain_stays_when_the_checks_pass(self):
        ill = self.file("ill-n1", "hot\n")
        self.wait_node("n1", "drained", "hot")
        self.cluster.ok("drain", "n1", "--reason", "repair")
        os.unlink(ill)
        until(lambda: not self.node("n1")["failed_checks"], what="the checks pass")
        node = self.node("n1")
        self.assertEqual((node["state"], node["reason"], node["drained_by"]), ("drained", "repair", "operator"))
        self.cluster.ok("resume", "n1")
        self.wait_node("n1", "idle")

    def test_a_program_that_hangs_is_killed_and_has_failed(self):
        hang = self.file("hang-n2")
        self.wait_node("n2", "drained", "did not end within 3 s and was killed")
        os.unlink(hang)
        self.wait_node("n2", "idle")
        until(lambda: not processes_of(self.program), what="no health program is left")

    def test_the_drain_outlives_restarts_of_controller_and_node(self):
        ill = self.file("ill-n2", "loud\n")
        self.wait_node("n2", "drained", "loud")
        for daemon in ("ctld", "n2"):
            pid = self.cluster.pid(daemon)
            os.kill(pid, 9)
            until(lambda: self.cluster.daemons()[daemon]["state"] != "up", what="%s is gone" % daemon)
            self.cluster.local("restart", daemon)
            self.wait_node("n2", "drained", "loud")
            job = self.cluster.wait(self.cluster.submit("--wrap", "true"))
            self.assertEqual(job["nodes"], ["n1"])
        os.unlink(ill)
        self.wait_node("n2", "idle")


class Gpus(HealthTest):
    nodes = 1
    topology = "package:1 core:4 pu:1+gpu:2"

    @classmethod
    def settings(cls):
        # The daemon takes character devices alone; links to one stand for them.
        paths = {name: os.path.join(cls.dir, name) for name in ("gpu0", "gpu1", "render1")}
        for path in paths.values():
            os.symlink("/dev/full", path)
        return ["node.gpu_devices=%(gpu0)s,%(gpu1)s+%(render1)s" % paths]

    def test_a_gpu_whose_device_is_gone_drains_its_node(self):
        for name in ("gpu0", "gpu1", "render1"):
            path = os.path.join(self.dir, name)
            os.unlink(path)
            node = self.wait_node("n1", "drained", path)
            self.assertEqual([p["check"] for p in node["failed_checks"]], ["gpu"])
            os.symlink("/dev/full", path)
            self.wait_node("n1", "idle")

    def test_a_device_that_is_missing_when_the_daemon_starts_drains_the_node(self):
        path = os.path.join(self.dir, "gpu1")
        os.unlink(path)
        os.kill(self.cluster.pid("n1"), 9)
        until(lambda: self.cluster.daemons()["n1"]["state"] != "up", what="the daemon is gone")
        self.cluster.local("restart", "n1")
        self.assertEqual(self.wait_node("n1", "drained", path)["failed_checks"][0]["check"], "gpu")
        os.symlink("/dev/full", path)
        self.wait_node("n1", "idle")


@unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
class Disks(HealthTest):
    nodes = 1

    @classmethod
    def settings(cls):
        cls.disk = os.path.join(cls.dir, "disk")
        os.mkdir(cls.disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", cls.disk], check=True)
        cls.addClassCleanup(subprocess.run, ["umount", "-l", cls.disk], check=True)
        return ["node.health_dirs=" + cls.disk, "node.health_disk_min=4M", "node.health_inodes_min=2"]

    def test_a_full_disk_drains_the_node_until_there_is_room(self):
        path = os.path.join(self.disk, "data")
        with open(path, "wb") as out:
            out.write(b"x" * (6 << 20))
        node = self.wait_node("n1", "drained", self.disk)
        self.assertIn("health_disk_min", node["reason"])
        waits = self.cluster.submit("--wrap", "true")
        why = until(lambda: self.cluster.json("why", waits)["blockers"], what="a reason")
        self.assertIn("1 drained (health: disk)", " ".join(b["text"] for b in why))
        os.unlink(path)
        self.wait_node("n1", "idle")
        self.assertEqual(self.cluster.wait(waits)["state"], "completed")

    def test_a_read_only_file_system_drains_the_node(self):
        subprocess.run(["mount", "-o", "remount,ro", self.disk], check=True)
        self.addCleanup(subprocess.run, ["mount", "-o", "remount,rw", self.disk])
        self.assertEqual(self.wait_node("n1", "drained")["failed_checks"][0]["check"], "read_only")
        subprocess.run(["mount", "-o", "remount,rw", self.disk], check=True)
        self.wait_node("n1", "idle")


HOOK = """#!/bin/sh
# Writes down that it ran; fails on the nodes for which a file fail-HOOK-NODE is there, and waits for one wait-HOOK-NODE to go.
echo $MUSTER_HOOK $MUSTER_NODE_NAME $MUSTER_JOB_ID.$MUSTER_ATTEMPT $MUSTER_JOB_USER >> %(dir)s/hooks
while [ -e %(dir)s/wait-$MUSTER_HOOK-$MUSTER_NODE_NAME ]; do sleep 0.05; done
[ ! -e %(dir)s/fail-$MUSTER_HOOK-$MUSTER_NODE_NAME ] || { cat %(dir)s/fail-$MUSTER_HOOK-$MUSTER_NODE_NAME; exit 1; }
"""


class Hooks(HealthTest):
    @classmethod
    def settings(cls):
        hook = os.path.join(cls.dir, "hook.sh")
        with open(hook, "w") as script:
            script.write(HOOK % {"dir": cls.dir})
        os.chmod(hook, 0o755)
        return ["node.prolog=" + hook, "node.epilog=" + hook, "node.prolog_timeout=20s"]

    def hooks(self, job):
        path = os.path.join(self.dir, "hooks")
        lines = []
        if os.path.exists(path):
            with open(path) as hooks:
                lines = hooks.read().splitlines()
        return [line.split()[:2] for line in lines if line.split()[2].startswith("%d." % job)]

    def test_they_run_on_every_node_of_a_job(self):
        job = self.cluster.submit("-N2", "--wrap", "cat %s/hooks" % self.dir, "-o", "seen")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        self.assertEqual(sorted(self.hooks(job)),
                         [["epilog", "n1"], ["epilog", "n2"], ["prolog", "n1"], ["prolog", "n2"]])
        seen = [line for line in self.cluster.read("seen").splitlines() if " %d.1 " % job in line]
        self.assertEqual(sorted(line.split()[1] for line in seen), ["n1", "n2"], "the script began before a prolog")

    def test_a_failing_prolog_drains_the_node_and_the_job_runs_on_another_one(self):
        fail = self.file("fail-prolog-n1", "no licence server\n")
        job = self.cluster.submit("--wrap", "echo ran >> once-%j", "-o", "/dev/null")
        ended = self.cluster.wait(job)
        self.assertEqual((ended["state"], ended["nodes"], ended["attempt"]), ("completed", ["n2"], 2))
        node = self.wait_node("n1", "drained", "no licence server")
        self.assertEqual(node["drained_by"], "prolog")
        self.assertIn("job %d" % job, node["reason"])
        os.unlink(fail)
        self.cluster.ok("resume", "n1")
        self.wait_node("n1", "idle")

    def test_a_failing_prolog_of_one_node_of_several_never_lets_the_script_begin(self):
        fail = self.file("fail-prolog-n2", "bad\n")
        job = self.cluster.submit("-N2", "--wrap", "echo ran >> begun", "-o", "/dev/null")
        self.wait_node("n2", "drained", "bad")
        waits = until(lambda: [j for j in self.cluster.jobs(job) if j["state"] == "pending"], what="the job waits again")
        self.assertIn("prolog", waits[0]["last_end"])
        self.assertFalse(self.cluster.exists("begun"))
        self.assertEqual(self.node("n1")["state"], "idle")
        os.unlink(fail)
        self.cluster.ok("resume", "n2")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        self.assertEqual(self.cluster.read("begun"), "ran\n")

    def test_a_failing_epilog_drains_the_node_and_the_result_stands(self):
        fail = self.file("fail-epilog-n1", "scratch cannot be cleaned\n")
        job = self.cluster.wait(self.cluster.submit("-w", "n1", "--wrap", "exit 3"))
        self.assertEqual((job["state"], job["exit_code"]), ("failed", 3))
        self.assertEqual(self.wait_node("n1", "drained", "scratch cannot be cleaned")["drained_by"], "epilog")
        os.unlink(fail)
        self.cluster.ok("resume", "n1")
        self.wait_node("n1", "idle")

    def test_a_restart_of_the_daemon_in_the_middle_changes_nothing(self):
        for hook in ("prolog", "epilog"):
            wait = self.file("wait-%s-n1" % hook)
            job = self.cluster.submit("-w", "n1", "--wrap", "true")
            until(lambda: [hook, "n1"] in self.hooks(job), what="the %s runs" % hook)
            os.kill(self.cluster.pid("n1"), 9)
            until(lambda: self.cluster.daemons()["n1"]["state"] != "up", what="n1 is gone")
            self.cluster.local("restart", "n1")
            until(lambda: self.node("n1")["state"] != "unreachable", what="n1 is back")
            state = self.cluster.job(job)["state"]
            self.assertEqual(state, "starting" if hook == "prolog" else "running", hook)
            os.unlink(wait)
            self.assertEqual(self.cluster.wait(job)["state"], "completed")
            self.assertEqual(self.hooks(job), [["prolog", "n1"], ["epilog", "n1"]])

    def test_a_cancel_ends_a_prolog(self):
        wait = self.file("wait-prolog-n1")
        job = self.cluster.submit("-w", "n1", "--wrap", "echo ran > cancelled", "-o", "/dev/null")
        until(lambda: self.hooks(job), what="the prolog runs")
        self.cluster.ok("cancel", str(job))
        self.assertEqual(self.cluster.wait(job)["state"], "cancelled")
        os.unlink(wait)
        self.assertEqual(self.node("n1")["state"], "idle")
        self.assertFalse(self.cluster.exists("cancelled"))

    def test_a_job_of_run_waits_for_its_prolog(self):
        self.assertEqual(self.cluster.ok("run", "-N2", "-n2", "--", "sh", "-c", "echo here"), "here\nhere\n")


class Ledger(HealthTest):
    @classmethod
    def settings(cls):
        return ["controller.node_rest=1s"]

    def test_a_node_that_fails_what_others_run_well_is_drained_and_named(self):
        script = self.cluster.script("job.sh", "#!/bin/sh\n[ $MUSTER_NODE_NAME != n1 ] || exit 7\n")
        failed = []
        for _ in range(3):
            until(lambda: self.node("n1")["state"] == "idle", what="n1 has rested")
            bad = self.cluster.submit("-w", "n1", script)
            self.assertEqual(self.cluster.wait(bad)["state"], "failed")
            failed.append(bad)
            self.assertEqual(self.cluster.wait(self.cluster.submit("-w", "n2", script))["state"], "completed")
            until(lambda: len(self.node("n1")["failures"]) == len(failed), what="n1 is blamed")
            if len(failed) == 1:
                self.assertTrue(self.node("n1")["suspect"])
                job = self.cluster.wait(self.cluster.submit("--wrap", "true"))
                self.assertEqual(job["nodes"], ["n2"], "a suspect is taken last")
        node = self.wait_node("n1", "drained", "failures")
        self.assertEqual(node["drained_by"], "failures")
        for job in failed:
            self.assertIn("job %d (exit code 7)" % job, node["reason"])
        self.cluster.ok("resume", "n1")
        node = self.wait_node("n1", "idle")
        self.assertEqual((node["suspect"], node["failures"]), (False, []))


if __name__ == "__main__":
    unittest.main(verbosity=2)
