// Multiple choice: prompts, batching against one forward a question, and Transformers' logits.
#include "eval/choice.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "base/process.h"
#include "eval/choice_data.h"
#include "tests/data/support.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ChoiceQuestion question(std::string text, std::vector<std::string> choices, int64_t answer) {
  ChoiceQuestion q;
  q.question = std::move(text);
  q.choices = std::move(choices);
  q.answer = answer;
  q.source = "here";
  return q;
}

TEST(Choice, ThePromptIsTheOriginalsToTheSpace) {
  EXPECT_EQ(choice_header("abstract_algebra"),
            "The following are multiple choice questions (with answers) about  abstract algebra.\n\n");
  EXPECT_EQ(choice_header(""), "The following are multiple choice questions (with answers).\n\n");
  const ChoiceQuestion q = question("One and one?", {"1", "2", "3", "4"}, 1);
  EXPECT_EQ(choice_block(q, false), "One and one?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
  EXPECT_EQ(choice_block(q, true), "One and one?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n");
}

class StoriesChoice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!have_stories()) GTEST_SKIP() << "needs " << kStories;
    loaded_ = std::make_unique<Loaded>(kStories);
    // Its own tokenizer has no token for most letters.
    tokenizer_.bos = tokenizer_.id("<s>");
    tokenizer_.eos = tokenizer_.id("</s>");
  }

  ChoiceSubject subject(int64_t shots) const {
    ChoiceSubject s;
    s.name = "stories";
    for (int64_t i = 0; i < shots; ++i)
      s.shots.push_back(
          question("Who is " + std::string(static_cast<size_t>(1 + i), 'x') + "?", {"Tom", "Lily"}, i % 2));
    for (int i = 0; i < 9; ++i)
      s.questions.push_back(
          question("Once there was a dog. " + std::string(static_cast<size_t>(i), 'y') + " Was it big?",
                   {"yes", "no", "a cat"}, i % 3));
    return s;
  }
  std::vector<ChoiceAnswer> ask(const ChoiceSubject& s, const ChoiceOptions& options) const {
    return answer_choices(loaded_->context, *loaded_->model, tokenizer_, {s}, options)[0];
  }

  // All logits after the prompt, by one forward of its own.
  std::vector<float> logits_after(const std::vector<int32_t>& ids) const {
    const auto input = nn::packed_input(host_allocator(), ids, {static_cast<int32_t>(ids.size())});
    const Tensor logits = loaded_->model->logits(
        loaded_->context, loaded_->model->forward(loaded_->context, input, nullptr), {});
    const float* last = logits.data<float>() + (logits.size(0) - 1) * logits.size(1);
    return {last, last + logits.size(1)};
  }
  std::unique_ptr<Loaded> loaded_;
  data::ByteTokenizer tokenizer_{{"<s>", "</s>"}};
};

TEST_F(StoriesChoice, SharedPrefixesEqualOneForwardAQuestion) {
  const ChoiceSubject s = subject(3);
  for (const int64_t tokens_per_batch : {1, 60, 4000}) {
    const auto answers =
        ask(s, {.context = 0, .tokens_per_batch = tokens_per_batch, .reference_loss = false, .progress = {}});
    ASSERT_EQ(answers.size(), s.questions.size());
    for (size_t i = 0; i < answers.size(); ++i) {
      std::string text = choice_header(s.name);
      for (const ChoiceQuestion& shot : s.shots) text += choice_block(shot, true);
      text += choice_block(s.questions[i], false);
      // The letters' tokens are found here by comparing whole encodings.
      std::vector<std::vector<int32_t>> whole;
      for (const char* letter : {" A", " B", " C"}) whole.push_back(tokenizer_.encode(text + letter));
      const std::vector<int32_t> prompt(whole[0].begin(), whole[0].end() - 1);
      const std::vector<float> row = logits_after(prompt);
      double sum = 0;
      for (const float v : row) sum += std::exp(static_cast<double>(v));
      ASSERT_EQ(answers[i].logits.size(), 3u);
      for (size_t c = 0; c < 3; ++c) {
        ASSERT_TRUE(std::equal(prompt.begin(), prompt.end(), whole[c].begin()));
        EXPECT_NEAR(answers[i].logits[c], row[static_cast<size_t>(whole[c].back())], 2e-5);
      }
      const auto right = static_cast<size_t>(whole[static_cast<size_t>(s.questions[i].answer)].back());
      EXPECT_NEAR(answers[i].nll, std::log(sum) - row[right], 2e-5);
      EXPECT_EQ(answers[i].shots, 3);
      EXPECT_EQ(answers[i].chosen, std::max_element(answers[i].logits.begin(), answers[i].logits.end()) -
                                       answers[i].logits.begin());
    }
  }
}

