//===- FragmentMatmul.h - The generator of matrix products ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// FragmentMatmul.cpp has the product, FragmentResult.cpp what becomes of its
// sums.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETONVVM_FRAGMENTMATMUL_H
#define NIBBLE_LIB_CONVERSION_NIBBLETONVVM_FRAGMENTMATMUL_H

#include "DeviceBuilder.h"

#include "nibble/Conversion/TensorCoreKernels.h"
#include "nibble/Numerics/FragmentPacking.h"

namespace nibble {

constexpr int64_t kChunk = FragmentFormat::kChunk;
constexpr int64_t kTile = FragmentFormat::kTile;
/// Rows of X that an mma takes.
constexpr int64_t kRows = 8;
/// Bytes of a row's chunk in shared memory, and pieces of 16 bytes in it.
constexpr int64_t kRowBytes = 2 * kChunk, kPieces = kRowBytes / 16;
/// Accumulators of an mma in a lane.
constexpr int64_t kAccumulators = 4;
/// Floats between the rows of sums in shared memory, beyond the outputs: the
/// stores of a warp, 8 outputs of 4 pairs of rows, hit different banks.
constexpr int64_t kPitchPadding = 4;

/// What turns the codes of a lane's two outputs into numbers.
struct GroupParameters {
  mlir::Value scales; // 2 × f16
  /// 2 × f16 for each output, of integers.
  Values biases;
};

/// Emits the body of a kernel.
class FragmentGenerator {
public:
  FragmentGenerator(DeviceBuilder &device, const FragmentMatmul &kernel,
                    mlir::ValueRange arguments, mlir::Value shared)
      : device(device), kernel(kernel), tile(kernel.tile), x(arguments[0]),
        codes(arguments[1]), scales(arguments[2]), bias(arguments[3]),
        y(arguments[4]), partials(arguments[5]), counters(arguments[6]),
        M(arguments[7]), N(arguments[8]), K(arguments[9]),
        xStride(arguments[10]), yStride(arguments[11]),
        chunksPerWarp(arguments[12]), shared(shared) {}

  void build();

private:
  // Places.
  void findPlace();
  void findShare();
  void prepareCopies();
  void prepareFragments();

  // Loads.
  void copyRows(mlir::Value chunk, int64_t slot);
  mlir::Value loadCodes(int64_t output, mlir::Value chunk, int64_t part);
  mlir::Value loadParameters(int64_t output, mlir::Value chunk, int64_t part);
  GroupParameters unpackParameters(mlir::Value loaded);

  // The product.
  void synchronize();
  Values unpackWeights(mlir::ValueRange packed, int64_t output, int64_t step,
                       const GroupParameters &parameters);
  void multiplyHalf(mlir::ValueRange packed,
                    llvm::ArrayRef<GroupParameters> parameters, int64_t slot,
                    int64_t half, llvm::MutableArrayRef<mlir::Value> sums);
  void multiplyChunk(mlir::ValueRange packed, mlir::ValueRange loaded,
                     int64_t slot, llvm::MutableArrayRef<mlir::Value> sums,
                     llvm::MutableArrayRef<mlir::Value> groupSums);
  void addScaled(llvm::MutableArrayRef<mlir::Value> sums,
                 llvm::ArrayRef<mlir::Value> groupSums,
                 llvm::ArrayRef<GroupParameters> parameters);
  void multiplyChunkAsync(mlir::ValueRange packed, mlir::ValueRange loaded,
                          int64_t slot,
                          llvm::MutableArrayRef<mlir::Value> sums);
  Values multiplyShare();

  // The result.
  void storeSums(llvm::ArrayRef<mlir::Value> sums, int64_t firstRowTile,
                 int64_t rowTiles);
  void reduce(int64_t firstRowTile, int64_t rowTiles);
  void forEachResult(
      int64_t rowTiles,
      llvm::function_ref<void(mlir::Value row, mlir::Value output)> body);
  void storeResult(mlir::Value sum, mlir::Value row, mlir::Value column);
  mlir::Value partialAt(mlir::Value split, mlir::Value row, mlir::Value column);
  void reduceSplits();

