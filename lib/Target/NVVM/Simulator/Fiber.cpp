//===- Fiber.cpp - Stacks to switch between -------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Fiber.h"

#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

using namespace nibble::simulator;

//===----------------------------------------------------------------------===//
// Stacks
//===----------------------------------------------------------------------===//

FiberStacks::~FiberStacks() {
  if (memory)
    munmap(memory, bytes);
}

bool FiberStacks::reserve(size_t count) {
  if (count * kBytes <= bytes)
    return true;
  if (memory)
    munmap(memory, bytes);
  bytes = count * kBytes;
  void *mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    memory = nullptr;
    bytes = 0;
    return false;
  }
  memory = static_cast<uint8_t *>(mapped);
  for (size_t i = 0; i < count; ++i)
    mprotect(get(i), sysconf(_SC_PAGESIZE), PROT_NONE);
  return true;
}

uint8_t *FiberStacks::get(size_t index) const {
  return memory + index * kBytes;
}

//===----------------------------------------------------------------------===//
// AddressSanitizer
//===----------------------------------------------------------------------===//

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBBLE_ADDRESS_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define NIBBLE_ADDRESS_SANITIZER 1
#endif

#ifdef NIBBLE_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>

/// The stack of whoever ran the first fiber.
static thread_local const void *processStack;
static thread_local size_t processStackBytes;

static void leaveStack(void **frames, const Fiber &to) {
  const void *stack = to.stack ? to.stack : processStack;
  __sanitizer_start_switch_fiber(
      frames, stack, to.stack ? FiberStacks::kBytes : processStackBytes);
}
static void enterStack(void *frames) {
  const void *stack = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(frames, &stack, &bytes);
  if (!processStack) {
    processStack = stack;
    processStackBytes = bytes;
  }
}
static void forgetFrames(uint8_t *stack) {
  size_t guard = sysconf(_SC_PAGESIZE);
  __asan_unpoison_memory_region(stack + guard, FiberStacks::kBytes - guard);
}
#else
static void leaveStack(void **, const Fiber &) {}
static void enterStack(void *) {}
static void forgetFrames(uint8_t *) {}
#endif

//===----------------------------------------------------------------------===//
// Switching
//===----------------------------------------------------------------------===//

#if defined(__x86_64__) && defined(__ELF__)

// The registers that a call keeps, and the place to go on: System V ABI, AMD64
// supplement, 3.2.1. A new fiber starts with its function in r13 and the
// argument in r12.
asm(R"(
  .text
  .hidden nibble_switch_fiber
  .globl nibble_switch_fiber
  .type nibble_switch_fiber, @function
nibble_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
  .size nibble_switch_fiber, . - nibble_switch_fiber

  .hidden nibble_start_fiber
  .globl nibble_start_fiber
  .type nibble_start_fiber, @function
nibble_start_fiber:
  movq %r12, %rdi
  callq *%r13
  ud2
  .size nibble_start_fiber, . - nibble_start_fiber
)");

// NOLINTBEGIN(readability-identifier-naming): names in assembly.
extern "C" void nibble_switch_fiber(void **from, void *to);
extern "C" void nibble_start_fiber();
// NOLINTEND(readability-identifier-naming)

bool nibble::simulator::hasFibers() { return true; }

static void switchStack(void **from, void *to) {
  nibble_switch_fiber(from, to);
}
static void *getStart() {
  return reinterpret_cast<void *>(&nibble_start_fiber);
}

#else

bool nibble::simulator::hasFibers() { return false; }

static void switchStack(void **, void *) {}
static void *getStart() { return nullptr; }

#endif

void nibble::simulator::prepareFiber(Fiber &fiber, uint8_t *stack,
                                     void (*entry)(void *), void *argument) {
  forgetFrames(stack);
  // Frames of neighbouring fibers start in different sets of the caches.
  size_t colour = reinterpret_cast<uintptr_t>(stack) / FiberStacks::kBytes % 16;
  uint8_t *end = stack + FiberStacks::kBytes - colour * 192;
  // What nibble_switch_fiber pops; behind it the stack is 16-byte aligned.
  constexpr size_t registers = 6;
  void **frame = reinterpret_cast<void **>(end) - registers - 3;
  for (size_t i = 0; i < registers; ++i)
    frame[i] = nullptr;
  frame[2] = reinterpret_cast<void *>(entry);
  frame[3] = argument;
  frame[registers] = getStart();
  frame[registers + 1] = frame[registers + 2] = nullptr;
  fiber.stackPointer = static_cast<void *>(frame);
  fiber.stack = stack;
}

void nibble::simulator::switchFiber(Fiber &from, Fiber &to) {
  void *frames = nullptr;
  leaveStack(&frames, to);
  switchStack(&from.stackPointer, to.stackPointer);
  enterStack(frames);
}

void nibble::simulator::leaveFiber(Fiber &to) {
  // Without a place for them, what the sanitizer keeps of frames is freed, and
  // with it the local variables.
  static thread_local void *unused;
  leaveStack(nullptr, to);
  switchStack(&unused, to.stackPointer);
  std::abort();
}

void nibble::simulator::enterFiber() { enterStack(nullptr); }
