// nibble quantize, inspect model and inspect adapter, as their users run them.
#include <gmock/gmock.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "io/peft_adapter.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "tests/cli/run_program.h"

namespace nibble::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kGoldens = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens";
const std::string kTiny = kGoldens + "/tiny_llama";

// Byte-level BPE without merges over few characters: as many tokens as the tiny model has room for.
std::string tiny_tokenizer() {
  Json vocab = Json::object();
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = vocab.size();
  const Json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return Json{
      {"version", "1.0"},
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", Json::array()}}}}
      .dump();
}

class Quantize : public ::testing::Test {
 protected:
  Quantize() {
    std::string pattern = (fs::temp_directory_path() / "nibble_quantize_XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
  }
  ~Quantize() override { fs::remove_all(directory_); }
  std::string out(const std::string& name = "out") const { return directory_ + "/" + name; }
  static Json json_of(const Ran& ran) {
    EXPECT_EQ(ran.code, 0) << ran.err;
    return parse_json(ran.out, "standard output");
  }
  // A copy of the tiny model, its files changed.
  std::string changed(const std::string& name,
                      const std::function<void(std::string& weights, Json& config)>& change) {
    fs::create_directories(out(name));
    std::string weights = read_file(kTiny + "/model.safetensors");
    Json config = parse_json(read_file(kTiny + "/config.json"), "config");
    change(weights, config);
    std::ofstream(out(name) + "/model.safetensors", std::ios::binary) << weights;
    std::ofstream(out(name) + "/config.json") << config.dump();
    return out(name);
  }
  // Every refusal: exit code 1, its message on standard error alone, nothing left at --out.
  void expect_refused(const std::string& model, const std::string& message) {
    const Ran ran = run_program({"quantize", "--model", model, "--out", out(), "--json"});
    EXPECT_EQ(ran.code, 1);
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr(message));
    EXPECT_FALSE(fs::exists(out()));
  }

 private:
  std::string directory_;
};

TEST_F(Quantize, WritesACheckpointThatNibbleReadsAsItIs) {
  const Json report = json_of(run_program(
      {"quantize", "--model", kTiny, "--out", out(), "--quantize", "nf4", "--double-quant", "--json"}));
  EXPECT_EQ(report["out"], out());
  EXPECT_EQ(report["tensors"], 21);
  EXPECT_EQ(report["quantized"], 14);
  EXPECT_EQ(report["tokenizer"], false);
  EXPECT_NEAR(report["bits_per_weight"].get<double>(), 5.835, 0.001);
  EXPECT_NEAR(report["error"]["relative"].get<double>(), 0.0923, 0.0005);
  EXPECT_GT(report["worst"]["relative"].get<double>(), report["error"]["relative"].get<double>());
  const io::ModelFiles m = io::open_model(out());
  EXPECT_EQ(m.config["dtype"], "bfloat16");
  EXPECT_EQ(m.weights->read("model.layers.0.mlp.up_proj.weight").describe(),
            "nf4 + double quantization, block 64");
  EXPECT_TRUE(m.weights->read("lm_head.weight").is_dense()) << "the head stays dense";
  EXPECT_TRUE(m.weights->read("model.embed_tokens.weight").is_dense());
  EXPECT_THAT(m.sources, ::testing::ElementsAre(io::open_model(kTiny).hash()));
}

TEST_F(Quantize, TextSaysTheSame) {
  const Ran ran = run_program({"quantize", "--model", kTiny, "--out", out(), "--no-double-quant",
                               "--block-size", "128", "--dtype", "f32"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith(out() + ": 21 tensors, 14 of them nf4"));
  EXPECT_THAT(ran.out, HasSubstr("error of the quantized weights: 0.0"));
  EXPECT_THAT(ran.out, HasSubstr("the tokenizer is not in it ("));
  const io::ModelFiles m = io::open_model(out());
  EXPECT_EQ(m.config["dtype"], "float32");
  EXPECT_EQ(m.weights->read("model.layers.0.mlp.up_proj.weight").block, 128);
  EXPECT_FALSE(m.weights->read("model.layers.0.mlp.up_proj.weight").double_quantized());
}

TEST_F(Quantize, WrongUsageIsTwoAndTouchesNothing) {
  const auto refused = [&](std::vector<std::string> more, const std::string& message) {
    std::vector<std::string> all = {"quantize", "--model", kTiny, "--out", out(), "--json"};
    all.insert(all.end(), more.begin(), more.end());
    const Ran ran = run_program(all);
    EXPECT_EQ(ran.code, 2);
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr(message));
    EXPECT_FALSE(fs::exists(out()));
  };
  refused({"--quantize", "e2m1"}, "Transformers loads nf4, fp4 and int8 checkpoints, not e2m1");
  refused({"--quantize", "nf5"}, "nf5");
  refused({"--block-size", "63"}, "63");
  refused({"--dtype", "f16"}, "expected bf16 or f32, got 'f16'");
  refused({"--threads", "-1"}, "expected a number from 0 to 4096");
  const Ran ran = run_program({"quantize", "--model", kTiny});
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.err, HasSubstr("--out"));
}

