//===- BlockQuantizer.cpp - A matrix to codes, scales and zero points -----===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/BlockQuantizer.h"
#include "BlockHessianEvaluator.h"
#include "FloatBits.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

using namespace nibble;

/// A block of more elements is cut into chunks of so many; smaller ones go
/// through the loops as a whole, `lanes` of them side by side.
static constexpr size_t chunkElements = 1 << 16;
/// Elements that a thread takes at a time.
static constexpr size_t grainElements = 1 << 15;

//===----------------------------------------------------------------------===//
// From the matrix to tiles and back
//===----------------------------------------------------------------------===//

namespace {

/// A matrix, its options and where the results go, all by strides, so that a
/// matrix can be worked on as its transpose.
struct Job {
  MatrixView matrix;
  /// rowWeights, or null.
  const float *weights;
  ptrdiff_t weightRowStride, weightColStride;
  bool weighByMagnitude;
  BlockShape block;
  uint8_t *codes;
  ptrdiff_t codeRowStride, codeColStride;
  float *scales;
  uint8_t *zeroPoints; ///< null: none
  ptrdiff_t scaleRowStride, scaleColStride;
  unsigned threads;
  /// The scales and zero points are given.
  bool isGridGiven;
  ScaleSearch search;

  size_t blockRows() const {
    return (matrix.rows + block.rows - 1) / block.rows;
  }
  size_t blockCols() const {
    return (matrix.cols + block.cols - 1) / block.cols;
  }
  float weightAt(size_t row, size_t col) const {
    return weights ? weights[static_cast<ptrdiff_t>(row) * weightRowStride +
                             static_cast<ptrdiff_t>(col) * weightColStride]
                   : 1.0f;
  }
  ptrdiff_t scaleIndex(size_t blockRow, size_t blockCol) const {
    return static_cast<ptrdiff_t>(blockRow) * scaleRowStride +
           static_cast<ptrdiff_t>(blockCol) * scaleColStride;
  }
  ptrdiff_t codeIndex(size_t row, size_t col) const {
    return static_cast<ptrdiff_t>(row) * codeRowStride +
           static_cast<ptrdiff_t>(col) * codeColStride;
  }
};

/// A thread's buffers.
struct Buffers {
  std::vector<float> tile, weights;
  std::vector<uint8_t> codes;
};

struct Losses {
  double error = 0;
  double norm = 0;
};

/// Where the elements of a tile are in the matrix: calls
/// `visit(step, lane, row, col)` for each that is not padding.
///
/// The tile of up to `lanes` neighbouring blocks; a lane holds one, row by row.
struct BlockTile {
  BlockTile(const Job &job, size_t blockRow, size_t firstBlock)
      : firstRow(blockRow * job.block.rows),
        firstCol(firstBlock * job.block.cols),
        rows(std::min(job.block.rows, job.matrix.rows - firstRow)),
        blockCols(job.block.cols),
        cols(std::min(job.block.cols * lanes, job.matrix.cols - firstCol)),
        usedLanes((cols + blockCols - 1) / blockCols) {}

  size_t steps() const { return rows * blockCols; }
  bool isPadded() const { return cols != blockCols * lanes; }
  template <typename Visit> void forEach(Visit visit) const {
    for (size_t row = 0; row < rows; ++row)
      for (size_t lane = 0; lane < usedLanes; ++lane) {
        size_t begin = lane * blockCols;
        size_t end = std::min(begin + blockCols, cols);
        for (size_t col = begin; col < end; ++col)
          visit(row * blockCols + col - begin, lane, firstRow + row,
                firstCol + col);
      }
  }

  size_t firstRow, firstCol, rows, blockCols, cols, usedLanes;
};

/// A chunk of one large block: its elements from `begin` to `end`, counted row
/// by row, dealt to the lanes in turn.
struct StripTile {
  StripTile(const Job &job, size_t blockRow, size_t blockCol, size_t chunk)
      : firstRow(blockRow * job.block.rows),
        firstCol(blockCol * job.block.cols),
        cols(std::min(job.block.cols, job.matrix.cols - firstCol)),
        begin(chunk * chunkElements),
        end(std::min(begin + chunkElements,
                     elements(job, blockRow, blockCol))) {}

