#include "lib/io/keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "lib/io/files.h"
#include "lib/io/log.h"
#include "tests/support/temp_dir.h"

namespace muster::io {
namespace {

using testing::HasSubstr;

TEST(Keys, AreWrittenAndReadBack) {
  const test::TempDir dir;
  for (const KeyKind kind : {KeyKind::kCluster, KeyKind::kNode, KeyKind::kUser}) {
    const Key key = generate_key(kind);
    const std::string path = dir / std::string(to_string(kind));
    ASSERT_TRUE(write_key_files(path, key).ok());
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U);
    ASSERT_EQ(::stat((path + ".pub").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0644U);
    const auto loaded = load_key(path);
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    EXPECT_EQ(loaded->pub.kind, kind);
    EXPECT_EQ(loaded->pub.curve_public, key.pub.curve_public);
    EXPECT_EQ(loaded->curve_secret, key.curve_secret);
    EXPECT_EQ(loaded->sign_secret, key.sign_secret);
    EXPECT_EQ(load_public_key(path + ".pub")->curve_public, key.pub.curve_public);
    EXPECT_EQ(load_public_key(path)->sign_public, key.pub.sign_public);
    EXPECT_EQ(read_file(path + ".pub", 10'000)->find("secret"), std::string::npos);
    const Status again = write_key_files(path, key);
    ASSERT_FALSE(again.ok());
    EXPECT_EQ(again.error().code, ErrorCode::kAlreadyExists);
  }
}

TEST(Keys, SaysWhatIsWrongWithAFile) {
  const test::TempDir dir;
  EXPECT_THAT(load_key(dir / "none").error().message, HasSubstr("does not exist: make one with muster keygen"));
  const Key key = generate_cluster_key();
  ASSERT_TRUE(write_key_files(dir / "k", key).ok());
  ASSERT_EQ(::chmod((dir / "k").c_str(), 0640), 0);
  const auto open = load_key(dir / "k");
  ASSERT_FALSE(open.ok());
  EXPECT_EQ(open.error().code, ErrorCode::kPermissionDenied);
  EXPECT_THAT(open.error().message, HasSubstr("chmod 600"));
  const auto pub = load_key(dir / "k.pub");
  ASSERT_FALSE(pub.ok());
  EXPECT_THAT(pub.error().message, HasSubstr("no secret part: give the file without .pub"));
}

TEST(Keys, EveryFlippedByteIsNoticed) {
  const Key key = generate_cluster_key();
  const std::string text = format_key(key);
  ASSERT_TRUE(parse_key(text, "k").ok());
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string bad = text;
    bad[i] = bad[i] == '1' ? '2' : '1';
    const auto parsed = parse_key(bad, "k");
    // A changed blank or line end may leave the values as they were.
    if (parsed.ok()) {
      EXPECT_EQ(format_key(*parsed), text) << i;
    }
    if (i + 1 < text.size()) {  // the last line may lack its end
      EXPECT_FALSE(parse_key(text.substr(0, i), "k").ok()) << i;
    }
  }
  for (const char* bad : {"", "\n", "muster-key 2 user\n", "muster-key 1 x\n", "muster-key 1 user\ncurve_public\n"}) {
    EXPECT_FALSE(parse_public_key(bad, "k").ok());
  }
  EXPECT_FALSE(parse_public_key(text + "sign_public = 00\n", "k").ok());
  EXPECT_FALSE(parse_public_key(text + "other = 00\n", "k").ok());
}

TEST(Keys, SignaturesHoldForOneMessageAndKey) {
  const Key key = generate_cluster_key();
  const Key other = generate_cluster_key();
  const std::string signature = sign(key, "ticket");
  EXPECT_TRUE(verify(key.pub, "ticket", signature));
  EXPECT_FALSE(verify(key.pub, "Ticket", signature));
  EXPECT_FALSE(verify(other.pub, "ticket", signature));
  EXPECT_FALSE(verify(key.pub, "ticket", signature.substr(1)));
  EXPECT_FALSE(verify(generate_user_key().pub, "ticket", signature));
}

TEST(Log, QuotesWhatNeedsIt) {
  EXPECT_EQ(format_log_fields("node registered", {{"node", "n1"}, {"cpus", 32}, {"ok", true}, {"size", 5ULL}}),
            "msg=\"node registered\" node=n1 cpus=32 ok=true size=5");
  EXPECT_EQ(format_log_fields("x", {{"a", ""}, {"b", "c d"}, {"e", "say \"hi\""}, {"f", "a\nb"}}),
            "msg=x a=\"\" b=\"c d\" e=\"say \\\"hi\\\"\" f=\"a\\x0ab\"");
  EXPECT_LT(format_log_fields("x", {{"a", std::string(100'000, 'y')}}).size(), 5000U);
}

TEST(Log, WritesToItsFileFromTheLevelOn) {
  const test::TempDir dir;
  ASSERT_TRUE(log_init(LogLevel::kWarning, dir / "log").ok());
  log_info("not this");
  log_warning("this", {{"job", 42}});
  EXPECT_FALSE(log_enabled(LogLevel::kInfo));
  const auto text = read_file(dir / "log", 10'000);
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text, testing::MatchesRegex("time=[-0-9]+T[0-9:.]+Z level=warning msg=this job=42\n"));
  ASSERT_TRUE(log_init(LogLevel::kInfo, "").ok());
  EXPECT_FALSE(log_init(LogLevel::kInfo, "/proc/no/such/log").ok());
  EXPECT_FALSE(parse_log_level("loud").ok());
  EXPECT_EQ(*parse_log_level("debug"), LogLevel::kDebug);
}

}  // namespace
}  // namespace muster::io
