#include "tensor/tensor.h"
#include "base/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nibble {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(DTypes, Bf16RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3F80);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F808000u)).bits, 0x3F80);  // tie, even below
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F818000u)).bits, 0x3F82);  // tie, even above
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F808001u)).bits, 0x3F81);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(to_float(to_bf16(std::numeric_limits<float>::max()))));
}

TEST(DTypes, EveryF16ValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float f = to_float(Float16{static_cast<uint16_t>(bits)});
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(to_float(to_f16(f))));
    } else {
      ASSERT_EQ(to_f16(f).bits, bits);
    }
  }
}

TEST(DTypes, F16TiesGoToEven) {
  EXPECT_EQ(to_f16(1.0f + 0x1p-11f).bits, 0x3C00);
  EXPECT_EQ(to_f16(1.0f + 0x3p-11f).bits, 0x3C02);
  EXPECT_EQ(to_f16(0x1p-25f).bits, 0x0000);
  EXPECT_EQ(to_f16(0x3p-25f).bits, 0x0002);
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7C00);
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7BFF);
}

TEST(TensorViews, ShareMemoryAndCheckBounds) {
  const auto host = make_host_allocator();
  const Tensor t = Tensor::empty(*host, {4, 3}, kF32, "t");
  for (int i = 0; i < 12; ++i) t.data<float>()[i] = static_cast<float>(i);
  EXPECT_EQ(t.rows(2, 4).data<float>()[0], 6);
  EXPECT_EQ(t.reshape({2, 6}).rows(1, 2).data<float>()[5], 11);
  EXPECT_THAT([&] { t.rows(3, 5); }, ThrowsMessage<Error>(HasSubstr("rows 3 to 5 of [4, 3]")));
  EXPECT_THAT([&] { t.reshape({5}); }, ThrowsMessage<Error>(HasSubstr("cannot view [4, 3] as [5]")));
  EXPECT_THAT([&] { t.data<int32_t>(); },
              ThrowsMessage<Error>(HasSubstr("is f32 [4, 3] but is read as i32")));
}

TEST(LedgerBook, KeepsPeaksByGroup) {
  const auto host = make_host_allocator();
  {
    const MemoryGroup group(*host, "activations");
    const Tensor a = Tensor::empty(*host, {64}, kF32, "a");
    const Tensor b = Tensor::empty(*host, {16}, kF32, "b");
    EXPECT_EQ(host->ledger().current_bytes(), 256 + 64);
  }
  EXPECT_EQ(host->ledger().current_bytes(), 0);
  EXPECT_EQ(host->ledger().peak_bytes(), 320);
  EXPECT_EQ(host->ledger().groups_at_peak().at("activations"), 320);
}

TEST(LedgerBook, KeepsPeaksByName) {
  const auto host = make_host_allocator();
  std::string name = "one";  // a place whose name changes is no literal
  std::vector<Tensor> kept;
  kept.push_back(Tensor::empty(*host, {16}, kF32, name));
  name = "two";
  kept.push_back(Tensor::empty(*host, {32}, kF32, name));
  {
    const MemoryGroup group(*host, "activations");
    kept.push_back(Tensor::empty(*host, {48}, kF32, name));
    const Tensor gone = Tensor::empty(*host, {64}, kF32, name);
  }
  kept.push_back(Tensor::empty(*host, {80}, kF32, name));
  kept.pop_back();
  const std::map<std::pair<std::string, std::string>, int64_t> expected = {
      {{"other", "one"}, 64}, {{"other", "two"}, 128 + 320}, {{"activations", "two"}, 192 + 256}};
  EXPECT_EQ(host->ledger().names_peak(), expected);
  host->ledger().reset_peak();
  EXPECT_EQ(host->ledger().names_peak().at({"activations", "two"}), 192);
}

// A random program of allocations, once on the meta device and once for real from the arena that was planned
// from it.
TEST(Arena, ServesTheRecordedSequenceWithoutOverlap) {
  const auto meta = make_meta_allocator();
  const auto program = [](Allocator& allocator,
                          const std::function<void(const std::vector<Tensor>&)>& check) {
    std::vector<Tensor> live;
    uint32_t state = 1;
    for (int i = 0; i < 300; ++i) {
      state = state * 1664525u + 1013904223u;
      if (live.size() > 3 && (state >> 16) % 2 == 0) {
        live.erase(live.begin() + static_cast<int64_t>((state >> 20) % live.size()));
      } else {
        live.push_back(Tensor::empty(allocator, {static_cast<int64_t>((state >> 18) % 500 + 1)}, kF32, "x"));
      }
      check(live);
    }
  };
  meta->ledger().start_recording();
  program(*meta, [](const auto&) {});
  const ArenaPlan plan = plan_arena(meta->ledger().stop_recording());
  EXPECT_GE(plan.bytes, meta->ledger().peak_bytes());
  EXPECT_LE(static_cast<double>(plan.bytes), 1.25 * static_cast<double>(meta->ledger().peak_bytes()));

  const auto host = make_host_allocator();
  ArenaAllocator arena(plan, *host);
  for (int step = 0; step < 2; ++step) {
    arena.begin_step();
    program(arena, [](const std::vector<Tensor>& live) {
      for (const Tensor& a : live)
        for (const Tensor& b : live)
          if (a.raw() != b.raw()) {
            ASSERT_TRUE(a.raw() + a.bytes() <= b.raw() || b.raw() + b.bytes() <= a.raw());
          }
    });
  }
  EXPECT_THAT([&] { arena.allocate(8, "more"); }, ThrowsMessage<Error>(HasSubstr("comes after the last")));
  arena.begin_step();
  EXPECT_THAT([&] { arena.allocate(1 << 20, "big"); },
              ThrowsMessage<Error>(HasSubstr("this step is not the planned one")));
}

TEST(HostAllocator, RefusesTheImpossibleWithAdvice) {
  EXPECT_THAT([] { host_allocator().allocate(size_t{1} << 60, "logits"); },
              ThrowsMessage<Error>(
                  testing::AllOf(HasSubstr("for logits"), HasSubstr("gradient_checkpointing: block"))));
}

// Caches of ever other sizes: together they would take 1.2 GB.
TEST(Allocator, KeepsABoundedAmountOfWhatIsNoLongerUsed) {
  const auto allocator = make_host_allocator();
  const uint64_t before = resident_bytes();
  uint64_t most = 0;
  for (double megabytes = 32; megabytes < 180; megabytes *= 1.15) {
    const Tensor t = Tensor::empty(*allocator, {static_cast<int64_t>(megabytes * 1e6)}, kU8, "cache");
    std::memset(t.raw(), 1, static_cast<size_t>(t.bytes()));
    most = std::max(most, resident_bytes() - std::min(before, resident_bytes()));
  }
  EXPECT_LT(most, 700'000'000u);
}

}  // namespace
}  // namespace nibble
