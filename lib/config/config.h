// The configuration: one TOML file for each daemon and user, checked against the one table of keys in config.cc.
//
// A key's name, type, unit, default, bounds and meaning stand in one row of that table; from it come the checks, what
// `muster show config` prints and the reference page. Unknown sections and keys and bad values are errors that name
// file, line and column and the nearest known name. Relative paths are relative to the configuration file's folder.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/model/topology.h"

namespace muster::config {

inline constexpr std::size_t kConfigBytesMax = 4 << 20;  // far beyond any real file; bounds the parser's memory
inline constexpr std::size_t kQueuesMax = 1'000;
// Features, switches, blocks.
inline constexpr std::size_t kNamedSectionsMax = kTopologyDomainsMax;
inline constexpr const char* kDefaultPath = "/etc/muster/muster.toml";

struct ClusterSection {
  std::string name;
  std::vector<std::string> controller;  // "tcp://host:port", tried in turn
  std::string controller_key;           // file with the controller's public key
  std::string key;                      // this daemon's or user's own key file; empty: none given
};

struct ControllerSection {
  std::string listen;
  std::string state_dir;
  std::string authorized;
  std::uint64_t snapshot_every_batches = 0;
  std::uint64_t batch_facts_max = 0;
  Duration dedup_window;
  Duration node_timeout;
  std::uint64_t queue_max_jobs = 0;
  Duration client_timeout;
  std::uint64_t client_queue_max = 0;
  std::uint64_t message_bytes_max = 0;
  std::uint64_t script_bytes_max = 0;
  std::uint64_t node_failures_max = 0;  // 0: never
  Duration node_rest;
  Duration node_suspect_time;
};

struct NodeSection {
  std::string name;       // empty: the host name
  std::string listen;     // ROUTER for peers and streams
  std::string advertise;  // where others reach `listen`; empty: the host name and the bound port
  std::string spool_dir;
  std::string run_dir;
  std::string topology;          // hwloc XML file, synthetic text, each optionally with "+gpu:K"; empty: this machine
  std::uint64_t memory_mib = 0;  // key `memory`; 0: discovered
  Duration heartbeat_interval;
  Duration kill_grace;
  std::uint64_t output_chunk_bytes = 0;  // key `output_chunk`
  bool enforce_memory = false;
  std::uint64_t pids_max = 0;
  std::string gpu_devices;
  std::string isolate;   // auto, on, off
  std::string cgroup;    // auto, v1, v2, off, or the path of a delegated group
  std::string features;  // names of features that the node has, separated by commas
  std::uint64_t system_cores = 0;
  std::string smt;  // use, leave
  std::string gpu_partitions;
  std::string gpu_partition_uuids;
  Duration health_interval;
  std::string health_program;  // empty: none
  Duration health_timeout;
  std::uint64_t health_disk_min_mib = 0;  // key `health_disk_min`; 0: not looked at
  std::uint64_t health_inodes_min = 0;    // 0: not looked at
  std::vector<std::string> health_dirs;   // beside the spool
  Duration health_clock_max;              // 0: not looked at
  std::string prolog;                     // empty: none; also epilog
  Duration prolog_timeout;
  std::string epilog;
  Duration epilog_timeout;
};

struct JobSection {
  Duration default_time;
  Duration max_time;
  std::string default_queue;
  bool requeue = true;
  std::uint64_t node_faults_max = 0;  // 0: never
};

struct SchedulingSection {
  std::string backfill;  // gaps, none
  std::uint64_t promises = 0;
  std::uint64_t age_exponent = 0;
  std::string licenses;  // "matlab:4,ansys:10"; empty: none
};

// Weights of the terms of a job's points.
struct PrioritySection {
  std::int64_t age_weight = 0;
  std::int64_t size_weight = 0;
  std::int64_t queue_weight = 0;
  std::int64_t qos_weight = 0;
  std::int64_t fair_share_weight = 0;
};

struct AccountingSection {
  bool enforce = false;
  std::uint64_t cpu_weight = 0;  // hundredths
  std::uint64_t gpu_weight = 0;
  std::uint64_t memory_weight = 0;
  Duration half_life;
};

struct QueueSection {
  std::int64_t priority = 0;
  std::int64_t factor = 0;
  std::string nodes;  // a node list; empty: every node
  Duration max_time;
  Duration default_time;     // zero: [job] default_time
  std::string preempt_mode;  // off, requeue, cancel, checkpoint, suspend
  Duration preempt_grace;
  Duration preempt_exempt;
  std::string state;      // up, drain (no new jobs), down (nothing starts), inactive (both)
  std::string placement;  // pack, spread
  // Of each job; 0: no limit.
  std::uint64_t min_nodes = 0;
  std::uint64_t max_nodes = 0;
  std::uint64_t max_cpus = 0;
  std::uint64_t max_gpus = 0;
  std::uint64_t default_mem_per_cpu_mib = 0;  // key `default_mem_per_cpu`; 0: the job's share of its nodes
  std::vector<std::string> allow_accounts;    // empty: all
  std::vector<std::string> deny_accounts;
  std::vector<std::string> allow_users;
  std::vector<std::string> allow_qos;
};

// [feature.NAME]
struct FeatureSection {
  std::string nodes;  // a node list
};

struct TopologySection {
  std::string kind;         // none, tree, block
  std::string block_sizes;  // "4,8,16"; empty: all that the blocks allow
};
// [switch.NAME]
struct SwitchSection {
  std::string nodes;
  std::string switches;  // names, written as a node list
  std::string place;     // "muster.toml:12:3"
};
// [block.NAME]
struct BlockSection {
  std::string nodes;
  std::string place;
};

struct SlurmSection {
  bool names = false;  // Slurm's command names come first in a job's PATH
  std::string version;
};

struct LogSection {
  std::string level;
  std::string file;  // empty: standard error
};

struct Config {
  ClusterSection cluster;
  ControllerSection controller;
  NodeSection node;
  JobSection job;
  SchedulingSection scheduling;
  PrioritySection priority;
  AccountingSection accounting;
  std::map<std::string, QueueSection> queues;  // never empty: without a [queue.NAME] there is `job.default_queue`
  TopologySection topology;
  std::map<std::string, FeatureSection> features;
  std::map<std::string, SwitchSection> switches;
  std::vector<std::string> block_order;  // as the file has them
  std::map<std::string, BlockSection> blocks;
  SlurmSection slurm;
  LogSection log;

