#!/usr/bin/env python3
"""Features and the network, from the outside: where jobs go, what is shown, what is refused."""

import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import BIN, ClusterTest, until


class Placement(ClusterTest):
    nodes = 4
    topology = "package:1 core:2 pu:1"
    settings = ("topology.kind=block", "block.left.nodes=n[1-2]", "block.right.nodes=n[3-4]", "feature.fast.nodes=n[2-3]",
                "feature.disk.nodes=n4")

    def nodes_of(self, *options):
        job = self.cluster.submit(*options, "--exclusive", "--wrap", "true")
        view = self.cluster.wait(job)
        self.assertEqual(view["state"], "completed")
        return view["nodes"]

    def test_features_choose_the_nodes(self):
        self.assertEqual(self.nodes_of("-C", "disk"), ["n4"])
        self.assertEqual(self.nodes_of("-C", "fast&disk|disk"), ["n4"])
        self.assertEqual(self.nodes_of("-N", 2, "-C", "disk*1"), ["n3", "n4"])
        shown = {node["name"]: node for node in self.cluster.json("nodes")["nodes"]}
        self.assertEqual(shown["n3"]["features"], ["fast"])
        self.assertEqual(shown["n1"]["features"], [])
        self.assertEqual(shown["n4"]["topology_address"], "right")
        self.assertIn("fast", self.cluster.ok("show", "node", "n2"))
        table = self.cluster.ok("nodes")
        self.assertIn("FEATURES", table)
        self.assertIn("disk", table)

    def test_blocks_are_not_crossed(self):
        base = self.cluster.submit("-w", "n1", "--exclusive", "--wrap", "sleep 600")
        other = self.cluster.submit("-w", "n3", "--exclusive", "--wrap", "sleep 600")
        for job in (base, other):
            self.cluster.wait_state(job, "running")
        pair = self.cluster.submit("-N", 2, "--exclusive", "--wrap", "true")
        until(lambda: self.cluster.job(pair)["reason"] == "Resources", what="the reason")
        self.assertIn("no block or group of blocks", self.cluster.ok("why", str(pair)))
        self.cluster.ok("cancel", str(base))
        self.assertEqual(self.cluster.wait(pair)["nodes"], ["n1", "n2"])
        self.cluster.ok("cancel", str(other))
        self.cluster.wait(other)

    def test_what_cannot_be_is_refused(self):
        for options, words in ((("-C", "fsat"), ("no node has the feature fsat", "did you mean fast?")),
                               (("-C", "fast&"), ("--constraint", "position 6")),
                               (("-N", "3", "--segment", "2"), ("--segment 2", "multiple")),
                               (("-N", "3", "-C", "fast"), ("can never run",)),
                               (("--switches", "1@x"), ("bad time",))):
            result = self.cluster.run("submit", *options, "--wrap", "true")
            self.assertNotEqual(result.code, 0, options)
            for word in words:
                self.assertIn(word, result.err)

    def test_a_bad_network_keeps_the_controller_from_starting(self):
        config = os.path.join(self.cluster.local_dir, "muster.toml")
        for setting, words in (("block.right.nodes=n[2-4]", ("node n2 is in block left already",)),
                               ("block.right.nodes=n[3-5]", ("[block.right] at ", "unknown node n5"))):
            done = subprocess.run([os.path.join(BIN, "muster-ctld"), "--config", config, "--set", setting, "--check"],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertTrue(re.search(r"muster\.toml:\d+:\d+", done.stderr), done.stderr)


if __name__ == "__main__":
    unittest.main()
