#!/usr/bin/env python3
"""Topologies of nodes, from the outside."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import SOURCE_DIR, ClusterTest

MACHINES = os.path.join(SOURCE_DIR, "tests", "data", "topologies")


class Topologies(ClusterTest):
    nodes = 3
    topology = (os.path.join(MACHINES, "crossed.xml"), os.path.join(MACHINES, "crossed.xml"),
                "package:2 numa:1 l3:2 core:4 pu:2 +gpu:2")

    def test_show_draws_the_tree_and_the_links(self):
        shown = self.cluster.ok("show", "node", "n3", "--topology")
        self.assertTrue(shown.startswith("Node n3\n2 packages, 2 NUMA nodes, 4 L3s, 16 cores, 32 hardware threads, 2 GPUs"))
        self.assertIn("    L3 0: cores 0-3, hardware threads 0-7\n", shown)
        self.assertRegex(shown, r"(?m)^GPU0 +X +SYS$")
        both = self.cluster.ok("show", "node", "n[1-2]", "--topology").split("Node n2\n")
        self.assertEqual(both[0], "Node n1\n" + both[1] + "\n", "equal machines are shown alike")

    def test_json_has_the_same(self):
        nodes = self.cluster.json("show", "node", "n[1-3]", "--topology")["nodes"]
        first, second, third = (node["topology"] for node in nodes)
        self.assertEqual(first, second)
        self.assertNotEqual(first["class"], third["class"])
        self.assertEqual([l3["cpus"] for l3 in third["l3"]], ["0-7", "8-15", "16-23", "24-31"])
        self.assertEqual([[link["type"] for link in gpu["links"]] for gpu in third["gpus"]], [["X", "SYS"], ["SYS", "X"]])
        self.assertNotIn("topology", self.cluster.json("show", "node", "n1")["nodes"][0])

    def test_they_are_known_after_a_restart_of_the_controller(self):
        before = self.cluster.ok("show", "node", "n1", "--topology")
        self.cluster.ok("local", "restart", "ctld", "--dir", self.cluster.local_dir)
        self.assertEqual(self.cluster.ok("show", "node", "n1", "--topology"), before)

    def test_topology_goes_with_nodes_only(self):
        result = self.cluster.run("show", "queue", "--topology")
        self.assertEqual(result.code, 2)
        self.assertIn("--topology goes with show node only", result.err)


if __name__ == "__main__":
    unittest.main()
