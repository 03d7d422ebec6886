#include <gmock/gmock.h>

#include "base/parallel.h"
#include "tests/data/support.h"

namespace nibble::data {
namespace {

using testing::HasSubstr;

class DatasetTest : public Files {
 protected:
  // Examples "q<i>" → answer of `answers[i]` letters.
  std::string chats(const std::string& name, const std::vector<int>& answers) {
    std::string text;
    for (size_t i = 0; i < answers.size(); ++i)
      text += Json{{"prompt", "q" + std::to_string(i)},
                   {"completion", std::string(static_cast<size_t>(answers[i]), 'a')}}
                  .dump() +
              "\n";
    return write(name, text);
  }
  DataOptions options(const std::string& path) {
    DataOptions o;
    o.train = {{path, "auto", 1}};
    o.eval_fraction = 0;
    return o;
  }
  // BOS, two letters, the answer, EOS.
  const Encoder encoder{chatml_tokenizer(), nullptr};
};

TEST_F(DatasetTest, CountsAndLengths) {
  const Dataset d = load_dataset(options(chats("a.jsonl", {1, 5, 3})), encoder);
  EXPECT_EQ(d.report.train_examples, 3);
  EXPECT_EQ(d.report.tokens, 3 * 4 + 9);
  EXPECT_EQ(d.report.trained_tokens, 9 + 3);
  EXPECT_EQ(d.report.longest, 9);
  EXPECT_EQ(d.report.longest_source, "a.jsonl:2");
  EXPECT_EQ(d.report.max_seq_length, 9);
  EXPECT_EQ(d.report.files[0].format, "prompt_completion");
  int64_t counted = 0;
  for (const int64_t n : d.report.length_histogram) counted += n;
  EXPECT_EQ(counted, 3);
  EXPECT_EQ(d.train[1].ids.size(), 9u);
  EXPECT_EQ(d.report.to_json()["longest"], 9);
}

TEST_F(DatasetTest, APartOfASourceIsTaken) {
  DataOptions o = options(chats("a.jsonl", {1, 2, 3, 4, 5}));
  o.train[0].skip = 1;
  o.train[0].take = 2;
  const Dataset d = load_dataset(o, encoder);
  EXPECT_EQ(d.report.train_examples, 2);
  EXPECT_EQ(d.report.files[0].examples, 2);
  EXPECT_EQ(d.train[0].source, "a.jsonl:2");
  EXPECT_EQ(d.train[1].source, "a.jsonl:3");
  o.train[0].take = 0;
  EXPECT_EQ(load_dataset(o, encoder).report.train_examples, 4);
  o.train[0].skip = 5;
  EXPECT_THAT(failure([&] { load_dataset(o, encoder); }),
              HasSubstr("holds 5 examples; none is left after the first 5"));
}

TEST_F(DatasetTest, OverlongExamplesAreRefusedByDefault) {
  DataOptions o = options(chats("a.jsonl", {1, 50, 3, 20}));
  o.max_seq_length = 10;
  o.context = 64;
  const std::string message = failure([&] { load_dataset(o, encoder); });
  EXPECT_THAT(message,
              HasSubstr("2 of 4 examples are longer than 10 tokens; the longest, a.jsonl:2, has 54"));
  EXPECT_THAT(message, HasSubstr("max_seq_length (the model's context is 64)"));
  EXPECT_THAT(message, HasSubstr("overlong: truncate, drop or split"));
}

TEST_F(DatasetTest, TheLongestIsNamedWhenItIsHeldOut) {
  DataOptions o = options(chats("a.jsonl", {1, 2}));
  o.eval = {{chats("e.jsonl", {40}), "auto", 1}};
  o.max_seq_length = 10;
  EXPECT_THAT(failure([&] { load_dataset(o, encoder); }),
              HasSubstr("1 of 3 examples are longer than 10 tokens; the longest, e.jsonl:1, has 44"));
}

TEST_F(DatasetTest, OverlongExamplesAreCutDroppedOrSplitAsAsked) {
  DataOptions o = options(chats("a.jsonl", {1, 50, 3, 20}));
  o.max_seq_length = 10;
  o.overlong = Overlong::kTruncate;
  Dataset d = load_dataset(o, encoder);
  EXPECT_EQ(d.report.truncated, 2);
  EXPECT_EQ(d.report.overlong, 2);
  EXPECT_EQ(d.train.size(), 4u);
  for (const auto& e : d.train) EXPECT_LE(e.ids.size(), 10u);
  o.overlong = Overlong::kDrop;
  d = load_dataset(o, encoder);
  EXPECT_EQ(d.report.dropped, 2);
  EXPECT_EQ(d.train.size(), 2u);
  o.overlong = Overlong::kSplit;
  d = load_dataset(o, encoder);
  EXPECT_EQ(d.report.split, 2);
  size_t tokens = 0;
  for (const auto& e : d.train) {
    tokens += e.ids.size();
    EXPECT_EQ(e.train[0], 0);
    EXPECT_LE(e.ids.size(), 10u);
  }
  EXPECT_EQ(tokens, 5u + 54 + 7 + 24);
}

TEST_F(DatasetTest, LengthNeedsNoOptionUpToTheContext) {
  DataOptions o = options(chats("a.jsonl", {1, 50}));
  o.context = 100;
  EXPECT_EQ(load_dataset(o, encoder).report.max_seq_length, 54);
  o.context = 20;
  EXPECT_THAT(failure([&] { load_dataset(o, encoder); }),
              HasSubstr("1 of 2 examples are longer than 20 tokens"));
  o.max_seq_length = 30;
  EXPECT_THAT(failure([&] { load_dataset(o, encoder); }),
              HasSubstr("is 30, but the model's context is 20 tokens"));
}

TEST_F(DatasetTest, ExamplesWithoutATrainedTokenAreCounted) {
  const std::string path = write(
      "a.jsonl", R"({"messages": [{"role": "user", "content": "a"}]})"
                 "\n"
                 R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
                 "\n");
  const Encoder chat(chatml_tokenizer(), chatml_template());
  const Dataset d = load_dataset(options(path), chat);
  EXPECT_EQ(d.report.untrained, 1);
  EXPECT_EQ(d.train.size(), 1u);
  const std::string none = write("b.jsonl", R"({"messages": [{"role": "user", "content": "a"}]})");
  EXPECT_THAT(failure([&] { load_dataset(options(none), chat); }),
              HasSubstr("no token is learned in any of the examples"));
}

TEST_F(DatasetTest, TrainOnSourceLearnsAllButWhatATurnExcludes) {
  const std::string path = write(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "a", "train": false}, {"role": "assistant", "content": "b"}]})"
      "\n");
  DataOptions o = options(path);
  o.train_on_source = true;
  const Encoder chat(chatml_tokenizer(), chatml_template());
  const Dataset d = load_dataset(o, chat);
  EXPECT_EQ(learned_text(d.train[0], chat.tokenizer()),
            "user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>");
  EXPECT_EQ(learned_text(d.train[1], chat.tokenizer()), "b<|im_end|>");
}