TEST_F(Quantize, BadModelsAreRefusedBeforeAnythingStands) {
  expect_refused(out("none"), "no such file or directory");
  expect_refused(changed("nan",
                         [](std::string& w, Json&) {
                           w[w.size() - 1] = '\x7f';
                           w[w.size() - 2] = '\xff';
                         }),
                 "holds a NaN or an infinity");
  expect_refused(changed("missing", [](std::string& w, Json&) { w.replace(w.find("q_proj"), 6, "q_porj"); }),
                 "has no weight \"model.layers.");
  expect_refused(changed("shape", [](std::string&, Json& c) { c["intermediate_size"] = 96; }),
                 "but this model expects");
  expect_refused(changed("deep", [](std::string&, Json& c) { c["num_hidden_layers"] = 3; }),
                 "model.layers.2.");
  expect_refused(changed("endless", [](std::string&, Json& c) { c["num_hidden_layers"] = 1'000'000'000; }),
                 "\"num_hidden_layers\" is 1000000000; at most 10000 are taken for real");
  expect_refused(changed("rope", [](std::string&, Json& c) { c["rope_scaling"] = 5; }),
                 "\"rope_scaling\" should be an object or null, got 5");
  expect_refused(changed("unknown", [](std::string&, Json& c) { c["architectures"] = {"GrokForCausalLM"}; }),
                 "the architecture \"GrokForCausalLM\" is not known; known are LlamaForCausalLM");
  expect_refused(changed("cut", [](std::string& w, Json&) { w.resize(w.size() - 100); }),
                 "model.safetensors");
  expect_refused(changed("lying", [](std::string& w, Json&) { w[7] = '\x7f'; }), "header");
}

TEST_F(Quantize, EarlierFilesStay) {
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json"}) {
    const std::string place = out(name);
    fs::create_directories(place);
    std::ofstream(place + "/" + name) << "mine";
    const Ran ran = run_program({"quantize", "--model", kTiny, "--out", place});
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.err, HasSubstr(std::string("holds a ") + name + " already"));
    EXPECT_EQ(read_file(place + "/" + name), "mine");
    EXPECT_EQ(std::distance(fs::directory_iterator(place), {}), 1);
  }
  // A tokenizer that was there is not replaced by the model's.
  const std::string model = changed("model", [](std::string&, Json&) {});
  std::ofstream(model + "/tokenizer.json") << tiny_tokenizer();
  fs::create_directories(out());
  std::ofstream(out() + "/tokenizer.json") << "mine";
  const Ran ran = run_program({"quantize", "--model", model, "--out", out()});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("holds a tokenizer.json already"));
  EXPECT_EQ(read_file(out() + "/tokenizer.json"), "mine");
}

TEST_F(Quantize, AnUnwritablePlaceAndAFullDisk) {
  std::ofstream(out("file")) << "a file";
  Ran ran = run_program({"quantize", "--model", kTiny, "--out", out("file") + "/out"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr(out("file") + "/out"));
  EXPECT_EQ(read_file(out("file")), "a file");

  fs::create_directories(out());
  std::ofstream(out() + "/notes.txt") << "mine";
  const auto before =
      ::signal(SIGXFSZ, SIG_IGN);  // inherited: a write beyond the limit is an error, as on a full disk
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{30'000, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  ran = run_program({"quantize", "--model", kTiny, "--out", out()});
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, before);
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("model.safetensors"));
  EXPECT_THAT(ran.err, HasSubstr("cannot write"));
  EXPECT_EQ(read_file(out() + "/notes.txt"), "mine");
  EXPECT_EQ(std::distance(fs::directory_iterator(out()), {}), 1) << "nothing of it is left";
}

