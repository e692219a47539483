#include "lib/base/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Duration, AcceptsEveryNotation) {
  const struct {
    const char* text;
    std::int64_t seconds;
  } cases[] = {{"0", 0},
               {"5", 300},
               {"1:30", 90},
               {"02:03:04", 7384},
               {"1-00", 86400},
               {"1-02", 93600},
               {"1-02:30", 95400},
               {"1-02:30:15", 95415},
               {"90s", 90},
               {"15m", 900},
               {"2h", 7200},
               {"1d", 86400},
               {"1h30m", 5400},
               {"1D2H3M4S", 93784},
               {"00:90:00", 5400},
               {"0:00:01", 1},
               {"365-00:00:00", 31536000}};
  for (const auto& c : cases) {
    const auto d = parse_duration(c.text);
    ASSERT_TRUE(d.ok()) << c.text;
    EXPECT_EQ(*d, Duration::from_s(c.seconds)) << c.text;
  }
  EXPECT_TRUE(parse_duration("UNLIMITED")->is_infinite());
  EXPECT_TRUE(parse_duration("infinite")->is_infinite());
}

TEST(Duration, RefusesWhatItCannotRead) {
  for (const char* text : {"",
                           " ",
                           "-1",
                           "1h-",
                           "abc",
                           "1:2:3:4",
                           "1-",
                           "-5:00",
                           "1:",
                           ":30",
                           "1x",
                           "s",
                           "5 ",
                           " 5",
                           "+5",
                           "1.5h",
                           "30m1h",
                           "1h2h",
                           "99999999999999999999",
                           "999999999999999d",
                           "1--2",
                           "1-2-3",
                           "1-1h",
                           "0x10",
                           "9223372036854775807",
                           "1h30"}) {
    const auto d = parse_duration(text);
    ASSERT_FALSE(d.ok()) << text;
    EXPECT_EQ(d.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(d.error().message, HasSubstr("HH:MM:SS"));
  }
}

TEST(Duration, PrintsHoursAndDays) {
  EXPECT_EQ(format_duration(Duration::from_s(0)), "00:00:00");
  EXPECT_EQ(format_duration(Duration::from_s(3661)), "01:01:01");
  EXPECT_EQ(format_duration(Duration::from_s(86400 + 7384)), "1-02:03:04");
  EXPECT_EQ(format_duration(Duration::infinite()), "UNLIMITED");
}

TEST(Memory, ReadsUnitsAndRoundsUp) {
  const struct {
    const char* text;
    std::uint64_t mib;
  } cases[] = {{"0", 0},       {"512", 512},
               {"512M", 512},  {"4G", 4096},
               {"4g", 4096},   {"1T", 1048576},
               {"1K", 1},      {"1024K", 1},
               {"1025k", 2},   {"4GB", 4096},
               {"4GiB", 4096}, {"4gib", 4096},
               {"0K", 0},      {"9007199254740992", std::uint64_t{1} << 53}};
  for (const auto& c : cases) {
    const auto mib = parse_memory_mib(c.text);
    ASSERT_TRUE(mib.ok()) << c.text;
    EXPECT_EQ(*mib, c.mib) << c.text;
  }
}

TEST(Memory, RefusesWhatItCannotRead) {
  for (const char* text : {"", "G", "-1", "4Q", "4 G", "1.5G", "4Gx", "4Gi", "4iB", "9007199254740993",
                           "18446744073709551615T", "18446744073709551616", "4GiBx", "B", "4B"}) {
    EXPECT_FALSE(parse_memory_mib(text).ok()) << text;
  }
}

TEST(Memory, PrintsTheLargestWholeUnit) {
  EXPECT_EQ(format_memory_mib(0), "0M");
  EXPECT_EQ(format_memory_mib(512), "512M");
  EXPECT_EQ(format_memory_mib(1536), "1536M");
  EXPECT_EQ(format_memory_mib(65536), "64G");
  EXPECT_EQ(format_memory_mib(1048576), "1T");
}

TEST(Count, KeepsToItsRange) {
  EXPECT_EQ(*parse_count("18446744073709551615", "--x"), UINT64_MAX);
  EXPECT_EQ(*parse_count("7", "--x", {1, 10}), 7U);
  for (const char* text :
       {"", "0", "11", "-1", "+1", " 1", "1 ", "1e3", "18446744073709551616", "99999999999999999999999"}) {
    const auto n = parse_count(text, "--nodes", {1, 10});
    ASSERT_FALSE(n.ok()) << text;
    EXPECT_THAT(n.error().message, HasSubstr("--nodes"));
    EXPECT_THAT(n.error().message, HasSubstr("from 1 to 10"));
  }
}

TEST(Integer, ReadsSignsAndLimits) {
  EXPECT_EQ(*parse_integer("-9223372036854775808", "--nice", INT64_MIN, INT64_MAX), INT64_MIN);
  EXPECT_EQ(*parse_integer("9223372036854775807", "--nice", INT64_MIN, INT64_MAX), INT64_MAX);
  EXPECT_EQ(*parse_integer("+5", "--nice", -10, 10), 5);
  EXPECT_EQ(*parse_integer("-0", "--nice", -10, 10), 0);
  for (const char* text : {"", "-", "+", "--1", "9223372036854775808", "-9223372036854775809", "1x", "-11", "11"}) {
    EXPECT_FALSE(parse_integer(text, "--nice", -10, 10).ok()) << text;
  }
}

TEST(NodeList, Expands) {
  EXPECT_THAT(*expand_node_list(""), IsEmpty());
  EXPECT_THAT(*expand_node_list("n1"), ElementsAre("n1"));
  EXPECT_THAT(*expand_node_list("n[1-4,07],gpu01"), ElementsAre("n1", "n2", "n3", "n4", "n07", "gpu01"));
  EXPECT_THAT(*expand_node_list("n[08-11]"), ElementsAre("n08", "n09", "n10", "n11"));
  EXPECT_THAT(*expand_node_list("n[99-101]"), ElementsAre("n99", "n100", "n101"));
  EXPECT_THAT(*expand_node_list("n[2,1],n1,a"), ElementsAre("n2", "n1", "a"));
  EXPECT_THAT(*expand_node_list("rack-1.n[0-1]"), ElementsAre("rack-1.n0", "rack-1.n1"));
}

TEST(NodeList, RefusesBadText) {
  for (const char* text : {",",
                           "n1,",
                           ",n1",
                           "n[",
                           "n]",
                           "n[]",
                           "n[1",
                           "n[1]x",
                           "n[1][2]",
                           "n[[1]]",
                           "n[4-1]",
                           "n[1-]",
                           "n[-1]",
                           "n[a]",
                           "n[1-2-3]",
                           "-n",
                           "n 1",
                           "n/1",
                           "n[1,]",
                           "n[0-100000]",
                           "n[1-60000],m[1-60000]",
                           "n[1-999999999999999999]",
                           "n[1-0004]",
                           "n[9999999999999999999]",
                           "\xff"}) {
    const auto names = expand_node_list(text);
    EXPECT_FALSE(names.ok()) << text;
  }
  EXPECT_FALSE(expand_node_list(std::string(64, 'a')).ok());
  EXPECT_FALSE(expand_node_list(std::string("n\0m", 3)).ok());
}

TEST(NodeList, Folds) {
  EXPECT_EQ(fold_node_list({}), "");
  EXPECT_EQ(fold_node_list({"n1"}), "n1");
  EXPECT_EQ(fold_node_list({"n1", "n2", "n4", "gpu01"}), "n[1-2,4],gpu01");
  EXPECT_EQ(fold_node_list({"n08", "n09", "n10"}), "n[08-10]");
  EXPECT_EQ(fold_node_list({"n9", "n10"}), "n[9-10]");
  EXPECT_EQ(fold_node_list({"n2", "n1"}), "n[2,1]");
  EXPECT_EQ(fold_node_list({"login", "n1", "m1", "m2"}), "login,n1,m[1-2]");
}

TEST(NearestWord, FindsMisspellings) {
  const std::vector<std::string> keys = {"listen", "name", "spool_dir", "kill_grace"};
  EXPECT_EQ(nearest_word("lisen", keys), "listen");
  EXPECT_EQ(nearest_word("nmae", keys), "name");
  EXPECT_EQ(nearest_word("spooldir", keys), "spool_dir");
  EXPECT_EQ(nearest_word("zzz", keys), "");
  EXPECT_EQ(nearest_word("", keys), "");
  EXPECT_EQ(nearest_word(std::string(10000, 'a'), keys), "");
}

TEST(Text, SplitsAndTrims) {
  EXPECT_THAT(split("a,,b", ','), ElementsAre("a", "", "b"));
  EXPECT_THAT(split("", ','), ElementsAre(""));
  EXPECT_EQ(trim(" \t a b\r\n"), "a b");
  EXPECT_EQ(trim("  "), "");
  EXPECT_EQ(to_lower("AbC-9"), "abc-9");
}

TEST(Utf8, KnowsValidFromInvalid) {
  for (const char* text : {"", "abc", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) EXPECT_TRUE(is_valid_utf8(text));
  for (const char* text :
       {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xe2\x82"}) {
    EXPECT_FALSE(is_valid_utf8(text));
  }
}

TEST(Printable, EscapesWhatWouldConfuseATerminal) {
  EXPECT_EQ(printable("plain \xc3\xa4"), "plain \xc3\xa4");
  EXPECT_EQ(printable("a\nb\x1b[0m\x7f"), "a\\x0ab\\x1b[0m\\x7f");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");
  EXPECT_EQ(printable("\xe2\x80\xae"), "\\xe2\\x80\\xae");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
}

TEST(NaturalLess, OrdersNumbersByValue) {
  const std::vector<std::string> ordered = {
      "", "a", "gpu1", "n1", "n01", "n2", "n2-a", "n10", "n10b", "n99999999999999999999", "nx"};
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    for (std::size_t j = 0; j < ordered.size(); ++j) {
      if (ordered[i] == "n1" || ordered[i] == "n01") continue;
      EXPECT_EQ(natural_less(ordered[i], ordered[j]), i < j) << ordered[i] << " " << ordered[j];
    }
  }
  EXPECT_NE(natural_less("n1", "n01"), natural_less("n01", "n1"));
}

}  // namespace
}  // namespace muster
