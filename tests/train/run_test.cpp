#include "train/run.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>

#include "backend/cpu/kernels.h"
#include "base/process.h"
#include "io/train_state.h"
#include "tests/train/tiny.h"
#include "train/manifest.h"

extern char** environ;

namespace nibble::train {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

RunResult run(const std::string& out, const std::vector<std::string>& assignments, RunOptions options = {}) {
  options.quiet = true;
  options.started = now_seconds();
  return run_training(tiny_run(out, assignments), options);
}

// Everything that a run leaves and that does not depend on time: path → contents.
std::map<std::string, std::string> files_of(const std::string& out) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(out)) {
    const std::string name = fs::relative(entry.path(), out).string();
    if (!entry.is_regular_file() || name == ".lock" || name == "metrics.jsonl" || name == "recipe.yaml" ||
        name.ends_with(kManifestFile))
      continue;
    files[name] = read_file(entry.path().string());
  }
  return files;
}
// Lines of metrics.jsonl without what depends on the clock.
std::string timeless_metrics(const std::string& out) {
  std::ifstream in(out + "/metrics.jsonl");
  std::string line, all;
  while (std::getline(in, line)) {
    Json json = Json::parse(line);
    for (const char* key : {"tokens_per_second", "limit_share", "rss_bytes"}) json.erase(key);
    all += json.dump() + "\n";
  }
  return all;
}
void expect_same_runs(const std::string& a, const std::string& b) {
  const auto left = files_of(a), right = files_of(b);
  ASSERT_EQ(left.size(), right.size());
  for (const auto& [name, bytes] : left) {
    ASSERT_TRUE(right.count(name)) << name;
    // A picture's title names its directory.
    EXPECT_TRUE(name == "loss.svg" || bytes == right.at(name)) << name;
  }
  EXPECT_EQ(timeless_metrics(a), timeless_metrics(b));
}

TEST(Run, LeavesWhatIsPromised) {
  const TempDir dir;
  const std::string out = dir.path + "/run";
  const RunResult result = run(out, {"eval_steps=2", "save_steps=2", "save_total_limit=2"});
  EXPECT_EQ(result.steps.size(), 6u);
  EXPECT_EQ(result.evals.size(), 3u);
  EXPECT_LT(result.evals.back().loss, result.evals.front().loss);
  for (const char* name :
       {"recipe.yaml", "nibble_manifest.json", "metrics.jsonl", "loss.svg", "adapter_config.json",
        "adapter_model.safetensors", "best/adapter_model.safetensors", "checkpoint-6/state.json",
        "checkpoint-4/state.json"})
    EXPECT_TRUE(fs::exists(out + "/" + name)) << name;
  EXPECT_FALSE(fs::exists(out + "/checkpoint-2")) << "save_total_limit";
  const Json manifest = read_manifest(out);
  EXPECT_EQ(manifest["status"], "finished");
  EXPECT_EQ(manifest["base_hash"], io::open_model(kTiny).hash());
  EXPECT_EQ(manifest["recipe"]["max_steps"], 6);
  EXPECT_EQ(io::read_adapter(out).config.base_model, kTiny);
  EXPECT_THAT(read_file(out + "/loss.svg"), HasSubstr("</svg>"));
  const Json json = result.to_json();
  EXPECT_EQ(json["losses"].size(), 6u);
  EXPECT_EQ(json["best"]["step"], 6);
  EXPECT_GT(json["tokens_per_second"].get<double>(), 0);
  EXPECT_GT(json["peak_rss_bytes"].get<int64_t>(), 1 << 20);
}

TEST(Run, FullFineTuningLeavesAModelEachTimeItIsTheBest) {
  const TempDir dir;
  const std::string out = dir.path + "/run";
  const RunResult result =
      run(out, {"method=full", "quantize=none", "dtype=f32", "eval_steps=2", "learning_rate=0.001"});
  ASSERT_EQ(result.evals.size(), 3u);
  EXPECT_LT(result.evals[2].loss, result.evals[0].loss) << "so the best was written more than once";
  for (const std::string& place : {out, out + "/best"}) {
    const io::ModelFiles model = io::open_model(place);
    EXPECT_NE(model.hash(), io::open_model(kTiny).hash());
    EXPECT_THAT(model.sources, testing::IsEmpty()) << "its weights are new";
    for (const auto& entry : fs::directory_iterator(place))
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos);
  }
}

