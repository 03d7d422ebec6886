#include "io/train_state.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "base/file.h"
#include "tests/io/support.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;

// A state all of whose parts say its step.
TrainState state_of(int64_t step, int64_t size = 1000) {
  const auto v = static_cast<float>(step);
  return {step,
          {{"lora", f32_tensor({size}, std::vector<float>(static_cast<size_t>(size), v))},
           {"adam.m", f32_tensor({1}, {-v})}},
          {{"seen", step}, {"loss", 1.0 / static_cast<double>(step + 3)}}};
}

void expect_whole(const CheckpointInfo& info) {
  const TrainState s = read_checkpoint(info.path);
  const auto v = static_cast<float>(info.step);
  EXPECT_EQ(s.step, info.step);
  EXPECT_EQ(s.scalars["seen"], info.step);
  EXPECT_EQ(s.scalars["loss"].get<double>(), 1.0 / static_cast<double>(info.step + 3))
      << "exact through JSON";
  const auto lora = floats(s.tensor("lora"));
  EXPECT_TRUE(std::all_of(lora.begin(), lora.end(), [&](float x) { return x == v; }));
  EXPECT_EQ(floats(s.tensor("adam.m"))[0], -v);
}

std::vector<int64_t> steps(const std::string& run) {
  std::vector<int64_t> out;
  for (const auto& c : list_checkpoints(run)) out.push_back(c.step);
  return out;
}

TEST(TrainState, WritesAndReads) {
  TempDir dir;
  EXPECT_FALSE(newest_checkpoint(dir.path()).has_value());
  EXPECT_FALSE(newest_checkpoint(dir / "none").has_value());
  write_checkpoint(dir.path(), state_of(20));
  const std::string path =
      write_checkpoint(dir.path(), state_of(100), [](const std::string& d) { put_file(d + "/extra", "x"); });
  EXPECT_EQ(path, dir / "checkpoint-100");
  EXPECT_EQ(get_file(path + "/extra"), "x");
  EXPECT_EQ(steps(dir.path()), (std::vector<int64_t>{20, 100}));
  EXPECT_EQ(newest_checkpoint(dir.path())->step, 100);
  for (const auto& c : list_checkpoints(dir.path())) expect_whole(c);
  EXPECT_ERROR(read_checkpoint(path).tensor("adam.v"), "the checkpoint of step 100 has no \"adam.v\"");
}

TEST(TrainState, TheSameStepIsReplaced) {
  TempDir dir;
  write_checkpoint(dir.path(), state_of(5, 10));
  write_checkpoint(dir.path(), state_of(5, 20));
  EXPECT_EQ(read_checkpoint(dir / "checkpoint-5").tensor("lora").numel(), 20);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
}

TEST(TrainState, RetentionKeepsTheBestAndTheNewest) {
  TempDir dir;
  for (int64_t s : {1, 2, 3, 4, 5, 10}) write_checkpoint(dir.path(), state_of(s));
  prune_checkpoints(dir.path(), 3, 2);
  EXPECT_EQ(steps(dir.path()), (std::vector<int64_t>{2, 5, 10}));
  prune_checkpoints(dir.path(), 1, 2);
  EXPECT_EQ(steps(dir.path()), (std::vector<int64_t>{2, 10}));
  prune_checkpoints(dir.path(), 0, -1);
  EXPECT_EQ(steps(dir.path()), (std::vector<int64_t>{10}));
}

TEST(TrainState, WhatAKilledWriterLeftIsFinished) {
  TempDir dir;
  write_checkpoint(dir.path(), state_of(1));
  write_checkpoint(dir.path(), state_of(2));
  fs::rename(dir / "checkpoint-2", dir / "checkpoint-2.old");  // killed between the renames of a replacement
  fs::create_directory(dir / "checkpoint-3.tmp");
  fs::create_directory(dir / "checkpoint-0.gone");
  fs::create_directory(dir / "checkpoint-x.tmp");
  EXPECT_EQ(steps(dir.path()), (std::vector<int64_t>{1}));
  const RunLock lock(dir.path());
  EXPECT_EQ(steps(dir.path()), (std::vector<int64_t>{1, 2}));
  EXPECT_FALSE(fs::exists(dir / "checkpoint-3.tmp"));
  EXPECT_FALSE(fs::exists(dir / "checkpoint-0.gone"));
  EXPECT_TRUE(fs::exists(dir / "checkpoint-x.tmp")) << "not ours";
}

