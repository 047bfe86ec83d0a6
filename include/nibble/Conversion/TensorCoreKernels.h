//===- TensorCoreKernels.h - Matrix products for NVIDIA GPUs ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Y [M, N] = f(X [M, K] · W [K, N] + bias [N]), where W has codes packed as
// FragmentPacking.h says, everything else is f16, and sums and f are f32. A
// kernel is made for a format of the weight, a tile and an epilogue; sizes are
// arguments.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_TENSORCOREKERNELS_H
#define NIBBLE_CONVERSION_TENSORCOREKERNELS_H

#include "nibble/Numerics/Scheme.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"

#include <optional>
#include <string>
#include <vector>

namespace nibble {

/// How the codes of a weight become real numbers: what its storage says, less
/// the zero point of the group, times the group's scale. Numbers of code books
/// and 4-bit floats are rounded to f16; the others are exact.
struct FragmentWeight {
  /// As FragmentFormat has it. Unsigned integers have zero points.
  StorageFormat storage = StorageFormat::getSigned(4);
  /// Inputs of a group: 32, 64, a multiple of 128, or 0 for all of K.
  int64_t group = 128;

  bool hasZeros() const { return storage.kind == StorageKind::Unsigned; }
  /// Loads of 16 bytes that a lane needs for a chunk, and words for a step.
  int64_t loadsPerChunk() const { return storage.bits / 4; }
  /// "w4g128z", "nf4g64", "f8E4M3FNc".
  std::string getName() const;
};

/// The format of weights in `scheme`, or an error that says what has no kernel.
llvm::Expected<FragmentWeight> getFragmentWeight(const Scheme &scheme);

/// What a block of threads computes. A warp computes 16 · outputTiles outputs
/// of 8 · rowTiles rows of X; the warps of a block lie side by side along N and
/// split K between them.
struct FragmentTile {
  int64_t outputTiles = 1;
  int64_t rowTiles = 1;
  int64_t warpsAlongN = 1;
  int64_t warpsAlongK = 8;
  /// Chunks of 64 inputs that are loaded ahead, an even number.
  int64_t stages = 4;
  /// Whether four neighbouring warps multiply together, by wgmma (sm_90a only).
  bool asWarpgroups = false;

  int64_t threads() const { return 32 * warpsAlongN * warpsAlongK; }
  int64_t outputs() const { return 16 * outputTiles * warpsAlongN; }
  int64_t rows() const { return 8 * rowTiles; }
  int64_t sharedBytes() const;
};

/// An error where no kernel has the tile.
llvm::Error verifyFragmentTile(const FragmentTile &tile);

/// A tile, and the most rows of X that it is launched for.
struct SizedTile {
  static constexpr int64_t kAnyRows = INT32_MAX;
  int64_t maxRows = kAnyRows;
  FragmentTile tile;
};

/// The tiles that are worth launching, for few rows of X and for many, and for
/// which a thread has the registers.
std::vector<SizedTile> getFragmentTiles(const FragmentWeight &weight,
                                        bool withWarpgroups);

/// ONNX's functions of that name; Gelu is the exact one, by erf.
enum class Activation : uint8_t { None, Relu, Gelu, Silu };

/// "none", "relu", "gelu", "silu".
llvm::StringRef getActivationName(Activation activation);
std::optional<Activation> parseActivation(llvm::StringRef name);

/// What becomes of the sums before they are rounded: first a bias, then an
/// activation.
struct FragmentEpilogue {
  bool hasBias = false;
  Activation activation = Activation::None;
};

/// A product on tensor cores, by mma.sync on sm_80 and newer or by wgmma on
/// sm_90a. The arguments:
///
///   x, codes, scales, bias, y   pointers
///   partials                    f32 [splits, M, N rounded up to 16]
///   counters                    i32 [grid.y · grid.x], 0 before and after
///   M, N, K                     i32
///   x stride, y stride          i32
///   chunks                      i32, see chunksPerWarp
///
/// Strides are elements from row to row and multiples of 8; x and y are 16-byte
/// aligned. What lies between N and the stride of y may be overwritten. The
/// grid is [ceil(N / outputs), ceil(M / rows), splits]: blocks of different z
/// sum different parts of K, and the last one of them to arrive adds the parts
/// up in order. With one split, partials and counters are not read.
struct FragmentMatmul {
  FragmentWeight weight;
  FragmentTile tile;
  FragmentEpilogue epilogue;
  /// Load weights while the kernel before still runs (sm_90 and newer, and only
  /// if launched with programmatic stream serialization).
  bool overlaps = false;

  /// Chunks of 64 inputs that a warp multiplies, an argument of the launch: the
  /// share of each of the splits · warpsAlongK warps.
  int64_t chunksPerWarp(int64_t K, int64_t splits) const;

  /// "w4g128z_n32x1_m8_k8_s4": what kernels are told apart by.
  std::string getName() const;
};

/// Adds the kernel to `module` in {llvm, nvvm, arith, math, scf}.
void buildFragmentMatmul(mlir::ModuleOp module, const FragmentMatmul &kernel);

} // namespace nibble

#endif // NIBBLE_CONVERSION_TENSORCOREKERNELS_H
