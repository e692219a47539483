#!/usr/bin/env python3
"""muster submit from the outside: scripts, options, errors, waiting, retries."""

import json
import os
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import BIN, MUSTER, SLOWNESS, Cluster, ClusterTest, seconds, until


class Submit(ClusterTest):
    nodes = 2
    topology = "package:1 core:4 pu:1+gpu:2"

    def fails(self, code, *args, mentions=(), **kwargs):
        result = self.cluster.run(*args, **kwargs)
        self.assertEqual(result.code, code, result)
        self.assertTrue(result.err.startswith("muster: "), result)
        self.assertEqual(result.err.count("\n"), 1, result)
        self.assertIn(": ", result.err[len("muster: "):], result)
        for text in mentions:
            self.assertIn(text, result.err, result)
        return result

    @unittest.skipIf(os.environ.get("MUSTER_SANITIZE"), "sanitizers keep the shared libraries")
    def test_the_command_loads_the_c_library_alone(self):
        env = dict(self.cluster.env, LD_TRACE_LOADED_OBJECTS="1")
        loaded = subprocess.run([MUSTER], env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        libraries = {line.split()[0].split("/")[-1].split(".so")[0] for line in loaded.splitlines()}
        # Each library more costs every start of the command a part of its 8 ms.
        self.assertLessEqual(libraries, {"linux-vdso", "ld-linux-x86-64", "libc", "libm", "libdl", "libpthread"})

    def test_prints_the_id(self):
        out = self.cluster.ok("submit", "--wrap", "true")
        self.assertRegex(out, r"\ASubmitted job \d+\n\Z")
        self.assertRegex(self.cluster.ok("submit", "--parsable", "--wrap", "true"), r"\A\d+\n\Z")
        self.assertGreater(self.cluster.json("submit", "--wrap", "true")["id"], 0)

    def test_script_with_arguments_and_options(self):
        self.cluster.script("job.sh", "#!/bin/sh\n#MUSTER -J named -o out-%j.txt # remark\n#SBATCH --comment='two words' -c 2\n"
                                      "echo \"$# <$1> <$2> $MUSTER_JOB_NAME\"\necho err >&2\n")
        job = self.cluster.submit("job.sh", "a b", "$HOME")
        view = self.cluster.wait(job)
        self.assertEqual(view["state"], "completed")
        self.assertEqual(view["name"], "named")
        self.assertEqual(view["cpus"], 2)
        self.assertEqual(view["comment"], "two words")
        self.assertEqual(self.cluster.read("out-%d.txt" % job), "2 <a b> <$HOME> named\nerr\n")

    def test_script_from_standard_input(self):
        job = self.cluster.submit("-", "x", stdin="#!/bin/sh\n#MUSTER -o stdin.out\necho from $1\n")
        self.cluster.wait(job)
        self.assertEqual(self.cluster.read("stdin.out"), "from x\n")

    def test_command_line_wins_over_variables_over_script(self):
        self.cluster.script("prec.sh", "#!/bin/sh\n#MUSTER -J script -c 1 --comment script\ntrue\n")
        job = self.cluster.submit("-J", "line", "prec.sh", env={"MUSTER_JOB_NAME": "variable", "MUSTER_COMMENT": "variable"})
        view = self.cluster.job(job)
        self.assertEqual((view["name"], view["comment"], view["cpus"]), ("line", "variable", 1))

    def test_default_output(self):
        job = self.cluster.submit("--wrap", "echo here; echo there >&2")
        self.cluster.wait(job)
        self.assertEqual(self.cluster.read("muster-%d.out" % job), "here\nthere\n")
        array = self.cluster.submit("-a", "3-4", "--wrap", "echo $MUSTER_ARRAY_TASK_ID")
        self.cluster.wait_all(array)
        self.assertEqual(self.cluster.read("muster-%d_4.out" % array), "4\n")

    def test_wait_returns_the_jobs_status(self):
        for command, code in (("exit 7", 7), ("true", 0), ("kill -SEGV $$", 128 + signal.SIGSEGV)):
            self.assertEqual(self.cluster.run("submit", "-W", "--wrap", command).code, code, command)
        self.assertEqual(self.cluster.run("submit", "-W", "-a", "0-2", "--wrap", "exit $MUSTER_ARRAY_TASK_ID").code, 2)

    def test_wait_says_why_a_job_failed(self):
        missing = self.cluster.run("submit", "-W", "-D", "/no/such/place", "-o", "/dev/null", "--wrap", "true")
        self.assertIn("has ended (failed): n1: working directory /no/such/place", missing.err)
        array = self.cluster.run("submit", "-W", "-a", "0-2", "--wrap", "exit $MUSTER_ARRAY_TASK_ID")
        self.assertIn("2 of the 3 tasks", array.err)
        self.assertEqual(self.cluster.run("submit", "-W", "-Q", "--wrap", "exit 1").err, "")

    def test_test_only_makes_no_job(self):
        before = self.cluster.json("submit", "--wrap", "true")["id"]
        self.cluster.ok("submit", "--test-only", "--wrap", "true")
        self.assertEqual(self.cluster.json("submit", "--wrap", "true")["id"], before + 1)
        self.fails(1, "submit", "--test-only", "-N", "3", "--wrap", "true")

    def test_environment_rules(self):
        show = "echo ${A-unset} ${B-unset} $(test -n \"$HOME\" && echo home)"
        for export, expected in (("ALL", "1 2"), ("NONE", "unset unset"), ("A", "1 unset"), ("ALL,B=3", "1 3"), ("NONE,B=x", "unset x")):
            job = self.cluster.submit("--export", export, "-o", "env.out", "--wrap", show, env={"A": "1", "B": "2"})
            self.cluster.wait(job)
            self.assertEqual(self.cluster.read("env.out").split()[:2], expected.split(), export)

    def test_wrong_usage_is_2_and_names_the_option(self):
        self.fails(2, "submit", "--nods", "2", "--wrap", "true", mentions=["--nods", "--nodes"])
        self.fails(2, "submit", "--wrap", "true", "-N", "0", mentions=["--nodes"])
        self.fails(2, "submit", "-n", "-3", "--wrap", "true", mentions=["--ntasks"])
        self.fails(2, "submit", "-n", "99999999999999999999999", "--wrap", "true", mentions=["--ntasks"])
        self.fails(2, "submit", "--mem", "4Q", "--wrap", "true", mentions=["--mem"])
        self.fails(2, "submit", "-t", "soon", "--wrap", "true", mentions=["--time"])
        self.fails(2, "submit", "-w", "n[1-", "--wrap", "true", mentions=["--nodelist"])
        self.fails(2, "submit", "-d", "afterok", "--wrap", "true", mentions=["--dependency", "afterok names no job"])
        self.fails(2, "submit", "--image", "x", "--wrap", "true", mentions=["--image", "not supported yet"])
        self.fails(2, "submit", mentions=["script"])
        self.fails(2, "frobnicate", mentions=["frobnicate"])
        self.fails(2, "submt", "x", mentions=["submit"])

    def test_scripts_that_are_none(self):
        cases = {"missing-bang.sh": ("echo\n", "#!"), "crlf.sh": ("#!/bin/sh\r\necho\r\n", "dos2unix"), "nul.sh": ("#!/bin/sh\n\0\n", "NUL"), "empty.sh": ("", "empty")}
        for name, (text, word) in cases.items():
            with open(os.path.join(self.cluster.work, name), "w", newline="") as script:
                script.write(text)
            self.fails(1, "submit", name, mentions=[name, word])
        self.fails(1, "submit", "nowhere.sh", mentions=["nowhere.sh", "no such file"])
        self.fails(1, "submit", "/tmp", mentions=["/tmp"])
        with open(os.path.join(self.cluster.work, "big.sh"), "w") as script:
            script.write("#!/bin/sh\n" + "#" * (10 << 20))
        self.fails(1, "submit", "big.sh", mentions=["big.sh", "4 MiB"])
        self.cluster.script("bad-option.sh", "#!/bin/sh\n#MUSTER -N 1\n#MUSTER --tme=5\n")
        self.fails(2, "submit", "bad-option.sh", mentions=["bad-option.sh:3", "--tme"])

    def test_refused_jobs_say_why(self):
        self.fails(1, "submit", "-p", "nope", "--wrap", "true", mentions=["queue nope"])
        self.fails(1, "submit", "-N", "3", "--wrap", "true")
        self.fails(1, "submit", "-c", "5", "--wrap", "true")
        self.fails(1, "submit", "--gpus-per-node", "3", "--wrap", "true")
        self.fails(1, "submit", "-w", "n7", "--wrap", "true", mentions=["n7"])

    def test_unreachable_controller_is_3(self):
        config = os.path.join(self.cluster.work, "nobody.toml")
        with open(self.cluster.config) as source:
            lines = [line for line in source if not line.startswith("controller =")]
        text = "".join(lines).replace("[cluster]", '[cluster]\ncontroller = ["tcp://127.0.0.1:9"]')
        with open(config, "w") as target:
            target.write(text)
        result = self.fails(3, "queue", "--config", config, "--timeout", "1", mentions=["127.0.0.1:9"])
        self.assertEqual(result.out, "")

    def test_a_foreign_key_is_not_admitted(self):
        key = os.path.join(self.cluster.work, "stranger.key")
        self.cluster.ok("keygen", "user", "--out", key)
        self.assertEqual(os.stat(key).st_mode & 0o777, 0o600)
        result = self.cluster.run("queue", "--key", key, "--timeout", "3")
        self.assertIn(result.code, (3, 4), result)
        self.fails(1, "keygen", "user", "--out", key, mentions=[key])

    def test_names_that_are_no_text(self):
        name = b"\xff\x1b[31mred"
        environment = dict(os.environb)
        environment.update({k.encode(): v.encode() for k, v in self.cluster.env.items()})
        out = subprocess.run([MUSTER.encode(), b"submit", b"--parsable", b"-H", b"-J", name, b"--wrap", b"true"], env=environment, cwd=self.cluster.work,
                             stdout=subprocess.PIPE, timeout=60 * SLOWNESS, check=True).stdout
        job = int(out)
        raw = subprocess.run([MUSTER, "queue", "-j", str(job)], env=self.cluster.env, stdout=subprocess.PIPE, timeout=60 * SLOWNESS, check=True).stdout
        self.assertNotIn(b"\x1b", raw)
        self.assertIn(b"\\x1b[31mred", raw)
        self.assertIn("red", self.cluster.json("queue", "-j", job)["jobs"][0]["name"])
        self.cluster.ok("cancel", job)


class Restart(ClusterTest):
    def test_a_submission_waits_for_a_controller_that_restarts(self):
        cluster = self.cluster
        first = cluster.submit("-H", "--wrap", "true")
        os.kill(cluster.pid("ctld"), signal.SIGKILL)
        until(lambda: cluster.daemons()["ctld"]["state"] == "down", what="the end of the controller")
        waiting = cluster.popen("submit", "--parsable", "--timeout", seconds(60), "--wrap", "true", stdout=subprocess.PIPE, text=True)
        cluster.local("restart", "ctld")
        out, _ = waiting.communicate(timeout=120 * SLOWNESS)
        self.assertEqual(waiting.returncode, 0)
        self.assertEqual(int(out), first + 1)
        self.assertEqual(cluster.wait(int(out))["state"], "completed")
        cluster.ok("cancel", first)

    def test_wait_survives_a_controller_that_restarts(self):
        cluster = self.cluster
        waiting = cluster.popen("submit", "-W", "-o", "started", "--timeout", seconds(60), "--wrap", "echo up; while ! test -e go; do sleep 0.1; done; exit 5", stdout=subprocess.DEVNULL)
        cluster.wait_file("started")
        cluster.local("restart", "ctld")
        open(os.path.join(cluster.work, "go"), "w").close()
        self.assertEqual(waiting.wait(timeout=120 * SLOWNESS), 5)


if __name__ == "__main__":
    unittest.main()
