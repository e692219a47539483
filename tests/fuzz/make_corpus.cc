// Writes seeds of the binary formats: make_fuzz_corpus DIR makes DIR/facts, DIR/messages, DIR/submit and
// DIR/shepherd_frames. The values are random but of a fixed seed, so the files change only when the formats do.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/shepherd_protocol.h"
#include "tests/support/random_model.h"

namespace {

using namespace muster;

class Corpus {
 public:
  explicit Corpus(std::filesystem::path root) : root_(std::move(root)) {}

  void write(const std::string& target, const std::string& name, const std::string& bytes) {
    std::filesystem::create_directories(root_ / target);
    std::ofstream out(root_ / target / name, std::ios::binary);
    out << bytes;
    if (!out.flush()) {
      std::fprintf(stderr, "cannot write below %s: check that the folder may be written\n", root_.c_str());
      std::exit(1);
    }
  }
  template <typename Message>
  void write_message(wire::MessageKind kind, const std::string& name, const Message& message) {
    write("messages", name, wire::header(kind) + message.SerializeAsString());
  }

 private:
  std::filesystem::path root_;
};

void write_facts(Corpus& corpus, test::RandomModel& random) {
  Facts all;
  for (std::size_t kind = 0; kind < std::variant_size_v<FactBody>; ++kind) {
    all.push_back({random.instant(), random.fact_body(kind)});
    corpus.write("facts", "kind" + std::to_string(kind), wire::encode_facts({all.back()}));
  }
  corpus.write("facts", "all", wire::encode_facts(all));
}

void write_client_messages(Corpus& corpus, test::RandomModel& random) {
  const auto request = [&](const std::string& name, auto fill) {
    pb::Request message;
    message.set_correlation(random.u64());
    fill(message);
    corpus.write_message(wire::MessageKind::kClientRequest, name, message);
  };
  request("ping", [](pb::Request& m) { m.mutable_ping(); });
  request("submit", [&](pb::Request& m) {
    wire::to_pb(random.request(), *m.mutable_submit()->mutable_request());
    wire::to_pb(random.spec(), *m.mutable_submit()->mutable_spec());
    m.mutable_submit()->set_script("#!/bin/sh\ntrue\n");
    m.mutable_submit()->set_environment(std::string("A=1\0B=2\0", 8));
  });
  request("cancel", [&](pb::Request& m) { wire::to_pb(random.selector(), *m.mutable_cancel()->mutable_jobs()); });
  request("hold", [&](pb::Request& m) { wire::to_pb(random.selector(), *m.mutable_hold()->mutable_jobs()); });
  request("jobs", [&](pb::Request& m) { wire::to_pb(random.selector(), *m.mutable_jobs()->mutable_jobs()); });
  request("history", [&](pb::Request& m) {
    wire::to_pb(random.selector_item(), *m.mutable_history()->add_items());
    m.mutable_history()->set_limit(10);
  });
  request("ticket", [](pb::Request& m) { m.mutable_ticket()->set_job(42); });
  request("drain", [](pb::Request& m) { m.mutable_drain()->add_nodes("n1"); });
  pb::Reply reply;
  reply.mutable_submit()->set_job(42);
  corpus.write_message(wire::MessageKind::kClientReply, "reply", reply);
}

void write_node_messages(Corpus& corpus, test::RandomModel& random) {
  pb::NodeMessage node;
  wire::to_pb(random.registration(), *node.mutable_registration());
  corpus.write_message(wire::MessageKind::kNodeMessage, "registration", node);
  for (int i = 0; i < 3; ++i) wire::to_pb(random.report(), *node.mutable_reports()->add_reports());
  corpus.write_message(wire::MessageKind::kNodeMessage, "reports", node);
  node.mutable_heartbeat()->set_sequence(7);
  corpus.write_message(wire::MessageKind::kNodeMessage, "heartbeat", node);

  pb::ControllerMessage controller;
  controller.set_term(3);
  wire::to_pb(random.launch(), *controller.mutable_launches()->add_launches()->mutable_order());
  controller.mutable_launches()->add_blobs()->set_data("#!/bin/sh\n");
  corpus.write_message(wire::MessageKind::kControllerMessage, "launches", controller);
  wire::to_pb(random.stop(), *controller.mutable_stop());
  corpus.write_message(wire::MessageKind::kControllerMessage, "stop", controller);
  controller.mutable_registered()->set_cluster("main");
  corpus.write_message(wire::MessageKind::kControllerMessage, "registered", controller);

  pb::NodeRequest request;
  request.mutable_run()->mutable_ticket()->set_body("body");
  request.mutable_run()->mutable_spec()->add_argv("true");
  corpus.write_message(wire::MessageKind::kNodeRequest, "run", request);
  request.mutable_peer_start()->mutable_spec()->add_environment("A=1");
  corpus.write_message(wire::MessageKind::kNodeRequest, "peer_start", request);
  pb::NodeReply reply;
  wire::to_pb(random.outcome(), *reply.mutable_task_ended()->mutable_outcome());
  corpus.write_message(wire::MessageKind::kNodeReply, "task_ended", reply);
}

// What a user really submits, so that damage reaches beyond the first check.
JobSpec plausible_spec() {
  JobSpec spec;
  spec.name = "job";
  spec.user = "ann";
  spec.ntasks = 4;
  spec.work_dir = "/home/ann";
  return spec;
}

void write_submissions(Corpus& corpus) {
  const auto write = [&](const std::string& name, auto change) {
    JobSpec spec = plausible_spec();
    change(spec);
    pb::JobSpec message;
    wire::to_pb(spec, message);
    corpus.write("submit", name, message.SerializeAsString());
  };
  write("plain", [](JobSpec&) {});
  write("array", [](JobSpec& s) { s.array = ArraySpec{{{0, 9, 1}}, 3}; });
  write("nodes", [](JobSpec& s) {
    s.nodes_min = s.nodes_max = 2;
    s.ntasks_per_node = 2;
    s.cpus_per_task = 2;
    s.mem_per_cpu_mib = 100;
  });
  write("gpus", [](JobSpec& s) {
    s.gpus_per_node = 2;
    s.mem_per_gpu_mib = 1000;
    s.nodelist = {"n2"};
  });
  write("gpus_total", [](JobSpec& s) { s.gpus = 4, s.exclusive = true; });
  write("run", [](JobSpec& s) {
    s.kind = JobKind::kRun;
    s.gpus_per_task = 1;
    s.exclude = {"n1"};
    s.time_limit = Duration::from_s(60);
  });
  write("later", [](JobSpec& s) {
    s.begin = Instant::from_s(2'000'000'000);
    s.hold = true;
    s.nice = 100;
    s.queue = "main";
    s.mem_per_node_mib = 1024;
  });
}

void write_frames(Corpus& corpus) {
  using namespace noded;
  LaunchFrame launch;
  launch.name = "42.1";
  launch.directory = "/var/spool/42.1";
  launch.groups = {100, 101};
  launch.cpus = {0xff};
  launch.has_script = true;
  launch.args = {"a", ""};
  launch.environment = {"A=1"};
  StepStartFrame step;
  step.step = 1;
  step.argv = {"hostname"};
  step.tasks = {{0, {"RANK=0"}, {1}}, {1, {"RANK=1"}, {2}}};
  StepOutputFrame output;
  output.data = "hello\n";
  std::string all;
  int number = 0;
  for (const Frame& frame :
       {Frame(launch), Frame(StopFrame{15, 0}), Frame(step), Frame(output), Frame(EndedFrame{}), Frame(StateFrame{}),
        Frame(StepResumeFrame{1, {{0, 1, 6}}}), Frame(StepInputFrame{1, 0, "x", true}), Frame(AttachFrame{}),
        Frame(StepProgramsFrame{1, {{0, {"a", "b"}}}})}) {
    corpus.write("shepherd_frames", "frame" + std::to_string(number++), encode_frame(frame));
    all += encode_frame(frame);
  }
  corpus.write("shepherd_frames", "all", all);
  Outcome outcome;
  outcome.detail = "no such file";
  corpus.write("shepherd_frames", "outcome", encode_outcome(outcome));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_fuzz_corpus DIR\n");
    return 2;
  }
  Corpus corpus(argv[1]);
  test::RandomModel random(1);
  write_facts(corpus, random);
  write_client_messages(corpus, random);
  write_node_messages(corpus, random);
  write_submissions(corpus);
  write_frames(corpus);
  return 0;
}