// A GGUF becomes a directory of its own: config, weights in Hugging Face's order, and the same tokens.
TEST_F(Quantize, AGgufBringsItsTokenizer) {
  const std::string model = kGoldens + "/../../build/models/SmolLM2-135M-Instruct.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << model << " is absent; ./dev demo fetches it";
  const Json report = json_of(run_program({"quantize", "--model", model, "--out", out(), "--json"}));
  EXPECT_EQ(report["tokenizer"], true);
  EXPECT_EQ(report["quantized"], 210);
  const std::string text =
      "Hello, world! 1234 naïve café\n\n\tint x = 3;  日本語 🙂<|im_start|>user don't";
  const auto ids = [&](const std::string& from) {
    return json_of(run_program({"tokenize", "--model", from, "--text", text, "--json"}));
  };
  EXPECT_EQ(ids(out()), ids(model));
  const Json config = parse_json(read_file(out() + "/tokenizer_config.json"), "config");
  EXPECT_THAT(config["chat_template"].get<std::string>(), HasSubstr("<|im_start|>"));
  EXPECT_EQ(config["eos_token"], "<|im_end|>");
  EXPECT_EQ(parse_json(read_file(out() + "/generation_config.json"), "generation")["eos_token_id"], 2);
}

TEST_F(Quantize, ALlama2cCheckpointBringsItsTokenizer) {
  const std::string model =
      std::string(NIBBLE_SOURCE_DIR) + "/../shared/data/models/stories260K/stories260K.bin";
  if (!fs::exists(model)) GTEST_SKIP() << model << " is absent";
  const Json report = json_of(run_program({"quantize", "--model", model, "--out", out(), "--json"}));
  EXPECT_EQ(report["tokenizer"], true);
  for (const std::string text : {"Once upon a time,  there was\na little girl — 日本", ""}) {
    const auto ids = [&](const std::string& from) {
      return json_of(run_program({"tokenize", "--model", from, "--text", text, "--json"}));
    };
    EXPECT_EQ(ids(out()), ids(model));
  }
}

TEST_F(Quantize, InspectModelMeasuresEveryMatrix) {
  const Json plain =
      json_of(run_program({"inspect", "model", "--model", kTiny, "--quantize", "none", "--json"}));
  for (const char* key :
       {"path", "container", "hash", "config", "parameters", "bytes", "bits_per_weight", "tensors"})
    EXPECT_TRUE(plain.contains(key)) << key;
  EXPECT_EQ(plain["tensors"].size(), 21u);
  EXPECT_EQ(plain["parameters"], 80192);
  EXPECT_EQ(plain["bits_per_weight"], 16.0);
  EXPECT_EQ(plain["config"]["hidden_size"], 64);
  EXPECT_EQ(plain["hash"], io::open_model(kTiny).hash());
  for (const Json& t : plain["tensors"]) EXPECT_FALSE(t.contains("error"));
  const Json nf4 =
      json_of(run_program({"inspect", "model", "--model", kTiny, "--quantize", "nf4", "--json"}));
  const Json int8 =
      json_of(run_program({"inspect", "model", "--model", kTiny, "--quantize", "int8", "--json"}));
  int measured = 0;
  for (const Json& t : nf4["tensors"]) {
    const bool linear = t["name"].get<std::string>().ends_with("_proj.weight");
    EXPECT_EQ(t.contains("error"), linear) << t["name"];
    if (!linear) continue;
    ++measured;
    EXPECT_NEAR(t["error"]["relative"].get<double>(), 0.092, 0.02) << t["name"];
    EXPECT_GT(t["error"]["snr_db"].get<double>(), 15) << t["name"];
  }
  EXPECT_EQ(measured, 14);
  EXPECT_NEAR(nf4["error"]["relative"].get<double>(), 0.092, 0.002);
  EXPECT_NEAR(int8["error"]["relative"].get<double>(), 0.006, 0.001);
  const Ran text = run_program({"inspect", "model", "--model", kTiny + "/nf4"});
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, HasSubstr("nf4 + double quantization, block 64"));
}

TEST_F(Quantize, InspectModelRefusesWhatItCannotRead) {
  const auto refused = [&](const std::string& model, int code, const std::string& message) {
    const Ran ran = run_program({"inspect", "model", "--model", model, "--json"});
    EXPECT_EQ(ran.code, code);
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr(message));
  };
  refused(out("none"), 1, "no such file or directory");
  refused(kTiny + "/adapter", 1, "it holds an adapter: give its base as --model and this as --adapter");
  refused(changed("cut", [](std::string& w, Json&) { w.resize(w.size() / 2); }), 1, "model.safetensors");
  std::ofstream(out("half.gguf"), std::ios::binary) << read_file(kGoldens + "/io/tiny.gguf").substr(0, 3000);
  refused(out("half.gguf"), 1, "half.gguf");
  std::ofstream(out("shards.json")) << "{}";
  fs::create_directories(out("sharded"));
  fs::copy_file(kTiny + "/config.json", out("sharded/config.json"));
  std::ofstream(out("sharded/model.safetensors.index.json"))
      << R"({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}})";
  refused(out("sharded"), 1, "model-00002-of-00002.safetensors, which is missing");
  EXPECT_EQ(run_program({"inspect", "model"}).code, 2);
}