TEST_F(StoriesChoice, ShotsGoOneAtATimeUntilThePromptFits) {
  const ChoiceSubject s = subject(4);
  const auto tokens = [&](int64_t shots, const ChoiceQuestion& q) {
    std::string text = choice_header(s.name);
    for (int64_t i = 0; i < shots; ++i) text += choice_block(s.shots[static_cast<size_t>(i)], true);
    return static_cast<int64_t>(tokenizer_.encode(text + choice_block(q, false) + " A").size()) - 1;
  };
  ChoiceOptions options;
  options.context = tokens(2, s.questions[4]);
  const auto answers = ask(s, options);
  int64_t removed = 0, fewer = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    int64_t fit = 4;
    while (tokens(fit, s.questions[i]) > options.context) --fit;
    EXPECT_EQ(answers[i].shots, fit) << i;
    EXPECT_FALSE(answers[i].cut);
    removed += 4 - fit;
    fewer += fit < 4;
    ChoiceSubject alone = s;
    alone.shots.resize(static_cast<size_t>(fit));
    alone.questions = {s.questions[i]};
    EXPECT_NEAR(ask(alone, {})[0].logits[0], answers[i].logits[0], 2e-5);
  }
  ASSERT_GT(fewer, 0);
  const ChoiceScore score = score_choices(s, answers, options);
  EXPECT_EQ(score.fewer_shots, fewer);
  EXPECT_EQ(score.shots_removed, removed);
  EXPECT_EQ(score.cut, 0);
  // Not even the question fits: its end stays.
  options.context = 20;
  for (const ChoiceAnswer& a : ask(s, options)) {
    EXPECT_EQ(a.shots, 0);
    EXPECT_TRUE(a.cut);
  }
}

TEST_F(StoriesChoice, TheReferencesLossCountsLetterAndEnd) {
  ChoiceSubject s;
  s.questions.push_back(question("", {"A", "B", "C", "D"}, 2));
  s.questions[0].prompt = "Was it big?\nAnswer:";
  ChoiceOptions options;
  options.reference_loss = true;
  const ChoiceAnswer a = ask(s, options)[0];
  std::vector<int32_t> ids = tokenizer_.encode(s.questions[0].prompt);
  ASSERT_EQ(ids[0], 256);
  const auto nll = [](const std::vector<float>& row, int32_t id) {
    double sum = 0;
    for (const float v : row) sum += std::exp(static_cast<double>(v));
    return std::log(sum) - row[static_cast<size_t>(id)];
  };
  const int32_t letter = tokenizer_.encode("C", {.add_special = false})[0];
  EXPECT_NEAR(a.nll, nll(logits_after(ids), letter), 2e-5);
  ids.push_back(letter);
  EXPECT_NEAR(a.end_nll, nll(logits_after(ids), *tokenizer_.eos), 2e-5);
  EXPECT_NEAR(score_choices(s, {a}, options).loss(), (a.nll + a.end_nll) / 2, 1e-12);
}

TEST_F(StoriesChoice, RefusesWhatCannotBeAsked) {
  ChoiceSubject none;
  none.name = "empty";
  EXPECT_THAT(message_of([&] { ask(none, {}); }), HasSubstr("the subject empty has no question"));
  ChoiceSubject s = subject(0);
  s.questions[1].choices = {"only"};
  EXPECT_THAT(message_of([&] { ask(s, {}); }), HasSubstr("[here] has 1 choices; expected 2 to 26"));
  s = subject(0);
  s.questions[2].answer = 3;
  EXPECT_THAT(message_of([&] { ask(s, {}); }), HasSubstr("names choice 4 of 3 as the answer"));
  ChoiceOptions wide;
  wide.context = 513;
  EXPECT_THAT(message_of([&] { ask(subject(0), wide); }), HasSubstr("[--context] expected 16 to 512 tokens"));
  // A tokenizer that writes letters in several tokens.
  EXPECT_THAT(message_of([&] {
                answer_choices(loaded_->context, *loaded_->model, *loaded_->tokenizer, {subject(0)}, {});
              }),
              HasSubstr("does not write the answer B in one token of its own"));
  set_interrupted(true);
  EXPECT_THROW(ask(subject(0), {}), Interrupted);
  set_interrupted(false);
}