  /// Half chunks, of 32 inputs, after which sums are scaled: 1, 2 or 4.
  int64_t halvesPerScale() const {
    return std::min<int64_t>(kernel.weight.group, 2 * kChunk) / 32;
  }
  int64_t loadsPerChunk() const { return kernel.weight.loadsPerChunk(); }
  int64_t scalesPerChunk() const { return halvesPerScale() == 1 ? 2 : 1; }
  int64_t chunksPerScale() const { return halvesPerScale() == 4 ? 2 : 1; }
  /// Whether unpacking takes registers: for parameters of small groups, or for
  /// the tables of a code book.
  bool isCostlyToUnpack() const {
    const StorageFormat &storage = kernel.weight.storage;
    return scalesPerChunk() == 2 || (storage.bits == 4 && !storage.isInteger());
  }
  /// Chunks whose codes are loaded ahead, a divisor of the stages: fewer where
  /// sums or unpacking take the registers, or where codes have 8 bits.
  int64_t codesAhead() const {
    int64_t sumTiles = tile.outputTiles * tile.rowTiles, most = tile.stages;
    if (tile.asWarpgroups || tile.rowTiles >= 8 ||
        (isCostlyToUnpack() && sumTiles >= 4))
      most = 2;
    else if (isCostlyToUnpack())
      most = 4;
    int64_t ahead = std::max(most / loadsPerChunk(), chunksPerScale());
    while (tile.stages % ahead != 0 || ahead % chunksPerScale() != 0)
      --ahead;
    return ahead;
  }
  /// Slots of the ring that are not filled ahead: the one in use, and the one
  /// before where products may still be reading it.
  int64_t rowSlack() const { return tile.asWarpgroups ? 2 : 1; }
  /// From one tile of outputs of a warp to the next: a product of a warpgroup
  /// has four tiles, one of each warp.
  int64_t tileStride() const { return tile.asWarpgroups ? 4 : 1; }
  /// Whether the sums of a group have accumulators of their own.
  bool hasGroupSums() const {
    // A thread has 128 registers in blocks of 512.
    bool isTight = loadsPerChunk() == 2 && tile.threads() > 256;
    int64_t most = isCostlyToUnpack() || isTight ? 2 : 8;
    return kernel.weight.group != 0 && !tile.asWarpgroups &&
           tile.outputTiles * tile.rowTiles <= most;
  }
  bool scalesWeights() const {
    return kernel.weight.group != 0 && !hasGroupSums();
  }
  int64_t numSums() const {
    return tile.outputTiles * tile.rowTiles * kAccumulators;
  }
  int64_t sumIndex(int64_t output, int64_t row) const {
    return (output * tile.rowTiles + row) * kAccumulators;
  }
  int64_t pitch() const { return tile.outputs() + kPitchPadding; }
  /// Tiles of rows whose sums fit in shared memory at a time.
  int64_t rowTilesPerPass() const;

  DeviceBuilder &device;
  const FragmentMatmul &kernel;
  const FragmentTile &tile;
  mlir::Value x, codes, scales, bias, y, partials, counters;
  mlir::Value M, N, K, xStride, yStride, chunksPerWarp, shared;

  mlir::Value thread, lane, outputInTile, quadLane, warpAlongN, warpAlongK;
  mlir::Value split, firstRow, firstColumn, firstTileInBlock, groups, chunks,
      begin, end;
  llvm::SmallVector<mlir::Value> codesOfTile, parametersOfTile;
  /// Of each piece that this thread copies of a chunk.
  struct Copy {
    mlir::Value source, bytes, target, isMine;
  };
  llvm::SmallVector<Copy> copies;
  /// Where this lane's row of the first and the second four matrices is.
  mlir::Value matrices[2];
  /// Where the rows are, for warpgroups.
  mlir::Value rowDescriptor;
};

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETONVVM_FRAGMENTMATMUL_H
