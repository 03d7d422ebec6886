#include "eval/text_stream.h"

#include <gtest/gtest.h>

namespace nibble::eval {
namespace {

// Token i is the byte i; 256 is special.
class Bytes : public text::Tokenizer {
 public:
  std::vector<text::TokenSpan> encode_spans(std::string_view, text::EncodeOptions) const override {
    return {};
  }
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string text;
    for (const int32_t id : ids)
      if (id < 256)
        text += static_cast<char>(id);
      else if (!skip_special)
        text += "<end>";
    return text;
  }
  std::string piece(int32_t id) const override { return std::string(1, static_cast<char>(id)); }
  std::optional<int32_t> id(std::string_view) const override { return std::nullopt; }
  int32_t vocab_size() const override { return 257; }
  bool is_special(int32_t id) const override { return id == 256; }
};

const Bytes kTokenizer;

// What push() hands out for each byte of `text`, joined by '|', then finish().
std::string stream(TextStream& out, std::string_view text) {
  std::string shown;
  for (const char c : text) {
    shown += out.push(static_cast<unsigned char>(c)) + "|";
    if (out.stopped()) return shown;
  }
  return shown + out.finish();
}

TEST(TextStream, WithoutStopsEveryTokenShowsAtOnce) {
  TextStream out(kTokenizer, {}, {});
  EXPECT_EQ(stream(out, "abc"), "a|b|c|");
  EXPECT_EQ(out.text(), "abc");
}

TEST(TextStream, HoldsWhatMayBecomeAStop) {
  TextStream out(kTokenizer, {}, {"##"});
  EXPECT_EQ(stream(out, "a#b##c"), "a||#b|||");
  EXPECT_TRUE(out.stopped());
  EXPECT_EQ(out.text(), "a#b");
  EXPECT_EQ(out.push('x'), "");
  EXPECT_EQ(out.finish(), "");
}

TEST(TextStream, HeldTextComesAtTheEnd) {
  TextStream out(kTokenizer, {}, {"##"});
  EXPECT_EQ(stream(out, "a#"), "a||#");
  EXPECT_FALSE(out.stopped());
  EXPECT_EQ(out.text(), "a#");
}

TEST(TextStream, TheEarliestStopCounts) {
  TextStream out(kTokenizer, {}, {"abcd", "bc", ""});
  EXPECT_EQ(stream(out, "xabcd"), "x|||a|");
  EXPECT_EQ(out.text(), "xa");
}

TEST(TextStream, StopThatOverlapsItself) {
  TextStream out(kTokenizer, {}, {"aab"});
  EXPECT_EQ(stream(out, "aaab"), "||a||");
  EXPECT_EQ(out.text(), "a");
}

TEST(TextStream, CharactersStayWhole) {
  TextStream out(kTokenizer, {}, {});
  EXPECT_EQ(stream(out, "é!"), "|é|!|");
  TextStream cut(kTokenizer, {}, {"é"});
  EXPECT_EQ(stream(cut, "aé"), "a|||");
  EXPECT_EQ(cut.text(), "a");
}

TEST(TextStream, ThePromptIsNoPartOfTheText) {
  const std::vector<int32_t> prompt{'a', 'b', 'c', 'd', 'e', '#'};
  TextStream out(kTokenizer, prompt, {"##"});
  EXPECT_EQ(stream(out, "#x"), "|#x|");
}

}  // namespace
}  // namespace nibble::eval
