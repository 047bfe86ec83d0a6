//===- FragmentMatmul.cpp - Packed weights on tensor cores ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Weights go from memory straight to the registers of the lane that feeds them
// to a tensor core. Rows of X go through shared memory, a ring of chunks that
// the warps with the same part of K share. Both are loaded `stages` chunks
// ahead. At the end the warps' sums meet in shared memory, in order.
//
// Few accumulators: codes are multiplied as the integers that they are, exact
// in f16, and each group's sum in f32 by its scale. Many: there is no room for
// two sets, so weights are scaled, and rounded to f16, before the product.
//
// The packing and the lop3 trick are those of Marlin (Frantar et al., 2024,
// "MARLIN: Mixed-Precision Auto-Regressive Parallel Inference on Large Language
// Models"), there for the weight as B.
//
//===----------------------------------------------------------------------===//

#include "FragmentMatmul.h"

#include "FragmentCodes.h"

using namespace mlir;
using namespace nibble;

/// The ring of chunks, or the sums of one tile of rows if they take more.
int64_t FragmentTile::sharedBytes() const {
  int64_t ring = stages * rows() * kRowBytes;
  int64_t sums = kRows * (outputs() + kPitchPadding) * 4;
  return warpsAlongK * std::max(ring, sums);
}

int64_t FragmentMatmul::chunksPerWarp(int64_t K, int64_t splits) const {
  // Groups of 128 inputs stay together.
  int64_t unit = weight.group == 0 || weight.group > kChunk ? 2 : 1;
  return unit * llvm::divideCeil(K, unit * kChunk * splits * tile.warpsAlongK);
}

std::string FragmentWeight::getName() const {
  std::string name = storage.isInteger() ? "w" + std::to_string(storage.bits)
                                         : printStorage(storage);
  name += group == 0 ? "c" : "g" + std::to_string(group);
  return hasZeros() ? name + "z" : name;
}

std::string FragmentMatmul::getName() const {
  std::string name = weight.getName();
  if (epilogue.hasBias)
    name += "_bias";
  if (epilogue.activation != Activation::None)
    name += "_" + getActivationName(epilogue.activation).str();
  auto add = [&](const char *word, int64_t value) {
    name += word + std::to_string(value);
  };
  add("_n", kTile * tile.outputTiles);
  add("x", tile.warpsAlongN);
  add("_m", tile.rows());
  add("_k", tile.warpsAlongK);
  add("_s", tile.stages);
  if (tile.asWarpgroups)
    name += "_wg";
  return name;
}

//===----------------------------------------------------------------------===//
// Places
//===----------------------------------------------------------------------===//

void FragmentGenerator::findPlace() {
  thread = device.threadIndex();
  lane = device.remainder(thread, 32);
  outputInTile = device.divide(lane, 4);
  quadLane = device.remainder(lane, 4);
  Value warp = device.divide(thread, 32);
  warpAlongN = device.remainder(warp, tile.warpsAlongN);
  warpAlongK = device.divide(warp, tile.warpsAlongN);
  firstColumn = device.mul(device.blockIndex(0), tile.outputs());
  firstTileInBlock = tile.asWarpgroups
                         ? device.add(device.mul(device.divide(warpAlongN, 4),
                                                 4 * tile.outputTiles),
                                      device.remainder(warpAlongN, 4))
                         : device.mul(warpAlongN, tile.outputTiles);
  firstRow = device.mul(device.blockIndex(1), tile.rows());
  split = device.blockIndex(2);
}

