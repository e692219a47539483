#!/usr/bin/env python3
"""Topologies of nodes, and which cores and GPUs jobs and their tasks get of them, from the outside."""

import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import BIN, SOURCE_DIR, ClusterTest, until

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


# GPUs 0 and 1 of crossed.xml are beside cores 8-15, 2 and 3 beside cores 0-7; one L3 of four cores each.
class Choices(ClusterTest):
    nodes = 1
    topology = os.path.join(MACHINES, "crossed.xml")

    def run_job(self, *options, command="true"):
        """A job's view with its placement, after it ran `command` as tasks."""
        script = "muster run %s" % command
        job = self.cluster.submit(*options, "--wrap", script)
        view = self.cluster.wait(job)
        self.assertEqual(view["state"], "completed", view)
        return self.cluster.json("show", "job", str(job))["jobs"][0]

    def output_of(self, view):
        with open(os.path.join(self.cluster.work, view["stdout"]), encoding="utf-8") as out:
            return sorted(out.read().splitlines())

    def test_cores_are_beside_the_gpus(self):
        place = self.run_job("-n", 2, "-c", 2, "--gpus-per-task", 1)["placement"][0]
        for task in place["task_list"]:
            self.assertEqual(task["locality"], {"device": True, "numa": True, "package": True}, place)
        gpus = {task["gpus"][0]["index"]: task["cpus"] for task in place["task_list"]}
        self.assertEqual(len(gpus), 2)
        local = {0: "8-9,24-25", 1: "12-13,28-29", 2: "0-1,16-17", 3: "4-5,20-21"}
        for gpu, cpus in gpus.items():
            self.assertEqual(cpus, local[gpu], place)
        self.assertTrue(place["pretended"])

    def test_tasks_see_their_own_gpus(self):
        command = "sh -c 'echo $SLURM_PROCID:$CUDA_VISIBLE_DEVICES'"
        view = self.run_job("-n", 4, "-c", 1, "--gpus-per-task", 1, command=command)
        # By the order of their cores: GPUs 2 and 3 are beside the first ones.
        self.assertEqual(self.output_of(view), ["0:2", "1:3", "2:0", "3:1"])
        view = self.run_job("-n", 4, "-c", 1, "--gpus-per-node", 4, command=command)
        self.assertEqual(self.output_of(view), ["%d:0,1,2,3" % rank for rank in range(4)])
        view = self.run_job("-n", 4, "-c", 1, "--gpus-per-node", 4, command="--gpu-bind closest " + command)
        self.assertEqual(self.output_of(view), ["0:2", "1:3", "2:0", "3:1"])
        view = self.run_job("-n", 2, "--gpus-per-node", 4, "--gpu-bind", "map_gpu:3,0", command=command)
        self.assertEqual(self.output_of(view), ["0:3", "1:0"])

    def test_what_cannot_be_is_refused(self):
        for options, words in ((("--cpu-bind", "core"), "--cpu-bind: 'core' is no binding"),
                               (("--gpu-bind", "near"), "--gpu-bind: 'near' is no binding"),
                               (("-m", "arbitrary"), "'arbitrary' is no distribution"),
                               (("--locality", "required"), "--locality"),
                               (("--locality", "require", "-c", "9", "--gpus-per-task", "1"),
                                "--locality=require: 1 of 1 task would have cores beyond the NUMA nodes of their GPUs")):
            result = self.cluster.run("submit", *options, "--wrap", "true")
            self.assertNotEqual(result.code, 0, options)
            self.assertIn(words, result.err)
        result = self.cluster.run("run", "-n", 2, "--gpu-bind", "map_gpu:0", "true")
        self.assertNotEqual(result.code, 0)
        self.assertIn("--gpu-bind: it names GPU 0 and the job has 0", result.err)

    def test_who_requires_locality_waits_for_it(self):
        # Eight cores beside each pair of GPUs: seven of each half are taken, so two cores are left, one in each half.
        fill = [self.cluster.submit("-n", 1, "-c", 7, "--gpus-per-task", 1, "--wrap", "sleep 600") for _ in range(2)]
        for job in fill:
            until(lambda job=job: self.cluster.job(job)["state"] == "running", what="the filling jobs")
        near = self.cluster.submit("-n", 1, "-c", 2, "--gpus-per-task", 1, "--locality", "require", "--wrap", "true")
        why = until(lambda: [b for b in self.cluster.json("why", str(near))["blockers"] if "require" in b["text"]],
                    what="the reason why it waits")
        self.assertIn("would have cores beyond the NUMA nodes of their GPUs", why[0]["text"])
        self.assertEqual(self.cluster.job(near)["state"], "pending")
        self.cluster.ok("cancel", str(fill[0]))
        self.assertEqual(self.cluster.wait(near)["state"], "completed")
        task = self.cluster.job(near)["placement"][0]["task_list"][0]
        self.assertTrue(task["locality"]["device"], task)
        self.cluster.ok("cancel", str(fill[1]))
        self.cluster.wait(fill[1])

    def test_the_proof_says_that_the_node_pretends(self):
        proof = self.run_job("-n", 2, "-c", 2, "--gpus-per-task", 1)["placement"][0]["proof"]
        self.assertTrue(proof["pretended"], proof)
        self.assertEqual(proof["faults"], 0)
        self.assertEqual([task["step"] for task in proof["read_back"]], ["batch", 0, 0])
        self.assertTrue(all(task["locality"]["device"] for task in proof["read_back"][1:]), proof)

    def test_verbose_says_that_the_node_pretends(self):
        result = self.cluster.run("run", "-n", 1, "--gpus-per-task", 1, "--cpu-bind", "verbose", "true")
        self.assertEqual(result.code, 0, result)
        self.assertIn("of a pretended node, which nothing is bound to", result.err)
        self.assertIn("local to the device", result.err)

    def test_shown_with_the_job(self):
        job = self.cluster.submit("-n", 2, "--cpu-bind", "threads", "--gpu-bind", "closest", "-m", "block:cyclic",
                                  "--threads-per-core", 1, "--locality", "none", "--wrap", "true")
        view = self.cluster.json("show", "job", str(job))["jobs"][0]
        self.assertEqual([view[key] for key in ("cpu_bind", "gpu_bind", "distribution", "threads_per_core", "locality")],
                         ["threads", "closest", "block:cyclic", 1, "none"])
        self.assertIn("threads", self.cluster.ok("show", "job", str(job)))


