"""A run with sanitizers fails for what they find, also in a program whose output and exit status nobody looks at."""

import os
import subprocess
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FAULTS = os.path.join(os.environ["MUSTER_BUILD_DIR"], "tests", "faults")
FOUND = {"address,undefined": {"overflow": "signed integer overflow", "use-after-free": "heap-use-after-free", "abort": "ABRT"},
         "thread": {"race": "data race", "abort": "ABRT"}}[os.environ["MUSTER_SANITIZE"]]


def unseen(fault, *options):
    return subprocess.run([os.path.join(ROOT, "tools", "with_sanitizers"), *options,
                           "sh", "-c", '"$0" "$1" >/dev/null 2>&1; exit 0', FAULTS, fault],
                          stderr=subprocess.PIPE, text=True, timeout=120, check=False)


class Sanitizers(unittest.TestCase):
    def test_what_they_find_fails_the_run(self):
        for fault, words in FOUND.items():
            with self.subTest(fault=fault):
                done = unseen(fault)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(words, done.stderr)

    def test_a_program_without_fault_passes(self):
        for options in ((), ("--leaks",)):
            done = unseen("nothing", *options)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    @unittest.skipUnless("overflow" in FOUND, "only AddressSanitizer looks for leaks")
    def test_leaks_are_looked_for_on_request(self):
        self.assertEqual(unseen("leak").returncode, 0)
        done = unseen("leak", "--leaks")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("detected memory leaks", done.stderr)


if __name__ == "__main__":
    unittest.main()
