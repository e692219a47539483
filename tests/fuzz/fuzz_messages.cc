// What arrives on a socket: the input is the header and after it the body. Everything in the message that has a value
// in lib/model is read, and what could be read must survive being written again.
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "tests/fuzz/fuzz.h"

namespace muster {
namespace {

template <typename Message>
void check_value(const Message& message) {
  const auto value = wire::from_pb(message);
  if (!value.ok()) {
    fuzz::check_error(value.error());
    MUSTER_CHECK(value.error().code == ErrorCode::kCorrupt);
    return;
  }
  Message written;
  wire::to_pb(*value, written);
  Message parsed;
  MUSTER_CHECK(parsed.ParseFromString(written.SerializeAsString()));
  const auto again = wire::from_pb(parsed);
  MUSTER_CHECK(again.ok() && *again == *value);
}

void check_request(const pb::Request& message) {
  check_value(message.submit().spec());
  for (const pb::JobSelector& jobs : {message.cancel().jobs(), message.hold().jobs(), message.jobs().jobs()}) {
    check_value(jobs);
  }
  for (const pb::SelectorItem& item : message.history().items()) check_value(item);
}

void check_node_message(const pb::NodeMessage& message) {
  check_value(message.registration());
  for (const pb::AttemptReport& report : message.reports().reports()) check_value(report);
}

void check_controller_message(const pb::ControllerMessage& message) {
  for (const pb::Launch& launch : message.launches().launches()) check_value(launch.order());
  check_value(message.stop());
}

void check_node_reply(const pb::NodeReply& message) {
  check_value(message.task_ended().outcome());
  check_value(message.peer_task_ended().ended().outcome());
}

template <typename Message>
void read(std::string_view body, void (*check)(const Message&)) {
  Message message;
  if (message.ParseFromArray(body.data(), static_cast<int>(body.size()))) check(message);
}

}  // namespace
}  // namespace muster

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const std::string_view bytes = fuzz::text_of(data, size);
  const std::string_view header = bytes.substr(0, 5);
  const std::string_view body = bytes.substr(header.size());
  const auto kind = wire::parse_header(header);
  if (!kind.ok()) {
    fuzz::check_error(kind.error());
    return 0;
  }
  MUSTER_CHECK(wire::header(*kind) == header);
  switch (*kind) {
    case wire::MessageKind::kClientRequest:
      read(body, check_request);
      break;
    case wire::MessageKind::kClientReply:
      read<pb::Reply>(body, [](const pb::Reply&) {});
      break;
    case wire::MessageKind::kNodeMessage:
      read(body, check_node_message);
      break;
    case wire::MessageKind::kControllerMessage:
      read(body, check_controller_message);
      break;
    case wire::MessageKind::kNodeRequest:
      read<pb::NodeRequest>(body, [](const pb::NodeRequest&) {});
      break;
    case wire::MessageKind::kNodeReply:
      read(body, check_node_reply);
      break;
  }
  return 0;
}
