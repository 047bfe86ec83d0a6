//===- FragmentResult.cpp - What becomes of the sums of a product ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "FragmentMatmul.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// The epilogue
//===----------------------------------------------------------------------===//

StringRef nibble::getActivationName(Activation activation) {
  switch (activation) {
  case Activation::None:
    return "none";
  case Activation::Relu:
    return "relu";
  case Activation::Gelu:
    return "gelu";
  case Activation::Silu:
    return "silu";
  }
  llvm_unreachable("no activation");
}

std::optional<Activation> nibble::parseActivation(StringRef name) {
  for (Activation activation :
       {Activation::None, Activation::Relu, Activation::Gelu, Activation::Silu})
    if (getActivationName(activation) == name)
      return activation;
  return std::nullopt;
}

/// `x` is an f32.
static Value activate(DeviceBuilder &device, Activation activation, Value x) {
  OpBuilder &builder = device.builder;
  Location loc = device.loc;
  auto number = [&](double value) { return device.number(x.getType(), value); };
  switch (activation) {
  case Activation::None:
    return x;
  case Activation::Relu:
    return arith::MaximumFOp::create(builder, loc, x, number(0));
  case Activation::Gelu: {
    // x · (1 + erf(x / √2)) / 2
    constexpr double rootOfHalf = 0.70710678118654752;
    Value erf =
        math::ErfOp::create(builder, loc, device.fmul(x, number(rootOfHalf)));
    Value half = device.fmul(x, number(0.5));
    return device.fma(half, erf, half);
  }
  case Activation::Silu: {
    // x / (1 + e⁻ˣ)
    Value power = math::ExpOp::create(builder, loc,
                                      arith::NegFOp::create(builder, loc, x));
    return arith::DivFOp::create(builder, loc, x,
                                 device.fadd(power, number(1)));
  }
  }
  llvm_unreachable("no activation");
}

/// Stores four outputs of a row.
void FragmentGenerator::storeResult(Value sum, Value row, Value column) {
  const FragmentEpilogue &epilogue = kernel.epilogue;
  Value result = sum;
  auto halves = device.vector(4, device.f16());
  if (epilogue.hasBias)
    result = device.fadd(
        result,
        device.extend(device.loadConstant(
                          halves, device.at(bias, device.f16(), column), 8),
                      sum.getType()));
  if (epilogue.activation != Activation::None) {
    Values activated;
    for (int64_t i = 0; i < 4; ++i)
      activated.push_back(
          activate(device, epilogue.activation, device.lane(result, i)));
    result = device.fromLanes(activated);
  }
  device.store(device.truncate(result, halves),
               device.atRow(y, device.f16(), row, yStride, column), 8);
}

//===----------------------------------------------------------------------===//
// Sums
//===----------------------------------------------------------------------===//

int64_t FragmentGenerator::rowTilesPerPass() const {
  int64_t bytesPerTile = tile.warpsAlongK * kRows * pitch() * 4;
  int64_t count = std::max<int64_t>(tile.sharedBytes() / bytesPerTile, 1);
  count = std::min(count, tile.rowTiles);
  while (tile.rowTiles % count != 0)
    --count;
  return count;
}

/// Shared memory has f32 sums [warps along K, rows, pitch].
void FragmentGenerator::storeSums(ArrayRef<Value> sums, int64_t firstRowTile,
                                  int64_t rowTiles) {
  Value firstOutput =
      device.add(device.mul(firstTileInBlock, kTile), outputInTile);
  Value firstRowOfWarp = device.add(device.mul(warpAlongK, rowTiles * kRows),
                                    device.mul(quadLane, 2));
  Value place =
      device.at(shared, device.f32(),
                device.add(device.mul(firstRowOfWarp, pitch()), firstOutput));
  for (int64_t output = 0; output < tile.outputTiles; ++output)
    for (int64_t row = 0; row < rowTiles; ++row)
      for (int64_t i = 0; i < kAccumulators; ++i) {
        int64_t offset = (row * kRows + i % 2) * pitch() +
                         output * tileStride() * kTile + i / 2 * 8;
        device.store(sums[sumIndex(output, firstRowTile + row) + i],
                     device.at(place, device.f32(), device.integer(offset)), 4);
      }
}

