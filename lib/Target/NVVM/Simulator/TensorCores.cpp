//===- TensorCores.cpp - What tensor cores do -----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Products of matrices in the registers of a warp or a warpgroup. Every product
// is exact and sums are f64, rounded once at the end: what hardware does in
// between is not specified (PTX ISA, "mma.sync", "precision").
//
//===----------------------------------------------------------------------===//

#include "Half.h"
#include "Machine.h"

#include "llvm/Support/FormatVariadic.h"

using namespace nibble;
using namespace nibble::simulator;

//===----------------------------------------------------------------------===//
// ldmatrix
//===----------------------------------------------------------------------===//

/// PTX ISA, "ldmatrix": lane 8m + i has the address of row i of matrix m, 16
/// bytes. Lane l gets the elements 2(l % 4) and the next of row l / 4 or, with
/// .trans, of that column.
template <unsigned count, bool isTransposed>
static void loadMatrices(const Lanes &lanes) {
  constexpr unsigned size = 8;
  for (unsigned matrix = 0; matrix < count; ++matrix) {
    uint16_t rows[size][size];
    for (unsigned row = 0; row < size; ++row) {
      unsigned lane = size * matrix + row;
      auto address = lanes.argument<uint64_t>(lane, 0);
      lanes.machine.accessShared(lanes.thread(lane), address, sizeof(rows[row]),
                                 sizeof(rows[row]), AccessKind::Read);
      std::memcpy(rows[row], toPointer(address), sizeof(rows[row]));
    }
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      unsigned row = lane / 4, column = lane % 4 * 2;
      uint32_t low = isTransposed ? rows[column][row] : rows[row][column];
      uint32_t high =
          isTransposed ? rows[column + 1][row] : rows[row][column + 1];
      lanes.setResult(lane, matrix, low | high << 16);
    }
  }
}

//===----------------------------------------------------------------------===//
// mma
//===----------------------------------------------------------------------===//

namespace {
/// Element types: how many a register has, and their numbers.
struct Half {
  using Bits = uint16_t;
  using Sum = double;
  using Result = float;
  static Sum decode(Bits bits) { return decodeHalf(bits); }
};
struct BrainFloat {
  using Bits = uint16_t;
  using Sum = double;
  using Result = float;
  static Sum decode(Bits bits) { return decodeBrainFloat(bits); }
};
struct Byte {
  using Bits = int8_t;
  /// Without .satfinite, sums wrap around.
  using Sum = uint32_t;
  using Result = uint32_t;
  static Sum decode(Bits bits) { return int32_t(bits); }
};
} // namespace

/// D = A·B + C of 16×K by K×8, where K is four registers of elements (PTX ISA,
/// "Matrix fragments for mma.m16n8k16" and "… mma.m16n8k32"): A has 4 registers
/// a lane, B 2 and C 4.
template <typename Element> static void multiply(const Lanes &lanes) {
  using Bits = typename Element::Bits;
  using Sum = typename Element::Sum;
  using Result = typename Element::Result;
  constexpr unsigned packed = sizeof(uint32_t) / sizeof(Bits);
  constexpr unsigned M = 16, N = 8, K = 8 * packed;
  constexpr unsigned registersOfA = 4, registersOfB = 2, registersOfC = 4;
  constexpr unsigned firstOfC = registersOfA + registersOfB;
  using Register = std::array<Bits, packed>;

  Sum a[M][K], b[K][N], c[M][N];
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    unsigned group = lane / 4, firstInput = lane % 4 * packed;
    for (unsigned r = 0; r < registersOfA; ++r) {
      auto bits = lanes.argument<Register>(lane, r);
      for (unsigned i = 0; i < packed; ++i)
        a[group + r % 2 * 8][r / 2 * 4 * packed + firstInput + i] =
            Element::decode(bits[i]);
    }
    for (unsigned r = 0; r < registersOfB; ++r) {
      auto bits = lanes.argument<Register>(lane, registersOfA + r);
      for (unsigned i = 0; i < packed; ++i)
        b[r * 4 * packed + firstInput + i][group] = Element::decode(bits[i]);
    }
    for (unsigned r = 0; r < registersOfC; ++r)
      c[group + r / 2 * 8][lane % 4 * 2 + r % 2] =
          lanes.argument<Result>(lane, firstOfC + r);
  }
  for (unsigned m = 0; m < M; ++m)
    for (unsigned k = 0; k < K; ++k)
      for (unsigned n = 0; n < N; ++n)
        c[m][n] += a[m][k] * b[k][n];
  for (unsigned lane = 0; lane < kWarp; ++lane)
    for (unsigned r = 0; r < registersOfC; ++r)
      lanes.setResult(lane, r,
                      Result(c[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2]));
}

