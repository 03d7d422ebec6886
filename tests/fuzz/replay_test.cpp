// Every fuzz target takes its seeds, and each of them cut off at many places, in an ordinary test program.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "base/file.h"
#include "tests/fuzz/fuzz.h"

namespace nibble::fuzz {
namespace {

namespace fs = std::filesystem;
const fs::path kCorpus = fs::path(NIBBLE_SOURCE_DIR) / "tests/fuzz/corpus";

std::map<std::string, std::vector<fs::path>> seeds() {
  std::map<std::string, std::vector<fs::path>> all;
  for (const auto& directory : fs::directory_iterator(kCorpus)) {
    auto& files = all[directory.path().filename().string()];
    for (const auto& file : fs::directory_iterator(directory)) files.push_back(file.path());
    std::sort(files.begin(), files.end());
  }
  return all;
}

// The bytes end where their allocation ends, so that the address sanitizer sees a read past them.
void run_exact(const Target& target, std::string_view bytes) {
  const auto copy = std::make_unique<char[]>(bytes.size());
  std::memcpy(copy.get(), bytes.data(), bytes.size());
  target.run({copy.get(), bytes.size()});
}

TEST(corpus, every_target_has_seeds_and_every_seed_a_target) {
  std::set<std::string> names;
  for (const Target& target : targets()) names.insert(target.name);
  uintmax_t bytes = 0;
  for (const auto& [name, files] : seeds()) {
    EXPECT_EQ(names.erase(name), 1u) << "tests/fuzz/corpus/" << name << " belongs to no fuzz target";
    EXPECT_FALSE(files.empty()) << "tests/fuzz/corpus/" << name << " is empty";
    for (const auto& file : files) bytes += fs::file_size(file);
  }
  for (const std::string& name : names)
    ADD_FAILURE() << "the fuzz target " << name << " has no tests/fuzz/corpus/" << name;
  EXPECT_LT(bytes, 200'000u) << "the seeds should stay small";
}

class Replay : public testing::TestWithParam<Target> {};

TEST_P(Replay, takes_its_seeds) {
  run_exact(GetParam(), "");
  const auto files = seeds()[GetParam().name];
  for (const auto& file : files) {
    const std::string bytes = read_file(file.string());
    run_exact(GetParam(), bytes);
    constexpr size_t kCuts = 40;
    for (size_t cut = 1; cut < kCuts; ++cut)
      run_exact(GetParam(), std::string_view(bytes).substr(0, bytes.size() * cut / kCuts));
  }
}

INSTANTIATE_TEST_SUITE_P(fuzz, Replay, testing::ValuesIn(targets()),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace nibble::fuzz
