#include "eval/generate.h"

#include <gmock/gmock.h>

#include "base/process.h"
#include "eval/speed.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using ::testing::HasSubstr;

class Generate : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!have_stories()) GTEST_SKIP() << "needs " << kStories;
    loaded_ = std::make_unique<Loaded>(kStories);
  }
  std::vector<int32_t> encode(const std::string& text) const { return loaded_->tokenizer->encode(text); }
  Generator generator() const { return Generator(loaded_->context, *loaded_->model, *loaded_->tokenizer); }
  std::unique_ptr<Loaded> loaded_;
};

GenerateOptions greedy(int64_t tokens) {
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_new_tokens = tokens;
  return options;
}

// The definition: the whole text through the model without a cache, its last row, one token.
std::vector<int32_t> by_definition(Loaded& loaded, std::vector<int32_t> ids, const GenerateOptions& options) {
  std::vector<int32_t> fresh;
  while (static_cast<int64_t>(fresh.size()) < options.max_new_tokens) {
    const auto input = nn::packed_input(host_allocator(), ids, {static_cast<int32_t>(ids.size())});
    const Tensor logits =
        loaded.model->logits(loaded.context, loaded.model->forward(loaded.context, input, nullptr), {});
    const int64_t vocab = logits.size(1);
    const std::span<const float> row(logits.data<float>() + (logits.size(0) - 1) * vocab,
                                     static_cast<size_t>(vocab));
    fresh.push_back(draw_token(row, ids, options.sampling, 0, fresh.size()));
    ids.push_back(fresh.back());
  }
  return fresh;
}

TEST_F(Generate, CachedEqualsTheWholeTextEachTime) {
  const std::vector<int32_t> prompt = encode("Once upon a time");
  EXPECT_EQ(generator().run({prompt}, greedy(30))[0].ids, by_definition(*loaded_, prompt, greedy(30)));
  GenerateOptions drawn;
  drawn.max_new_tokens = 30;
  drawn.sampling.repetition_penalty = 1.2;
  EXPECT_EQ(generator().run({prompt}, drawn)[0].ids, by_definition(*loaded_, prompt, drawn));
}

TEST_F(Generate, BatchesEqualOneByOne) {
  std::vector<std::vector<int32_t>> prompts;
  for (const char* text :
       {"Once upon a time", "The", "A big red ball was in the park and the little girl", "Tom", "She said"})
    prompts.push_back(encode(text));
  GenerateOptions options;  // drawn: shows that streams do not depend on the place in the batch
  options.max_new_tokens = 40;
  options.stop_ids = encode(".");
  for (const int64_t batch : {1, 2, 3, 16}) {
    options.batch = batch;
    const auto together = generator().run(prompts, options);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const Generated alone = generator().run({prompts[i]}, options)[0];
      EXPECT_EQ(together[i].ids, alone.ids) << "batch " << batch << " prompt " << i;
      EXPECT_EQ(together[i].text, alone.text);
      EXPECT_EQ(together[i].finish, alone.finish);
      EXPECT_EQ(together[i].prompt_tokens, static_cast<int64_t>(prompts[i].size()));
    }
  }
}

TEST_F(Generate, EqualPromptsDrawDifferentAnswers) {
  GenerateOptions options;
  options.max_new_tokens = 30;
  options.sampling.temperature = 1;
  const std::vector<int32_t> prompt = encode("Once upon a time");
  const auto answers = generator().run({prompt, prompt}, options);
  EXPECT_NE(answers[0].ids, answers[1].ids);
  EXPECT_EQ(answers[0].ids, generator().run({prompt}, options)[0].ids);
}

TEST_F(Generate, LongPromptsAreReadInPieces) {
  std::vector<int32_t> prompt =
      encode("Once upon a time, there was a little girl named Lily. She loved to play outside in the park.");
  const std::vector<int32_t> story = prompt;
  while (prompt.size() + story.size() < 490) prompt.insert(prompt.end(), story.begin() + 1, story.end());
  // Together they exceed what one forward takes.
  const auto together = generator().run({prompt, prompt, story}, greedy(10));
  EXPECT_EQ(together[0].ids, by_definition(*loaded_, prompt, greedy(10)));
  EXPECT_EQ(together[1].ids, together[0].ids);
  EXPECT_EQ(together[2].ids, by_definition(*loaded_, story, greedy(10)));
}

