#include <gmock/gmock.h>

#include "tests/data/support.h"

namespace nibble::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RecordsTest : public Files {
 protected:
  std::string error(const std::string& name, std::string_view content) {
    const std::string path = write(name, content);
    return failure([&] { read_records(path); });
  }
};

TEST_F(RecordsTest, JsonlKeepsLineNumbersOverBlankLines) {
  const Records r =
      read_records(write("a.jsonl", "\xEF\xBB\xBF{\"text\": \"x\"}\r\n\n  \n{\"text\": \"y\"}"));
  ASSERT_EQ(r.records.size(), 2u);
  EXPECT_EQ(r.records[1]["text"], "y");
  EXPECT_THAT(r.sources, ElementsAre("a.jsonl:1", "a.jsonl:4"));
}

TEST_F(RecordsTest, JsonIsAListAnObjectWithOneListOrOneRecord) {
  EXPECT_EQ(read_records(write("a.json", R"([{"text": "x"}, {"text": "y"}])")).records.size(), 2u);
  EXPECT_EQ(read_records(
                write("b.json", R"({"version": 1, "data": [{"text": "x"}, {"text": "y"}, {"text": "z"}]})"))
                .records.size(),
            3u);
  const Records one = read_records(
      write("c.json",
            R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"));
  ASSERT_EQ(one.records.size(), 1u);
  EXPECT_TRUE(one.records[0].contains("messages"));
  const Records lines = read_records(write("d.json", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n"));
  EXPECT_THAT(lines.sources, ElementsAre("d.json:1", "d.json:2"));
}

TEST_F(RecordsTest, TablesFollowRfc4180) {
  const Records r =
      read_records(write("a.csv", "prompt,completion\r\n\"a, \"\"b\"\"\",\"two\nlines\"\r\n\nc,\n"));
  ASSERT_EQ(r.records.size(), 2u);
  EXPECT_EQ(r.records[0]["prompt"], "a, \"b\"");
  EXPECT_EQ(r.records[0]["completion"], "two\nlines");
  EXPECT_EQ(r.records[1]["completion"], "");
  EXPECT_THAT(r.sources, ElementsAre("a.csv:2", "a.csv:5"));
  EXPECT_EQ(read_records(write("a.tsv", "prompt\tcompletion\na \"x\"\tb\n")).records[0]["prompt"], "a \"x\"");
}

TEST_F(RecordsTest, PlainTextIsOneDocument) {
  EXPECT_EQ(read_records(write("a.txt", "two\nlines\n")).records[0], "two\nlines\n");
}

TEST_F(RecordsTest, BadFilesAreRefusedWithFileAndLine) {
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \n"),
              HasSubstr("[a.jsonl:2] is not valid JSON"));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"x\"}\n\n{\"text\": \"\xC3\x28\"}\n"),
              HasSubstr("[a.jsonl:3] is not valid UTF-8"));
  EXPECT_THAT(error("a.jsonl", ""), HasSubstr("is empty: no record to train on"));
  EXPECT_THAT(error("a.jsonl", "\n \n"), HasSubstr("is empty"));
  EXPECT_THAT(error("a.json", "[]"), HasSubstr("is empty"));
  EXPECT_THAT(error("a.json", "[{\"text\": \"x\"},\n]"), HasSubstr("line 2"));
  EXPECT_THAT(error("a.json", "17"), HasSubstr("expected a list of records, got number"));
  EXPECT_THAT(error("a.json", R"({"train": [{"text": "a"}], "test": [{"text": "b"}]})"),
              HasSubstr("several lists of records"));
  EXPECT_THAT(error("a.csv", "a,b\n1,2\n3\n"),
              HasSubstr("[a.csv:3] has 1 fields where the first row names 2"));
  EXPECT_THAT(error("a.csv", "a,b\n\"1,2\n"), HasSubstr("[a.csv:2] a quote opens here that nothing closes"));
  EXPECT_THAT(error("a.csv", "a,a\n1,2\n"), HasSubstr("field 2 of the first row is \"a\" once more"));
  EXPECT_THAT(error("a.csv", "a,b\n"), HasSubstr("is empty"));
  EXPECT_THAT(error("a.parquet", "PAR1"),
              HasSubstr("no known suffix; expected .jsonl, .json, .csv, .tsv or .txt"));
  EXPECT_THAT(error("a.jsonl", "\x1f\x8b\x08"), HasSubstr("compressed with gzip; unpack it first"));
  EXPECT_THAT(error("a.jsonl", std::string(100000, '[')), HasSubstr("256 levels"));
  EXPECT_THAT(failure([] { read_records("/nowhere/a.jsonl"); }), HasSubstr("/nowhere/a.jsonl"));
}

}  // namespace
}  // namespace nibble::data