TEST(Run, MetricsHaveTheirFields) {
  const TempDir dir;
  run(dir.path + "/run", {"logging_steps=2", "max_steps=5"});
  std::ifstream in(dir.path + "/run/metrics.jsonl");
  std::string line;
  std::vector<int64_t> steps;
  while (std::getline(in, line)) {
    const Json json = Json::parse(line);
    if (json.contains("eval_loss")) continue;
    for (const char* key : {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "trained_tokens",
                            "tokens_per_second", "limit_share", "rss_bytes"})
      EXPECT_TRUE(json.contains(key)) << key;
    steps.push_back(json["step"].get<int64_t>());
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{2, 4, 5})) << "and always the last";
}

TEST(Run, EpochsDecideTheStepsWhereMaxStepsDoesNot) {
  const TempDir dir;
  const RunResult one = run(dir.path + "/1", {"max_steps=0", "num_train_epochs=1"});
  const RunResult half = run(dir.path + "/2", {"max_steps=0", "num_train_epochs=0.5"});
  EXPECT_NEAR(one.steps.back().epoch, 1.0, 1e-9);
  EXPECT_EQ(half.total_steps, (one.total_steps + 1) / 2);
}

TEST(Run, ARepeatedRunLeavesTheSameBytes) {
  const TempDir dir;
  const std::vector<std::string> keys = {"eval_steps=3", "save_steps=3", "lora_dropout=0.1",
                                         "optim=adamw_8bit", "lora_r=32"};
  run(dir.path + "/a", keys);
  auto other = keys;
  other.emplace_back("threads=1");
  run(dir.path + "/b", other);
  expect_same_runs(dir.path + "/a", dir.path + "/b");
}

TEST(Run, ResumedEqualsUninterruptedAndMaxStepsMayGrow) {
  const TempDir dir;
  const std::vector<std::string> keys = {"eval_steps=2", "save_steps=2", "lora_r=32", "paged_memory=192KiB",
                                         "gradient_accumulation_steps=2"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), keys.begin(), keys.end());
    return more;
  };
  run(dir.path + "/whole", with({"max_steps=8"}));
  run(dir.path + "/parts", with({"max_steps=3"}));
  const RunResult result = run(dir.path + "/parts", with({"max_steps=8", "threads=1"}), {.resume = true});
  EXPECT_EQ(result.steps.size(), 8u) << "with those before the resume";
  // The first part ended at step 3 and so was scored and saved there; the whole run was not.
  fs::remove_all(dir.path + "/parts/checkpoint-3");
  const auto whole = files_of(dir.path + "/whole"), parts = files_of(dir.path + "/parts");
  EXPECT_TRUE(whole.at("adapter_model.safetensors") == parts.at("adapter_model.safetensors"));
  EXPECT_TRUE(whole.at("checkpoint-8/state.safetensors") == parts.at("checkpoint-8/state.safetensors"));
  EXPECT_TRUE(whole.at("checkpoint-8/optimizer.safetensors") ==
              parts.at("checkpoint-8/optimizer.safetensors"));
  EXPECT_THAT(message_of([&] { run(dir.path + "/parts", with({"max_steps=8"}), {.resume = true}); }),
              HasSubstr("has done all 8 steps"));
}

// Dropout, packing, accumulation and data sets of several weights, under every optimizer.
class ResumedRun : public testing::TestWithParam<const char*> {};

TEST_P(ResumedRun, EqualsTheUninterruptedOne) {
  const TempDir dir;
  const auto mixed = [&](const char* name, const char* steps, bool resume) {
    Prepared prepared = tiny_run(
        dir.path + "/" + name, {std::string("optim=") + GetParam(), steps, "lora_dropout=0.2", "packing=true",
                                "lora_r=64", "paged_memory=192KiB", "gradient_accumulation_steps=2",
                                "save_steps=2", "lr_scheduler_type=constant"});
    for (size_t i = 0; i < prepared.dataset.train_weights.size(); ++i)
      prepared.dataset.train_weights[i] = i % 3 == 0 ? 2.0 : i % 3 == 1 ? 0.5 : 1.0;
    run_training(prepared, {.resume = resume, .quiet = true, .started = now_seconds()});
  };
  mixed("whole", "max_steps=6", false);
  mixed("parts", "max_steps=2", false);
  mixed("parts", "max_steps=4", true);
  mixed("parts", "max_steps=6", true);
  const auto whole = files_of(dir.path + "/whole"), parts = files_of(dir.path + "/parts");
  for (const char* name :
       {"adapter_model.safetensors", "checkpoint-6/state.safetensors", "checkpoint-6/optimizer.safetensors"})
    EXPECT_TRUE(whole.at(name) == parts.at(name)) << name;
}
INSTANTIATE_TEST_SUITE_P(Optimizers, ResumedRun,
                         testing::Values("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "sgd",
                                         "lion"));

