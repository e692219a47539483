#include "lib/config/key_table.h"

#include <algorithm>
#include <limits>

#include "lib/base/text.h"
#include "lib/model/license.h"

namespace muster::config {
namespace {

constexpr std::int64_t kNoMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMinute = 60;
constexpr std::int64_t kHour = 3600;
constexpr std::int64_t kDay = 86400;
constexpr std::size_t kTextBytesMax = 4096;  // of one value; Linux allows no longer path
constexpr std::size_t kEndpointsMax = 16;    // controllers of one cluster
constexpr std::size_t kNamesMax = 1'000;     // of one list; each submission to the queue looks through it
constexpr std::int64_t kMemoryMibMax = std::int64_t{1} << 53;

template <typename T>
Place at(Access<T> access) {
  return Place(access);
}

std::vector<Row> make_table() {
  using C = Config&;
  using Q = Named;
  using S = std::string&;
  using N = std::uint64_t&;
  using D = Duration&;
  const auto text = [](Access<std::string> a) { return at<std::string>(a); };
  const auto list = [](Access<std::vector<std::string>> a) { return at<std::vector<std::string>>(a); };
  const auto count = [](Access<std::uint64_t> a) { return at<std::uint64_t>(a); };
  const auto integer = [](Access<std::int64_t> a) { return at<std::int64_t>(a); };
  const auto flag = [](Access<bool> a) { return at<bool>(a); };
  const auto time = [](Access<Duration> a) { return at<Duration>(a); };
  return {
      {"cluster", "name", ValueType::kName, "", "muster", 0, 0, "", text([](C c, Q) -> S { return c.cluster.name; }),
       "ctld,noded,muster", false, "The cluster's name, as jobs and users see it."},
      {"cluster", "controller", ValueType::kEndpointList, "", "tcp://127.0.0.1:7701", 0, 0, "",
       list([](C c, Q) -> std::vector<std::string>& { return c.cluster.controller; }), "noded,muster", false,
       "Where the controller is reached. Several addresses are tried in turn."},
      {"cluster", "controller_key", ValueType::kPath, "", "/etc/muster/cluster.key.pub", 0, 0, "",
       text([](C c, Q) -> S { return c.cluster.controller_key; }), "noded,muster", false,
       "File with the cluster's public key (muster keygen cluster). Nodes and users know the controller by it."},
      {"cluster", "key", ValueType::kPath, "", "", 0, 0, "", text([](C c, Q) -> S { return c.cluster.key; }),
       "ctld,noded,muster", false,
       "File with the own secret key: the cluster's for the controller, a node's for its daemon, a user's for the "
       "tools (where the environment variable MUSTER_KEY goes before it)."},

      {"controller", "listen", ValueType::kEndpoint, "", "tcp://*:7701", 0, 0, "",
       text([](C c, Q) -> S { return c.controller.listen; }), "ctld", false, "Where clients and nodes connect."},
      {"controller", "state_dir", ValueType::kPath, "", "/var/lib/muster", 0, 0, "",
       text([](C c, Q) -> S { return c.controller.state_dir; }), "ctld", false,
       "Folder of the journal, the snapshots and the history. It should be on a local disk."},
      {"controller", "authorized", ValueType::kPath, "", "/etc/muster/authorized", 0, 0, "",
       text([](C c, Q) -> S { return c.controller.authorized; }), "ctld", false,
       "File that names the keys of nodes and users. It is read again at the next connection after a change."},
      {"controller", "snapshot_every_batches", ValueType::kCount, "batches", "10000", 1, 1'000'000'000, "",
       count([](C c, Q) -> N { return c.controller.snapshot_every_batches; }), "ctld", true,
       "After so many journal batches a snapshot is made, so that a restart has less to replay."},
      {"controller", "batch_facts_max", ValueType::kCount, "facts", "4096", 1, 1'000'000, "",
       count([](C c, Q) -> N { return c.controller.batch_facts_max; }), "ctld", true,
       "A journal batch is closed when it has so many facts."},
      {"controller", "dedup_window", ValueType::kDuration, "s", "24h", kMinute, 30 * kDay, "",
       time([](C c, Q) -> D { return c.controller.dedup_window; }), "ctld", true,
       "How long a repeated request id gets the first answer again instead of making a second job."},
      {"controller", "node_timeout", ValueType::kDuration, "s", "15s", 1, kDay, "",
       time([](C c, Q) -> D { return c.controller.node_timeout; }), "ctld", true,
       "A node silent for so long is shown as unreachable. Its jobs go on."},
      {"controller", "queue_max_jobs", ValueType::kCount, "jobs", "1000000", 1, 1'000'000'000, "",
       count([](C c, Q) -> N { return c.controller.queue_max_jobs; }), "ctld", true,
       "More jobs that have not ended are refused. An array counts as one."},
      {"controller", "client_timeout", ValueType::kDuration, "s", "10s", 1, kDay, "",
       time([](C c, Q) -> D { return c.controller.client_timeout; }), "muster", false,
       "How long the tools try to reach the controller where --timeout does not say."},
      {"controller", "client_queue_max", ValueType::kCount, "messages", "100000", 100, 10'000'000, "",
       count([](C c, Q) -> N { return c.controller.client_queue_max; }), "ctld", false,
       "Replies that may wait for one client or node that does not take them."},
      {"controller", "message_bytes_max", ValueType::kCount, "bytes", "67108864", 1'048'576, 1'073'741'824, "",
       count([](C c, Q) -> N { return c.controller.message_bytes_max; }), "ctld,noded", false,
       "Who sends a larger message is disconnected."},
      {"controller", "script_bytes_max", ValueType::kCount, "bytes", "4194304", 1'024, 4'194'304, "",
       count([](C c, Q) -> N { return c.controller.script_bytes_max; }), "ctld", true,
       "Larger job scripts are refused."},

      {"controller", "node_failures_max", ValueType::kCount, "jobs", "3", 0, 16, "",
       count([](C c, Q) -> N { return c.controller.node_failures_max; }), "ctld", true,
       "A node that fails so many jobs which other nodes run well, or before they begin, is drained. 0: never."},
      {"controller", "node_rest", ValueType::kDuration, "s", "10s", 0, kHour, "",
       time([](C c, Q) -> D { return c.controller.node_rest; }), "ctld", true,
       "How long a node takes no work after the second such failure; after each further one twice as long, at most an "
       "hour."},
      {"controller", "node_suspect_time", ValueType::kDuration, "s", "1h", 1, 30 * kDay, "",
       time([](C c, Q) -> D { return c.controller.node_suspect_time; }), "ctld", true,
       "How long such a failure counts. Meanwhile the node is taken only where no other has room."},

      {"node", "name", ValueType::kName, "", "", 0, 0, "", text([](C c, Q) -> S { return c.node.name; }), "noded",
       false, "The node's name, as its key is authorized. Empty: the host name."},
      {"node", "listen", ValueType::kEndpoint, "", "tcp://*:7702", 0, 0, "",
       text([](C c, Q) -> S { return c.node.listen; }), "noded", false,
       "Where other nodes and users' streams connect."},
      {"node", "advertise", ValueType::kEndpoint, "", "", 0, 0, "", text([](C c, Q) -> S { return c.node.advertise; }),
       "noded", false, "The address under which others reach `listen`. Empty: the host name and the port of `listen`."},
      {"node", "spool_dir", ValueType::kPath, "", "/var/spool/muster", 0, 0, "",
       text([](C c, Q) -> S { return c.node.spool_dir; }), "noded", false,
       "Folder of scripts, outcomes and what else must outlive the daemon."},
      {"node", "run_dir", ValueType::kPath, "", "/run/muster", 0, 0, "",
       text([](C c, Q) -> S { return c.node.run_dir; }), "noded", false,
       "Folder of Unix sockets. Keep it short: such a path has at most 107 characters."},
      {"node", "topology", ValueType::kTopology, "", "", 0, 0, "", text([](C c, Q) -> S { return c.node.topology; }),
       "noded", false,
       "A machine to pretend to be: an hwloc XML file or a synthetic description, with +gpu:K for K pretended GPUs. "
       "Empty: this machine."},
      {"node", "memory", ValueType::kMemory, "MiB", "0", 0, kMemoryMibMax, "",
       count([](C c, Q) -> N { return c.node.memory_mib; }), "noded", false,
       "Memory for jobs. 0: what the machine or its topology has."},
      {"node", "heartbeat_interval", ValueType::kDuration, "s", "5s", 1, kHour, "",
       time([](C c, Q) -> D { return c.node.heartbeat_interval; }), "noded", false,
       "How often the node tells the controller that it is there. Keep it below a third of node_timeout."},
      {"node", "kill_grace", ValueType::kDuration, "s", "30s", 0, kHour, "",
       time([](C c, Q) -> D { return c.node.kill_grace; }), "noded", false,
       "The time between SIGTERM and SIGKILL when a job is ended."},
      {"node", "output_chunk", ValueType::kCount, "bytes", "65536", 1'024, 16'777'216, "",
       count([](C c, Q) -> N { return c.node.output_chunk_bytes; }), "noded", false,
       "Output that one message of a stream carries at most."},
      {"node", "enforce_memory", ValueType::kBool, "", "true", 0, 0, "",
       flag([](C c, Q) -> bool& { return c.node.enforce_memory; }), "noded", false,
       "Jobs are limited to the memory that is set aside for them; on a pretended node only those that asked for it."},
      {"node", "pids_max", ValueType::kCount, "", "4096", 0, 4'194'304, "",
       count([](C c, Q) -> N { return c.node.pids_max; }), "noded", false,
       "Processes and threads that a job may have on this node, or 256 for each of its hardware threads where that is "
       "more. 0: no limit."},
      {"node", "gpu_devices", ValueType::kString, "", "", 0, 0, "",
       text([](C c, Q) -> S { return c.node.gpu_devices; }), "noded", false,
       "Device files of the node's GPUs in their order, separated by commas, several of one GPU by +: jobs cannot open "
       "those of other jobs' GPUs, and one that is missing means that a GPU is gone. Empty: found by the GPUs' PCI "
       "addresses."},
      {"node", "isolate", ValueType::kChoice, "", "auto", 0, 0, "auto|on|off",
       text([](C c, Q) -> S { return c.node.isolate; }), "noded", false,
       "Jobs have a /tmp, a /dev/shm and IPC of their own, and see processes of their user alone. auto: on where root "
       "runs "
       "the daemon and the node does not pretend."},
      {"node", "cgroup", ValueType::kString, "", "auto", 0, 0, "", text([](C c, Q) -> S { return c.node.cgroup; }),
       "noded", false,
       "Control groups for jobs: auto, v1 or v2 (those alone), off, or the path of a cgroup2 group that was delegated "
       "to "
       "the daemon."},
      {"node", "features", ValueType::kString, "", "", 0, 0, "", text([](C c, Q) -> S { return c.node.features; }),
       "noded", false,
       "Features that this node has, for --constraint, separated by commas: a100,nvlink. The controller's "
       "[feature.NAME] may name more."},
      {"node", "system_cores", ValueType::kCount, "", "0", 0, 16'384, "",
       count([](C c, Q) -> N { return c.node.system_cores; }), "noded", false,
       "Physical cores that no job gets, for the system's daemons: the first core of each L3 in turn."},
      {"node", "smt", ValueType::kChoice, "", "use", 0, 0, "use|leave", text([](C c, Q) -> S { return c.node.smt; }),
       "noded", false,
       "Whether jobs get all hardware threads of their cores, or the first one of each while the others stay idle."},
      {"node", "gpu_partitions", ValueType::kString, "", "", 0, 0, "",
       text([](C c, Q) -> S { return c.node.gpu_partitions; }), "noded", false,
       "How each of the node's GPUs is divided, PROFILE*COUNT: 1g.10gb*7 (MIG), cpx*8. A partition counts as a GPU. "
       "Empty: they are whole."},
      {"node", "gpu_partition_uuids", ValueType::kString, "", "", 0, 0, "",
       text([](C c, Q) -> S { return c.node.gpu_partition_uuids; }), "noded", false,
       "The UUIDs of these partitions, separated by commas, those of the first GPU first. Empty: they are known by "
       "their "
       "numbers."},
      {"node", "health_interval", ValueType::kDuration, "s", "60s", 1, kDay, "",
       time([](C c, Q) -> D { return c.node.health_interval; }), "noded", false,
       "How often the node checks its health; it does so at its start, too. A node whose checks fail takes no new work "
       "until they pass."},
      {"node", "health_program", ValueType::kPath, "", "", 0, 0, "",
       text([](C c, Q) -> S { return c.node.health_program; }), "noded", false,
       "A program that is run with the checks. Another exit code than 0 means that the node is not well; the last line "
       "of what it wrote says why. Empty: none."},
      {"node", "health_timeout", ValueType::kDuration, "s", "30s", 1, kHour, "",
       time([](C c, Q) -> D { return c.node.health_timeout; }), "noded", false,
       "How long the program and the checks of folders may take. What takes longer is killed and has failed."},
      {"node", "health_disk_min", ValueType::kMemory, "MiB", "64M", 0, kMemoryMibMax, "",
       count([](C c, Q) -> N { return c.node.health_disk_min_mib; }), "noded", false,
       "With less free in the spool or in a folder of health_dirs the disk counts as full. 0: not looked at."},
      {"node", "health_inodes_min", ValueType::kCount, "inodes", "1000", 0, 1'000'000'000'000, "",
       count([](C c, Q) -> N { return c.node.health_inodes_min; }), "noded", false,
       "The same for inodes, where the file system counts them."},
      {"node", "health_dirs", ValueType::kNameList, "", "/tmp", 0, 0, "",
       list([](C c, Q) -> std::vector<std::string>& { return c.node.health_dirs; }), "noded", false,
       "Folders beside the spool in which there must be room and which must be writable, as [\"/tmp\", \"/scratch\"]."},
      {"node", "health_clock_max", ValueType::kDuration, "s", "30s", 0, kDay, "",
       time([](C c, Q) -> D { return c.node.health_clock_max; }), "noded", false,
       "The most that the node's clock may be off the controller's. 0: not looked at."},
      {"node", "prolog", ValueType::kPath, "", "", 0, 0, "", text([](C c, Q) -> S { return c.node.prolog; }), "noded",
       false,
       "A program that is run as the daemon's user before anything of a job runs on this node. When it fails the node "
       "is "
       "drained and the job goes back to its queue. Empty: none."},
      {"node", "prolog_timeout", ValueType::kDuration, "s", "5m", 1, kDay, "",
       time([](C c, Q) -> D { return c.node.prolog_timeout; }), "noded", false,
       "How long the prolog may take. One that takes longer is killed and has failed."},
      {"node", "epilog", ValueType::kPath, "", "", 0, 0, "", text([](C c, Q) -> S { return c.node.epilog; }), "noded",
       false,
       "The same after the last process of a job on this node. When it fails the node is drained; how the job ended "
       "stays."},
      {"node", "epilog_timeout", ValueType::kDuration, "s", "5m", 1, kDay, "",
       time([](C c, Q) -> D { return c.node.epilog_timeout; }), "noded", false,
       "How long the epilog may take. The node's share is free only after it."},

      {"job", "default_time", ValueType::kDuration, "min", "1h", kMinute, kNoMax, "",
       time([](C c, Q) -> D { return c.job.default_time; }), "ctld", true,
       "The time limit of a job that asks for none."},
      {"job", "max_time", ValueType::kDuration, "min", "UNLIMITED", kMinute, kNoMax, "",
       time([](C c, Q) -> D { return c.job.max_time; }), "ctld", true, "The longest time limit a job may ask for."},
      {"job", "default_queue", ValueType::kName, "", "main", 0, 0, "",
       text([](C c, Q) -> S { return c.job.default_queue; }), "ctld", true, "The queue of a job that names none."},
      {"job", "requeue", ValueType::kBool, "", "true", 0, 0, "", flag([](C c, Q) -> bool& { return c.job.requeue; }),
       "ctld", true,
       "Whether a preempted batch job that says neither --requeue nor --no-requeue goes back to its queue. false: it "
       "is "
       "cancelled."},
      {"job", "node_faults_max", ValueType::kCount, "attempts", "5", 0, 1'000, "",
       count([](C c, Q) -> N { return c.job.node_faults_max; }), "ctld", true,
       "A job that nodes fail so often in a row before it begins (a prolog, a full spool) is held. 0: never."},

      {"scheduling", "backfill", ValueType::kChoice, "", "gaps", 0, 0, "gaps|none",
       text([](C c, Q) -> S { return c.scheduling.backfill; }), "ctld", true,
       "gaps: jobs start wherever they delay no promised start. none: a job that does not fit blocks its queue."},
      {"scheduling", "promises", ValueType::kCount, "jobs", "1", 1, 1'000, "",
       count([](C c, Q) -> N { return c.scheduling.promises; }), "ctld", true,
       "How many of the first jobs that do not fit are promised a start, in each queue. More of them leave fewer "
       "gaps and cost more in each pass."},
      {"scheduling", "age_exponent", ValueType::kCount, "", "4", 1, 16, "",
       count([](C c, Q) -> N { return c.scheduling.age_exponent; }), "ctld", true,
       "How strongly waiting, measured against the time limit, raises a job. 3 is the order WFP3."},
      {"scheduling", "licenses", ValueType::kLicenses, "", "", 0, 0, "",
       text([](C c, Q) -> S { return c.scheduling.licenses; }), "ctld", true,
       "The licences that the cluster has and jobs ask for with --licenses, as matlab:4,ansys:10. Jobs that run keep "
       "theirs when there are fewer later."},

      {"priority", "age_weight", ValueType::kInteger, "", "1", 0, 1'000, "",
       integer([](C c, Q) -> std::int64_t& { return c.priority.age_weight; }), "ctld", true,
       "What waiting counts in a job's points: they rise by age_exponent times this with each doubling of the waiting "
       "time."},
      {"priority", "size_weight", ValueType::kInteger, "", "0", -1'000, 1'000, "",
       integer([](C c, Q) -> std::int64_t& { return c.priority.size_weight; }), "ctld", true,
       "Points for each doubling of a job's CPUs. Below 0: small jobs stand before large ones."},
      {"priority", "queue_weight", ValueType::kInteger, "", "1", 0, 1'000, "",
       integer([](C c, Q) -> std::int64_t& { return c.priority.queue_weight; }), "ctld", true,
       "Points for each 1 of the queue's factor."},
      {"priority", "qos_weight", ValueType::kInteger, "", "1", 0, 1'000, "",
       integer([](C c, Q) -> std::int64_t& { return c.priority.qos_weight; }), "ctld", true,
       "Points for each 1 of the QOS's priority."},
      {"priority", "fair_share_weight", ValueType::kInteger, "", "16", 0, 10'000, "",
       integer([](C c, Q) -> std::int64_t& { return c.priority.fair_share_weight; }), "ctld", true,
       "Points that the best fair-share factor (1, without any use) gives. Without accounts it gives none."},

      {"accounting", "enforce", ValueType::kBool, "", "false", 0, 0, "",
       flag([](C c, Q) -> bool& { return c.accounting.enforce; }), "ctld", true,
       "Refuse jobs of users who have no place in the job's account."},
      {"accounting", "cpu_weight", ValueType::kCount, "hundredths", "100", 0, 1'000'000, "",
       count([](C c, Q) -> N { return c.accounting.cpu_weight; }), "ctld", true, "What a second of a CPU is charged."},
      {"accounting", "gpu_weight", ValueType::kCount, "hundredths", "1000", 0, 1'000'000, "",
       count([](C c, Q) -> N { return c.accounting.gpu_weight; }), "ctld", true,
       "What a second of a GPU is charged. The default counts one as ten CPUs."},
      {"accounting", "memory_weight", ValueType::kCount, "hundredths", "0", 0, 1'000'000, "",
       count([](C c, Q) -> N { return c.accounting.memory_weight; }), "ctld", true,
       "What a second of a GiB of memory is charged."},
      {"accounting", "half_life", ValueType::kDuration, "s", "7d", 0, 3'650 * kDay, "",
       time([](C c, Q) -> D { return c.accounting.half_life; }), "ctld", true,
       "After this time what was used counts half. 0: it counts for ever."},

      {kQueueSection, "priority", ValueType::kInteger, "", "0", -1'000'000, 1'000'000, "",
       integer([](C, Q q) -> std::int64_t& { return q->priority; }), "ctld", true,
       "Jobs of queues with a higher number start first."},
      {kQueueSection, "factor", ValueType::kInteger, "points", "0", -1'000, 1'000, "",
       integer([](C, Q q) -> std::int64_t& { return q->factor; }), "ctld", true,
       "Points of its jobs, times [priority] queue_weight: their place among the jobs of queues with the same "
       "priority."},
      {kQueueSection, "nodes", ValueType::kNodeList, "", "", 0, 0, "", text([](C, Q q) -> S { return q->nodes; }),
       "ctld", true, "The nodes the queue may use, as n[1-4,7]. Empty: all."},
      {kQueueSection, "max_time", ValueType::kDuration, "min", "UNLIMITED", kMinute, kNoMax, "",
       time([](C, Q q) -> D { return q->max_time; }), "ctld", true,
       "The longest time limit in this queue; never more than [job] max_time."},
      {kQueueSection, "default_time", ValueType::kDuration, "min", "0", 0, kNoMax, "",
       time([](C, Q q) -> D { return q->default_time; }), "ctld", true,
       "The time limit of a job in this queue that asks for none. 0: that of [job] default_time."},
      {kQueueSection, "preempt_mode", ValueType::kChoice, "", "off", 0, 0, "off|requeue|cancel|checkpoint|suspend",
       text([](C, Q q) -> S { return q->preempt_mode; }), "ctld", true,
       "What becomes of a running job whose place a job of a queue with a higher priority needs: off leaves it alone; "
       "requeue stops it and puts it back; cancel ends it; checkpoint sends the signal of its --signal (or TERM) "
       "first, "
       "stops it after preempt_grace and puts it back; suspend lets it stand still with its memory until its cores are "
       "free "
       "again, which a job with GPUs never does."},
      {kQueueSection, "preempt_grace", ValueType::kDuration, "s", "0", 0, kHour, "",
       time([](C, Q q) -> D { return q->preempt_grace; }), "ctld", true,
       "How long before a preempted job is stopped it is warned, by TERM or its own signal. 0: it is not warned, but "
       "for checkpoint."},
      {kQueueSection, "preempt_exempt", ValueType::kDuration, "s", "0", 0, kNoMax, "",
       time([](C, Q q) -> D { return q->preempt_exempt; }), "ctld", true,
       "How long a job of the queue runs before it may be preempted."},
      {kQueueSection, "state", ValueType::kChoice, "", "up", 0, 0, "up|drain|down|inactive",
       text([](C, Q q) -> S { return q->state; }), "ctld", true,
       "up; drain starts what waits and refuses new jobs; down takes new jobs and starts none; inactive does neither."},
      {kQueueSection, "placement", ValueType::kChoice, "", "pack", 0, 0, "pack|spread",
       text([](C, Q q) -> S { return q->placement; }), "ctld", true,
       "pack uses the fullest nodes that have room, so that whole nodes stay free; spread uses the emptiest ones."},
      {kQueueSection, "min_nodes", ValueType::kCount, "nodes", "0", 0, 100'000, "",
       count([](C, Q q) -> N { return q->min_nodes; }), "ctld", true, "A job must ask for at least so many nodes."},
      {kQueueSection, "max_nodes", ValueType::kCount, "nodes", "0", 0, 100'000, "",
       count([](C, Q q) -> N { return q->max_nodes; }), "ctld", true,
       "The most nodes of one job. 0: no limit. A job that may spread over any number of nodes is kept to so many."},
      {kQueueSection, "max_cpus", ValueType::kCount, "CPUs", "0", 0, 1'000'000'000, "",
       count([](C, Q q) -> N { return q->max_cpus; }), "ctld", true,
       "The most CPUs that the tasks of one job may ask for. 0: no limit."},
      {kQueueSection, "max_gpus", ValueType::kCount, "GPUs", "0", 0, 1'000'000'000, "",
       count([](C, Q q) -> N { return q->max_gpus; }), "ctld", true, "The most GPUs of one job. 0: no limit."},
      {kQueueSection, "default_mem_per_cpu", ValueType::kMemory, "MiB", "0", 0, kMemoryMibMax, "",
       count([](C, Q q) -> N { return q->default_mem_per_cpu_mib; }), "ctld", true,
       "Memory for each CPU of a job that asks for none. 0: its share of the node."},
      {kQueueSection, "allow_accounts", ValueType::kNameList, "", "", 0, 0, "",
       list([](C, Q q) -> std::vector<std::string>& { return q->allow_accounts; }), "ctld", true,
       "Only jobs of these accounts are admitted. Empty: all."},
      {kQueueSection, "deny_accounts", ValueType::kNameList, "", "", 0, 0, "",
       list([](C, Q q) -> std::vector<std::string>& { return q->deny_accounts; }), "ctld", true,
       "Jobs of these accounts are not admitted."},
      {kQueueSection, "allow_users", ValueType::kNameList, "", "", 0, 0, "",
       list([](C, Q q) -> std::vector<std::string>& { return q->allow_users; }), "ctld", true,
       "Only jobs of these users are admitted. Empty: all."},
      {kQueueSection, "allow_qos", ValueType::kNameList, "", "", 0, 0, "",
       list([](C, Q q) -> std::vector<std::string>& { return q->allow_qos; }), "ctld", true,
       "Only jobs of these qualities of service are admitted. Empty: all."},

      {kFeatureSection, "nodes", ValueType::kNodeList, "", "", 0, 0, "",
       text([](C, Q q) -> S { return q.feature->nodes; }), "ctld", true,
       "The nodes that have this feature, for --constraint; beside those whose own [node] features name it."},

      {"topology", "kind", ValueType::kChoice, "", "none", 0, 0, "none|tree|block",
       text([](C c, Q) -> S { return c.topology.kind; }), "ctld", true,
       "How the nodes hang together: as a tree of switches ([switch.NAME]), as blocks that a job must fit into "
       "([block.NAME]), or in no way that matters."},
      {"topology", "block_sizes", ValueType::kString, "", "", 0, 0, "",
       text([](C c, Q) -> S { return c.topology.block_sizes; }), "ctld", true,
       "Nodes that a block counts for and those of groups of blocks, separated by commas, each the first times 2, 4, "
       "8, ..: 18,36,72. Empty: that of the smallest block, and all groups that there are blocks for."},

      {kSwitchSection, "nodes", ValueType::kNodeList, "", "", 0, 0, "",
       text([](C, Q q) -> S { return q.network_switch->nodes; }), "ctld", true,
       "The nodes that hang on this switch. A switch has nodes or switches, not both."},
      {kSwitchSection, "switches", ValueType::kNodeList, "", "", 0, 0, "",
       text([](C, Q q) -> S { return q.network_switch->switches; }), "ctld", true,
       "The switches below this one, as leaf[1-4]."},

      {kBlockSection, "nodes", ValueType::kNodeList, "", "", 0, 0, "", text([](C, Q q) -> S { return q.block->nodes; }),
       "ctld", true, "The nodes of this block."},

      {"slurm", "names", ValueType::kBool, "", "true", 0, 0, "", flag([](C c, Q) -> bool& { return c.slurm.names; }),
       "noded", false,
       "Put Muster's links under Slurm's command names first in a job's PATH. Open MPI starts its daemons through "
       "them."},
      {"slurm", "version", ValueType::kString, "", "slurm 23.11.10", 0, 0, "",
       text([](C c, Q) -> S { return c.slurm.version; }), "muster", false,
       "What the Slurm-named commands say to --version."},

      {"log", "level", ValueType::kChoice, "", "info", 0, 0, "debug|info|warning|error|off",
       text([](C c, Q) -> S { return c.log.level; }), "ctld,noded", false,
       "The least important lines that are logged."},
      {"log", "file", ValueType::kPath, "", "", 0, 0, "", text([](C c, Q) -> S { return c.log.file; }), "ctld,noded",
       false, "The log file. Empty: standard error."},
  };
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShownMax = 80;
  return "\"" + printable(text.substr(0, kShownMax)) + (text.size() > kShownMax ? "...\"" : "\"");
}

bool is_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// The shortest notation that reads back as the same duration.
std::string duration_text(Duration d) {
  if (d.is_infinite()) return "UNLIMITED";
  const std::int64_t s = d.seconds();
  if (s != 0 && s % kDay == 0) return std::to_string(s / kDay) + "d";
  if (s != 0 && s % kHour == 0) return std::to_string(s / kHour) + "h";
  if (s != 0 && s % kMinute == 0) return std::to_string(s / kMinute) + "m";
  return std::to_string(s) + "s";
}

Status check_text(const std::string& text) {
  if (text.size() > kTextBytesMax) {
    return invalid_argument("the value is too long: give at most " + std::to_string(kTextBytesMax) + " bytes");
  }
  if (printable(text) != text) return invalid_argument(in_quotes(text) + " contains control characters: remove them");
  return ok_status();
}

Status check_endpoint(const std::string& text) {
  const auto bad = [&] { return invalid_argument(in_quotes(text) + " is no address: write tcp://HOST:PORT"); };
  MUSTER_TRY(check_text(text));
  constexpr std::string_view kIpc = "ipc://";
  constexpr std::string_view kTcp = "tcp://";
  if (text.starts_with(kIpc)) return text.size() > kIpc.size() ? ok_status() : Status(bad());
  if (!text.starts_with(kTcp)) return bad();
  const std::string_view rest = std::string_view(text).substr(kTcp.size());
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || rest.find_first_of(" /") != std::string_view::npos) return bad();
  const std::string_view port = rest.substr(colon + 1);
  constexpr std::uint64_t kPortMax = 65'535;
  if (port != "*" && !parse_count(port, "port", {1, kPortMax}).ok()) return bad();
  return ok_status();
}

std::string absolute(const std::string& base_dir, const std::string& path) {
  if (path.empty() || path.front() == '/' || base_dir.empty()) return path;
  return base_dir + (base_dir.back() == '/' ? "" : "/") + path;
}

Status store_text(const Row& row, std::string& place, const std::string& text, const std::string& base_dir) {
  MUSTER_TRY(check_text(text));
  const bool may_be_empty = row.default_value.empty();
  if (text.empty() && !may_be_empty) return invalid_argument("the value is empty: give one, or remove the line");
  std::string value = text;
  switch (row.type) {
    case ValueType::kName:
      if (!text.empty() && !is_valid_node_name(text)) {
        return invalid_argument(in_quotes(text) + " is no name: use 1 to 63 letters, digits, '_', '.', '-'");
      }
      break;
    case ValueType::kPath:
      value = absolute(base_dir, text);
      break;
    case ValueType::kTopology:
      if (text.find(".xml") != std::string::npos) value = absolute(base_dir, text);
      break;
    case ValueType::kEndpoint:
      if (!text.empty()) MUSTER_TRY(check_endpoint(text));
      break;
    case ValueType::kNodeList: {
      const auto names = expand_node_list(text);
      if (!names.ok()) return names.error();
      break;
    }
    case ValueType::kChoice: {
      const auto choices = split(row.choices, '|');
      if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
        return invalid_argument(in_quotes(text) + " is not possible: give one of " + bounds_of(row));
      }
      break;
    }
    case ValueType::kLicenses:
      if (!text.empty()) {
        const auto licenses = parse_licenses(text, "the list");
        if (!licenses.ok()) return licenses.error();
      }
      break;
    case ValueType::kString:
    case ValueType::kBool:
    case ValueType::kCount:
    case ValueType::kInteger:
    case ValueType::kDuration:
    case ValueType::kMemory:
    case ValueType::kEndpointList:
    case ValueType::kNameList:
      break;
  }
  place = std::move(value);
  return ok_status();
}

