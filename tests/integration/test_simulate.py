"""muster simulate: the command line around the replay. What a replay computes is tested in tests/sim."""

import gzip
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import MUSTER, SLOWNESS, SOURCE_DIR  # noqa: E402

LOG = os.path.join(SOURCE_DIR, "tests", "data", "generated.swf")
POLICIES = ("default", "fcfs", "easy", "easy-sjbf", "conservative", "sjf", "saf", "wfp3", "unicef")


def simulate(*args, program=MUSTER, **kwargs):
    return subprocess.run([program, "simulate", *args], capture_output=True, text=True, check=False, timeout=250 * SLOWNESS, **kwargs)


class Simulate(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="muster-test-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name, content=None):
        path = os.path.join(self.dir, name)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content.encode())
        return path

    def report(self, *args):
        result = simulate(*args, "--json")
        self.assertEqual((result.returncode, result.stderr), (0, ""), args)
        self.assertEqual(len(result.stdout.splitlines()), 1)
        return json.loads(result.stdout)

    def refused(self, code, says, *args, **kwargs):
        result = simulate(*args, **kwargs)
        self.assertEqual((result.returncode, result.stdout), (code, ""), (args, result.stderr))
        self.assertTrue(result.stderr.startswith("muster: "), result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for word in (says,) if isinstance(says, str) else says:
            self.assertIn(word, result.stderr)

    def test_every_policy_and_option_has_an_effect(self):
        seen = {}
        for policy in POLICIES:
            report = self.report("--swf", LOG, "--policy", policy)
            self.assertEqual(report["policy"], policy)
            self.assertEqual((report["jobs"], report["dropped_jobs"], report["bad_lines"], report["machine_cores"]),
                             (577, 23, 0, 64))
            for key in ("avebsld", "mean_wait_s", "p95_wait_s", "max_wait_s", "util_in", "makespan_s", "broken_promises",
                        "scheduling_s"):
                self.assertIsInstance(report[key], (int, float), key)
            seen[policy] = report["avebsld"]
        self.assertEqual(len(set(seen.values())), len(POLICIES), "two policies give the same")
        self.assertEqual(self.report("--swf", LOG)["avebsld"], seen["default"])
        self.assertEqual(self.report("--swf", LOG, "--policy", "fcfs", "--backfill", "easy")["avebsld"], seen["easy"])
        easy = ("--swf", LOG, "--policy", "easy-sjbf")
        base = self.report(*easy)
        for options in (("--events", "seq"), ("--estimates", "run"), ("--procs", "alloc"), ("--procs", "max"),
                        ("--filter", "none"), ("--machine", "128"), ("--jobs", "100"), ("--backfill", "none")):
            changed = self.report(*easy, *options)
            if options == ("--procs", "max") or options == ("--procs", "alloc"):
                continue  # the widths of this log agree where both are there
            self.assertNotEqual({**changed, "scheduling_s": 0}, {**base, "scheduling_s": 0}, options)
        self.assertEqual(self.report(*easy, "--jobs", "100")["jobs"], 100)
        self.assertEqual(self.report(*easy, "--filter", "none")["jobs"], 586)

    def test_the_report_for_people(self):
        result = simulate("--swf", LOG, "--bench")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for word in ("default", "64 cores", "577", "bounded slowdown", "broken promises    0", "one pass"):
            self.assertIn(word, result.stdout)
        self.assertIn("pass_p95_us", self.report("--swf", LOG, "--bench"))
        self.assertNotIn("pass_p95_us", self.report("--swf", LOG))

    def test_gzip_is_recognised_by_its_content(self):
        with open(LOG, "rb") as file, gzip.open(self.path("log.txt"), "wb") as packed:
            packed.write(file.read())
        self.assertEqual(self.report("--swf", self.path("log.txt"))["avebsld"], self.report("--swf", LOG)["avebsld"])

    def test_dump_has_a_line_for_each_job_in_the_order_of_the_file(self):
        dump = self.path("starts")
        self.report("--swf", LOG, "--policy", "easy", "--dump", dump)
        with open(dump, encoding="ascii") as file:
            rows = [tuple(map(int, line.split())) for line in file]
        submitted = {}
        with open(LOG, encoding="ascii") as file:
            for line in file:
                if not line.startswith(";"):
                    fields = line.split()
                    submitted[int(fields[0])] = int(fields[1])
        numbers = [number for number, _ in rows]
        self.assertEqual(len(rows), 577)
        self.assertEqual(numbers, sorted(numbers))
        self.assertTrue(all(start >= submitted[number] for number, start in rows))
        self.assertEqual(os.listdir(self.dir), ["starts"])

    def test_a_dump_that_cannot_be_written_is_refused_before_the_replay(self):
        missing = self.path("no/such/folder")
        self.refused(1, ("--dump", "no/such/folder"), "--swf", "/nonexistent", "--dump", missing)
        self.refused(1, ("--dump", "directory"), "--swf", "/nonexistent", "--dump", self.dir)

    def test_bad_lines_are_counted_and_named(self):
        with open(LOG, encoding="ascii") as file:
            lines = file.readlines()
        lines[100:100] = ["1 2 3\n", "nonsense\n"] + ["?\n"] * 7
        result = simulate("--swf", self.path("bad.swf", "".join(lines)), "--json")
        self.assertEqual(result.returncode, 0)
        report = json.loads(result.stdout)
        self.assertEqual((report["bad_lines"], report["jobs"]), (9, 577))
        said = result.stderr.splitlines()
        self.assertEqual(len(said), 6)
        self.assertIn("line 101: 3 fields in place of 18", said[0])
        self.assertIn("line 102: field 1", said[1])
        self.assertIn("9 bad lines in all, of 615", said[5])
        self.assertTrue(all(line.startswith("muster: ") and "bad.swf" in line for line in said), said)

    def test_wrong_usage(self):
        self.refused(2, "--swf")
        self.refused(2, "--swf", "--json")
        self.refused(2, ("--policy", "wpf3", "did you mean wfp3?"), "--swf", LOG, "--policy", "wpf3")
        self.refused(2, ("--backfill", "did you mean"), "--swf", LOG, "--backfill", "esay")
        self.refused(2, ("--events", "batch or seq"), "--swf", LOG, "--events", "both")
        self.refused(2, ("--estimates", "user or run"), "--swf", LOG, "--estimates", "best")
        self.refused(2, ("--procs", "req or alloc or max"), "--swf", LOG, "--procs", "all")
        self.refused(2, ("--filter", "strict or none"), "--swf", LOG, "--filter", "some")
        for machine in ("0", "-4", "x", "1048577", "99999999999999999999"):
            self.refused(2, "--machine", "--swf", LOG, "--machine", machine)
        self.refused(2, "--jobs", "--swf", LOG, "--jobs", "0")
        self.refused(2, "operand", "--swf", LOG, "operand")
        self.refused(2, "--polcy", "--swf", LOG, "--polcy", "easy")

    def test_what_cannot_be_replayed(self):
        self.refused(1, ("missing.swf", "No such file"), "--swf", self.path("missing.swf"))
        self.refused(1, "directory", "--swf", self.dir)
        self.refused(1, ("empty.swf", "--machine"), "--swf", self.path("empty.swf", ""))
        self.refused(1, ("none.swf", "no job"), "--swf", self.path("none.swf", "; MaxProcs: 4\n"))
        self.refused(1, "--machine", "--swf", self.path("nosize.swf", "1 0 -1 5 1 -1 -1 1 5 -1 1 1 1 -1 -1 -1 -1 -1\n"))
        with open(LOG, "rb") as file:
            packed = gzip.compress(file.read())
        with open(self.path("cut.swf.gz"), "wb") as file:
            file.write(packed[:-20])
        self.refused(1, ("cut.swf.gz", "damaged"), "--swf", self.path("cut.swf.gz"))

    def test_without_the_replays_program_it_says_so(self):
        alone = self.path("muster")
        shutil.copy(MUSTER, alone)
        self.refused(1, "muster-sim", "--swf", LOG, program=alone)

    def on_a_terminal(self, *args):
        """What a replay shows on a terminal, and how many seconds it took."""
        controller, terminal = pty.openpty()
        began = time.monotonic()
        process = subprocess.Popen([MUSTER, "simulate", *args], stdout=subprocess.DEVNULL, stderr=terminal)
        try:
            os.close(terminal)
            shown = b""
            # Read as it comes: a terminal holds a few KiB, and a program waits while it is full.
            while piece := self.read(controller, process):
                shown += piece
            self.assertEqual(process.wait(), 0)
            return shown, time.monotonic() - began
        finally:
            process.kill()
            process.wait()
            os.close(controller)

    def read(self, controller, process):
        """What comes from the terminal next; nothing when the program has closed it."""
        ready, _, _ = select.select([controller], [], [], 250 * SLOWNESS)
        self.assertTrue(ready, "pid %d neither says anything nor ends" % process.pid)
        try:
            return os.read(controller, 65536)
        except OSError:  # EIO: its other end is closed
            return b""

    def test_a_long_replay_shows_its_progress_on_a_terminal_and_wipes_it_away(self):
        self.assertEqual(self.on_a_terminal("--swf", LOG)[0], b"")
        # Many different jobs that wait for one core, and ever more of them until it takes long.
        jobs, took = 4000, 0
        while took < 2.5:
            jobs = jobs * 3 // 2
            lines = [f"{i} 0 -1 {i} 1 -1 -1 1 {i} -1 1 1 1 -1 -1 -1 -1 -1\n" for i in range(1, jobs + 1)]
            log = self.path("long.swf", "; MaxProcs: 1\n" + "".join(lines))
            shown, took = self.on_a_terminal("--swf", log, "--policy", "fcfs")
        self.assertIn(f" of {jobs} jobs".encode(), shown)
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown)
        self.assertEqual(simulate("--swf", log, "--policy", "fcfs").stderr, "", "nothing where there is no terminal")

    def test_planning_is_measured_without_a_log(self):
        result = simulate("--bench", "--nodes", "40", "--cores", "8", "--gpus", "2", "--pending", "500", "--shapes", "20",
                          "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        measured = json.loads(result.stdout)
        self.assertEqual((measured["nodes"], measured["cores_per_node"], measured["gpus_per_node"]), (40, 8, 2))
        self.assertEqual((measured["pending_jobs"], measured["shapes"]), (500, 20))
        for key in ("full_pass_ms", "slice_max_ms", "submission_p50_ms", "submission_p95_ms", "completion_p50_ms",
                    "completion_p95_ms", "twice_pending_ratio"):
            self.assertGreater(measured[key], 0, key)
        self.assertIn("full pass", simulate("--bench", "--nodes", "4", "--pending", "50", "--shapes", "5").stdout)
        for bad in (("--bench", "--nodes", "0"), ("--nodes", "4", "--swf", LOG), ("--bench", "--shapes", "x")):
            refused = simulate(*bad)
            self.assertEqual(refused.returncode, 2, bad)
            self.assertIn(bad[-2] if bad[0] == "--bench" else "--nodes", refused.stderr)

    def test_help_names_every_option_and_policy(self):
        result = simulate("--help")
        self.assertEqual(result.returncode, 0)
        for word in ("--swf", "--policy", "--backfill", "--events", "--estimates", "--procs", "--filter", "--machine",
                     "--jobs", "--dump", "--json", "--bench", *POLICIES):
            self.assertIn(word, result.stdout)


if __name__ == "__main__":
    unittest.main()