/// The chunks that this warp multiplies, and where its outputs' weights are.
void FragmentGenerator::findShare() {
  int64_t unit = kernel.weight.group == 0 ? 2 : chunksPerScale();
  chunks = device.mul(device.divideUp(K, unit * kChunk), unit);
  Value share = device.add(device.mul(split, tile.warpsAlongK), warpAlongK);
  begin = device.min(device.mul(share, chunksPerWarp), chunks);
  end = device.min(device.add(begin, chunksPerWarp), chunks);

  groups =
      kernel.weight.group == 0
          ? device.integer(1)
          : device.divideUp(device.mul(chunks, kChunk), kernel.weight.group);
  Value lastTile = device.add(device.divideUp(N, kTile), -1);
  Value first = device.add(device.divide(firstColumn, kTile), firstTileInBlock);
  for (int64_t output = 0; output < tile.outputTiles; ++output) {
    Value index =
        device.min(device.add(first, output * tileStride()), lastTile);
    Value firstLoad =
        device.mul(device.mul(index, chunks), 32 * loadsPerChunk());
    codesOfTile.push_back(device.at(codes, device.vector(4, device.i32()),
                                    device.add(firstLoad, lane)));
    int64_t numbers = kernel.weight.hasZeros() ? 4 : 2;
    Value firstPair = device.mul(device.mul(index, groups), 8);
    parametersOfTile.push_back(device.at(scales,
                                         device.vector(numbers, device.f16()),
                                         device.add(firstPair, outputInTile)));
  }
}

/// Piece p of row r lies at p xor r, so that the eight rows of a matrix are in
/// different banks.
void FragmentGenerator::prepareCopies() {
  int64_t threads = 32 * tile.warpsAlongN;
  int64_t pieces = tile.rows() * kPieces;
  Value groupThread = device.add(device.mul(warpAlongN, 32), lane);
  Value inputs = device.min(K, device.mul(end, kChunk));
  Value ring = device.mul(warpAlongK, tile.stages * pieces * 16);
  for (int64_t first = 0; first < pieces; first += threads) {
    Copy copy;
    Value index = device.add(groupThread, first);
    if (first + threads > pieces)
      copy.isMine = device.less(index, device.integer(pieces));
    Value row = device.divide(index, kPieces);
    Value piece = device.remainder(index, kPieces);
    Value swizzled = device.bitXor(piece, device.remainder(row, kPieces));
    Value place =
        device.add(device.mul(row, kRowBytes), device.mul(swizzled, 16));
    copy.target = device.at(shared, device.i8(), device.add(ring, place));
    Value rowOfX = device.add(firstRow, row);
    Value firstInput = device.mul(piece, 8);
    copy.source = device.atRow(x, device.f16(), rowOfX, xStride, firstInput);
    copy.bytes = device.select(device.less(rowOfX, M),
                               device.mul(device.sub(inputs, firstInput), 2),
                               device.integer(0));
    copies.push_back(copy);
  }
}

void FragmentGenerator::prepareFragments() {
  if (tile.asWarpgroups) {
    rowDescriptor = device.describeRows(shared);
    return;
  }
  Value row = device.remainder(lane, 8), matrix = device.divide(lane, 8);
  Value ring = device.mul(warpAlongK, tile.stages * tile.rows() * kRowBytes);
  Value firstByte = device.add(ring, device.mul(row, kRowBytes));
  Value piece = device.bitXor(matrix, row);
  for (int64_t half = 0; half < 2; ++half) {
    Value place = device.bitXor(piece, device.integer(4 * half));
    matrices[half] = device.at(shared, device.i8(),
                               device.add(firstByte, device.mul(place, 16)));
  }
}

//===----------------------------------------------------------------------===//
// Loads
//===----------------------------------------------------------------------===//

/// Rows and inputs that are not there, or not of this warp's part, become 0.
void FragmentGenerator::copyRows(Value chunk, int64_t slot) {
  Value slotOffset = device.integer(slot * tile.rows() * kRowBytes);
  for (Copy &copy : copies) {
    auto start = [&] {
      Value left = device.sub(copy.bytes, device.mul(chunk, kRowBytes));
      Value bytes =
          device.min(device.max(left, device.integer(0)), device.integer(16));
      device.copyAsync(
          device.at(copy.target, device.i8(), slotOffset),
          device.at(copy.source, device.f16(), device.mul(chunk, kChunk)),
          bytes);
    };
    if (copy.isMine)
      device.ifThen(copy.isMine, start);
    else
      start();
  }
  device.commitCopies();
}