const std::string kMmlu = kSharedData + "/mmlu/";
const std::string kSmol = NIBBLE_SOURCE_DIR "/build/models/SmolLM2-135M-Instruct.gguf";

// Real weights: Transformers, one whole prompt at a time, gave these logits.
TEST(SmolChoice, LogitsEqualTransformers) {
  if (!std::filesystem::exists(kSmol) || !std::filesystem::exists(kMmlu))
    GTEST_SKIP() << "needs " << kSmol << " (./dev demo fetches it) and " << kMmlu;
  const std::string golden = NIBBLE_SOURCE_DIR "/tests/goldens/choice/smollm2.json";
  const Json expected = parse_json(read_file(golden), golden);
  Loaded loaded(kSmol, "stored");
  set_threads(0);
  std::map<std::pair<std::string, int64_t>, std::vector<Json>> groups;
  for (const Json& q : expected["questions"]) groups[{q["subject"], q["context"]}].push_back(q);
  for (const auto& [key, wanted] : groups) {
    ChoiceOptions options;
    options.context = key.second;
    const auto subjects =
        read_mmlu(kMmlu + "data", "test", 5, {key.first}, static_cast<int64_t>(wanted.size()));
    const auto answers =
        answer_choices(loaded.context, *loaded.model, *loaded.tokenizer, subjects, options)[0];
    for (size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_EQ(answers[i].shots, wanted[i]["shots"]) << key.first << i;
      EXPECT_EQ(static_cast<char>('A' + subjects[0].questions[i].answer),
                wanted[i]["answer"].get<std::string>()[0]);
      for (size_t c = 0; c < 4; ++c)
        EXPECT_NEAR(answers[i].logits[c], wanted[i]["logits"][c].get<double>(), 1e-3)
            << key.first << " " << i;
    }
  }
  const int64_t count = expected["zero_shot"]["questions"];
  ChoiceOptions options;
  options.reference_loss = true;
  auto zero = read_mmlu_prompts(kMmlu + "qlora_zero_shot_mmlu_val.json", {}, 0);
  ChoiceScore sum;
  for (ChoiceSubject& s : zero) {  // the first `count` of the file
    const int64_t left = count - sum.questions;
    if (left <= 0) break;
    if (static_cast<int64_t>(s.questions.size()) > left) s.questions.resize(static_cast<size_t>(left));
    sum.add(score_choices(
        s, answer_choices(loaded.context, *loaded.model, *loaded.tokenizer, {s}, options)[0], options));
  }
  EXPECT_EQ(sum.questions, count);
  EXPECT_NEAR(sum.loss(), expected["zero_shot"]["loss"].get<double>(), 1e-4);
  EXPECT_EQ(sum.right, expected["zero_shot"]["right"].get<int64_t>());
}

TEST(ChoiceData, ReadsAllOfMmlu) {
  if (!std::filesystem::exists(kMmlu)) GTEST_SKIP() << "needs " << kMmlu;
  int64_t test = 0;
  std::map<std::string, int> categories;
  const auto subjects = read_mmlu(kMmlu + "data", "test", 5, {}, 0);
  EXPECT_EQ(subjects.size(), 57u);
  for (const ChoiceSubject& s : subjects) {
    test += static_cast<int64_t>(s.questions.size());
    EXPECT_EQ(s.shots.size(), 5u);
    ASSERT_TRUE(mmlu_category(s.name).has_value()) << s.name;
    ++categories[std::string(*mmlu_category(s.name))];
  }
  EXPECT_EQ(test, 14079);
  EXPECT_THAT(categories, ElementsAre(std::pair("STEM", 18), std::pair("humanities", 13),
                                      std::pair("other (business, health, misc.)", 14),
                                      std::pair("social sciences", 12)));
  int64_t val = 0;
  for (const ChoiceSubject& s : read_mmlu_prompts(kMmlu + "qlora_zero_shot_mmlu_val.json", {}, 0))
    val += static_cast<int64_t>(s.questions.size());
  EXPECT_EQ(val, 1531);
  EXPECT_THAT(message_of([] { read_mmlu(kMmlu + "data", "test", 5, {"anatomi"}, 0); }),
              HasSubstr("has no subject \"anatomi\"; did you mean anatomy?"));
}

class ChoiceFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("nibble-choice-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_ / "dev");
    std::filesystem::create_directories(folder_ / "test");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  std::filesystem::path folder_;
};

TEST_F(ChoiceFiles, MmluSaysWhatIsWrong) {
  const auto read = [&] { return message_of([&] { read_mmlu(folder_.string(), "test", 1, {}, 0); }); };
  EXPECT_THAT(read(),
              HasSubstr("has no test/<subject>_test.csv; give the folder with MMLU's dev, val and test"));
  write("test/a_test.csv", "q,1,2,3,4,A\n");
  EXPECT_THAT(read(), HasSubstr("a_dev.csv"));
  write("dev/a_dev.csv", "");
  EXPECT_THAT(read(), HasSubstr("holds no question"));
  write("dev/a_dev.csv", "\"one, \"\"quoted\"\"\nline\",1,2,3,4,D\nq,1,2,3,4,A\n");
  EXPECT_EQ(read(), "no error");
  EXPECT_EQ(read_mmlu(folder_.string(), "test", 1, {}, 0)[0].shots[0].question, "one, \"quoted\"\nline");
  EXPECT_THAT(message_of([&] { read_mmlu(folder_.string(), "test", 5, {}, 0); }),
              HasSubstr("holds 2 solved questions, 5 shots are asked for"));
  write("test/a_test.csv", "q,1,2,3,4,A\nq,1,2,3,4,E\n");
  EXPECT_THAT(read(), HasSubstr("[a_test.csv:2] the answer is \"E\"; expected A, B, C or D"));
  write("test/a_test.csv", "q,1,2,3,A\n");
  EXPECT_THAT(read(),
              HasSubstr("[a_test.csv:1] has 5 fields; expected a question, four choices and a letter"));
  EXPECT_THAT(message_of([&] {
                read_mmlu_prompts(write("p.jsonl", R"({"subject": "a", "input": "x", "output": "F"})"), {},
                                  0);
              }),
              HasSubstr("the answer is \"F\"; expected A, B, C or D"));
}

TEST_F(ChoiceFiles, AnyFileOfQuestionsIsRead) {
  const auto one = [&](const std::string& name, const std::string& text) {
    return read_choices(write(name, text), "", 0, 0)[0].questions[0];
  };
  const ChoiceQuestion hf = one("a.jsonl", R"({"question": "q", "choices": ["x", "y", "z"], "answer": 2})");
  EXPECT_EQ(hf.answer, 2);
  EXPECT_THAT(hf.choices, ElementsAre("x", "y", "z"));
  EXPECT_EQ(
      one("b.jsonl",
          R"({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"})")
          .answer,
      1);
  EXPECT_EQ(one("c.csv", "question,A,B,C,answer\nq,x,y,z,C\n").answer, 2);
  EXPECT_EQ(one("d.jsonl", R"({"input": "q", "options": ["yes", "no"], "answer": "no"})").answer, 1);
  const auto fails = [&](const std::string& text, const char* message) {
    EXPECT_THAT(message_of([&] { one("e.jsonl", text); }), HasSubstr(message));
  };
  fails(R"({"question": "q", "choices": ["x", "y"], "answer": "E"})",
        "the answer \"E\" is none of its 2 choices; expected a letter from A to B, an index from 0 or a "
        "choice's text");
  fails(R"({"question": "q", "choices": ["x", "y"], "answer": 2})",
        "the answer \"2\" is none of its 2 choices");
  fails(R"({"question": "q", "choices": ["x"], "answer": 0})", "has 1 choices");
  fails(R"({"question": "q", "choices": ["x", "y"]})", "has no \"answer\"");
  fails(R"({"choices": ["x", "y"], "answer": 0})", "has no \"question\"");
  fails(R"([1])", "expected an object, got array");
  const std::string questions =
      write("f.jsonl", R"({"subject": "s", "question": "q", "choices": ["x", "y"], "answer": 0})");
  const std::string solved =
      write("g.jsonl", R"({"subject": "t", "question": "q", "choices": ["x", "y"], "answer": 0})");
  EXPECT_THAT(message_of([&] { read_choices(questions, solved, 2, 0); }),
              HasSubstr("holds 0 solved questions of subject \"s\", 2 shots are asked for"));
}

}  // namespace
}  // namespace nibble::eval