Status store_endpoints(std::vector<std::string>& place, const std::vector<std::string>& endpoints) {
  if (endpoints.empty() || endpoints.size() > kEndpointsMax) {
    return invalid_argument("the list has " + std::to_string(endpoints.size()) + " addresses: give 1 to " +
                            std::to_string(kEndpointsMax));
  }
  for (const std::string& endpoint : endpoints) MUSTER_TRY(check_endpoint(endpoint));
  place = endpoints;
  return ok_status();
}

Status store_names(std::vector<std::string>& place, const std::vector<std::string>& names) {
  if (names.size() > kNamesMax) {
    return invalid_argument("the list has " + std::to_string(names.size()) + " names: give at most " +
                            std::to_string(kNamesMax));
  }
  for (const std::string& name : names) {
    MUSTER_TRY(check_text(name));
    if (name.empty() || name.find_first_of(", ") != std::string::npos) {
      return invalid_argument(in_quotes(name) + " is no name: write names, separated by commas");
    }
  }
  place = names;
  return ok_status();
}

Status out_of_bounds(const Row& row, const std::string& shown) {
  return invalid_argument(shown + " is out of bounds: give " + bounds_of(row));
}

Status store_duration(const Row& row, Duration& place, const RawValue& value) {
  Duration duration;
  std::string shown;
  if (const auto* number = std::get_if<std::int64_t>(&value)) {
    shown = std::to_string(*number);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    shown = *text;
  } else {
    return invalid_argument("the value is no time: write it as \"90s\", \"15m\", \"2h\" or \"HH:MM:SS\"");
  }
  // A bare number counts the key's unit, so that 5 means what the reference page says.
  const std::string suffix = is_digits(shown) ? (row.unit == "min" ? "m" : "s") : "";
  MUSTER_ASSIGN(duration, parse_duration(shown + suffix));
  const bool too_long = duration.is_infinite() ? row.max != kNoMax : duration.seconds() > row.max;
  if (too_long || duration.seconds() < row.min) return out_of_bounds(row, in_quotes(shown));
  place = duration;
  return ok_status();
}

