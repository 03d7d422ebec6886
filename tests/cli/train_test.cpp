// nibble train and nibble plan from outside, on the tiny model.
#include <sys/file.h>

#include "base/file.h"
#include "base/text.h"
#include "io/train_state.h"
#include "tests/cli/tiny_chat_model.h"

namespace nibble::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

class TrainProgram : public TinyChatModel {
 protected:
  void SetUp() override {
    TinyChatModel::SetUp();
    std::string lines;
    const char* things[] = {"apples", "plums", "nuts", "tea", "bread", "soap", "salt", "ink"};
    for (const char* thing : things)
      for (const char* verb : {"Buy", "Sell"})
        lines += Json{{"messages",
                       {{{"role", "user"}, {"content", fmt::format("{} {} now", verb, thing)}},
                        {{"role", "assistant"}, {"content", fmt::format("{}, {}", thing, verb)}}}}}
                     .dump() +
                 "\n";
    data_ = write("orders.jsonl", lines);
    out_ = path("run");
  }
  std::string recipe(const std::string& more = "") const {
    return write("recipe.yaml",
                 fmt::format("model: {}\ndata: {}\nout: {}\nlora_r: 4\nmax_steps: 3\nlearning_rate: 0.002\n"
                             "per_device_train_batch_size: 2\n{}",
                             directory_.string(), data_, out_, more));
  }
  // Everything in a run directory but what tells the time.
  static std::map<std::string, std::string> files_of(const std::string& directory) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
      const std::string name = fs::relative(entry.path(), directory).string();
      if (entry.is_regular_file() && name != "metrics.jsonl" && name != ".lock")
        files[name] = read_file(entry.path().string());
    }
    return files;
  }
  Ran trained(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"train", recipe()};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words);
  }

  std::string data_, out_;
};

TEST_F(TrainProgram, ModelAndDataAreEnough) {
  const Ran ran =
      run_program({"train", "--model", directory_.string(), "--data", data_, "--out", out_, "max_steps=2"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("trained 2 steps: loss "), HasSubstr("adapter: " + out_)));
  EXPECT_THAT(ran.err, AllOf(HasSubstr("messages, 16 examples"),
                             HasSubstr("first example, trained tokens marked:"), HasSubstr("step 2/2")));
  const Ran answered = run_program({"generate", "--model", directory_.string(), "--adapter", out_, "--prompt",
                                    "hello", "--max-new-tokens", "3"});
  EXPECT_EQ(answered.code, 0) << answered.err;
}

