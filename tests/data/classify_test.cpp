// Texts with a label: encoded with what stands around them, cut from the longer one, packed with their types.
#include <gmock/gmock.h>

#include "data/glue.h"
#include "data/steps.h"
#include "tests/data/support.h"

namespace nibble::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::shared_ptr<ByteTokenizer> bert_like(int32_t second_type = 1) {
  auto t = std::make_shared<ByteTokenizer>(std::vector<std::string>{"[CLS]", "[SEP]"});
  t->pair =
      text::PairTemplate{{256}, std::vector<int32_t>(second_type == 1 ? 1 : 2, 257), {257}, second_type};
  return t;
}

Example labelled(const std::string& first, const std::string& second, double label) {
  Example e;
  e.segments.push_back({first, false});
  if (!second.empty()) e.segments.push_back({second, false});
  e.label = label;
  e.task = "rte";
  e.source = "here:1";
  return e;
}

std::string shown(const Encoder& encoder, const EncodedExample& e) {
  return encoder.tokenizer().decode(e.ids, false);
}

TEST(Labelled, TextsStandInTheTokenizersTemplate) {
  const Encoder bert(bert_like(), nullptr), roberta(bert_like(0), nullptr);
  const EncodedExample pair = bert.encode(labelled("ab", "xyz", 1));
  EXPECT_EQ(shown(bert, pair), "[CLS]ab[SEP]xyz[SEP]");
  EXPECT_EQ(pair.second_begin, 4);
  EXPECT_EQ(pair.trained(), 1);
  EXPECT_EQ(pair.label, 1);
  const EncodedExample single = bert.encode(labelled("ab", "", 0));
  EXPECT_EQ(shown(bert, single), "[CLS]ab[SEP]");
  EXPECT_EQ(single.second_begin, 0);
  const EncodedExample other = roberta.encode(labelled("ab", "xyz", 1));
  EXPECT_EQ(shown(roberta, other), "[CLS]ab[SEP][SEP]xyz[SEP]");
  EXPECT_EQ(other.second_begin, 0) << "one type alone";
  // What a text spells stays text.
  EXPECT_EQ(bert.encode(labelled("[SEP]", "", 0)).ids.size(), 7u);
  EXPECT_EQ(show_example(pair, bert.tokenizer(), false), "[CLS]ab[SEP]xyz[SEP] → «1»");
}

// The lengths that Transformers' longest_first leaves.
TEST(Labelled, TheLongerTextIsCutFirst) {
  const Encoder encoder(bert_like(), nullptr);
  const auto cut = [&](const std::string& first, const std::string& second, int64_t limit) {
    EncodedExample e = encoder.encode(labelled(first, second, 1));
    encoder.truncate(e, limit);
    EXPECT_EQ(e.train.size(), e.ids.size());
    EXPECT_EQ(e.second_begin, second.empty() ? 0 : e.first_tokens + 2);
    return shown(encoder, e);
  };
  EXPECT_EQ(cut("abcdef", "xy", 20), "[CLS]abcdef[SEP]xy[SEP]");
  EXPECT_EQ(cut("abcdef", "xy", 9), "[CLS]abcd[SEP]xy[SEP]");
  EXPECT_EQ(cut("ab", "uvwxyz", 9), "[CLS]ab[SEP]uvwx[SEP]");
  EXPECT_EQ(cut("abcdef", "uvwxyz", 8), "[CLS]ab[SEP]uvw[SEP]");
  EXPECT_EQ(cut("abcdefg", "uvwxyz", 8), "[CLS]abc[SEP]uv[SEP]");
  EXPECT_EQ(cut("abcdef", "", 5), "[CLS]abc[SEP]");
  EXPECT_EQ(cut("abcdef", "x", 3), "[CLS][SEP][SEP]");
  EncodedExample e = encoder.encode(labelled("ab", "x", 1));
  EXPECT_THAT(failure([&] { encoder.truncate(e, 2); }), HasSubstr("3 tokens stand around its texts"));
}

TEST(Labelled, NeedATokenizerThatSaysWhatStandsAroundThem) {
  const Encoder encoder(std::make_shared<ByteTokenizer>(std::vector<std::string>{}), nullptr);
  EXPECT_THAT(failure([&] { encoder.encode(labelled("ab", "", 0)); }),
              HasSubstr("[here:1] has a label of its whole text, but the tokenizer does not say"));
}

