// Properties of the encoding: every value comes back the same, and no bytes whatever do harm.
#include <gtest/gtest.h>

#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "tests/support/random_model.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

constexpr int kRounds = 500;

class WireProperty : public testing::Test {
 protected:
  // The value goes through its bytes, as it does on the wire.
  template <typename Message, typename Value, typename Read, typename Write>
  void expect_round_trip(const Value& value, Write write, Read read) {
    Message written;
    write(value, written);
    const std::string bytes = written.SerializeAsString();
    Message parsed;
    ASSERT_TRUE(parsed.ParseFromString(bytes));
    const auto back = read(parsed);
    ASSERT_TRUE(back.ok()) << back.error().message;
    ASSERT_TRUE(*back == value) << parsed.DebugString();
  }
  template <typename Message, typename Value>
  void expect_round_trip(const Value& value) {
    expect_round_trip<Message>(
        value, [](const Value& in, Message& out) { wire::to_pb(in, out); },
        [](const Message& in) -> Result<Value> { return wire::from_pb(in); });
  }

  test::RandomModel make_{test::first_seed()};
};

TEST_F(WireProperty, EveryValueComesBackTheSame) {
  for (int round = 0; round < kRounds; ++round) {
    expect_round_trip<pb::JobSpec>(make_.spec());
    expect_round_trip<pb::ArraySpec>(make_.array_spec());
    expect_round_trip<pb::RequestId>(make_.request());
    expect_round_trip<pb::Gpu>(make_.gpu());
    expect_round_trip<pb::NodeHardware>(make_.hardware());
    expect_round_trip<pb::NodeShare>(make_.share());
    expect_round_trip<pb::Outcome>(make_.outcome());
    expect_round_trip<pb::AttemptKey>(make_.key());
    expect_round_trip<pb::LaunchOrder>(make_.launch());
    expect_round_trip<pb::StopOrder>(make_.stop());
    expect_round_trip<pb::LimitOrder>(make_.limit());
    expect_round_trip<pb::UpdateRequest>(make_.change());
    expect_round_trip<pb::SuspendOrder>(make_.suspend());
    expect_round_trip<pb::AttemptReport>(make_.report());
    expect_round_trip<pb::NodeRegistration>(make_.registration());
    expect_round_trip<pb::Node>(make_.node());
    expect_round_trip<pb::JobSummary>(make_.summary());
    expect_round_trip<pb::JobSelector>(make_.selector());
    expect_round_trip<pb::SelectorItem>(make_.selector_item());
    expect_round_trip<pb::Account>(make_.account());
    expect_round_trip<pb::User>(make_.user());
    expect_round_trip<pb::Qos>(make_.qos());
    expect_round_trip<pb::BillingRules>(make_.billing());
    expect_round_trip<pb::Usage>(make_.usage());
    if (HasFatalFailure()) return;
  }
}

TEST_F(WireProperty, EveryKindOfFactComesBackTheSame) {
  for (int round = 0; round < kRounds; ++round) {
    Facts facts;
    for (std::size_t kind = 0; kind < std::variant_size_v<FactBody>; ++kind) {
      facts.push_back({make_.instant(), make_.fact_body(kind)});
      expect_round_trip<pb::Fact>(facts.back());
      if (HasFatalFailure()) return;
    }
    const auto back = wire::decode_facts(wire::encode_facts(facts));
    ASSERT_TRUE(back.ok()) << back.error().message;
    ASSERT_TRUE(*back == facts);
    ASSERT_EQ(wire::encode_facts(*back), wire::encode_facts(facts));
  }
}

TEST_F(WireProperty, JobsComeBackTheSameWithTheirOwnSpecOrTheirArrays) {
  for (int round = 0; round < kRounds; ++round) {
    const Job job = make_.job();
    for (const bool with_spec : {true, false}) {
      expect_round_trip<pb::Job>(
          job, [&](const Job& in, pb::Job& out) { wire::to_pb(in, with_spec, out); },
          [&](const pb::Job& in) { return wire::from_pb(in, with_spec ? nullptr : job.spec); });
    }
    if (HasFatalFailure()) return;
  }
}

// Damage never crashes; what is still readable is a value that can be written and read again.
TEST_F(WireProperty, DamagedBytesAreRefusedOrReadAsAValue) {
  for (int round = 0; round < 4000; ++round) {
    const Facts facts = make_.list(3, [this] { return make_.fact(); });
    std::string bytes = wire::encode_facts(facts);
    for (std::uint64_t stroke = 1 + make_.below(3); stroke > 0 && !bytes.empty(); --stroke) {
      const std::size_t at = make_.below(bytes.size());
      switch (make_.below(4)) {
        case 0:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << make_.below(8)));
          break;
        case 1:
          bytes.resize(at);
          break;
        case 2:
          bytes.insert(at, 1, static_cast<char>(make_.below(256)));
          break;
        default:
          bytes += bytes.substr(at);
      }
    }
    const auto decoded = wire::decode_facts(bytes);
    if (!decoded.ok()) {
      ASSERT_EQ(decoded.error().code, ErrorCode::kCorrupt) << decoded.error().message;
      continue;
    }
    const auto again = wire::decode_facts(wire::encode_facts(*decoded));
    ASSERT_TRUE(again.ok()) << again.error().message;
    ASSERT_TRUE(*again == *decoded);
  }
}

TEST_F(WireProperty, ArrayNotationReadsBackTheSame) {
  for (int round = 0; round < 5000; ++round) {
    const ArraySpec spec = make_.array_spec();
    const auto parsed = parse_array_spec(format_array_spec(spec));
    ASSERT_TRUE(parsed.ok()) << format_array_spec(spec) << ": " << parsed.error().message;
    ASSERT_TRUE(*parsed == spec) << format_array_spec(spec);
  }
}

// Against the plain definition: expand both ranges and look for a common index.
TEST_F(WireProperty, OverlappingRangesAreFoundAndOthersAccepted) {
  for (int round = 0; round < 5000; ++round) {
    ArraySpec spec;
    std::vector<std::uint64_t> indices;
    for (int i = 0; i < 2; ++i) {
      const std::uint64_t first = make_.below(60);
      const ArrayRange range{first, first + make_.below(60), 1 + make_.below(12)};
      spec.ranges.push_back(range);
      for (std::uint64_t index = range.first; index <= range.last; index += range.step) indices.push_back(index);
    }
    std::sort(indices.begin(), indices.end());
    const bool overlap = std::adjacent_find(indices.begin(), indices.end()) != indices.end();
    ASSERT_EQ(check_array_spec(spec).ok(), !overlap) << format_array_spec(spec);
    if (overlap) continue;
    ASSERT_EQ(spec.size(), indices.size());
    ASSERT_EQ(spec.min_index(), indices.front());
    ASSERT_EQ(spec.max_index(), indices.back());
    for (std::uint64_t position = 0; position < spec.size(); ++position) {
      ASSERT_EQ(spec.position_of(spec.index_at(position)), position) << format_array_spec(spec);
    }
    ASSERT_EQ(spec.position_of(200), std::nullopt);
  }
}

}  // namespace
}  // namespace muster