TEST_F(TrainProgram, JsonIsOneDocumentOnStdout) {
  const Ran ran = trained({"--json"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  const Json json = parse_json(ran.out, "stdout");
  EXPECT_EQ(json["steps"], 3);
  EXPECT_EQ(json["losses"].size(), 3u);
  EXPECT_EQ(json["adapter"], out_);
  EXPECT_EQ(split(read_file(json["metrics"].get<std::string>()), '\n').size(), 5u)
      << "three steps, one held-out score, the end";
  EXPECT_THAT(ran.err, HasSubstr("step 3/3"));
  const Ran quiet = trained({"--json", "--quiet", "--overwrite"});
  EXPECT_EQ(quiet.code, 0);
  EXPECT_EQ(quiet.err, "");
  EXPECT_EQ(parse_json(quiet.out, "stdout")["losses"], json["losses"]);
}

TEST_F(TrainProgram, AnUnknownKeySuggestsTheNearest) {
  const Ran word = trained({"learnin_rate=1"});
  EXPECT_EQ(word.code, 2);
  EXPECT_EQ(word.out, "");
  EXPECT_THAT(word.err, AllOf(HasSubstr("learnin_rate"), HasSubstr("learning_rate")));
  const Ran line = run_program({"train", recipe("lora_rank: 8\n")});
  EXPECT_EQ(line.code, 2);
  EXPECT_THAT(line.err,
              AllOf(HasSubstr("recipe.yaml"), HasSubstr("lora_rank"), HasSubstr("did you mean lora_r?")));
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(TrainProgram, WrongUsage) {
  const auto error = [](const std::vector<std::string>& words, int code) {
    const Ran ran = run_program(words);
    EXPECT_EQ(ran.code, code) << ran.err;
    EXPECT_EQ(ran.out, "");
    return ran.err;
  };
  EXPECT_THAT(error({"train"}, 2), HasSubstr("[model] is missing"));
  EXPECT_THAT(error({"train", "--model", directory_.string()}, 2), HasSubstr("[data] is missing"));
  EXPECT_THAT(error({"train", path("none.yaml")}, 2), HasSubstr("no such recipe"));
  EXPECT_THAT(error({"train", recipe(), recipe(), "x.yaml"}, 2), HasSubstr("there is one at a time"));
  EXPECT_THAT(error({"train", recipe(), "--resume", "--overwrite"}, 2), HasSubstr("give one of them"));
  EXPECT_THAT(error({"train", recipe(), "data=" + path("none.jsonl")}, 1), HasSubstr("none.jsonl"));
  EXPECT_THAT(error({"train", recipe(), "model=" + path("none")}, 1), HasSubstr(path("none")));
}

TEST_F(TrainProgram, ResumeRefusesWhatChangedAndSaysWhat) {
  ASSERT_EQ(trained().code, 0);
  const auto before = files_of(out_);
  const auto refused = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"--resume", "max_steps=5"};
    words.insert(words.end(), more.begin(), more.end());
    const Ran ran = trained(words);
    EXPECT_EQ(ran.code, 1) << ran.err;
    EXPECT_EQ(ran.out, "");
    EXPECT_TRUE(files_of(out_) == before) << "the earlier run stays as it was";
    return ran.err;
  };
  EXPECT_THAT(refused({"learning_rate=0.5"}),
              HasSubstr("cannot go on from this run: learning_rate was 0.002, is 0.5"));

  const std::string rows = read_file(data_);
  write("orders.jsonl", rows.substr(0, rows.find('\n') + 1) + rows);
  EXPECT_THAT(refused({}), HasSubstr("the training data changed"));
  write("orders.jsonl", rows);

  write("tokenizer_config.json",
        Json{{"eos_token", "<end>"}, {"chat_template", std::string(kTemplate) + " "}}.dump());
  EXPECT_THAT(refused({}),
              AllOf(HasSubstr("the chat template changed"), Not(HasSubstr("the tokenizer changed"))));
  write("tokenizer_config.json", Json{{"eos_token", "<end>"}, {"chat_template", kTemplate}}.dump());

  Json tokenizer = tokenizer_json();
  tokenizer["model"]["vocab"]["%"] = tokenizer["model"]["vocab"].size();
  write("tokenizer.json", tokenizer.dump());
  EXPECT_THAT(refused({}), HasSubstr("the tokenizer changed"));
  write("tokenizer.json", tokenizer_json().dump());

  std::string weights = read_file(path("model.safetensors"));
  const std::string good = weights;
  weights[weights.size() - 9] = static_cast<char>(weights[weights.size() - 9] ^ 1);
  write("model.safetensors", weights);
  EXPECT_THAT(refused({}), HasSubstr("the weights of the base model changed"));
  write("model.safetensors", good);

  EXPECT_EQ(trained({"--resume", "max_steps=5"}).code, 0);
  EXPECT_TRUE(fs::exists(out_ + "/checkpoint-5"));
}

TEST_F(TrainProgram, MaxStepsMayGrowWithNoRecipeGivenAgain) {
  ASSERT_EQ(trained({"lr_scheduler_type=constant"}).code, 0);
  const Ran done = run_program({"train", "--resume", "--out", out_});
  EXPECT_EQ(done.code, 1);
  EXPECT_THAT(done.err, HasSubstr("has done all 3 steps; give a larger max_steps"));
  const Ran more = run_program({"train", "--resume", "--out", out_, "max_steps=6", "--json"});
  EXPECT_EQ(more.code, 0) << more.err;
  out_ = path("whole");
  ASSERT_EQ(trained({"lr_scheduler_type=constant", "max_steps=6"}).code, 0);
  EXPECT_TRUE(read_file(path("run/adapter_model.safetensors")) ==
              read_file(path("whole/adapter_model.safetensors")));
}

TEST_F(TrainProgram, CtrlCSavesAndResumeEqualsTheUninterruptedRun) {
  const std::vector<std::string> words = {"train", recipe(), "max_steps=300", "lora_dropout=0.1",
                                          "optim=adamw_8bit"};
  const Ran stopped = run_program_interrupted(words, "step 4/");
  ASSERT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_EQ(stopped.out, "");
  EXPECT_THAT(stopped.err, HasSubstr("`--resume` with out " + out_ + " goes on from it"));
  ASSERT_EQ(io::list_checkpoints(out_).size(), 1u);
  auto again = words;
  again.emplace_back("--resume");
  const Ran resumed = run_program(again);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("going on from step "));
  auto whole = words;
  whole.insert(whole.end(), {"--out", path("whole")});
  ASSERT_EQ(run_program(whole).code, 0);
  for (const char* name : {"/adapter_model.safetensors", "/checkpoint-300/optimizer.safetensors",
                           "/checkpoint-300/state.safetensors"})
    EXPECT_TRUE(read_file(out_ + name) == read_file(path("whole") + name)) << name;
}