/// Four words. Beyond the end of this warp's part, where rows are 0, nothing is
/// read.
Value FragmentGenerator::loadCodes(int64_t output, Value chunk, int64_t part) {
  auto type = device.vector(4, device.i32());
  Value load = device.add(device.mul(chunk, 32 * loadsPerChunk()), 32 * part);
  Value address = device.at(codesOfTile[output], type, load);
  return device.loadConstantIf(device.less(chunk, end), type, address, 16);
}

Value FragmentGenerator::loadParameters(int64_t output, Value chunk,
                                        int64_t part) {
  int64_t numbers = kernel.weight.hasZeros() ? 4 : 2;
  auto type = device.vector(numbers, device.f16());
  Value group = device.integer(0);
  if (kernel.weight.group != 0)
    group = device.divide(device.add(device.mul(chunk, kChunk), part * 32),
                          kernel.weight.group);
  Value address =
      device.at(parametersOfTile[output], type, device.mul(group, 8));
  return device.loadConstantIf(device.less(chunk, end), type, address,
                               2 * numbers);
}

GroupParameters FragmentGenerator::unpackParameters(Value loaded) {
  const FragmentWeight &weight = kernel.weight;
  GroupParameters parameters;
  parameters.scales =
      device.fromLanes({device.lane(loaded, 0), device.lane(loaded, 1)});
  for (int64_t i = 0; i < 2 && weight.storage.isInteger(); ++i)
    parameters.biases.push_back(
        weight.hasZeros() ? device.splat(device.lane(loaded, 2 + i), 2)
                          : device.number(device.vector(2, device.f16()),
                                          getSignedBias(weight.storage, i)));
  return parameters;
}

//===----------------------------------------------------------------------===//
// The product
//===----------------------------------------------------------------------===//

/// The warps that share a ring of chunks.
void FragmentGenerator::synchronize() {
  if (tile.asWarpgroups)
    device.fenceSharedForAsync();
  if (tile.warpsAlongN == 1)
    device.syncWarp();
  else if (tile.warpsAlongK == 1)
    device.barrier();
  else
    device.barrier(device.add(warpAlongK, 1), 32 * tile.warpsAlongN);
}

/// The registers of A: outputs g, g + 8, g and g + 8. `packed` is a chunk of
/// all tiles.
Values FragmentGenerator::unpackWeights(ValueRange packed, int64_t output,
                                        int64_t step,
                                        const GroupParameters &parameters) {
  constexpr int64_t wordsPerLoad = 4;
  int64_t wordsPerStep = loadsPerChunk();
  Values words;
  for (int64_t i = 0; i < wordsPerStep; ++i) {
    int64_t word = step * wordsPerStep + i;
    Value load = packed[output * loadsPerChunk() + word / wordsPerLoad];
    words.push_back(device.lane(load, word % wordsPerLoad));
  }
  Values registers =
      unpackCodes(device, kernel.weight.storage, words, parameters.biases);
  if (scalesWeights())
    for (auto [i, value] : llvm::enumerate(registers))
      value = device.fmul(
          value, device.splat(device.lane(parameters.scales, i % 2), 2));
  return registers;
}

/// Adds the products of 32 inputs to `sums`.
void FragmentGenerator::multiplyHalf(ValueRange packed,
                                     ArrayRef<GroupParameters> parameters,
                                     int64_t slot, int64_t half,
                                     MutableArrayRef<Value> sums) {
  constexpr int64_t steps = 2, registers = 4;
  SmallVector<Values> weights;
  for (int64_t output = 0; output < tile.outputTiles; ++output) {
    weights.emplace_back();
    for (int64_t step = 0; step < steps; ++step)
      llvm::append_range(weights.back(),
                         unpackWeights(packed, output, steps * half + step,
                                       parameters[output]));
  }
  for (int64_t row = 0; row < tile.rowTiles; ++row) {
    int64_t offset = (slot * tile.rows() + row * kRows) * kRowBytes;
    Values rows = device.loadMatrices(
        device.at(matrices[half], device.i8(), device.integer(offset)));
    for (int64_t step = 0; step < steps; ++step)
      for (int64_t output = 0; output < tile.outputTiles; ++output) {
        auto target = sums.slice(sumIndex(output, row), kAccumulators);
        Values product = device.multiply(
            ValueRange(weights[output]).slice(registers * step, registers),
            ValueRange(rows).slice(2 * step, 2), ValueRange(target));
        llvm::copy(product, target.begin());
      }
  }
}