TEST_F(Quantize, InspectAdapterGivesTheNormOfTheUpdate) {
  const Json report = json_of(run_program({"inspect", "adapter", "--adapter", kTiny + "/adapter", "--json"}));
  EXPECT_EQ(report["parameters"], 7808);
  EXPECT_EQ(report["config"]["r"], 4);
  EXPECT_EQ(report["config"]["lora_alpha"], 8.0);
  EXPECT_EQ(report["config"]["target_modules"].size(), 7u);
  EXPECT_TRUE(report["manifest"].is_null());
  ASSERT_EQ(report["modules"].size(), 14u);
  const io::AdapterFile file = io::read_adapter(kTiny + "/adapter");
  const Tensor &a = file.pairs[3].a, &b = file.pairs[3].b;
  double sum = 0;
  for (int64_t i = 0; i < b.size(0); ++i)
    for (int64_t j = 0; j < a.size(1); ++j) {
      double v = 0;
      for (int64_t k = 0; k < a.size(0); ++k)
        v += double{b.data<float>()[i * 4 + k]} * double{a.data<float>()[k * a.size(1) + j]};
      sum += v * v;
    }
  EXPECT_EQ(report["modules"][3]["module"], file.pairs[3].module);
  EXPECT_NEAR(report["modules"][3]["norm_update"].get<double>(), 2 * std::sqrt(sum), 1e-9);
  const Ran text = run_program({"inspect", "adapter", "--adapter", kTiny + "/adapter"});
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, HasSubstr("r 4  alpha 8  dropout 0  targets down_proj, gate_proj"));
}

TEST_F(Quantize, InspectAdapterRefusesWhatIsNone) {
  const auto refused = [&](const std::string& adapter, const std::string& message) {
    const Ran ran = run_program({"inspect", "adapter", "--adapter", adapter, "--json"});
    EXPECT_EQ(ran.code, 1);
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr(message));
  };
  refused(kTiny, "holds no adapter_config.json");
  refused(out("none"), "is no directory");
  const std::string copy = out("adapter");
  fs::copy(kTiny + "/adapter", copy, fs::copy_options::recursive);
  const std::string weights = read_file(copy + "/adapter_model.safetensors");
  std::ofstream(copy + "/adapter_model.safetensors", std::ios::binary)
      << weights.substr(0, weights.size() - 9);
  refused(copy, "adapter_model.safetensors");
  std::ofstream(copy + "/adapter_model.safetensors", std::ios::binary) << weights;
  Json config = parse_json(read_file(copy + "/adapter_config.json"), "config");
  config["r"] = 8;
  std::ofstream(copy + "/adapter_config.json") << config.dump();
  refused(copy, "do the two files belong together?");
  EXPECT_EQ(run_program({"inspect", "adapter"}).code, 2);
}

// An adapter trained on a model goes with what was quantized from it, and not with another model.
TEST_F(Quantize, AdaptersGoWithTheCheckpointOfTheirModel) {
  const std::string first = changed("first", [](std::string&, Json&) {});
  std::ofstream(first + "/tokenizer.json") << tiny_tokenizer();
  const std::string adapter = out("adapter");
  fs::copy(kTiny + "/adapter", adapter, fs::copy_options::recursive);
  std::ofstream(adapter + "/nibble_manifest.json")
      << Json{{"base_hash", io::open_model(kTiny).hash()}}.dump();
  json_of(run_program({"quantize", "--model", first, "--out", out(), "--json"}));
  const auto generate = [&](const std::string& model) {
    return run_program({"generate", "--model", model, "--adapter", adapter, "--quantize", "stored",
                        "--prompt", "a", "--max-new-tokens", "2", "--greedy", "--json"});
  };
  EXPECT_EQ(generate(first).code, 0) << generate(first).err;
  EXPECT_EQ(generate(out()).code, 0) << generate(out()).err;
  const std::string other = changed("other", [](std::string& w, Json&) { w[w.size() - 2] ^= 1; });
  std::ofstream(other + "/tokenizer.json") << tiny_tokenizer();
  const Ran refused = generate(other);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("this adapter was trained on other weights"));
}

}  // namespace
}  // namespace nibble::cli