  static size_t elements(const Job &job, size_t blockRow, size_t blockCol) {
    return std::min(job.block.rows,
                    job.matrix.rows - blockRow * job.block.rows) *
           std::min(job.block.cols,
                    job.matrix.cols - blockCol * job.block.cols);
  }
  size_t steps() const { return (end - begin + lanes - 1) / lanes; }
  bool isPadded() const { return (end - begin) % lanes != 0; }
  template <typename Visit> void forEach(Visit visit) const {
    size_t row = begin / cols, col = begin % cols;
    for (size_t i = 0; i < end - begin; col = 0, ++row)
      for (; col < cols && i < end - begin; ++col, ++i)
        visit(i / lanes, i % lanes, firstRow + row, firstCol + col);
  }

  size_t firstRow, firstCol, cols, begin, end;
};

} // namespace

template <typename Tile>
static void gather(const Job &job, const Tile &tile, Buffers &buffers) {
  buffers.tile.assign(tile.steps() * lanes, 0.0f);
  tile.forEach([&](size_t step, size_t lane, size_t row, size_t col) {
    buffers.tile[step * lanes + lane] = job.matrix.at(row, col);
  });
}

/// Copies rows x usedLanes elements one by one, along the axis that is
/// contiguous in memory where there is one.
template <typename T>
static void copyStrided(const T *from, ptrdiff_t fromRow, ptrdiff_t fromLane,
                        T *to, ptrdiff_t toRow, ptrdiff_t toLane, size_t rows,
                        size_t usedLanes) {
  if (fromLane == 1 && toLane == 1) {
    for (size_t row = 0; row < rows; ++row, from += fromRow, to += toRow)
      std::copy_n(from, usedLanes, to);
    return;
  }
  for (size_t lane = 0; lane < usedLanes; ++lane) {
    const T *source = from + static_cast<ptrdiff_t>(lane) * fromLane;
    T *target = to + static_cast<ptrdiff_t>(lane) * toLane;
    for (size_t row = 0; row < rows; ++row, source += fromRow, target += toRow)
      *target = *source;
  }
}

static void gather(const Job &job, const BlockTile &tile, Buffers &buffers) {
  if (tile.blockCols != 1)
    return gather<BlockTile>(job, tile, buffers);
  if (tile.isPadded())
    buffers.tile.assign(tile.steps() * lanes, 0.0f);
  else
    buffers.tile.resize(tile.steps() * lanes);
  const MatrixView &matrix = job.matrix;
  copyStrided(matrix.data +
                  static_cast<ptrdiff_t>(tile.firstRow) * matrix.rowStride +
                  static_cast<ptrdiff_t>(tile.firstCol) * matrix.colStride,
              matrix.rowStride, matrix.colStride, buffers.tile.data(), lanes, 1,
              tile.rows, tile.usedLanes);
}

/// The weight of each element, 0 for padding. The tile has been gathered.
template <typename Tile>
static void gatherWeights(const Job &job, const Tile &tile, Buffers &buffers) {
  buffers.weights.assign(tile.steps() * lanes, 0.0f);
  tile.forEach([&](size_t step, size_t lane, size_t row, size_t col) {
    float weight = job.weightAt(row, col);
    if (job.weighByMagnitude)
      weight *= std::fabs(buffers.tile[step * lanes + lane]);
    buffers.weights[step * lanes + lane] = weight;
  });
}

/// Ones, and zeros for padding; null where nothing is padded.
template <typename Tile>
static const float *gatherValid(const Tile &tile, Buffers &buffers) {
  if (!tile.isPadded())
    return nullptr;
  buffers.weights.assign(tile.steps() * lanes, 0.0f);
  tile.forEach([&](size_t step, size_t lane, size_t, size_t) {
    buffers.weights[step * lanes + lane] = 1.0f;
  });
  return buffers.weights.data();
}

