#include "base/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(find_invalid_utf8("plain"), std::string::npos);
  EXPECT_EQ(find_invalid_utf8("é€😀"), std::string::npos);
  EXPECT_EQ(find_invalid_utf8("ab\x80"), 2u);
  EXPECT_EQ(find_invalid_utf8("a\xC0\x80"), 1u);         // overlong
  EXPECT_EQ(find_invalid_utf8("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(find_invalid_utf8("ok\xE2\x82"), 2u);        // cut short
}

TEST(Utf8, CompletePrefixStopsBeforeAnUnfinishedCharacter) {
  const std::string smile = "😀";
  for (size_t cut = 1; cut < smile.size(); ++cut)
    EXPECT_EQ(complete_utf8_prefix("ab" + smile.substr(0, cut)), 2u) << cut;
  EXPECT_EQ(complete_utf8_prefix("ab" + smile), 6u);
  EXPECT_EQ(complete_utf8_prefix("ab\x80"), 3u);  // no more bytes would mend it
}

// Expected strings are Python's bytes.decode("utf-8", "replace").
TEST(Utf8, ReplacesAsPythonDoes) {
  EXPECT_EQ(replace_invalid_utf8("a\x80z"), "a\uFFFDz");
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82z"), "\uFFFDz");
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(Utf8, DecodesAndAppendsEveryLength) {
  const std::string text = "aé€😀";
  std::string back;
  for (const char32_t c : decode_utf8(text)) append_utf8(back, c);
  EXPECT_EQ(back, text);
  EXPECT_EQ(decode_utf8(text).size(), 4u);
}

TEST(Names, SuggestsTheNearestButNothingFar) {
  const std::vector<std::string> known = {"learning_rate", "lora_r", "seed"};
  EXPECT_EQ(nearest_name("learnig_rate", known), "learning_rate");
  EXPECT_EQ(nearest_name("lora_rank", known), "lora_r");
  EXPECT_EQ(nearest_name("sede", std::vector<std::string>{"data", "seed"}), "seed");
  EXPECT_EQ(nearest_name("zzz", known), "");
}

TEST(Show, FiguresForPeople) {
  EXPECT_EQ(show_bytes(999), "999 B");
  EXPECT_EQ(show_bytes(1234567), "1.23 MB");
  EXPECT_EQ(show_bytes(98.5e9), "98.5 GB");
  EXPECT_EQ(show_count(1234567), "1,234,567");
  EXPECT_EQ(show_count(-12), "-12");
  EXPECT_EQ(show_seconds(3.44), "3.4 s");
  EXPECT_EQ(show_seconds(3720), "1 h 02 min");
}

TEST(Split, KeepsEmptyParts) { EXPECT_THAT(split("a,,b,", ','), testing::ElementsAre("a", "", "b", "")); }

}  // namespace
}  // namespace nibble