/// sums += groupSums · scale.
void FragmentGenerator::addScaled(MutableArrayRef<Value> sums,
                                  ArrayRef<Value> groupSums,
                                  ArrayRef<GroupParameters> parameters) {
  for (int64_t output = 0; output < tile.outputTiles; ++output) {
    Value scales[2];
    for (int64_t i = 0; i < 2; ++i)
      scales[i] = device.extend(device.lane(parameters[output].scales, i),
                                device.f32());
    for (int64_t row = 0; row < tile.rowTiles; ++row)
      for (int64_t i = 0; i < kAccumulators; ++i) {
        int64_t index = sumIndex(output, row) + i;
        sums[index] = device.fma(groupSums[index], scales[i / 2], sums[index]);
      }
  }
}

/// Adds the products of a chunk to `sums`, by way of `groupSums` if the sums of
/// a group have accumulators of their own. `loaded` has the parameters of each
/// tile, or of each tile and half.
void FragmentGenerator::multiplyChunk(ValueRange packed, ValueRange loaded,
                                      int64_t slot, MutableArrayRef<Value> sums,
                                      MutableArrayRef<Value> groupSums) {
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<GroupParameters> parameters;
    for (int64_t output = 0; output < tile.outputTiles; ++output)
      parameters.push_back(unpackParameters(
          loaded[output * scalesPerChunk() + half % scalesPerChunk()]));
    if (!hasGroupSums()) {
      multiplyHalf(packed, parameters, slot, half, sums);
      continue;
    }
    int64_t position = 2 * slot + half;
    if (position % halvesPerScale() == 0)
      llvm::fill(groupSums, device.number(device.f32(), 0));
    multiplyHalf(packed, parameters, slot, half, groupSums);
    if ((position + 1) % halvesPerScale() == 0)
      addScaled(sums, groupSums, parameters);
  }
}

/// Adds the products of a chunk to `sums`, which may be under way until
/// waitForProducts.
void FragmentGenerator::multiplyChunkAsync(ValueRange packed, ValueRange loaded,
                                           int64_t slot,
                                           MutableArrayRef<Value> sums) {
  constexpr int64_t steps = 4;
  int64_t sumsPerTile = tile.rowTiles * kAccumulators;
  for (int64_t step = 0; step < steps; ++step) {
    SmallVector<Values> weights;
    for (int64_t output = 0; output < tile.outputTiles; ++output) {
      int64_t part = step * scalesPerChunk() / steps;
      GroupParameters parameters =
          unpackParameters(loaded[output * scalesPerChunk() + part]);
      weights.push_back(unpackWeights(packed, output, step, parameters));
    }
    Value rows = device.moveDescriptor(
        rowDescriptor, slot * tile.rows() * kRowBytes + step * 32);
    device.fenceRegisters();
    for (int64_t output = 0; output < tile.outputTiles; ++output) {
      auto target = sums.slice(sumIndex(output, 0), sumsPerTile);
      llvm::copy(device.multiplyAsync(weights[output], rows, target),
                 target.begin());
    }
    device.commitProducts();
    // Weights of the next step are unpacked while this one is under way.
    bool isLast = step + 1 == steps && slot + 1 == tile.stages;
    device.waitForProducts(isLast ? 0 : 1);
  }
}