template <typename Tile>
static void scatterCodes(const Job &job, const Tile &tile,
                         const Buffers &buffers) {
  tile.forEach([&](size_t step, size_t lane, size_t row, size_t col) {
    job.codes[job.codeIndex(row, col)] = buffers.codes[step * lanes + lane];
  });
}

static void scatterCodes(const Job &job, const BlockTile &tile,
                         const Buffers &buffers) {
  if (tile.blockCols != 1)
    return scatterCodes<BlockTile>(job, tile, buffers);
  copyStrided(buffers.codes.data(), lanes, 1,
              job.codes + job.codeIndex(tile.firstRow, tile.firstCol),
              job.codeRowStride, job.codeColStride, tile.rows, tile.usedLanes);
}

/// Rounds the gathered tile to the grid and stores its codes.
template <typename Tile>
static Losses encodeAndScatter(const Job &job, const Coding &coding,
                               const Grid &grid, const Tile &tile,
                               Buffers &buffers) {
  RawScales errors, norms;
  const float *valid = gatherValid(tile, buffers);
  buffers.codes.resize(tile.steps() * lanes);
  encodeTile(coding, grid, buffers.tile.data(), valid, tile.steps(),
             buffers.codes.data(), errors.data(), norms.data());
  scatterCodes(job, tile, buffers);
  Losses losses;
  for (size_t lane = 0; lane < lanes; ++lane) {
    losses.error += errors[lane];
    losses.norm += norms[lane];
  }
  return losses;
}

static void storeGrid(const Job &job, const Grid &grid, size_t lane,
                      size_t blockRow, size_t blockCol) {
  ptrdiff_t index = job.scaleIndex(blockRow, blockCol);
  job.scales[index] = grid.scale[lane];
  if (job.zeroPoints)
    job.zeroPoints[index] =
        static_cast<uint8_t>(static_cast<int>(grid.zero[lane]));
}

static void loadGrid(const Job &job, const StorageFormat &storage,
                     const Coding &coding, Grid &grid, size_t lane,
                     size_t blockRow, size_t blockCol) {
  ptrdiff_t index = job.scaleIndex(blockRow, blockCol);
  grid.scale[lane] = job.scales[index];
  grid.zero[lane] =
      job.zeroPoints ? codeValue(storage, job.zeroPoints[index]) : 0.0f;
  grid.low[lane] = static_cast<float>(coding.qmin) - grid.zero[lane];
  grid.high[lane] = static_cast<float>(coding.qmax) - grid.zero[lane];
}

/// A grid for lanes that hold nothing.
static Grid idleGrid() {
  Grid grid = {};
  std::fill_n(grid.scale, lanes, 1.0f);
  return grid;
}

static bool isFinite(const Range &range) {
  return std::all_of(range.magnitude, range.magnitude + lanes,
                     [](uint32_t bits) { return bits < infinityBits; });
}

//===----------------------------------------------------------------------===//
// Blocks that fit in a tile
//===----------------------------------------------------------------------===//

namespace {

class TileEvaluator final : public Evaluator {
public:
  TileEvaluator(const Coding &coding, const Buffers &buffers)
      : coding(coding), buffers(buffers), steps(buffers.tile.size() / lanes) {}

  void errors(const std::vector<Grid> &grids,
              std::vector<double> &errors) override {
    errors.resize(grids.size() * lanes);
    for (size_t i = 0; i < grids.size(); ++i)
      sumErrors(coding, grids[i], buffers.tile.data(), buffers.weights.data(),
                steps, &errors[i * lanes]);
  }
  void moments(const Grid &grid, double *numerators,
               double *denominators) override {
    sumMoments(coding, grid, buffers.tile.data(), buffers.weights.data(), steps,
               numerators, denominators);
  }

private:
  const Coding &coding;
  const Buffers &buffers;
  size_t steps;
};

} // namespace

