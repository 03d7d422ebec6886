// Every case of this program finds the kernels registered, also when it runs alone.
#include <gtest/gtest.h>

#include "backend/kernel_slot.h"

namespace nibble::backend {
namespace {

class Kernels : public testing::Environment {
 public:
  void SetUp() override { register_cpu_kernels(); }
};
const auto* const kKernels = testing::AddGlobalTestEnvironment(new Kernels);

}  // namespace
}  // namespace nibble::backend
