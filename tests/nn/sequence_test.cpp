#include "nn/sequence.h"
#include "tests/message_of.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble::nn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int32_t> ints(const Tensor& t) { return {t.data<int32_t>(), t.data<int32_t>() + t.numel()}; }

TEST(PackedInput, PositionsStartAgain) {
  const SequenceInput in = packed_input(host_allocator(), {7, 8, 9, 5, 6}, {3, 2});
  EXPECT_THAT(ints(in.ids), ElementsAre(7, 8, 9, 5, 6));
  EXPECT_THAT(ints(in.positions), ElementsAre(0, 1, 2, 0, 1));
  EXPECT_THAT(ints(in.segments), ElementsAre(0, 3, 0, 3, 3, 2, 3, 2));
  EXPECT_THAT(message_of([] {
                packed_input(host_allocator(), {1, 2}, {3});
              }),
              HasSubstr("add up to 3 but there are 2"));
  EXPECT_THAT(message_of([] {
                packed_input(host_allocator(), {1, 2}, {2, 0});
              }),
              HasSubstr("a sequence has 0 tokens"));
  const auto meta = make_meta_allocator();
  const SequenceInput shapes = packed_input(*meta, {7, 8, 9, 5, 6}, {3, 2});
  EXPECT_EQ(shapes.segments.shape(), (Shape{2, 4}));
  EXPECT_EQ(shapes.ids.raw(), nullptr);
}

TEST(CachedInput, GoesOnWhereEachSlotStands) {
  KvCache cache(host_allocator(), 1, 3, 10, 4, kF32);
  EXPECT_EQ(cache.k[0].shape(), (Shape{30, 4}));
  cached_input(host_allocator(), cache, {2}, {{1, 2, 3}});
  EXPECT_THAT(ints(cache.target_rows), ElementsAre(20, 21, 22));
  EXPECT_EQ(cache.length[2], 0) << "not before commit()";
  commit(cache, {2}, {{1, 2, 3}});
  const SequenceInput in = cached_input(host_allocator(), cache, {0, 2}, {{4, 5}, {6}});
  EXPECT_THAT(ints(in.ids), ElementsAre(4, 5, 6));
  EXPECT_THAT(ints(in.positions), ElementsAre(0, 1, 3));
  EXPECT_THAT(ints(in.segments), ElementsAre(0, 2, 0, 2, 2, 1, 20, 4));
  EXPECT_THAT(ints(cache.target_rows), ElementsAre(0, 1, 23));
  EXPECT_THAT(message_of([&] { cached_input(host_allocator(), cache, {2}, {std::vector<int32_t>(8, 1)}); }),
              HasSubstr("8 more tokens after 3 do not fit a capacity of 10"));
  EXPECT_THAT(message_of([&] { cached_input(host_allocator(), cache, {3}, {{1}}); }),
              HasSubstr("slot 3 of 3"));
}

}  // namespace
}  // namespace nibble::nn
