#!/usr/bin/env python3
"""Accounts, users and QOS, from the outside: what is set is listed, limits hold and are told, use is charged, and all of it
outlives a restart of the controller."""

import getpass
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import ClusterTest, until

ME = getpass.getuser()


class Accounting(ClusterTest):
    nodes = 1
    topology = "package:1 core:8 pu:1"
    settings = ("accounting.half_life=1d", "queue.main.factor=2")

    def find(self, kind, name, key=None):
        records = self.cluster.json(kind, "list", name)[key or kind + "s"]
        self.assertEqual(len(records), 1)
        return records[0]

    def submit(self, command, *options):
        return self.cluster.submit(*options, "--wrap", command)

    def test_a_life_of_an_account(self):
        run = self.cluster.ok
        run("account", "add", "science", "shares=60")
        run("account", "add", "physics", "parent=science", "shares=40", "cpus=4")
        run("qos", "add", "normal", "priority=3", "user.jobs=5", "job.time=1:00:00")
        run("account", "modify", "physics", "default_qos=normal", "allowed_qos=normal")
        run("user", "add", ME, "account=physics", "shares=2", "pending=3")
        account = self.find("account", "physics")
        self.assertEqual((account["parent"], account["shares"], account["limits"]), ("science", 40, {"cpus": 4}))
        user = self.find("user", ME)
        self.assertEqual(user["default_account"], "physics")
        self.assertEqual(user["accounts"][0]["limits"], {"pending": 3})
        self.assertEqual(self.find("qos", "normal", "qos")["user_limits"], {"jobs": 5})
        self.assertIn("physics", run("account", "list"))
        self.assertIn("cpus=0/4", run("account", "list", "physics"))

        first = self.submit("sleep 600", "-c", "3")
        self.cluster.wait_state(first, "running")
        second = self.submit("true", "-c", "2")
        job = self.cluster.job(second)
        self.assertEqual((job["account"], job["qos"], job["state"]), ("physics", "normal", "pending"))
        self.assertEqual(job["reason"], "AssocGrpCpuLimit")
        why = self.cluster.json("why", str(second))
        limit = [b for b in why["blockers"] if b["kind"] == "limit"]
        self.assertEqual(len(limit), 1)
        self.assertEqual(limit[0]["text"], "account physics may use 4 CPUs: has 3, this job needs 2: "
                                           "muster account modify physics cpus=5 would allow it")
        # Others are not blocked by it: there is room on the node.
        self.assertEqual(self.cluster.wait(self.submit("true", "-c", "1"))["state"], "completed")

        points = self.cluster.json("show", "priority", str(second))["priorities"][0]
        self.assertEqual(points["terms"]["qos"], 3)
        self.assertEqual(points["terms"]["queue"], 2)
        self.assertAlmostEqual(points["points"], sum(points["terms"].values()), places=3)
        self.assertIn(str(second), run("show", "priority", "-u", ME))
        self.assertEqual(self.cluster.json("show", "priority", "-u", "nobody")["priorities"], [])

        until(lambda: self.find("account", "science")["used_cpu_seconds"] > 0, what="a charge")
        os.kill(self.cluster.pid("ctld"), signal.SIGKILL)
        self.cluster.local("restart", "ctld")
        self.assertGreater(self.find("account", "physics")["used_cpu_seconds"], 0)
        self.assertEqual(self.find("account", "physics")["in_use"]["cpus"], 3)
        self.assertEqual(self.cluster.job(second)["state"], "pending")

        words = limit[0]["text"].split(": muster ")[1].split(" would allow it")[0].split()
        run(*words)
        self.assertEqual(self.cluster.wait(second)["state"], "completed")
        refused = self.cluster.run("account", "delete", "physics")
        self.assertEqual(refused.code, 1)
        self.assertIn("has 1 running and 0 waiting jobs (%d)" % first, refused.err)
        run("cancel", str(first))
        self.cluster.wait(first)

        self.refusals()
        run("user", "delete", ME)
        run("account", "delete", "physics")
        run("account", "delete", "science")
        run("qos", "delete", "normal")
        self.assertEqual(self.cluster.json("account", "list")["accounts"], [])

    def refusals(self):
        for code, text, *args in (
                (1, "may have a time limit of 01:00:00", "submit", "-t", "2:00:00", "--wrap", "true"),
                (1, "account physics may use 5 CPUs", "submit", "-c", "6", "--wrap", "true"),
                (1, "there is no account phisics: did you mean physics?", "submit", "-A", "phisics", "--wrap", "true"),
                (1, "there is no QOS fast", "submit", "-q", "fast", "--wrap", "true"),
                (1, "may have 3 waiting jobs", "submit", "-H", "-a", "0-3", "--wrap", "true"),
                (1, "stands below science", "account", "modify", "science", "parent=physics"),
                (1, "did you mean shares?", "account", "modify", "science", "share=3"),
                (1, "1000000", "account", "modify", "science", "shares=2000000"),
                (1, "has accounts below it (physics)", "account", "delete", "science"),
                (1, "is named by account physics", "qos", "delete", "normal"),
                (1, "there is no account art", "account", "list", "art"),
                (2, "is no setting", "account", "add", "x", "shares"),
                (2, "needs a name", "qos", "add"),
                (2, "use add, modify, delete or list", "user", "frobnicate"),
                (2, "goes with show priority only", "show", "node", "-u", ME)):
            with self.subTest(args=args):
                result = self.cluster.run(*args)
                self.assertEqual(result.code, code, result)
                self.assertIn(text, result.err)
                self.assertEqual(result.err.count("\n"), 1, result.err)


if __name__ == "__main__":
    unittest.main()