TEST(Run, ResumeRefusesWhatDoesNotMatchAndSaysWhat) {
  const TempDir dir;
  const std::string out = dir.path + "/run";
  run(out, {"max_steps=2"});
  const auto resumed = [&](const std::vector<std::string>& keys) {
    return message_of([&] { run(out, keys, {.resume = true}); });
  };
  EXPECT_THAT(resumed({"learning_rate=0.001"}),
              HasSubstr("cannot go on from this run: learning_rate was 0.003, is 0.001"));
  EXPECT_THAT(resumed({"lora_r=8", "seed=1"}),
              AllOf(HasSubstr("lora_r was 4, is 8"), HasSubstr("seed was 42, is 1")));
  EXPECT_THAT(message_of([&] {
                Prepared other = tiny_run(out, {"max_steps=9"});
                other.dataset.train[3].ids[1] = 5;
                run_training(other, {.resume = true, .quiet = true});
              }),
              HasSubstr("the training data changed (hash"));
  EXPECT_EQ(resumed({"max_steps=4", "save_steps=1", "gradient_checkpointing=block"}), "");
}

TEST(Run, AnEarlierRunIsNotOverwrittenSilently) {
  const TempDir dir;
  const std::string out = dir.path + "/run";
  run(out, {"max_steps=2"});
  const auto before = files_of(out);
  EXPECT_THAT(message_of([&] { run(out, {"max_steps=3"}); }),
              HasSubstr("holds a finished run; --resume goes on from it"));
  EXPECT_THROW(run(out, {"max_steps=3"}), UsageError);
  EXPECT_TRUE(files_of(out) == before);
  write_file_atomic(out + "/notes.txt", "mine");
  run(out, {"max_steps=1"}, {.overwrite = true});
  EXPECT_TRUE(fs::exists(out + "/checkpoint-1"));
  EXPECT_FALSE(fs::exists(out + "/checkpoint-2"));
  EXPECT_EQ(read_file(out + "/notes.txt"), "mine") << "what is not a run's own stays";
}

TEST(Run, OneWriterAtATime) {
  const TempDir dir;
  const io::RunLock lock(dir.path);
  EXPECT_THAT(message_of([&] { run(dir.path, {}); }), HasSubstr(dir.path));
  EXPECT_FALSE(fs::exists(dir.path + "/recipe.yaml"));
}

TEST(Run, InterruptionSavesAndResumeGoesOnBitForBit) {
  const TempDir dir;
  run(dir.path + "/whole", {"max_steps=6"});
  set_interrupted(true);
  EXPECT_THAT(message_of([&] { run(dir.path + "/early", {"max_steps=6"}); }),
              HasSubstr("interrupted before the first step"));
  set_interrupted(false);
  EXPECT_EQ(io::list_checkpoints(dir.path + "/early").size(), 0u);
  run(dir.path + "/early", {"max_steps=6"}, {.resume = true});
  expect_same_runs(dir.path + "/whole", dir.path + "/early");
}

TEST(Run, AnEvaluationThatWasStoppedIsMadeUpByResume) {
  const TempDir dir;
  const std::vector<std::string> keys = {"max_steps=4", "eval_steps=2", "save_steps=2", "save_total_limit=2"};
  run(dir.path + "/whole", keys);
  // What a stop leaves in the evaluation of step 2, and in that of the last step.
  for (const std::string step : {"2", "4"}) {
    const std::string cut = dir.path + "/cut-" + step;
    fs::copy(dir.path + "/whole", cut, fs::copy_options::recursive);
    Json manifest = read_manifest(cut);
    manifest["status"] = "running";
    write_manifest(cut, manifest);
    if (step == "2") fs::remove_all(cut + "/checkpoint-4");
    const std::string metrics = read_file(cut + "/metrics.jsonl");
    const size_t end = metrics.find("\n", metrics.find("\"step\":" + step));
    write_file_atomic(cut + "/metrics.jsonl", metrics.substr(0, end + 1));
    EXPECT_EQ(run(cut, keys, {.resume = true}).evals.size(), 2u);
    expect_same_runs(dir.path + "/whole", cut);
  }
}

