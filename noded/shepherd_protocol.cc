#include "noded/shepherd_protocol.h"

#include <charconv>
#include <cstring>
#include <optional>
#include <type_traits>

namespace muster::noded {
namespace {

// The outcome file begins with this, so that a file of something else is not taken for one.
constexpr std::string_view kOutcomeMagic = "MUSO1\n";

class Writer {
 public:
  static constexpr bool kReads = false;
  [[nodiscard]] static bool has_more() { return false; }

  template <typename T>
  void integer(const T& v) {
    auto u = static_cast<std::uint64_t>(v);
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      out_.push_back(static_cast<char>(u & 0xffU));
      u >>= 8U;
    }
  }
  void bytes(const std::string& v) {
    integer(static_cast<std::uint32_t>(v.size()));
    out_ += v;
  }
  template <typename T, typename F>
  void list(const std::vector<T>& v, std::size_t /*bytes_min*/, F each) {
    integer(static_cast<std::uint32_t>(v.size()));
    for (const T& x : v) {
      each(x);
    }
  }
  std::string take() { return std::move(out_); }
  std::string& out() { return out_; }

 private:
  std::string out_;
};

class Reader {
 public:
  static constexpr bool kReads = true;

  explicit Reader(std::string_view in) : in_(in) {}

  template <typename T>
  void integer(T& v) {
    if (in_.size() < sizeof(T)) {
      fail();
      return;
    }
    std::uint64_t u = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      u |= static_cast<std::uint64_t>(static_cast<unsigned char>(in_[i])) << (8 * i);
    }
    in_.remove_prefix(sizeof(T));
    if constexpr (std::is_same_v<T, bool>) {
      v = u != 0;
    } else {
      v = static_cast<T>(u);
    }
  }
  void bytes(std::string& v) {
    std::uint32_t n = 0;
    integer(n);
    if (n > in_.size()) {
      fail();
      return;
    }
    v.assign(in_.substr(0, n));
    in_.remove_prefix(n);
  }
  // `bytes_min` is the least that one element takes, so that a false count cannot make us allocate.
  template <typename T, typename F>
  void list(std::vector<T>& v, std::size_t bytes_min, F each) {
    std::uint32_t n = 0;
    integer(n);
    if (n > in_.size() / bytes_min) {
      fail();
      return;
    }
    v.clear();
    v.resize(n);
    for (T& x : v) {
      each(x);
    }
  }
  void fail() {
    ok_ = false;
    in_ = {};
  }
  [[nodiscard]] bool has_more() const { return !in_.empty(); }
  [[nodiscard]] bool complete() const { return ok_ && in_.empty(); }

 private:
  std::string_view in_;
  bool ok_ = true;
};

// Each `fields` names a frame's fields once, for both directions.
template <typename A>
void strings(A& a, auto& v) {
  a.list(v, 4, [&](auto& s) { a.bytes(s); });
}
template <typename A>
void words(A& a, auto& v) {
  a.list(v, sizeof(v[0]), [&](auto& w) { a.integer(w); });
}

template <typename A, typename E>
void enumerator(A& a, E& v, std::uint8_t last) {
  if constexpr (A::kReads) {
    std::uint8_t u = 0;
    a.integer(u);
    if (u > last) {
      a.fail();
      return;
    }
    v = static_cast<E>(u);
  } else {
    a.integer(static_cast<std::uint8_t>(v));
  }
}

template <typename A>
void usage_fields(A& a, auto& u) {
  a.integer(u.cpu.us);
  a.integer(u.memory_peak_bytes);
  a.integer(u.memory_limit_bytes);
  a.integer(u.read_bytes);
  a.integer(u.written_bytes);
  a.integer(u.oom_kills);
}

template <typename A>
void limits_fields(A& a, auto& l) {
  a.integer(l.memory_bytes);
  a.integer(l.processes);
  a.integer(l.cpus);
  a.list(l.denied_devices, 8, [&](auto& d) {
    a.integer(d.major);
    a.integer(d.minor);
  });
  words(a, l.memory_nodes);
}

// The last of whatever it is in: releases before kProtocolVersion 5 end it without the usage, before 9 without the fault.
template <typename A>
void outcome_fields(A& a, auto& o) {
  enumerator(a, o.cause, static_cast<std::uint8_t>(EndCause::kShepherdDied));
  a.integer(o.exit_code);
  a.integer(o.signal);
  a.bytes(o.detail);
  a.integer(o.ran.us);
  if constexpr (A::kReads) {
    o.usage = {};
    if (a.has_more()) {
      usage_fields(a, o.usage);
    }
  } else if (o.usage != Usage{} || o.fault != NodeFault::kNone) {
    usage_fields(a, o.usage);
  }
  // The fault follows the usage, also one of nothing, and only where the node failed at something.
  if (A::kReads ? a.has_more() : o.fault != NodeFault::kNone) {
    enumerator(a, o.fault, static_cast<std::uint8_t>(kNodeFaultLast));
    a.bytes(o.fault_text);
  }
}

