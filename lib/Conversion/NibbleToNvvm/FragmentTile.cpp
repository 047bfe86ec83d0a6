//===- FragmentTile.cpp - What a block of threads computes ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/TensorCoreKernels.h"
#include "nibble/Numerics/FragmentPacking.h"

using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

static bool hasKernel(const StorageFormat &storage) {
  switch (storage.kind) {
  case StorageKind::Signed:
  case StorageKind::Unsigned:
    return storage.bits == 4 || storage.bits == 8;
  case StorageKind::Float:
    return true;
  case StorageKind::CodeBook:
    return storage.bits == 4;
  }
  return false;
}

Expected<FragmentWeight> nibble::getFragmentWeight(const Scheme &scheme) {
  if (!hasKernel(scheme.storage))
    return makeError("there are kernels for integers of 4 and 8 bits, 4-bit "
                     "code books and floats only, not for " +
                     printStorage(scheme.storage));
  FragmentWeight weight;
  weight.storage = scheme.storage;
  switch (scheme.granularity) {
  case Granularity::Tensor:
    return makeError("there are kernels for scales of groups (g) and of "
                     "channels (c) only");
  case Granularity::Channel:
    weight.group = 0;
    return weight;
  case Granularity::Group:
    break;
  }
  weight.group = static_cast<int64_t>(scheme.groupSize);
  if (weight.group != 32 && weight.group != 64 && weight.group % 128 != 0)
    return makeError("there are kernels for groups of 32, 64 and multiples of "
                     "128 inputs, not of " +
                     llvm::Twine(weight.group));
  return weight;
}

Error nibble::verifyFragmentTile(const FragmentTile &tile) {
  if (tile.outputTiles < 1 || tile.rowTiles < 1 || tile.warpsAlongN < 1 ||
      tile.warpsAlongK < 1)
    return makeError("every number is at least 1");
  constexpr int64_t maxThreads = 1024;
  if (tile.threads() > maxThreads)
    return makeError(llvm::Twine(tile.threads()) +
                     " threads; a block has at most 1024");
  // Barrier 0 is the block's own.
  constexpr int64_t maxBarriers = 15;
  if (tile.warpsAlongN > 1 && tile.warpsAlongK > maxBarriers)
    return makeError("at most 15 warps along K where several lie along N");
  if (tile.stages < 2 || tile.stages % 2 != 0)
    return makeError("stages are an even number");
  if (!tile.asWarpgroups)
    return Error::success();
  if (tile.warpsAlongN % 4 != 0 || tile.warpsAlongK != 1)
    return makeError("warpgroups are four warps along N, and one along K");
  if (tile.stages < 4 || tile.rows() > 256)
    return makeError("warpgroups take 4 stages or more and at most 256 rows");
  return Error::success();
}

static constexpr int64_t kAnyRows = SizedTile::kAnyRows;

namespace {
/// Which codes a tile is for.
enum class TileCodes : uint8_t { Any, Int4, Other };

struct TileRow {
  TileCodes codes;
  SizedTile sized;
};
} // namespace

static constexpr TileRow tileRows[] = {
#define NIBBLE_TILE(rows, codes, outputTiles, rowTiles, alongN, alongK,        \
                    stages)                                                    \
  {TileCodes::codes,                                                           \
   {rows, {outputTiles, rowTiles, alongN, alongK, stages, false}}},
#define NIBBLE_WARPGROUP_TILE(rows, codes, outputTiles, rowTiles, alongN,      \
                              alongK, stages)                                  \
  {TileCodes::codes,                                                           \
   {rows, {outputTiles, rowTiles, alongN, alongK, stages, true}}},
#include "FragmentTiles.inl"
};

std::vector<SizedTile> nibble::getFragmentTiles(const FragmentWeight &weight,
                                                bool withWarpgroups) {
  bool isInt4 = weight.storage.isInteger() && weight.storage.bits == 4;
  TileCodes codes = isInt4 ? TileCodes::Int4 : TileCodes::Other;
  std::vector<SizedTile> tiles;
  for (const auto &[rowCodes, sized] : tileRows)
    if ((rowCodes == TileCodes::Any || rowCodes == codes) &&
        (withWarpgroups || !sized.tile.asWarpgroups))
      tiles.push_back(sized);
  return tiles;
}
