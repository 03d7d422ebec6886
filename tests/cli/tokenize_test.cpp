// nibble tokenize: what it prints, and what it says to wrong usage.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;

const std::string kModel = NIBBLE_SOURCE_DIR "/tests/goldens/tokenizer/split_patterns.json";

std::string output_of(Arguments arguments) {
  arguments.insert(arguments.begin(), {"--model", kModel});
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_tokenize(arguments), 0);
  return testing::internal::GetCapturedStdout();
}

std::string put(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + "tokenize_test_" + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

template <class E>
std::string error_of(const Arguments& arguments) {
  try {
    run_tokenize(arguments);
  } catch (const E& e) {
    return e.what();
  }
  return "no error";
}

TEST(Tokenize, JsonHasIdsAndPieces) {
  const Json json = parse_json(output_of({"--text", "The heron", "--json"}), "output");
  ASSERT_EQ(json["ids"].size(), json["pieces"].size());
  EXPECT_EQ(json["pieces"][0], "<|endoftext|>");
  std::string joined;
  for (size_t i = 1; i < json["pieces"].size(); ++i) joined += json["pieces"][i].get<std::string>();
  EXPECT_EQ(joined, "TheĠheron");
  const Json plain = parse_json(output_of({"--text", "The heron", "--json", "--no-special"}), "output");
  EXPECT_EQ(plain["ids"].size() + 1, json["ids"].size());
}

TEST(Tokenize, EmptyTextIsAText) {
  EXPECT_EQ(parse_json(output_of({"--text", "", "--json", "--no-special"}), "output"),
            (Json{{"ids", Json::array()}, {"pieces", Json::array()}}));
}

TEST(Tokenize, LinesAreTextsOfTheirOwn) {
  const std::string path = put("lines.txt", "The heron\r\n\nwaits");
  const Json list = parse_json(output_of({"--lines", path, "--json", "--no-special"}), "output");
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0], parse_json(output_of({"--text", "The heron", "--json", "--no-special"}), "output"));
  EXPECT_TRUE(list[1]["ids"].empty());
  EXPECT_EQ(list[2], parse_json(output_of({"--text", "waits", "--json", "--no-special"}), "output"));
  const Json whole = parse_json(output_of({"--file", path, "--json", "--no-special"}), "output");
  EXPECT_EQ(whole,
            parse_json(output_of({"--text", "The heron\r\n\nwaits", "--json", "--no-special"}), "output"));
}

TEST(Tokenize, IdsComeBackAsText) {
  const Json json = parse_json(output_of({"--text", "The 🦩 waits", "--json"}), "output");
  EXPECT_EQ(output_of({"--decode", json["ids"].dump()}), "<|endoftext|>The 🦩 waits\n");
  const std::string path = put("ids.txt", json["ids"].dump());
  EXPECT_EQ(parse_json(output_of({"--decode-file", path, "--no-special", "--json"}), "output"),
            (Json{{"text", "The 🦩 waits"}}));
}

TEST(Tokenize, WithoutJsonEachTokenHasALine) {
  const std::string out = output_of({"--text", "a\n", "--no-special"});
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2);
  EXPECT_THAT(out, HasSubstr("\t\"Ċ\"\n"));
}

TEST(Tokenize, WrongUsageIsNamed) {
  EXPECT_THAT(error_of<UsageError>({"--text", "a"}), HasSubstr("give --model PATH"));
  EXPECT_THAT(error_of<UsageError>({"--model", kModel}),
              HasSubstr("give one of --text, --file, --lines, --decode"));
  EXPECT_THAT(error_of<UsageError>({"--model", kModel, "--text", "a", "--decode", "1"}),
              HasSubstr("give one of --text"));
  EXPECT_THAT(error_of<Error>({"--model", kModel, "--decode", "1 two"}), HasSubstr("\"two\" is no token id"));
  EXPECT_THAT(error_of<Error>({"--model", kModel, "--decode", "99999999999"}),
              HasSubstr("\"99999999999\" is no token id"));
  EXPECT_THAT(error_of<Error>({"--model", kModel, "--decode", "100000"}),
              HasSubstr("there is no token with id 100000"));
  EXPECT_THAT(error_of<Error>({"--model", kModel, "--file", "/no/such/file"}), HasSubstr("/no/such/file"));
}

}  // namespace
}  // namespace nibble::cli