TEST_F(TrainProgram, AnEarlierRunASecondWriterAndAnUnwritablePlaceAreNamed) {
  ASSERT_EQ(trained().code, 0);
  const auto before = files_of(out_);
  const Ran again = trained();
  EXPECT_EQ(again.code, 2);
  EXPECT_THAT(again.err, HasSubstr("holds a finished run"));
  {
    const io::RunLock lock(out_);
    const Ran second = trained({"--resume", "max_steps=5"});
    EXPECT_EQ(second.code, 1);
    EXPECT_THAT(second.err, HasSubstr(fmt::format("[{}] is being written by process {}", out_, ::getpid())));
  }
  EXPECT_TRUE(files_of(out_) == before);
  const Ran nowhere = trained({"--out", "/proc/nibble/run"});
  EXPECT_EQ(nowhere.code, 1);
  EXPECT_THAT(nowhere.err, HasSubstr("/proc/nibble"));
}

TEST_F(TrainProgram, BadDataIsNamedByLine) {
  const auto error = [&](const std::string& text) {
    write("orders.jsonl", text);
    const Ran ran = trained();
    EXPECT_EQ(ran.code, 1) << ran.err;
    EXPECT_FALSE(fs::exists(out_));
    return ran.err;
  };
  const std::string good =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
      "\n";
  EXPECT_THAT(error(good + "{\"messages\": [}\n"), HasSubstr("orders.jsonl:2]"));
  EXPECT_THAT(error(good + "\n{\"messages\": \"\xff\"}\n"),
              AllOf(HasSubstr("orders.jsonl:3]"), HasSubstr("UTF-8")));
  EXPECT_THAT(error(""), HasSubstr("orders.jsonl]"));
  EXPECT_THAT(error(good + R"({"messages": [{"role": "user"}]})"
                           "\n"),
              HasSubstr("orders.jsonl:2, message 1]"));
  EXPECT_THAT(error(R"({"messages": [{"role": "user", "content": "a"}]})"
                    "\n"),
              HasSubstr("no token is learned in any of the examples"));
}

TEST_F(TrainProgram, PlanShowsEveryPolicyAndWritesNothing) {
  const Ran text = run_program({"plan", recipe()});
  EXPECT_EQ(text.code, 0) << text.err;
  for (const char* policy : {"none", "selective", "block"})
    EXPECT_THAT(text.out, HasSubstr(std::string("gradient_checkpointing: ") + policy));
  EXPECT_THAT(text.out, HasSubstr("this recipe takes gradient_checkpointing none"));
  const Ran ran = run_program({"plan", recipe(), "--json"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  const Json json = parse_json(ran.out, "stdout");
  ASSERT_EQ(json["plans"].size(), 3u);
  EXPECT_EQ(json["chosen"], "none");
  EXPECT_GT(json["plans"][0]["total_bytes"], json["plans"][2]["total_bytes"]);
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_EQ(run_program({"plan", recipe(), "memory_limit=1KB"}).code, 1);
  EXPECT_EQ(run_program({"plan", recipe(), "nonsense=1"}).code, 2);
}

}  // namespace
}  // namespace nibble::cli
