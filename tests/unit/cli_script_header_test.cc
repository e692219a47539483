// The head of a script: directives found, and scripts refused with file and line.
#include "cli/script_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<Directive> directives(const std::string& text) {
  const auto header = parse_script_header(text, "job.sh");
  EXPECT_TRUE(header.ok()) << (header.ok() ? "" : header.error().message);
  return header.ok() ? header->directives : std::vector<Directive>{};
}

std::string refusal(const std::string& text) {
  const auto header = parse_script_header(text, "job.sh");
  EXPECT_FALSE(header.ok());
  return header.ok() ? "" : header.error().message;
}

TEST(ScriptHeader, FindsDirectivesUpToTheFirstCommand) {
  EXPECT_THAT(directives("#!/bin/sh\n#MUSTER -N2 --time 5\n\n# a remark\n   \n#SBATCH --mem=1G\necho\n#MUSTER -n9\n"),
              ElementsAre(Directive{2, {"-N2", "--time", "5"}}, Directive{6, {"--mem=1G"}}));
  EXPECT_THAT(directives("#!/bin/sh\ntrue\n#MUSTER -N2\n"), IsEmpty());
  EXPECT_EQ(parse_script_header("#!/bin/sh\ntrue\n\n#MUSTER -N2\n", "x")->ignored_line, 4U);
}

TEST(ScriptHeader, SplitsWordsAsAShellWould) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {" --comment='two words' -N 2", {"--comment=two words", "-N", "2"}},
      {" --comment=\"a \\\"b\\\" \\\\ \\x\"", {"--comment=a \"b\" \\ \\x"}},
      {" -J a\\ b", {"-J", "a b"}},
      {"\t-J\tname", {"-J", "name"}},
      {" -N2 # two nodes", {"-N2"}},
      {" -J a#b", {"-J", "a#b"}},
      {" --comment=''", {"--comment="}},
      {" # nothing", {}},
      {"", {}}};
  for (const auto& [text, words] : cases) {
    const auto found = directives("#!/bin/sh\n#MUSTER" + text + "\n");
    if (words.empty()) {
      EXPECT_THAT(found, IsEmpty()) << text;
    } else {
      EXPECT_THAT(found, ElementsAre(Directive{2, words})) << text;
    }
  }
}

TEST(ScriptHeader, TakesNothingElseForADirective) {
  EXPECT_THAT(
      directives("#!/bin/sh\n##MUSTER -N2\n#MUSTERED -N2\n #MUSTER -N2\n#muster -N2\n# MUSTER -N2\n#MUSTER:-N2\n"),
      IsEmpty());
}

TEST(ScriptHeader, TheLastLineNeedsNoNewline) {
  EXPECT_THAT(directives("#!/bin/sh\n#MUSTER -N2"), ElementsAre(Directive{2, {"-N2"}}));
  EXPECT_THAT(directives("#!/bin/sh"), IsEmpty());
}

TEST(ScriptHeader, RefusesWhatIsNoScript) {
  EXPECT_THAT(refusal(""), AllOf(HasSubstr("job.sh"), HasSubstr("empty")));
  EXPECT_THAT(refusal("echo hello\n"), AllOf(HasSubstr("job.sh:1"), HasSubstr("#!")));
  EXPECT_THAT(refusal("\n#!/bin/sh\n"), HasSubstr("#!"));
  EXPECT_THAT(refusal("#!\necho\n"), HasSubstr("interpreter"));
  EXPECT_THAT(refusal("#!/bin/sh\r\necho\r\n"), AllOf(HasSubstr("job.sh:1"), HasSubstr("dos2unix")));
  EXPECT_THAT(refusal("#!/bin/sh\necho\r\n"), AllOf(HasSubstr("job.sh:2"), HasSubstr("CR LF")));
  EXPECT_THAT(refusal(std::string("#!/bin/sh\na\nb\0c\n", 16)), AllOf(HasSubstr("job.sh:3"), HasSubstr("NUL")));
  EXPECT_THAT(refusal(std::string("\x7f"
                                  "ELF\0\0",
                                  6)),
              HasSubstr("NUL"));
  EXPECT_THAT(refusal("#!/bin/sh\n" + std::string(kScriptBytesMax, 'x')),
              AllOf(HasSubstr("4 MiB"), HasSubstr("4194304 bytes")));
  EXPECT_THAT(refusal("#!/bin/sh\n#MUSTER --comment='open\n"), AllOf(HasSubstr("job.sh:2"), HasSubstr("quote")));
  std::string many = "#!/bin/sh\n#MUSTER";
  for (std::size_t i = 0; i <= kDirectiveWordsMax; ++i) many += " x";
  EXPECT_THAT(refusal(many), HasSubstr("words"));
}

TEST(ScriptHeader, ScriptsUpToTheLimitAreAccepted) {
  std::string text = "#!/bin/sh\n#MUSTER -N2\n";
  text.resize(kScriptBytesMax, '#');
  EXPECT_THAT(directives(text), ElementsAre(Directive{2, {"-N2"}}));
}

}  // namespace
}  // namespace muster::cli
