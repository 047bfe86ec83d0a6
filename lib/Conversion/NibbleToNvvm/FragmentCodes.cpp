//===- FragmentCodes.cpp - Packed codes as f16 numbers --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Each way turns all codes of a word with few instructions: one lop3 and one
// addition for two integers, three byte permutations for a byte of four numbers
// of a code book, two lop3 and one multiplication for two 8-bit floats.
//
//===----------------------------------------------------------------------===//

#include "FragmentCodes.h"

#include <array>

using namespace mlir;
using namespace nibble;

static constexpr int64_t kEvenBytes = 0x00ff00ff, kOddBytes = 0xff00ff00;

/// Two f16 numbers of 1024 + (the bits of `mask`).
static Value addTo1024(DeviceBuilder &device, Value bits, int64_t mask) {
  constexpr int64_t magic = 0x64006400;
  return device.bitcast(device.bitOr(device.bitAnd(bits, mask), magic),
                        device.vector(2, device.f16()));
}

static void unpackNibbles(DeviceBuilder &device, Value word, ValueRange biases,
                          Values &registers) {
  Value sixteenth =
      device.number(device.vector(2, device.f16()), 1.0 / (1 << 4));
  for (int64_t shift : {0, 8}) {
    Value bits = shift == 0 ? word : device.shiftRight(word, shift);
    Value low = addTo1024(device, bits, 0x000f000f);
    Value high = addTo1024(device, bits, 0x00f000f0);
    registers.push_back(device.fadd(low, biases[0]));
    registers.push_back(device.fma(high, sixteenth, biases[1]));
  }
}

static void unpackBytes(DeviceBuilder &device, Value word, ValueRange biases,
                        Values &registers) {
  for (int64_t i = 0; i < 2; ++i) {
    Value bits = i == 0 ? word : device.shiftRight(word, 8);
    registers.push_back(
        device.fadd(addTo1024(device, bits, kEvenBytes), biases[i]));
  }
}

/// An f16 has an f8E5M2 as its upper byte. An f8E4M3FN has one bit less of
/// exponent: moved down by it, its number, denormals too, is that of an f16
/// divided by 2⁸. Its NaN is lost, which no quantizer writes.
static void unpackFloats(DeviceBuilder &device, Value word,
                         const StorageFormat &storage, Values &registers) {
  auto halves = device.vector(2, device.f16());
  for (int64_t i = 0; i < 2; ++i) {
    Value bits =
        device.bitAnd(i == 0 ? device.shiftLeft(word, 8) : word, kOddBytes);
    if (storage.floatFormat == FloatFormat::F8E5M2) {
      registers.push_back(device.bitcast(bits, halves));
      continue;
    }
    Value magnitude = device.bitAnd(device.shiftRight(bits, 1), 0x3f803f80);
    Value moved = device.bitOr(device.bitAnd(bits, 0x80008000), magnitude);
    registers.push_back(device.fmul(device.bitcast(moved, halves),
                                    device.number(halves, 1 << 8)));
  }
}

namespace {
/// One byte of sixteen f16 numbers, in four words.
using ByteTable = std::array<uint32_t, 4>;
} // namespace

static ByteTable makeTable(const StorageFormat &storage, unsigned byte) {
  ByteTable table = {};
  for (unsigned code = 0; code < 16; ++code) {
    float value = codeValue(storage, static_cast<uint8_t>(code));
    uint32_t bits = encodeFloat(FloatFormat::F16, value) >> (8 * byte) & 0xff;
    table[code / 4] |= bits << (code % 4 * 8);
  }
  return table;
}

/// A byte permutation looks up eight entries by three bits; another one picks
/// between two of those by the fourth.
static void unpackTable(DeviceBuilder &device, Value word,
                        const StorageFormat &storage, Values &registers) {
  ByteTable tables[2] = {makeTable(storage, 0), makeTable(storage, 1)};
  Value entries = device.bitAnd(word, 0x77777777);
  Value fourthBits = device.bitAnd(device.shiftRight(word, 1), 0x44444444);
  Value sides = device.bitOr(fourthBits, 0x32103210);
  for (int64_t shift : {0, 16}) {
    Value entry = device.shiftRight(entries, shift);
    Value side = device.shiftRight(sides, shift);
    Value bytes[2];
    for (int64_t i = 0; i < 2; ++i) {
      auto look = [&](int64_t first) {
        return device.permuteBytes(
            device.integer(int32_t(tables[i][first])),
            device.integer(int32_t(tables[i][first + 1])), entry);
      };
      bytes[i] = device.permuteBytes(look(0), look(2), side);
    }
    for (int64_t selector : {0x5140, 0x7362})
      registers.push_back(device.bitcast(
          device.permuteBytes(bytes[0], bytes[1], device.integer(selector)),
          device.vector(2, device.f16())));
  }
}

Values nibble::unpackCodes(DeviceBuilder &device, const StorageFormat &storage,
                           ValueRange words, ValueRange biases) {
  Values registers;
  for (Value word : words) {
    if (storage.isInteger() && storage.bits == 4)
      unpackNibbles(device, word, biases, registers);
    else if (storage.isInteger())
      unpackBytes(device, word, biases, registers);
    else if (storage.bits == 8)
      unpackFloats(device, word, storage, registers);
    else
      unpackTable(device, word, storage, registers);
  }
  return registers;
}

double nibble::getSignedBias(const StorageFormat &storage, int64_t i) {
  if (storage.bits == 8)
    return -1024.0 - 128.0;
  return i == 0 ? -1024.0 - 8.0 : -64.0 - 8.0;
}