static std::unique_ptr<Evaluator>
makeEvaluator(const Job &job, const BlockQuantizerOptions &options,
              const Coding &coding, const BlockTile &tile, Buffers &buffers) {
  if (options.hessian)
    return std::make_unique<BlockHessianEvaluator>(
        coding, buffers.tile,
        options.hessian + tile.firstRow * (job.matrix.rows + 1),
        job.matrix.rows);
  gatherWeights(job, tile, buffers);
  return std::make_unique<TileEvaluator>(coding, buffers);
}

/// False if there is a NaN or an infinity.
static bool quantizeTile(const Job &job, const BlockQuantizerOptions &options,
                         const Coding &coding, const ScaleRules &rules,
                         size_t blockRow, size_t firstBlock, Buffers &buffers,
                         Losses &losses) {
  BlockTile tile(job, blockRow, firstBlock);
  gather(job, tile, buffers);
  Range range = {};
  extendRange(buffers.tile.data(), tile.steps(), range);
  if (!isFinite(range))
    return false;

  Grid grid = idleGrid();
  if (job.isGridGiven) {
    for (size_t lane = 0; lane < tile.usedLanes; ++lane)
      loadGrid(job, options.storage, coding, grid, lane, blockRow,
               firstBlock + lane);
  } else if (job.search == ScaleSearch::MinMax) {
    grid = minMaxGrid(rules, range);
  } else {
    std::unique_ptr<Evaluator> evaluator =
        makeEvaluator(job, options, coding, tile, buffers);
    grid = leastSquaresGrid(rules, range, *evaluator);
  }
  if (!job.isGridGiven)
    for (size_t lane = 0; lane < tile.usedLanes; ++lane)
      storeGrid(job, grid, lane, blockRow, firstBlock + lane);
  losses = encodeAndScatter(job, coding, grid, tile, buffers);
  return true;
}

static bool quantizeSmallBlocks(const Job &job,
                                const BlockQuantizerOptions &options,
                                const Coding &coding, const ScaleRules &rules,
                                Losses &losses) {
  size_t tilesPerRow = (job.blockCols() + lanes - 1) / lanes;
  size_t tiles = job.blockRows() * tilesPerRow;
  size_t tileElements = job.block.rows * job.block.cols * lanes;
  std::vector<Losses> tileLosses(tiles);
  std::atomic<bool> isAllFinite{true};
  parallelFor(tiles, grainElements / tileElements, job.threads,
              [&](size_t begin, size_t end) {
                Buffers buffers;
                for (size_t i = begin; i < end && isAllFinite; ++i)
                  if (!quantizeTile(job, options, coding, rules,
                                    i / tilesPerRow, i % tilesPerRow * lanes,
                                    buffers, tileLosses[i]))
                    isAllFinite = false;
              });
  for (const Losses &tile : tileLosses) {
    losses.error += tile.error;
    losses.norm += tile.norm;
  }
  return isAllFinite;
}

//===----------------------------------------------------------------------===//
// Blocks that do not
//===----------------------------------------------------------------------===//

namespace {

/// All lanes belong to one block; its sums are those of the lanes, in order.
class StripEvaluator final : public Evaluator {
public:
  StripEvaluator(const Job &job, const Coding &coding, size_t blockRow,
                 size_t blockCol)
      : job(job), coding(coding), blockRow(blockRow), blockCol(blockCol),
        chunks(
            (StripTile::elements(job, blockRow, blockCol) + chunkElements - 1) /
            chunkElements) {}

  /// Calls `body(chunk, tile, buffers)` with the chunk gathered.
  template <typename Body> void forEachChunk(bool withWeights, Body body) {
    parallelFor(chunks, 1, job.threads, [&](size_t begin, size_t end) {
      Buffers buffers;
      for (size_t chunk = begin; chunk < end; ++chunk) {
        StripTile tile(job, blockRow, blockCol, chunk);
        gather(job, tile, buffers);
        if (withWeights)
          gatherWeights(job, tile, buffers);
        body(chunk, tile, buffers);
      }
    });
  }