Status store_number(const Row& row, std::int64_t number, const std::string& shown, const Place& place, Config& config,
                    Named queue) {
  if (number < row.min || number > row.max) return out_of_bounds(row, in_quotes(shown));
  if (const auto* access = std::get_if<Access<std::int64_t>>(&place)) {
    (*access)(config, queue) = number;
  } else {
    std::get<Access<std::uint64_t>>(place)(config, queue) = static_cast<std::uint64_t>(number);
  }
  return ok_status();
}

}  // namespace

const std::vector<Row>& table() {
  static const std::vector<Row> rows = make_table();
  return rows;
}

std::string_view named_word(std::string_view row_section) {
  constexpr std::string_view kEnd = ".NAME";
  return row_section.ends_with(kEnd) ? row_section.substr(0, row_section.size() - kEnd.size()) : std::string_view();
}

std::string_view named_section_of(std::string_view word) {
  for (const std::string_view section : {kQueueSection, kFeatureSection, kSwitchSection, kBlockSection}) {
    if (named_word(section) == word) return section;
  }
  return {};
}

const Row* find_row(std::string_view section, std::string_view key) {
  for (const Row& row : table()) {
    if (row.section == section && row.key == key) return &row;
  }
  return nullptr;
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const Row& row : table()) {
    if (names.empty() || names.back() != row.section) names.emplace_back(row.section);
  }
  return names;
}