  std::string path;                        // the file it came from; empty: none
  std::vector<std::string> explicit_keys;  // "section.key" of all that file and overrides set, sorted
};

// "section.key=value", as in --set; the value without TOML's quotes, lists separated by commas. Relative paths in them
// are relative to the configuration file's folder, too.
using Overrides = std::vector<std::string>;

// The file at `path` with `overrides` applied.
Result<Config> load(const std::string& path, const Overrides& overrides = {});
// The same of text; `file` is its name in messages. Relative paths are relative to `base_dir`.
Result<Config> parse(std::string_view text, const std::string& file, const std::string& base_dir,
                     const Overrides& overrides = {});
// The network as it is configured, checked.
Result<Topology> topology_of(const Config& config);
// The nodes of each feature.
Result<std::map<std::string, std::vector<std::string>>> features_of(const Config& config);
// [node] features.
Result<std::vector<std::string>> node_features_of(const Config& config);

// Everything at its default.
Config defaults();
// Changes one key: "node.kill_grace=5s".
Status set_override(Config& config, std::string_view assignment);
// Changes several keys, which need to fit each other only in the end: a network and its switches.
Status set_overrides(Config& config, const Overrides& assignments);

// Keys that were changed while the controller runs, with their values: "queue.main.priority". "queue.NAME" means that the
// queue exists although no file names it.
using Settings = std::map<std::string, std::string>;
// Whether the key can be changed at run time; the error names the nearest one.
Status check_setting(std::string_view key);
// The value of the key "queue.NAME".
inline constexpr const char* kQueueMade = "made";
// The file's configuration with the settings applied, which win. The first one that cannot stand is the error.
Result<Config> with_settings(const Config& file, const Settings& settings);
// The same without those that cannot stand, each of which is told in `problems`: for a start with a file that has changed.
Config with_usable_settings(const Config& file, const Settings& settings, std::vector<std::string>& problems);

// The file to read: `option` (--config) if given, else $MUSTER_CONFIG, else kDefaultPath. kNotFound when that file does
// not exist, saying what to do.
Result<std::string> find_config_path(const std::string& option);

enum class ValueType {
  kString,
  kName,      // 1 to 63 letters, digits, '_', '.', '-'
  kPath,      // relative to the configuration file's folder
  kTopology,  // as kPath when it names an .xml file
  kBool,
  kCount,
  kInteger,
  kDuration,  // "90s", "HH:MM:SS"; a bare number counts the key's unit
  kMemory,    // "4G"; a bare number is MiB
  kEndpoint,  // "tcp://host:port"
  kEndpointList,
  kNodeList,
  kChoice,
  kNameList,
  kLicenses,  // "matlab:4,ansys:10"
};

// One row of the table.
struct KeyInfo {
  std::string_view section;  // "queue.NAME" for the queues, likewise feature, switch and block
  std::string_view key;
  ValueType type;
  std::string_view unit;           // "" where it has none
  std::string_view default_value;  // as it would be written in an override
  std::string bounds;              // "1 .. 1000000"; the choices of a kChoice separated by '|'; "" where there are none
  std::string_view meaning;
  std::string_view used_by;  // "ctld", "noded", "muster", separated by commas
  bool reloadable;
};
std::vector<KeyInfo> keys();

struct ShownKey {
  std::string name;  // "section.key"
  std::string value;
  bool is_default = false;
  std::string unit;
  std::string meaning;
};
// Every key with its value in this configuration, in the table's order.
std::vector<ShownKey> show(const Config& config);

// The reference page of all keys, Markdown.
std::string reference_markdown();

// The text of a configuration file that sets exactly these, ("section.key", value as in an override), with TOML's
// quoting. Unknown keys and bad values are refused.
Result<std::string> format_config(const std::vector<std::pair<std::string, std::string>>& values);

}  // namespace muster::config
