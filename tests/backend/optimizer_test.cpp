// Optimizers against small references.
#include "tests/backend/kernel_cases.h"

namespace nibble::backend {
namespace {

constexpr AdamArgs kAdam{.learning_rate = 1e-2f,
                         .beta1 = 0.9f,
                         .beta2 = 0.999f,
                         .eps = 1e-8f,
                         .weight_decay = 0.1f,
                         .grad_scale = 0.5f,
                         .step = 1};

// Gradient of step t: different every time, some of it zero.
Tensor gradient(int64_t n, int64_t t) {
  Tensor g = random_tensor({n}, kF32, static_cast<uint32_t>(100 + t));
  for (int64_t i = 0; i < n; i += 7) g.data<float>()[i] = 0;
  return g;
}

TEST(Optimizer, AdamWTenSteps) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const int64_t n : {0, 1, 7, 8, 9, 33}) {
      Guarded p = guarded({n}, kF32, 1), m({n}, kF32), v({n}, kF32);
      fill(stream, m.tensor, 0);
      fill(stream, v.tensor, 0);
      auto wp = doubles_of(p.tensor);
      std::vector<double> wm(wp.size()), wv(wp.size());
      AdamArgs args = kAdam;
      for (args.step = 1; args.step <= 10; ++args.step) {
        const Tensor g = gradient(n, args.step);
        adamw(stream, p.tensor, g, m.tensor, v.tensor, args);
        for (size_t i = 0; i < wp.size(); ++i) {
          const double gi = 0.5 * g.data<float>()[i], t = static_cast<double>(args.step);
          wm[i] = 0.9 * wm[i] + 0.1 * gi;
          wv[i] = 0.999 * wv[i] + 0.001 * gi * gi;
          wp[i] *= 1 - 1e-2 * 0.1;
          wp[i] -=
              1e-2 * (wm[i] / (1 - std::pow(0.9, t))) / (std::sqrt(wv[i] / (1 - std::pow(0.999, t))) + 1e-8);
        }
      }
      for (const Guarded* g : {&p, &m, &v}) g->expect_untouched("adamw");
      expect_near(p.tensor, wp, 3e-6, "p");
      expect_near(m.tensor, wm, 1e-6, "m");
      expect_near(v.tensor, wv, 2e-5, "v");  // 1 - 0.999f differs from 0.001 in the fifth digit
    }
  });
}

TEST(Optimizer, SgdWithAndWithoutMomentum) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const float momentum : {0.0f, 0.9f}) {
      Guarded p = guarded({35}, kF32, 1), velocity({35}, kF32);
      fill(stream, velocity.tensor, 0);
      auto wp = doubles_of(p.tensor);
      std::vector<double> wv(wp.size());
      for (int64_t t = 0; t < 5; ++t) {
        const Tensor g = gradient(35, t);
        Tensor none;
        sgd(stream, p.tensor, g, momentum > 0 ? velocity.tensor : none,
            {.learning_rate = 0.1f, .momentum = momentum, .weight_decay = 0.01f, .grad_scale = 2});
        for (size_t i = 0; i < wp.size(); ++i) {
          wv[i] = static_cast<double>(momentum) * wv[i] + 2.0 * g.data<float>()[i] + 0.01 * wp[i];
          wp[i] -= 0.1 * wv[i];
        }
      }
      p.expect_untouched("p");
      velocity.expect_untouched("velocity");
      expect_near(p.tensor, wp, 2e-6, "p");
    }
  });
}

TEST(Optimizer, LionFollowsTheSign) {
  Stream stream(host_allocator());
  on_every_target([&] {
    Guarded p = guarded({35}, kF32, 1), m({35}, kF32);
    fill(stream, m.tensor, 0);
    auto wp = doubles_of(p.tensor);
    std::vector<double> wm(wp.size());
    for (int64_t t = 0; t < 6; ++t) {
      const Tensor g = gradient(35, t);
      lion(stream, p.tensor, g, m.tensor,
           {.learning_rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.99f, .weight_decay = 0.1f, .grad_scale = 0.5f});
      for (size_t i = 0; i < wp.size(); ++i) {
        const double gi = 0.5 * g.data<float>()[i], u = 0.9 * wm[i] + 0.1 * gi;
        wp[i] = wp[i] * (1 - 1e-3 * 0.1) - 1e-3 * (u > 0 ? 1 : u < 0 ? -1 : 0);
        wm[i] = 0.99 * wm[i] + 0.01 * gi;
      }
    }
    p.expect_untouched("p");
    expect_near(p.tensor, wp, 1e-6, "p");
    expect_near(m.tensor, wm, 1e-6, "m");
  });
}

// The nearest code by looking at all of them; a tie takes the lower.
uint8_t nearest(std::span<const float> map, float x) {
  size_t best = 0;
  for (size_t i = 1; i < map.size(); ++i)
    if (std::abs(static_cast<double>(map[i]) - x) < std::abs(static_cast<double>(map[best]) - x)) best = i;
  return static_cast<uint8_t>(best);
}

