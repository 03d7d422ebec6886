#include "io/safetensors.h"

#include <gmock/gmock.h>

#include "tests/io/support.h"

namespace nibble::io {
namespace {

SafetensorsFile open_bytes(const TempDir& dir, const std::string& header, const std::string& body) {
  put_file(dir / "x.safetensors", safetensors_bytes(header, body));
  return SafetensorsFile::open(dir / "x.safetensors");
}

TEST(Safetensors, ReadsWhatItWrote) {
  TempDir dir;
  const Tensor a = f32_tensor({2, 3}, {1, -2, 3, 4, 5.5f, -6}), b = f32_tensor({1}, {7});
  Tensor scalar = Tensor::empty(host_allocator(), Shape{}, kU8, "scalar");
  *scalar.data<uint8_t>() = 9;
  write_safetensors(dir / "a.safetensors", {{"z \"quoted\"", a}, {"s", scalar}, {"b", b}},
                    {{"format", "pt"}});
  const auto file = SafetensorsFile::open(dir / "a.safetensors");
  ASSERT_EQ(file.entries.size(), 3u);
  EXPECT_EQ(file.entries[0].name, "z \"quoted\"");
  EXPECT_EQ(file.metadata.at("format"), "pt");
  EXPECT_EQ(floats(file.tensor("z \"quoted\"")), floats(a));
  EXPECT_EQ(file.tensor("s").shape().rank(), 0);
  EXPECT_EQ(*file.tensor("s").data<uint8_t>(), 9);
  // "b" lies at an odd address: it comes as an aligned copy.
  EXPECT_EQ(floats(file.tensor("b")), floats(b));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.tensor("b").raw()) % 4, 0u);
}

TEST(Safetensors, ReadsPythonsFile) {
  const auto file = SafetensorsFile::open(golden("tiny_llama/model.safetensors"));
  EXPECT_EQ(file.entries.size(), 21u);
  EXPECT_EQ(file.tensor("model.layers.1.mlp.down_proj.weight").shape(), (Shape{64, 112}));
  EXPECT_EQ(file.tensor("model.norm.weight").dtype(), kBF16);
  EXPECT_ERROR(file.tensor("model.layers.1.mlp.down_prj.weight"),
               "did you mean \"model.layers.1.mlp.down_proj.weight\"?");
}

TEST(Safetensors, TypesThatTensorHasNotAreListedButNotRead) {
  TempDir dir;
  const auto file = open_bytes(dir, R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", "abcd");
  EXPECT_EQ(file.entries[0].dtype, "F8_E4M3");
  EXPECT_ERROR(file.tensor("a"), "is F8_E4M3, which cannot be read here");
}

TEST(Safetensors, EmptyTensorsAndEmptyFiles) {
  TempDir dir;
  EXPECT_TRUE(open_bytes(dir, "{}", "").entries.empty());
  const auto file = open_bytes(dir, R"({"a":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},
      "b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"c":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}})",
                               "xy");
  EXPECT_EQ(file.tensor("a").numel(), 0);
  EXPECT_EQ(file.tensor("c").numel(), 0);
}

struct Lie {
  const char* header;
  const char* body;
  const char* message;
};
const Lie kLies[] = {
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234", "outside the file; is it cut off?"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345",
     "has 1 bytes behind its last tensor"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234", "lies at bytes 4 to 0 of 4"},
    {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "12345678",
     "needs 12 bytes, but its data_offsets span 8"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
     "123", "begins at byte 1 but the one before it ends at 2"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
     "123", "begins at byte 2 but the one before it ends at 1"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
     "12", "has two tensors named \"a\""},
    {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}})", "",
     "a size that cannot be"},
    {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", "",
     "claims a dimension of"},
    {R"({"a":{"dtype":"NEW","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}})", "",
     "a size that cannot be"},
    {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4]}})", "1234", "more than 4 dimensions"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", "1234", "has 3 data_offsets"},
    {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234", "a negative number"},
    {R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", "1234", "a fraction"},
    {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", "1234", "an array"},
    {R"({"a":{"dtype":{"x":1},"shape":[1],"data_offsets":[0,4]}})", "1234", "nested too deeply"},
    {R"({"a":{"dtype":"F32","shape":[1]}})", "1234", "lacks one of dtype, shape and data_offsets"},
    {R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", "1234",
     "two members \"shape\""},
    {R"({"a":{"dtype":"F32","shape":[1],"offset":3,"data_offsets":[0,4]}})", "1234",
     "unknown member \"offset\""},
    {R"({"a":7})", "", "has a number where"},
    {R"([1,2])", "", "has an array where"},
    {R"({"a":)", "", "not valid JSON at byte 6"},
    {"{\"\xff\":1}", "", "not valid JSON"},
    {R"({"__metadata__":{"a":1}})", "", "has a number where"},
    {R"({"__metadata__":"text"})", "", "has a string where"},
};

TEST(Safetensors, LyingHeadersAreNamed) {
  TempDir dir;
  for (const Lie& lie : kLies) EXPECT_ERROR(open_bytes(dir, lie.header, lie.body), lie.message) << lie.header;
}

TEST(Safetensors, LengthsThatCannotBe) {
  TempDir dir;
  const std::string path = dir / "x.safetensors";
  put_file(path, "1234567");
  EXPECT_ERROR(SafetensorsFile::open(path), "is 7 bytes long, too short");
  put_file(path, "");
  EXPECT_ERROR(SafetensorsFile::open(path), "is 0 bytes long, too short");
  put_file(path, std::string("\xff\0\0\0\0\0\0\0{}", 10));
  EXPECT_ERROR(SafetensorsFile::open(path), "claims a header of 255 bytes but has 2");
  put_file(path, std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
  EXPECT_ERROR(SafetensorsFile::open(path), "more than the 100000000 allowed");
  EXPECT_ERROR(SafetensorsFile::open(dir / "none"), "cannot open");
  EXPECT_ERROR(SafetensorsFile::open(dir.path()), "expected a regular file");
}

TEST(Safetensors, EveryTruncationIsAnError) {
  TempDir dir;
  const std::string whole = get_file(golden("tiny_llama/biases.safetensors"));
  for (size_t n = 0; n < whole.size(); n += n < 1500 ? 1 : 97) {
    put_file(dir / "x.safetensors", whole.substr(0, n));
    EXPECT_NE(error_of([&] { SafetensorsFile::open(dir / "x.safetensors"); }), "no error") << n;
  }
}

TEST(SafetensorsWriter, CountsWhatItIsGiven) {
  TempDir dir;
  const std::vector<std::byte> bytes(9);
  {
    SafetensorsWriter w(dir / "x", {{"a", kF32, {2}}}, {});
    w.write(std::span(bytes).first(5));
    EXPECT_ERROR(w.commit(), "5 bytes were given but 8 were declared");
    EXPECT_ERROR(w.write(std::span(bytes).first(4)), "more bytes were given than the 8");
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path())) << "an uncommitted file leaves nothing";
  EXPECT_ERROR(SafetensorsWriter(dir / "x", {{"a", kF32, {2}}, {"a", kF32, {2}}}, {}),
               "two tensors named \"a\"");
  EXPECT_ERROR(SafetensorsWriter(dir / "no/such/x", {}, {}), "cannot write here");
}

}  // namespace
}  // namespace nibble::io