std::vector<std::string> key_names(std::string_view section) {
  std::vector<std::string> names;
  for (const Row& row : table()) {
    if (row.section == section) names.emplace_back(row.key);
  }
  return names;
}

std::string bounds_of(const Row& row) {
  const std::string unit = row.unit.empty() ? "" : " " + std::string(row.unit);
  switch (row.type) {
    case ValueType::kCount:
    case ValueType::kInteger:
      return std::to_string(row.min) + " .. " + std::to_string(row.max) + unit;
    case ValueType::kMemory:
      return format_memory_mib(static_cast<std::uint64_t>(row.min)) + " .. " +
             format_memory_mib(static_cast<std::uint64_t>(row.max));
    case ValueType::kDuration:
      return duration_text(Duration::from_s(row.min)) + " .. " +
             (row.max == kNoMax ? "UNLIMITED" : duration_text(Duration::from_s(row.max)));
    case ValueType::kChoice:
      return std::string(row.choices);
    case ValueType::kString:
    case ValueType::kName:
    case ValueType::kPath:
    case ValueType::kTopology:
    case ValueType::kBool:
    case ValueType::kEndpoint:
    case ValueType::kEndpointList:
    case ValueType::kNodeList:
    case ValueType::kNameList:
    case ValueType::kLicenses:
      return "";
  }
  return "";
}

