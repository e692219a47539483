// The records of an attempt's steps: numbers are never reused, whatever a killed daemon left.
#include "noded/step_records.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace muster::noded {
namespace {

StepRecord record_of(const std::string& stream) {
  StepRecord record;
  record.client_key = "key";
  record.stream = stream;
  record.nodes = {{"n1", 2}, {"n2", 1}};
  return record;
}

TEST(StepRecord, NamesTheCoresOfExactSteps) {
  StepRecord record = record_of("a");
  record.sharing = StepSharing::kExclusive;
  record.nodes[0].cores = IndexSet::range(2, 3);
  record.nodes[1].gpus = IndexSet::range(0, 1);
  const auto read = decode_step_record(encode_step_record(record));
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(*read, record);
  // As versions before wrote it.
  const auto old = decode_step_record("MUSS1\nclient key 61 1\nnode n1 2\n");
  ASSERT_TRUE(old.ok()) << old.error().message;
  EXPECT_EQ(old->sharing, StepSharing::kWhole);
  EXPECT_TRUE(old->nodes[0].cores.empty());
}

class StepRecordsTest : public testing::Test {
 protected:
  StepRecords load() {
    auto records = StepRecords::load(directory_.path());
    EXPECT_TRUE(records.ok()) << (records.ok() ? "" : records.error().message);
    return std::move(*records);
  }
  test::TempDir directory_;
};

TEST_F(StepRecordsTest, ARecordComesBackAsItWas) {
  StepRecord record = record_of(std::string("\0\n b", 4));
  EXPECT_EQ(decode_step_record(encode_step_record(record)).value(), record);
  record.exit_code = -7;
  EXPECT_EQ(decode_step_record(encode_step_record(record)).value(), record);
  for (const std::string bad :
       {"", "MUSS1", "MUSS1\nclient key 00 0\n", "n1\nn2\n", "MUSS1\nclient key 0 1\nnode n1 1\n",
        "MUSS1\nclient key 00 1\nnode n1 x\n", "MUSS1\nclient key 00 1\nnode n1 1\nended x\n"}) {
    EXPECT_FALSE(decode_step_record(bad).ok()) << bad;
  }
  // However it is cut, it is not taken for another step or another end.
  const std::string whole = encode_step_record(record);
  const std::string without_end = whole.substr(0, whole.rfind("ended"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto cut = decode_step_record(whole.substr(0, size));
    ASSERT_EQ(cut.ok(), size >= without_end.size()) << size;
    if (cut.ok()) {
      EXPECT_FALSE(cut->exit_code) << size;
    }
  }
}

TEST_F(StepRecordsTest, RequestsAndEndsAreFoundAgain) {
  StepRecords first = load();
  EXPECT_EQ(first.add(record_of("a")).value(), 0U);
  EXPECT_EQ(first.add(record_of("b")).value(), 1U);
  ASSERT_TRUE(first.end(0, 3).ok());
  StepRecords second = load();
  ASSERT_NE(second.find("key", "a"), nullptr);
  EXPECT_EQ(second.find("key", "a")->step, 0U);
  EXPECT_EQ(second.find("key", "a")->exit_code, 3);
  ASSERT_NE(second.find("key", "b"), nullptr);
  EXPECT_FALSE(second.find("key", "b")->exit_code);
  EXPECT_EQ(second.find("key", "b")->nodes, record_of("b").nodes);
  EXPECT_EQ(second.find("other key", "b"), nullptr);
  EXPECT_EQ(second.add(record_of("c")).value(), 2U);
}

TEST_F(StepRecordsTest, ADamagedRecordIsNoStepAndItsNumberIsNotReused) {
  std::ofstream(directory_.path() + "/step.4") << "half";
  StepRecords records = load();
  EXPECT_EQ(records.find(4), nullptr);
  EXPECT_EQ(records.add(record_of("a")).value(), 5U);
}

TEST_F(StepRecordsTest, TheOldestEndsAreForgotten) {
  StepRecords records = load();
  for (std::size_t i = 0; i <= StepRecords::kEndedMax; ++i) {
    const auto number = records.add(record_of(std::to_string(i)));
    ASSERT_TRUE(number.ok());
    ASSERT_TRUE(records.end(*number, 0).ok());
  }
  EXPECT_EQ(records.find(0), nullptr);
  EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/step.0"));
  EXPECT_NE(records.find(1), nullptr);
  EXPECT_TRUE(std::filesystem::exists(directory_.path() + "/step.1"));
  EXPECT_EQ(load().add(record_of("next")).value(), StepRecords::kEndedMax + 1);
}

TEST_F(StepRecordsTest, ARecordThatCannotBeWrittenTakesNoNumber) {
  StepRecords records = load();
  std::filesystem::create_directory(directory_.path() + "/step.0");
  EXPECT_FALSE(records.add(record_of("a")).ok());
  EXPECT_EQ(records.find("key", "a"), nullptr);
  std::filesystem::remove(directory_.path() + "/step.0");
  EXPECT_EQ(records.add(record_of("a")).value(), 0U);
}

}  // namespace
}  // namespace muster::noded
