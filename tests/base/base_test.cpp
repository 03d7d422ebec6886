// Errors, threads, random numbers, files and JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/reduce.h"
#include "base/rng.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

class TempDir {
 public:
  TempDir() : path_(fs::temp_directory_path() / fmt::format("nibble-base-{}", ::getpid())) {
    fs::create_directories(path_);
  }
  ~TempDir() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

// Known-answer tests of Philox4x32-10 (Random123's kat_vectors).
TEST(Rng, PhiloxKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Rng, PermutationHoldsEachIndexOnceAndDependsOnSeedAndStream) {
  auto order = Rng(1, 2).permutation(1000);
  EXPECT_NE(order, Rng(1, 3).permutation(1000));
  EXPECT_NE(order, Rng(2, 2).permutation(1000));
  EXPECT_EQ(order, Rng(1, 2).permutation(1000));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(Rng, NormalHasUnitVariance) {
  const Rng rng(7);
  double sum = 0, squares = 0;
  constexpr int kN = 20000;
  for (uint64_t i = 0; i < kN; ++i) {
    const double x = rng.normal(i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kN, 0, 0.03);
  EXPECT_NEAR(squares / kN, 1, 0.05);
}

TEST(Parallel, CoversEveryIndexOnceInFixedChunks) {
  for (const int team : {1, 2, 3}) {
    set_threads(team);
    std::vector<std::atomic<int>> seen(1000);
    parallel_for(1000, 64, [&](int64_t begin, int64_t end) {
      EXPECT_EQ(begin % 64, 0);
      EXPECT_TRUE(end - begin == 64 || end == 1000);
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    for (const auto& s : seen) ASSERT_EQ(s, 1);
  }
  set_threads(0);
}

TEST(Parallel, RethrowsTheExceptionOfTheLowestChunk) {
  set_threads(2);
  EXPECT_THAT(
      [] {
        parallel_for(100, 1, [](int64_t b, int64_t) {
          if (b >= 3) fail("chunk", "{}", b);
        });
      },
      ThrowsMessage<Error>(HasSubstr("[chunk] 3")));
  set_threads(0);
}

// Loops of several threads, loops in loops, teams that change from loop to loop, and helpers that fell asleep
// in between.
TEST(Parallel, LoopsOfManyThreadsEndWithAllTheirChunks) {
  const auto sum_of = [](int64_t n) {
    std::atomic<int64_t> sum{0};
    parallel_for(n, 3, [&](int64_t begin, int64_t end) {
      parallel_for(end - begin, 1, [&](int64_t at, int64_t) { sum += begin + at; });
    });
    return sum.load();
  };
  set_threads(4);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&, c] {
      for (int64_t i = 1; i < 300; ++i) {
        wrong += sum_of(i) == i * (i - 1) / 2 ? 0 : 1;
        if (c == 0 && i % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
  for (const int team : {2, 4, 1, 3, 2}) {
    set_threads(team);
    EXPECT_EQ(sum_of(1000), 499500);
  }
  set_threads(0);
}

TEST(Reduce, TreeIsClosePreciseAndFixed) {
  std::vector<float> values(1 << 16, 0.1f);
  EXPECT_NEAR(tree_sum<float>(values), 6553.6, 6553.6 * 1e-6);
  EXPECT_EQ(tree_sum<float>({}), 0.0f);
}

TEST(AtomicFile, ReplacesOnlyOnCommit) {
  const TempDir dir;
  const std::string path = dir / "a.txt";
  write_file_atomic(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
  }
  EXPECT_EQ(read_file(path), "old");
  write_file_atomic(path, "new");
  EXPECT_EQ(read_file(path), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(path).parent_path()), fs::directory_iterator()), 1);
}

TEST(AtomicFile, AFullDiskLeavesTheOldFile) {
  const TempDir dir;
  const std::string path = dir / "a.bin";
  write_file_atomic(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 16, 1 << 16};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_atomic(path, std::string(1 << 20, 'x'));
    } catch (const Error& e) {
      ::_exit(std::string(e.what()).find("the earlier file, if any, is untouched") != std::string::npos ? 7
                                                                                                        : 8);
    }
    ::_exit(9);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(read_file(path), "old");
}

TEST(AtomicFile, UnwritableDirectoryIsNamed) {
  EXPECT_THAT([] { AtomicFile file("/proc/nibble/x"); },
              ThrowsMessage<Error>(HasSubstr("[/proc/nibble/x] cannot write here")));
}

TEST(ReadFile, MissingAndTooLarge) {
  const TempDir dir;
  EXPECT_THAT([&] { read_file(dir / "none"); }, ThrowsMessage<Error>(HasSubstr("cannot open: No such file")));
  write_file_atomic(dir / "big", std::string(100, 'x'));
  EXPECT_THAT([&] { read_file(dir / "big", 10); },
              ThrowsMessage<Error>(HasSubstr("is larger than 10 bytes")));
}

TEST(JsonText, ErrorsNameLineAndColumn) {
  EXPECT_THAT([] { parse_json("{\n  \"a\": }", "x.json"); },
              ThrowsMessage<Error>(HasSubstr("[x.json] is not valid JSON at line 2, column 8")));
  EXPECT_THAT([] { parse_json(std::string(400, '['), "x.json"); },
              ThrowsMessage<Error>(HasSubstr("nested more than 256")));
  EXPECT_THAT([] { parse_json("[1e999]", "x.json"); },
              ThrowsMessage<Error>(HasSubstr("[x.json] holds a number that is too large")));
  const auto members = [](int n) {
    std::string text = "{\"o\": {}";
    for (int i = 1; i < n; ++i) text += fmt::format(",\"{}\":0", i);
    return text + "}";
  };
  EXPECT_EQ(parse_json(members(3000), "x.json").size(), 3000u);
  EXPECT_THAT([&] { parse_json(members(20'001), "x.json"); },
              ThrowsMessage<Error>(HasSubstr("more than 20000 members")));
}

TEST(JsonText, MembersAreCheckedForTheirType) {
  const Json o = parse_json(R"({"n": 3, "s": "x", "l": [1, 2], "z": null})", "t");
  EXPECT_EQ(json_get<int64_t>(o, "n", "t"), 3);
  EXPECT_EQ(json_get<int64_t>(o, "z", 5, "t"), 5);
  EXPECT_THAT(json_get<std::vector<int64_t>>(o, "l", "t"), testing::ElementsAre(1, 2));
  EXPECT_THAT([&] { json_get<int64_t>(o, "s", "t"); },
              ThrowsMessage<Error>(HasSubstr("[t] \"s\" should be a whole number, got \"x\"")));
  EXPECT_THAT([&] { json_get<bool>(o, "gone", "t"); }, ThrowsMessage<Error>(HasSubstr("has no \"gone\"")));
  const Json big = parse_json(R"({"n": 18446744073709551615})", "t");
  EXPECT_THAT([&] { json_get<int64_t>(big, "n", "t"); },
              ThrowsMessage<Error>(HasSubstr("got 18446744073709551615")));
}

}  // namespace
}  // namespace nibble
