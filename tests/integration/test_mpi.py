"""Open MPI inside jobs of several nodes: mpirun starts its daemons through the queue."""

import os
import re
import shutil
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import BUILD_DIR, ClusterTest, SOURCE_DIR  # noqa: E402

HYBRID = os.path.join(BUILD_DIR, "examples", "hybrid", "hybrid")
HEAT = os.path.join(BUILD_DIR, "examples", "heat", "heat")
ROOT = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1\n" if os.geteuid() == 0 else ""
# Several pretended nodes share the cores of one machine: ranks must give way while they wait.
MPIRUN = "mpirun --mca mpi_yield_when_idle 1 --bind-to none"


@unittest.skipUnless(shutil.which("mpirun"), "Open MPI is not installed")
class OpenMpi(ClusterTest):
    nodes = 4

    def mpi_job(self, name, body, *options):
        script = self.cluster.script(name + ".sh", "#!/bin/bash\n%s%s\n" % (ROOT, body))
        job = self.cluster.wait(self.cluster.submit("-o", name + ".out", "-t", "5m", *options, script), timeout=120)
        return job, self.cluster.read(name + ".out")

    def test_mpirun_starts_two_ranks_on_each_of_four_nodes(self):
        job, out = self.mpi_job("names", MPIRUN + " sh -c 'echo $(hostname) $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE'",
                                "-N", 4, "--ntasks-per-node", 2)
        self.assertEqual(job["state"], "completed", out)
        order = job["nodes"]
        self.assertEqual(sorted(order), ["n1", "n2", "n3", "n4"])
        self.assertEqual(sorted(out.splitlines(), key=lambda line: int(line.split()[1])),
                         ["%s %d of 8" % (order[rank // 2], rank) for rank in range(8)])

    @unittest.skipUnless(os.path.exists(HEAT), "the heat example is not built")
    def test_the_heat_solver_finds_the_known_answer(self):
        job, out = self.mpi_job("heat", "%s %s --size 128 --iterations 200" % (MPIRUN, HEAT), "-N", 4, "--ntasks-per-node", 2)
        self.assertEqual(job["state"], "completed", out)
        self.assertIn("PASS", out)
        self.assertIn("8 ranks on 4 nodes", out)

    def test_mpirun_on_some_of_the_nodes(self):
        job, out = self.mpi_job("some", MPIRUN + " --host n2:1,n4:1 hostname", "-N", 4, "--ntasks-per-node", 1)
        self.assertEqual(job["state"], "completed", out)
        self.assertEqual(sorted(out.splitlines()), ["n2", "n4"])

    def test_a_rank_that_fails_fails_the_job(self):
        job, out = self.mpi_job("fails", MPIRUN + " sh -c 'test $OMPI_COMM_WORLD_RANK != 3 || exit 7; sleep 1000'",
                                "-N", 2, "--ntasks-per-node", 2)
        self.assertEqual(job["state"], "failed", out)
        self.assertEqual(job["exit_code"], 7, "%s\n%s" % (job, out))

    @unittest.skipUnless(os.path.exists(HYBRID), "the hybrid example is not built")
    def test_ranks_with_threads_say_where_they_run(self):
        job = self.cluster.wait(self.cluster.submit("-o", "hybrid.out", os.path.join(SOURCE_DIR, "examples", "hybrid", "hybrid.sh"), HYBRID),
                                timeout=120)
        out = self.cluster.read("hybrid.out")
        self.assertEqual(job["state"], "completed", out)
        ranks = re.findall(r"rank (\d) of 4 on (n\d): 2 threads on CPUs \S+, sum of all 57.570907", out)
        self.assertEqual(sorted(ranks), [(str(rank), job["nodes"][rank // 2]) for rank in range(4)], out)

    def test_two_mpiruns_after_each_other(self):
        job, out = self.mpi_job("twice", MPIRUN + " hostname | sort -u\n" + MPIRUN + " hostname | sort -u", "-N", 2, "--ntasks-per-node", 1)
        self.assertEqual(job["state"], "completed", out)
        self.assertEqual(out.split(), sorted(job["nodes"]) * 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