class Distribution(ClusterTest):
    """Ranks over nodes and packages."""

    nodes = 2
    topology = "package:2 core:4 pu:1"

    def ranks(self, *options):
        """The ranks of each node, in the order of its tasks."""
        out = self.cluster.ok("run", *options, "sh", "-c", "echo $SLURMD_NODENAME $SLURM_LOCALID $SLURM_PROCID $SLURM_GTIDS")
        found = {}
        for line in out.splitlines():
            node, local, rank, all_ranks = line.split()
            found.setdefault(node, {})[int(local)] = int(rank)
            self.assertIn(rank, all_ranks.split(","))
        return sorted([ranks[i] for i in sorted(ranks)] for ranks in found.values())

    def test_over_nodes(self):
        for how, expected in (("block", [[0, 1, 2], [3, 4, 5]]), ("cyclic", [[0, 2, 4], [1, 3, 5]]),
                              ("plane=2", [[0, 1, 4], [2, 3, 5]]), ("block:cyclic", [[0, 1, 2], [3, 4, 5]]),
                              ("cyclic:block", [[0, 2, 4], [1, 3, 5]])):
            with self.subTest(how):
                self.assertEqual(self.ranks("-N", 2, "-n", 6, "--ntasks-per-node", 3, "-m", how), expected)

    def test_a_step_fills_its_nodes_by_planes(self):
        script = "muster run -n 6 -m plane=4 sh -c 'echo $SLURMD_NODENAME:$SLURM_PROCID'"
        job = self.cluster.submit("-N", 2, "--ntasks-per-node", 4, "--wrap", script)
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        nodes = {}
        for line in self.cluster.read("muster-%d.out" % job).splitlines():
            node, rank = line.split(":")
            nodes.setdefault(node, []).append(int(rank))
        self.assertEqual(sorted(sorted(ranks) for ranks in nodes.values()), [[0, 1, 2, 3], [4, 5]])

    def test_output_files_are_named_by_the_node_of_the_rank(self):
        self.cluster.ok("run", "-N", 2, "-n", 4, "--ntasks-per-node", 2, "-m", "cyclic", "-o", "node%n.task%t", "true")
        names = sorted(name for name in os.listdir(self.cluster.work) if name.startswith("node"))
        self.assertEqual(names, ["node0.task0", "node0.task2", "node1.task1", "node1.task3"])


