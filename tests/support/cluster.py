"""A cluster of pretended nodes for integration tests: `muster local` in a folder of its own, stopped at the end.

    class Submission(ClusterTest):
        nodes = 2                       # and topology, settings, start_args where a test needs them

        def test_prints_the_id(self):
            job = self.cluster.submit("--wrap", "true")
            self.assertEqual(self.cluster.wait(job)["state"], "completed")

Only the standard library. The programs are those of MUSTER_BUILD_DIR (set by ctest; build/release otherwise). Nothing
sleeps to wait for an event: until() polls a condition with a deadline.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE_DIR = os.environ.get("MUSTER_SOURCE_DIR", _ROOT)
BUILD_DIR = os.environ.get("MUSTER_BUILD_DIR", os.path.join(SOURCE_DIR, "build", "release"))
BIN = os.path.join(BUILD_DIR, "bin")
MUSTER = os.path.join(BIN, "muster")
SLURM_BIN = os.path.join(BUILD_DIR, "libexec", "muster", "slurm")
# Sanitizers make everything several times slower. Every time in a test that something must be done within is multiplied
# by this, also those that daemons and commands are told.
SLOWNESS = 5 if os.environ.get("MUSTER_SANITIZE") else 1
TERMINAL = {"completed", "failed", "cancelled", "timeout", "out_of_memory", "node_failed", "preempted", "deadline"}


def until(condition, timeout=30.0, what="the condition", pause=0.02):
    """Polls until condition() is true and returns its value; fails after the deadline."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError("%s did not come true within %g s (last value: %r)" % (what, timeout * SLOWNESS, value))
        time.sleep(pause)


def seconds(number):
    """A time for an option or a setting within which something must be done."""
    return "%gs" % (number * SLOWNESS)


