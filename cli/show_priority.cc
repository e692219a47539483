// muster show priority: the points of waiting jobs and their terms.
#include <algorithm>
#include <array>
#include <cstdio>
#include <tuple>

#include "cli/commands.h"
#include "cli/job_ids.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/table.h"
#include "cli/views.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

std::string points(std::int64_t q16) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2f", static_cast<double>(q16) / 65536);
  return text.data();
}

Table priorities_table(const std::vector<pb::PriorityView>& jobs) {
  Table table({{"JOB", true},
               {"USER", false, 8},
               {"ACCOUNT", false, 8},
               {"QUEUE", false, 5},
               {"TIER", true},
               {"POINTS", true},
               {"AGE", true},
               {"SIZE", true},
               {"QUEUE", true},
               {"QOS", true},
               {"FAIRSHARE", true},
               {"NICE", true}});
  for (const pb::PriorityView& job : jobs) {
    table.add({std::to_string(job.job()) + (job.array() != 0 ? "_[" + std::to_string(job.tasks()) + " tasks]" : ""),
               job.user(), job.account(), job.queue(), std::to_string(job.queue_priority()), points(job.points()),
               points(job.age()), points(job.size()), points(job.queue_factor()), points(job.qos_points()),
               points(job.fair_share()), points(job.nice())});
  }
  return table;
}

}  // namespace

int show_priorities(Client& client, const Parsed& parsed) {
  JobSelector selector;
  for (std::size_t i = 1; i < parsed.operands.size(); ++i) {
    auto items = parse_job_list(parsed.operands[i]);
    if (!items.ok()) return usage_error(items.error());
    std::move(items->begin(), items->end(), std::back_inserter(selector.items));
  }
  selector.user = parsed.value(OptionId::kUser);
  selector.queue = parsed.value(OptionId::kQueue);
  pb::Request request;
  wire::to_pb(selector, *request.mutable_priorities()->mutable_jobs());
  std::vector<pb::PriorityView> jobs;
  std::vector<std::string> notes;
  const Status status = client.call_parts(
      request,
      [&](pb::Reply& reply) -> Status {
        if (!reply.has_priorities())
          return make_error(ErrorCode::kCorrupt,
                            "the controller's answer is no list of points: are both of a like version?");
        for (pb::PriorityView& job : *reply.mutable_priorities()->mutable_jobs()) jobs.push_back(std::move(job));
        for (const std::string& note : reply.priorities().notes()) notes.push_back(note);
        return ok_status();
      },
      [&] {
        jobs.clear();
        notes.clear();
      });
  if (!status.ok()) return report_error(status.error());
  // As they are served; of one moment only where the answer had one part.
  std::stable_sort(jobs.begin(), jobs.end(), [](const pb::PriorityView& a, const pb::PriorityView& b) {
    return std::tuple(b.queue_priority(), b.points(), a.job()) < std::tuple(a.queue_priority(), a.points(), b.job());
  });
  if (parsed.has(OptionId::kJson)) {
    print(priorities_json(jobs));
  } else {
    print(priorities_table(jobs).text(output_width(), !parsed.has(OptionId::kNoHeader)));
  }
  for (const std::string& note : notes) error_line(note);
  return notes.empty() ? kExitOk : kExitRefused;
}

}  // namespace muster::cli