  Range range() {
    std::vector<Range> ranges(chunks, Range{});
    forEachChunk(
        false, [&](size_t chunk, const StripTile &tile, Buffers &buffers) {
          extendRange(buffers.tile.data(), tile.steps(), ranges[chunk]);
        });
    float low = 0, high = 0;
    uint32_t magnitude = 0;
    for (const Range &range : ranges) {
      low = std::min(low, *std::min_element(range.low, range.low + lanes));
      high = std::max(high, *std::max_element(range.high, range.high + lanes));
      magnitude =
          std::max(magnitude,
                   *std::max_element(range.magnitude, range.magnitude + lanes));
    }
    Range all;
    std::fill_n(all.low, lanes, low);
    std::fill_n(all.high, lanes, high);
    std::fill_n(all.magnitude, lanes, magnitude);
    return all;
  }

  void errors(const std::vector<Grid> &grids,
              std::vector<double> &errors) override {
    std::vector<double> partial(chunks * grids.size() * lanes);
    forEachChunk(true, [&](size_t chunk, const StripTile &tile,
                           Buffers &buffers) {
      for (size_t i = 0; i < grids.size(); ++i)
        sumErrors(coding, grids[i], buffers.tile.data(), buffers.weights.data(),
                  tile.steps(), &partial[(chunk * grids.size() + i) * lanes]);
    });
    errors.resize(grids.size() * lanes);
    for (size_t i = 0; i < grids.size(); ++i)
      sumLanes(&partial[i * lanes], grids.size() * lanes, &errors[i * lanes]);
  }

  void moments(const Grid &grid, double *numerators,
               double *denominators) override {
    std::vector<double> partial(chunks * 2 * lanes);
    forEachChunk(
        true, [&](size_t chunk, const StripTile &tile, Buffers &buffers) {
          double *sums = &partial[chunk * 2 * lanes];
          sumMoments(coding, grid, buffers.tile.data(), buffers.weights.data(),
                     tile.steps(), sums, sums + lanes);
        });
    sumLanes(partial.data(), 2 * lanes, numerators);
    sumLanes(partial.data() + lanes, 2 * lanes, denominators);
  }

private:
  /// The sum over chunks, then lanes, for every lane.
  void sumLanes(const double *partial, size_t chunkStride, double *sums) const {
    double sum = 0;
    for (size_t chunk = 0; chunk < chunks; ++chunk)
      for (size_t lane = 0; lane < lanes; ++lane)
        sum += partial[chunk * chunkStride + lane];
    std::fill_n(sums, lanes, sum);
  }

  const Job &job;
  const Coding &coding;
  size_t blockRow, blockCol;

public:
  const size_t chunks;
};

} // namespace

static bool quantizeLargeBlock(const Job &job,
                               const BlockQuantizerOptions &options,
                               const Coding &coding, const ScaleRules &rules,
                               size_t blockRow, size_t blockCol,
                               Losses &losses) {
  StripEvaluator strips(job, coding, blockRow, blockCol);
  Range range = strips.range();
  if (!isFinite(range))
    return false;
  Grid grid;
  if (job.isGridGiven) {
    for (size_t lane = 0; lane < lanes; ++lane)
      loadGrid(job, options.storage, coding, grid, lane, blockRow, blockCol);
  } else {
    grid = job.search == ScaleSearch::MinMax
               ? minMaxGrid(rules, range)
               : leastSquaresGrid(rules, range, strips);
    storeGrid(job, grid, 0, blockRow, blockCol);
  }
  std::vector<Losses> chunkLosses(strips.chunks);
  strips.forEachChunk(
      false, [&](size_t chunk, const StripTile &tile, Buffers &buffers) {
        chunkLosses[chunk] = encodeAndScatter(job, coding, grid, tile, buffers);
      });
  for (const Losses &chunk : chunkLosses) {
    losses.error += chunk.error;
    losses.norm += chunk.norm;
  }
  return true;
}

