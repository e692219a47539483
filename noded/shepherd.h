// Shepherd: supervises one attempt on one node, from its launch to "nothing is left", and outlives noded.
//
// One thread, one epoll loop, no libraries beyond lib/base: it is started for each attempt. It serves one connection
// at a time: the socket pair passed at the spawn, later whoever connects to its socket (only its own user may). What
// cannot be sent waits; when too much waits, the tasks' pipes are not read, and the tasks wait too.
//
// Order at the end: every process is gone, the cgroup is removed, the outcome is on disk, then EndedFrame is sent. An
// outcome that cannot be written is sent all the same, and the process stays until it is written or nobody can want it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "noded/enforcer.h"
#include "noded/job_namespace.h"
#include "noded/process_tree.h"
#include "noded/shepherd_protocol.h"
#include "noded/task.h"

namespace muster::noded {

class Shepherd {
 public:
  // `connection` is noded's end; owned from now on.
  explicit Shepherd(int connection);
  ~Shepherd();
  Shepherd(const Shepherd&) = delete;
  Shepherd& operator=(const Shepherd&) = delete;

  // Until the attempt is over, or until it is clear that it is not ours to start. The process's exit status.
  int run();

 private:
  struct Output {
    int fd = -1;
    bool watched = false;
    std::uint64_t offset = 0;  // bytes read so far
  };
  struct Task {
    std::uint32_t step = ProcessTree::kNoStep;
    std::uint32_t rank = 0;
    pid_t pid = 0;
    int status_fd = -1;
    bool exited = false;
    bool reported = false;
    bool failed = false;  // to start; `outcome` says why
    int wait_status = 0;
    Outcome outcome;
    TaskSpec spec;  // only until the start is decided
    int in = -1;
    bool in_watched = false;
    std::string in_waiting;
    bool in_eof = false;
    std::uint64_t in_taken_muted = 0;  // not yet said, because no noded listened
    Output outputs[2];
  };
  struct Step {
    std::vector<std::uint64_t> tasks;  // numbers in tasks_
    std::uint64_t window = kInitialCreditBytes;
    std::int64_t credit = 0;               // window - cost of what is kept, and the part of a credit that no frame used
    std::deque<StepOutputFrame> kept;      // sent and not credited, oldest first
    std::uint64_t credited = 0;            // towards the front of `kept`
    bool muted = false;                    // a new noded has not resumed it: nothing is sent
    bool ending = false;                   // TERM was sent to all of it
    std::int64_t kill_at_us = 0;           // 0: no KILL due
    std::uint64_t looked_at = UINT64_MAX;  // value of reaped_ when processes were last looked for
    bool empty = false;                    // no process is left; output may be
    bool ended = false;                    // no process is left; kept until it is forgotten
    bool forgotten = false;                // goes as soon as it has ended
  };
  // The prolog or the epilog (shepherd_hooks.cc).
  struct Hook {
    bool epilog = false;
    pid_t pid = 0;  // 0: none runs
    int status_fd = -1;
    int output_fd = -1;
    std::string output;
    std::int64_t deadline_us = 0;
    bool timed_out = false;
    TaskSpec spec;
  };
  enum class Token : std::uint32_t { kConnection, kListener, kSignals, kTimer, kStatus, kIn, kOut, kErr, kHook };

  // Frames.
  void on_frame(const Frame& frame);
  void launch(const LaunchFrame& frame);
  void begin_job();
  void on_stop(const StopFrame& frame);
  void on_limit(const LimitFrame& frame);
  void set_limit(std::int64_t limit_us);
  void on_notice(const NoticeFrame& frame);
  void on_suspend(bool suspend);
  void on_stand_still(const StandStillFrame& frame);
  void send_signal(int signal);
  void warn();
  void take_programs(const StepProgramsFrame& frame);
  void start_step(const StepStartFrame& frame);
  void start_step_task(const StepStartFrame& frame, const StepTask& wanted, Step& step);
  void on_input(const StepInputFrame& frame);
  void on_step_signal(const StepSignalFrame& frame);
  void on_credit(const StepCreditFrame& frame);
  void on_resume(const StepResumeFrame& frame);
  void on_forget(const StepForgetFrame& frame);
  void end_step(std::uint32_t number, Step& step);
  [[nodiscard]] std::vector<pid_t> living_tasks(const Step& step) const;
  void on_attach();

  // Things that happen.
  void on_connection(std::uint32_t events);
  void on_listener();
  void on_signals();
  void on_status(std::uint64_t index);
  void on_output(std::uint64_t index, unsigned stream);
  void write_input(std::uint64_t index);
  void on_timer();
  void reap();

