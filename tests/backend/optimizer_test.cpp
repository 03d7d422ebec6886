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
           {.learning_rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.99f, .weight_decay = 0.1f, .grad_scale = 1});
      for (size_t i = 0; i < wp.size(); ++i) {
        const double gi = g.data<float>()[i], u = 0.9 * wm[i] + 0.1 * gi;
        wp[i] = wp[i] * (1 - 1e-3 * 0.1) - 1e-3 * (u > 0 ? 1 : u < 0 ? -1 : 0);
        wm[i] = 0.99 * wm[i] + 0.01 * gi;
      }
    }
    p.expect_untouched("p");
    expect_near(p.tensor, wp, 1e-6, "p");
    expect_near(m.tensor, wm, 1e-6, "m");
  });
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
