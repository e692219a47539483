"""The pages keep their promises: links lead somewhere, folders that are named exist, every decision is in the index."""

import os
import re
import subprocess
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def pages():
    for directory, names, files in os.walk(ROOT):
        names[:] = [n for n in names if not n.startswith(".") and n != "build"]
        for name in files:
            if name.endswith(".md"):
                yield os.path.join(directory, name)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


class Docs(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for path in pages():
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read(path)):
                if "://" in target:
                    continue
                with self.subTest(page=os.path.relpath(path, ROOT), link=target):
                    self.assertTrue(os.path.exists(os.path.join(os.path.dirname(path), target)))

    def test_the_folders_of_the_readme_exist_and_are_all_there(self):
        table = read("README.md").split("## What is where")[1].split("## Start here")[0]
        named = set(re.findall(r"`([a-z]+)/`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
        for folder in named:
            self.assertTrue(os.path.isdir(os.path.join(ROOT, folder)), folder)
        listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            there = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line and not line.startswith(".")}
            self.assertEqual(there - named, set(), "folders that README.md does not explain")

    def test_every_decision_is_in_the_index(self):
        index = read("docs/adr/README.md")
        for name in sorted(os.listdir(os.path.join(ROOT, "docs/adr"))):
            if name != "README.md":
                self.assertIn(f"({name})", index)

    def test_scripts_that_the_readme_names_exist(self):
        for page in ("README.md", "CONTRIBUTING.md"):
            for name in set(re.findall(r"script/([a-z]+)", read(page))):
                self.assertTrue(os.access(os.path.join(ROOT, "script", name), os.X_OK), f"{page}: script/{name}")


if __name__ == "__main__":
    unittest.main()
