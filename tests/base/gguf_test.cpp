// The GGUF reader on byte strings made by hand: every value kind, and headers that lie.
#include "base/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/process.h"
#include "base/rng.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Bytes {
 public:
  template <class T>
  Bytes& put(T v) {
    const char* p = reinterpret_cast<const char*>(&v);
    data.append(p, sizeof v);
    return *this;
  }
  Bytes& text(std::string_view s) {
    put<uint64_t>(s.size());
    data.append(s);
    return *this;
  }
  Bytes& header(uint64_t tensors, uint64_t values, uint32_t version = 3) {
    data.append("GGUF");
    return put(version).put(tensors).put(values);
  }
  Bytes& pad() {
    while (data.size() % 32 != 0) data.push_back('\0');
    return *this;
  }
  std::string data;
};

std::string write(const std::string& bytes) {
  const std::string path = testing::TempDir() + "gguf_test_" +
                           testing::UnitTest::GetInstance()->current_test_info()->name() + ".gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

GgufFile open_bytes(const Bytes& b) { return GgufFile::open(write(b.data)); }

std::string error_of(const std::string& bytes) {
  try {
    GgufFile::open(write(bytes));
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

Bytes small_model() {
  Bytes b;
  b.header(2, 2)
      .text("general.name")
      .put<uint32_t>(8)
      .text("tiny")
      .text("n")
      .put<uint32_t>(4)
      .put<uint32_t>(7);
  b.text("a").put<uint32_t>(2).put<uint64_t>(32).put<uint64_t>(2).put<uint32_t>(3).put<uint64_t>(0);
  b.text("b").put<uint32_t>(1).put<uint64_t>(3).put<uint32_t>(0).put<uint64_t>(64);
  b.pad();
  b.data.append(std::string(64, 'q'));
  b.put(1.0f).put(2.0f).put(3.0f);
  return b;
}

TEST(Gguf, ReadsEveryValueKind) {
  Bytes b;
  b.header(0, 15);
  b.text("u8").put<uint32_t>(0).put<uint8_t>(200);
  b.text("i8").put<uint32_t>(1).put<int8_t>(-3);
  b.text("u16").put<uint32_t>(2).put<uint16_t>(60000);
  b.text("i16").put<uint32_t>(3).put<int16_t>(-30000);
  b.text("u32").put<uint32_t>(4).put<uint32_t>(4000000000u);
  b.text("i32").put<uint32_t>(5).put<int32_t>(-5);
  b.text("f32").put<uint32_t>(6).put<float>(0.5f);
  b.text("yes").put<uint32_t>(7).put<uint8_t>(1);
  b.text("text").put<uint32_t>(8).text("Grüße");
  b.text("u64").put<uint32_t>(10).put<uint64_t>(UINT64_MAX);
  b.text("i64").put<uint32_t>(11).put<int64_t>(-6);
  b.text("f64").put<uint32_t>(12).put<double>(0.25);
  b.text("ints").put<uint32_t>(9).put<uint32_t>(1).put<uint64_t>(2).put<int8_t>(-1).put<int8_t>(2);
  b.text("floats").put<uint32_t>(9).put<uint32_t>(6).put<uint64_t>(1).put<float>(1.5f);
  b.text("words").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(2).text("a").text("");
  const GgufFile f = open_bytes(b);
  EXPECT_EQ(f.integer("u8"), 200);
  EXPECT_EQ(f.integer("i8"), -3);
  EXPECT_EQ(f.integer("u16"), 60000);
  EXPECT_EQ(f.integer("i16"), -30000);
  EXPECT_EQ(f.integer("u32"), 4000000000);
  EXPECT_EQ(f.integer("i32"), -5);
  EXPECT_EQ(f.integer("i64"), -6);
  EXPECT_EQ(f.integer("absent", 9), 9);
  EXPECT_EQ(f.number("f32", 0), 0.5);
  EXPECT_EQ(f.number("f64", 0), 0.25);
  EXPECT_EQ(f.number("i32", 0), -5);
  EXPECT_TRUE(f.boolean("yes", false));
  EXPECT_EQ(f.string("text"), "Grüße");
  EXPECT_EQ(f.string("absent", "x"), "x");
  EXPECT_THAT(f.array("ints").integers, ElementsAre(-1, 2));
  EXPECT_THAT(f.array("floats").numbers, ElementsAre(1.5));
  EXPECT_THAT(f.array("words").strings, ElementsAre("a", ""));
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_THAT(message([&] { f.integer("u64"); }),
              HasSubstr("\"u64\" is 18446744073709551615, more than 2^63"));
  EXPECT_THAT(message([&] { f.integer("text"); }), HasSubstr("\"text\" should be an integer, got a string"));
  EXPECT_THAT(message([&] { f.integer("absent"); }),
              HasSubstr("has no metadata key \"absent\" (an integer expected)"));
  EXPECT_THAT(message([&] { f.string("u8"); }), HasSubstr("should be a string, got an unsigned integer"));
  EXPECT_THAT(message([&] { f.array("u8"); }), HasSubstr("should be an array, got an unsigned integer"));
  EXPECT_THAT(message([&] { f.boolean("u8", true); }), HasSubstr("should be true or false"));
}

TEST(Gguf, ReadsTensorsAndKeepsTheMapping) {
  GgufFile copy;
  { copy = open_bytes(small_model()); }
  ASSERT_EQ(copy.tensors.size(), 2u);
  EXPECT_EQ(copy.tensors[0].name, "a");
  EXPECT_THAT(copy.tensors[0].dims, ElementsAre(32, 2));
  EXPECT_EQ(copy.tensors[0].data.size(), 40u);
  float values[3];
  ASSERT_EQ(copy.tensors[1].data.size(), 12u);
  std::memcpy(values, copy.tensors[1].data.data(), 12);
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f, 3.0f));
}

TEST(Gguf, KeepsTensorsOfUnknownTypeWithoutData) {
  Bytes b;
  b.header(1, 0).text("x").put<uint32_t>(1).put<uint64_t>(256).put<uint32_t>(99).put<uint64_t>(0).pad();
  const GgufFile f = open_bytes(b);
  EXPECT_EQ(f.tensors[0].type, 99u);
  EXPECT_TRUE(f.tensors[0].data.empty());
  EXPECT_STREQ(ggml_type_name(99), "unknown");
}

TEST(Gguf, EveryTruncationIsAnErrorThatNamesTheFile) {
  const std::string whole = small_model().data;
  ASSERT_EQ(error_of(whole), "no error");
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::string message = error_of(whole.substr(0, n));
    ASSERT_NE(message, "no error") << n;
    ASSERT_THAT(message, HasSubstr(".gguf]"));
  }
}

