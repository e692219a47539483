"""Training launches: what `muster run` tells each task, and PyTorch over several nodes."""

import os
import re
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import ClusterTest, SOURCE_DIR  # noqa: E402

PYTHON = "/usr/bin/python3"
TRAIN = os.path.join(SOURCE_DIR, "examples", "pytorch", "train.py")


def has_torch():
    return subprocess.run([PYTHON, "-c", "import torch"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


class Training(ClusterTest):
    nodes = 2

    def test_each_task_knows_its_place_and_where_to_meet(self):
        out = self.cluster.ok("run", "-N", 2, "--ntasks-per-node", 2, "sh", "-c",
                              "echo $RANK $LOCAL_RANK $NODE_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT")
        lines = sorted(line.split() for line in out.splitlines())
        self.assertEqual([line[:5] for line in lines], [["0", "0", "0", "4", "2"], ["1", "1", "0", "4", "2"],
                                                        ["2", "0", "1", "4", "2"], ["3", "1", "1", "4", "2"]])
        self.assertEqual(len({line[5] for line in lines}), 1)
        self.assertRegex(lines[0][5], r"^\S+:\d+$")

    def test_a_port_that_is_taken_is_not_given(self):
        def port():
            return [int(word) for word in self.cluster.ok("run", "sh", "-c", "echo $MUSTER_JOB_ID $MASTER_PORT").split()]

        job, first = port()
        follows = 15000 + ((job + 1) * 131) % 15000
        self.assertEqual(first, 15000 + job * 131 % 15000, "the test knows which port comes next")
        with socket.create_server(("127.0.0.1", follows)):
            self.assertEqual(port(), [job + 1, follows + 1])

    @unittest.skipUnless(has_torch(), "PyTorch is not installed (Debian: python3-torch)")
    def test_pytorch_on_two_nodes_reaches_the_loss_of_one_process(self):
        alone = subprocess.run([PYTHON, TRAIN], env={"PATH": "/usr/bin:/bin"}, check=True, stdout=subprocess.PIPE, text=True,
                               timeout=120).stdout
        job = self.cluster.wait(self.cluster.submit("-o", "ddp.out", os.path.join(SOURCE_DIR, "examples", "pytorch", "ddp.sh"), TRAIN),
                                timeout=120)
        out = self.cluster.read("ddp.out")
        self.assertEqual(job["state"], "completed", out)
        self.assertIn("on 4 processes", out)
        losses = [float(re.search(r"loss ([0-9.]+) after 40 steps", text).group(1)) for text in (alone, out)]
        self.assertGreater(losses[0], 0)
        self.assertLess(abs(losses[0] - losses[1]), 1e-6)


if __name__ == "__main__":
    unittest.main(verbosity=2)
