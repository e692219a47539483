// The JSON of accounts, users, QOS and points. Fractions are numbers between 0 and 1.
#include <nlohmann/json.hpp>

#include "cli/json.h"
#include "lib/model/accounting.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

double from_q16(std::int64_t value) {
  return static_cast<double>(value) / 65536;
}

Json texts(const google::protobuf::RepeatedPtrField<std::string>& items) {
  Json list = Json::array();
  for (const std::string& item : items) list.push_back(item);
  return list;
}

// No key: no limit.
Json limits_json(const pb::UseLimits& in) {
  Json out = Json::object();
  if (in.has_jobs()) out["jobs"] = in.jobs();
  if (in.has_pending()) out["pending"] = in.pending();
  if (in.has_cpus()) out["cpus"] = in.cpus();
  if (in.has_gpus()) out["gpus"] = in.gpus();
  if (in.has_nodes()) out["nodes"] = in.nodes();
  if (in.has_cpu_minutes()) out["cpu_minutes"] = in.cpu_minutes();
  return out;
}
Json limits_json(const pb::JobLimits& in) {
  Json out = Json::object();
  if (in.has_time_us()) out["time_s"] = in.time_us() / 1'000'000;
  if (in.has_cpus()) out["cpus"] = in.cpus();
  if (in.has_gpus()) out["gpus"] = in.gpus();
  if (in.has_nodes()) out["nodes"] = in.nodes();
  return out;
}

Json use_json(const pb::InUse& in) {
  Json out = {{"jobs", in.jobs()}, {"pending", in.pending()}, {"cpus", in.cpus()},
              {"gpus", in.gpus()}, {"nodes", in.nodes()},     {"cpu_minutes", in.cpu_minutes()}};
  if (in.endless()) out["endless"] = true;
  return out;
}

void put_standing(Json& out, const pb::FairShareView& in) {
  out["used_cpu_seconds"] = in.used_cpu_seconds();
  out["shares_fraction"] = from_q16(in.shares_fraction());
  out["usage_fraction"] = from_q16(in.usage_fraction());
  out["effective_usage"] = from_q16(in.effective_usage());
  out["fair_share"] = from_q16(in.factor());
}

Json account_json(const pb::AccountView& view) {
  const pb::Account& in = view.account();
  Json out = {{"name", in.name()}};
  if (!in.parent().empty()) out["parent"] = in.parent();
  out["shares"] = in.shares();
  out["allowed_qos"] = texts(in.allowed_qos());
  if (!in.default_qos().empty()) out["default_qos"] = in.default_qos();
  out["limits"] = limits_json(in.all());
  out["user_limits"] = limits_json(in.per_user());
  out["job_limits"] = limits_json(in.job());
  out["in_use"] = use_json(view.use());
  put_standing(out, view.fair_share());
  return out;
}

Json user_json(const pb::UserView& in) {
  Json out = {{"name", in.name()}};
  if (!in.default_account().empty()) out["default_account"] = in.default_account();
  out["allowed_qos"] = texts(in.allowed_qos());
  Json places = Json::array();
  for (const pb::AssociationView& view : in.associations()) {
    Json place = {{"account", view.association().account()}, {"shares", view.association().shares()}};
    place["limits"] = limits_json(view.association().all());
    place["job_limits"] = limits_json(view.association().job());
    place["in_use"] = use_json(view.use());
    put_standing(place, view.fair_share());
    places.push_back(std::move(place));
  }
  out["accounts"] = std::move(places);
  return out;
}

Json qos_json(const pb::QosView& view) {
  const pb::Qos& in = view.qos();
  Json out = {{"name", in.name()}, {"priority", in.priority()}, {"usage_factor_percent", in.usage_factor()}};
  out["preempts"] = texts(in.preempts());
  out["preempt_mode"] = std::string(to_string(
      static_cast<QosPreempt>(std::min(in.preempt_mode(), static_cast<std::uint32_t>(QosPreempt::kSuspend)))));
  if (in.preempt_grace_us() != 0) out["preempt_grace_s"] = in.preempt_grace_us() / 1'000'000;
  out["limits"] = limits_json(in.all());
  out["user_limits"] = limits_json(in.per_user());
  out["account_limits"] = limits_json(in.per_account());
  out["job_limits"] = limits_json(in.job());
  out["in_use"] = use_json(view.use());
  return out;
}

}  // namespace

std::string accounts_json(const pb::AccountingList& list) {
  Json items = Json::array();
  for (const pb::AccountView& view : list.accounts()) items.push_back(account_json(view));
  return dump({{"accounts", std::move(items)}});
}
std::string users_json(const pb::AccountingList& list) {
  Json items = Json::array();
  for (const pb::UserView& view : list.users()) items.push_back(user_json(view));
  return dump({{"users", std::move(items)}});
}
std::string qos_list_json(const pb::AccountingList& list) {
  Json items = Json::array();
  for (const pb::QosView& view : list.qos()) items.push_back(qos_json(view));
  return dump({{"qos", std::move(items)}});
}

std::string priorities_json(const std::vector<pb::PriorityView>& jobs) {
  Json items = Json::array();
  for (const pb::PriorityView& in : jobs) {
    Json out = {{"job", in.job()}, {"tasks", in.tasks()}, {"user", in.user()}, {"queue", in.queue()}};
    if (!in.account().empty()) out["account"] = in.account();
    if (!in.qos().empty()) out["qos"] = in.qos();
    out["queue_priority"] = in.queue_priority();
    out["points"] = from_q16(in.points());
    out["terms"] = {{"age", from_q16(in.age())},
                    {"size", from_q16(in.size())},
                    {"queue", from_q16(in.queue_factor())},
                    {"qos", from_q16(in.qos_points())},
                    {"fair_share", from_q16(in.fair_share())},
                    {"nice", from_q16(in.nice())}};
    out["fair_share_factor"] = from_q16(in.fair_share_factor());
    items.push_back(std::move(out));
  }
  return dump({{"priorities", std::move(items)}});
}

}  // namespace muster::cli
