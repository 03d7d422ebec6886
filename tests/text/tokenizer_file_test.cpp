// Where tokenizers come from: directories and what stands beside, GGUF made by hand, and files that are
// damaged.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "tests/text/support.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TokenizerFiles : public ::testing::Test {
 protected:
  TokenizerFiles() {
    directory_ = testing::TempDir() + "tokenizer_files_" +
                 testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  ~TokenizerFiles() override { fs::remove_all(directory_); }
  std::string put(const std::string& name, const std::string& text) {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  void copy(const std::string& golden, const std::string& name) { put(name, read_file(kGoldens + golden)); }

  std::string directory_;
};

std::string error_of(const std::string& path) {
  try {
    load_tokenizer(path);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

std::string json_error(const std::string& text) {
  try {
    parse_tokenizer_json(text, {}, "t.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST_F(TokenizerFiles, NothingThereSaysWhatWasLookedFor) {
  EXPECT_THAT(error_of(directory_ + "/absent"), HasSubstr("there is no such file or directory"));
  EXPECT_THAT(error_of(directory_),
              HasSubstr("holds no tokenizer: looked for tokenizer.json, tokenizer.model, spiece.model, "
                        "vocab.json with merges.txt, tokenizer.bin and a .gguf file"));
  EXPECT_THAT(error_of(put("model.bin", "x")),
              HasSubstr("has no tokenizer beside it: looked for tokenizer.bin and one tok*.bin"));
  EXPECT_THAT(error_of(put("notes.txt", "x")), HasSubstr("is no tokenizer file that is known"));
  EXPECT_THAT(error_of(put("vocab.json", "{}")),
              HasSubstr("needs vocab.json and merges.txt beside each other"));
}

TEST_F(TokenizerFiles, ConfigurationBesideTokenizerJsonCounts) {
  copy("digits.json", "tokenizer.json");
  put("tokenizer_config.json",
      R"({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "pad_token": null,
    "add_bos_token": true, "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}],
    "added_tokens_decoder": {"500": {"content": "<new>", "special": true}, "1": {"content": "<|im_start|>", "special": true}}})");
  put("special_tokens_map.json", R"({"pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})");
  put("generation_config.json", R"({"pad_token_id": 2, "eos_token_id": [2, 0]})");
  const auto t = load_tokenizer(directory_);
  EXPECT_EQ(t->bos, t->id("<|im_start|>"));
  EXPECT_EQ(t->eos, t->id("<|im_end|>"));
  EXPECT_EQ(t->unk, t->id("<|endoftext|>"));
  EXPECT_EQ(t->pad, std::nullopt);  // the configuration says so
  EXPECT_EQ(t->chat_template, "D");
  EXPECT_EQ(t->vocab_size(), 501);
  EXPECT_TRUE(t->is_special(500));
  EXPECT_EQ(t->encode("a<new>").back(), 500);
  EXPECT_EQ(t->encode("a").front(), *t->bos);
  EXPECT_NE(t->encode("a", {.add_special = false}).front(), *t->bos);
  EXPECT_THAT(t->description, HasSubstr("byte-level BPE, 501 tokens (tokenizer.json)"));

  put("chat_template.jinja", "{{ messages }}");
  EXPECT_EQ(load_tokenizer(directory_)->chat_template, "{{ messages }}");
}

TEST_F(TokenizerFiles, GenerationConfigurationIsTheLastResort) {
  copy("digits.json", "tokenizer.json");
  put("generation_config.json", R"({"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 70000})");
  const auto t = load_tokenizer(directory_);
  EXPECT_EQ(t->bos, 1);
  EXPECT_EQ(t->eos, 2);
  EXPECT_EQ(t->pad, std::nullopt);  // outside the vocabulary
}

TEST_F(TokenizerFiles, AddBosFalseTakesTheTemplatesBosAway) {
  copy("split_patterns.json", "tokenizer.json");
  EXPECT_EQ(load_tokenizer(directory_)->encode("a").size(), 2u);
  EXPECT_EQ(load_tokenizer(directory_)->bos, 0);
  put("tokenizer_config.json", R"({"bos_token": "<|endoftext|>", "add_bos_token": false})");
  EXPECT_EQ(load_tokenizer(directory_)->encode("a").size(), 1u);
}

TEST_F(TokenizerFiles, DamagedConfigurationIsNamed) {
  copy("digits.json", "tokenizer.json");
  put("tokenizer_config.json", R"({"pad_token": "<|gone|>"})");
  EXPECT_EQ(load_tokenizer(directory_)->pad, std::nullopt);
  put("tokenizer_config.json", R"({"eos_token": "<|gone|>"})");
  EXPECT_THAT(error_of(directory_), HasSubstr("the end token \"<|gone|>\" that tokenizer_config.json or "
                                              "special_tokens_map.json names is not in the vocabulary"));
  put("tokenizer_config.json", "{\n\"eos_token\": }");
  EXPECT_THAT(error_of(directory_), HasSubstr("tokenizer_config.json] is not valid JSON at line 2"));
  put("tokenizer_config.json", "[]");
  EXPECT_THAT(error_of(directory_), HasSubstr("should be a JSON object"));
  put("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(error_of(directory_),
              HasSubstr("\"chat_template\" should be a string or a list of named templates"));
  put("tokenizer_config.json", "{}");
  put("added_tokens.json", R"({"<x>": -1})");
  EXPECT_THAT(error_of(directory_), HasSubstr("the token \"<x>\" should have an id"));
}

TEST_F(TokenizerFiles, TiktokenRanksBeyondEveryVocabularyAreNamed) {
  EXPECT_THAT(error_of(put("tokenizer.model", "AA== 0\nAg== 555555555555555555555\n")),
              HasSubstr("line 2 should be base64 and a rank, got \"Ag== 5555"));
}

TEST_F(TokenizerFiles, VocabAndMergesAreByteLevel) {
  const Json json = parse_json(read_file(kGoldens + "digits.json"), "digits.json");
  put("vocab.json", json["model"]["vocab"].dump());
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : json["model"]["merges"])
    merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
  put("merges.txt", merges);
  const auto t = load_tokenizer(directory_);
  Json plain = json;
  plain["normalizer"] = nullptr;
  plain["pre_tokenizer"] = Json{{"type", "ByteLevel"}, {"add_prefix_space", false}};
  const auto want = parse_tokenizer_json(plain.dump(), {}, "t.json");
  const std::string text = "The heron  waits, 12:30. It's\n\n here<|endoftext|>x";
  EXPECT_EQ(t->encode(text), want->encode(text));
  EXPECT_EQ(t->eos, t->id("<|endoftext|>"));
  EXPECT_EQ(load_tokenizer(directory_ + "/merges.txt")->encode(text), want->encode(text));
  put("merges.txt", merges + "one\n");
  EXPECT_THAT(error_of(directory_), HasSubstr("should be two pieces with a space between, got \"one\""));
  put("merges.txt", merges + "QQQ RRR\n");
  EXPECT_THAT(error_of(directory_), HasSubstr("joins \"QQQ\", which is not in the vocabulary"));
  put("vocab.json", R"({"a": "b"})");
  EXPECT_THAT(error_of(directory_),
              HasSubstr("the vocabulary should map each piece to its id; \"a\" maps to something else"));
}

TEST(TokenizerJson, DamageIsNamed) {
  const auto with = [](const std::string& parts,
                       const std::string& model =
                           R"({"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]})") {
    return fmt::format("{{{}\"model\":{}}}", parts, model);
  };
  EXPECT_EQ(json_error(with("")), "no error");
  EXPECT_THAT(json_error("{\n \"model\": {,}}"),
              HasSubstr("[t.json] is not valid JSON at line 2, column 12"));
  EXPECT_THAT(json_error("{}"), HasSubstr("has no object \"model\": is it a tokenizer.json?"));
  EXPECT_THAT(json_error("7"), HasSubstr("has no object \"model\""));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE"})")), HasSubstr("the model's vocabulary is empty"));
  EXPECT_THAT(json_error(with("", R"({"type":"Neural","vocab":{"a":0}})")),
              HasSubstr("the model type \"Neural\" is not known; BPE, Unigram"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":-1}})")), HasSubstr("\"a\" has id -1"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":60000000}})")),
              HasSubstr("the largest id is 60000000 but there are only"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":1e99}})")),
              HasSubstr("\"a\" maps to something else"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":[0]}})")),
              HasSubstr("\"a\" maps to something else"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":0},"merges":["a b"]})")),
              HasSubstr("merge 1 joins \"b\", which is not in the vocabulary"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]})")),
              HasSubstr("merge 1 gives \"ab\", which is not in the vocabulary"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":0},"merges":["aa"]})")),
              HasSubstr("merge 1 should be two pieces of the vocabulary"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":0},"merges":[["a"]]})")),
              HasSubstr("entry 1 of the model's merges should have two parts"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":0},"merges":[3]})")),
              HasSubstr("the model's merges have an unexpected form"));
  EXPECT_THAT(json_error(with("", R"({"type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"u"})")),
              HasSubstr("the unknown token \"u\" is not in the vocabulary"));
  EXPECT_THAT(json_error(with("", R"({"type":"Unigram","vocab":{"a":0}})")),
              HasSubstr("should be a list of pieces with scores"));
  EXPECT_THAT(json_error(with("", R"({"type":"Unigram","vocab":[["a",-1.5]],"unk_id":4})")),
              HasSubstr("unk_id 4 is outside the vocabulary"));
  EXPECT_THAT(json_error(with(R"("normalizer":{"type":"Rot13"},)")),
              HasSubstr("the normalizer \"Rot13\" is not known"));
  EXPECT_THAT(json_error(with(R"("pre_tokenizer":{"type":"Magic"},)")),
              HasSubstr("the pre-tokenizer \"Magic\" is not known"));
  EXPECT_THAT(json_error(with(R"("decoder":{"type":"CTC"},)")),
              HasSubstr("the decoder \"CTC\" is not known"));
  EXPECT_THAT(json_error(with(R"("post_processor":{"type":"P"},)")),
              HasSubstr("the post-processor \"P\" is not known"));
  EXPECT_THAT(json_error(with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"}},)")),
              HasSubstr("the pattern \"(a\" cannot be used: missing closing parenthesis"));
  EXPECT_THAT(json_error(with(R"("pre_tokenizer":{"type":"Split"},)")),
              HasSubstr("the Split pre-tokenizer has no pattern"));
  EXPECT_THAT(json_error(with(R"("added_tokens":[{"id":-4,"content":"x"}],)")),
              HasSubstr("the added token \"x\" has id -4"));
  EXPECT_THAT(json_error(with(R"("added_tokens":[{"id":4}],)")), HasSubstr("has no \"content\""));
  EXPECT_THAT(json_error(with(R"("post_processor":{"type":"BertProcessing","cls":["x",9],"sep":["y",0]},)")),
              HasSubstr("adds id 9 to every text, which is not in its vocabulary"));
  EXPECT_THAT(json_error(with(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA/w=="},)")),
              HasSubstr("the precompiled character map claims a trie"));
  std::string deep = with("\"x\":" + std::string(100, '[') + std::string(100, ']') + ",");
  EXPECT_THAT(json_error(deep), HasSubstr("nested more than 64 levels"));
}