static bool quantizeLargeBlocks(const Job &job,
                                const BlockQuantizerOptions &options,
                                const Coding &coding, const ScaleRules &rules,
                                Losses &losses) {
  for (size_t blockRow = 0; blockRow < job.blockRows(); ++blockRow)
    for (size_t blockCol = 0; blockCol < job.blockCols(); ++blockCol)
      if (!quantizeLargeBlock(job, options, coding, rules, blockRow, blockCol,
                              losses))
        return false;
  return true;
}

//===----------------------------------------------------------------------===//
// Entry points
//===----------------------------------------------------------------------===//

static std::string describe(float x) {
  if (std::isnan(x))
    return "NaN";
  return x < 0 ? "-infinity" : "infinity";
}

/// Why the matrix cannot be quantized: its first NaN or infinity.
static Failure findNonFinite(const MatrixView &matrix) {
  for (size_t row = 0; row < matrix.rows; ++row)
    for (size_t col = 0; col < matrix.cols; ++col)
      if (float x = matrix.at(row, col); !std::isfinite(x))
        return {"element [" + std::to_string(row) + ", " + std::to_string(col) +
                "] is " + describe(x) +
                "; only finite numbers can be quantized"};
  return {"the matrix changed while it was quantized"};
}

static std::optional<Failure> checkStorage(const StorageFormat &storage) {
  if (storage.isInteger() && (storage.bits < 2 || storage.bits > 8))
    return Failure{"integers of " + std::to_string(storage.bits) +
                   " bits cannot be stored; expected 2 to 8"};
  if (storage.kind == StorageKind::Float &&
      getInfo(storage.floatFormat).bits > 8)
    return Failure{"a stored float has at most 8 bits"};
  if (storage.kind == StorageKind::CodeBook &&
      (storage.codeBook.empty() || storage.codeBook.size() > 256 ||
       !(largestMagnitude(storage) > 0)))
    return Failure{
        "a code book has 1 to 256 entries, of which one at least is not zero"};
  for (float value : storage.codeBook)
    if (!std::isfinite(value))
      return Failure{"a code book's entries are finite numbers"};
  return std::nullopt;
}

/// 0 becomes the extent, and nothing is larger than it, or smaller than 1.
static size_t resolveExtent(size_t block, size_t extent) {
  return std::max<size_t>(1, block == 0 ? extent : std::min(block, extent));
}

static std::optional<Failure>
checkOptions(const MatrixView &matrix, const BlockQuantizerOptions &options) {
  if (auto failure = checkStorage(options.storage))
    return failure;
  if (options.storage.kind == StorageKind::Unsigned && options.symmetric)
    return Failure{"symmetric quantization needs signed storage, not " +
                   printStorage(options.storage) +
                   ", which cannot hold both signs without a zero point"};
  switch (options.scaleFormat) {
  case FloatFormat::F32:
  case FloatFormat::F16:
  case FloatFormat::BF16:
  case FloatFormat::F8E8M0FNU:
    break;
  default:
    return Failure{"a scale is f32, f16, bf16 or f8E8M0FNU, not " +
                   std::string(getInfo(options.scaleFormat).name)};
  }
  size_t rows = resolveExtent(options.block.rows, matrix.rows);
  if (options.hessian && (resolveExtent(options.block.cols, matrix.cols) != 1 ||
                          rows > BlockQuantizerOptions::largestHessianBlock))
    return Failure{"a search under the Hessian needs blocks of one column and "
                   "at most " +
                   std::to_string(BlockQuantizerOptions::largestHessianBlock) +
                   " rows"};
  for (size_t row = 0; options.rowWeights && row < matrix.rows; ++row)
    if (!(options.rowWeights[row] >= 0 &&
          std::isfinite(options.rowWeights[row])))
      return Failure{"the weight of row " + std::to_string(row) +
                     " is not a finite number >= 0"};
  return std::nullopt;
}

