//===- LaunchCode.h - C code that launches GPU kernels ----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_LAUNCHCODE_H
#define NIBBLE_LIB_DRIVER_LAUNCHCODE_H

#include "nibble/Conversion/TensorCoreKernels.h"
#include "nibble/Target/NVVM/DeviceModule.h"

namespace nibble {

struct LaunchedKernel {
  FragmentMatmul kernel;
  /// Suits at most so many rows of X.
  int64_t maxRows = 0;
  std::string ptx;
};

struct TextFile {
  std::string name, text;
};

/// kernels.h and kernels.c, which have the kernels, all of one weight format
/// and for `row`; and nibble_gpu.h and nibble_gpu.c, which launch them.
std::vector<TextFile> makeLaunchCode(const NvidiaRow &row,
                                     llvm::ArrayRef<LaunchedKernel> kernels);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_LAUNCHCODE_H