class SiteChoices(ClusterTest):
    """What the configuration takes away from a node, and partitions of GPUs."""

    nodes = 1
    topology = "package:2 numa:1 core:4 pu:2+gpu:2"
    settings = ("node.system_cores=2", "node.smt=leave", "node.gpu_partitions=cpx*2")

    def test_jobs_get_what_is_left(self):
        node = self.cluster.json("show", "node", "n1", "--topology")["nodes"][0]
        self.assertEqual((node["cpus"], node["gpus"]), (6, 4))
        self.assertEqual([l3["cpus"] for l3 in node["topology"]["l3"]], ["2,4,6", "10,12,14"])
        self.assertEqual([gpu["partition"] for gpu in node["topology"]["gpus"]], ["cpx"] * 4)
        result = self.cluster.run("submit", "-c", 7, "--wrap", "true")
        self.assertEqual(result.code, 1)
        self.assertIn("too few CPUs", result.err)

    def test_partitions_of_one_gpu_go_together(self):
        job = self.cluster.submit("--gpus-per-node", 1, "--wrap", "sleep 600")
        until(lambda: self.cluster.job(job)["state"] == "running", what="the first job")
        other = self.cluster.submit("--gpus-per-node", 1, "--wrap", "true")
        self.cluster.wait(other)
        addresses = {self.cluster.job(ref)["placement"][0]["gpus"][0]["pci_address"] for ref in (job, other)}
        self.assertEqual(len(addresses), 1, addresses)
        self.cluster.ok("cancel", str(job))


class Affinity(ClusterTest):
    """A node that does not pretend: what the kernel says of its tasks."""

    nodes = 1

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.ok("local", "kill", "n1", "--dir", cls.cluster.local_dir)
        folder = os.path.join(cls.cluster.local_dir, "n1")
        with open(os.path.join(folder, "muster.toml"), encoding="utf-8") as pretended:
            lines = [line for line in pretended if not line.startswith(("topology", "memory"))]
        config = os.path.join(folder, "itself.toml")
        with open(config, "w", encoding="utf-8") as itself:
            itself.writelines(lines)
        with open(os.path.join(folder, "itself.log"), "w", encoding="utf-8") as log:
            cls.daemon = subprocess.Popen([os.path.join(BIN, "muster-noded"), "--config", config, "--boot-id", "another"],
                                          stdout=log, stderr=log)
        cls.addClassCleanup(cls.end_daemon)
        until(lambda: not cls.cluster.json("show", "node", "n1")["nodes"][0]["pretended"], what="the node itself")

    @classmethod
    def end_daemon(cls):
        cls.daemon.terminate()
        cls.daemon.wait(timeout=30)

    def affinities(self, *options):
        out = self.cluster.ok("run", *options, "sh", "-c", "grep Cpus_allowed_list /proc/self/status")
        return sorted(re.findall(r"Cpus_allowed_list:\s*(\S+)", out))

    def test_tasks_are_bound_as_decided(self):
        node = self.cluster.json("show", "node", "n1", "--topology")["nodes"][0]
        if node["cpus"] < 2:
            self.skipTest("this machine has one core: there is nothing to choose")
        threads = [group["cpus"] for group in node["topology"]["l3"]]
        one = self.affinities("-n", 1)
        self.assertEqual(len(one), 1)
        two = self.affinities("-n", 2, "--cpu-bind", "cores")
        self.assertEqual(len(set(two)), 2, "each task has its own: %r of %r" % (two, threads))
        free = self.affinities("-n", 2, "--cpu-bind", "none")
        self.assertEqual(len(set(free)), 1, free)

    def test_the_proof_is_kept_with_the_job(self):
        job = self.cluster.submit("-n", 1, "--wrap", "muster run true")
        self.assertEqual(self.cluster.wait(job)["state"], "completed")
        place = self.cluster.job(job)["placement"][0]
        proof = place["proof"]
        self.assertEqual((proof["pretended"], proof["tasks"], proof["faults"]), (False, 2, 0), proof)
        self.assertEqual([task["step"] for task in proof["read_back"]], ["batch", 0])
        for task in proof["read_back"]:
            self.assertEqual(task["cpus"], place["cpus"])
            self.assertTrue(task["as_decided"])
        self.assertIn("n1: 2 tasks read back, as decided", self.cluster.ok("show", "job", str(job)))

    def test_verbose_tells_what_the_kernel_says(self):
        for how, words in (("verbose,cores", "as decided"), ("v,none", "as decided")):
            result = self.cluster.run("run", "-n", 1, "--cpu-bind", how, "true")
            self.assertEqual(result.code, 0, result)
            self.assertRegex(result.err, r"task 0 on n1: CPUs [0-9,-]+ %s, NUMA node 0" % words)
        self.assertEqual(self.cluster.run("run", "-n", 1, "true").err, "")


if __name__ == "__main__":
    unittest.main()
