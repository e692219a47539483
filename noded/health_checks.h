// The checks of a node's health that look at its disks, memory and GPUs. They may hang (a file system that does not
// answer), so they run in a process of their own (noded/health_runner.h), never in the daemon. Tests call them directly.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/model/hardware.h"
#include "lib/model/health.h"

namespace muster::noded {

// What to look at; what is empty or 0 is not looked at. A GPU or a file is named here only if it was there when the daemon
// began, or if the configuration names it.
struct HealthChecks {
  std::vector<std::string> dirs = {};  // there must be room, and a file can be written
  std::uint64_t disk_min_mib = 0;
  std::uint64_t inodes_min = 0;
  std::uint64_t memory_mib = 0;               // the machine must have
  std::vector<std::string> gpus = {};         // PCI addresses
  std::vector<std::string> gpu_devices = {};  // paths
  std::string topology = {};              // an hwloc XML file of a pretended machine: its GPUs and memory are looked at
  std::uint64_t topology_memory_mib = 0;  // what it had when the daemon began
  std::vector<std::string> topology_gpus = {};
  std::string program = {};
  std::vector<std::string> program_environment = {};  // NAME=value, all of it
  std::int64_t timeout_s = 0;
  friend bool operator==(const HealthChecks&, const HealthChecks&) = default;
};

// For the command line of the process that runs them, and back.
std::vector<std::string> to_arguments(const HealthChecks& checks);
Result<HealthChecks> from_arguments(const std::vector<std::string>& arguments);

// Fills in what of the node's hardware is to be looked at.
void watch_hardware(const NodeHardware& hardware, const std::string& topology, std::uint64_t configured_memory_mib,
                    HealthChecks& checks);

// One folder: space, inodes, and whether a file can be written.
std::vector<HealthProblem> check_folder(const std::string& dir, std::uint64_t disk_min_mib, std::uint64_t inodes_min);
std::vector<HealthProblem> check_memory(std::uint64_t memory_mib);
std::vector<HealthProblem> check_gpus(const std::vector<std::string>& pci_addresses,
                                      const std::vector<std::string>& devices);
// A pretended machine that has lost something since.
std::vector<HealthProblem> check_topology(const HealthChecks& checks);

// All of the above.
std::vector<HealthProblem> run_checks(const HealthChecks& checks);

}  // namespace muster::noded