TEST(Gguf, RefusesWrongHeaders) {
  EXPECT_THAT(error_of(""), HasSubstr("does not start with \"GGUF\""));
  EXPECT_THAT(error_of("PK\x03\x04 something"), HasSubstr("does not start with \"GGUF\""));
  EXPECT_THAT(error_of(Bytes().header(0, 0, 1).data),
              HasSubstr("is GGUF version 1; versions 2 and 3 can be read"));
  EXPECT_THAT(error_of(Bytes().header(0, 0, 0x03000000).data), HasSubstr("big-endian"));
  EXPECT_THAT(error_of("GGUF\x03"), HasSubstr("ends inside the header"));
}

TEST(Gguf, LyingCountsAllocateNothing) {
  const uint64_t before = peak_resident_bytes();
  EXPECT_THAT(error_of(Bytes().header(UINT64_MAX, 0).data), HasSubstr("claims 18446744073709551615 tensors"));
  EXPECT_THAT(error_of(Bytes().header(0, uint64_t{1} << 60).data), HasSubstr("metadata values, more than"));
  Bytes array;
  array.header(0, 1).text("k").put<uint32_t>(9).put<uint32_t>(10).put<uint64_t>(uint64_t{1} << 61);
  EXPECT_THAT(error_of(array.data),
              HasSubstr("the array \"k\" claims 2305843009213693952 elements but only 0 bytes"));
  Bytes text;
  text.header(0, 1).text("k").put<uint32_t>(8).put<uint64_t>(UINT64_MAX - 3).put<uint64_t>(0);
  EXPECT_THAT(error_of(text.data), HasSubstr("ends inside a string value"));
  EXPECT_LT(peak_resident_bytes() - before, uint64_t{64} << 20);
}

