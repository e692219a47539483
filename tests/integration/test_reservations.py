#!/usr/bin/env python3
"""Reservations and licences from the outside: windows that begin and end wake the planner, a restart keeps them, and what
the commands print and refuse."""

import getpass
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from cluster import SLOWNESS, ClusterTest, seconds, until


class Reservations(ClusterTest):
    nodes = 2
    topology = "package:1 core:4 pu:1"
    settings = ("scheduling.licenses=seat:1,dongle:4",)

    def tearDown(self):
        for job in self.cluster.json("queue")["jobs"]:
            self.cluster.run("cancel", job["id"])
        until(lambda: not self.cluster.json("queue")["jobs"], what="the end of all jobs")
        for one in self.cluster.json("show", "reservation")["reservations"]:
            self.cluster.ok("reservation", "delete", one["name"])

    def create(self, name, *args):
        return self.cluster.ok("reservation", "create", name, "--users", getpass.getuser(), *args)

    def refused(self, code, *args, mentions):
        result = self.cluster.run(*args)
        self.assertEqual(result.code, code, result)
        self.assertEqual(result.out, "", result)
        self.assertEqual(result.err.count("\n"), 1, result)
        for word in mentions:
            self.assertIn(word, result.err)

    def show(self, name):
        return self.cluster.json("show", "reservation", name)["reservations"][0]

    def test_others_wait_until_the_window_is_over_and_members_run(self):
        self.create("now", "--start", "now", "--duration", seconds(8), "--nodes", "n1")
        self.assertEqual(self.show("now")["state"], "active")
        node = self.cluster.json("nodes", "n1")["nodes"][0]
        self.assertEqual((node["state"], node["reason"]), ("idle", "reserved: now"))
        other = self.cluster.submit("-w", "n1", "-t", "5s", "--wrap", "true")
        member = self.cluster.submit("--reservation", "now", "-t", "5s", "--wrap", "true")
        self.assertEqual(self.cluster.wait(member)["nodes"], ["n1"])
        waiting = self.cluster.job(other)
        self.assertEqual((waiting["state"], waiting["reason"]), ("pending", "Reservation"))
        self.assertIn("reservation now (open", waiting["reason_detail"])
        ends = self.show("now")["window_end"]
        self.assertEqual(waiting["estimated_start"], ends)
        ended = self.cluster.wait(other)
        self.assertEqual(ended["state"], "completed")
        self.assertGreaterEqual(ended["start_time"], ends)
        self.assertLess(ended["start_time"], ends + 10 * SLOWNESS)
        self.assertEqual(self.show("now")["state"], "ended")

    def test_a_member_starts_when_its_window_begins(self):
        self.create("soon", "--start", "now+" + seconds(4), "--duration", "30m", "--every", "1d", "--nodes", "1")
        job = self.cluster.submit("--reservation", "soon", "-t", "30m", "--wrap", "true")
        waiting = self.cluster.job(job)
        begins = self.show("soon")["window_start"]
        self.assertEqual((waiting["state"], waiting["reason"], waiting["reservation"]), ("pending", "Reservation", "soon"))
        self.assertEqual(waiting["estimated_start"], begins)
        self.assertEqual(self.show("soon")["jobs_pending"], 1)
        ended = self.cluster.wait(job)
        self.assertEqual(ended["state"], "completed")
        self.assertGreaterEqual(ended["start_time"], begins)

    def test_a_restart_of_the_controller_keeps_them(self):
        self.create("later", "--start", "now+2h", "--duration", "1h", "--every", "7d", "--nodes", "ALL", "--accounts", "physics")
        self.cluster.ok("reservation", "create", "repair", "--start", "now+5h", "--duration", "1h", "--nodes", "n2", "--maintenance")
        self.cluster.ok("reservation", "update", "later", "--duration", "2h", "--users=")
        before = self.cluster.json("show", "reservation")
        os.kill(self.cluster.pid("ctld"), signal.SIGKILL)
        self.cluster.local("restart", "ctld")
        self.assertEqual(self.cluster.json("show", "reservation"), before)
        later = self.show("later")
        self.assertEqual((later["state"], later["users"], later["accounts"]), ("waiting", [], ["physics"]))
        self.assertEqual((later["duration_s"], later["every_s"], later["nodes"]), (7200, 7 * 86400, ["n1", "n2"]))
        self.assertTrue(self.show("repair")["maintenance"])
        text = self.cluster.ok("show", "reservation")
        self.assertIn("Reservation", text)
        self.assertIn("repair", text)

    def test_why_offers_the_time_limit_that_ends_before_the_maintenance(self):
        self.cluster.ok("reservation", "create", "repair", "--start", "now+1h", "--duration", "1h", "--nodes", "ALL", "--maintenance")
        job = self.cluster.submit("-t", "2h", "--wrap", "true")
        why = self.cluster.json("why", job)
        self.assertEqual([b["kind"] for b in why["blockers"]], ["reservation"])
        self.assertEqual(sorted(why["blockers"][0]["nodes"]), ["n1", "n2"])
        self.assertEqual(why["planned_start"], self.show("repair")["window_end"])
        change = [c for c in why["changes"] if c["option"] == "--time"][0]
        self.assertEqual((change["value"], change["start"]), ("00:59:00", 0))
        short = self.cluster.submit("-t", change["value"], "--wrap", "true")
        self.assertEqual(self.cluster.wait(short)["state"], "completed")
        test = self.cluster.run("submit", "--test-only", "-t", "2h", "--wrap", "true", "--json")
        self.assertEqual(test.code, 0, test)

    def test_what_is_refused(self):
        self.create("later", "--start", "now+2h", "--duration", "1h", "--nodes", "n1")
        job = self.cluster.submit("--reservation", "later", "-t", "10m", "--wrap", "true")
        new = ("reservation", "create", "new")
        good = ("--start", "now+1h", "--duration", "1h", "--nodes", "n2", "--users", "ann")
        for code, args, mentions in (
                (2, ("reservation",), ["create|update|delete"]),
                (2, ("reservation", "creat", "x"), ["creat"]),
                (1, new + good + ("--nodes", "n3"), ["unknown node n3"]),
                (1, new + good + ("--start", "now-1h"), ["--start", "past"]),
                (1, new + good + ("--every", "30m"), ["--every", "--duration"]),
                (1, new + good[:-2], ["--users", "--maintenance"]),
                (1, new + good + ("--start", "now+150m", "--nodes", "n1"), ["n1", "reservation later"]),
                (1, ("reservation", "delete", "later"), ["job %d " % job, "--force"]),
                (1, ("reservation", "delete", "latr"), ["did you mean later?"]),
                (1, ("submit", "--reservation", "latr", "--wrap", "true"), ["did you mean later?"]),
                (1, ("submit", "--reservation", "later", "-t", "2h", "--wrap", "true"), ["--time", "01:00:00"]),
                (1, ("submit", "-L", "saet", "--wrap", "true"), ["--licenses", "did you mean seat?"]),
                (1, ("submit", "-L", "seat:2", "--wrap", "true"), ["--licenses", "the cluster has 1"]),
                (2, ("submit", "-L", "seat:x", "--wrap", "true"), ["--licenses"])):
            with self.subTest(args=args):
                self.refused(code, *args, mentions=mentions)
        deleted = self.cluster.run("reservation", "delete", "later", "--force")
        self.assertEqual(deleted.code, 0, deleted)
        self.assertIn("job %d now wait" % job, deleted.err)
        self.assertEqual(self.cluster.job(job)["reason"], "ReservationDeleted")

    def test_licences_are_held_from_start_to_end(self):
        first = self.cluster.submit("-L", "seat,dongle:2", "-t", "10m", "--wrap", "sleep 600")
        self.cluster.wait_state(first, "running")
        self.assertEqual(self.cluster.job(first)["licenses"], {"dongle": 2, "seat": 1})
        second = self.cluster.script("second.sh", "#!/bin/sh\n#SBATCH -L seat\ntrue\n")
        second = self.cluster.submit(second)
        waiting = self.cluster.job(second)
        self.assertEqual((waiting["state"], waiting["reason"]), ("pending", "Licenses"))
        self.assertIn("lacks 1 of licence seat (1 in all, 1 held", waiting["reason_detail"])
        self.assertEqual(self.cluster.json("show", "license", "dongle")["licenses"],
                         [{"name": "dongle", "total": 4, "used": 2, "free": 2}])
        os.kill(self.cluster.pid("ctld"), signal.SIGKILL)
        self.cluster.local("restart", "ctld")
        self.assertEqual(self.cluster.job(second)["state"], "pending")
        self.cluster.ok("cancel", first)
        self.assertEqual(self.cluster.wait(second)["state"], "completed")
        self.assertIn("seat", self.cluster.ok("show", "license"))


if __name__ == "__main__":
    unittest.main()
