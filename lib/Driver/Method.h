//===- Method.h - How quantize chooses codes --------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_METHOD_H
#define NIBBLE_LIB_DRIVER_METHOD_H

#include "nibble/Driver/Driver.h"

namespace nibble {

/// Two steps: a change of the model that keeps its function, and the choice of
/// codes.
struct Method {
  enum class Preparation : uint8_t { None, SmoothQuant, Awq, LlmInt8 };
  enum class Rounding : uint8_t {
    Nearest,    ///< with scales that know nothing of the inputs
    Calibrated, ///< to the nearest, scales searched with the inputs' squares
    Gptq,       ///< plain GPTQ
    Obq,        ///< optimal brain quantization in its greedy order
    Recipe,     ///< GPTQ, coordinate descent, scale refits
  };
  Preparation preparation = Preparation::None;
  Rounding rounding = Rounding::Nearest;
  /// SpQR: single elements are kept in 16 bits. Goes with GPTQ and the recipe.
  bool keepsOutliers = false;
  /// AWQ leaves the inputs of weights with fewer bits alone.
  unsigned leastBits = 0;

  bool needsData() const {
    return preparation != Preparation::None || rounding != Rounding::Nearest;
  }
};

/// The name of the method that was asked for, or of the default.
std::string getMethodName(const QuantizeCommand &command);

/// Reads a name of getMethodNames().
Method getMethod(const QuantizeCommand &command);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_METHOD_H