Result<RawValue> raw_from_text(const Row& row, std::string_view text) {
  switch (row.type) {
    case ValueType::kBool:
      if (text == "true") return RawValue(true);
      if (text == "false") return RawValue(false);
      return invalid_argument(in_quotes(text) + " is no truth value: write true or false");
    case ValueType::kCount:
    case ValueType::kInteger: {
      const auto number = parse_integer(text, row.key, std::numeric_limits<std::int64_t>::min(), kNoMax);
      if (!number.ok()) return invalid_argument(in_quotes(text) + " is no whole number: give " + bounds_of(row));
      return RawValue(*number);
    }
    case ValueType::kNameList:
    case ValueType::kEndpointList: {
      std::vector<std::string> items;
      if (text.empty() && row.type == ValueType::kNameList) return RawValue(std::move(items));
      for (const std::string_view item : split(text, ',')) items.emplace_back(trim(item));
      return RawValue(std::move(items));
    }
    case ValueType::kString:
    case ValueType::kName:
    case ValueType::kPath:
    case ValueType::kTopology:
    case ValueType::kDuration:
    case ValueType::kMemory:
    case ValueType::kEndpoint:
    case ValueType::kNodeList:
    case ValueType::kChoice:
    case ValueType::kLicenses:
      return RawValue(std::string(text));
  }
  return RawValue(std::string(text));
}