//===----------------------------------------------------------------------===//
// wgmma
//===----------------------------------------------------------------------===//

namespace {
/// B of wgmma in shared memory: rows of 64 inputs (PTX ISA, "Matrix descriptor
/// format" and "Swizzling modes").
struct RowsInShared {
  uint64_t first = 0;
  uint64_t bytesPerEightRows = 0;

  /// Where 16 bytes of a row start: swizzling exchanges pieces of 16 bytes
  /// among the 128 of a row.
  uint64_t at(unsigned row, unsigned piece) const {
    uint64_t address =
        first + row / 8 * bytesPerEightRows + row % 8 * 128 + piece * 16;
    return address ^ (address >> 7 & 7) << 4;
  }
};
} // namespace

static RowsInShared readDescriptor(const Lanes &lanes, uint64_t descriptor) {
  constexpr uint64_t field = 0x3fff;
  bool isSwizzled = descriptor >> 62 == 1;
  bool hasBaseOffset = (descriptor >> 49 & 7) != 0;
  if (!isSwizzled || hasBaseOffset)
    lanes.machine.stop("wgmma with a descriptor that the simulator does not "
                       "know: swizzle is not 128 bytes, or a base offset",
                       *lanes.first);
  return {lanes.machine.sharedAddress() + ((descriptor & field) << 4),
          (descriptor >> 32 & field) << 4};
}

/// D = A·B + D of 64×16 by 16×N: four registers of A, the descriptor of B, and
/// N / 2 sums (PTX ISA, "Register fragments for wgmma.mma_async.m64nNk16").
/// Results are there at once; the checker knows that B is read until the wait.
static void multiplyRows(const Lanes &lanes, unsigned N) {
  constexpr unsigned K = 16, maxN = 256, kWarpgroup = 128;
  constexpr unsigned descriptorIndex = 4, firstSum = 5;
  auto descriptor = lanes.argument<uint64_t>(0, descriptorIndex);
  for (unsigned lane = 1; lane < kWarpgroup; ++lane)
    if (lanes.argument<uint64_t>(lane, descriptorIndex) != descriptor)
      lanes.machine.stop("wgmma with different descriptors", *lanes.first);
  RowsInShared rows = readDescriptor(lanes, descriptor);
  static thread_local double b[maxN][K];
  for (unsigned n = 0; n < N; ++n)
    for (unsigned piece = 0; piece < 2; ++piece) {
      std::array<uint16_t, 8> bits;
      uint64_t address = rows.at(n, piece);
      if (AccessChecker *checker = lanes.machine.getChecker())
        checker->startProduct(*lanes.first, address, sizeof(bits));
      std::memcpy(&bits, toPointer(address), sizeof(bits));
      for (unsigned i = 0; i < bits.size(); ++i)
        b[n][piece * 8 + i] = decodeHalf(bits[i]);
    }
  static thread_local double a[64][K];
  for (unsigned lane = 0; lane < kWarpgroup; ++lane)
    for (unsigned r = 0; r < 4; ++r) {
      auto bits = lanes.argument<std::array<uint16_t, 2>>(lane, r);
      for (unsigned i = 0; i < 2; ++i)
        a[lane / kWarp * 16 + lane % kWarp / 4 + r % 2 * 8]
         [r / 2 * 8 + lane % 4 * 2 + i] = decodeHalf(bits[i]);
    }
  for (unsigned lane = 0; lane < kWarpgroup; ++lane)
    for (unsigned i = 0; i < N / 2; ++i) {
      unsigned m = lane / kWarp * 16 + lane % kWarp / 4 + i / 2 % 2 * 8;
      unsigned n = i / 4 * 8 + lane % 4 * 2 + i % 2;
      double sum = lanes.argument<float>(lane, firstSum + i);
      for (unsigned k = 0; k < K; ++k)
        sum += a[m][k] * b[n][k];
      lanes.setResult(lane, i, float(sum));
    }
}