/// The same job on the transposed matrix.
static Job transpose(Job job) {
  std::swap(job.matrix.rows, job.matrix.cols);
  std::swap(job.matrix.rowStride, job.matrix.colStride);
  std::swap(job.weightRowStride, job.weightColStride);
  std::swap(job.block.rows, job.block.cols);
  std::swap(job.codeRowStride, job.codeColStride);
  std::swap(job.scaleRowStride, job.scaleColStride);
  return job;
}

/// Fills in codes and errors, and unless `isGridGiven` scales and zero points,
/// of a `result` whose vectors have their sizes.
static std::optional<Failure> run(const MatrixView &matrix,
                                  const BlockQuantizerOptions &options,
                                  bool isGridGiven, QuantizedMatrix &result) {
  Job job;
  job.matrix = matrix;
  job.weights = options.rowWeights;
  job.weightRowStride = 1;
  job.weightColStride = 0;
  job.weighByMagnitude = options.weighByMagnitude;
  job.block = result.block;
  job.codes = result.codes.data();
  job.codeRowStride = static_cast<ptrdiff_t>(matrix.cols);
  job.codeColStride = 1;
  job.scales = result.scales.data();
  job.zeroPoints =
      result.zeroPoints.empty() ? nullptr : result.zeroPoints.data();
  job.scaleRowStride = static_cast<ptrdiff_t>(result.blockCols());
  job.scaleColStride = 1;
  job.threads = options.threads;
  job.isGridGiven = isGridGiven;
  job.search = options.search;
  // Lanes are blocks that are neighbours along columns.
  if (job.block.rows == 1 && job.block.cols > 1)
    job = transpose(job);

  Coding coding(options.storage);
  ScaleRules rules(options, coding);
  Losses losses;
  // No overflow: the block is no larger than the matrix in memory.
  bool isSmall = job.block.rows * job.block.cols <= chunkElements;
  bool isAllFinite =
      isSmall ? quantizeSmallBlocks(job, options, coding, rules, losses)
              : quantizeLargeBlocks(job, options, coding, rules, losses);
  if (!isAllFinite)
    return findNonFinite(matrix);
  result.squaredError = losses.error;
  result.squaredNorm = losses.norm;
  return std::nullopt;
}

Result<QuantizedMatrix>
nibble::quantizeBlocks(const MatrixView &matrix,
                       const BlockQuantizerOptions &options) {
  if (auto failure = checkOptions(matrix, options))
    return *failure;
  QuantizedMatrix result;
  result.storage = options.storage;
  result.rows = matrix.rows;
  result.cols = matrix.cols;
  result.block = {resolveExtent(options.block.rows, matrix.rows),
                  resolveExtent(options.block.cols, matrix.cols)};
  result.scaleFormat = options.scaleFormat;
  result.codes.resize(matrix.rows * matrix.cols);
  result.scales.resize(result.blockRows() * result.blockCols());
  if (options.storage.isInteger() && !options.symmetric)
    result.zeroPoints.resize(result.scales.size());
  if (auto failure = run(matrix, options, false, result))
    return *failure;
  return result;
}

