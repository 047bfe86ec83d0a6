//===- DeviceProgram.h - The GPU's part of a model --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// --nibble-launch-kernels puts the kernels of a model into a module in the
// module, in {llvm, nvvm, arith, math, scf}. Its attributes say what the host
// calls them.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_DEVICEPROGRAM_H
#define NIBBLE_CONVERSION_DEVICEPROGRAM_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

#include <optional>
#include <string>
#include <vector>

namespace nibble {

/// The name of the module of the kernels.
inline constexpr llvm::StringLiteral kDeviceName = "nibble_device";
/// The names of its kernels; the host launches them by their numbers.
inline constexpr llvm::StringLiteral kKernelsAttrName = "nibble.kernels";
/// What its products are launched by, of each format (ProductFormat).
inline constexpr llvm::StringLiteral kProductsAttrName = "nibble.products";
/// The most bytes that buffers take at a time, where that is known.
inline constexpr llvm::StringLiteral kBufferBytesAttrName =
    "nibble.buffer_bytes";
/// The attribute of a function of the host that launches a kernel.
inline constexpr llvm::StringLiteral kLaunchAttrName = "nibble.launch";
/// The attribute of an argument of `main` that is in the GPU's memory.
inline constexpr llvm::StringLiteral kResidentAttrName = "nibble.resident";

/// A kernel for products, as nibble_gpu_kernel has it (nibble_gpu.h).
struct ProductKernel {
  std::string name;
  int32_t maxRows, outputs, rows, warpsAlongK, threads, sharedBytes;
};

/// The kernels of a format of weights, as nibble_gpu_kernels has them.
struct ProductFormat {
  int32_t bits, group;
  bool hasZeros, overlaps;
  std::vector<ProductKernel> kernels;
};

/// The kernels of a model.
struct DeviceProgram {
  mlir::OwningOpRef<mlir::ModuleOp> module;
  /// By the number that the host gives.
  std::vector<std::string> kernels;
  /// The same for products.
  std::vector<ProductFormat> products;
  /// The most bytes that buffers take at a time, unless sizes are dynamic.
  std::optional<uint64_t> bufferBytes;
};

/// Takes the module of the kernels out of `module`.
DeviceProgram takeDeviceProgram(mlir::ModuleOp module);

} // namespace nibble

#endif // NIBBLE_CONVERSION_DEVICEPROGRAM_H