static void commitProducts(const Lanes &lanes) {
  AccessChecker *checker = lanes.machine.getChecker();
  if (checker && lanes.first->index % 128 == 0)
    checker->commitProducts(*lanes.first);
}

static void waitForProducts(const Lanes &lanes) {
  AccessChecker *checker = lanes.machine.getChecker();
  if (checker && lanes.first->index % 128 == 0)
    checker->waitForProducts(*lanes.first, lanes.argument<uint64_t>(0));
}

/// "{$0,$1,…}".
static std::string listOperands(unsigned first, unsigned count) {
  std::string text;
  for (unsigned i = 0; i < count; ++i)
    text += (i == 0 ? "{$" : ",$") + std::to_string(first + i);
  return text + "}";
}

/// A in registers, both operands as they are, D += A·B.
static std::string printProduct(unsigned N) {
  unsigned sums = N / 2;
  return llvm::formatv("wgmma.mma_async.sync.aligned.m64n{0}k16.f32.f16.f16 "
                       "{1},{2},${3},1,1,1,0;",
                       N, listOperands(0, sums), listOperands(sums, 4),
                       sums + 4)
      .str();
}

//===----------------------------------------------------------------------===//
// The table
//===----------------------------------------------------------------------===//

void nibble::simulator::addTensorCoreOperations(std::vector<Operation> &table) {
  constexpr int all = -1;
  constexpr unsigned warpgroup = 128;
  auto addLoad = [&](const char *form, auto function) {
    table.push_back({llvm::formatv("llvm.nvvm.ldmatrix.sync.aligned.m8n8.{0}"
                                   ".b16.p3",
                                   form)
                         .str(),
                     kWarp, all, function});
  };
  addLoad("x1", loadMatrices<1, false>);
  addLoad("x2", loadMatrices<2, false>);
  addLoad("x4", loadMatrices<4, false>);
  addLoad("x1.trans", loadMatrices<1, true>);
  addLoad("x2.trans", loadMatrices<2, true>);
  addLoad("x4.trans", loadMatrices<4, true>);
  auto add = [&](const char *name, unsigned width, auto function) {
    table.push_back({name, width, all, function});
  };
  add("llvm.nvvm.mma.m16n8k16.row.col.f32.f32", kWarp, multiply<Half>);
  add("llvm.nvvm.mma.m16n8k16.row.col.bf16", kWarp, multiply<BrainFloat>);
  add("llvm.nvvm.mma.m16n8k32.row.col.s8", kWarp, multiply<Byte>);
  // Registers are values here: nothing to be fenced.
  add("llvm.nvvm.wgmma.fence.sync.aligned", kWarp, [](const Lanes &) {});
  add("llvm.nvvm.wgmma.commit_group.sync.aligned", kWarp, commitProducts);
  add("llvm.nvvm.wgmma.wait_group.sync.aligned", kWarp, waitForProducts);
  for (unsigned N = 8; N <= 256; N += 8)
    table.push_back({printProduct(N), warpgroup, all,
                     [N](const Lanes &lanes) { multiplyRows(lanes, N); }});
}
