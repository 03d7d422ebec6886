// A model of random weights (tests/goldens/tiny_llama) with a tokenizer of single characters and a chat
// template of its own, in a directory that goes away after each test.
#pragma once
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/json.h"
#include "tests/cli/run_program.h"

namespace nibble::cli {

inline constexpr const char* kTemplate =
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('who is "
    "that') }}{% endif %}"
    "<start>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt "
    "%}<start>assistant\n{% endif %}";

// Byte-level BPE without merges over 60 characters and three special tokens.
inline Json tokenizer_json() {
  Json vocab = Json::object(), added = Json::array();
  int id = 0;
  for (const char* special : {"<pad>", "<start>", "<end>"}) {
    added.push_back({{"id", id},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocab[special] = id++;
  }
  for (const char c : std::string("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!"))
    vocab[std::string(1, c)] = id++;
  vocab["Ġ"] = id++;  // space
  vocab["Ċ"] = id++;  // line feed
  const Json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", Json::array()}}}};
}

class TinyChatModel : public ::testing::Test {
 protected:
  void SetUp() override {
    namespace fs = std::filesystem;
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    directory_ = fs::temp_directory_path() /
                 fmt::format("nibble-{}-{}-{}", info->test_suite_name(), info->name(), ::getpid());
    const fs::path golden = NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama";
    fs::create_directories(directory_);
    for (const char* name : {"config.json", "model.safetensors"})
      fs::copy_file(golden / name, directory_ / name, fs::copy_options::overwrite_existing);
    write("tokenizer.json", tokenizer_json().dump());
    write("tokenizer_config.json", Json{{"eos_token", "<end>"}, {"chat_template", kTemplate}}.dump());
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name)) << text;
    return path(name);
  }

  std::filesystem::path directory_;
};

}  // namespace nibble::cli