  // The end.
  void begin_end(EndCause cause, std::int64_t grace_us);
  void look_for_bomb(std::int64_t now);
  void blame_time_limit(Outcome& outcome) const;
  void blame_memory(Outcome& outcome);
  void take_usage();
  void decide(const Outcome& outcome);
  void settle();
  void settle_task(Task& task);
  void settle_step(std::uint32_t number, Step& step);
  void look_for_noded();
  void finish();
  void conclude();
  void settle_outcome();
  bool remove_groups();
  std::string enforce(const LaunchFrame& frame);
  bool outcome_is_wanted();
  [[nodiscard]] bool is_forgotten() const;

  // Prolog and epilog. False: there is none.
  bool start_hook(bool epilog);
  void read_hook_output();
  void on_hook_ended(int wait_status);
  void fail_hook(std::string text);
  void on_hook_deadline();
  void mark_prolog();
  void forget_prolog();
  [[nodiscard]] std::string prolog_mark() const;

  // The connection.
  void send(const Frame& frame);
  void flush();
  void drop_connection();
  void read_connection();

  // Help.
  bool take_mark();
  std::string listen();
  void add_to_epoll(int fd, Token token, std::uint64_t index, std::uint32_t events);
  void change_epoll(int fd, Token token, std::uint64_t index, std::uint32_t events);
  void close_fd(int& fd);
  void watch_outputs();
  void close_input(Task& task);
  void send_output(Task& task, Step& step, unsigned stream, std::string data, bool eof);
  void send_taken(Task& task, std::uint64_t bytes, bool closed);
  void send_bound(const Task& task, TaskPlace place);
  void arm_timer();
  bool write_outcome();
  TaskSpec base_spec() const;
  [[nodiscard]] bool congested() const;

  int epoll_ = -1;
  int signals_ = -1;
  int timer_ = -1;
  int listener_ = -1;
  int record_ = -1;                // the shepherd's record, open for the outcome
  std::int64_t record_bytes_ = 0;  // of it without the outcome
  bool marked_ = false;            // the record is in its place: the attempt is this shepherd's
  int connection_ = -1;
  bool connection_writable_watched_ = false;
  bool attached_ = true;             // false: a new noded has not sent its AttachFrame yet
  std::uint32_t noded_version_ = 0;  // of the protocol, as the noded that is connected speaks it
  FrameReader reader_;
  std::deque<std::string> out_;
  std::size_t out_offset_ = 0;  // sent of the first
  std::size_t out_bytes_ = 0;

  std::optional<LaunchFrame> launch_;
  std::unique_ptr<ProcessTree> tree_;
  std::unique_ptr<Enforcer> enforcer_;
  std::unique_ptr<JobNamespace> namespace_;  // null: the node's own
  std::uint64_t oom_kills_seen_ = 0;         // that an ended task was told of
  std::map<std::uint64_t, Task> tasks_;      // by a number that is never reused
  std::uint64_t next_task_ = 0;
  std::map<std::uint32_t, Step> steps_;
  // By step and rank, between their frame and the start of the step.
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::string>> programs_;
  Hook hook_;
  bool epilog_began_ = false;
  bool script_running_ = false;
  bool started_ = false;
  bool decided_ = false;   // outcome_ will not change any more
  bool ending_ = false;    // everything is being ended
  bool stopping_ = false;  // by order or limit: the outcome is end_cause_
  EndCause end_cause_ = EndCause::kExited;
  std::string end_detail_;
  Outcome outcome_;
  std::int64_t launched_us_ = 0;
  std::int64_t limit_at_us_ = 0;
  std::int64_t warn_at_us_ = 0;  // 0: no warning is due
  bool warned_ = false;
  std::int64_t stood_us_ = 0;         // suspended, before suspended_at_us_
  std::int64_t suspended_at_us_ = 0;  // 0: it runs; else limit and warning come so much later
  bool gives_cpus_ = false;           // suspended, and other jobs have its CPUs
  std::int64_t stop_at_us_ = 0;       // the end of a notice
  std::int64_t stop_grace_us_ = 0;
  std::int64_t kill_at_us_ = 0;
  std::int64_t again_at_us_ = 0;  // kAgainUs
  std::int64_t look_at_us_ = 0;   // kLookForBombUs
  std::int64_t timer_at_us_ = 0;
  std::uint64_t reaped_ = 0;  // processes so far
  bool more_to_reap_ = false;
  bool settled_ = false;   // settle_outcome() was called
  bool finished_ = false;  // conclude() was called
  bool done_ = false;
  bool end_sent_ = false;
};

}  // namespace muster::noded