TEST_F(Generate, AConversationReadsOnlyWhatIsNew) {
  Generator g = generator();
  std::vector<int32_t> text = encode("Once upon a time");
  const Generated first = g.run({text}, greedy(20))[0];
  EXPECT_EQ(g.timing().read, static_cast<int64_t>(text.size()));
  text.insert(text.end(), first.ids.begin(), first.ids.end());
  for (const int32_t id : encode(" The dog")) text.push_back(id);
  const Generated second = g.run({text}, greedy(20))[0];
  EXPECT_LT(g.timing().read, 10);
  EXPECT_EQ(second.ids, generator().run({text}, greedy(20))[0].ids);
  // Another beginning: nothing of it may remain.
  const std::vector<int32_t> other = encode("Tom and his dog");
  EXPECT_EQ(g.run({other}, greedy(20))[0].ids, generator().run({other}, greedy(20))[0].ids);
}

TEST_F(Generate, EndsAtStopTokensTextLengthAndContext) {
  const std::vector<int32_t> prompt = encode("Once upon a time");
  GenerateOptions options = greedy(200);
  options.stop_ids = encode(".");
  const Generated dot = generator().run({prompt}, options)[0];
  EXPECT_EQ(dot.text, ", there was a little girl named Lily");
  EXPECT_EQ(dot.finish, Finish::kStop);

  options = greedy(200);
  options.stop = {"named", "Lily"};
  const Generated word = generator().run({prompt}, options)[0];
  EXPECT_EQ(word.text, ", there was a little girl ");
  EXPECT_EQ(word.finish, Finish::kStop);

  const Generated length = generator().run({prompt}, greedy(7))[0];
  EXPECT_EQ(length.ids.size(), 7u);
  EXPECT_EQ(length.finish, Finish::kLength);

  options = greedy(200);
  options.context = static_cast<int64_t>(prompt.size()) + 4;
  const Generated full = generator().run({prompt}, options)[0];
  EXPECT_EQ(full.ids.size(), 4u);
  EXPECT_EQ(full.finish, Finish::kLength);
}

TEST_F(Generate, StreamsTheTextAndStopsWhenToldTo) {
  const std::vector<int32_t> prompt = encode("Once upon a time");
  std::string streamed;
  const Generated whole = generator().run({prompt}, greedy(30), [&](size_t index, std::string_view text) {
    EXPECT_EQ(index, 0u);
    streamed += text;
    return true;
  })[0];
  EXPECT_EQ(streamed, whole.text);
  int calls = 0;
  const Generated cut =
      generator().run({prompt}, greedy(30), [&](size_t, std::string_view) { return ++calls < 3; })[0];
  EXPECT_EQ(cut.finish, Finish::kCancelled);
  EXPECT_EQ(cut.ids.size(), 3u);
}

TEST_F(Generate, CtrlCCancels) {
  set_interrupted(true);
  const Generated none = generator().run({encode("Once")}, greedy(5))[0];
  set_interrupted(false);
  EXPECT_EQ(none.finish, Finish::kCancelled);
  EXPECT_TRUE(none.ids.empty());
}

TEST_F(Generate, WhatCtrlCCutShortHasNoSpeed) {
  Generator subject = generator();
  set_interrupted(true);
  EXPECT_THAT([&] { measure_generation(subject, 512, 8, 4, 2, 1); }, testing::Throws<Interrupted>());
  set_interrupted(false);
  EXPECT_GT(measure_generation(subject, 512, 8, 4, 2, 1).single, 0);
}

TEST_F(Generate, RefusesWhatCannotBeAnswered) {
  auto message = [&](const std::vector<std::vector<int32_t>>& prompts, GenerateOptions options) {
    return message_of([&] { generator().run(prompts, options); });
  };
  EXPECT_THAT(message({{1}, {}}, greedy(5)), HasSubstr("prompt 2 is empty"));
  EXPECT_THAT(message({std::vector<int32_t>(512, 5)}, greedy(5)),
              HasSubstr("prompt 1 has 512 tokens, which leaves no room for an answer in a context of 512"));
  EXPECT_THAT(message({{1}}, greedy(0)), HasSubstr("[--max-new-tokens] expected a number above 0, got 0"));
  GenerateOptions wide = greedy(5);
  wide.context = 1000;
  EXPECT_THAT(message({{1}}, wide), HasSubstr("1000 tokens asked for, the model was made for 512"));
  EXPECT_TRUE(generator().run({}, greedy(5)).empty());
}

}  // namespace
}  // namespace nibble::eval