TEST(Gguf, RefusesDamagedTensors) {
  const auto tensor = [](uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset) {
    Bytes b;
    b.header(1, 0).text("w").put<uint32_t>(2).put(columns).put(rows).put(type).put(offset).pad();
    b.data.append(64, 'x');
    return error_of(b.data);
  };
  EXPECT_EQ(tensor(4, 4, 0, 0), "no error");
  EXPECT_THAT(tensor(4, 5, 0, 0), HasSubstr("tensor \"w\" needs 80 bytes but 64 are left"));
  EXPECT_THAT(tensor(4, 4, 0, 32), HasSubstr("needs 64 bytes but 32 are left"));
  EXPECT_THAT(tensor(4, 4, 0, 7), HasSubstr("starts at 7, no multiple of the alignment 32"));
  EXPECT_THAT(tensor(4, 4, 0, uint64_t{1} << 63),
              HasSubstr("starts at byte 9223372036854775808 of 64 data bytes"));
  EXPECT_THAT(tensor(uint64_t{1} << 40, uint64_t{1} << 40, 0, 0), HasSubstr("needs more than 2^63 bytes"));
  EXPECT_THAT(tensor(0, 4, 0, 0), HasSubstr("has size 0 in dimension 0"));
  EXPECT_THAT(tensor(UINT64_MAX, 4, 0, 0), HasSubstr("has size 18446744073709551615"));
  EXPECT_THAT(tensor(33, 1, 2, 0), HasSubstr("rows of 33 values, no multiple of the 32 in a Q4_0 block"));
  EXPECT_THAT(
      error_of(Bytes().header(1, 0).text("w").put<uint32_t>(5).put<uint64_t>(1).put<uint64_t>(1).data),
      HasSubstr("claims 5 dimensions"));
}

TEST(Gguf, RefusesDuplicatesBadNamesAndDeepNesting) {
  Bytes twice;
  twice.header(0, 2).text("k").put<uint32_t>(7).put<uint8_t>(0).text("k").put<uint32_t>(7).put<uint8_t>(1);
  EXPECT_THAT(error_of(twice.data), HasSubstr("has the metadata key \"k\" twice"));
  Bytes tensors;
  for (int i = 0; i < 2; ++i) {
    if (i == 0) tensors.header(2, 0);
    tensors.text("w").put<uint32_t>(0).put<uint32_t>(0).put<uint64_t>(0);
  }
  EXPECT_THAT(error_of(tensors.pad().put(1.0f).data), HasSubstr("has the tensor \"w\" twice"));
  EXPECT_THAT(error_of(Bytes().header(0, 1).text("\xFF\xFE").put<uint32_t>(7).put<uint8_t>(0).data),
              HasSubstr("a metadata key at byte 24 is not valid UTF-8"));
  EXPECT_THAT(error_of(Bytes().header(0, 1).text("k").put<uint32_t>(13).put<uint64_t>(0).data),
              HasSubstr("the value of \"k\" has unknown type 13"));
  Bytes deep;
  deep.header(0, 1).text("k").put<uint32_t>(9);
  for (int i = 0; i < 100; ++i) deep.put<uint32_t>(9).put<uint64_t>(1);
  deep.put<uint32_t>(0).put<uint64_t>(0);
  EXPECT_THAT(error_of(deep.data), HasSubstr("nested more than 64 levels deep"));
  Bytes odd;
  odd.header(0, 1).text("general.alignment").put<uint32_t>(4).put<uint32_t>(24);
  EXPECT_THAT(error_of(odd.data), HasSubstr("general.alignment is 24, expected a power of two"));
}

TEST(Gguf, RandomDamageNeverCrashes) {
  const std::string whole = small_model().data;
  const Rng rng(1);
  for (uint64_t round = 0; round < 2000; ++round) {
    std::string bytes = whole;
    for (uint64_t k = 0; k < 1 + round % 4; ++k)
      bytes[rng.below(round * 16 + 2 * k, bytes.size())] =
          static_cast<char>(rng.bits(round * 16 + 2 * k + 1));
    try {
      const GgufFile f = GgufFile::open(write(bytes));
      for (const GgufTensor& t : f.tensors)
        if (!t.data.empty()) {
          EXPECT_LE(t.data.data() + t.data.size(), f.map->bytes().data() + f.map->bytes().size());
        }
    } catch (const Error&) {
    }
  }
}

TEST(Gguf, ReadsARealVocabulary) {
  const std::string path = NIBBLE_SOURCE_DIR "/../shared/data/conformance/llama.cpp/ggml-vocab-gpt-2.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no conformance vectors beside the checkout";
  const GgufFile f = GgufFile::open(path);
  EXPECT_EQ(f.string("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(f.array("tokenizer.ggml.tokens").strings.size(), 50257u);
  EXPECT_EQ(f.array("tokenizer.ggml.merges").strings.size(), 50000u);
}

}  // namespace
}  // namespace nibble