def clean_environment():
    """The caller's environment without what would make a command talk to another cluster or believe it is in a job."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MUSTER_", "SLURM", "XDG_RUNTIME_DIR", "COLUMNS"))}


def patient(args):
    """`muster local` waits for its daemons as long as its --timeout says."""
    args = [str(a) for a in args]
    waits = args[:1] == ["local"] and args[1:2] in (["start"], ["add"], ["restart"]) and SLOWNESS != 1
    return args + ["--timeout", seconds(20)] if waits else args


class CommandFailed(AssertionError):
    pass


class Result:
    def __init__(self, args, completed):
        self.args = args
        self.code = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr

    def __repr__(self):
        return "%s -> %d\nstdout: %s\nstderr: %s" % (" ".join(self.args), self.code, self.out, self.err)


class Cluster:
    """start() and stop() once each; everything it writes lies below .dir, jobs run in .work."""

    def __init__(self, nodes=1, topology=None, settings=(), start_args=()):
        self.nodes = nodes
        self.topology = [] if topology is None else ([topology] if isinstance(topology, str) else list(topology))
        # The time in which a command must reach the controller, unless it says otherwise.
        self.settings = list(settings) if SLOWNESS == 1 else ["controller.client_timeout=" + seconds(10), *settings]
        self.start_args = list(start_args)
        self.dir = tempfile.mkdtemp(prefix="muster-it-", dir="/tmp")
        self.work = os.path.join(self.dir, "work")
        os.mkdir(self.work)
        self.local_dir = os.path.join(self.dir, "c")
        self.env = clean_environment()
        self.running = False

    # -- life

    def start(self):
        args = ["local", "start", "--nodes", str(self.nodes), "--dir", self.local_dir]
        for topology in self.topology:
            args += ["--topology", topology]
        for setting in self.settings:
            args += ["--set", setting]
        result = self.run(*args, *self.start_args, timeout=60)
        if result.code != 0:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise CommandFailed("the cluster did not start: %r" % result)
        self.running = True
        self.config = os.path.join(self.local_dir, "muster.toml")
        self.env["MUSTER_CONFIG"] = self.config
        return self

    def stop(self):
        result = self.run("local", "stop", "--dir", self.local_dir, timeout=60)
        self.running = False
        if result.code != 0:
            raise CommandFailed("the cluster did not stop: %r" % result)

    def close(self):
        if self.running:
            self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self):
        """The ends of the daemons' logs, for messages of failed tests."""
        text = ""
        folder = os.path.join(self.local_dir, "log")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            with open(os.path.join(folder, name), errors="replace") as log:
                text += "== %s\n%s" % (name, "".join(log.readlines()[-30:]))
        return text

    # -- commands

    def run(self, *args, timeout=60, stdin=None, cwd=None, env=None, program=MUSTER, text=True):
        """Runs `muster ARGS` to its end, whatever its exit status."""
        environment = dict(self.env)
        environment.update(env or {})
        args = patient(args)
        completed = subprocess.run([program] + args, input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout * SLOWNESS, text=text,
                                   cwd=cwd or self.work, env=environment)
        return Result([os.path.basename(program)] + args, completed)

    def ok(self, *args, **kwargs):
        """As run, but a failure is the test's failure; returns standard output."""
        result = self.run(*args, **kwargs)
        if result.code != 0:
            raise CommandFailed("%r\n%s" % (result, self.logs()))
        return result.out

    def json(self, *args, **kwargs):
        return json.loads(self.ok(*args, "--json", **kwargs))

    def popen(self, *args, **kwargs):
        """A command in the background; the test ends it."""
        environment = dict(self.env)
        environment.update(kwargs.pop("env", {}))
        kwargs.setdefault("cwd", self.work)
        return subprocess.Popen([MUSTER] + patient(args), env=environment, **kwargs)

    def submit(self, *args, **kwargs):
        """The id of the submitted job, as a number."""
        return int(self.ok("submit", "--parsable", *args, **kwargs))

    def script(self, name, text):
        path = os.path.join(self.work, name)
        with open(path, "w") as script:
            script.write(text)
        os.chmod(path, 0o755)
        return path

    def read(self, name):
        with open(os.path.join(self.work, name), errors="replace") as file:
            return file.read()

    def exists(self, name):
        return os.path.exists(os.path.join(self.work, name))

    # -- jobs

    def jobs(self, ref):
        """All records of an id: one, or the tasks of an array."""
        return self.json("show", "job", ref)["jobs"]

    def job(self, ref):
        return self.jobs(ref)[0]

    def wait(self, ref, timeout=60):
        """The job when it has ended; of an array the first record when all have."""
        return self.wait_all(ref, timeout)[0]

    def wait_all(self, ref, timeout=60):
        def ended():
            jobs = self.jobs(ref)
            return jobs if all(job["state"] in TERMINAL for job in jobs) else None

        try:
            return until(ended, timeout, "the end of job %s" % ref)
        except AssertionError as failure:
            raise AssertionError("%s\n%r\n%s" % (failure, self.jobs(ref), self.logs())) from None

    def wait_state(self, ref, state, timeout=30):
        def reached():
            job = self.job(ref)
            if job["state"] in TERMINAL and job["state"] != state:
                raise AssertionError("job %s is %s (%s) and will not be %s\n%s" %
                                     (ref, job["state"], job.get("reason_detail"), state, self.logs()))
            return job if job["state"] == state else None

        return until(reached, timeout, "state %s of job %s" % (state, ref))

    def wait_file(self, name, timeout=30):
        """The content of a file of .work once it is there and not empty."""
        return until(lambda: self.exists(name) and self.read(name), timeout, "file %s" % name)

    # -- daemons

    def daemons(self):
        return {d["name"]: d for d in self.json("local", "status", "--dir", self.local_dir)["daemons"]}

    def pid(self, daemon):
        return self.daemons()[daemon]["pid"]

    def local(self, verb, *args):
        return self.ok("local", verb, *args, "--dir", self.local_dir)


class ClusterTest(unittest.TestCase):
    """One cluster for all tests of the class."""

    nodes = 1
    topology = None
    settings = ()
    start_args = ()

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.nodes, cls.topology, cls.settings, cls.start_args)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()


def processes_of(path):
    """The pids whose command line or working directory names the path: what a cluster left behind."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open("/proc/%s/cmdline" % entry, "rb") as cmdline:
                words = cmdline.read().decode(errors="replace")
            cwd = os.readlink("/proc/%s/cwd" % entry)
        except OSError:
            continue
        if path in words or cwd.startswith(path):
            found.append(int(entry))
    return found
