// What the tests of this layer share: the message of an error.
#pragma once
#include <string>

#include "base/error.h"

namespace nibble::nn {

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace nibble::nn
