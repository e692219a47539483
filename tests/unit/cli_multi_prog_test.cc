// The file of `muster run --multi-prog`.
#include "cli/multi_prog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string error_of(std::string_view text) {
  const auto programs = parse_multi_prog(text, "progs");
  return programs.ok() ? "none" : programs.error().message;
}

TEST(MultiProg, ReadsRanksProgramsAndWords) {
  const auto programs = parse_multi_prog(
      "# a comment\n"
      "*      ./rest\n"
      "\n"
      "0      ./server --port 7000 # 5\n"
      "1-3,5  ./worker 'two words' \"a \\\"b\\\"\" c\\ d '' \\\n"
      "       %o\n",
      "progs");
  ASSERT_TRUE(programs.ok()) << programs.error().message;
  ASSERT_EQ(programs->size(), 3U);
  EXPECT_THAT((*programs)[0].argv, ElementsAre("./server", "--port", "7000", "#", "5"));
  EXPECT_THAT((*programs)[0].ranks, ElementsAre(Pair(0, 0)));
  EXPECT_THAT((*programs)[1].argv, ElementsAre("./worker", "two words", "a \"b\"", "c d", "", "%o"));
  EXPECT_THAT((*programs)[1].ranks, ElementsAre(Pair(1, 3), Pair(5, 5)));
  EXPECT_EQ((*programs)[1].line, 5U);
  // What no other line names comes last, wherever it stands.
  EXPECT_THAT((*programs)[2].argv, ElementsAre("./rest"));
  EXPECT_TRUE((*programs)[2].ranks.empty());
}

TEST(MultiProg, NamesTheLineThatIsWrong) {
  EXPECT_THAT(error_of("0 a\n1\n"), HasSubstr("progs:2: no program stands behind the ranks"));
  EXPECT_THAT(error_of("0 a\nx b\n"), HasSubstr("progs:2: \"x\" names no tasks"));
  EXPECT_THAT(error_of("3-1 a\n"), HasSubstr("progs:1: \"3-1\" names no tasks"));
  EXPECT_THAT(error_of("1, a\n"), HasSubstr("names no tasks"));
  EXPECT_THAT(error_of("0-3 a\n\n2 b\n"), HasSubstr("progs:3: task 2 has a program already, in line 1"));
  EXPECT_THAT(error_of("* a\n* b\n"), HasSubstr("progs:2: line 1 is for * already"));
  EXPECT_THAT(error_of("0 a 'b\n"), HasSubstr("progs:1: a ' is not closed"));
  EXPECT_THAT(error_of("0 ''\n"), HasSubstr("progs:1: no program"));
  EXPECT_THAT(error_of("# nothing\n"), HasSubstr("it names no program"));
  EXPECT_THAT(error_of(std::string_view("0 a\0b\n", 6)), HasSubstr("no text"));
}

}  // namespace
}  // namespace muster::cli
