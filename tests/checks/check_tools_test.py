"""The checks of the tree are tried on made-up trees: a check that cannot fail would be worth nothing."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def load(tool):
    loader = importlib.machinery.SourceFileLoader(tool, os.path.join(ROOT, "tools", tool))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(tool, loader))
    loader.exec_module(module)
    return module


TOOLS = {tool: load(tool) for tool in ("check_layers", "check_purity")}


class MadeUpTree(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="muster-checks-")
        self.addCleanup(self.folder.cleanup)

    def write(self, path, *lines):
        full = os.path.join(self.folder.name, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def refused(self, tool, *places):
        """The tool names exactly these file:line places."""
        problems, _ = TOOLS[tool].check(self.folder.name)
        named = [":".join(problem.split(":")[:2]) for problem in problems]
        self.assertEqual(sorted(named), sorted(places), problems)
        return "\n".join(problems)

    def accepted(self, tool):
        problems, _ = TOOLS[tool].check(self.folder.name)
        self.assertEqual(problems, [])


class Programs(MadeUpTree):
    def test_they_fail_with_the_place_and_pass_without(self):
        for tool, line in (("check_layers", "#include <uv.h>"), ("check_purity", "#include <thread>")):
            with self.subTest(tool=tool):
                command = [sys.executable, os.path.join(ROOT, "tools", tool), "--root", self.folder.name]
                self.write("core/sched/bad.cc", "", line)
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn("core/sched/bad.cc:2: ", done.stdout)
                self.write("core/sched/bad.cc", "")
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Layers(MadeUpTree):
    def setUp(self):
        super().setUp()
        self.write("lib/base/result.h", "#pragma once")
        self.write("lib/model/job.h", "#pragma once", '#include "lib/base/result.h"')
        self.write("lib/io/socket.h", "#pragma once", "#include <string>")
        self.write("core/sched/order.h", "#pragma once", '#include "lib/model/job.h"')
        self.write("core/agent/task.h", "#pragma once")

    def test_a_good_tree_passes(self):
        self.write("core/engine/decide.cc", '#include "core/sched/order.h"', "#include <vector>")
        self.write("lib/io/socket.cc", '#include "lib/io/socket.h"', "#include <zmq.h>", "#include <spdlog/spdlog.h>")
        self.write("ctld/main.cc", '#include "lib/io/socket.h"', '#include "core/sched/order.h"', "#include <fmt/core.h>")
        self.write("ctld/store.cc", "#include <sqlite3.h>")
        self.write("tests/unit/a_test.cc", "#include <gtest/gtest.h>", '#include "ctld/loop.h"')
        self.write("ctld/loop.h", "#pragma once")
        self.accepted("check_layers")

    def test_base_may_not_include_model(self):
        self.write("lib/base/bad.cc", "", '#include "lib/model/job.h"')
        self.refused("check_layers", "lib/base/bad.cc:2")

    def test_core_may_not_include_io_config_or_wire(self):
        self.write("lib/wire/codec.h", "#pragma once")
        self.write("lib/config/config.h", "#pragma once")
        self.write("core/sched/bad.cc", '#include "lib/io/socket.h"', '#include "lib/wire/codec.h"',
                   '#include "lib/config/config.h"')
        self.refused("check_layers", "core/sched/bad.cc:1", "core/sched/bad.cc:2", "core/sched/bad.cc:3")

    def test_the_scheduler_may_not_include_the_engine(self):
        self.write("core/engine/state.h", "#pragma once")
        self.write("core/sched/bad.h", '#include "core/engine/state.h"')
        output = self.refused("check_layers", "core/sched/bad.h:1")
        self.assertIn("core/topo", output)

    def test_no_daemon_includes_another_and_the_cli_no_core(self):
        self.write("ctld/loop.h", "#pragma once")
        self.write("noded/bad.cc", '#include "ctld/loop.h"', '#include "core/sched/order.h"')
        self.write("cli/bad.cc", '#include "core/sched/order.h"')
        self.refused("check_layers", "noded/bad.cc:1", "noded/bad.cc:2", "cli/bad.cc:1")

    def test_nothing_includes_tests(self):
        self.write("tests/support/builder.h", "#pragma once")
        self.write("sim/bad.cc", '#include "tests/support/builder.h"')
        self.refused("check_layers", "sim/bad.cc:1")

    def test_third_party_headers_stay_at_home(self):
        self.write("ctld/bad.cc", "#include <zmq.h>", "#include <uv.h>", "#include <sqlite3.h>")
        self.write("core/sched/bad.cc", "#include <fmt/format.h>")
        self.write("noded/bad.cc", "#include <hwloc.h>", "#include <google/protobuf/message.h>")
        self.refused("check_layers", "ctld/bad.cc:1", "ctld/bad.cc:2", "ctld/bad.cc:3", "core/sched/bad.cc:1",
                     "noded/bad.cc:1", "noded/bad.cc:2")

    def test_messages_are_for_the_cc_files_of_shells(self):
        self.write("ctld/good.cc", '#include "lib/wire/muster.pb.h"')
        self.accepted("check_layers")
        self.write("ctld/bad.h", '#include "lib/wire/muster.pb.h"')
        self.write("core/sched/bad.cc", '#include "lib/wire/muster.pb.h"')
        self.refused("check_layers", "ctld/bad.h:1", "core/sched/bad.cc:1")

    def test_a_header_may_not_carry_a_third_party_header_out(self):
        self.write("lib/io/inner.h", "#include <uv.h>")
        self.write("lib/io/loop.h", '#include "lib/io/inner.h"')
        self.write("lib/io/loop.cc", '#include "lib/io/loop.h"')
        self.write("ctld/bad.cc", '#include "lib/io/loop.h"')
        self.refused("check_layers", "ctld/bad.cc:1")

    def test_includes_are_written_from_the_root(self):
        self.write("core/sched/bad.cc", '#include "order.h"')
        self.refused("check_layers", "core/sched/bad.cc:1")

    def test_comments_are_not_includes(self):
        self.write("core/sched/good.cc", '// #include "lib/io/socket.h"', "/*", "#include <zmq.h>", "*/")
        self.accepted("check_layers")


class Purity(MadeUpTree):
    def line_is_refused(self, line, path="core/sched/bad.cc"):
        self.write(path, "// one", line, "// three")
        self.refused("check_purity", f"{path}:2")
        os.remove(os.path.join(self.folder.name, path))

    def line_is_accepted(self, line, path="core/sched/good.cc"):
        self.write(path, line)
        self.accepted("check_purity")

    def test_the_outside_world_is_refused(self):
        for line in (
            "auto t = std::chrono::steady_clock::now();",
            "auto t = time(nullptr);",
            "auto t = std::time(nullptr);",
            "int r = rand();",
            "std::mt19937_64 generator;",
            "#include <thread>",
            "#include <mutex>",
            "#include <iostream>",
            "#include <fstream>",
            "#include <random>",
            "#include <chrono>",
            "#include <unistd.h>",
            "#include <cmath>",
            'printf("x");',
            'std::fprintf(stderr, "x");',
            'std::cerr << "x";',
            'const char* home = getenv("HOME");',
            "std::atomic<int> n;",
            "thread_local int n;",
            "std::exit(1);",
        ):
            with self.subTest(line=line):
                self.line_is_refused(line)

    def test_floating_point_is_refused(self):
        for line in ("double share;", "float f(long x);", "auto x = 1.5;", "auto x = 1e9;", "auto x = .5f;", "auto x = 2.;",
                     "auto x = 1'000.25;"):
            with self.subTest(line=line):
                self.line_is_refused(line)
                self.line_is_refused(line, "lib/model/bad.h")

    def test_what_depends_on_a_build_or_an_address_is_refused(self):
        for line in ("std::unordered_map<int, int> m;", "#include <unordered_set>", "std::map<const Job*, int> m;",
                     "std::set<Node*> s;", "auto a = reinterpret_cast<long>(p);"):
            with self.subTest(line=line):
                self.line_is_refused(line)

    def test_what_only_looks_alike_is_accepted(self):
        for line in (
            "// at 1.5 times the time(s) of std::chrono",
            "/* double */ int x = 0;",
            'auto s = "printf(1.5) rand()";',
            "auto n = 1'000'000;",
            "auto n = 0x1e5;",
            "auto t = job.submit_time();",
            "auto t = clock.time();",
            "int x = a.b; f(v...);",
            'auto r = R"(double 1.5)";',
            "#include <algorithm>",
            "char c = '\"'; int doubled = 2;",
            "std::map<int, const Job*> by_id;",
        ):
            with self.subTest(line=line):
                self.line_is_accepted(line)

    def test_an_excuse_needs_its_kind_and_a_reason(self):
        use = "std::unordered_map<int, int> m;"
        self.line_is_accepted(use + "  // purity: unordered, only looked up")
        self.write("core/sched/good.cc", "// purity: unordered, only looked up", use)
        self.accepted("check_purity")
        self.line_is_refused(use + "  // purity: unordered,")
        self.line_is_refused(use + "  // purity: clock, only looked up")

    def test_shells_may_do_what_the_core_may_not(self):
        self.line_is_accepted("#include <thread>", "ctld/main.cc")


if __name__ == "__main__":
    unittest.main()
