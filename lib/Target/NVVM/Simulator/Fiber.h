//===- Fiber.h - Stacks to switch between -----------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A fiber stands for each thread of a GPU. A switch saves the six registers
// that a call must keep and takes about ten nanoseconds; swapcontext, which
// asks the kernel for the signal mask, takes thirty times as long.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_FIBER_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_FIBER_H

#include <cstddef>
#include <cstdint>

namespace nibble::simulator {

/// Whether this machine has fibers: an x86-64 with the System V ABI.
bool hasFibers();

/// Where a thread stands while another one runs.
struct Fiber {
  void *stackPointer = nullptr;
  /// The lowest byte; null for the stack of the process.
  uint8_t *stack = nullptr;
};

/// Memory of `count` stacks, each with a page below it that may not be touched.
class FiberStacks {
public:
  /// One stack: unoptimised code of a large kernel takes 100 KiB.
  static constexpr size_t kBytes = size_t(1) << 20;

  FiberStacks() = default;
  FiberStacks(const FiberStacks &) = delete;
  FiberStacks &operator=(const FiberStacks &) = delete;
  ~FiberStacks();

  /// Makes room for `count` stacks; false where there is no memory.
  bool reserve(size_t count);
  uint8_t *get(size_t index) const;

private:
  uint8_t *memory = nullptr;
  size_t bytes = 0;
};

/// Makes `fiber` one that calls `entry(argument)` on `stack` when it is first
/// switched to. `entry` may not return.
void prepareFiber(Fiber &fiber, uint8_t *stack, void (*entry)(void *),
                  void *argument);

/// Goes on with `to`, until something switches to `from` again.
void switchFiber(Fiber &from, Fiber &to);

/// Goes on with `to`, for good.
[[noreturn]] void leaveFiber(Fiber &to);

/// The first thing that a fiber's entry has to call.
void enterFiber();

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_FIBER_H