TEST(Run, ARunThatWasKilledWhileItWroteItsResultsIsFinishedByResume) {
  const TempDir dir;
  run(dir.path + "/whole", {});
  run(dir.path + "/cut", {});
  // What a kill leaves between the last checkpoint and the last word of the manifest.
  Json manifest = read_manifest(dir.path + "/cut");
  manifest["status"] = "running";
  write_manifest(dir.path + "/cut", manifest);
  fs::remove(dir.path + "/cut/adapter_model.safetensors");
  fs::remove(dir.path + "/cut/loss.svg");
  fs::create_directories(dir.path + "/cut/adapter.tmp-123");
  write_file_atomic(dir.path + "/cut/best/adapter.tmp-123", "half");
  run(dir.path + "/cut", {}, {.resume = true});
  EXPECT_EQ(read_manifest(dir.path + "/cut")["status"], "finished");
  expect_same_runs(dir.path + "/whole", dir.path + "/cut");
}

TEST(Run, NonFiniteStopsWithTheLastGoodCheckpointOrIsSkipped) {
  const TempDir dir;
  // An f32 overflow: weights of 1e30 after one step of an absurd rate.
  const std::vector<std::string> keys = {"optim=sgd",       "sgd_momentum=0",   "learning_rate=100",
                                         "max_grad_norm=0", "weight_decay=100", "warmup_ratio=0",
                                         "max_steps=40",    "dtype=f32"};
  const std::string message = message_of([&] { run(dir.path + "/stop", keys); });
  EXPECT_THAT(message, HasSubstr("not finite: the "));
  EXPECT_THAT(message, HasSubstr(", first in "));
  EXPECT_THAT(message, HasSubstr("is good"));
  const auto newest = io::newest_checkpoint(dir.path + "/stop");
  ASSERT_TRUE(newest.has_value());
  EXPECT_THAT(message, HasSubstr(fmt::format("step {}: not finite", newest->step + 1)));
  auto skip = keys;
  skip.emplace_back("on_nonfinite=skip");
  EXPECT_THAT(message_of([&] { run(dir.path + "/skip", skip); }),
              HasSubstr("20 steps in a row were not finite"));
}

// The CPU's cross entropy, two of whose training calls lose a value: a step's, and the search's that runs it
// again.
int64_t training_calls = 0;
void lossy_cross_entropy(backend::Stream& stream, Tensor& logits, const Tensor& labels, float factor,
                         backend::LossGradient gradient, Tensor& losses) {
  backend::cpu::cross_entropy(stream, logits, labels, factor, gradient, losses);
  if (gradient == backend::LossGradient::kNone) return;
  ++training_calls;
  if (training_calls == 3 || training_calls == 4)
    losses.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
}

TEST(Run, ASkippedStepIsLeftOutAndTheRunGoesOn) {
  const TempDir dir;
  const auto lossy_run = [&](const std::string& name, const std::vector<std::string>& keys, bool resume) {
    Prepared prepared = tiny_run(dir.path + "/" + name, keys);
    backend::cross_entropy.set(Device::kCpu, lossy_cross_entropy);
    const RunResult result =
        run_training(std::move(prepared), {.resume = resume, .quiet = true, .started = now_seconds()});
    backend::cross_entropy.set(Device::kCpu, backend::cpu::cross_entropy);
    return result;
  };
  const std::vector<std::string> keys = {"on_nonfinite=skip", "save_total_limit=1", "eval_steps=2",
                                         "lr_scheduler_type=constant"};
  training_calls = 0;
  const RunResult whole = lossy_run("whole", keys, false);
  EXPECT_EQ(whole.skipped, 1);
  ASSERT_EQ(whole.steps.size(), 6u);
  EXPECT_TRUE(std::isnan(whole.steps[2].loss));
  for (const size_t i : {0u, 1u, 3u, 4u, 5u}) EXPECT_TRUE(std::isfinite(whole.steps[i].loss)) << i;
  // Only what was not finite is missing: the state goes on from the second update, also through a checkpoint.
  EXPECT_EQ(io::read_checkpoint(dir.path + "/whole/checkpoint-6").scalars["updates"], 5);
  training_calls = 0;
  auto first = keys;
  first.emplace_back("max_steps=4");
  EXPECT_EQ(lossy_run("parts", first, false).skipped, 1);
  lossy_run("parts", keys, true);
  expect_same_runs(dir.path + "/whole", dir.path + "/parts");
}