Status store(const Row& row, Config& config, Named queue, const RawValue& value, const std::string& base_dir) {
  const auto* text = std::get_if<std::string>(&value);
  const auto* number = std::get_if<std::int64_t>(&value);
  switch (row.type) {
    case ValueType::kBool: {
      const auto* flag = std::get_if<bool>(&value);
      if (flag == nullptr) return invalid_argument("the value is no truth value: write true or false, without quotes");
      std::get<Access<bool>>(row.place)(config, queue) = *flag;
      return ok_status();
    }
    case ValueType::kCount:
    case ValueType::kInteger:
      if (number == nullptr)
        return invalid_argument("the value is no whole number: give " + bounds_of(row) + ", without quotes");
      return store_number(row, *number, std::to_string(*number), row.place, config, queue);
    case ValueType::kMemory: {
      if (text == nullptr && (number == nullptr || *number < 0)) {
        return invalid_argument("the value is no memory size: write it as \"64G\" or \"512M\"");
      }
      const std::string shown = text != nullptr ? *text : std::to_string(*number);
      MUSTER_ASSIGN(const std::uint64_t mib, parse_memory_mib(shown));
      return store_number(row, static_cast<std::int64_t>(mib), shown, row.place, config, queue);
    }
    case ValueType::kDuration:
      return store_duration(row, std::get<Access<Duration>>(row.place)(config, queue), value);
    case ValueType::kEndpointList: {
      auto& place = std::get<Access<std::vector<std::string>>>(row.place)(config, queue);
      if (const auto* items = std::get_if<std::vector<std::string>>(&value)) return store_endpoints(place, *items);
      if (text != nullptr) return store_endpoints(place, {*text});
      return invalid_argument("the value is no list of addresses: write [\"tcp://HOST:PORT\"]");
    }
    case ValueType::kNameList: {
      auto& place = std::get<Access<std::vector<std::string>>>(row.place)(config, queue);
      if (const auto* items = std::get_if<std::vector<std::string>>(&value)) return store_names(place, *items);
      if (text == nullptr) return invalid_argument("the value is no list of names: write [\"one\", \"two\"]");
      MUSTER_ASSIGN(const RawValue items, raw_from_text(row, *text));
      return store_names(place, std::get<std::vector<std::string>>(items));
    }
    case ValueType::kString:
    case ValueType::kName:
    case ValueType::kPath:
    case ValueType::kTopology:
    case ValueType::kEndpoint:
    case ValueType::kNodeList:
    case ValueType::kChoice:
    case ValueType::kLicenses:
      if (text == nullptr) return invalid_argument("the value is no text: write it in quotes");
      return store_text(row, std::get<Access<std::string>>(row.place)(config, queue), *text, base_dir);
  }
  return ok_status();
}

std::string to_text(const Row& row, Config& writable, Named writable_queue) {
  if (const auto* access = std::get_if<Access<std::string>>(&row.place)) return (*access)(writable, writable_queue);
  if (const auto* access = std::get_if<Access<bool>>(&row.place)) {
    return (*access)(writable, writable_queue) ? "true" : "false";
  }
  if (const auto* access = std::get_if<Access<Duration>>(&row.place)) {
    return duration_text((*access)(writable, writable_queue));
  }
  if (const auto* access = std::get_if<Access<std::int64_t>>(&row.place)) {
    return std::to_string((*access)(writable, writable_queue));
  }
  if (const auto* access = std::get_if<Access<std::uint64_t>>(&row.place)) {
    const std::uint64_t number = (*access)(writable, writable_queue);
    return row.type == ValueType::kMemory ? format_memory_mib(number) : std::to_string(number);
  }
  std::string text;
  for (const std::string& item : std::get<Access<std::vector<std::string>>>(row.place)(writable, writable_queue)) {
    text += (text.empty() ? "" : ",") + item;
  }
  return text;
}

}  // namespace muster::config