Result<QuantizedMatrix> nibble::roundToScales(const MatrixView &matrix,
                                              QuantizedMatrix grid,
                                              unsigned threads) {
  BlockQuantizerOptions options;
  options.storage = grid.storage;
  options.block = grid.block;
  options.scaleFormat = grid.scaleFormat;
  options.symmetric = grid.zeroPoints.empty();
  options.threads = threads;
  if (auto failure = checkStorage(grid.storage))
    return *failure;
  if (grid.block.rows == 0 || grid.block.cols == 0)
    return Failure{"a block of no rows or no columns"};
  grid.rows = matrix.rows;
  grid.cols = matrix.cols;
  grid.block = {resolveExtent(grid.block.rows, matrix.rows),
                resolveExtent(grid.block.cols, matrix.cols)};
  size_t blocks = grid.blockRows() * grid.blockCols();
  if (grid.scales.size() != blocks ||
      (!grid.zeroPoints.empty() && grid.zeroPoints.size() != blocks))
    return Failure{"the matrix has " + std::to_string(blocks) +
                   " blocks, but there are " +
                   std::to_string(grid.scales.size()) + " scales and " +
                   std::to_string(grid.zeroPoints.size()) + " zero points"};
  if (!grid.zeroPoints.empty() && !grid.storage.isInteger())
    return Failure{printStorage(grid.storage) + " has no zero point"};
  for (size_t i = 0; i < blocks; ++i)
    if (grid.scales[i] == 0 || !std::isfinite(grid.scales[i]))
      return Failure{"scale " + std::to_string(i) +
                     " is not a finite number other than zero"};
  grid.codes.resize(matrix.rows * matrix.cols);
  if (auto failure = run(matrix, options, true, grid))
    return *failure;
  return grid;
}

void nibble::dequantize(const QuantizedMatrix &matrix, float *values,
                        ptrdiff_t rowStride, ptrdiff_t colStride,
                        unsigned threads) {
  std::array<float, 256> table;
  for (unsigned code = 0; code < table.size(); ++code)
    table[code] = codeValue(matrix.storage, static_cast<uint8_t>(code));
  size_t blockCols = matrix.blockCols();
  size_t grain =
      std::max<size_t>(1, grainElements / std::max<size_t>(1, matrix.cols));
  parallelFor(matrix.rows, grain, threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const uint8_t *codes = matrix.codes.data() + row * matrix.cols;
      size_t firstBlock = row / matrix.block.rows * blockCols;
      float *out = values + static_cast<ptrdiff_t>(row) * rowStride;
      for (size_t blockCol = 0; blockCol < blockCols; ++blockCol) {
        size_t block = firstBlock + blockCol;
        float scale = matrix.scales[block];
        float zero =
            matrix.zeroPoints.empty() ? 0 : table[matrix.zeroPoints[block]];
        size_t first = blockCol * matrix.block.cols;
        size_t last = std::min(first + matrix.block.cols, matrix.cols);
        for (size_t col = first; col < last; ++col)
          out[static_cast<ptrdiff_t>(col) * colStride] =
              (table[codes[col]] - zero) * scale;
      }
    }
  });
}

std::vector<float> nibble::dequantize(const QuantizedMatrix &matrix,
                                      unsigned threads) {
  std::vector<float> values(matrix.rows * matrix.cols);
  dequantize(matrix, values.data(), static_cast<ptrdiff_t>(matrix.cols), 1,
             threads);
  return values;
}

Result<QuantizedScales> nibble::quantizeScales(const float *scales,
                                               size_t count, size_t blockSize,
                                               StorageFormat storage) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i)
    sum += static_cast<double>(scales[i]);
  QuantizedScales result;
  result.offset =
      count == 0 ? 0 : static_cast<float>(sum / static_cast<double>(count));
  std::vector<float> deviations(count);
  for (size_t i = 0; i < count; ++i)
    deviations[i] = scales[i] - result.offset;

  BlockQuantizerOptions options;
  options.symmetric = storage.kind != StorageKind::Unsigned;
  options.storage = std::move(storage);
  options.block = {1, blockSize};
  auto quantized = quantizeBlocks(
      MatrixView::rowMajor(deviations.data(), 1, count), options);
  if (!quantized)
    return Failure{"scales: " + quantized.error()};
  result.deviations = std::move(*quantized);
  return result;
}

std::vector<float> nibble::dequantizeScales(const QuantizedScales &scales) {
  std::vector<float> values = dequantize(scales.deviations);
  for (float &value : values)
    value += scales.offset;
  return values;
}
