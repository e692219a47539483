"""The scripts that the README names refuse what they do not understand, and bootstrap is silent when nothing is missing."""

import os
import shutil
import subprocess
import tempfile
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def run(*command):
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)


class Scripts(unittest.TestCase):
    def test_shell_syntax(self):
        for folder in ("script", ".ci", "examples", "examples/heat"):
            for name in sorted(os.listdir(os.path.join(ROOT, folder))):
                path = os.path.join(ROOT, folder, name)
                if not os.path.isfile(path):
                    continue
                with open(path, encoding="utf-8", errors="replace") as file:
                    first = file.readline().strip()
                if not first.startswith("#!") or not first.endswith("sh"):
                    continue
                with self.subTest(path=path):
                    done = run(first[2:].split()[-1] if "env" in first else first[2:], "-n", path)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertTrue(os.access(path, os.X_OK), "not executable")

    @unittest.skipIf(shutil.which("nvidia-smi"), "this machine may have a GPU")
    def test_check_gpu_says_that_there_is_none(self):
        with tempfile.TemporaryDirectory() as build:
            missing = run(os.path.join(ROOT, "script", "check-gpu"), "--build", build)
            self.assertEqual(missing.returncode, 1)
            self.assertIn("run script/build", missing.stderr)
            os.mkdir(os.path.join(build, "bin"))
            shutil.copy("/bin/true", os.path.join(build, "bin", "muster-noded"))
            none = run(os.path.join(ROOT, "script", "check-gpu"), "--build", build)
            self.assertEqual((none.returncode, none.stderr), (0, ""))
            self.assertIn("There is no NVIDIA GPU on this machine", none.stdout)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not there")
    def test_service_units_are_valid(self):
        folder = os.path.join(ROOT, "conf", "systemd")
        with tempfile.TemporaryDirectory() as directory:
            for name in sorted(os.listdir(folder)):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    text = file.read().replace("@CMAKE_INSTALL_FULL_BINDIR@", directory)
                self.assertNotIn("@", text)
                program = os.path.join(directory, name.split(".")[0])
                shutil.copy("/bin/true", program)  # a unit is valid only where its program is
                with open(os.path.join(directory, name[:-len(".in")]), "w", encoding="utf-8") as file:
                    file.write(text)
                with self.subTest(unit=name):
                    done = run("systemd-analyze", "verify", file.name)
                    # What it says of other units is not ours.
                    unit = os.path.basename(file.name)
                    self.assertEqual([line for line in done.stderr.splitlines() if unit in line], [])

    def test_bootstrap_lists_what_it_installs(self):
        done = run(os.path.join(ROOT, "script/bootstrap"), "--list")
        self.assertEqual(done.returncode, 0, done.stderr)
        packages = done.stdout.split()
        self.assertIn("libzmq3-dev", packages)
        self.assertEqual(len(packages), len(set(packages)))

    def test_wrong_arguments_are_refused_with_what_to_do(self):
        for command, expected in ((("script/bootstrap", "--frob"), "--list"), (("script/build", "fast"), "release"),
                                  (("script/test", "--preset"), "release"), (("script/format", "x"), "--check")):
            with self.subTest(command=command):
                done = run(os.path.join(ROOT, command[0]), *command[1:])
                self.assertEqual(done.returncode, 1)
                self.assertIn(expected, done.stderr)

    def test_python_files_compile(self):
        for folder in ("tools", "tests"):
            for directory, _, files in os.walk(os.path.join(ROOT, folder)):
                for name in files:
                    path = os.path.join(directory, name)
                    if name.endswith(".py") or (folder == "tools" and name.startswith("check_")):
                        with self.subTest(path=path), open(path, encoding="utf-8") as file:
                            compile(file.read(), path, "exec")


if __name__ == "__main__":
    unittest.main()