template <typename A, typename F>
void fields(A& a, F& f) {
  using T = std::remove_const_t<F>;
  if constexpr (std::is_same_v<T, LaunchFrame>) {
    a.integer(f.version);
    a.bytes(f.name);
    a.bytes(f.directory);
    a.integer(f.uid);
    a.integer(f.gid);
    words(a, f.groups);
    a.bytes(f.cgroup_parent);
    words(a, f.cpus);
    a.integer(f.time_limit_us);
    a.integer(f.kill_grace_us);
    a.integer(f.has_script);
    a.bytes(f.script);
    strings(a, f.args);
    strings(a, f.environment);
    a.bytes(f.work_dir);
    a.bytes(f.stdin_path);
    a.bytes(f.stdout_path);
    a.bytes(f.stderr_path);
    a.integer(f.append);
    a.integer(f.umask);
    a.integer(f.warn_signal);
    a.integer(f.warn_before_us);
    a.integer(f.warn_batch_only);
    a.list(f.controls, 6, [&](auto& c) {
      enumerator(a, c.kind, static_cast<std::uint8_t>(kControlKindLast));
      a.integer(c.v2);
      a.bytes(c.group);
    });
    limits_fields(a, f.limits);
    a.integer(f.isolate);
    a.bytes(f.prolog);
    a.integer(f.prolog_timeout_us);
    a.bytes(f.epilog);
    a.integer(f.epilog_timeout_us);
    strings(a, f.hook_environment);
  } else if constexpr (std::is_same_v<T, NoticeFrame>) {
    a.integer(f.signal);
    a.integer(f.notice_us);
    a.integer(f.grace_us);
  } else if constexpr (std::is_same_v<T, SuspendFrame>) {
    a.integer(f.suspend);
  } else if constexpr (std::is_same_v<T, StandStillFrame> || std::is_same_v<T, StoodStillFrame>) {
    a.integer(f.number);
  } else if constexpr (std::is_same_v<T, StopFrame>) {
    a.integer(f.signal);
    a.integer(f.grace_us);
  } else if constexpr (std::is_same_v<T, LimitFrame>) {
    a.integer(f.time_limit_us);
  } else if constexpr (std::is_same_v<T, FinishFrame> || std::is_same_v<T, EndedFrame>) {
    outcome_fields(a, f.outcome);
  } else if constexpr (std::is_same_v<T, StepStartFrame>) {
    a.integer(f.step);
    strings(a, f.argv);
    strings(a, f.environment);
    a.bytes(f.work_dir);
    a.integer(f.umask);
    enumerator(a, f.stdin_mode, static_cast<std::uint8_t>(StdinMode::kAll));
    a.integer(f.stdin_rank);
    a.bytes(f.stdin_path);
    a.bytes(f.stdout_path);
    a.bytes(f.stderr_path);
    a.integer(f.append);
    a.integer(f.credit_bytes);
    a.list(f.tasks, 12, [&](auto& t) {
      a.integer(t.rank);
      strings(a, t.environment);
      words(a, t.cpus);
    });
  } else if constexpr (std::is_same_v<T, StepProgramsFrame>) {
    a.integer(f.step);
    a.list(f.programs, 8, [&](auto& p) {
      a.integer(p.rank);
      strings(a, p.argv);
    });
  } else if constexpr (std::is_same_v<T, StepInputFrame>) {
    a.integer(f.step);
    a.integer(f.rank);
    a.bytes(f.data);
    a.integer(f.eof);
  } else if constexpr (std::is_same_v<T, StepSignalFrame>) {
    a.integer(f.step);
    a.integer(f.rank);
    a.integer(f.signal);
  } else if constexpr (std::is_same_v<T, StepCreditFrame>) {
    a.integer(f.step);
    a.integer(f.bytes);
  } else if constexpr (std::is_same_v<T, StepResumeFrame>) {
    a.integer(f.step);
    a.list(f.received, 16, [&](auto& r) {
      a.integer(r.rank);
      a.integer(r.stream);
      a.integer(r.bytes);
    });
  } else if constexpr (std::is_same_v<T, AttachFrame>) {
    a.integer(f.version);
  } else if constexpr (std::is_same_v<T, StartedFrame>) {
    a.integer(f.pid);
  } else if constexpr (std::is_same_v<T, StateFrame>) {
    a.integer(f.version);
    a.integer(f.started);
    a.integer(f.stopping);
    words(a, f.steps);
  } else if constexpr (std::is_same_v<T, StepOutputFrame>) {
    a.integer(f.step);
    a.integer(f.rank);
    a.integer(f.stream);
    a.bytes(f.data);
    a.integer(f.eof);
    a.integer(f.offset);
  } else if constexpr (std::is_same_v<T, StepTaskEndedFrame>) {
    a.integer(f.step);
    a.integer(f.rank);
    outcome_fields(a, f.outcome);
  } else if constexpr (std::is_same_v<T, StepInputTakenFrame>) {
    a.integer(f.step);
    a.integer(f.rank);
    a.integer(f.bytes);
    a.integer(f.closed);
  } else if constexpr (std::is_same_v<T, StepTaskBoundFrame>) {
    a.integer(f.step);
    a.integer(f.rank);
    words(a, f.cpus);
    words(a, f.memory);
    a.integer(f.memory_policy);
    a.integer(f.group);
  } else {
    static_assert(std::is_same_v<T, StepEndedFrame> || std::is_same_v<T, StepForgetFrame>);
    a.integer(f.step);
  }
}