TEST(TrainState, IncompleteAndForeignDirectoriesAreNoCheckpoints) {
  TempDir dir;
  fs::create_directory(dir / "checkpoint-7");
  write_checkpoint(dir.path(), state_of(3));
  EXPECT_EQ(steps(dir.path()), (std::vector<int64_t>{3}));
  EXPECT_ERROR(read_checkpoint(dir / "checkpoint-7"), "is no checkpoint");
  put_file(dir / "checkpoint-3/state.json",
           R"({"format":"nibble-train-state","version":2,"step":3,"scalars":{}})");
  EXPECT_ERROR(read_checkpoint(dir / "checkpoint-3"), "is of version 2; this program reads version 1");
  put_file(dir / "checkpoint-3/state.json", "{}");
  EXPECT_ERROR(read_checkpoint(dir / "checkpoint-3"), "is no training state of nibble");
}

TEST(RunLock, ASecondWriterIsToldWhoTheFirstIs) {
  TempDir dir;
  {
    const RunLock first(dir / "run");
    EXPECT_ERROR(RunLock(dir / "run"), fmt::format("is being written by process {}", ::getpid()));
  }
  EXPECT_NO_THROW(RunLock(dir / "run"));
  put_file(dir / "file", "");
  EXPECT_ERROR(RunLock(dir / "file"), "");
}

TEST(TrainState, FreeDisk) {
  TempDir dir;
  EXPECT_NO_THROW(require_free_disk(dir / "not/yet/there", 1, "a checkpoint"));
  EXPECT_ERROR(require_free_disk(dir.path(), int64_t{1} << 60, "a checkpoint"),
               "a checkpoint needs 1152922 TB of disk but");
}

// Runs f in a child process that may be killed; returns its id.
template <class F>
pid_t start_child(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      f();
    } catch (...) {
      ::_exit(3);
    }
    ::_exit(0);
  }
  return child;
}

TEST(TrainState, KilledAtAnyMomentItResumesFromAWholeCheckpoint) {
  TempDir dir;
  std::minstd_rand random(7);
  int64_t last = 0;
  for (int round = 0; round < 30 || (last <= 3 && round < 300); ++round) {
    const pid_t child = start_child([&] {
      const RunLock lock(dir.path());
      for (int64_t step = last + 1;; ++step) {
        write_checkpoint(dir.path(), state_of(step, 50'000));
        prune_checkpoints(dir.path(), 2, -1);
      }
    });
    ::usleep(static_cast<useconds_t>(1000 + random() % 60000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself";
    const auto all = list_checkpoints(dir.path());
    for (const auto& c : all) expect_whole(c);
    ASSERT_TRUE(last == 0 || !all.empty());
    if (!all.empty()) {
      EXPECT_GE(all.back().step, last);
      last = all.back().step;
    }
  }
  EXPECT_GT(last, 3) << "nothing was written between the kills";
  const RunLock lock(dir.path());
  for (const auto& entry : fs::directory_iterator(dir.path()))
    EXPECT_FALSE(entry.path().string().ends_with(".tmp")) << "leftovers are removed";
}

TEST(TrainState, AFullDiskLeavesTheEarlierCheckpoint) {
  TempDir dir;
  write_checkpoint(dir.path(), state_of(1));
  const pid_t child = start_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message = error_of([&] { write_checkpoint(dir.path(), state_of(2, 100'000)); });
    if (message.find("cannot write") == std::string::npos) ::_exit(4);
  });
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
  expect_whole(*newest_checkpoint(dir.path()));
}

}  // namespace
}  // namespace nibble::io
