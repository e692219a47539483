// drain, resume, keygen, version.
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/query.h"
#include "cli/report.h"
#include "cli/table.h"
#include "lib/base/text.h"
#include "lib/io/keys.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

int drain_or_resume(const Parsed& parsed, bool drain) {
  const std::string name = drain ? "drain" : "resume";
  if (parsed.operands.empty()) return usage_error(name + " needs nodes: muster " + name + " n[1-4,7]");
  pb::Request request;
  pb::DrainRequest& body = drain ? *request.mutable_drain() : *request.mutable_resume();
  for (const std::string& operand : parsed.operands) {
    const auto names = expand_node_list(operand);
    if (!names.ok()) return usage_error(names.error());
    for (const std::string& node : *names) body.add_nodes(node);
  }
  if (drain) {
    const std::string reason = parsed.value(OptionId::kReason);
    if (trim(reason).empty()) return usage_error("--reason is missing: say why, for those who ask later");
    if (!is_valid_utf8(reason)) return usage_error("--reason: the text is no UTF-8: write it in UTF-8");
    body.set_reason(reason);
  }
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  const auto reply = (*client)->call(request);
  if (!reply.ok()) return report_error(reply.error());
  return report_operation(reply->operation(), parsed.has(OptionId::kJson));
}

}  // namespace

int command_drain(const Parsed& parsed) {
  return drain_or_resume(parsed, true);
}
int command_resume(const Parsed& parsed) {
  return drain_or_resume(parsed, false);
}

int command_keygen(const Parsed& parsed) {
  if (parsed.operands.size() != 1) return usage_error("keygen needs the kind of key: muster keygen cluster|node|user");
  const auto kind = io::parse_key_kind(parsed.operands.front());
  if (!kind.ok()) return usage_error(kind.error());
  const std::string path = parsed.value(OptionId::kOut, "muster-" + parsed.operands.front() + ".key");
  if (auto status = io::write_key_files(path, io::generate_key(*kind)); !status.ok())
    return report_error(make_error(ErrorCode::kRefused, status.error().message));
  print("Wrote " + printable(path) + " (keep it secret) and " + printable(path) + ".pub\n");
  return kExitOk;
}

int command_version(const Parsed& parsed) {
  if (parsed.has(OptionId::kJson)) {
    print(version_json(kVersionText));
  } else {
    print("muster " + std::string(kVersionText) + "\n");
  }
  return kExitOk;
}

}  // namespace muster::cli