template <std::size_t I = 0>
bool decode_body(std::uint8_t type, std::string_view body, Frame& out) {
  if constexpr (I == std::variant_size_v<Frame>) {
    return false;
  } else if (type == I + 1) {
    Reader reader(body);
    fields(reader, out.emplace<I>());
    return reader.complete();
  } else {
    return decode_body<I + 1>(type, body, out);
  }
}

Error damaged(const char* what) {
  return make_error(ErrorCode::kCorrupt, std::string("the stream between noded and a shepherd is damaged: ") + what);
}

}  // namespace

std::string encode_frame(const Frame& frame) {
  Writer w;
  w.integer(std::uint32_t{0});
  w.integer(static_cast<std::uint8_t>(frame.index() + 1));
  std::visit([&](const auto& f) { fields(w, f); }, frame);
  std::string out = w.take();
  const auto length = static_cast<std::uint32_t>(out.size() - 4);
  for (unsigned i = 0; i < 4; ++i) {
    out[i] = static_cast<char>((length >> (8 * i)) & 0xffU);
  }
  return out;
}

void FrameReader::append(std::string_view bytes) {
  if (begin_ == buffer_.size()) {
    buffer_.clear();
    begin_ = 0;
  } else if (begin_ > (1U << 20U)) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  buffer_ += bytes;
}

Result<bool> FrameReader::next(Frame& out) {
  const std::string_view rest = std::string_view(buffer_).substr(begin_);
  if (rest.size() < 4) {
    return false;
  }
  std::uint32_t length = 0;
  Reader(rest.substr(0, 4)).integer(length);
  if (length == 0 || length > kFrameBytesMax) {
    return damaged("a frame has an impossible length");
  }
  if (rest.size() - 4 < length) {
    return false;
  }
  const auto type = static_cast<std::uint8_t>(rest[4]);
  if (!decode_body(type, rest.substr(5, length - 1), out)) {
    return damaged("a frame cannot be read");
  }
  begin_ += 4 + std::size_t{length};
  return true;
}

std::string encode_shepherd_record(const ShepherdRecord& record) {
  // Text, so that an administrator can read it.
  return std::to_string(record.pid) + " " + record.start_time + " " + record.socket + " " + record.cgroup + "\n";
}

Result<ShepherdRecord> decode_shepherd_record(std::string_view bytes) {
  ShepherdRecord record;
  const auto end = bytes.find('\n');
  std::string_view line = bytes.substr(0, end);
  std::string pid;
  for (std::string* field : {&pid, &record.start_time, &record.socket}) {
    const auto blank = line.find(' ');
    if (blank == std::string_view::npos) {
      return make_error(ErrorCode::kCorrupt, "a shepherd's record is damaged");
    }
    *field = std::string(line.substr(0, blank));
    line.remove_prefix(blank + 1);
  }
  record.cgroup = std::string(line);
  const auto [rest, error] = std::from_chars(pid.data(), pid.data() + pid.size(), record.pid);
  if (end == std::string_view::npos || error != std::errc() || rest != pid.data() + pid.size() || record.pid <= 0) {
    return make_error(ErrorCode::kCorrupt, "a shepherd's record is damaged");
  }
  if (auto outcome = decode_outcome(bytes.substr(end + 1)); outcome.ok()) {
    record.outcome = std::move(*outcome);
  }
  return record;
}

std::string encode_outcome(const Outcome& outcome) {
  Writer w;
  w.out() += kOutcomeMagic;
  outcome_fields(w, outcome);
  return w.take();
}

Result<Outcome> decode_outcome(std::string_view bytes) {
  Outcome outcome;
  if (!bytes.starts_with(kOutcomeMagic)) {
    return make_error(ErrorCode::kCorrupt, "an outcome file does not begin as one");
  }
  Reader reader(bytes.substr(kOutcomeMagic.size()));
  outcome_fields(reader, outcome);
  if (!reader.complete()) {
    return make_error(ErrorCode::kCorrupt, "an outcome file is damaged");
  }
  return outcome;
}

}  // namespace muster::noded