TEST(Labelled, AMicroBatchHasARowForEachSequence) {
  const Encoder encoder(bert_like(), nullptr);
  std::vector<EncodedExample> examples;
  for (const double label : {1.0, 0.0, 2.5}) examples.push_back(encoder.encode(labelled("a", "x", label)));
  examples[1] = encoder.encode(labelled("a", "", 0));
  const auto batches = sequential_batches(examples, 100);
  ASSERT_EQ(batches.size(), 1u);
  const MicroBatch& m = batches[0];
  EXPECT_THAT(m.lengths, ElementsAre(5, 3, 5));
  EXPECT_THAT(m.label_rows, ElementsAre(0, 1, 2));
  EXPECT_THAT(m.labels, ElementsAre(1, 0, 2));
  EXPECT_THAT(m.targets, ElementsAre(1, 0, 2.5f));
  EXPECT_THAT(m.types, ElementsAre(0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1));
  EXPECT_EQ(m.trained(), 3);
  const StepStream stream(examples, {.batch_size = 2, .packing = false, .max_seq_length = 8});
  EXPECT_EQ(stream.step(0).trained_tokens, 2);
}

class LabelledFiles : public Files {
 protected:
  Dataset load(const std::string& path, const std::string& format = "auto", DataOptions options = {}) {
    options.train = {{path, format}};
    options.eval_fraction = 0;
    options.classify = true;
    return load_dataset(options, Encoder(bert_like(), nullptr));
  }
};

TEST_F(LabelledFiles, AreReadWithTheirTask) {
  const std::string path = write("sst.tsv", "sentence\tlabel\ngood\t1\nbad\t0\ngood\t1\ngood\t0\n");
  const Dataset data = load(path);
  EXPECT_EQ(data.task, "sst2");
  ASSERT_EQ(data.train.size(), 4u);
  EXPECT_EQ(data.report.trained_tokens, 4);
  EXPECT_EQ(data.report.duplicates, 1) << "another label is another example";
  DataOptions options;
  options.max_seq_length = 5;
  options.overlong = Overlong::kTruncate;
  const Dataset cut = load(path, "auto", options);
  EXPECT_EQ(cut.report.truncated, 3);
  EXPECT_EQ(cut.train[0].ids.size(), 5u);
}

TEST_F(LabelledFiles, WhatCannotBeClassifiedIsAnErrorThatSaysSo) {
  const std::string good = write("sst.tsv", "sentence\tlabel\ngood\t1\nbad\t0\n");
  EXPECT_THAT(failure([&] { load(write("chat.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n")); }),
              HasSubstr("the layout prompt_completion has no labels of whole texts"));
  EXPECT_THAT(failure([&] { load(write("range.tsv", "sentence\tlabel\ngood\t7\n"), "glue:sst2"); }),
              HasSubstr("[range.tsv:2] label 7 is outside the range of sst2; expected 0 to 1"));
  EXPECT_THAT(
      failure([&] { load(write("score.tsv", "sentence1\tsentence2\tscore\na\tb\t5.5\n"), "glue:stsb"); }),
      HasSubstr("label 5.5 is outside the range of stsb; expected a score from 0 to 5"));
  EXPECT_THAT(failure([&] { load(write("none.tsv", "sentence\tlabel\n"), "glue:sst2"); }),
              HasSubstr("is an empty split of sst2: there is no row"));
  EXPECT_THAT(failure([&] { load(write("test.tsv", "index\tsentence\n0\tgood\n"), "glue:sst2"); }),
              HasSubstr("has no label; a test split cannot be trained on"));
  DataOptions split, source;
  split.overlong = Overlong::kSplit;
  source.source_max_length = 3;
  EXPECT_THAT(failure([&] { load(good, "auto", split); }), HasSubstr("split makes parts that have no label"));
  EXPECT_THAT(failure([&] { load(good, "auto", source); }), HasSubstr("source_max_length"));
  DataOptions two;
  two.classify = true;
  two.train = {{good, "glue:sst2"},
               {write("pairs.tsv", "sentence1\tsentence2\tlabel\na\tb\tentailment\n"), "glue:rte"}};
  EXPECT_THAT(failure([&] { load_dataset(two, Encoder(bert_like(), nullptr)); }),
              HasSubstr("is an example of rte beside others of sst2"));
}

}  // namespace
}  // namespace nibble::data