TEST_F(DatasetTest, APartIsHeldOutBySeed) {
  std::vector<int> answers;
  for (int i = 0; i < 100; ++i) answers.push_back(1 + i % 7);
  DataOptions o = options(chats("a.jsonl", answers));
  o.eval_fraction = 0.05;
  const Dataset a = load_dataset(o, encoder), b = load_dataset(o, encoder);
  EXPECT_EQ(a.eval.size(), 5u);
  EXPECT_EQ(a.train.size(), 95u);
  EXPECT_EQ(a.report.eval_examples, 5);
  EXPECT_EQ(a.train_weights.size(), 95u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(a.eval[i].source, b.eval[i].source);
  o.seed = 7;
  const Dataset c = load_dataset(o, encoder);
  EXPECT_FALSE(std::equal(a.eval.begin(), a.eval.end(), c.eval.begin(),
                          [](const auto& x, const auto& y) { return x.source == y.source; }));
}

TEST_F(DatasetTest, DuplicatesAndOverlapAreCounted) {
  const char* rows = R"({"prompt": "p", "completion": "c"})"
                     "\n"
                     R"({"prompt": "p", "completion": "c"})"
                     "\n"
                     R"({"prompt": "p", "completion": "d"})"
                     "\n";
  DataOptions o = options(write("a.jsonl", rows));
  o.eval = {{write("e.jsonl", R"({"prompt": "p", "completion": "c"})"), "auto", 1}};
  const Dataset d = load_dataset(o, encoder);
  EXPECT_EQ(d.report.duplicates, 1);
  EXPECT_EQ(d.report.overlap, 2);
  EXPECT_EQ(d.train.size(), 3u);
}

TEST_F(DatasetTest, SourcesKeepTheirWeights) {
  DataOptions o = options(chats("a.jsonl", {1, 2}));
  o.train.push_back({chats("b.jsonl", {3}), "prompt_completion", 0.5});
  const Dataset d = load_dataset(o, encoder);
  EXPECT_EQ(d.train_weights, (std::vector<double>{1, 1, 0.5}));
  o.train[1].weight = 0;
  EXPECT_THAT(failure([&] { load_dataset(o, encoder); }), HasSubstr("weight should be above 0, got 0"));
}

TEST_F(DatasetTest, TheSameForAnyNumberOfThreads) {
  std::vector<int> answers;
  for (int i = 0; i < 300; ++i) answers.push_back(1 + i % 11);
  DataOptions o = options(chats("a.jsonl", answers));
  const int before = threads();
  set_threads(1);
  const Dataset one = load_dataset(o, encoder);
  set_threads(4);
  const Dataset four = load_dataset(o, encoder);
  set_threads(before);
  ASSERT_EQ(one.train.size(), four.train.size());
  for (size_t i = 0; i < one.train.size(); ++i) EXPECT_EQ(one.train[i].ids, four.train[i].ids);
}

TEST_F(DatasetTest, NamesOfOverlong) {
  EXPECT_EQ(parse_overlong("split"), Overlong::kSplit);
  EXPECT_THROW(parse_overlong("cut"), UsageError);
  EXPECT_THAT(failure([] { load_dataset({}, Encoder(chatml_tokenizer(), nullptr)); }),
              HasSubstr("no data set is given"));
}

// The reference cuts prompt and response apart, each at its end, BOS and EOS counted.
TEST_F(DatasetTest, PromptAndResponseHaveLimitsOfTheirOwn) {
  DataOptions o = options(chats("a.jsonl", {1, 9}));
  o.source_max_length = 2;
  o.target_max_length = 4;
  Dataset d = load_dataset(o, encoder);
  EXPECT_EQ(d.train[0].ids.size(), 4u);
  EXPECT_EQ(learned_text(d.train[0], encoder.tokenizer()), "a<|im_end|>");
  EXPECT_EQ(d.train[1].ids.size(), 6u);
  EXPECT_EQ(learned_text(d.train[1], encoder.tokenizer()), "aaaa");
  EXPECT_EQ(d.report.source_cut, 2);
  EXPECT_EQ(d.report.target_cut, 1);
  EXPECT_EQ(d.report.overlong, 0);
  o.train_on_source = true;
  d = load_dataset(o, encoder);
  EXPECT_EQ(learned_text(d.train[1], encoder.tokenizer()), "qaaaa");
  EXPECT_EQ(d.report.source_cut, 2);
}

}  // namespace
}  // namespace nibble::data
