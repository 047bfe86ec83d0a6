//===- Operations.h - What NVVM operations do -------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Arguments and results of an operation are words of eight bytes, one a value
// or a member of a struct, so that no calling convention is in the way. An
// operation of a warp or a warpgroup sees the words of all its lanes.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_OPERATIONS_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_OPERATIONS_H

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace nibble::simulator {

class Machine;
struct DeviceThread;

/// The threads that execute an operation together.
struct Lanes {
  Machine &machine;
  DeviceThread *first;
  unsigned width;
  /// Which of them take part, of a warp.
  uint32_t mask;

  template <typename T> T argument(unsigned lane, unsigned index) const {
    T value;
    std::memcpy(&value, arguments(lane) + index, sizeof(T));
    return value;
  }
  /// For operations of one thread.
  template <typename T> T argument(unsigned index) const {
    return argument<T>(0, index);
  }
  template <typename T>
  void setResult(unsigned lane, unsigned index, T value) const {
    std::memcpy(results(lane) + index, &value, sizeof(T));
  }
  bool has(unsigned lane) const { return width > 32 || mask >> lane & 1; }
  DeviceThread &thread(unsigned lane) const;

private:
  const uint64_t *arguments(unsigned lane) const;
  uint64_t *results(unsigned lane) const;
};

struct Operation {
  /// The intrinsic's name or the inline assembly's text.
  std::string name;
  /// Threads that execute it together: 1, 32 (a warp) or 128 (a warpgroup).
  unsigned width;
  /// Which argument names the lanes that take part; -1: all of them do, at the
  /// same instruction (".aligned").
  int maskArgument;
  std::function<void(const Lanes &)> run;
};

/// The operation called `name`; null where there is none.
const Operation *findOperation(llvm::StringRef name);

/// All operations, by name.
const std::vector<Operation> &getOperations();

/// Adds those of tensor cores to a table.
void addTensorCoreOperations(std::vector<Operation> &table);

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_OPERATIONS_H