// Three steps in 8 bits against the definition, value by value.
TEST(Optimizer, AdamW8bitKeepsNearestCodesAndSigns) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const auto signed_map = quant::dynamic_map_signed(), unsigned_map = quant::dynamic_map_unsigned();
  for (const int64_t n : {1, 255, 256, 257, 1000}) {
    const int64_t blocks = (n + 255) / 256;
    Guarded p = guarded({n}, kF32, 1), cm({n}, kU8), cv({n}, kU8), am({blocks}, kF32), av({blocks}, kF32);
    std::memset(cm.tensor.raw(), 127, static_cast<size_t>(n));  // the code of zero
    std::memset(cv.tensor.raw(), 0, static_cast<size_t>(n));
    fill(stream, am.tensor, 0);
    fill(stream, av.tensor, 0);
    auto wp = floats_of(p.tensor);
    std::vector<float> wm(wp.size()), wv(wp.size());
    AdamArgs args = kAdam;
    for (args.step = 1; args.step <= 3; ++args.step) {
      Tensor g = gradient(n, args.step);
      if (n > 20) g.data<float>()[20] = args.step == 2 ? std::nanf("") : 1e-9f;
      adamw_8bit(stream, p.tensor, g, cm.tensor, am.tensor, cv.tensor, av.tensor, args);
      const double t = static_cast<double>(args.step);
      const auto rate =
          static_cast<float>(static_cast<double>(1e-2f) / (1 - std::pow(static_cast<double>(0.9f), t)));
      const auto root = static_cast<float>(std::sqrt(1 - std::pow(static_cast<double>(0.999f), t)));
      for (int64_t b = 0; b < blocks; ++b) {
        float high_m = 0, high_v = 0;
        for (size_t i = static_cast<size_t>(b) * 256;
             i < std::min<size_t>(wp.size(), static_cast<size_t>(b + 1) * 256); ++i) {
          const float gi = g.data<float>()[i] * 0.5f;
          if (std::isfinite(gi)) {
            wm[i] = 0.9f * wm[i] + (1 - 0.9f) * gi;
            wv[i] = 0.999f * wv[i] + (1 - 0.999f) * gi * gi;
            wp[i] = wp[i] * (1 - 1e-2f * 0.1f) - rate * wm[i] / (std::sqrt(wv[i]) / root + 1e-8f);
          }
          high_m = std::max(high_m, std::abs(wm[i]));
          high_v = std::max(high_v, wv[i]);
        }
        ASSERT_EQ(am.tensor.data<float>()[b], high_m);
        ASSERT_EQ(av.tensor.data<float>()[b], high_v);
        for (size_t i = static_cast<size_t>(b) * 256;
             i < std::min<size_t>(wp.size(), static_cast<size_t>(b + 1) * 256); ++i) {
          const float x = high_m > 0 ? wm[i] / high_m : 0;
          uint8_t code = nearest(signed_map, x);
          if (x < 0 && signed_map[code] >= 0) --code;
          ASSERT_EQ(cm.tensor.data<uint8_t>()[i], code) << "m of " << i << " in step " << args.step;
          ASSERT_EQ(cv.tensor.data<uint8_t>()[i], nearest(unsigned_map, high_v > 0 ? wv[i] / high_v : 0))
              << "v of " << i << " in step " << args.step;
          wm[i] = signed_map[cm.tensor.data<uint8_t>()[i]] * high_m;
          wv[i] = unsigned_map[cv.tensor.data<uint8_t>()[i]] * high_v;
        }
      }
      ASSERT_EQ(floats_of(p.tensor), wp);
      for (const Guarded* x : {&p, &cm, &cv, &am, &av}) x->expect_untouched("adamw_8bit");
    }
  }
}

TEST(Optimizer, SameBytesOnEveryInstructionSetAndForAnyThreads) {
  Stream stream(host_allocator());
  constexpr int64_t n = 40'001, blocks = (n + 255) / 256;
  expect_same(Same::kEverywhere, [&] {
    Tensor p = random_tensor({n}, kF32, 1), q = random_tensor({n}, kF32, 2), r = random_tensor({n}, kF32, 3),
           m = random_tensor({n}, kF32, 4);
    Tensor v = random_tensor({n}, kF32, 5), momentum = random_tensor({n}, kF32, 6);
    for (int64_t i = 0; i < n; ++i) v.data<float>()[i] = std::abs(v.data<float>()[i]);
    adamw(stream, p, gradient(n, 0), m, v, kAdam);
    lion(stream, q, gradient(n, 1), momentum,
         {.learning_rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.99f, .weight_decay = 0.1f, .grad_scale = 1});
    sgd(stream, q, gradient(n, 2), momentum,
        {.learning_rate = 1e-3f, .momentum = 0.9f, .weight_decay = 0, .grad_scale = 1});
    Tensor cm = Tensor::empty(host_allocator(), {n}, kU8, "m"),
           cv = Tensor::empty(host_allocator(), {n}, kU8, "v");
    Tensor am = Tensor::empty(host_allocator(), {blocks}, kF32, "am"),
           av = Tensor::empty(host_allocator(), {blocks}, kF32, "av");
    std::memset(cm.raw(), 127, n);
    std::memset(cv.raw(), 0, n);
    fill(stream, am, 0);
    fill(stream, av, 0);
    adamw_8bit(stream, r, gradient(n, 3), cm, am, cv, av, kAdam);
    std::string all;
    for (const Tensor& t : {p, q, r, m, v, momentum, cm, cv, am, av}) all += bytes_of(t);
    return all;
  });
}

}  // namespace
}  // namespace nibble::backend
