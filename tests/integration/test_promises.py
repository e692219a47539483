#!/usr/bin/env python3
"""Promised starts, from the outside: nothing that stands behind a promised job delays it, also over a restart of the
controller, when the nodes come back one after the other."""

import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import ClusterTest, until


class Promises(ClusterTest):
    nodes = 3
    topology = "package:1 core:4 pu:1"

    def why(self, job):
        return self.cluster.json("why", str(job))

    def test_a_restart_of_the_controller_gives_no_promised_place_away(self):
        base = self.cluster.submit("-w", "n1", "-N", 1, "-t", "10", "--wrap", "sleep 600")
        until(lambda: self.cluster.job(base)["state"] == "running", what="the first job's start")
        big = self.cluster.submit("-N", 3, "--exclusive", "-t", "2", "--wrap", "true")
        until(lambda: "planned_start" in self.why(big), what="the promise")
        promised = self.why(big)["planned_start"]
        behind = self.cluster.submit("-n", 1, "-t", "1:00:00", "--wrap", "sleep 600")
        self.assertEqual(self.cluster.job(behind)["reason"], "Priority")
        fills = self.cluster.submit("-n", 1, "-t", "1", "--wrap", "true")
        self.assertEqual(self.cluster.wait(fills)["state"], "completed")
        for _ in range(3):
            os.kill(self.cluster.pid("ctld"), signal.SIGKILL)
            self.cluster.local("restart", "ctld")
            until(lambda: all(n["state"] != "unreachable" for n in self.cluster.json("nodes")["nodes"]), what="the nodes")
            # A job that is planned after them all shows that planning goes on again.
            later = self.cluster.submit("-n", 1, "-t", "1", "--wrap", "true")
            self.assertEqual(self.cluster.wait(later)["state"], "completed")
            self.assertEqual(self.cluster.job(behind)["state"], "pending")
            self.assertLessEqual(self.why(big)["planned_start"], promised + 0.001)
        self.cluster.ok("cancel", str(base))
        self.assertEqual(self.cluster.wait(big)["state"], "completed")
        self.cluster.ok("cancel", str(behind))


if __name__ == "__main__":
    unittest.main()
