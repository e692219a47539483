// The rows of the option table and of the command table. Order is that of --help.
#include "cli/options.h"

namespace muster::cli {
namespace {

using Id = OptionId;
using Arg = ArgKind;
using Kind = ValueKind;

constexpr std::uint32_t kListers = kQueue | kShow | kWhy | kNodes | kHistory;
constexpr std::uint32_t kRunners = kRun | kSrun;
// Jobs that write files, which those of alloc do not.
constexpr std::uint32_t kWriters = kSubmit | kRunners;
constexpr std::uint32_t kEverywhere = ~std::uint32_t{kNoCommand};
constexpr std::uint8_t kLaterScript = kLater | kScript;

// clang-format off
constexpr OptionInfo kOptions[] = {
  // What the job is.
  {Id::kJobName, "job-name", 'J', Arg::kRequired, Kind::kName, "NAME", "name of the job (default: the script's name)", kChangeable, kScript | kJobVariable},
  {Id::kNodes, "nodes", 'N', Arg::kRequired, Kind::kNodeRange, "MIN[-MAX]", "number of nodes", kChangeable, kScript},
  {Id::kNtasks, "ntasks", 'n', Arg::kRequired, Kind::kCount, "N", "number of tasks", kChangeable, kScript | kJobVariable},
  {Id::kNtasksPerNode, "ntasks-per-node", 0, Arg::kRequired, Kind::kCount, "N", "tasks on each node", kChangeable, kScript},
  {Id::kNtasksPerNode, "tasks-per-node", 0, Arg::kRequired, Kind::kCount, "N", "tasks on each node", kChangeable, kScript | kAlias},
  {Id::kCpusPerTask, "cpus-per-task", 'c', Arg::kRequired, Kind::kCount, "N", "CPUs (physical cores) for each task", kChangeable, kScript | kJobVariable},
  {Id::kMem, "mem", 0, Arg::kRequired, Kind::kMemory, "SIZE", "memory to set aside on each node (4G, 512M; MiB when bare); nothing limits the job to it yet", kChangeable, kScript},
  {Id::kMemPerCpu, "mem-per-cpu", 0, Arg::kRequired, Kind::kMemory, "SIZE", "memory for each CPU", kChangeable, kScript},
  {Id::kMemPerGpu, "mem-per-gpu", 0, Arg::kRequired, Kind::kMemory, "SIZE", "memory for each GPU", kChangeable, kScript},
  {Id::kGpus, "gpus", 'G', Arg::kRequired, Kind::kGpus, "N", "GPUs in total", kChangeable, kScript | kJobVariable},
  {Id::kGpusPerNode, "gpus-per-node", 0, Arg::kRequired, Kind::kGpus, "N", "GPUs on each node", kChangeable, kScript},
  {Id::kGpusPerTask, "gpus-per-task", 0, Arg::kRequired, Kind::kGpus, "N", "GPUs for each task", kChangeable, kScript},
  {Id::kGres, "gres", 0, Arg::kRequired, Kind::kGres, "gpu:N", "GPUs on each node, as Slurm writes it", kChangeable, kScript},
  {Id::kExclusive, "exclusive", 0, Arg::kOptional, Kind::kChoice, "yes|no", "whole nodes, shared with no other job; of a step in a job: as --exact, and its nodes with no step that has all of them", kChangeable, kScript},
  {Id::kTime, "time", 't', Arg::kRequired, Kind::kDuration, "TIME", "time limit: minutes, HH:MM:SS, D-HH:MM:SS, 90s, 2h", kChangeable, kScript},
  {Id::kTimeMin, "time-min", 0, Arg::kRequired, Kind::kDuration, "TIME", "the time limit may be shortened down to this to start sooner", kChangeable, kScript | kTakesNone},
  {Id::kDeadline, "deadline", 0, Arg::kRequired, Kind::kTime, "TIME", "give up when it cannot end by then, and stop it then (16:00, now+2h)", kChangeable, kScript | kTakesNone},
  {Id::kQueue, "queue", 'p', Arg::kRequired, Kind::kName, "QUEUE", "queue to wait in", kChangeable, kScript},
  {Id::kQueue, "partition", 0, Arg::kRequired, Kind::kName, "QUEUE", "queue to wait in", kChangeable, kScript | kAlias},
  {Id::kArray, "array", 'a', Arg::kRequired, Kind::kArray, "SPEC[%MAX]", "an array of jobs with these indices (0-9, 1,3,5-9:2), at most MAX at a time", kSubmit, kScript},
  {Id::kNice, "nice", 0, Arg::kOptional, Kind::kNice, "N", "lower the priority by N (default 100)", kChangeable, kScript},
  {Id::kHold, "hold", 'H', Arg::kNone, Kind::kFlag, "", "wait until released", kJobMakers, kScript},
  {Id::kDependency, "dependency", 'd', Arg::kRequired, Kind::kText, "LIST", "wait for other jobs: after:ID[+MINUTES], afterany:ID, afterok:ID:ID, afternotok:ID, aftercorr:ID, singleton; joined by , (all) or ? (any)", kChangeable, kScript | kTakesNone},
  {Id::kBegin, "begin", 'b', Arg::kRequired, Kind::kTime, "TIME", "start no earlier (16:00, 2030-01-31T08:00, now+1h)", kChangeable, kScript | kTakesNone},
  {Id::kNodelist, "nodelist", 'w', Arg::kRequired, Kind::kNodeList, "NODES", "these nodes must be among the job's (n[1-4,7])", kChangeable, kScript | kJobVariable | kTakesNone},
  {Id::kExclude, "exclude", 'x', Arg::kRequired, Kind::kNodeList, "NODES", "nodes that must not be used", kChangeable, kScript | kTakesNone},
  {Id::kConstraint, "constraint", 'C', Arg::kRequired, Kind::kText, "FEATURES", "features that nodes must have: a&b, a|(b&c), [a|b] (all nodes the same one), a*2&b*4 (so many of the nodes)", kChangeable, kScript | kTakesNone},
  {Id::kSwitches, "switches", 0, Arg::kRequired, Kind::kText, "N[@TIME]", "at most N leaf switches; after waiting so long any number", kChangeable, kScript | kTakesNone},
  {Id::kSegment, "segment", 0, Arg::kRequired, Kind::kCount, "N", "the nodes come in groups of N, each inside one block of the network", kChangeable, kScript | kTakesNone},
  {Id::kAccount, "account", 'A', Arg::kRequired, Kind::kName, "NAME", "account to charge (default: the user's own)", kChangeable, kScript | kTakesNone},
  {Id::kQos, "qos", 'q', Arg::kRequired, Kind::kName, "NAME", "quality of service (default: the account's)", kChangeable, kScript | kTakesNone},
  {Id::kReservation, "reservation", 0, Arg::kRequired, Kind::kName, "NAME", "run in this reservation", kChangeable, kScript | kTakesNone},
  {Id::kLicenses, "licenses", 'L', Arg::kRequired, Kind::kLicenses, "NAME[:N],...", "licences to hold while it runs", kChangeable, kScript | kTakesNone},
  {Id::kComment, "comment", 0, Arg::kRequired, Kind::kText, "TEXT", "a remark kept with the job", kChangeable, kScript},
  {Id::kChdir, "chdir", 'D', Arg::kRequired, Kind::kPath, "DIR", "working directory (default: where it is submitted)", kJobMakers, kScript},
  {Id::kOutput, "output", 'o', Arg::kRequired, Kind::kPath, "FILE", "standard output; %j %A %a %x %u %N %n %t %% are filled in", kWriters | kUpdate, kScript},
  {Id::kError, "error", 'e', Arg::kRequired, Kind::kPath, "FILE", "standard error (default: with standard output)", kWriters | kUpdate, kScript},
  {Id::kInput, "input", 'i', Arg::kRequired, Kind::kPath, "FILE", "standard input (submit: default nothing; run: a file, a rank that gets the caller's, all or none, default 0)", kWriters, kScript},
  {Id::kOpenMode, "open-mode", 0, Arg::kRequired, Kind::kChoice, "truncate|append", "what to do with output files that exist", kWriters, kScript},
  {Id::kExport, "export", 0, Arg::kRequired, Kind::kExport, "LIST", "environment to pass: ALL (default), NONE, or NAME,NAME=VALUE,...", kWriters, kScript},
  {Id::kSignalBefore, "signal", 0, Arg::kRequired, Kind::kSignalBefore, "[B:]SIGNAL[@SECONDS]", "send this signal to the tasks of the steps, with B: to the batch shell alone, so long before the time limit (default 60) and when preempted with a warning", kJobMakers, kScript},
  {Id::kRequeue, "requeue", 0, Arg::kNone, Kind::kFlag, "", "when preempted, go back to the queue and start again (default: as configured)", kWriters | kUpdate, kScript},
  {Id::kNoRequeue, "no-requeue", 0, Arg::kNone, Kind::kFlag, "", "never start again: when preempted, end", kWriters | kUpdate, kScript},
  {Id::kMailUser, "mail-user", 0, Arg::kRequired, Kind::kText, "ADDRESS", "accepted, no mail is sent yet", kJobMakers, kScript | kIgnored},
  {Id::kMailType, "mail-type", 0, Arg::kRequired, Kind::kText, "TYPES", "accepted, no mail is sent yet", kJobMakers, kScript | kIgnored},

  {Id::kLocality, "locality", 0, Arg::kRequired, Kind::kText, "none|prefer|require", "whether tasks get CPUs near their GPUs: not cared for, as near as they are free (default), or not started elsewhere", kChangeable, kScript},
  {Id::kCpuBind, "cpu-bind", 0, Arg::kRequired, Kind::kText, "HOW", "what tasks are bound to: none, threads, cores, l3, numa, sockets, rank, map_cpu:LIST, mask_cpu:LIST (default cores)", kJobMakers, kScript},
  {Id::kGpuBind, "gpu-bind", 0, Arg::kRequired, Kind::kText, "HOW", "which GPUs tasks see: none (all of the job's), closest, per_task:N, single:N, map_gpu:LIST, mask_gpu:LIST (default: their own with --gpus-per-task, else all)", kJobMakers, kScript},
  {Id::kDistribution, "distribution", 'm', Arg::kRequired, Kind::kText, "HOW", "order of tasks over nodes and over the packages of each: block, cyclic, plane=N, or two of them as NODES:PACKAGES", kJobMakers, kScript},
  {Id::kThreadsPerCore, "threads-per-core", 0, Arg::kRequired, Kind::kCount, "N", "hardware threads to use of each core (default all)", kJobMakers, kScript},

  // Of submit.
  {Id::kWrap, "wrap", 0, Arg::kRequired, Kind::kText, "COMMAND", "run this shell command in place of a script", kSubmit, kPlain},
  {Id::kWait, "wait", 'W', Arg::kNone, Kind::kFlag, "", "return when the job has ended, with its exit status", kSubmit, kScript},
  {Id::kParsable, "parsable", 0, Arg::kNone, Kind::kFlag, "", "print the job's id only", kSubmit, kVariable},
  {Id::kTestOnly, "test-only", 0, Arg::kNone, Kind::kFlag, "", "check whether it would be accepted; submit nothing", kJobMakers, kPlain},

  // Of alloc.
  {Id::kNoShell, "no-shell", 0, Arg::kNone, Kind::kFlag, "", "return when the nodes are there; the job goes on until it is cancelled or its time is over, and `muster run --jobid` starts steps in it", kAlloc, kPlain},

  // Of run and srun.
  {Id::kLabel, "label", 'l', Arg::kNone, Kind::kFlag, "", "begin each line with the task's rank", kRunners, kVariable},
  {Id::kKillOnBadExit, "kill-on-bad-exit", 'K', Arg::kOptional, Kind::kChoice, "0|1", "end the step when a task fails", kRunners, kVariable},
  {Id::kPty, "pty", 0, Arg::kNone, Kind::kFlag, "", "a terminal for rank 0", kRunners, kLater},
  {Id::kJobId, "jobid", 0, Arg::kRequired, Kind::kCount, "ID", "the job to run in (default: the one around)", kRunners, kPlain},
  {Id::kMpi, "mpi", 0, Arg::kRequired, Kind::kChoice, "none|list", "how tasks learn of each other; pmix and pmi2 are not there yet", kRunners, kVariable},
  {Id::kUnbuffered, "unbuffered", 'u', Arg::kNone, Kind::kFlag, "", "pass output on as it comes, also parts of lines of several tasks", kRunners, kVariable},
  {Id::kQuiet, "quiet", 'Q', Arg::kNone, Kind::kFlag, "", "no messages but errors", kRunners | kSubmit | kAlloc, kPlain},
  {Id::kVerbose, "verbose", 'v', Arg::kNone, Kind::kFlag, "", "more messages; repeat for still more", kRunners, kRepeats},
  {Id::kExact, "exact", 0, Arg::kNone, Kind::kFlag, "", "in a job: only the cores and GPUs that the step asks for, none of which another such step has; it waits until there are as many", kRunners, kPlain},
  {Id::kOverlap, "overlap", 0, Arg::kNone, Kind::kFlag, "", "in a job: share everything with all steps, exclusive ones too", kRunners, kPlain},
  {Id::kWhole, "whole", 0, Arg::kNone, Kind::kFlag, "", "the default", kSrun, kIgnored},
  {Id::kExternalLauncher, "external-launcher", 0, Arg::kNone, Kind::kFlag, "", "the step starts the daemons of another launcher", kSrun, kIgnored},
  {Id::kNoKill, "no-kill", 'k', Arg::kOptional, Kind::kText, "off", "accepted", kSrun, kIgnored},
  {Id::kImmediate, "immediate", 'I', Arg::kOptional, Kind::kText, "SECONDS", "accepted only with the name srun", kSrun, kLater},
  {Id::kSlurmWait, "wait", 'W', Arg::kRequired, Kind::kCountOrZero, "SECONDS", "end the other tasks so long after the first has ended (0, the default: never)", kRunners, kPlain},
  {Id::kDisableStatus, "disable-status", 'X', Arg::kNone, Kind::kFlag, "", "accepted", kSrun, kIgnored},
  {Id::kMultiProg, "multi-prog", 0, Arg::kNone, Kind::kFlag, "", "COMMAND is a file that says which tasks run what: lines of tasks (0, 1-3, 1,5-7 or *), program and arguments, with %t for the task and %o for its place in the line", kRunners, kPlain},
  {Id::kRelative, "relative", 'r', Arg::kRequired, Kind::kCountOrZero, "N", "in a job: begin at its node N, counted from 0", kRunners, kPlain},
  {Id::kClusters, "clusters", 'M', Arg::kRequired, Kind::kText, "NAMES", "accepted", kSrun, kIgnored},
  {Id::kOversubscribe, "oversubscribe", 's', Arg::kNone, Kind::kFlag, "", "accepted", kSrun, kIgnored},
  {Id::kOvercommit, "overcommit", 'O', Arg::kNone, Kind::kFlag, "", "accepted", kSrun, kIgnored},

  // Filters and views.
  {Id::kUser, "user", 'u', Arg::kRequired, Kind::kName, "USER", "only jobs of this user", kQueue | kHistory | kCancel | kShow, kPlain},
  {Id::kMe, "me", 0, Arg::kNone, Kind::kFlag, "", "only the caller's jobs", kQueue | kHistory | kCancel, kPlain},
  {Id::kQueue, "queue", 'p', Arg::kRequired, Kind::kName, "QUEUE", "only jobs of this queue", kQueue | kCancel | kShow, kPlain},
  {Id::kQueue, "partition", 0, Arg::kRequired, Kind::kName, "QUEUE", "only jobs of this queue", kQueue | kCancel | kShow, kAlias},
  {Id::kStates, "state", 't', Arg::kRequired, Kind::kStates, "STATE,...", "only jobs in these states", kQueue | kHistory | kCancel, kPlain},
  {Id::kStates, "states", 0, Arg::kRequired, Kind::kStates, "STATE,...", "only jobs in these states", kQueue | kHistory | kCancel, kAlias},
  {Id::kName, "name", 'n', Arg::kRequired, Kind::kName, "NAME", "only jobs of this name", kQueue | kCancel, kPlain},
  {Id::kJobs, "jobs", 'j', Arg::kRequired, Kind::kJobIds, "ID,...", "only these jobs", kQueue | kHistory, kRepeats},
  {Id::kWatch, "watch", 0, Arg::kOptional, Kind::kSeconds, "SECONDS", "show again every 2 seconds (or SECONDS) until interrupted", kQueue, kPlain},
  {Id::kSignal, "signal", 's', Arg::kRequired, Kind::kSignal, "SIGNAL", "send this signal to running jobs in place of ending them", kCancel, kPlain},
  {Id::kSince, "since", 'S', Arg::kRequired, Kind::kTime, "TIME", "only jobs that ended at or after this time", kHistory, kPlain},
  {Id::kUntil, "until", 'E', Arg::kRequired, Kind::kTime, "TIME", "only jobs that ended before this time", kHistory, kPlain},
  {Id::kLimit, "limit", 0, Arg::kRequired, Kind::kCount, "N", "at most the N newest jobs", kHistory, kPlain},
  {Id::kReason, "reason", 0, Arg::kRequired, Kind::kText, "TEXT", "why, for those who ask later", kDrain, kPlain},
  {Id::kFollow, "follow", 'f', Arg::kNone, Kind::kFlag, "", "go on until the job has ended", kLogs, kPlain},
  {Id::kErrFile, "err", 0, Arg::kNone, Kind::kFlag, "", "standard error in place of standard output", kLogs, kPlain},
  {Id::kStep, "step", 0, Arg::kRequired, Kind::kCountOrZero, "S", "the output of this step", kLogs, kPlain},
  {Id::kTask, "task", 0, Arg::kRequired, Kind::kCountOrZero, "T", "the output of this task", kLogs, kPlain},
  {Id::kShowTopology, "topology", 0, Arg::kNone, Kind::kFlag, "", "of a node: its packages, NUMA nodes and caches, and how its GPUs are connected", kShow, kPlain},
  {Id::kNoHeader, "noheader", 0, Arg::kNone, Kind::kFlag, "", "no line of titles", kQueue | kHistory | kNodes | kShow | kAccount | kUser | kQos, kPlain},

  // Of update.
  {Id::kArrayLimit, "array", 'a', Arg::kRequired, Kind::kText, "%MAX", "at most MAX tasks of the array at a time (%0: no limit)", kUpdate, kPlain},
  {Id::kSet, "set", 0, Arg::kRequired, Kind::kText, "KEY=VALUE", "of a queue or the configuration: set this key", kUpdate, kRepeats},
  {Id::kReset, "reset", 0, Arg::kOptional, Kind::kText, "KEY", "of a queue or the configuration: as the file says, the named keys, or all of a queue", kUpdate, kRepeats},
  {Id::kCreate, "create", 0, Arg::kNone, Kind::kFlag, "", "make a new queue", kUpdate, kPlain},
  {Id::kDelete, "delete", 0, Arg::kNone, Kind::kFlag, "", "remove a queue that was made with --create", kUpdate, kPlain},
  {Id::kForce, "force", 0, Arg::kNone, Kind::kFlag, "", "also when jobs that wait could not start any more", kUpdate, kPlain},

  // reservation.
  {Id::kStart, "start", 'S', Arg::kRequired, Kind::kTime, "TIME", "when it begins (16:00, 2030-01-31T08:00, now+1h)", kReservation, kPlain},
  {Id::kDuration, "duration", 0, Arg::kRequired, Kind::kDuration, "TIME", "how long it lasts (minutes, HH:MM:SS, 2h, 1d)", kReservation, kPlain},
  {Id::kEvery, "every", 0, Arg::kRequired, Kind::kText, "TIME", "begin again after so long, such as 1d or 7d; 0: once", kReservation, kPlain},
  {Id::kReservedNodes, "nodes", 'N', Arg::kRequired, Kind::kText, "NODES|N|ALL", "these nodes (n[1-4,7]), or so many that are free then", kReservation, kPlain},
  {Id::kUsers, "users", 'u', Arg::kRequired, Kind::kText, "USER,...", "users who may run in it", kReservation, kPlain},
  {Id::kAccounts, "accounts", 'A', Arg::kRequired, Kind::kText, "NAME,...", "accounts whose jobs may run in it", kReservation, kPlain},
  {Id::kMaintenance, "maintenance", 0, Arg::kOptional, Kind::kChoice, "yes|no", "nobody runs in it", kReservation, kPlain},
  {Id::kIgnoreJobs, "ignore-jobs", 0, Arg::kNone, Kind::kFlag, "", "although jobs are running that may reach into it; they go on", kReservation, kPlain},
  {Id::kForce, "force", 0, Arg::kNone, Kind::kFlag, "", "delete it although jobs wait for it", kReservation, kPlain},

  // keygen and local.
  {Id::kOut, "out", 'o', Arg::kRequired, Kind::kPath, "FILE", "where to write the secret key; FILE.pub gets the public one", kKeygen, kPlain},
  {Id::kCount, "nodes", 'N', Arg::kRequired, Kind::kCount, "N", "number of nodes to pretend", kLocal, kPlain},
  {Id::kClusterName, "name", 0, Arg::kRequired, Kind::kName, "CLUSTER", "which local cluster (default: that of $MUSTER_CONFIG, else local; start: local)", kLocal, kPlain},
  {Id::kTopology, "topology", 0, Arg::kRequired, Kind::kText, "SPEC", "an hwloc XML file or synthetic text, with +gpu:K for GPUs; repeat for n1, n2, ...", kLocal, kRepeats},
  {Id::kSet, "set", 0, Arg::kRequired, Kind::kKeyValue, "KEY=VALUE", "set a key of the configuration (section.key=value)", kLocal, kRepeats},
  {Id::kDir, "dir", 0, Arg::kRequired, Kind::kPath, "DIR", "where the cluster keeps its files (default: that of $MUSTER_CONFIG, else by its name)", kLocal, kPlain},

  // simulate. muster-sim checks the values.
  {Id::kSwf, "swf", 0, Arg::kRequired, Kind::kPath, "FILE", "the log, in the Standard Workload Format, plain or compressed by gzip", kSimulate, kPlain},
  {Id::kPolicy, "policy", 0, Arg::kRequired, Kind::kText, "NAME", "default, fcfs, easy, easy-sjbf, conservative, sjf, saf, wfp3 or unicef (default: default, which is what sites run)", kSimulate, kPlain},
  {Id::kBackfill, "backfill", 0, Arg::kRequired, Kind::kText, "NAME", "none, easy, easy-sjbf or conservative (default: the policy's own; easy for sjf, saf, wfp3 and unicef)", kSimulate, kPlain},
  {Id::kEvents, "events", 0, Arg::kRequired, Kind::kText, "batch|seq", "one planning pass for all that happens at an instant (the default), or one for each event", kSimulate, kPlain},
  {Id::kEstimates, "estimates", 0, Arg::kRequired, Kind::kText, "user|run", "time limits as the users gave them (the default), or the run times", kSimulate, kPlain},
  {Id::kProcs, "procs", 0, Arg::kRequired, Kind::kText, "req|alloc|max", "a job is as wide as requested (the default), as allocated, or the larger of both", kSimulate, kPlain},
  {Id::kFilter, "filter", 0, Arg::kRequired, Kind::kText, "strict|none", "leave out jobs with missing or impossible values (the default), or only those without run time or width", kSimulate, kPlain},
  {Id::kMachine, "machine", 0, Arg::kRequired, Kind::kText, "CORES", "size of the machine (default: as the log says)", kSimulate, kPlain},
  {Id::kJobsMax, "jobs", 0, Arg::kRequired, Kind::kText, "N", "only the first N jobs", kSimulate, kPlain},
  {Id::kDump, "dump", 0, Arg::kRequired, Kind::kPath, "FILE", "write each job's number and start time", kSimulate, kPlain},
  {Id::kJson, "json", 0, Arg::kNone, Kind::kFlag, "", "print one JSON object", kSimulate, kPlain},
  {Id::kBench, "bench", 0, Arg::kNone, Kind::kFlag, "", "report how long a planning pass takes; without --swf: measure planning on a full cluster", kSimulate, kPlain},
  {Id::kBenchNodes, "nodes", 0, Arg::kRequired, Kind::kText, "N", "with --bench: nodes of the cluster (default 10000)", kSimulate, kPlain},
  {Id::kBenchCores, "cores", 0, Arg::kRequired, Kind::kText, "N", "with --bench: cores of each node (default 64)", kSimulate, kPlain},
  {Id::kBenchGpus, "gpus", 0, Arg::kRequired, Kind::kText, "N", "with --bench: GPUs of each node (default 8)", kSimulate, kPlain},
  {Id::kBenchPending, "pending", 0, Arg::kRequired, Kind::kText, "N", "with --bench: jobs that wait (default 100000)", kSimulate, kPlain},
  {Id::kBenchShapes, "shapes", 0, Arg::kRequired, Kind::kText, "N", "with --bench: different requests among them (default 200)", kSimulate, kPlain},

  // Of a job, not there yet. They are known so that they are refused by name and not taken for something else.
  {Id::kRestartOnNodeLoss, "restart-on-node-loss", 0, Arg::kNone, Kind::kFlag, "", "start again elsewhere when a node is lost", kJobMakers, kLaterScript},
  {Id::kCheckpoint, "checkpoint", 0, Arg::kRequired, Kind::kText, "MODE", "how to save the job's state", kJobMakers, kLaterScript},
  {Id::kCheckpointInterval, "checkpoint-interval", 0, Arg::kRequired, Kind::kText, "TIME", "how often to save it", kJobMakers, kLaterScript},
  {Id::kRecover, "recover", 0, Arg::kRequired, Kind::kText, "safe|fast", "how to restart after a lost node", kJobMakers, kLaterScript},
  {Id::kSpares, "spares", 0, Arg::kRequired, Kind::kText, "K", "spare nodes", kJobMakers, kLaterScript},
  {Id::kImage, "image", 0, Arg::kRequired, Kind::kText, "IMAGE", "container image", kJobMakers, kLaterScript},
  {Id::kPriority, "priority", 0, Arg::kRequired, Kind::kText, "N", "fixed priority", kJobMakers, kLaterScript},

  // Everywhere.
  {Id::kJson, "json", 0, Arg::kNone, Kind::kFlag, "", "print one JSON object", kListers | kSubmit | kCancel | kHold | kRelease | kUpdate | kRequeue | kSuspend | kContinue | kDrain | kResume | kLocal | kVersion | kPing | kAccount | kUser | kQos | kReservation, kPlain},
  {Id::kJson, "json", 0, Arg::kNone, Kind::kFlag, "", "print one JSON object when the step is over; what the tasks print goes to standard error", kRun, kPlain},
  {Id::kJson, "json", 0, Arg::kNone, Kind::kFlag, "", "with --no-shell: print one JSON object, the job's id and nodes", kAlloc, kPlain},
  {Id::kConfig, "config", 0, Arg::kRequired, Kind::kPath, "FILE", "configuration file (default: $MUSTER_CONFIG, /etc/muster/muster.toml)", kOnline, kPlain},
  {Id::kKey, "key", 0, Arg::kRequired, Kind::kPath, "FILE", "the caller's key file (default: $MUSTER_KEY, [cluster] key)", kOnline, kPlain},
  {Id::kTimeout, "timeout", 0, Arg::kRequired, Kind::kSeconds, "TIME", "how long to try to reach the controller (default 10s, or as configured; seconds when bare)", kOnline, kPlain},
  {Id::kTimeout, "timeout", 0, Arg::kRequired, Kind::kSeconds, "TIME", "how long start, add and restart wait for the daemons (default 20s; seconds when bare)", kLocal, kPlain},
  {Id::kVersion, "version", 'V', Arg::kNone, Kind::kFlag, "", "print the version", kSrun, kPlain},
  {Id::kUsage, "usage", 0, Arg::kNone, Kind::kFlag, "", "print this text", kSrun, kAlias},
  {Id::kHelp, "help", 'h', Arg::kNone, Kind::kFlag, "", "print this text", kEverywhere, kPlain},
};

constexpr CommandInfo kCommands[] = {
  {kSubmit, "submit", "SCRIPT|- [ARGUMENT...]", "submit a job script",
   "Prints `Submitted job ID`. With - the script is read from standard input; with --wrap COMMAND there is none.\n"
   "Options may also stand in the script's head as `#MUSTER --option` or `#SBATCH --option` lines and in the\n"
   "environment as MUSTER_<NAME>; the command line wins over the environment, the environment over the script.", true},
  {kRun, "run", "COMMAND [ARGUMENT...]", "run a command as tasks on the nodes of a job",
   "Inside a job it starts a step there; outside it asks for an allocation first. Standard output and error come\n"
   "back; the exit status is the highest of the tasks'. Interrupted twice within a second it kills the tasks.", true},
  {kSrun, "srun", "COMMAND [ARGUMENT...]", "run a command as tasks, as Slurm's srun does", "", true},
  {kAlloc, "alloc", "[COMMAND [ARGUMENT...]]", "get nodes for a shell or a command on this machine",
   "Waits for the nodes, then runs COMMAND here, or $SHELL, with the environment of the job, in which `muster run` starts\n"
   "steps. The exit status is the command's; the nodes are given back at its end. When the job ends before the command\n"
   "(time limit, `muster cancel`), the command gets SIGHUP, SIGTERM 5 s later, SIGKILL after 5 s more; the status is not 0.", true},
  {kQueue, "queue", "", "list jobs that wait or run", "", false},
  {kShow, "show", "job|node|queue|reservation|license|config|priority [NAME...]", "show everything about one thing",
   "`show priority` lists the points of waiting jobs, the first to be served at the top; --user and --queue choose.", false},
  {kWhy, "why", "JOB", "say why a job does not run", "", false},
  {kNodes, "nodes", "[NODES]", "list nodes", "", false},
  {kCancel, "cancel", "[ID|ID_[RANGE]...]", "end jobs, or send them a signal", "", false},
  {kHold, "hold", "ID...", "keep pending jobs from starting", "", false},
  {kRelease, "release", "ID...", "let held jobs start", "", false},
  {kUpdate, "update", "ID...|queue NAME|config [KEY=VALUE...]", "change jobs, queues or settings",
   "  ID... --OPTION VALUE        changes jobs that wait; of running ones --time, --job-name and --comment\n"
   "  queue NAME --set KEY=VALUE  changes a queue at once and over restarts; --reset as configured; --create, --delete\n"
   "  config --set SECTION.KEY=VALUE  changes another key of the configuration that the controller reads\n"
   "Queues and settings need an administrator. A time limit of a running job can be raised by an administrator only.\n"
   "none as the value of --begin, --deadline, --time-min, --dependency, --nodelist, --exclude, --constraint, --switches,\n"
   "--segment, --account, --qos, --reservation or --licenses takes back what was asked; --exclusive=no likewise.", false},
  {kRequeue, "requeue", "ID|ID_[RANGE]...", "stop running jobs and put them back into the queue",
   "The job keeps its id; its next start is the next attempt. Ids and tasks of arrays as `muster cancel` takes them.", false},
  {kSuspend, "suspend", "ID|ID_[RANGE]...", "let running jobs stand still",
   "The job keeps what it holds, and its time limit stands still with it.", false},
  {kContinue, "continue", "ID|ID_[RANGE]...", "let suspended jobs go on", "", false},
  {kLogs, "logs", "JOB", "print a job's output, over the network", "", false},
  {kHistory, "history", "", "list jobs that have ended", "", false},
  {kDrain, "drain", "NODES", "start no more jobs on nodes", "", false},
  {kResume, "resume", "NODES", "let drained nodes take jobs again", "", false},
  {kAccount, "account", "add|modify|delete|list [NAME] [KEY=VALUE...]", "manage accounts and their limits",
   "Settings (an empty value takes one away; docs/accounting.md explains them):\n"
   "  parent=ACCOUNT shares=N default_qos=QOS allowed_qos=QOS,...   (+QOS adds to the list, -QOS takes away)\n"
   "  jobs= pending= cpus= gpus= nodes= cpu_minutes=   what all its jobs may use together\n"
   "  user.jobs= user.cpus= ...                        what each user may use in it\n"
   "  job.time= job.cpus= job.gpus= job.nodes=         what one job may ask for\n"
   "list takes names; the others need an administrator's key.", false},
  {kUser, "user", "add|modify|delete|list [NAME] [KEY=VALUE...]", "manage users and their places in accounts",
   "Settings (an empty value takes one away; docs/accounting.md explains them):\n"
   "  account=ACCOUNT        the place in an account that the following are about\n"
   "  shares=N jobs= pending= cpus= gpus= nodes= cpu_minutes= job.time= job.cpus= job.gpus= job.nodes=\n"
   "  default_account=ACCOUNT allowed_qos=QOS,...\n"
   "`add NAME account=ACCOUNT` also adds a place to a user who is there; `delete NAME account=ACCOUNT` takes one away.\n"
   "list takes names; the others need an administrator's key.", false},
  {kQos, "qos", "add|modify|delete|list [NAME] [KEY=VALUE...]", "manage qualities of service",
   "Settings (an empty value takes one away; docs/accounting.md explains them):\n"
   "  priority=POINTS usage_factor=PERCENT preempts=QOS,... preempt_mode=queue|requeue|cancel|checkpoint|suspend\n"
   "  preempt_grace=TIME\n"
   "  jobs= pending= cpus= gpus= nodes= cpu_minutes=   what all its jobs may use together\n"
   "  user.jobs= ... account.jobs= ...                 what each user and each account may use in it\n"
   "  job.time= job.cpus= job.gpus= job.nodes=         what one job may ask for\n"
   "list takes names; the others need an administrator's key.", false},
  {kReservation, "reservation", "create|update|delete NAME", "keep nodes for some users, or for maintenance",
   "  create  needs --start, --duration, --nodes, and --users, --accounts or --maintenance\n"
   "  update  changes what is given\n"
   "  delete  ends it; what runs in it goes on\n"
   "`muster show reservation` lists them. Jobs ask for one with --reservation NAME.", false},
  {kPing, "ping", "", "ask the controller how it is", "", false},
  {kKeygen, "keygen", "cluster|node|user", "make a key pair", "", false},
  {kLocal, "local", "start|stop|status|restart|kill|add [NAME|N]", "a cluster of pretended nodes on this machine",
   "  start              start a controller and --nodes N nodes; prints a line to eval\n"
   "  stop               end everything\n"
   "  status             list the daemons\n"
   "  restart ctld|NODE  start a daemon again\n"
   "  kill ctld|NODE     end a node whole, as a power cut would\n"
   "  add N              start N more nodes", false},
  {kSimulate, "simulate", "", "replay a recorded workload through the scheduler",
   "Tells how long the jobs of the log would have waited under a policy. The same code plans as in the controller, in\n"
   "virtual time, on one machine whose cores are all alike. docs/simulate.md explains rules and measures.", false},
  {kVersion, "version", "", "print the version", "", false},
  {kCompletion, "completion", "bash", "print completion for a shell",
   "Use it with: source <(muster completion bash)", false},
  {kHelp, "help", "[COMMAND]", "explain a command", "", false},
};
// clang-format on

}  // namespace

std::span<const OptionInfo> option_table() {
  return kOptions;
}
std::span<const CommandInfo> command_table() {
  return kCommands;
}

}  // namespace muster::cli