TEST(Run, AFullDiskLeavesTheEarlierCheckpoints) {
  const TempDir dir;
  run(dir.path, {"max_steps=2", "lora_r=32"});
  const auto before = read_file(dir.path + "/checkpoint-2/state.safetensors");
  struct rlimit old {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small {
    60000, old.rlim_max
  };
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of([&] {
    run(dir.path, {"max_steps=4", "lora_r=32"}, {.resume = true});
  });
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_THAT(message, HasSubstr("File too large"));
  EXPECT_TRUE(read_file(dir.path + "/checkpoint-2/state.safetensors") == before);
  EXPECT_EQ(io::list_checkpoints(dir.path).size(), 1u);
  run(dir.path, {"max_steps=4", "lora_r=32"}, {.resume = true});
}

TEST(Run, AnUnwritableDirectoryIsNamed) {
  EXPECT_THAT(message_of([&] { run("/proc/nibble-run", {}); }), HasSubstr("/proc/nibble-run"));
}

const std::vector<std::string> kTraced = {"max_steps=2", "save_steps=1", "save_total_limit=1", "threads=1"};

// The child process of the tests below: one run as its environment says.
TEST(Child, DISABLED_Run) {
  catch_interrupts();
  const std::string out = std::getenv("NIBBLE_TEST_OUT");
  try {
    run(out, {"max_steps=12", "save_steps=1", "eval_steps=3", "save_total_limit=2"}, {.resume = true});
  } catch (const Interrupted&) {
    ::_exit(130);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    ::_exit(1);
  }
  ::_exit(0);
}

pid_t start_child(const std::string& out, const std::string& test = "Run") {
  const std::string place = "NIBBLE_TEST_OUT=" + out;
  std::vector<char*> environment;
  for (char** e = environ; *e != nullptr; ++e) environment.push_back(*e);
  environment.push_back(const_cast<char*>(place.c_str()));
  environment.push_back(nullptr);
  const std::string filter = "--gtest_filter=Child.DISABLED_" + test;
  const char* arguments[] = {"test_train", filter.c_str(), "--gtest_also_run_disabled_tests",
                             "--gtest_brief=1", nullptr};
  pid_t pid = 0;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  EXPECT_EQ(posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, const_cast<char**>(arguments),
                        environment.data()),
            0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}
int wait_for(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}
// Waits until the child has written something, then for a while that differs from round to round.
void wait_a_moment(const std::string& out, uint64_t round) {
  const double end = now_seconds() + 60;  // the handler of signals is in place by then
  while (now_seconds() < end && !fs::exists(out + "/metrics.jsonl")) ::usleep(500);
  ::usleep(static_cast<useconds_t>(Rng(3).below(round, 150000)));
}

TEST(Child, KilledAtAnyMomentAndResumedEqualsUninterrupted) {
  const TempDir dir;
  const std::string out = dir.path + "/killed";
  ASSERT_EQ(wait_for(start_child(dir.path + "/whole")), 0);
  int killed = 0;
  for (uint64_t round = 0; round < 12; ++round) {
    const pid_t pid = start_child(out);
    wait_a_moment(out, round);
    ::kill(pid, SIGKILL);
    if (WIFSIGNALED(wait_for(pid))) ++killed;
    // Whatever is there is complete.
    for (const auto& checkpoint : io::list_checkpoints(out))
      EXPECT_NO_THROW(io::read_checkpoint(checkpoint.path)) << checkpoint.path;
    const Json manifest = read_manifest(out);
    if (manifest.is_object() && manifest["status"] == "finished") break;
  }
  EXPECT_GE(killed, 1);
  const Json manifest = read_manifest(out);  // null when every kill came before the first word
  if (!manifest.is_object() || manifest["status"] != "finished") {
    ASSERT_EQ(wait_for(start_child(out)), 0);
  }
  expect_same_runs(dir.path + "/whole", out);
}

// A short run that its parent traces.
TEST(Child, DISABLED_Traced) {
  if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(77);
  ::raise(SIGSTOP);
  try {
    run(std::getenv("NIBBLE_TEST_OUT"), kTraced, {.resume = true});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    ::_exit(1);
  }
  ::_exit(0);
}

bool changes_files(const __ptrace_syscall_info& call) {
  switch (call.entry.nr) {
    case SYS_write:
      return call.entry.args[0] > 2;
    case SYS_openat:
      return (call.entry.args[2] & (O_CREAT | O_TRUNC)) != 0;
    case SYS_pwrite64:
    case SYS_writev:
    case SYS_fsync:
    case SYS_ftruncate:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_mkdirat:
    case SYS_unlinkat:
      return true;
#ifdef SYS_rename  // x86 has the older names as well
    case SYS_rename:
    case SYS_mkdir:
    case SYS_unlink:
    case SYS_rmdir:
      return true;
#endif
    default:
      return false;
  }
}

// Runs the child and calls `before_write` each time its main thread is about to change a file; it stands
// still meanwhile. False where processes may not be traced.
bool traced_run(const std::string& out, const std::function<void()>& before_write) {
  const pid_t pid = start_child(out, "Traced");
  int status = 0, signal = 0;
  ::waitpid(pid, &status, 0);
  if (!WIFSTOPPED(status)) return false;
  ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  for (;;) {
    ::ptrace(PTRACE_SYSCALL, pid, nullptr, signal);
    ::waitpid(pid, &status, 0);
    if (!WIFSTOPPED(status)) break;
    const bool call_stop = WSTOPSIG(status) == (SIGTRAP | 0x80);
    signal = call_stop || WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
    __ptrace_syscall_info call{};
    if (!call_stop || ::ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, &call) <= 0) continue;
    if (call.op == PTRACE_SYSCALL_INFO_ENTRY && changes_files(call)) before_write();
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return true;
}

// What SIGKILL before each write would leave, resumed: a copy of the directory is taken there while the run
// stands still.
TEST(Child, KilledBetweenAnyTwoWritesAndResumedEqualsUninterrupted) {
  const TempDir dir;
  run(dir.path + "/whole", kTraced);
  const std::string out = dir.path + "/traced";
  std::vector<std::string> left;
  const bool traced = traced_run(out, [&] {
    left.push_back(fmt::format("{}/left-{}", dir.path, left.size()));
    if (fs::exists(out)) fs::copy(out, left.back(), fs::copy_options::recursive);
  });
  if (!traced) GTEST_SKIP() << "processes may not be traced here";
  EXPECT_GT(left.size(), 40u);
  for (const std::string& place : left) {
    for (const auto& checkpoint : io::list_checkpoints(place))
      ASSERT_NO_THROW(io::read_checkpoint(checkpoint.path)) << place;
    const Json manifest = fs::exists(place) ? read_manifest(place) : Json();
    if (!manifest.is_object() || manifest["status"] != "finished") run(place, kTraced, {.resume = true});
    expect_same_runs(dir.path + "/whole", place);
    ASSERT_FALSE(HasFailure()) << "killed before the write that followed " << place;
    fs::remove_all(place);
  }
}

TEST(Child, SigtermSavesAndExits130) {
  const TempDir dir;
  const std::string out = dir.path + "/stopped";
  const pid_t pid = start_child(out);
  wait_a_moment(out, 1);
  ::kill(pid, SIGTERM);
  const int status = wait_for(pid);
  ASSERT_TRUE(WIFEXITED(status)) << "by signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == 0) GTEST_SKIP() << "the run was over before the signal came";
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_EQ(read_manifest(out)["status"], "running");
  ASSERT_EQ(wait_for(start_child(out)), 0);
  EXPECT_EQ(read_manifest(out)["status"], "finished");
}

TEST(Manifest, ValuesOfAnotherTypeAreErrors) {
  const TempDir dir;
  std::filesystem::create_directories(dir.path);
  const auto text = [&](const std::string& json) { write_file_atomic(dir.path + "/" + kManifestFile, json); };
  text(R"({"format": "1", "recipe": {}})");
  EXPECT_THAT([&] { read_manifest(dir.path); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("\"format\" should be a whole number")));
  text(R"({"format": 1, "recipe": {}, "base_hash": 7})");
  const Json manifest = read_manifest(dir.path);
  EXPECT_THAT([&] { manifest_differences(manifest, manifest); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("\"base_hash\" should be a string, got 7")));
}

}  // namespace
}  // namespace nibble::train