/// Calls `body` for each four neighbouring outputs of a row that are this
/// thread's, in a block of rowTiles · 8 rows.
void FragmentGenerator::forEachResult(
    int64_t rowTiles, llvm::function_ref<void(Value row, Value output)> body) {
  int64_t perRow = tile.outputs() / 4, total = rowTiles * kRows * perRow;
  for (int64_t first = 0; first < total; first += tile.threads()) {
    Value index = device.add(thread, first);
    auto visit = [&] {
      body(device.divide(index, perRow),
           device.mul(device.remainder(index, perRow), 4));
    };
    if (first + tile.threads() > total)
      device.ifThen(device.less(index, device.integer(total)), visit);
    else
      visit();
  }
}

Value FragmentGenerator::partialAt(Value split, Value row, Value column) {
  Value stride = device.mul(device.divideUp(N, kTile), kTile);
  return device.atRow(partials, device.f32(),
                      device.add(device.mul(split, M), row), stride, column);
}

/// Adds up what the warps along K have stored, in order.
void FragmentGenerator::reduce(int64_t firstRowTile, int64_t rowTiles) {
  auto quad = device.vector(4, device.f32());
  Value isWhole = device.equal(device.gridSize(2), device.integer(1));
  Value passRow = device.add(firstRow, firstRowTile * kRows);
  forEachResult(rowTiles, [&](Value rowInPass, Value output) {
    Value place = device.at(shared, device.f32(),
                            device.add(device.mul(rowInPass, pitch()), output));
    Value sum;
    for (int64_t warp = 0; warp < tile.warpsAlongK; ++warp) {
      int64_t offset = warp * rowTiles * kRows * pitch();
      Value part = device.load(
          quad, device.at(place, device.f32(), device.integer(offset)), 16);
      sum = sum ? device.fadd(sum, part) : part;
    }
    Value row = device.add(passRow, rowInPass);
    Value column = device.add(firstColumn, output);
    device.ifThen(
        device.both(device.less(row, M), device.less(column, N)), [&] {
          device.ifThen(
              isWhole, [&] { storeResult(sum, row, column); },
              [&] { device.store(sum, partialAt(split, row, column), 16); });
        });
  });
}

/// The last block of a tile to arrive adds up the parts of all, in order.
void FragmentGenerator::reduceSplits() {
  device.fence();
  device.barrier();
  Value isFirst = device.equal(thread, device.integer(0));
  Value counter =
      device.at(counters, device.i32(),
                device.add(device.mul(device.blockIndex(1), device.gridSize(0)),
                           device.blockIndex(0)));
  device.ifThen(isFirst, [&] {
    Value before = device.atomicAdd(counter, device.integer(1));
    device.store(before, shared, 4);
  });
  device.barrier();
  Value arrived = device.load(device.i32(), shared, 4);
  Value splits = device.gridSize(2);
  device.ifThen(device.equal(device.add(arrived, 1), splits), [&] {
    device.fence();
    forEachResult(tile.rowTiles, [&](Value rowInBlock, Value output) {
      Value row = device.add(firstRow, rowInBlock);
      Value column = device.add(firstColumn, output);
      auto isThere = device.both(device.less(row, M), device.less(column, N));
      device.ifThen(isThere, [&] {
        auto quad = device.vector(4, device.f32());
        Values sum = device.loop(
            device.integer(0), splits, device.integer(1),
            {device.number(quad, 0)}, [&](Value part, ValueRange values) {
              Value loaded =
                  device.loadUncached(quad, partialAt(part, row, column), 16);
              return Values{device.fadd(values[0], loaded)};
            });
        storeResult(sum[0], row, column);
      });
    });
    device.ifThen(isFirst,
                  [&] { device.store(device.integer(0), counter, 4); });
  });
}
