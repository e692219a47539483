#include "lib/model/job_change.h"

#include <algorithm>

namespace muster {
namespace {

void set_field(JobSpec& spec, const JobSpec& from, SpecField field) {
  switch (field) {
    case SpecField::kName:
      spec.name = from.name;
      return;
    case SpecField::kComment:
      spec.comment = from.comment;
      return;
    case SpecField::kTimeLimit:
      spec.time_limit = from.time_limit;
      return;
    case SpecField::kTimeMin:
      spec.time_min = from.time_min;
      return;
    case SpecField::kDeadline:
      spec.deadline = from.deadline;
      return;
    case SpecField::kBegin:
      spec.begin = from.begin;
      return;
    case SpecField::kDependency:
      spec.dependency = from.dependency;
      return;
    case SpecField::kNice:
      spec.nice = from.nice;
      return;
    case SpecField::kQueue:
      spec.queue = from.queue;
      return;
    case SpecField::kAccount:
      spec.account = from.account;
      return;
    case SpecField::kQos:
      spec.qos = from.qos;
      return;
    case SpecField::kNodes:
      spec.nodes_min = from.nodes_min;
      spec.nodes_max = from.nodes_max;
      return;
    case SpecField::kNtasks:
      spec.ntasks = from.ntasks;
      return;
    case SpecField::kNtasksPerNode:
      spec.ntasks_per_node = from.ntasks_per_node;
      return;
    case SpecField::kCpusPerTask:
      spec.cpus_per_task = from.cpus_per_task;
      return;
    case SpecField::kMemory:
      spec.mem_per_node_mib = from.mem_per_node_mib;
      spec.mem_per_cpu_mib = from.mem_per_cpu_mib;
      spec.mem_per_gpu_mib = from.mem_per_gpu_mib;
      return;
    case SpecField::kGpus:
      spec.gpus = from.gpus;
      return;
    case SpecField::kGpusPerNode:
      spec.gpus_per_node = from.gpus_per_node;
      return;
    case SpecField::kGpusPerTask:
      spec.gpus_per_task = from.gpus_per_task;
      return;
    case SpecField::kExclusive:
      spec.exclusive = from.exclusive;
      return;
    case SpecField::kNodelist:
      spec.nodelist = from.nodelist;
      return;
    case SpecField::kExclude:
      spec.exclude = from.exclude;
      return;
    case SpecField::kRequeue:
      spec.requeue = from.requeue;
      spec.requeue_given = true;
      return;
    case SpecField::kOutput:
      spec.stdout_path = from.stdout_path;
      return;
    case SpecField::kError:
      spec.stderr_path = from.stderr_path;
      return;
    case SpecField::kConstraint:
      spec.constraint = from.constraint;
      return;
    case SpecField::kSwitches:
      spec.switches = from.switches;
      spec.switches_wait = from.switches_wait;
      return;
    case SpecField::kSegment:
      spec.segment = from.segment;
      return;
    case SpecField::kReservation:
      spec.reservation = from.reservation;
      return;
    case SpecField::kLicenses:
      spec.licenses = from.licenses;
      return;
    case SpecField::kLocality:
      spec.locality = from.locality;
      return;
    case SpecField::kArrayLimit:
      if (spec.array && from.array) {
        spec.array->max_running = from.array->max_running;
      }
      return;
  }
}

// What was filled in for a count of nodes or tasks that nobody asked for.
void forget_derived_size(JobSpec& spec, const JobSpec& before, const JobChange& change) {
  const bool nodes = change.has(SpecField::kNodes);
  const bool tasks = change.has(SpecField::kNtasks);
  const bool per_node = change.has(SpecField::kNtasksPerNode);
  if (!tasks && (nodes || per_node)) {
    const std::uint64_t derived = std::uint64_t{before.nodes_min} * std::max<std::uint32_t>(1, before.ntasks_per_node);
    if (before.ntasks == derived) {
      spec.ntasks = 0;
    }
  }
  // A number of nodes that was asked for is exact, or a range; one that follows from the tasks has no upper end.
  if (!nodes && before.nodes_max == 0) {
    spec.nodes_min = 0;
  }
}

}  // namespace

bool JobChange::has(SpecField field) const {
  return std::find(fields.begin(), fields.end(), field) != fields.end();
}

std::string_view option_of(SpecField field) {
  switch (field) {
    case SpecField::kName:
      return "--job-name";
    case SpecField::kComment:
      return "--comment";
    case SpecField::kTimeLimit:
      return "--time";
    case SpecField::kTimeMin:
      return "--time-min";
    case SpecField::kDeadline:
      return "--deadline";
    case SpecField::kBegin:
      return "--begin";
    case SpecField::kDependency:
      return "--dependency";
    case SpecField::kNice:
      return "--nice";
    case SpecField::kQueue:
      return "--queue";
    case SpecField::kAccount:
      return "--account";
    case SpecField::kQos:
      return "--qos";
    case SpecField::kNodes:
      return "--nodes";
    case SpecField::kNtasks:
      return "--ntasks";
    case SpecField::kNtasksPerNode:
      return "--ntasks-per-node";
    case SpecField::kCpusPerTask:
      return "--cpus-per-task";
    case SpecField::kMemory:
      return "--mem";
    case SpecField::kGpus:
      return "--gpus";
    case SpecField::kGpusPerNode:
      return "--gpus-per-node";
    case SpecField::kGpusPerTask:
      return "--gpus-per-task";
    case SpecField::kExclusive:
      return "--exclusive";
    case SpecField::kNodelist:
      return "--nodelist";
    case SpecField::kExclude:
      return "--exclude";
    case SpecField::kRequeue:
      return "--requeue";
    case SpecField::kOutput:
      return "--output";
    case SpecField::kError:
      return "--error";
    case SpecField::kArrayLimit:
      return "--array";
    case SpecField::kConstraint:
      return "--constraint";
    case SpecField::kSwitches:
      return "--switches";
    case SpecField::kSegment:
      return "--segment";
    case SpecField::kReservation:
      return "--reservation";
    case SpecField::kLicenses:
      return "--licenses";
    case SpecField::kLocality:
      return "--locality";
  }
  return "";
}

bool may_change_while_running(SpecField field) {
  return field == SpecField::kTimeLimit || field == SpecField::kName || field == SpecField::kComment;
}

JobSpec with_change(const JobSpec& spec, const JobChange& change) {
  JobSpec changed = spec;
  for (const SpecField field : change.fields) {
    set_field(changed, change.values, field);
  }
  forget_derived_size(changed, spec, change);
  return changed;
}

}  // namespace muster