TEST(TokenizerJson, APatternThatExplodesIsStopped) {
  const auto t = parse_tokenizer_json(
      R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a+)+$|b"},"behavior":"Isolated"},"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}})",
      {}, "t.json");
  try {
    t->encode(std::string(5000, 'a') + "!");
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("matching the tokenizer's pattern failed: match limit exceeded"));
  }
}

// A field of a protocol buffer.
std::string field(int number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  EXPECT_LT(bytes.size(), 128u);
  out += static_cast<char>(bytes.size());
  return out + bytes;
}

TEST_F(TokenizerFiles, DamagedSentencePieceModelsGiveErrors) {
  const std::string whole = read_file(kGoldens + "sp_unigram.model");
  const Rng rng(2);
  for (uint64_t round = 0; round < 400; ++round) {
    std::string bytes = whole.substr(0, round % 2 == 0 ? rng.below(4 * round, whole.size()) : whole.size());
    for (uint64_t k = 1; k < 4 && !bytes.empty(); ++k)
      if (round % 2 == 1)
        bytes[rng.below(4 * round + k, bytes.size())] = static_cast<char>(rng.bits(4 * round + k));
    try {
      (void)parse_sentencepiece(bytes, {}, "m")->encode("The heron stands \xEF\xAC\x81 <sep> water.");
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("[m]"));
    }
  }
  const auto message = [](const std::string& bytes) -> std::string {
    try {
      parse_sentencepiece(bytes, {}, "m");
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_THAT(message(""), HasSubstr("holds no pieces"));
  EXPECT_THAT(message("hello"), HasSubstr("[m]"));
  EXPECT_THAT(message(whole.substr(0, 200)),
              HasSubstr("ends inside a field: is it a SentencePiece model, and complete?"));
  EXPECT_THAT(message(field(1, field(1, "a") + "\x18\x09")), HasSubstr("piece 0 has unknown type 9"));
  EXPECT_THAT(message(field(1, field(1, "a")) + field(2, "\x18\x03")),
              HasSubstr("SentencePiece model of type word; unigram and BPE"));
  EXPECT_THAT(message(field(1, field(1, "a") + "\x15" + std::string("\x00\x00\xC0\x7F", 4))),
              HasSubstr("the score of piece 0"));
}

TEST_F(TokenizerFiles, Llama2cFilesAreCheckedByteForByte) {
  const auto piece = [](float score, const std::string& text, int32_t length) {
    std::string out(8, '\0');
    std::memcpy(out.data(), &score, 4);
    std::memcpy(out.data() + 4, &length, 4);
    return out + text;
  };
  std::string bytes("\x07\0\0\0", 4);
  for (const char* p : {"<unk>", "\n<s>\n", "\n</s>\n", "<0x21>", " ", "a", "b", "ab", " ab"})
    bytes += piece(p == std::string(" ab") ? -1.0f : -2.0f, p, static_cast<int32_t>(std::strlen(p)));
  const auto t = load_tokenizer(put("tok9.bin", bytes));
  EXPECT_THAT(t->encode("ab!"), ElementsAre(1, 8, 3));
  EXPECT_THAT(t->encode("b a?"), ElementsAre(1, 4, 6, 4, 5, 0));
  EXPECT_EQ(t->decode(std::vector<int32_t>{1, 8, 3, 8}), "ab! ab");
  EXPECT_EQ(t->piece(8), "▁ab");
  EXPECT_EQ(load_tokenizer(put("stories.bin", "checkpoint"))->vocab_size(), 9);
  for (size_t n = 0; n < bytes.size(); ++n) {
    const std::string message = error_of(put("tok9.bin", bytes.substr(0, n)));
    if (message != "no error") {
      EXPECT_THAT(message, HasSubstr("tok9.bin]"));
    }
  }
  EXPECT_THAT(error_of(put("tok9.bin", bytes + piece(0, "x", -3))), HasSubstr("claims -3 bytes"));
  EXPECT_THAT(error_of(put("tok9.bin", bytes + piece(0, "x", 1 << 30))),
              HasSubstr("claims 1073741824 bytes but 1 are left"));
}

TEST_F(TokenizerFiles, TiktokenRanks) {
  // a, b, ab, space
  const auto t = load_tokenizer(put("tokenizer.model", "YQ== 0\nYg== 1\nYWI= 2\nIA== 3\n"));
  EXPECT_EQ(t->vocab_size(), 4 + 256);
  EXPECT_EQ(t->bos, t->id("<|begin_of_text|>"));
  EXPECT_EQ(*t->id("<|eot_id|>"), 4 + 9);
  EXPECT_THAT(t->encode("abba <|eot_id|>"), ElementsAre(4, 2, 1, 0, 3, 13));
  EXPECT_EQ(t->decode(std::vector<int32_t>{2, 3, 1}), "ab b");
  EXPECT_THAT(error_of(put("tokenizer.model", "YQ== 0\nYg== x\n")),
              HasSubstr("line 2 should be base64 and a rank, got \"Yg== x\""));
}

// GGUF metadata by hand.
class Gguf {
 public:
  template <class T>
  Gguf& raw(T v) {
    body_.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  Gguf& text(std::string_view s) {
    raw<uint64_t>(s.size());
    body_.append(s);
    return *this;
  }
  Gguf& key(std::string_view name, uint32_t type) {
    ++count_;
    return text(name).raw(type);
  }
  Gguf& string(std::string_view name, std::string_view value) { return key(name, 8).text(value); }
  Gguf& strings(std::string_view name, const std::vector<std::string>& values) {
    key(name, 9).raw<uint32_t>(8).raw<uint64_t>(values.size());
    for (const auto& v : values) text(v);
    return *this;
  }
  Gguf& types(const std::vector<int32_t>& values) {
    key("tokenizer.ggml.token_type", 9).raw<uint32_t>(5).raw<uint64_t>(values.size());
    for (const auto v : values) raw(v);
    return *this;
  }
  Gguf& scores(const std::vector<float>& values) {
    key("tokenizer.ggml.scores", 9).raw<uint32_t>(6).raw<uint64_t>(values.size());
    for (const auto v : values) raw(v);
    return *this;
  }
  std::string bytes() const {
    std::string out("GGUF\x03\0\0\0\0\0\0\0\0\0\0\0", 16);
    out.append(reinterpret_cast<const char*>(&count_), 8);
    return out + body_;
  }

 private:
  std::string body_;
  uint64_t count_ = 0;
};

TEST_F(TokenizerFiles, GgufByteLevel) {
  const std::vector<std::string> tokens = {"a", "b", "ab", "Ġ", "Ġab", "<|end|>", "xyz "};
  const auto base = [&](const char* pre) {
    Gguf g;
    g.string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre)
        .strings("tokenizer.ggml.tokens", tokens);
    g.types({1, 1, 1, 1, 1, 3, 4}).strings("tokenizer.ggml.merges", {"a b", "Ġ ab"});
    g.key("tokenizer.ggml.eos_token_id", 4).raw<uint32_t>(5).string("tokenizer.chat_template", "{{ x }}");
    return g;
  };
  const auto t = load_tokenizer(put("m.gguf", base("gpt-2").bytes()));
  EXPECT_THAT(t->encode("ab abxyz <|end|>"), ElementsAre(2, 4, 6, 5));
  EXPECT_EQ(t->decode(t->encode("ab abxyz <|end|>"), false), "ab abxyz <|end|>");
  EXPECT_TRUE(t->is_special(5));
  EXPECT_FALSE(t->is_special(6));
  EXPECT_EQ(t->eos, 5);
  EXPECT_EQ(t->bos, std::nullopt);
  EXPECT_EQ(t->chat_template, "{{ x }}");
  EXPECT_EQ(load_tokenizer(directory_)->vocab_size(), 7);
  EXPECT_THAT(load_tokenizer(
                  put("m.gguf", base("gpt-2").key("tokenizer.ggml.add_eos_token", 7).raw<uint8_t>(1).bytes()))
                  ->encode("a"),
              ElementsAre(0, 5));
  EXPECT_THAT(error_of(put("m.gguf", base("future-bpe").bytes())),
              HasSubstr("tokenizer.ggml.pre is \"future-bpe\", a way of splitting words that is not known"));
  EXPECT_THAT(
      error_of(put("m.gguf", base("gpt-2").key("tokenizer.ggml.bos_token_id", 4).raw<uint32_t>(7).bytes())),
      HasSubstr("tokenizer.ggml.bos_token_id is 7 but there are 7 tokens"));
  Gguf short_types;
  short_types.string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", tokens).types({1});
  EXPECT_THAT(error_of(put("m.gguf", short_types.bytes())),
              HasSubstr("token_type has 1 entries for 7 tokens"));
  EXPECT_THAT(error_of(put("m.gguf", Gguf().bytes())),
              HasSubstr("holds no tokenizer (no tokenizer.ggml.model)"));
  EXPECT_THAT(
      error_of(put(
          "m.gguf",
          Gguf().string("tokenizer.ggml.model", "rwkv").strings("tokenizer.ggml.tokens", tokens).bytes())),
      HasSubstr("the tokenizer model \"rwkv\" is not known; gpt2, llama, t5 and bert are"));
}

TEST_F(TokenizerFiles, GgufSentencePiece) {
  const std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "<0x21>", "▁",
                                           "a",     "b",   "ab",   "▁ab",    "<sep>"};
  const auto base = [&](const char* model) {
    Gguf g;
    g.string("tokenizer.ggml.model", model)
        .strings("tokenizer.ggml.tokens", tokens)
        .types({2, 3, 3, 6, 1, 1, 1, 1, 1, 4});
    g.key("tokenizer.ggml.bos_token_id", 4)
        .raw<uint32_t>(1)
        .key("tokenizer.ggml.eos_token_id", 4)
        .raw<uint32_t>(2);
    return g;
  };
  const std::vector<float> scores = {0, 0, 0, 0, -3, -4, -4, -2, -1, 0};
  const auto bpe = load_tokenizer(put("m.gguf", base("llama").scores(scores).bytes()));
  EXPECT_THAT(bpe->encode("ab!b"), ElementsAre(1, 8, 3, 6));
  EXPECT_EQ(bpe->decode(std::vector<int32_t>{1, 8, 3, 8}), "ab! ab");
  const auto unigram = load_tokenizer(put("m.gguf", base("t5").scores(scores).bytes()));
  EXPECT_THAT(unigram->encode("  ab  ab "), ElementsAre(8, 8, 2));
  EXPECT_THAT(unigram->encode("ab<sep>"), ElementsAre(8, 9, 2));
  EXPECT_THAT(error_of(put("m.gguf", base("llama").scores({1, 2}).bytes())),
              HasSubstr("tokenizer.ggml.scores has 2 entries for 10 tokens"));
}

TEST(RealFiles, TheTokenizersOfThisProjectsModels) {
  const std::string shared = NIBBLE_SOURCE_DIR "/../shared/data/";
  if (!fs::exists(shared)) GTEST_SKIP() << "no models beside the checkout";
  const auto stories = load_tokenizer(shared + "models/stories260K/stories260K.bin");
  EXPECT_EQ(stories->vocab_size(), 512);
  EXPECT_EQ(stories->bos, 1);
  const std::string text = "Once upon a time, there was a little girl.\nShe said \"Hi!\"";
  EXPECT_EQ(stories->decode(stories->encode(text)), text);
  EXPECT_EQ(stories->encode(text).front(), 1);
  const auto opt = load_tokenizer(shared + "tokenizers/opt");
  EXPECT_EQ(opt->decode(opt->encode(text)), text);
  const auto llama3 = load_tokenizer(shared + "tokenizers/llama3");
  EXPECT_EQ(llama3->vocab_size(), 128256);
  EXPECT_THAT(llama3->encode("Hello world"), ElementsAre(128000, 9906, 1917));
}

}  // namespace
}  // namespace nibble::text
