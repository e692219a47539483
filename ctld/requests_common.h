// What the parts of Requests share.
#pragma once

#include <string>

#include "ctld/requests.h"

namespace muster::ctld {

inline std::string id_text(JobId id) {
  return "job " + std::to_string(id.value);
}

inline Error no_such_job(JobId id) {
  return make_error(ErrorCode::kNotFound, id_text(id) + ": no such job: see `muster queue` and `muster history`");
}

inline bool owns(const Caller& caller, const JobSpec& spec) {
  return caller.admin || caller.user == spec.user;
}

// Checks the queue's name and bounds the tasks that are named.
Result<JobSelector> read_selector(const pb::JobSelector& in, const sched::Policy& policy);

}  // namespace muster::ctld