/// The sums over this warp's chunks.
Values FragmentGenerator::multiplyShare() {
  // A round of the loop carries the codes of the chunks ahead, of each tile,
  // their parameters, and the sums.
  bool loadsParameters = kernel.weight.group != 0;
  int64_t stages = tile.stages, outputs = tile.outputTiles;
  int64_t ahead = codesAhead(), rowsAhead = stages - rowSlack();
  int64_t period = chunksPerScale(), parts = scalesPerChunk();
  int64_t loads = loadsPerChunk(), firstParameter = ahead * outputs * loads;
  int64_t firstSum =
      firstParameter + (loadsParameters ? ahead / period * outputs * parts : 0);
  auto codesAt = [&](MutableArrayRef<Value> state, int64_t stage) {
    return state.slice(stage % ahead * outputs * loads, outputs * loads);
  };
  auto parametersAt = [&](MutableArrayRef<Value> state, int64_t stage) {
    return state.slice(firstParameter +
                           stage % ahead / period * outputs * parts,
                       outputs * parts);
  };
  auto load = [&](MutableArrayRef<Value> state, int64_t stage, Value chunk) {
    for (auto [i, codes] : llvm::enumerate(codesAt(state, stage)))
      codes = loadCodes(i / loads, chunk, i % loads);
    // Parameters are needed until the last chunk of their period.
    if (!loadsParameters || stage % period != period - 1)
      return;
    Value first = device.add(chunk, 1 - period);
    for (auto [i, value] : llvm::enumerate(parametersAt(state, stage)))
      value = loadParameters(i / parts, first, i % parts);
  };

  Values state(firstSum);
  for (int64_t stage = 0; stage < ahead; ++stage)
    load(state, stage, device.add(begin, stage));
  if (kernel.overlaps) {
    device.letNextKernelStart();
    device.waitForKernelBefore();
  }
  for (int64_t stage = 0; stage < rowsAhead; ++stage)
    copyRows(device.add(begin, stage), stage);
  Value zero = device.number(device.f32(), 0);
  state.append(numSums(), zero);
  Values perChannel;
  for (int64_t output = 0; !loadsParameters && output < outputs; ++output)
    perChannel.push_back(loadParameters(output, begin, 0));

  auto body = [&](Value first, ValueRange values) {
    Values next(values);
    MutableArrayRef<Value> sums =
        MutableArrayRef<Value>(next).drop_front(firstSum);
    Values groupSums(numSums());
    for (int64_t stage = 0; stage < stages; ++stage) {
      Value chunk = device.add(first, stage);
      device.waitForCopies(rowsAhead - 1);
      synchronize();
      copyRows(device.add(chunk, rowsAhead), (stage + rowsAhead) % stages);
      Values codes(codesAt(next, stage));
      Values parameters(loadsParameters ? Values(parametersAt(next, stage))
                                        : perChannel);
      load(next, stage, device.add(chunk, ahead));
      if (tile.asWarpgroups)
        multiplyChunkAsync(codes, parameters, stage, sums);
      else
        multiplyChunk(codes, parameters, stage, sums, groupSums);
    }
    return next;
  };
  Values last = device.loop(begin, end, device.integer(stages), state, body);
  Values sums(ArrayRef<Value>(last).drop_front(firstSum));
  if (loadsParameters)
    return sums;
  SmallVector<GroupParameters> parameters;
  for (Value loaded : perChannel)
    parameters.push_back(unpackParameters(loaded));
  Values scaled(numSums(), zero);
  addScaled(scaled, sums, parameters);
  return scaled;
}

void FragmentGenerator::build() {
  findPlace();
  findShare();
  prepareCopies();
  prepareFragments();
  Values sums = multiplyShare();
  device.waitForCopies(0);
  int64_t rowTiles = rowTilesPerPass();
  for (int64_t first = 0; first < tile.rowTiles; first += rowTiles) {
    device.barrier();
    storeSums(sums, first, rowTiles);
    device.barrier();
    reduce(first, rowTiles);
  }
  device.ifThen(device.less(device.integer(1), device.gridSize(2)),
                [&] { reduceSplits(); });
}

void nibble::buildFragmentMatmul(ModuleOp module,
                                 const FragmentMatmul &kernel) {
  OpBuilder builder(module.getContext());
  auto pointer =
      LLVM::LLVMPointerType::get(module.getContext(), DeviceBuilder::kGlobal);
  SmallVector<Type> arguments(7, pointer);
  arguments.append(6, builder.getI32Type());
  createKernel(module, kernel.getName(), arguments, kernel.tile.threads(),
               [&](DeviceBuilder &device, ValueRange values, Value shared) {
                 FragmentGenerator(device, kernel, values, shared).build();
               });
}
